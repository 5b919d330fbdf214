"""Unrecorded: what memory knows of outcomes until the log has them."""

import msgspec
import pytest

from ultraengine.model.command import Command
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, Instant
from ultraengine.model.outcome import EMPTY_ARRAY, NIL, Outcome
from ultraengine.shard.unrecorded import Unrecorded

EPOCH, TIME = Epoch(3), Instant(1_000)


def command(number: int) -> Command:
    """A command that is told from others by its id."""
    return Command(f"c{number}", "counter.add@1", "k", msgspec.Raw(b"\x80"), "t", "p")


def outcome(offset: int) -> Outcome:
    """An accepted outcome."""
    return Outcome(offset, 0, offset + 1, NIL, EMPTY_ARRAY)


def group(held: Unrecorded, base: int, count: int, executed: int) -> list[Outcome]:
    """Add a group of which the first commands are executed."""
    outcomes = [outcome(offset) for offset in range(base, base + executed)]
    commands = [command(offset) for offset in range(base, base + count)]
    held.add(base, commands, outcomes, EPOCH, TIME)
    return outcomes


def test_only_executed_commands_are_held_and_execution_adds_them() -> None:
    held = Unrecorded()
    outcomes = group(held, 5, 3, 1)
    assert list(held) == [5]
    assert held.get(6) is None
    outcomes.append(outcome(6))
    assert list(held) == [5, 6]
    assert len(held) == 2
    found = held[6]
    assert (found.command.id, found.outcome.offset, found.epoch, found.time) == (
        "c6",
        6,
        EPOCH,
        TIME,
    )


def test_offsets_outside_all_groups_are_not_held() -> None:
    held = Unrecorded()
    group(held, 5, 2, 2)
    group(held, 9, 1, 1)
    for offset in (-1, 4, 7, 8, 10):
        assert held.get(offset) is None
        assert offset not in held
    with pytest.raises(KeyError):
        held[7]
    assert held[9].command.id == "c9"


def test_durable_outcomes_leave_also_when_a_group_needed_several_frames() -> None:
    held = Unrecorded()
    group(held, 0, 4, 4)
    group(held, 4, 2, 2)
    held.drop(0, 1)
    assert list(held) == [1, 2, 3, 4, 5]
    assert len(held) == 5
    assert held.get(0) is None
    held.drop(1, 3)
    assert list(held) == [4, 5]
    held.drop(4, 2)
    assert held == {}


@pytest.mark.parametrize(("base", "count"), [(1, 1), (4, 2), (0, 3)])
def test_outcomes_leave_in_order_and_only_when_executed(base: int, count: int) -> None:
    held = Unrecorded()
    group(held, 0, 4, 2)
    group(held, 4, 2, 0)
    with pytest.raises(InvariantBroken):
        held.drop(base, count)
    assert list(held) == [0, 1]


def test_nothing_leaves_what_holds_nothing() -> None:
    with pytest.raises(InvariantBroken):
        Unrecorded().drop(0, 1)


def test_a_group_below_the_one_before_is_refused() -> None:
    held = Unrecorded()
    group(held, 4, 2, 2)
    with pytest.raises(InvariantBroken):
        group(held, 5, 1, 1)
    held.drop(4, 2)
    with pytest.raises(InvariantBroken):
        group(held, 5, 1, 1)
