"""`make bench`: this engine beside PostgreSQL and Redis, on one disk, in one run.

    python benchmarks/run.py [--quick] [--rounds 3] [--out bench-results]

The contenders take turns, round by round, so that a noisy neighbour or a slow disk hits all of
them; the table gives medians and the spread over the rounds, and ratios of the same rounds.
Writes ``results.json`` and ``results.md``.  Nothing here is a test: there are no thresholds.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import micro
import rivals
import servers

HERE = Path(__file__).parent
Result = dict[str, object]

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


def load(port: int, shape: str, items: int, clients: int, requests: int, run: str, *,
         rate: float = 0.0, prepare: bool = False) -> Result:  # fmt: skip
    """Run the load generator as a process of its own, on the other core where there is one."""
    command = [sys.executable, str(HERE / "load.py"), "--port", str(port), "--shape", shape,
               "--items", str(items), "--clients", str(clients), "--requests", str(requests),
               "--run", run, "--rate", str(rate)]  # fmt: skip
    if prepare:
        command.append("--prepare")
    if (os.cpu_count() or 1) > 1:
        command = ["taskset", "-c", "1", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the load failed: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout))


def sized(port: int, shape: str, items: int, clients: int, seconds: float, run: str) -> Result:
    """A closed loop of about `seconds`: a short run tells how many requests that takes."""
    first = max(clients * 4, 2_000 // items, 40)
    probe = load(port, shape, items, clients, first, f"{run}p")
    rate = float(str(probe["transfers_per_s"])) / items
    return load(port, shape, items, clients, max(first, int(rate * seconds)), run)


def round_of_ours(work: Path, number: int, seconds: float) -> dict[str, Result]:
    """All shapes against one fresh engine."""
    results: dict[str, Result] = {}
    with servers.ultra(work / f"ultra-{number}", core=0) as (port, pid):
        load(port, "commands", 1, 1, 1, f"warm{number}", prepare=True)
        for name, shape, items, clients in SHAPES:
            run = f"{number}-{shape[0]}{items}-{clients}"
            results[f"ultra: {name}"] = sized(port, shape, items, clients, seconds, run)
        # Latency at half of the throughput that was just reached, on a fixed schedule.
        big = results[f"ultra: {SHAPES[0][0]}"]
        rate = float(str(big["transfers_per_s"])) / 1_000 / 2
        results["ultra: one command of 1,000 transfers at half of its rate"] = load(
            port, "commands", 1_000, 16, max(20, int(rate * seconds)), f"{number}-open", rate=rate
        )
        results["ultra: memory"] = {"peak_rss_mib": peak_rss_mib(pid)}
    return results


def peak_rss_mib(pid: int) -> int:
    """Peak resident memory of a process and its children, from the kernel."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    raise SystemExit(f"process {pid} has no VmHWM")


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


def machine(work: Path) -> dict[str, str]:
    """What the figures were measured on."""

    def said(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return (done.stdout or done.stderr).strip().splitlines()[0] if done.returncode == 0 else "?"

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "?")
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": f"{cpu}, {os.cpu_count()} cores, shared by server and load",
        "kernel": platform.release(),
        "file system": said("findmnt", "-no", "FSTYPE", "-T", str(work)),
        "python": platform.python_version(),
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


def aims(rounds: list[dict[str, Result]], table: dict[str, Result]) -> list[tuple[str, str, str]]:
    """(aim, measured, met) for what the requirements ask, side by side."""
    big = f"ultra: {SHAPES[0][0]}"
    rate = float(str(table[big]["transfers_per_s"]))
    opened = "ultra: one command of 1,000 transfers at half of its rate"
    p99 = float(str(table[opened]["p99_ms"]))
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
            "the same: at least 1.5 x Redis 64 x pipeline 16",
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
             small: list[tuple[str, str, str]], rounds: int) -> str:  # fmt: skip
    """The report."""
    lines = ["# Benchmark", "", f"`make bench`, {rounds} rounds, contenders in turn.", ""]
    lines += [f"* {name}: {value}" for name, value in about.items()]
    lines += ["", "Engine: policy `sync`, checksums and chain on, full ledger rules, one process."]
    lines += ["", "| contender | transfers/s | lowest to highest | p50 ms | p99 ms |",
              "|---|--:|--:|--:|--:|"]  # fmt: skip
    for name, row in table.items():
        if "transfers_per_s" not in row:
            continue
        lines.append(
            f"| {name} | {row['transfers_per_s']:,.0f} | {row['transfers_per_s_low']:,.0f} to "
            f"{row['transfers_per_s_high']:,.0f} | {row['p50_ms']:.2f} | {row['p99_ms']:.2f} |"
        )
    memory = table["ultra: memory"]["peak_rss_mib"]
    lines += ["", f"Peak resident memory of the engine: {memory:.0f} MiB.", "",
              "| aim | measured | met |", "|---|--:|---|"]  # fmt: skip
    lines += [f"| {aim} | {measured} | {holds} |" for aim, measured, holds in goals + small]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the rounds and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="per figure and round")
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
    try:
        about = machine(work)
        rounds: list[dict[str, Result]] = []
        for number in range(options.rounds):
            results: dict[str, Result] = {}
            # Each round begins with another contender.
            for turn in turns[number % 3 :] + turns[: number % 3]:
                print(f"round {number + 1}/{options.rounds}: {turn.__name__[9:]}", flush=True)
                results |= turn(work, number, options.seconds)
            rounds.append(results)
        small = micro.measure(work, quick=options.quick)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    table = merged(rounds)
    goals = aims(rounds, table)
    (options.out / "results.json").write_text(
        json.dumps(
            {"machine": about, "rounds": rounds, "table": table, "aims": goals + small}, indent=1
        )
    )
    report = markdown(about, table, goals, small, options.rounds)
    (options.out / "results.md").write_text(report)
    print(report)


if __name__ == "__main__":
    main()
