"""How many rows of the ledger reach a MariaDB, beside LOAD DATA and INSERT of the same rows.

    python benchmarks/mysql_rows.py [--transfers 100000] [--batch 5000] [--rounds 3]

Each round, in turn, into fresh tables with all keys, checks and partitions of the ledger, with the
server's usual durability and one transaction for each batch:

    target       `MysqlTarget.write` of all tables of the ledger: facts, merges, positions
    facts        the same of ``entry`` and ``transfer`` alone
    lists        the same without MariaDB's bulk command, as MySQL is written
    LOAD DATA    ``entry`` and ``transfer`` from files, by the server's own client
    INSERT       the same rows as statements of 1,000, by the same client

The files and statements of the last two are written before the clock starts: they are the limit of
a writer that neither converts nor encodes anything.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import servers

from ultraengine.domains.ledger.events import AccountOpened, Transferred
from ultraengine.domains.ledger.tables import TABLES
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.model.projection import Projection, Table
from ultraengine.projection.fold import Batch
from ultraengine.projection.mysql.driver import MysqlTarget
from ultraengine.projection.mysql.values import converted, transposed
from ultraengine.projection.target import START, Checkpoint, Moved, physical

NOW = Instant(1_767_225_600_000_000)
FACTS = ("transfer", "entry")
LIST_ROWS = 1_000
ACCOUNTS = 10_000


class At:
    """Where the events of one batch stand: a `model.projection.Source`."""

    shard, epoch, offset, index, time = ShardId(0), Epoch(1), Offset(0), 0, NOW
    tenant, key, type = "tenant-1", "book-1", "ledger.create_transfers@1"
    id, principal, correlation_id = "command-1", "bench", None


class Facts:
    """The ledger without its current tables."""

    name, version, aggregates = "facts", 1, ()
    tables = tuple(table for table in TABLES.tables if table.name in FACTS)


def batches(transfers: int, size: int) -> list[Batch]:
    """Accounts first, then transfers between them, ten thousand in a second."""
    made, at = [Batch(TABLES.tables)], At()
    for number in range(ACCOUNTS):
        opened = AccountOpened(0, number, f"account-{number:07d}", "USD/2", None, None, {}, NOW)
        TABLES.project(opened, at, made[0])
    balances, versions = [0] * ACCOUNTS, [1] * ACCOUNTS
    for first in range(0, transfers, size):
        batch = Batch(TABLES.tables)
        for number in range(first, first + size):
            source, target = number * 7_919 % ACCOUNTS, (number * 104_729 + 1) % ACCOUNTS
            target = (target + (source == target)) % ACCOUNTS
            amount = 1 + number % 9_999
            balances[source] -= amount
            balances[target] += amount
            versions[source] += 1
            versions[target] += 1
            at.offset = Offset(number)
            TABLES.project(
                Transferred(0, f"t-{number:010d}", f"account-{source:07d}",
                            f"account-{target:07d}", amount, balances[source], balances[target],
                            versions[source], versions[target], 0, 0, Instant(NOW + number * 100),
                            None, None, None),
                at, batch,
            )  # fmt: skip
        made.append(batch)
    return made


@contextlib.contextmanager
def mariadb(directory: Path) -> Iterator[Path]:
    """A MariaDB with its defaults for durability; yields its socket."""
    data, place = directory / "data", directory / "socket"
    root = ["--user=root"] if os.geteuid() == 0 else []
    with (directory / "install.log").open("wb") as log:
        subprocess.run(
            [servers.find("mariadb-install-db"), "--no-defaults", f"--datadir={data}", *root,
             "--auth-root-authentication-method=normal", "--skip-test-db"],
            check=True, stdout=log, stderr=log,
        )  # fmt: skip
    command = [servers.find("mariadbd"), "--no-defaults", *root, f"--datadir={data}",
               f"--socket={place}", "--skip-networking", "--innodb-buffer-pool-size=512M",
               "--innodb-log-file-size=256M", "--local-infile=1"]  # fmt: skip
    with servers.running(command, directory / "mariadb.log", signal.SIGTERM):
        until = time.monotonic() + servers.START_S
        while not place.exists():
            if time.monotonic() > until:
                raise SystemExit("MariaDB does not start")
            time.sleep(0.1)
        yield place


def client(socket: Path, database: str, statements: str) -> None:
    """Run statements by the server's own client."""
    subprocess.run(
        [servers.find("mariadb"), "--no-defaults", "-u", "root", f"--socket={socket}",
         "--local-infile=1", "--default-character-set=utf8mb4", database],
        input=statements.encode(), check=True,
    )  # fmt: skip


