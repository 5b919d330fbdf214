"""Larger walks than a test has time for: `make explore`, results in `docs/protocol.md`."""

import argparse
import time

from tests.unit.replication.explorer import explore
from tests.unit.replication.mutants import MUTANTS, find
from tests.unit.replication.world import Budget, bootstrapped

WALKS = {
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
    "two replicas, both needed": (
        Budget(commands=1, epochs=2, changes=0, crashes=1, wipes=1), 2, 2, 0),
}  # fmt: skip


def main() -> None:
    """Walk those named, or all, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--walk", action="append", choices=sorted(WALKS))
    parser.add_argument("--states-max", type=int, default=3_000_000)
    parser.add_argument("--mutants", action="store_true", help="the table of switched-off clauses")
    options = parser.parse_args()
    if options.mutants:
        for mutant in MUTANTS:
            before, found = find(mutant)
            trace = "; ".join((*before, *(found.trace or ("nothing found",))))
            print(f"| {mutant.clause} | {trace} | {found.violation} |")
        return
    for name in options.walk or WALKS:
        budget, replicas, min_isr, spare = WALKS[name]
        began = time.process_time()
        found = explore(
            bootstrapped(budget, replicas, min_isr, spare), states_max=options.states_max
        )
        spent = time.process_time() - began
        verdict = found.violation or ("all" if found.complete else "as many as allowed")
        print(f"{name} | {found.states} | {verdict} | {spent:.0f} s", flush=True)
        if found.trace:
            raise SystemExit("\n".join(found.trace))


if __name__ == "__main__":
    main()
