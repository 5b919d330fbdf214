"""Figures of single parts: execution, append, recovery, snapshots, memory, two shards.

Every row is (aim, measured, met), so that a missed aim stands in the table as one.
"""

import argparse
import asyncio
import concurrent.futures
import gc
import json
import random
import shutil
import sys
import time
import urllib.request
from pathlib import Path

import load
import msgspec
import servers

from ultraengine.domains.counter import DOMAIN as COUNTER
from ultraengine.domains.ledger import DOMAIN as LEDGER
from ultraengine.execution.registry import Admitted
from ultraengine.log.driver import Log, LogOptions
from ultraengine.log.frame import FrameDraft, FrameKind
from ultraengine.log.serializer import MsgpackSerializer
from ultraengine.model.ids import Epoch, Offset, ShardId
from ultraengine.model.limits import DEFAULT_LIMITS
from ultraengine.testing.memory import START, Bench
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.disk import LocalDisk
from ultraengine_adapters.local.random import SystemRandom
from ultraengine_adapters.local.secrets import FileSecrets

Row = tuple[str, str, str]
SCOPES = frozenset({"*:write"})


def row(aim: str, measured: float, limit: float, unit: str) -> Row:
    """An aim of the kind "at most"."""
    return f"{aim}: at most {limit:g} {unit}", f"{measured:.2f} {unit}", (
        "yes" if measured <= limit else "**no**")  # fmt: skip


def admit(bench: Bench, type_name: str, key: str, name: str, data: object) -> Admitted:
    """One admitted command."""
    return bench.registry.admit(
        id=name, type=type_name, key=key, data=msgspec.msgpack.encode(data), codec="msgpack",
        tenant="t", principal="p", scopes=SCOPES)  # fmt: skip


def execute(bench: Bench, commands: list[Admitted]) -> float:
    """Processor seconds to execute them all."""
    executor, offset = bench.executor, bench.executor.applied_end
    started = time.process_time()
    for number, admitted in enumerate(commands, offset):
        executor.execute(admitted, offset=Offset(number), time=START, epoch=Epoch(1))
    return time.process_time() - started


def counter_us() -> float:
    """Microseconds of processor time per executed counter command, best of 10."""
    bench = Bench(COUNTER)
    best = float("inf")
    for turn in range(10):
        commands = [
            admit(bench, "counter.add", f"k{n % 100}", f"{turn}-{n}", {"delta": 1})
            for n in range(2_000)
        ]
        best = min(best, execute(bench, commands) / len(commands))
    return best * 1e6


def opened(accounts: int) -> Bench:
    """A ledger with that many accounts."""
    bench = Bench(LEDGER)
    for start in range(0, accounts, 1_000):
        data = {"accounts": [{"id": f"a{n}", "asset": "USD/2", "min_balance": None}
                             for n in range(start, min(start + 1_000, accounts))]}  # fmt: skip
        execute(bench, [admit(bench, "ledger.open_accounts", "b", f"o{start}", data)])
    return bench


def transfer_us(accounts: int, commands: int) -> float:
    """Microseconds of processor time per transfer, in commands of 1,000, everything in."""
    bench, rng = opened(accounts), random.Random(7)
    gc.collect()
    gc.freeze()
    best = float("inf")
    for turn in range(commands):
        data = {
            "transfers": [load.transfer(rng, accounts, f"{turn:04d}-{n:04d}") for n in range(1_000)]
        }
        command = admit(bench, "ledger.create_transfers", "b", f"c{turn}", data)
        best = min(best, execute(bench, [command]) / 1_000)
    gc.unfreeze()
    return best * 1e6


