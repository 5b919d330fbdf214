"""Whether memory grows with the number of transfers made: it may not, but for the index of ids.

    python benchmarks/memory.py [--millions 1 10] [--out bench-results]

Makes transfers over 10,000 accounts in commands of 1,000 through a running engine, in 100 books
or, with ``--books 1``, in one.  At each number of millions a full snapshot is taken and the peak
is read: proportional set size of the engine and of the child that writes and proves the
snapshot, together, sampled every 20 ms (requirement 001 §6.1: memory holds hot state, never
history).  Allowed growth: 24 bytes for each transfer's id, 40 for each command's.  The child
proves a snapshot by loading it, some slots at a time, so one book alone is the worst case.
"""

import argparse
import contextlib
import json
import shutil
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import servers
from load import prepare

ACCOUNTS = 10_000
ITEMS = 1_000
PER_RUN = 500
"""Most commands per run of the load generator, which encodes them all before it starts."""
ID_BYTES = 24
COMMAND_BYTES = 40
MIB = 1 << 20


def pss_bytes(pid: int) -> int:
    """Proportional set size of one process; 0 when it is gone."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = ""
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += " " + (task / "children").read_text()
    return [pid, *map(int, children.split())]


class Peak:
    """The largest sum over the engine and its children since the last `take`."""

    def __init__(self, pid: int) -> None:
        self._pid, self._peak, self._children, self._over = pid, 0, 0, False
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over:
            pids = family(self._pid)
            self._peak = max(self._peak, sum(map(pss_bytes, pids)))
            self._children = max(self._children, len(pids) - 1)
            time.sleep(0.02)

    def take(self) -> tuple[int, int]:
        """(bytes, most children at once); begins anew."""
        found = self._peak, self._children
        self._peak = self._children = 0
        return found

    def close(self) -> None:
        """Stop watching."""
        self._over = True
        self._thread.join()


def snapshot(port: int) -> None:
    """A full snapshot, awaited."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/admin/v1/snapshot", data=b"{}", method="POST",
        headers={"Content-Type": "application/json"},
    )  # fmt: skip
    urllib.request.urlopen(request, timeout=600).close()


def book(port: int, done: int, goal: int, books: int) -> None:
    """Make transfers from number `done` up to number `goal`, the same share in every book."""
    left = (goal - done) // ITEMS // books
    while left:
        count = min(PER_RUN, left)
        for number in range(books):
            servers.load(port, "commands", ITEMS, 4, count, f"m{done}-{left}-{number}",
                         accounts=ACCOUNTS // books, book=f"book-{number}")  # fmt: skip
        left -= count


def measure(millions: list[int], work: Path, books: int) -> list[dict[str, float]]:
    """One row for each number of millions."""
    rows: list[dict[str, float]] = []
    with servers.ultra(work, core=0) as (port, pid):
        for number in range(books):
            prepare(port, ACCOUNTS // books, f"book-{number}")
        peak, done = Peak(pid), 0
        try:
            for goal in sorted(millions):
                book(port, done, goal * 1_000_000, books)
                done = goal * 1_000_000
                peak.take()  # The state as it is now, with a snapshot of it; not the way here.
                snapshot(port)
                taken, children = peak.take()
                if not children:
                    raise SystemExit("no child wrote the snapshot")
                rows.append({"millions": goal, "peak_mib": round(taken / MIB, 1),
                             "rss_mib": round(servers.memory_mib(pid, "VmRSS"), 1)})  # fmt: skip
                print(json.dumps(rows[-1]), flush=True)
        finally:
            peak.close()
    return rows


def main() -> None:
    """Measure, compare with what is allowed, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--books", type=int, default=100)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="ultra-memory-", dir="/var/tmp"))
    try:
        rows = measure(options.millions, work, options.books)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    first, last = rows[0], rows[-1]
    more = (last["millions"] - first["millions"]) * 1_000_000
    allowed = more * (ID_BYTES + COMMAND_BYTES / ITEMS) / MIB
    grown = last["peak_mib"] - first["peak_mib"]
    report = {
        "books": options.books,
        "rows": rows,
        "grown_mib": round(grown, 1),
        "allowed_mib": round(allowed, 1),
    }
    (options.out / "memory.json").write_text(json.dumps(report, indent=1))
    print(f"peak grew by {grown:.0f} MiB; the index of {more:,.0f} ids may take {allowed:.0f} MiB")


if __name__ == "__main__":
    main()
