"""How many rows and transfers per second reach a database, beside plain COPY of the same rows.

    python benchmarks/projection.py [--transfers 5000000] [--accounts 10000] [--rounds 3]
                                    [--batch-rows 100000] [--only postgresql]

Generated transfers are stored as a feed gives them (groups of encoded commands and outcomes) in a
file.  Each round, in turn: the worker of `ultra project` fills a fresh PostgreSQL database with
all tables of the ledger; COPY fills tables of the same definition, indexes and checks with the
same rows in the order of the first round, from a file that the server reads itself; COPY fills
tables without indexes and checks; the worker fills a SQLite file.  The figures of COPY are the
limit: what PostgreSQL can take when nobody decodes, projects, folds, merges or encodes.

The last columns are processor microseconds per transfer, of this process and of the server with
all its processes: on a busy machine they say more than the rates.

Rows are those that are written: a row of current state that a batch changes counts once for each
batch.  Everything is on one disk with the usual durability, and all contenders may use all cores.
"""

import argparse
import asyncio
import logging
import os
import random
import shutil
import statistics
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import servers
import structlog
import uvloop

from ultraengine.domains.ledger import DOMAIN as LEDGER
from ultraengine.domains.ledger.commands import CreateTransfers, OpenAccounts
from ultraengine.domains.ledger.events import AccountOpened, Transferred
from ultraengine.domains.ledger.tables import TABLES
from ultraengine.feed.source import Consumer, FeedPage
from ultraengine.log.serializer import serializers
from ultraengine.model.command import Command
from ultraengine.model.ids import Instant, Offset, ShardId
from ultraengine.model.limits import ProjectionLimits
from ultraengine.model.outcome import CommittedGroup
from ultraengine.projection.decode import Decoder
from ultraengine.projection.driver import TargetWorker
from ultraengine.projection.postgres.dialect import PostgresDialect, slice_of
from ultraengine.projection.process.driver import collect_seldom
from ultraengine.projection.projector import ProjectionHooks, Written, declared
from ultraengine.projection.target import physical
from ultraengine.projection.targets import open_target
from ultraengine.testing.memory_feed import GroupLog
from ultraengine_adapters.local.clock import SystemClock

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))

ITEMS = 100
"""Transfers of one command."""
COMMANDS = 10
"""Commands of one group."""
GROUP = ITEMS * COMMANDS
"""Transfers of one group: they have its stamped time, as an engine's have."""
PAGE_GROUPS = 4
SECOND_US = 1_000_000
START = Instant(1_767_225_600 * SECOND_US)
RATE = 50_000
"""Transfers per second of the stamped times: 5 M are a minute and a half, of one month and day."""
QUICK_TRANSFERS = 200_000
FULL_TRANSFERS = 5_000_000

WORKER, LIMIT = "worker into PostgreSQL", "COPY, same tables"

Figure = dict[str, float]
Row = tuple[str, str, str]


