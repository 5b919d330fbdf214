"""`make bench`: this engine beside PostgreSQL and Redis, on one disk, in one run.

    python benchmarks/run.py [--quick] [--engine-only] [--rounds 3] [--out bench-results]

The contenders take turns, round by round, so that a noisy neighbour or a slow disk hits all of
them; the table gives medians and the spread over the rounds, and ratios of the same rounds.
Writes ``results.json`` and ``results.md`` after each part.  Nothing here is a test: there are
no thresholds.

Throughput is measured by a closed loop; its latencies say how long one of so many clients waits
when all send as fast as they can.  Latency as users see it is measured on a fixed schedule at
half of that rate, counted from the scheduled moment.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import aggregates
import micro
import mysql_rows
import projection
import replicas
import rivals
import servers
from load import prepare

from ultraengine import compiled

Result = dict[str, object]
OPEN = "ultra, scheduled: "
"""Names of figures on a fixed schedule begin so."""
TIGERBEETLE_MIB = 3.2 * 1024
"""Memory of TigerBeetle at the throughput that stands in the first aim."""

SHAPES: tuple[tuple[str, str, int, int], ...] = (
    # name, shape, transfers per request, clients
    ("one command of 1,000 transfers, 4 clients", "commands", 1_000, 4),
    ("one command of 100 transfers, 8 clients", "commands", 100, 8),
    ("batch of 1,000 commands, 4 clients", "batch", 1_000, 4),
    ("batch of 100 commands, 8 clients", "batch", 100, 8),
    ("batch of 16 commands, 64 clients", "batch", 16, 64),
    ("HTTP, one command, 64 clients", "commands", 1, 64),
    ("HTTP, one command, 1 client", "commands", 1, 1),
    ("stream, one command, 64 connections", "stream", 1, 64),
    ("stream, one command, 1 connection", "stream", 1, 1),
)


SCHEDULED = (0, 2, 5, 7)
"""Places in `SHAPES` of those that are also sent on a fixed schedule."""


def sized(port: int, shape: str, items: int, clients: int, seconds: float, run: str) -> Result:
    """A closed loop of about `seconds`: a short run tells how many requests that takes."""
    first = max(clients * 4, 2_000 // items, 40)
    probe = servers.load(port, shape, items, clients, first, f"{run}p")
    rate = float(str(probe["transfers_per_s"])) / items
    return servers.load(port, shape, items, clients, max(first, int(rate * seconds)), run)


def round_of_ours(work: Path, number: int, seconds: float) -> dict[str, Result]:
    """All shapes against one fresh engine."""
    results: dict[str, Result] = {}
    with servers.ultra(work / f"ultra-{number}", core=0) as (port, pid):
        prepare(port, rivals.ACCOUNTS)
        for place, (name, shape, items, clients) in enumerate(SHAPES):
            run = f"{number}-{shape[0]}{items}-{clients}"
            closed = results[f"ultra: {name}"] = sized(port, shape, items, clients, seconds, run)
            if place in SCHEDULED:
                # Half of what was just reached; more connections, so that none has to wait.
                rate = float(str(closed["transfers_per_s"])) / items / 2
                results[f"{OPEN}{name}"] = servers.load(
                    port, shape, items, max(64, 2 * clients), max(20, int(rate * seconds)),
                    f"{run}-open", rate=rate)  # fmt: skip
        results["ultra: memory"] = {"peak_rss_mib": servers.memory_mib(pid, "VmHWM")}
    return results


def round_of_postgres(work: Path, number: int, seconds: float) -> dict[str, Result]:
    """The stored function at 1 and 64 clients."""
    directory = work / f"postgres-{number}"
    with servers.postgres(directory) as (_, address):
        rivals.postgres_prepare(address)
        return {
            f"PostgreSQL: stored function, {clients} client{'s' * (clients > 1)}":
                rivals.postgres_transfers(address, work, clients, max(1, round(seconds)))
            for clients in (1, 64)
        }  # fmt: skip


def round_of_redis(work: Path, number: int, seconds: float) -> dict[str, Result]:
    """The Lua script at 1, 64 and 64 x pipeline 16."""
    results: dict[str, Result] = {}
    with servers.redis(work / f"redis-{number}") as port:
        script = rivals.redis_prepare(port)
        for clients, pipeline in ((1, 1), (64, 1), (64, 16)):
            probe = rivals.redis_transfers(port, script, clients, pipeline, 200 * clients)
            count = max(200, int(float(str(probe["transfers_per_s"])) * seconds))
            name = f"Redis: Lua, {clients} client{'s' * (clients > 1)}"
            name += f" x pipeline {pipeline}" * (pipeline > 1)
            results[name] = rivals.redis_transfers(port, script, clients, pipeline, count)
    return results


def flush_us(work: Path) -> tuple[float, float]:
    """(median, 99th percentile) in microseconds of a write and fdatasync of 4 KiB over zeros."""
    times = []
    with (work / "flush").open("w+b") as file:
        file.write(bytes(1_000 * 4096))
        file.flush()
        os.fsync(file.fileno())
        for number in range(1_000):
            started = time.perf_counter()
            os.pwrite(file.fileno(), b"x" * 4096, number * 4096)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    times.sort()
    return times[500] * 1e6, times[990] * 1e6


def parts() -> str:
    """Which of the engine's compiled parts this environment has."""
    missing = compiled.absent()
    names = ", ".join(name for name in compiled.PARTS if name not in missing)
    return f"compiled parts: {names}" if names else "plain Python"


