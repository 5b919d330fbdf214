"""Two domains that are right.  Imported by name, also by other processes."""

from collections.abc import Sequence
from typing import Any

import msgspec

from ultraengine.execution.layouts import HashLayout, LayoutDomain, SortedLayout
from ultraengine.model.domain import Accepted, CommandSpec, Rejection
from ultraengine.model.errors import Malformed


class Add(msgspec.Struct, forbid_unknown_fields=True):
    """Data of ``add``."""

    n: int


class Added(msgspec.Struct, array_like=True, tag="added"):
    """An event."""

    n: int
    total: int


class Box(msgspec.Struct, array_like=True):
    """A mutable value."""

    total: int


class Right(LayoutDomain):
    """Adds up to 30 per key."""

    name = "tally"
    events = Added

    def __init__(self) -> None:
        self.commands = (
            CommandSpec(name="add", data=Add, decide=self.decide, prepare=self.prepare),
        )

    def new_state(self) -> Any:
        return HashLayout(tuple[str, str], Box)

    def prepare(self, data: Add) -> Add:
        if data.n > 100:
            raise Malformed("too many", pointer="/data/n")
        return data

    def decide(self, state: Any, data: Add, context: Any) -> Accepted | Rejection:
        box = state.get((context.tenant, context.key))
        total = (box.total if box else 0) + data.n
        return Rejection("too_much") if total > 30 else Accepted((Added(data.n, total),), total)

    def evolve(self, state: Any, event: Added, at: Any) -> None:
        key = (at.tenant, at.key)
        if state.get(key) is None:
            state.put(key, Box(0))
        state.get(key).total += event.n
        state.touch(key)


class Set(msgspec.Struct, forbid_unknown_fields=True):
    """Data of ``set``: alarms, each after some seconds."""

    alarms: list[int]
    dry: bool = False


class Armed(msgspec.Struct, array_like=True, tag="armed"):
    """An alarm was set."""

    due: int
    number: int


class Rang(msgspec.Struct, array_like=True, tag="rang"):
    """An alarm rang."""

    due: int
    number: int


class Clocks:
    """Alarms by time, and how many there are for each key."""

    def __init__(self) -> None:
        self.queue: Any = SortedLayout(tuple[int, str, str, int], int)
        self.numbers: Any = HashLayout(tuple[str, str], int)


class Alarms(LayoutDomain):
    """A right domain with timers and with commands of many items."""

    name = "alarms"
    events = Armed | Rang

    def __init__(self) -> None:
        self.commands = (
            CommandSpec(
                name="set",
                data=Set,
                items=lambda data: data.alarms,
                decide_item=self.decide_item,
                fold=self.fold,
                dry_run=lambda data: data.dry,
                overlay=_copied,
            ),
        )

    def new_state(self) -> Clocks:
        return Clocks()

    def parts(self, state: Clocks) -> Any:
        return {"queue": state.queue, "numbers": state.numbers}

    def decide_item(self, state: Clocks, seconds: int, context: Any) -> Armed | Rejection:
        number = state.numbers.get((context.tenant, context.key)) or 0
        if number >= 6 or seconds < 0:
            return Rejection("no_more_alarms")
        return Armed(context.time + seconds * 1_000_000, number)

    def fold(self, items: Any, verdicts: Sequence[Any]) -> tuple[bool, Any, Rejection | None]:
        failures = [verdict for verdict in verdicts if isinstance(verdict, Rejection)]
        return len(failures) < len(items), len(failures), failures[0] if failures else None

    def evolve(self, state: Clocks, event: Armed | Rang, at: Any) -> None:
        place = (event.due, at.tenant, at.key, event.number)
        if isinstance(event, Rang):
            state.queue.remove(place)
            return
        state.queue.put(place, event.number)
        number = state.numbers.get((at.tenant, at.key)) or 0
        state.numbers.put((at.tenant, at.key), number + 1)

    def due(self, state: Clocks) -> Any:
        first = state.queue.first()
        return first[0][0] if first else None

    def expire(self, state: Clocks, now: Any, count_max: int) -> Sequence[tuple[str, str, Any]]:
        found = state.queue.after(None, count_max)
        return [
            (tenant, key, Rang(due, number))
            for (due, tenant, key, number), _ in found
            if due <= now
        ]


def _copied(state: Clocks) -> Clocks:
    copy = Clocks()
    for name in ("queue", "numbers"):
        for chunk in getattr(state, name).dump():
            getattr(copy, name).load(chunk)
    return copy


RIGHT = Right()
ALARMS = Alarms()