class Spool:
    """Groups in a file: a `feed.source.FeedSource` of one shard that has ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end = Offset(0)
        self.end_time = Instant(0)
        self.bytes = 0

    def fill(self, groups: Sequence[CommittedGroup]) -> None:
        """Append groups."""
        with self.path.open("ab") as file:
            for group in groups:
                encoded = msgspec.msgpack.encode(group)
                file.write(len(encoded).to_bytes(4, "big") + encoded)
                self.bytes += len(group.commands) + len(group.outcomes)
        self.end, self.end_time = groups[-1].offset_end, groups[-1].time

    async def shards(self) -> Sequence[ShardId]:
        """The one."""
        return [ShardId(0)]

    async def pages(self, shard: ShardId, from_offset: Offset) -> AsyncGenerator[FeedPage, None]:  # noqa: ARG002
        """All groups from an offset on, then nothing for ever."""
        decode = msgspec.msgpack.Decoder(CommittedGroup).decode
        with self.path.open("rb") as file:
            page: list[CommittedGroup] = []
            while size := file.read(4):
                group = decode(file.read(int.from_bytes(size, "big")))
                if group.offset_end > from_offset:
                    page.append(group)
                if len(page) == PAGE_GROUPS:
                    yield FeedPage(tuple(page), self.end, self.end_time)
                    page = []
        while True:
            yield FeedPage(tuple(page), self.end, self.end_time)
            page = []
            await asyncio.sleep(1)

    async def confirm(self, shard: ShardId, consumer: str, offset: Offset) -> None:
        """Nothing is kept for anybody."""

    async def consumers(self, shard: ShardId) -> Sequence[Consumer]:  # noqa: ARG002
        """None."""
        return ()

    async def forget(self, shard: ShardId, consumer: str) -> None:
        """Nothing is remembered."""

    async def close(self) -> None:
        """Nothing is open."""


class Generator:
    """Commands and events of a book, with balances and versions as the ledger would reach them."""

    def __init__(self, accounts: int) -> None:
        self._names = [f"account-{number:07d}" for number in range(accounts)]
        self._balances = [0] * accounts
        self._versions = [1] * accounts
        self._random = random.Random(7)
        self._encode = msgspec.msgpack.Encoder().encode
        self.transfers = 0

    def _command(self, verb: str, number: int, data: object) -> Command:
        return Command(
            f"command-{number:09d}", f"ledger.{verb}@1", "book-1",
            msgspec.Raw(self._encode(data)), "tenant-1", "bench",
        )  # fmt: skip

    def opened(self) -> list[tuple[Command, list[Any]]]:
        """Every account, in commands of `ITEMS`."""
        made = []
        for first in range(0, len(self._names), ITEMS):
            names = self._names[first : first + ITEMS]
            data = msgspec.convert(
                {"accounts": [{"id": name, "asset": "USD/2", "min_balance": -(10**15)}
                              for name in names]}, OpenAccounts)  # fmt: skip
            events: list[Any] = [
                AccountOpened(0, number, name, "USD/2", -(10**15), None, {}, START)
                for number, name in enumerate(names, first)
            ]
            made.append((self._command("open_accounts", first, data), events))
        return made

    def moved(self) -> tuple[Command, list[Any]]:
        """One command of `ITEMS` transfers."""
        pick, names, count = self._random.randrange, self._names, len(self._names)
        balances, versions = self._balances, self._versions
        items, events = [], list[Any]()
        for number in range(self.transfers, self.transfers + ITEMS):
            source = pick(count)
            target = (source + 1 + pick(count - 1)) % count
            amount = 1 + pick(9_999)
            balances[source] -= amount
            balances[target] += amount
            versions[source] += 1
            versions[target] += 1
            name = f"t-{number:010d}"
            items.append({"id": name, "from": names[source], "to": names[target],
                          "amount": amount})  # fmt: skip
            at = START + (number - number % GROUP) * SECOND_US // RATE
            events.append(Transferred(
                0, name, names[source], names[target], amount, balances[source],
                balances[target], versions[source], versions[target], number << 8, number << 8,
                at, None, None, None))  # fmt: skip
        data = msgspec.convert({"transfers": items}, CreateTransfers)
        made = self._command("create_transfers", 10**8 + self.transfers, data), events
        self.transfers += ITEMS
        return made


def generate(path: Path, transfers: int, accounts: int) -> Spool:
    """A spool of so many transfers."""
    spool, made, log = Spool(path), Generator(accounts), GroupLog(ShardId(0))
    opened = made.opened()
    for first in range(0, len(opened), COMMANDS):
        log.add(START, opened[first : first + COMMANDS])
    while made.transfers < transfers:
        time_ = Instant(START + made.transfers * SECOND_US // RATE)
        log.add(time_, [made.moved() for _ in range(COMMANDS)])
        if len(log.groups) > 200:
            spool.fill(log.groups[:-1])
            del log.groups[:-1]
    spool.fill(log.groups)
    return spool


def server_cpu_s(postmaster: int) -> float:
    """Processor seconds of a PostgreSQL and of all its children, those that have ended too."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
        except OSError:
            continue  # It has just ended.
        own, parent = int(stat.parent.name), int(fields[1])
        if postmaster in (own, parent):
            ticks += sum(map(int, fields[11 : 15 if own == postmaster else 13]))
    return ticks / os.sysconf("SC_CLK_TCK")


async def project(url: str, spool: Spool, batch_rows: int) -> Figure:
    """Run the worker until the target holds all of the spool."""
    rows, ended, domains = [0, 0], asyncio.Event(), (LEDGER,)

    def after(written: Written) -> None:
        rows[0] += written.rows
        rows[1] += 1
        if written.moved[0].after.offset >= spool.end:
            ended.set()

    limits = ProjectionLimits(batch_rows_max=batch_rows, batch_bytes_max=256 << 20,
                              ahead_bytes_max=64 << 20)  # fmt: skip
    worker = TargetWorker(
        open_target(url, "bench"), spool, declared(domains), Decoder(domains, serializers()),
        clock=SystemClock(), chance=random.Random(1).random,
        hooks=ProjectionHooks(after=(after,)), limits=limits,
    )  # fmt: skip
    collect_seldom()
    started, used = time.perf_counter(), time.process_time()
    task = asyncio.create_task(worker.run())
    done, _ = await asyncio.wait(
        {task, asyncio.ensure_future(ended.wait())}, return_when=asyncio.FIRST_COMPLETED
    )
    seconds, used = time.perf_counter() - started, time.process_time() - used
    if task in done:
        raise SystemExit(f"the worker has ended: {task.exception()!r}")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return {"seconds": seconds, "rows": rows[0], "batches": rows[1], "cpu_s": used}


