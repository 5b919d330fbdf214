"""Faults on the cluster, one after the other, and the judgement over all that clients were told.

`make failovers N=100`: the leader's pod is deleted N times, and each other fault done once for
every twenty of them, in an order by SEED; FAULTS names some, MINUTES ends the campaign early. What
happened is added to a file, one line for each fault, from which `--report` makes the table of
docs/failover.md.
"""

import argparse
import json
import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from tests.e2e.cluster.cluster import new_namespace
from tests.e2e.cluster.failovers.chaos import FAULTS
from tests.e2e.cluster.failovers.engine import Trio
from tests.e2e.cluster.failovers.histories import Journal, at_share, pause_s, wrong

MAIN: Final = "leader-deleted"
OTHERS_SHARE: Final = 20
AFTER_S: Final = 1.0
"""Clients go on for so long after a fault before the next one."""
SEEN_S: Final = 10.0
"""A pause that begins later than this after a fault was undone is not of that fault."""


def order(count: int, names: Sequence[str], seed: int) -> list[str]:
    """The faults of a campaign: the main one so often, each other one for every twenty of it."""
    others = [name for name in names if name != MAIN]
    found = [MAIN] * (count if MAIN in names else 0)
    found += others * max(1, count // OTHERS_SHARE)
    random.Random(seed).shuffle(found)
    return found


def disturb(trio: Trio, names: Iterable[str], until_s: float, done: list[dict[str, Any]]) -> None:
    """Do them one by one, and add to `done` what was done, and when."""
    for name in names:
        seen = trio.wait_whole()
        if time.monotonic() > until_s:
            break
        began, before = time.monotonic(), seen.epoch
        epoch_min = FAULTS[name](trio, seen)
        undone = time.monotonic()
        seen = trio.wait_whole(epoch_min)
        whole = time.monotonic()
        done.append(
            {"fault": name, "began": began, "undone": undone, "whole": whole,
             "epochs": [before, seen.epoch]}
        )  # fmt: skip
        print(
            f"{name}: epoch {before} to {seen.epoch}, whole after {whole - began:.1f} s", flush=True
        )
        time.sleep(AFTER_S)


def measured(done: Sequence[dict[str, Any]], journal: Journal) -> list[dict[str, Any]]:
    """The faults with the pause that clients saw."""
    acknowledged = sorted(told.at for told in journal.told.values())
    return [
        {
            "fault": one["fault"],
            "pause_s": round(pause_s(acknowledged, one["began"], _end(one)), 3),
            "whole_s": round(one["whole"] - one["began"], 1),
            "epochs": one["epochs"],
        }
        for one in done
    ]


def _end(one: dict[str, Any]) -> float:
    return float(min(one["whole"], one["undone"] + SEEN_S))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Pauses by fault, and how they are spread, as Markdown."""
    by: dict[str, list[float]] = {}
    for one in rows:
        by.setdefault(one["fault"], []).append(one["pause_s"])
    lines = ["| fault | times | p50 s | p99 s | max s |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {len(found)} | {at_share(found, 0.5):.2f} | {at_share(found, 0.99):.2f}"
        f" | {max(found):.2f} |"
        for name in FAULTS
        if (found := by.get(name))
    ]
    return "\n".join(lines)


def histogram(values: Sequence[float], step_s: float = 0.25) -> str:
    """How many pauses are so long."""
    counts: dict[int, int] = {}
    for value in values:
        counts[int(value / step_s)] = counts.get(int(value / step_s), 0) + 1
    return "\n".join(
        f"{place * step_s:5.2f} to {(place + 1) * step_s:5.2f} s {counts.get(place, 0):4d} "
        + "#" * counts.get(place, 0)
        for place in range(min(counts, default=0), max(counts, default=-1) + 1)
    )


def report(files: Sequence[Path]) -> str:
    """The table and the histogram of what files hold."""
    lines = [line for file in files for line in file.read_text().splitlines()]
    return report_rows([json.loads(line) for line in lines])


def report_rows(rows: Sequence[dict[str, Any]]) -> str:
    """The table of all faults, and the histogram of the main one."""
    main = [one["pause_s"] for one in rows if one["fault"] == MAIN]
    return f"{table(rows)}\n\n{MAIN}:\n\n{histogram(main)}"


def run(trio: Trio, names: Sequence[str], minutes: float) -> tuple[list[dict[str, Any]], list[str]]:
    """The faults with their pauses, and everything that is wrong."""
    trio.begin()
    done: list[dict[str, Any]] = []
    faults: list[str] = []
    try:
        disturb(trio, names, time.monotonic() + 60.0 * minutes, done)
    except AssertionError as error:
        # What was acknowledged until then is judged all the same.
        faults.append(str(error))
    journal, balances = trio.end()
    trio.wait_whole()
    faults += wrong(journal, trio.logs(), balances)
    print(
        f"{len(done)} faults, {len(journal.told)} commands acknowledged, {len(faults)} wrong",
        flush=True,
    )
    return measured(done, journal), faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--faults", default=",".join(FAULTS), help="names, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=600.0)
    parser.add_argument("--out", type=Path, default=Path("failovers.jsonl"))
    parser.add_argument("--report", type=Path, nargs="+", help="only show what files hold")
    given = parser.parse_args()
    if given.report:
        print(report(given.report))
        return 0
    with new_namespace() as namespace:
        trio = Trio(namespace)
        try:
            names = order(given.count, given.faults.split(","), given.seed)
            rows, faults = run(trio, names, given.minutes)
        except BaseException:
            namespace.keep(given.out.with_suffix(".kept"))
            raise
        finally:
            trio.close()
    with given.out.open("a") as file:
        file.writelines(json.dumps(one) + "\n" for one in rows)
    print(report([given.out]))
    for one in faults[:50]:
        print(f"WRONG: {one}")
    return min(len(faults), 1)


if __name__ == "__main__":
    raise SystemExit(main())
