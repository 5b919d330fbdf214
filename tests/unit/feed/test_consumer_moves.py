"""Which confirmations are logged, and when."""

from collections import defaultdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.feed.consumer_moves import ConsumerMoves
from ultraengine.feed.source import Consumer
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Offset


class Logged:
    """The replicated state, and moves whose logging takes a while."""

    def __init__(self, consumers_max: int = 3, **slots: int) -> None:
        self.slots = dict(slots)
        self.moves_only = (0, 0)
        self.moves = ConsumerMoves(lambda: self.slots, lambda: self.moves_only, consumers_max)

    def due(self, now: float) -> list[tuple[str, int]]:
        return [(one.name, int(one.offset)) for one in self.moves.due(now)]

    def execute(self, moved: list[tuple[str, int]]) -> None:
        for name, offset in moved:
            self.slots[name] = max(offset, self.slots.get(name, -1))


def test_the_first_confirmation_is_logged_at_once_and_the_next_ones_a_second_later() -> None:
    world = Logged()
    world.moves.confirm("a", 5)
    assert world.moves.next_at() is not None
    assert world.due(100.0) == [("a", 5)]
    for offset in range(6, 60):
        world.moves.confirm("a", offset)
        assert world.due(100.9) == []
    assert world.moves.next_at() == 101.0
    assert world.due(101.0) == [("a", 59)]
    assert (world.due(200.0), world.moves.next_at()) == ([], None)


def test_a_slot_never_moves_back_neither_in_memory_nor_in_the_log() -> None:
    world = Logged(a=40)
    for offset in (39, 40):
        world.moves.confirm("a", offset)
        assert world.due(1.0) == []
    world.moves.confirm("a", 50)
    world.moves.confirm("a", 45)
    assert world.due(2.0) == [("a", 50)]
    world.moves.confirm("a", 49)  # Its move is on its way to the log.
    assert world.due(9.0) == []
    assert world.moves.consumers() == [Consumer("a", Offset(50))]


def test_a_slot_is_made_even_at_offset_zero() -> None:
    world = Logged()
    world.moves.confirm("a", 0)
    assert world.due(0.0) == [("a", 0)]


def test_the_consumer_of_an_idle_log_does_not_confirm_its_own_confirmations() -> None:
    world = Logged(a=7, b=3)
    world.moves.confirm("a", 10)
    world.execute(world.due(1.0))
    world.moves_only = (10, 11)  # That move itself.
    world.moves.confirm("b", 11)
    assert world.due(2.0) == [("b", 11)], "other commands lie between"
    world.moves_only = (10, 12)
    world.moves.confirm("a", 11)
    world.moves.confirm("a", 12)
    world.moves.confirm("b", 12)
    assert world.due(99.0) == []
    assert dict(world.moves.offsets) == {"a": 12, "b": 12}
    world.moves.confirm("a", 13)
    assert world.due(100.0) == [("a", 13)], "something else was done since"


def test_a_dropped_slot_is_gone_at_once_and_may_be_made_again() -> None:
    world = Logged(a=7)
    world.moves.confirm("b", 9)
    assert world.moves.drop("b")
    assert world.due(1.0) == []
    assert world.moves.drop("a")
    assert not world.moves.drop("a")
    assert not world.moves.drop("never")
    assert world.moves.consumers() == []
    world.moves.confirm("a", 2)
    assert dict(world.moves.offsets) == {"a": 2}
    assert world.due(2.0) == [("a", 2)]
    world.slots = {"a": 2}
    assert dict(world.moves.offsets) == {"a": 2}


def test_slots_are_bounded_with_those_that_are_not_logged_yet() -> None:
    world = Logged(2, a=1)
    world.moves.confirm("b", 1)
    with pytest.raises(EngineError) as caught:
        world.moves.confirm("c", 1)
    assert caught.value.code == "OVERLOADED"
    world.moves.confirm("a", 2)
    world.moves.drop("a")
    world.moves.confirm("c", 1)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50), st.floats(0, 0.7)), max_size=60)
)
def test_no_slot_is_logged_twice_within_a_second_and_nothing_confirmed_is_forgotten(
    steps: list[tuple[str, int, float]],
) -> None:
    world, now, newest = Logged(), 10.0, dict[str, int]()
    logged: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    for name, offset, wait in steps:
        now += wait
        world.moves.confirm(name, offset)
        newest[name] = max(offset, newest.get(name, 0))
        moved = world.due(now)
        world.execute(moved)
        for moved_name, to in moved:
            logged[moved_name].append((now, to))
    world.execute(world.due(now + 1.0))
    assert world.slots == newest
    for moves in logged.values():
        times, offsets = zip(*moves, strict=True)
        assert all(later - one >= 1.0 for one, later in pairwise(times))
        assert sorted(set(offsets)) == list(offsets)