async def export(url: str, folder: Path) -> None:
    """The rows of a set, table by table, in the order in which they lie."""
    database = await asyncpg.connect(url)
    for table in TABLES.tables:
        name = physical(TABLES.name, table.name, f"v{TABLES.version}_b1")
        await database.execute(
            f"COPY (SELECT * FROM {name}) TO '{folder}/{table.name}' (FORMAT binary)", timeout=3600
        )
    await database.close()


async def copy(url: str, folder: Path, *, indexed: bool) -> Figure:
    """COPY of the exported rows into fresh tables, in one transaction for each table."""
    database, dialect = await asyncpg.connect(url), PostgresDialect()
    if not await database.fetchval("SELECT TRUE FROM pg_roles WHERE rolname = 'ultra_reader'"):
        await database.execute('CREATE ROLE "ultra_reader" NOLOGIN')
    for table in TABLES.tables:
        plain = msgspec.structs.replace(table, partition=None, checks=(), indexes=())
        statements = dialect.create_table(table.name, table if indexed else plain)
        for statement in statements if indexed else statements[:1]:
            await database.execute(statement)
        if table.partition is not None and indexed:
            cut = slice_of(table.partition, START // (86_400 * SECOND_US))
            for statement in dialect.create_partition(table.name, table, cut):
                await database.execute(statement)
        if not indexed:
            await database.execute(f'ALTER TABLE "{table.name}" DROP CONSTRAINT {table.name}_pkey')
    rows, started = 0, time.perf_counter()
    for table in TABLES.tables:
        done = await database.execute(
            f"COPY \"{table.name}\" FROM '{folder}/{table.name}' (FORMAT binary)", timeout=3600
        )
        rows += int(done.split()[1])
    seconds = time.perf_counter() - started
    await database.close()
    return {"seconds": seconds, "rows": rows}


async def fresh(url: str, name: str) -> str:
    """An empty database."""
    admin = await asyncpg.connect(f"{url}/postgres")
    await admin.execute(f'CREATE DATABASE "{name}"')
    await admin.close()
    return f"{url}/{name}"


async def answering(url: str) -> None:
    """Until the server takes connections: its port is open before it is ready."""
    until = time.monotonic() + servers.START_S
    while True:
        try:
            await (await asyncpg.connect(f"{url}/postgres")).close()
        except (asyncpg.CannotConnectNowError, OSError):
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.1)
        else:
            return


async def dropped(url: str, name: str) -> None:
    """Make room."""
    admin = await asyncpg.connect(f"{url}/postgres")
    await admin.execute(f'DROP DATABASE "{name}"', timeout=600)
    await admin.close()


