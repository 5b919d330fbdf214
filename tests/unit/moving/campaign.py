"""Larger walks than a test has time for: `make explore-moves`, results in `docs/slot-moves.md`."""

import argparse
import time

from tests.unit.exploring import explore
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


def main() -> None:
    """Walk those named, or all, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--walk", action="append", choices=sorted(WALKS))
    parser.add_argument("--states-max", type=int, default=1_000_000)
    parser.add_argument("--mutants", action="store_true", help="the table of switched-off clauses")
    options = parser.parse_args()
    if options.mutants:
        for mutant in MUTANTS:
            found = find(mutant)
            trace = "; ".join(found.trace or ("nothing found",))
            print(f"| {mutant.clause} | {trace} | {found.violation} |", flush=True)
        return
    for name in options.walk or WALKS:
        budget, shards = WALKS[name]
        began = time.process_time()
        found = explore(
            first(budget, shards),
            moves=moves,
            check=check,
            violated=Violated,
            states_max=options.states_max,
        )
        spent = time.process_time() - began
        verdict = found.violation or ("all" if found.complete else "as many as allowed")
        print(f"{name} | {found.states} | {verdict} | {spent:.0f} s", flush=True)
        if found.trace:
            raise SystemExit("\n".join(found.trace))


if __name__ == "__main__":
    main()