def machine(work: Path) -> dict[str, str]:
    """What the figures were measured on."""

    def said(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return (done.stdout or done.stderr).strip().splitlines()[0] if done.returncode == 0 else "?"

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "?")
    median, high = flush_us(work)
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": f"{cpu}, {os.cpu_count()} cores, shared by server and load",
        "kernel": platform.release(),
        "file system": said("findmnt", "-no", "FSTYPE", "-T", str(work)),
        "write and fdatasync of 4 KiB": f"median {median:.0f} us, p99 {high:.0f} us",
        "load average at the start": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "engine": parts(),
        "PostgreSQL": said(servers.find("postgres"), "--version"),
        "Redis": said(servers.find("redis-server"), "--version").partition(" sha")[0],
    }


def merged(rounds: list[dict[str, Result]]) -> dict[str, Result]:
    """Median, lowest and highest of every figure over the rounds."""
    table: dict[str, Result] = {}
    for name in rounds[0]:
        row: Result = {}
        for figure in rounds[0][name]:
            values = [float(str(one[name][figure])) for one in rounds]
            row[figure] = statistics.median(values)
            row[f"{figure}_low"], row[f"{figure}_high"] = min(values), max(values)
        table[name] = row
    return table


def ratio(rounds: list[dict[str, Result]], ours: str, theirs: str, figure: str) -> str:
    """The median of the rounds' own ratios, with their spread."""
    values = [float(str(one[ours][figure])) / float(str(one[theirs][figure])) for one in rounds]
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def aims_of_rounds(
    rounds: list[dict[str, Result]], table: dict[str, Result]
) -> list[tuple[str, str, str]]:
    """(aim, measured, met) for what the requirements ask, side by side."""
    big = f"ultra: {SHAPES[0][0]}"
    rate = float(str(table[big]["transfers_per_s"]))
    p99 = float(str(table[f"{OPEN}{SHAPES[0][0]}"]["p99_ms"]))
    memory = float(str(table["ultra: memory"]["peak_rss_mib"]))
    piped = ratio(rounds, big, "Redis: Lua, 64 clients x pipeline 16", "transfers_per_s")
    batch = float(str(table["ultra: batch of 1,000 commands, 4 clients"]["transfers_per_s"]))
    http = ratio(rounds, "ultra: HTTP, one command, 64 clients",
                 "PostgreSQL: stored function, 64 clients", "transfers_per_s")  # fmt: skip
    stream = ratio(rounds, "ultra: stream, one command, 1 connection",
                   "PostgreSQL: stored function, 1 client", "p50_ms")  # fmt: skip

    def met(holds: bool) -> str:  # noqa: FBT001  (a truth to print)
        return "yes" if holds else "**no**"

    return [
        (
            "transfers/s in commands of 1,000: more than 247,000",
            f"{rate:,.0f}",
            met(rate > 247_000),
        ),
        (
            "the same, at half of that rate on a schedule: p99 at most 10 ms",
            f"{p99:.1f} ms",
            met(p99 <= 10),
        ),
        (
            f"peak memory of the engine: at most a third of {TIGERBEETLE_MIB:,.0f} MiB",
            f"{memory:,.0f} MiB",
            met(memory <= TIGERBEETLE_MIB / 3),
        ),
        (
            "the same commands: at least 1.5 x Redis 64 x pipeline 16",
            piped,
            met(float(piped.split()[0]) >= 1.5),
        ),
        ("batches of 1,000 commands: at least 150,000/s", f"{batch:,.0f}", met(batch >= 150_000)),
        (
            "HTTP 64 clients: at least 1.5 x PostgreSQL 64 clients",
            http,
            met(float(http.split()[0]) >= 1.5),
        ),
        (
            "stream, one client: p50 at most PostgreSQL's",
            stream,
            met(float(stream.split()[0]) <= 1.0),
        ),
    ]