async def write(socket: Path, database: str, made: Sequence[Batch], projection: Projection,
                bulk: str) -> float:  # fmt: skip
    """Seconds of all batches but the first."""
    target = MysqlTarget("bench", f"mysql://root@/{database}?socket={socket}&bulk={bulk}")
    await target.open()
    of = await target.create(projection, 1, NOW)
    started, before = 0.0, START
    for number, batch in enumerate(made, 1):
        if number == 2:
            started = time.perf_counter()
        after = Checkpoint(Offset(number), Epoch(1), NOW)
        await target.write(of, projection, batch, [Moved(ShardId(0), before, after)])
        before = after
    seconds = time.perf_counter() - started
    await target.close()
    return seconds


def shown(value: Any) -> str:
    """A value in a file of LOAD DATA."""
    return "\\N" if value is None else str(value)


def quoted(value: Any) -> str:
    """A value in a statement."""
    return "NULL" if value is None else f"'{value}'"


def columns_of(table: Table, batch: Batch) -> list[Any]:
    rows = batch.appended[table.name]
    return list(zip(*converted(table.columns, transposed(rows, len(table.columns))), strict=True))


def plain(socket: Path, database: str, made: Sequence[Batch], work: Path, how: str) -> float:
    """Seconds of the facts by the server's own client."""
    asyncio.run(write(socket, database, [*made[:1], made[1]], Facts(), "1"))
    emptied = [f"DELETE FROM {physical('facts', one.name, 'v1_b1')};" for one in Facts.tables]
    client(socket, database, "\n".join(emptied))
    script = ["SET sql_mode = 'STRICT_ALL_TABLES'; SET autocommit = 0;"]
    for number, batch in enumerate(made[1:]):
        for table in Facts.tables:
            name, rows = physical("facts", table.name, "v1_b1"), columns_of(table, batch)
            if how == "load":
                file = work / f"{table.name}-{number}"
                file.write_text("".join("\t".join(map(shown, row)) + "\n" for row in rows))
                script.append(f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE {name};")
                continue
            for first in range(0, len(rows), LIST_ROWS):
                some = rows[first : first + LIST_ROWS]
                values = ", ".join(f"({', '.join(map(quoted, row))})" for row in some)
                script.append(f"INSERT INTO {name} VALUES {values};")
        script.append("COMMIT;")
    text = "\n".join(script)
    started = time.perf_counter()
    client(socket, database, text)
    return time.perf_counter() - started


def measured(work: Path, *, transfers: int, batch: int, rounds: int) -> list[str]:
    """All rounds; the report's lines."""
    made = batches(transfers, batch)
    facts = sum(len(rows) for one in made[1:] for rows in one.appended.values())
    all_rows = sum(one.row_count for one in made[1:])
    contenders = {
        "target": (all_rows, lambda at, db, _: asyncio.run(write(at, db, made, TABLES, "1"))),
        "facts": (facts, lambda at, db, _: asyncio.run(write(at, db, made, Facts(), "1"))),
        "lists": (facts, lambda at, db, _: asyncio.run(write(at, db, made, Facts(), "0"))),
        "LOAD DATA": (facts, lambda at, db, work: plain(at, db, made, work, "load")),
        "INSERT": (facts, lambda at, db, work: plain(at, db, made, work, "insert")),
    }
    found: dict[str, list[float]] = {name: [] for name in contenders}
    with mariadb(work) as socket:
        for number in range(rounds):
            names = list(contenders)
            for name in names[number % 5 :] + names[: number % 5]:
                database = f"{name.lower().replace(' ', '_')}_{number}"
                client(socket, "mysql", f"CREATE DATABASE {database}")
                rows, run = contenders[name]
                found[name].append(rows / run(socket, database, work))
                client(socket, "mysql", f"DROP DATABASE {database}")
                print(f"MariaDB, round {number + 1}: {name} {found[name][-1]:,.0f} rows/s",
                      file=sys.stderr, flush=True)  # fmt: skip
    lines = ["| contender | transfers/s | rows/s | low to high | of LOAD DATA |",
             "|---|--:|--:|--:|--:|"]  # fmt: skip
    for name, rates in found.items():
        part = statistics.median(
            one / most for one, most in zip(rates, found["LOAD DATA"], strict=True)
        )
        median, each = statistics.median(rates), contenders[name][0] / transfers
        lines.append(f"| {name} | {median / each:,.0f} | {median:,.0f} | {min(rates):,.0f} to"
                     f" {max(rates):,.0f} | {part:.2f} |")  # fmt: skip
    return lines


def section(work: Path, *, quick: bool) -> list[str]:
    """For `make bench`: the report's lines."""
    place = work / "mariadb"
    place.mkdir()
    transfers, rounds = (20_000, 1) if quick else (100_000, 3)
    lines = measured(place, transfers=transfers, batch=5_000, rounds=rounds)
    shutil.rmtree(place)
    about = (
        f"MariaDB, {transfers:,} transfers, rounds: {rounds}; the facts are `entry` and `transfer`"
    )
    return ["", about, "", *lines]


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--transfers", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="ultra-mysql-", dir="/var/tmp"))
    try:
        lines = measured(work, transfers=options.transfers, batch=options.batch,
                         rounds=options.rounds)  # fmt: skip
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
