"""Recovery group by group: what is in memory already, what is told of its progress."""

from collections.abc import Callable
from typing import Any, cast

import msgspec
import pytest
from tests.unit.execution.test_executor import BoxDomain

from ultraengine.log.reader import RecordedGroup
from ultraengine.model.command import Command
from ultraengine.model.ids import Epoch
from ultraengine.model.outcome import Outcome
from ultraengine.shard import recovery
from ultraengine.shard.recovery import recover
from ultraengine.testing.memory import START, Bench


class Header(msgspec.Struct):
    """The part of a frame's header that recovery reads."""

    base_offset: int
    time: int = START + 1
    epoch: int = 1
    handlers: bytes = b""


class Group(msgspec.Struct):
    """The part of a recorded group that recovery reads."""

    header: Header
    commands: list[Command]
    outcomes: list[Outcome] | None = None


def groups(*sizes: int) -> tuple[list[RecordedGroup], Bench]:
    """Groups of so many commands, and the bench that has executed them."""
    bench, made = Bench(BoxDomain()), []
    for size in sizes:
        base = len(bench.log)
        for number in range(size):
            bench.run("box.put", {"value": base + number})
        part = bench.log[base:]
        header = Header(base, time=START + 1000 * (base + 1))
        made.append(Group(header, [c for c, _, _ in part], [o for _, o, _ in part]))
    return cast("list[RecordedGroup]", made), bench


@pytest.mark.parametrize("applied", [0, 1, 3, 4, 6])
def test_only_what_memory_does_not_hold_yet_is_evolved(applied: int) -> None:
    recorded, bench = groups(3, 3)
    other = Bench(BoxDomain())
    for command, outcome, _ in bench.log[:applied]:
        other.executor.replay(command, outcome, time=START, epoch=Epoch(1))
    advanced: list[int] = []
    advance = other.dedupe.advance

    def counted(time: Any, offset_end: Any, /) -> None:
        advanced.append(offset_end)
        advance(time, offset_end)

    cast("Any", other.dedupe).advance = counted
    assert recover(other.executor, recorded).replayed == 6 - applied
    assert other.dump() == bench.dump()
    # A group that brought nothing ends nothing: memory forgot at its end long ago.
    assert advanced == [end for end in (3, 6) if end > applied]


def test_progress_is_told_every_so_many_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "PROGRESS_EVERY", 4)
    recorded, _ = groups(3, 3, 3, 3)
    told: list[int] = []
    progress: Callable[[int], None] = told.append
    recover(Bench(BoxDomain()).executor, recorded, progress=progress)
    assert told == [6, 12]


def test_the_state_may_be_kept_between_groups_until_something_is_decided_again() -> None:
    recorded, bench = groups(3, 3, 3, 3)
    other = Bench(BoxDomain())
    digest = other.executor.registry.handlers_digest
    recorded[2] = cast("Any", Group(Header(6, START + 7001, handlers=digest), recorded[2].commands))
    recorded[3] = cast("Any", Group(Header(9, START + 9001, handlers=digest), recorded[3].commands))
    kept: list[tuple[int, int]] = []
    done = recover(
        other.executor,
        recorded,
        checkpoint=lambda header: kept.append((header.base_offset, other.executor.applied_end)),
    )
    # Not before the first one, where nothing was replayed, and not behind the third.
    assert kept == [(3, 3), (6, 6)]
    assert len(done.redecided) == 6
    assert other.executor.applied_end == bench.executor.applied_end
