"""Every state that a move can reach keeps one owner and every acknowledged command."""

import pytest
from tests.unit.exploring import explore
from tests.unit.moving.world import Budget, Violated, World, check, first, moves, unsettled

pytestmark = pytest.mark.no_cover
"""It would double their time, and tests of the parts reach every branch."""

WALKS = {
    "one move, three commands": (Budget(commands=3), 2),
    "a second attempt": (Budget(commands=1, attempts=2), 2),
    "there and back": (Budget(commands=1, eras=2), 2),
    "three shards": (Budget(commands=1), 3),
    "coordinators that are foolish": (Budget(commands=1, attempts=2, planned=False), 2),
    "foolish, among three shards": (Budget(commands=1, planned=False), 3),
}


@pytest.mark.parametrize("name", WALKS)
def test_no_reachable_state_has_two_owners_or_loses_or_doubles_a_command(name: str) -> None:
    budget, shards = WALKS[name]
    found = explore(first(budget, shards), moves=moves, check=check, violated=Violated)
    assert found.trace is None, (found.violation, found.trace)
    assert found.complete
    assert found.states > 100


def reachable(start: World, step: int) -> list[World]:
    """One in so many of the states, breadth first."""
    states: list[World] = []
    explore(start, moves=moves, check=states.append, violated=Violated)
    return states[::step]


@pytest.mark.parametrize("goal", [0, 1])
def test_from_every_state_one_coordinator_comes_to_an_end_wherever_the_slot_is_wanted(
    goal: int,
) -> None:
    states = reachable(first(Budget(commands=2, attempts=2)), 7)
    wrong = [(world, problem) for world in states if (problem := unsettled(world, goal))]
    assert not wrong[:1]
    assert len(states) > 500


def test_a_third_shard_can_be_given_the_slot_from_the_middle_of_a_move_to_another() -> None:
    states = reachable(first(Budget(commands=1), 3), 1)
    wrong = [(world, problem) for world in states if (problem := unsettled(world, 2))]
    assert not wrong[:1]
    assert len(states) > 100
