"""What copies cost: one shard of one, two and three copies on loopback, in turn.

    python benchmarks/replicas.py [--rounds 3] [--seconds 4]

* Processor seconds per million commands, of the leader and of the busiest follower: what a busy
  machine changes least. From them follows the rate of one leader with a core of its own.
* Throughput (batches) and p50 of one client (single commands) as they are here, where all copies,
  and the load, share the machine's cores.
* A follower that was away is started again: MB/s until it is in sync.
* A follower that runs a fifth of the time: what clients see before and after it is left out.
* Writes to the record of who leads while nothing fails: none.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import servers
from load import prepare

from ultraengine.cli.directories import open_disk, open_secrets
from ultraengine.log import tools

TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
WAIT_S: Final = 60.0
ACCOUNTS: Final = 1_000
ITEMS: Final = 100
"""Commands in a batch."""
CLIENTS: Final = 4
RAN_S, STOOD_S = 0.05, 0.2
"""A slow follower."""
QUIET_S: Final = 60.0
"""How long a leader may be silent where nothing is to fail: a busy machine needs more than 1 s."""
SILENT_S: Final = 3.0
"""The same where a follower is to be left out."""
SHARE_MIN: Final = 0.7
Result = dict[str, Any]


class Copy:
    """One process."""

    def __init__(self, number: int, port: int, pid: int, data: Path) -> None:
        self.number, self.port, self.pid, self.data = number, port, pid, data

    def get(self, path: str) -> Any:
        """A document of its; None while it gives none."""
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{self.port}{path}"
            with urllib.request.urlopen(url, timeout=2) as answer:
                return json.load(answer)
        return None

    @property
    def cpu_s(self) -> float:
        """Processor seconds so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_S

    @property
    def log_bytes(self) -> int:
        """Bytes of its log that hold something."""
        report = tools.verify(open_disk(self.data), open_secrets(None))
        return sum(segment.used_bytes for segment in report.segments)


class Copies:
    """The copies of one shard."""

    def __init__(self, place: Path, count: int, *, failover_s: float = QUIET_S) -> None:
        place.mkdir(parents=True)
        self._failover_s = failover_s
        self.record = place / "record"
        self._place = place
        self._ports = [servers.free_port() for _ in range(2 * count)]
        self._stacks = [contextlib.ExitStack() for _ in range(count)]
        self.all: list[Copy] = []

    def start(self, number: int) -> Copy:
        """Start one."""
        count = len(self._stacks)
        data = self._place / f"data-{number}"
        told = {
            "ULTRA_DATA": str(data),
            "ULTRA_PORT": str(self._ports[number]),
            "ULTRA_ADMIN_PORT": str(self._ports[number]),
        }
        if count > 1:
            addresses = ",".join(f"127.0.0.1:{port}" for port in self._ports[count:])
            told |= {
                "ULTRA_REPLICAS": addresses,
                "ULTRA_REPLICA": str(number),
                "ULTRA_RECORD": str(self.record),
                "ULTRA_CLUSTER": "bench",
                "ULTRA_FAILOVER_S": str(self._failover_s),
            }
        environment = [f"{name}={value}" for name, value in told.items()]
        command = ["env", *environment, sys.executable, "-m", "ultraengine.cli.main", "serve"]
        log = self._place / f"copy-{number}.log"
        pid = self._stacks[number].enter_context(servers.running(command, log, signal.SIGKILL))
        return Copy(number, self._ports[number], pid, data)

    def stop(self, number: int) -> None:
        """Kill one."""
        self._stacks[number].close()

    def __enter__(self) -> Self:
        self.all = [self.start(number) for number in range(len(self._stacks))]
        return self

    def __exit__(self, *_: object) -> None:
        for number in range(len(self._stacks)):
            self.stop(number)

    def leader(self) -> Copy:
        """The one that serves, once all copies are in sync."""
        found: list[Copy] = []

        def leads() -> bool:
            found[:] = [copy for copy in self.all if self._leads(copy)]
            return bool(found)

        wait(leads, f"a leader with all copies in sync; see {self._place}")
        return found[0]

    def _leads(self, copy: Copy) -> bool:
        if copy.get("/readyz") is None:
            return False
        status = copy.get("/admin/v1/status") or {}
        count = len(self.all)
        return count == 1 or len(status.get("in_sync", ())) == count


