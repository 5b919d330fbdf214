"""An executor whose memory is plain dictionaries: the reference for tests of domains.

`MemoryDedupe` and `MemoryHistory` keep everything and forget nothing.  `Bench` runs commands
through the real registry, pipeline and executor without a log, and keeps what a log would.
"""

from collections.abc import Callable, Sequence
from types import GenericAlias
from typing import Any

import msgspec

from ultraengine.execution.executor import Executor
from ultraengine.execution.pipeline import Hooks, Verdict
from ultraengine.execution.registry import Registry
from ultraengine.model.command import Command
from ultraengine.model.domain import Domain, History
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.model.outcome import Outcome

START = Instant(1_767_225_600_000_000)
"""2026-01-01T00:00:00Z: stamped time of the first command unless a test says otherwise."""


class MemoryDedupe:
    """Implements `execution.executor.Dedupe` without limits."""

    def __init__(self) -> None:
        self._offsets: dict[tuple[int, bytes], list[int]] = {}

    def find(self, slot: int, identity: bytes, /) -> tuple[int, ...]:
        """Offsets of this identity, newest first."""
        return tuple(reversed(self._offsets.get((slot, identity), ())))

    def add(self, slot: int, identity: bytes, offset: int, /) -> None:
        """Remember a command."""
        self._offsets.setdefault((slot, identity), []).append(offset)

    def drop_slot(self, slot: int, offset: int, /) -> None:
        """Forget the commands of one slot below `offset`."""
        for name, offsets in self._offsets.items():
            if name[0] == slot:
                offsets[:] = [one for one in offsets if one >= offset]

    def add_run(self, slot: int, identities: Sequence[bytes], offset: int, /) -> None:
        """Remember commands at consecutive offsets."""
        for number, identity in enumerate(identities, offset):
            self.add(slot, identity, number)

    def raise_floor(self, offset: int, /) -> None:
        """Nothing is ever forgotten."""

    def advance(self, time: Instant, offset_end: Offset, /) -> None:
        """Nothing is ever forgotten."""

    @property
    def floor_time(self) -> Instant:
        """Always 0."""
        return Instant(0)

    @property
    def floor_offset(self) -> Offset:
        """Always 0."""
        return Offset(0)


class MemoryHistory:
    """Implements `execution.executor.HistoryStore` in a dictionary."""

    def __init__(self, domains: Sequence[Domain]) -> None:
        kinds: dict[str, Any] = {domain.name: domain.events for domain in domains}
        self._decode = {
            name: msgspec.msgpack.Decoder(GenericAlias(list, (kind,))).decode
            for name, kind in kinds.items()
        }
        self.payloads: dict[tuple[str, int], bytes] = {}

    def append(self, offset: int, domain: str, payload: bytes, /) -> None:
        """Keep the encoded events of one command."""
        self.payloads[domain, offset] = payload

    def append_run(self, offset: int, domain: str, payloads: Sequence[bytes], /) -> None:
        """Keep the encoded events of commands at consecutive offsets."""
        for number, payload in enumerate(payloads, offset):
            self.append(number, domain, payload)

    def view(self, domain: str, visible_end: Callable[[], int], /) -> History:
        """Reads of one domain below `visible_end`."""
        return _View(self, domain, visible_end)

    def read(self, domain: str, offset: int) -> Sequence[Any] | None:
        """Decoded events, None when there were none."""
        payload = self.payloads.get((domain, offset))
        return None if payload is None else self._decode[domain](payload)


class _View:
    def __init__(self, store: MemoryHistory, domain: str, visible_end: Callable[[], int]) -> None:
        self._store, self._domain, self._visible_end = store, domain, visible_end

    def events(self, offset: Offset) -> Sequence[Any] | None:
        """`model.domain.History.events`."""
        if offset >= self._visible_end():
            return None
        return self._store.read(self._domain, offset)


class Bench:
    """One executor, driven command by command, with the log it would have written."""

    def __init__(self, *domains: Domain, hooks: Hooks | None = None) -> None:
        self.registry = Registry(domains, hooks=hooks)
        self.dedupe = MemoryDedupe()
        self.history = MemoryHistory(domains)
        self.executor = Executor(
            self.registry, ShardId(0), dedupe=self.dedupe, history=self.history
        )
        self.executor.after = self.registry.after
        self.log: list[tuple[Command, Outcome, Instant]] = []
        self.time = START
        self.epoch = Epoch(1)

    def run(
        self,
        type_name: str,
        data: object,
        *,
        key: str = "k",
        id: str | None = None,
        tenant: str = "t",
        expected_version: int | None = None,
        at: Instant | None = None,
    ) -> Verdict:
        """Admit, execute and record one command; `at` is its stamped time."""
        admitted = self.registry.admit(
            id=id or f"c-{len(self.log)}",
            type=type_name,
            key=key,
            data=msgspec.json.encode(data),
            codec="json",
            tenant=tenant,
            principal="tester",
            scopes=frozenset({"*:write"}),
            expected_version=expected_version,
        )
        self.time = Instant(max(self.time + 1, at or 0))
        executed = self.executor.execute(
            admitted, offset=self.executor.applied_end, time=self.time, epoch=self.epoch
        )
        self.log.append((admitted.command, executed.outcome, self.time))
        return executed

    def replayed(self) -> "Bench":
        """A second bench that evolved this one's recorded outcomes."""
        other = Bench(*self.registry.domains)
        other.epoch = self.epoch
        for command, outcome, time in self.log:
            other.executor.replay(command, outcome, time=time, epoch=self.epoch)
            other.log.append((command, outcome, time))
        other.time = self.time
        return other

    def dump(self) -> dict[tuple[int, str], list[bytes]]:
        """Content of all slots by (slot, domain), versions included."""
        content: dict[tuple[int, str], list[bytes]] = {}
        for slot, image in sorted(self.executor.slots.items()):
            content[slot, "versions"] = list(image.dump_versions(full=True))
            for domain, state in zip(self.registry.domains, image.states, strict=True):
                if state is not None:
                    content[slot, domain.name] = list(domain.dump(state))
        return content
