"""An engine that books faster than its worker projects: what is slowed, and what is not.

    python benchmarks/outrun.py [--seconds 20] [--rate 20000] [--target postgresql|sqlite]

The same load on a schedule, twice, at an engine on the first core: alone, and with `ultra project`
into a database, both at a lower priority on the other cores with the load.  The second time the
cap of the log (`retention_bytes_max`) is small, so that the worker's slot is soon dropped and the
rest is read from the archive.  Twice a second the worker's lag, the level of its alert and the
bytes of the log are read.  Then the load ends, and the lag is worked off.

Printed: rate and latencies of the engine with and without the worker, the lag as it grows, when
warning, alarm and calm were said, the largest log, how long working off took, and whether the
database has every transfer that was answered.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import projection
import servers
from load import prepare

ITEMS = 100
CLIENTS = 4
MIB = 1 << 20
CAP_MIB = 16
SETTINGS = {
    "ULTRA_LIMIT_RETENTION_BYTES_MAX": str(CAP_MIB * MIB),
    "ULTRA_LIMIT_SEGMENT_BYTES": str(4 * MIB),
    "ULTRA_LIMIT_FRAME_BYTES_MAX": str(2 * MIB),
    "ULTRA_LIMIT_DEDUP_WINDOW_S": "30",
    "ULTRA_SNAPSHOT_COMMANDS": "200",
    "ULTRA_SNAPSHOTS_KEPT": "1",
    "ULTRA_COMPACTION": "time",
}
WARN_S, ALARM_S = 2.0, 5.0
EVERY_S = 0.5
PATIENCE_S = 900.0
SAID = ("projection.lag_warn", "projection.lag_alarm", "projection.lag_calm")


class Sample(NamedTuple):
    """What was seen at one moment."""

    at_s: float
    commands: int
    seconds: float
    log_mib: float


class Watcher(threading.Thread):
    """Looks until it is told to stop."""

    def __init__(self, port: int, log: Path) -> None:
        super().__init__(daemon=True)
        self._url, self._log = f"http://127.0.0.1:{port}/status", log
        self._ended = threading.Event()
        self._began = time.monotonic()
        self.samples: list[Sample] = []

    def run(self) -> None:
        """A sample each time."""
        while not self._ended.wait(EVERY_S):
            commands, seconds = lag(self._url)
            size = sum(one.stat().st_size for one in self._log.rglob("seg-*.log"))
            at = time.monotonic() - self._began
            self.samples.append(Sample(at, commands, seconds, size / MIB))

    def stop(self) -> None:
        """No more of them."""
        self._ended.set()
        self.join()


def lag(url: str) -> tuple[int, float]:
    """Commands and seconds behind, as the worker says."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        (target,) = json.load(answer)["targets"]
    lags = [one for of in target["sets"] for one in of["lags"].values()]
    return sum(one["commands"] for one in lags), max((one["seconds"] for one in lags), default=0.0)


def known_lag(url: str, engine: int) -> int:
    """As the engine knows it: a worker whose inbox is full reads no further, and counts less."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ultra")), "projection", "status", "--target", url,
         "--engine", f"http://127.0.0.1:{engine}", "-o", "json"],
        capture_output=True, check=True,
    )  # fmt: skip
    (of,) = json.loads(done.stdout)["sets"]
    return int(of["lag_commands"])


def loaded(port: int, options: argparse.Namespace, run: str) -> dict[str, Any]:
    """So many seconds at the rate."""
    requests = round(options.seconds * options.rate / ITEMS)
    return servers.load(port, "commands", ITEMS, CLIENTS, requests, run,
                        rate=options.rate / ITEMS)  # fmt: skip


@contextlib.contextmanager
def engine_in(place: Path) -> Iterator[int]:
    """An engine with a small cap on the first core; yields its port."""
    port = servers.free_port()
    place.mkdir()
    os.environ.update({"ULTRA_DATA": str(place / "data"), "ULTRA_ARCHIVE": str(place / "archive"),
                       "ULTRA_PORT": str(port), "ULTRA_ADMIN_PORT": str(port)})  # fmt: skip
    command = [sys.executable, "-m", "ultraengine.cli.main", "serve"]
    with servers.running(servers.pinned(command, 0), place / "engine.log", signal.SIGTERM):
        servers.wait_for_port(port)
        yield port


def alone(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Without a worker."""
    with engine_in(work / "alone") as port:
        prepare(port, 10_000)
        return loaded(port, options, "alone")