def wait(holds: Callable[[], bool], what: str) -> float:
    """Poll; how long it took.  Raises SystemExit when it never comes."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > WAIT_S:
            raise SystemExit(f"not within {WAIT_S:.0f} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - began


def sized(
    copy: Copy, shape: str, items: int, clients: int, seconds: float, run: str, *, floor: int = 20
) -> Result:
    """A load of about `seconds`, in a closed loop; at least `floor` requests."""
    first = max(clients * 4, floor // 4)
    probe = servers.load(
        copy.port, shape, items, clients, first, f"{run}p", accounts=ACCOUNTS, core=None
    )
    count = max(floor, int(float(str(probe["transfers_per_s"])) / items * seconds))
    return dict(
        servers.load(copy.port, shape, items, clients, count, run, accounts=ACCOUNTS, core=None)
    )


def steady(copies: Copies, seconds: float, run: str) -> Result:
    """Throughput, processor time and latency while nothing fails, and writes to the record."""
    leader = copies.leader()
    prepare(leader.port, ACCOUNTS)
    single = sized(leader, "stream", 1, 1, seconds, f"{run}s")
    warm = sized(leader, "batch", ITEMS, CLIENTS, seconds / 2, f"{run}w")
    # Enough commands for the kernel's hundredths of a second.
    requests = max(200, int(float(str(warm["transfers_per_s"])) / ITEMS * seconds))
    stamp = copies.record.stat().st_mtime_ns if copies.record.exists() else 0
    before = {copy.pid: copy.cpu_s for copy in copies.all}
    many = servers.load(
        leader.port, "batch", ITEMS, CLIENTS, requests, f"{run}b", accounts=ACCOUNTS, core=None
    )
    commands = requests * ITEMS
    spent = {copy.pid: (copy.cpu_s - before[copy.pid]) * 1e6 / commands for copy in copies.all}
    if many["failed"] or single["failed"]:
        raise SystemExit(f"commands were not accepted: {many} {single}")
    return {
        "leader_cpu_s": spent.pop(leader.pid),
        "follower_cpu_s": max(spent.values(), default=0.0),
        "transfers_per_s": many["transfers_per_s"],
        "p50_ms": single["p50_ms"],
        "record_writes": int(copies.record.exists() and copies.record.stat().st_mtime_ns != stamp),
    }


def catch_up(copies: Copies, seconds: float) -> float:
    """MB/s of the log at which a follower that was away comes back into sync."""
    leader = copies.leader()
    lost = next(copy for copy in copies.all if copy is not leader)
    before = leader.log_bytes
    copies.stop(lost.number)
    sized(leader, "batch", ITEMS, CLIENTS, 2 * seconds, "away", floor=100)
    missed = leader.log_bytes - before
    copies.all[lost.number] = copies.start(lost.number)

    def whole() -> bool:
        status = leader.get("/admin/v1/status") or {}
        return len(status.get("in_sync", ())) == len(copies.all)

    wait(lambda: copies.all[lost.number].get("/healthz") is not None, "the follower serves")
    took = wait(whole, "the follower is in sync")
    return missed / 1e6 / max(took, 0.05)


@contextlib.contextmanager
def slow(pid: int) -> Iterator[None]:
    """The process runs for a fifth of the time."""
    ended = threading.Event()

    def go() -> None:
        while not ended.is_set():
            os.kill(pid, signal.SIGSTOP)
            ended.wait(STOOD_S)
            os.kill(pid, signal.SIGCONT)
            ended.wait(RAN_S)

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def tails(copies: Copies, seconds: float) -> list[tuple[str, Result]]:
    """Latency of four clients, while all is well, with a slow follower, and with a stopped one:
    until it is left out, and then."""
    leader = copies.leader()
    lagging = next(copy for copy in copies.all if copy is not leader)

    def look(name: str, requests: int = 0) -> tuple[str, Result]:
        run = name.replace(" ", "-")
        found: Result = (
            servers.load(
                leader.port, "commands", 1, CLIENTS, requests, run, accounts=ACCOUNTS, core=None
            )
            if requests
            else sized(leader, "commands", 1, CLIENTS, seconds, run)
        )
        status = leader.get("/admin/v1/status") or {}
        return name, {**found, "in_sync": len(status.get("in_sync", ()))}

    found = [look("all well")]
    with slow(lagging.pid):
        found.append(look("one slow"))
    copies.leader()  # Counts all of them again.
    os.kill(lagging.pid, signal.SIGSTOP)
    try:
        found += [look("one stopped", requests=40), look("without it")]
    finally:
        os.kill(lagging.pid, signal.SIGCONT)
    return found


def section(
    work: Path, *, rounds: int, seconds: float
) -> tuple[list[str], list[tuple[str, str, str]]]:
    """The report's lines, and (aim, measured, met)."""
    results: dict[int, list[Result]] = {1: [], 2: [], 3: []}
    for turn in range(rounds):
        for count in list(results)[turn % 3 :] + list(results)[: turn % 3]:
            print(f"copies: round {turn + 1}/{rounds}, {count}", flush=True)
            with Copies(work / f"copies-{turn}-{count}", count) as copies:
                results[count].append(steady(copies, seconds, f"{turn}-{count}"))
    with Copies(work / "copies-faults", 3, failover_s=SILENT_S) as copies:
        prepare(copies.leader().port, ACCOUNTS)
        waits = tails(copies, seconds)
        speed = catch_up(copies, seconds)
    share = _own_cores(results[3], results[1])
    aim = "three copies with a core each: at least 0.70 of the rate of one copy"
    aims = [(aim, f"{share:.2f}", "yes" if share >= SHARE_MIN else "**no**")]
    return [*_steady_lines(results), "", *_fault_lines(waits, speed)], aims