def markdown(about: dict[str, str], table: dict[str, Result], goals: list[tuple[str, str, str]],
             rounds: int) -> str:  # fmt: skip
    """The report."""
    lines = ["# Benchmark", "", f"`make bench`, {rounds} rounds, contenders in turn.", ""]
    lines += [f"* {name}: {value}" for name, value in about.items()]
    how = ("Engine: policy `sync`, checksums and chain on, full ledger rules, one process, pinned "
           "to core 0; its load is pinned to core 1. PostgreSQL, Redis and their loads may use "
           "all cores.")  # fmt: skip
    lines += ["", how, "",
              "Throughput, closed loop. Percentiles are per request:", "",
              "| contender | transfers/s | lowest to highest | p50 ms | p99 ms |",
              "|---|--:|--:|--:|--:|"]  # fmt: skip
    for name, row in table.items():
        if "transfers_per_s" not in row or name.startswith(OPEN):
            continue
        lines.append(
            f"| {name} | {row['transfers_per_s']:,.0f} | {row['transfers_per_s_low']:,.0f} to "
            f"{row['transfers_per_s_high']:,.0f} | {row['p50_ms']:.3f} | {row['p99_ms']:.3f} |"
        )
    lines += ["", "Latency on a fixed schedule at half of that rate, from when each was due:", "",
              "| shape | transfers/s | p50 ms | p99 ms | p99, lowest to highest | worst ms |",
              "|---|--:|--:|--:|--:|--:|"]  # fmt: skip
    for name, row in table.items():
        if name.startswith(OPEN):
            lines.append(
                f"| {name.removeprefix(OPEN)} | {row['transfers_per_s']:,.0f} | "
                f"{row['p50_ms']:.2f} | {row['p99_ms']:.2f} | {row['p99_ms_low']:.2f} to "
                f"{row['p99_ms_high']:.2f} | {row['max_ms_high']:.2f} |"
            )
    failed = sum(int(float(str(row.get("failed_high", 0)))) for row in table.values())
    lines += ["", f"Answers that were not accepted: {failed}."]
    memory = table["ultra: memory"]["peak_rss_mib"]
    lines += ["", f"Peak resident memory of the engine: {memory:.0f} MiB.", "", "Aims:", "",
              "| aim | measured | met |", "|---|--:|---|"]  # fmt: skip
    lines += [f"| {aim} | {measured} | {holds} |" for aim, measured, holds in goals]
    return "\n".join(lines) + "\n"


class Report:
    """What has been measured so far.

    Written anew after each part: a run that dies late has lost only the rest.
    """

    def __init__(self, out: Path, rounds: int) -> None:
        self.machine: dict[str, str] = {}
        self.measured: list[dict[str, Result]] = []
        self._out, self._rounds = out, rounds
        self._lines: list[str] = []
        self._aims: list[tuple[str, str, str]] = []

    def add(self, lines: list[str], aims: list[tuple[str, str, str]]) -> None:
        """Take in a part's lines and aims, and write ``results.json`` and ``results.md``."""
        self._lines += lines
        self._aims += aims
        table = merged(self.measured)
        goals = aims_of_rounds(self.measured, table) + self._aims
        found = {"machine": self.machine, "rounds": self.measured, "table": table, "aims": goals}
        (self._out / "results.json").write_text(json.dumps(found, indent=1))
        report = markdown(self.machine, table, goals, self._rounds)
        (self._out / "results.md").write_text(report + "".join(f"{line}\n" for line in self._lines))


def main() -> None:
    """Run the rounds and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="per figure and round")
    parser.add_argument("--engine-only", action="store_true", help="nothing of the projections")
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--work", type=Path, default=None, help="where the servers' data goes")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1.5
    work = options.work or Path("/var/tmp") / f"ultra-bench-{os.getpid()}"
    work.mkdir(parents=True)
    work.chmod(0o755)
    options.out.mkdir(parents=True, exist_ok=True)
    turns: tuple[Callable[[Path, int, float], dict[str, Result]], ...] = (
        round_of_postgres, round_of_redis, round_of_ours,
    )  # fmt: skip
    report = Report(options.out, options.rounds)
    try:
        report.machine = machine(work)
        for number in range(options.rounds):
            results: dict[str, Result] = {}
            # Each round begins with another contender.
            for turn in turns[number % 3 :] + turns[: number % 3]:
                print(f"round {number + 1}/{options.rounds}: {turn.__name__[9:]}", flush=True)
                results |= turn(work, number, options.seconds)
            report.measured.append(results)
        report.add([], micro.measure(work, quick=options.quick))
        copied, aims = replicas.section(work, rounds=options.rounds, seconds=options.seconds)
        intro = "Copies of one shard on loopback (`benchmarks/replicas.py`):"
        report.add(["", intro, "", *copied], aims)
        if not options.engine_only:
            databases(work, report, quick=options.quick)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print((options.out / "results.md").read_text())


def databases(work: Path, report: Report, *, quick: bool) -> None:
    """What comes out of the feed into databases, and out of these."""
    intro = "From the feed into databases (`projection.py`, `mysql_rows.py`):"
    projected, aims = projection.section(work, quick=quick)
    report.add(["", intro, *projected], aims)
    report.add(mysql_rows.section(work, quick=quick), [])
    entries, accounts = (50_000, 1_000) if quick else (1_000_000, 10_000)
    queried, aims = aggregates.section(work, entries=entries, accounts=accounts, calls=7)
    intro = "Aggregates through `ultra query` (`benchmarks/aggregates.py`):"
    report.add(["", intro, *queried], aims)


if __name__ == "__main__":
    main()