def transfers_in(url: str) -> int:
    """Rows of the view."""
    if url.startswith("sqlite"):
        database = sqlite3.connect(url.removeprefix("sqlite:///"))
        (count,) = database.execute("SELECT count(*) FROM ledger_transfer").fetchone()
        database.close()
        return int(count)

    async def counted() -> int:
        connection = await asyncpg.connect(url)
        found = await connection.fetchval("SELECT count(*) FROM ledger_transfer", timeout=600)
        await connection.close()
        return int(found)

    return asyncio.run(counted())


def outrun(work: Path, url: str, options: argparse.Namespace) -> list[str]:
    """With one: the report's lines."""
    place, port = work / "outrun", servers.free_port()
    with engine_in(place) as engine:
        prepare(engine, 10_000)
        command = [str(Path(sys.executable).with_name("ultra")), "project", "--target", url,
                   "--engine", f"http://127.0.0.1:{engine}", "--port", str(port), "--nice", "10",
                   "--limit", f"lag_warn_s={WARN_S}",
                   "--limit", f"lag_alarm_s={ALARM_S}"]  # fmt: skip
        with servers.running(servers.pinned(command, 1), work / "worker.log", signal.SIGTERM):
            servers.wait_for_port(port)
            status = f"http://127.0.0.1:{port}/status"
            settled(status)
            watcher = Watcher(port, place / "data")
            watcher.start()
            result = loaded(engine, options, "outrun")
            ended = time.monotonic()
            behind = known_lag(url, engine), lag(status)[1]
            settled(status)
            caught_up_s = time.monotonic() - ended
            time.sleep(2 * EVERY_S)  # The end of the alert is said.
            watcher.stop()
    booked, found = int(str(result["requests"])) * ITEMS, transfers_in(url)
    said = [one for one in SAID if one in (work / "worker.log").read_text()]
    dropped = "was dropped: the log would be" in (place / "engine.log").read_text()
    lines = ["| s | commands behind | seconds behind | log, MiB |", "|--:|--:|--:|--:|"]
    lines += [f"| {one.at_s:.1f} | {one.commands:,} | {one.seconds:.1f} | {one.log_mib:.0f} |"
              for one in watcher.samples[:: max(1, len(watcher.samples) // 12)]]  # fmt: skip
    largest = max(one.log_mib for one in watcher.samples)
    return [
        f"| with a worker | {row(result)} |", "", *lines, "",
        (f"Behind at the end of the load: {behind[0]:,} commands of {ITEMS} transfers,"
         f" {behind[1]:.1f} s; worked off in {caught_up_s:.1f} s."),
        (f"Said: {', '.join(said)}.  Largest log: {largest:.0f} MiB, cap {CAP_MIB} MiB;"
         f" slot dropped: {dropped}."),
        f"Transfers answered: {booked:,}; in the database: {found:,}.",
    ]  # fmt: skip


def settled(url: str) -> None:
    """Until the tables serve and nothing is behind."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        with urllib.request.urlopen(url, timeout=30) as answer:
            (target,) = json.load(answer)["targets"]
        sets = [one for one in target["sets"] if one["state"] == "serving"]
        if sets and not any(one["commands"] for one in sets[0]["lags"].values()):
            return
        if any(one.get("parked") for one in target["sets"]):
            raise SystemExit(f"the worker has parked: {target['sets']}")
        time.sleep(0.2)
    raise SystemExit("the worker did not catch up")


def row(result: dict[str, Any]) -> str:
    """Of the first table."""
    return (f"{result['transfers_per_s']:,} | {result['p50_ms']:.1f} | {result['p99_ms']:.1f} |"
            f" {result['failed']}")  # fmt: skip


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=20_000.0, help="transfers per second")
    parser.add_argument("--target", choices=("postgresql", "sqlite"), default="postgresql")
    options = parser.parse_args()
    work = Path("/var/tmp") / f"ultra-outrun-{os.getpid()}"
    work.mkdir()
    work.chmod(0o755)
    os.environ.update(SETTINGS)
    lines = ["| engine | transfers/s | p50, ms | p99, ms | not accepted |", "|---|--:|--:|--:|--:|"]
    try:
        lines.append(f"| alone | {row(alone(work, options))} |")
        if options.target == "sqlite":
            lines += outrun(work, f"sqlite:///{work}/sql.db", options)
        else:
            with servers.postgres(work / "postgres") as (port, _):
                admin = f"postgresql://bench@127.0.0.1:{port}"
                asyncio.run(projection.answering(admin))
                lines += outrun(work, asyncio.run(projection.fresh(admin, "outrun")), options)
    finally:
        if "KEEP" not in os.environ:
            shutil.rmtree(work, ignore_errors=True)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