def _own_cores(copies: Sequence[Result], alone: Sequence[Result]) -> float:
    """The rate when each process has a core of its own, of that of one copy: the busiest one
    decides."""
    return statistics.median(
        one["leader_cpu_s"] / max(ours["leader_cpu_s"], ours["follower_cpu_s"])
        for ours, one in zip(copies, alone, strict=True)
    )


def _steady_lines(results: dict[int, list[Result]]) -> list[str]:
    head = "| copies | leader, CPU-s per million | busiest follower | rate with own cores"
    lines = [f"{head} | rate here | p50 added ms | record writes |"]
    lines.append("|--:|--:|--:|--:|--:|--:|--:|")
    for count, found in results.items():
        pairs = list(zip(found, results[1], strict=True))
        rates = [ours["transfers_per_s"] / one["transfers_per_s"] for ours, one in pairs]
        cells = (
            f"{statistics.median(one['leader_cpu_s'] for one in found):.1f}",
            f"{statistics.median(one['follower_cpu_s'] for one in found):.1f}",
            f"{_own_cores(found, results[1]):.2f}",
            f"{statistics.median(rates):.2f}",
            f"{statistics.median(ours['p50_ms'] - one['p50_ms'] for ours, one in pairs):.2f}",
            f"{sum(one['record_writes'] for one in found)}",
        )
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return lines


def _fault_lines(waits: Sequence[tuple[str, Result]], speed: float) -> list[str]:
    lines = ["| three copies | p50 ms | p99 ms | max ms | in sync at the end |"]
    lines.append("|---|--:|--:|--:|--:|")
    lines += [
        f"| {name} | {one['p50_ms']:.2f} | {one['p99_ms']:.2f} | {one['max_ms']:.0f}"
        f" | {one['in_sync']} |"
        for name, one in waits
    ]
    return [*lines, "", f"A follower that was away comes back with {speed:.1f} MB/s of log."]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="per figure and round")
    parser.add_argument("--work", type=Path, default=None, help="where the data goes")
    options = parser.parse_args()
    work = options.work or Path("/var/tmp") / f"ultra-replicas-{os.getpid()}"
    try:
        lines, _ = section(work, rounds=options.rounds, seconds=options.seconds)
        print("\n".join(lines))
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
