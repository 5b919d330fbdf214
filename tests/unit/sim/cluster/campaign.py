"""Many seeds: `make sim SEEDS=2000 SEED_START=0`, or the clauses switched off: `ARGS=--mutants`.

The ranges that were run are in `docs/protocol.md`.
"""

import argparse
import time

from tests.unit.sim.cluster.chaos import terse
from tests.unit.sim.cluster.mutants import MUTANTS, find, violation


def seeds(first: int, count: int) -> int:
    """Run them; the number of those that went wrong."""
    wrong, started = 0, time.process_time()
    for seed in range(first, first + count):
        # As production speaks, in every other run; the seeds of mutants are of the others.
        if what := violation(seed, terse(seed) if seed % 2 else None):
            wrong += 1
            print(f"seed {seed}: {what}", flush=True)
    each = (time.process_time() - started) / count
    print(f"seeds {first} to {first + count - 1}: {wrong} wrong, {each:.3f} CPU-seconds each")
    return wrong


def mutants() -> int:
    """A row for each; the number of those that no seed has found."""
    missed = 0
    for mutant in MUTANTS:
        seed, what = find(mutant)
        missed += seed < 0
        print(f"| {mutant.clause} | {seed if what else '-'} | {what} |", flush=True)
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--mutants", action="store_true")
    given = parser.parse_args()
    return mutants() if given.mutants else seeds(given.start, given.seeds)


if __name__ == "__main__":
    raise SystemExit(min(main(), 1))
