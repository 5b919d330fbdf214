"""Every state that the protocol can reach, within a budget of faults, keeps what it promises."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.unit.replication.explorer import can_commit, explore, walk
from tests.unit.replication.tidying import tidied, tidy_moves
from tests.unit.replication.world import Budget, Move, World, bootstrapped, moves

pytestmark = pytest.mark.no_cover
"""It would double their time, and tests of the parts reach every branch."""

LED = ("0 enters epoch 1", "1 copies 0 of epoch 1 as of 1", "0 hears 1", "0 begins epoch 1")
WALKS: dict[str, tuple[Any, ...]] = {
    "a failover": (Budget(commands=1, epochs=2, changes=0), 3, 2, 0),
    "changes of the ISR": (Budget(commands=1, epochs=1, changes=2), 3, 2, 1),
    "two replicas, one needed": (Budget(commands=1, epochs=2, changes=1, crashes=1), 2, 1, 0),
    "two replicas, a wiped disk": (Budget(commands=1, epochs=2, changes=0, wipes=1), 2, 2, 0),
    "two replicas, a roll-back": (Budget(commands=1, epochs=2, changes=0, rollbacks=1), 2, 2, 0),
    "an unsynced tail lost": (
        Budget(commands=1, epochs=2, changes=0, crashes=1, unsynced=True), 2, 2, 0),
    "one copy more": (Budget(commands=1, epochs=2, changes=1, sizes=1), 2, 1, 0, 1),
    "what is exposed": (
        Budget(commands=1, epochs=2, changes=0, crashes=1, commit_index=True), 2, 1, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", WALKS)
def test_no_reachable_state_breaks_a_promise(name: str) -> None:
    found = explore(bootstrapped(*WALKS[name]))
    assert found.trace is None, (found.violation, found.trace)
    assert found.complete
    assert found.states > 500


def walked(start: World, steps: Callable[[World], Iterator[Move]]) -> set[World]:
    """All states."""
    seen, stack = {start}, [start]
    while stack:
        fresh = {following for _, following in steps(stack.pop())} - seen
        seen |= fresh
        stack += fresh
    return seen


@pytest.mark.parametrize("name", ["two replicas, a roll-back", "one copy more"])
def test_what_is_tidied_away_from_a_state_makes_no_difference(name: str) -> None:
    start = bootstrapped(*WALKS[name])
    whole = walked(start, moves)
    tidy = walked(tidied(start), tidy_moves)
    assert {tidied(world) for world in whole} == tidy
    assert len(tidy) < len(whole)


def reachable(start: World, count: int) -> list[World]:
    """Some states, spread over a walk."""
    states, seen = [start], 0
    while len(states) < count and seen < len(states):
        following = [world for _, world in moves(states[seen])]
        states.extend(following[:: max(1, len(following) // 3)])
        seen += 1
    return states[:: max(1, len(states) // 40)]


def test_after_the_loss_of_any_one_replica_the_others_can_still_commit() -> None:
    start = walk(bootstrapped(Budget(commands=1, epochs=2, changes=1)), *LED)
    stuck = [
        (number, away)
        for number, world in enumerate(reachable(start, 400))
        for away in range(3)
        if not can_commit(world, away)
    ]
    assert not stuck


def test_with_two_replicas_both_needed_any_loss_blocks_and_nothing_is_promised_falsely() -> None:
    start = walk(bootstrapped(Budget(commands=1, epochs=2, changes=0), 2, 2), *LED)
    assert not can_commit(start, 0)
    assert not can_commit(start, 1)
