"""Figures of single parts: execution, append, recovery, snapshots, memory, two shards.

Every row is (aim, measured, met), so that a missed aim stands in the table as one.
"""

import concurrent.futures
import gc
import json
import random
import shutil
import signal
import statistics
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
        if written is None:
            raise SystemExit("the log failed")
        times.append((time.perf_counter() - started - written.sync_s) / 100)
    log.close(clean=True)
    times.sort()
    return times[len(times) // 2] * 1e6


def get(port: int, path: str, method: str = "GET") -> dict[str, object]:
    """A JSON answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    with urllib.request.urlopen(request, timeout=600) as answer:
        return dict(json.loads(answer.read()))


TAIL_CHUNK = 100_000
"""Commands per run of the generator, which holds them all in memory."""


def recovery(work: Path, accounts: int, commands: int) -> tuple[float, float, float]:
    """(seconds to replay, seconds of the whole start, resident bytes per account).

    Recovery is from a snapshot with that many accounts and a tail of that many commands of one
    transfer, after a kill.  The accounts are weighed in the same engine, before the tail.
    """
    directory = work / "recovery"
    with servers.ultra(directory, core=0, stop=signal.SIGKILL) as (port, pid):
        empty = servers.memory_mib(pid, "VmRSS")
        load.prepare(port, accounts)
        account_bytes = (servers.memory_mib(pid, "VmRSS") - empty) * 2**20 / accounts
        get(port, "/admin/v1/snapshot", "POST")
        for start in range(0, commands, TAIL_CHUNK):
            requests = min(TAIL_CHUNK, commands - start) // 1_000
            servers.load(port, "batch", 1_000, 4, requests, f"t{start}", accounts=accounts)
    started = time.perf_counter()
    with servers.ultra(directory, core=0) as (port, _):
        whole = time.perf_counter() - started
        status = get(port, "/admin/v1/status")
    shutil.rmtree(directory)
    return float(str(status["replay_s"])), whole, account_bytes


def stall_ms(work: Path, accounts: int) -> tuple[float, float]:
    """Worst answers in ms: (while a snapshot of that many accounts is taken, without one).

    Requests leave on a fixed schedule of 200/s, whether or not earlier ones were answered.
    """
    with servers.ultra(work / "stall", core=0) as (port, _):
        load.prepare(port, accounts)

        def scheduled(run: str) -> float:
            result = servers.load(
                port, "commands", 10, 32, 1_000, run, rate=200.0, accounts=accounts
            )
            return float(str(result["max_ms"]))

        quiet = min(scheduled("q1"), scheduled("q2"))
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            busy = pool.submit(scheduled, "b1")
            time.sleep(1.5)  # The generator encodes first.
            get(port, "/admin/v1/snapshot", "POST")
            worst = busy.result()
    shutil.rmtree(work / "stall")
    return worst, quiet


def transfers_per_s(work: Path, accounts: int) -> float:
    """Of four clients with commands of 1,000 between so many accounts: the median of three runs."""
    with servers.ultra(work / "large", core=0) as (port, _):
        load.prepare(port, accounts)
        results = [
            servers.load(port, "commands", 1_000, 4, 75, f"l{turn}", accounts=accounts)
            for turn in range(3)
        ]
    shutil.rmtree(work / "large")
    return statistics.median(float(str(one["transfers_per_s"])) for one in results)


def two_shards(work: Path, seconds: float) -> float:
    """Transfers/s of two engines, each on a core of its own together with its load, relative to
    one engine on one core together with its load."""

    def rate(port: int, core: int, run: str) -> float:
        result = servers.load(port, "commands", 1_000, 4, int(60 * seconds), run, core=core)
        return float(str(result["transfers_per_s"]))

    with (
        servers.ultra(work / "left", core=0) as (left, _),
        servers.ultra(work / "right", core=1) as (right, _),
        concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
        for port in (left, right):
            load.prepare(port, 10_000)
        alone = rate(left, 0, "alone")
        both = [pool.submit(rate, left, 0, "both"), pool.submit(rate, right, 1, "both")]
        return sum(one.result() for one in both) / alone


def measure(work: Path, *, quick: bool) -> list[Row]:
    """All rows.  `quick` takes a tenth of the sizes and says so in the row."""
    million = 100_000 if quick else 1_000_000
    rows = [
        row("execution of a counter command", counter_us(), 1, "us"),
        row("execution of a transfer, 10,000 accounts", transfer_us(10_000, 100), 2, "us"),
        row(f"execution of a transfer, {million:,} accounts", transfer_us(million, 100), 5, "us"),
        row("append, amortized over groups of 100, without the flush", append_us(work), 5, "us"),
    ]
    rate = transfers_per_s(work, million)
    aim = f"transfers/s in commands of 1,000 between {million:,} accounts: more than 121,000"
    rows.append((aim, f"{rate:,.0f}", "yes" if rate > 121_000 else "**no**"))
    replay, whole, account_bytes = recovery(work, million, million)
    rows.append(row(f"recovery of {million:,} accounts and a tail of {million:,}", whole, 5, "s"))
    rows.append((f"of which replay of {million:,} commands", f"{replay:.2f} s", "for information"))
    worst, quiet = stall_ms(work, million)
    rows.append(row(f"worst answer during a snapshot of {million:,} accounts, 200 requests/s",
                    worst, 30, "ms"))  # fmt: skip
    rows.append(("the same without a snapshot", f"{quiet:.1f} ms", "for information"))
    rows.append((f"memory per account, {million:,} accounts in a running engine",
                 f"{account_bytes:.0f} bytes", "for information"))  # fmt: skip
    both = two_shards(work, 1 if quick else 5)
    rows.append(("two shards, pinned, each with its load on its core, relative to one",
                 f"{both:.2f}", "for information"))  # fmt: skip
    return rows