def remove(path: Path) -> None:
    """A SQLite file and what lies beside it."""
    for end in ("", "-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)


async def round_of(
    number: int, work: Path, url: str, postmaster: int, spool: Spool, batch_rows: int, only: str
) -> dict[str, Figure]:
    """All contenders once; each round begins with another one.  The first one makes the rows."""
    shared = work / "rows"

    async def worker() -> Figure:
        name = f"worker{number}"
        figure = await project(await fresh(url, name), spool, batch_rows)
        if not any(shared.iterdir()):
            await export(f"{url}/{name}", shared)
        await dropped(url, name)
        return figure

    async def plain(*, indexed: bool) -> Figure:
        name = f"copy{number}{indexed}".lower()
        figure = await copy(await fresh(url, name), shared, indexed=indexed)
        await dropped(url, name)
        return figure

    async def sqlite() -> Figure:
        path = work / f"target-{number}.sqlite"
        figure = await project(f"sqlite:///{path}", spool, batch_rows)
        remove(path)
        return figure

    turns: dict[str, Callable[[], Any]] = {
        WORKER: worker,
        LIMIT: lambda: plain(indexed=True),
        "COPY, no index or check": lambda: plain(indexed=False),
    }
    if only != "postgresql":
        turns["worker into SQLite"] = sqlite
    names = list(turns)
    first = number % len(names) if any(shared.iterdir()) else 0
    figures = {}
    for name in names[first:] + names[:first]:
        before = server_cpu_s(postmaster)
        figures[name] = await turns[name]()
        if "SQLite" not in name:
            figures[name]["server_cpu_s"] = server_cpu_s(postmaster) - before
    return figures


def measured(
    work: Path, *, transfers: int, accounts: int, rounds: int, batch_rows: int, only: str = ""
) -> list[dict[str, Figure]]:
    """All rounds."""
    spool = generate(work / "spool", transfers, accounts)
    print(f"projection: {transfers:,} transfers, {spool.bytes / transfers:.0f} bytes each",
          flush=True)  # fmt: skip
    folder = work / "rows"
    folder.mkdir()
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    found = []
    with servers.postgres(work / "projection-postgres") as (port, _):
        url = f"postgresql://bench@127.0.0.1:{port}"
        pid_file = work / "projection-postgres" / "pgdata" / "postmaster.pid"
        postmaster = int(pid_file.read_text().split()[0])
        asyncio.run(answering(url))
        for number in range(rounds):
            print(f"projection: round {number + 1}/{rounds}", flush=True)
            figures = uvloop.run(round_of(number, work, url, postmaster, spool, batch_rows, only))
            for figure in figures.values():
                figure["rows_per_s"] = figure["rows"] / figure["seconds"]
                figure["transfers_per_s"] = transfers / figure["seconds"]
            found.append(figures)
    return found


def table(rounds: Sequence[dict[str, Figure]], transfers: int) -> list[str]:
    """The report's lines."""
    lines = [
        "| contender | transfers/s | rows/s | low to high | of COPY | client us | server us |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    limit = [one[LIMIT]["transfers_per_s"] for one in rounds]
    for name in sorted(rounds[0]):
        rates = [one[name]["rows_per_s"] for one in rounds]
        speeds = [one[name]["transfers_per_s"] for one in rounds]
        part = statistics.median(speed / most for speed, most in zip(speeds, limit, strict=True))
        cells = []
        for part_name in ("cpu_s", "server_cpu_s"):
            used = [one[name].get(part_name, 0.0) / transfers * 1e6 for one in rounds]
            cells.append(f"{statistics.median(used):.1f}" if any(used) else "-")
        lines.append(
            f"| {name} | {statistics.median(speeds):,.0f} | {statistics.median(rates):,.0f} |"
            f" {min(rates):,.0f} to {max(rates):,.0f} | {part:.2f} | {' | '.join(cells)} |"
        )
    return lines


def goals(rounds: Sequence[dict[str, Figure]], transfers: int) -> list[Row]:
    """(aim, measured, met) for `make bench`."""
    rates = [one[WORKER]["rows_per_s"] for one in rounds]
    median = statistics.median(rates)
    return [(
        f"rows/s of {transfers:,} transfers from the feed into PostgreSQL: at least 100,000",
        f"{median:,.0f} ({min(rates):,.0f} to {max(rates):,.0f})",
        "yes" if median >= 100_000 else "**no**",
    )]  # fmt: skip


def section(work: Path, *, quick: bool) -> tuple[list[str], list[Row]]:
    """For `make bench`: the report's lines, and its aims.

    Three short rounds tell the spread; one long one tells whether the rate holds.
    """
    lines, aims, sizes = list[str](), list[Row](), [(QUICK_TRANSFERS, 3)]
    if not quick:
        sizes.append((FULL_TRANSFERS, 1))
    for transfers, rounds in sizes:
        place = work / f"projection-{transfers}"
        place.mkdir()
        place.chmod(0o755)
        found = measured(place, transfers=transfers, accounts=10_000, rounds=rounds,
                         batch_rows=100_000)  # fmt: skip
        lines += ["", f"{transfers:,} transfers, rounds: {rounds}", "", *table(found, transfers)]
        aims += goals(found, transfers)
        shutil.rmtree(place)
    return lines, aims


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--transfers", type=int, default=QUICK_TRANSFERS)
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-rows", type=int, default=100_000)
    parser.add_argument("--only", choices=("", "postgresql"), default="")
    arguments = parser.parse_args()
    work = Path("/var/tmp") / f"ultra-projection-{os.getpid()}"
    work.mkdir()
    work.chmod(0o755)
    try:
        rounds = measured(
            work, transfers=arguments.transfers, accounts=arguments.accounts,
            rounds=arguments.rounds, batch_rows=arguments.batch_rows, only=arguments.only,
        )  # fmt: skip
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print("\n".join(table(rounds, arguments.transfers)))


if __name__ == "__main__":
    main()
