"""Larger walks than a test has time for: `make explore-moves`, results in `docs/slot-moves.md`."""

from collections.abc import Iterator
from functools import partial

from tests.unit.exploring import Explored, campaign, explore
from tests.unit.moving.mutants import MUTANTS, find
from tests.unit.moving.world import Budget, Violated, check, first, moves

WALKS = {
    "one move": (Budget(commands=2), 2),
    "three commands": (Budget(commands=3), 2),
    "a second attempt": (Budget(commands=2, attempts=2), 2),
    "three attempts": (Budget(commands=1, attempts=3), 2),
    "there and back": (Budget(commands=2, eras=2), 2),
    "there and back, two attempts each": (Budget(commands=1, attempts=2, eras=2), 2),
    "there, back and there": (Budget(commands=1, eras=3), 2),
    "foolish coordinators": (Budget(commands=2, attempts=2, planned=False), 2),
    "foolish, there and back": (Budget(commands=1, attempts=1, eras=2, planned=False), 2),
    "three shards": (Budget(commands=1, eras=2), 3),
    "three shards, two attempts": (Budget(commands=1, attempts=2), 3),
    "three shards, foolish": (Budget(commands=1, attempts=2, planned=False), 3),
}


def walk(budget: Budget, shards: int, states_max: int) -> Explored:
    """One of `WALKS`."""
    return explore(
        first(budget, shards), moves=moves, check=check, violated=Violated, states_max=states_max
    )


def mutants() -> Iterator[str]:
    """A row for each switched-off clause."""
    for mutant in MUTANTS:
        found = find(mutant)
        trace = "; ".join(found.trace or ("nothing found",))
        yield f"| {mutant.clause} | {trace} | {found.violation} |"


if __name__ == "__main__":
    named = {name: partial(walk, *one) for name, one in WALKS.items()}
    campaign(__doc__, named, mutants, states_max=1_000_000)
