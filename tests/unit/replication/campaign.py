"""Larger walks than a test has time for: `make explore`, results in `docs/protocol.md`."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from tests.unit.exploring import Explored, campaign
from tests.unit.replication.explorer import explore
from tests.unit.replication.mutants import MUTANTS, find
from tests.unit.replication.world import Budget, bootstrapped

WALKS: dict[str, tuple[Any, ...]] = {
    "plain": (Budget(commands=1, epochs=2, changes=0), 3, 2, 0),
    "three epochs": (Budget(commands=1, epochs=3, changes=0), 3, 2, 0),
    "two commands": (Budget(commands=2, epochs=2, changes=0), 3, 2, 0),
    "a change of the ISR": (Budget(commands=1, epochs=2, changes=1), 3, 2, 0),
    "a spare and a change": (Budget(commands=1, epochs=2, changes=1), 3, 2, 1),
    "a crash, unsynced tail": (
        Budget(commands=1, epochs=2, changes=0, crashes=1, unsynced=True), 3, 2, 0),
    "a wiped disk": (Budget(commands=1, epochs=2, changes=0, wipes=1), 3, 2, 0),
    "what is exposed": (Budget(commands=1, epochs=2, changes=0, commit_index=True), 3, 2, 0),
    "a roll-back": (Budget(commands=1, epochs=2, changes=0, rollbacks=1), 3, 2, 0),
    "an unknown outcome, forced": (
        Budget(commands=1, epochs=2, changes=1, forces=1), 2, 1, 0),
    "one copy more": (Budget(commands=1, epochs=2, changes=1, sizes=1), 2, 1, 0, 1),
    "one copy more, a roll-back": (
        Budget(commands=1, epochs=2, changes=1, sizes=1, rollbacks=1), 2, 1, 0, 1),
    "one copy less": (Budget(commands=1, epochs=2, changes=1, sizes=1), 2, 2),
    "one copy less, a roll-back": (
        Budget(commands=1, epochs=2, changes=1, sizes=1, rollbacks=1), 2, 2),
    "two replicas, both needed": (
        Budget(commands=1, epochs=2, changes=0, crashes=1, wipes=1), 2, 2, 0),
}  # fmt: skip


def walk(start: tuple[Any, ...], states_max: int) -> Explored:
    """One of `WALKS`."""
    return explore(bootstrapped(*start), states_max=states_max)


def mutants() -> Iterator[str]:
    """A row for each switched-off clause."""
    for mutant in MUTANTS:
        before, found = find(mutant)
        trace = "; ".join((*before, *(found.trace or ("nothing found",))))
        yield f"| {mutant.clause} | {trace} | {found.violation} |"


if __name__ == "__main__":
    named = {name: partial(walk, one) for name, one in WALKS.items()}
    campaign(__doc__, named, mutants, states_max=3_000_000)