def append_us(work: Path) -> float:
    """Microseconds per command from hand-over to durability, in groups of 100, less the flush.

    That is what the log itself adds to the disk's time.
    """
    options = LogOptions(shard=ShardId(0), epoch=Epoch(1), handlers=bytes(8), limits=DEFAULT_LIMITS)
    disk, secrets = LocalDisk(work / "append"), FileSecrets(None, {})
    log = Log.open(disk, SystemClock(), SystemRandom(), secrets, options)
    log.start(lambda error: sys.exit(f"the log failed: {error}"))
    bench, serializer = Bench(LEDGER), MsgpackSerializer()
    data = {"transfers": [{"id": "t", "from": "a1", "to": "a2", "amount": 5}]}
    commands = [admit(bench, "ledger.create_transfers", "b", f"c{n}", data).command
                for n in range(100)]  # fmt: skip
    times = []
    for number in range(300):
        while not log.idle:
            time.sleep(0.0001)
        started = time.perf_counter()
        payload = serializer.encode_commands(commands)
        draft = FrameDraft(FrameKind.COMMANDS, number * 100, 100, START, payload)
        written = log.write_now([draft])
        times.append((time.perf_counter() - started - written.sync_s) / 100)
    log.close(clean=True)
    times.sort()
    return times[len(times) // 2] * 1e6


def get(port: int, path: str, method: str = "GET") -> dict[str, object]:
    """A JSON answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    with urllib.request.urlopen(request, timeout=600) as answer:
        return dict(json.loads(answer.read()))


def recovery_s(work: Path, accounts: int, commands: int) -> tuple[float, float]:
    """(seconds to replay, whole start in seconds) of a snapshot with that many accounts and a
    tail of that many commands of one transfer, after a kill."""
    directory = work / "recovery"
    with servers.ultra(directory) as (port, _):
        asyncio.run(load.prepare(argparse.Namespace(port=port, accounts=accounts)))
        get(port, "/admin/v1/snapshot", "POST")
        options = argparse.Namespace(
            port=port, shape="batch", items=1_000, clients=4, requests=commands // 1_000,
            accounts=accounts, rate=0.0, seed=3, run="tail")  # fmt: skip
        asyncio.run(load.closed_loop(options, load.payloads(options)))
    started = time.perf_counter()
    with servers.ultra(directory) as (port, _):
        whole = time.perf_counter() - started
        status = get(port, "/admin/v1/status")
    return float(str(status["replay_s"])), whole


def stall_ms(work: Path, accounts: int) -> float:
    """Worst answer in ms while a snapshot of that many accounts is taken, less the usual worst.

    Requests leave on a fixed schedule of 200/s, whether or not earlier ones were answered.
    """
    with servers.ultra(work / "stall", core=0) as (port, _):
        asyncio.run(load.prepare(argparse.Namespace(port=port, accounts=accounts)))

        def scheduled(run: str) -> float:
            options = argparse.Namespace(
                port=port, shape="commands", items=10, clients=32, requests=1_000,
                accounts=accounts, rate=200.0, seed=5, run=run)  # fmt: skip
            return float(
                str(asyncio.run(load.open_loop(options, load.payloads(options)))["max_ms"])
            )

        quiet = min(scheduled("q1"), scheduled("q2"))
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            busy = pool.submit(scheduled, "b1")
            time.sleep(1)
            get(port, "/admin/v1/snapshot", "POST")
            return max(0.0, busy.result() - quiet)


def account_bytes(accounts: int) -> float:
    """Resident bytes per account."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    gc.collect()
    before = resident()
    bench = opened(accounts)
    gc.collect()
    size = (resident() - before) / accounts
    del bench
    return size


def two_shards(work: Path, seconds: float) -> float:
    """Transfers/s of two engines pinned to two cores, relative to one, loads included."""

    def rate(port: int, run: str) -> float:
        options = argparse.Namespace(
            port=port, shape="commands", items=1_000, clients=4, requests=int(30 * seconds),
            accounts=10_000, rate=0.0, seed=9, run=run)  # fmt: skip
        asyncio.run(load.prepare(options))
        return float(str(asyncio.run(load.closed_loop(options, load.payloads(options)))[
            "transfers_per_s"]))  # fmt: skip

    with servers.ultra(work / "one", core=0) as (port, _):
        alone = rate(port, "alone")
    with (
        servers.ultra(work / "left", core=0) as (left, _),
        servers.ultra(work / "right", core=1) as (right, _),
        concurrent.futures.ProcessPoolExecutor(2) as pool,
    ):
        both = [pool.submit(_rate, port, seconds) for port in (left, right)]
        return sum(one.result() for one in both) / alone


def _rate(port: int, seconds: float) -> float:
    options = argparse.Namespace(
        port=port, shape="commands", items=1_000, clients=4, requests=int(30 * seconds),
        accounts=10_000, rate=0.0, seed=9, run="both")  # fmt: skip
    asyncio.run(load.prepare(options))
    return float(str(asyncio.run(load.closed_loop(options, load.payloads(options)))[
        "transfers_per_s"]))  # fmt: skip


def measure(work: Path, *, quick: bool) -> list[Row]:
    """All rows.  `quick` takes a tenth of the sizes and says so in the row."""
    million = 100_000 if quick else 1_000_000
    rows = [
        row("execution of a counter command", counter_us(), 1, "us"),
        row("execution of a transfer, 10,000 accounts", transfer_us(10_000, 100), 2, "us"),
        row(f"execution of a transfer, {million:,} accounts", transfer_us(million, 100), 5, "us"),
        row("append, amortized over groups of 100, without the flush", append_us(work), 5, "us"),
    ]
    replay, whole = recovery_s(work, million, million)
    rows.append(row(f"recovery of {million:,} accounts and a tail of {million:,}", whole, 5, "s"))
    rows.append((f"of which replay of {million:,} commands", f"{replay:.2f} s", "for information"))
    rows.append(row(f"worst stall of a snapshot, {million:,} accounts",
                    stall_ms(work, million), 30, "ms"))  # fmt: skip
    rows.append((f"memory per account, {million:,} accounts",
                 f"{account_bytes(million):.0f} bytes", "for information"))  # fmt: skip
    rows.append(("two shards on two cores that the loads share, relative to one",
                 f"{two_shards(work, 1 if quick else 5):.2f}", "for information"))  # fmt: skip
    shutil.rmtree(work / "recovery", ignore_errors=True)
    return rows
