"""How long aggregates over many entries take through `ultra query`, and in the database.

    python benchmarks/aggregates.py [--entries 1000000] [--accounts 10000] [--calls 7]
                                    [--only postgresql|sqlite|mariadb]

Makes the ledger's tables in a fresh PostgreSQL or MariaDB or in a SQLite file, and fills them with
rows that the database generates itself, consistent so that every CHECK holds: in each round every
account pays the account seven places on, so that its balance after any entry is known without
adding up.
Sums by day are the worker's own (`Target.refresh`), and the time they take is printed.
All entries are in one book, in 25 business days of one month.  `--entries 10000000` is the size
that the aim speaks of; `query.py` asks tables that the worker has filled, and points as well.

Each read is asked over HTTP, one after the other.  Before each the position of the tables is moved,
so that no cache may answer.  "In the database" is the time of the conversation with it as
`ultra query` records it, the mean over the calls.  No thresholds: it is not a test.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import mysql_rows
import projection
import servers

from ultraengine.domains.ledger.account_table import ACCOUNT
from ultraengine.domains.ledger.days import (
    ASSET_BOOKED,
    ASSET_CLOSE,
    ASSET_DAY,
    ASSET_HELD,
    DAILY_BALANCE,
    DAY_CLOSE,
    DAY_S,
    MINUTE_S,
)
from ultraengine.domains.ledger.tables import ENTRY, TABLES
from ultraengine.edge.auth import LOOPBACK_TENANT
from ultraengine.model.ids import Instant
from ultraengine.model.projection import Table
from ultraengine.projection.postgres.dialect import PostgresDialect, slice_of
from ultraengine.projection.sqlite.store.driver import connect
from ultraengine.projection.target import physical
from ultraengine.projection.targets import open_target

DAYS = 25
STEP = 7
"""Places from the account that pays to the one that is paid."""
FIRST_DAY = 20_454
"""2026-01-01, in days since 1970."""
AGED_S = 0.3
"""Longer than `ultra query` believes in a position without a look."""
SET = f"v{TABLES.version}_b1"
SPANS_S = (DAY_S, MINUTE_S, 0)
AIM_MS = 10.0
FILL_S = 7_200
"""Longest that one statement may fill a table."""

Row = tuple[str, str, str]


class Words(NamedTuple):
    """What databases say differently."""

    series: str
    """A table `n(i)` of `{count}` numbers from 0 on."""
    moment: str
    """Microseconds since the first day, as a time."""
    day: str
    """Days since the first day, as a date."""
    start: str
    """First moment of the span of `{span}` seconds that holds the time `{at}`."""


POSTGRES = Words(
    "generate_series(0::bigint, {count} - 1) AS n(i)",
    f"(to_timestamp({FIRST_DAY * DAY_S}) + ({{0}}) * interval '1 microsecond')",
    f"(date '1970-01-01' + {FIRST_DAY} + ({{0}})::int)",
    "to_timestamp(floor(extract(epoch FROM {at}) / {span}) * {span})",
)
SQLITE = Words(
    "(WITH RECURSIVE c(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM c WHERE i + 1 < {count})"
    " SELECT i FROM c) AS n",
    f"({FIRST_DAY * DAY_S * 1_000_000} + ({{0}}))",
    f"({FIRST_DAY} + ({{0}}))",
    "({at} - {at} % ({span} * 1000000))",
)

MARIADB = Words(
    "(SELECT cast(seq AS signed) - 1 AS i FROM seq_1_to_{count}) AS n",
    "(timestamp('2026-01-01 00:00:00') + INTERVAL ({0}) MICROSECOND)",
    "(date '2026-01-01' + INTERVAL ({0}) DAY)",
    "(timestamp('2026-01-01 00:00:00') + INTERVAL floor(timestampdiff(SECOND,"
    " timestamp('2026-01-01 00:00:00'), {at}) / {span}) * {span} SECOND)",
)


class Size(NamedTuple):
    """How much there is."""

    accounts: int
    rounds: int

    @property
    def entries(self) -> int:
        """In the table."""
        return 2 * self.accounts * self.rounds

    @property
    def spacing_us(self) -> int:
        """Between two transfers, so that a day has whole rounds."""
        return DAYS * DAY_S * 1_000_000 // (self.accounts * self.rounds)


def sized(entries: int, accounts: int) -> Size:
    """So many entries or a little more: every day has the same number of rounds."""
    per_day = max(1, -(-entries // (2 * accounts * DAYS)))
    return Size(accounts, per_day * DAYS)


def fill(words: Words, size: Size) -> list[str]:
    """Statements that fill the tables."""
    accounts, rounds = size.accounts, size.rounds
    head = f"'{LOOPBACK_TENANT}', 'book-1'"
    series = words.series.format
    # Account x pays `1 + x % 9` in each round, and is paid by the one `STEP` before it.
    name = "'account-' || substr(cast(10000000 + {0} as char(8)), 2)".format
    pays = "(1 + ({0}) % 9)".format
    before = f"(({{0}} + {accounts - STEP}) % {accounts})".format
    at, turn = f"(i % {accounts})", f"((i - i % {accounts}) / {accounts})"
    after = f"((i + {STEP}) % {accounts})"
    net = f"({pays(before('{0}'))} - {pays('{0}')})".format
    time_of = words.moment.format(f"i * {size.spacing_us}")
    facts = f"{time_of}, {time_of}, 0, i, 0"
    transfer = "'t-' || i"
    # Who is paid by one with a lower number is paid before it pays itself.
    first_paid = f"{at} >= {STEP}"
    paying = (
        f"SELECT {head}, {name(at)}, 2 * {turn} + CASE WHEN {first_paid} THEN 3 ELSE 2 END,"
        f" {transfer}, {name(after)}, -{pays(at)}, {turn} * {net(at)}"
        f" + CASE WHEN {first_paid} THEN {net(at)} ELSE -{pays(at)} END, {facts}"
        f" FROM {series(count=accounts * rounds)}"
    )
    paid = (
        f"SELECT {head}, {name(after)}, 2 * {turn} + CASE WHEN {after} >= {STEP} THEN 2 ELSE 3 END,"
        f" {transfer}, {name(at)}, {pays(at)}, {turn} * {net(after)}"
        f" + CASE WHEN {after} >= {STEP} THEN {pays(at)} ELSE {net(after)} END, {facts}"
        f" FROM {series(count=accounts * rounds)}"
    )
    opened, last = words.moment.format("0"), words.moment.format(f"{DAYS * DAY_S * 1_000_000 - 1}")
    account = (
        f"SELECT {head}, {name('i')}, 'USD/2', NULL, NULL, '{{}}', {rounds} * {net('i')}, 0, 0,"
        f" {1 + 2 * rounds}, FALSE, {opened}, {last}, 0, 0 FROM {series(count=accounts)}"
    )
    per_day = rounds // DAYS
    daily = (
        f"SELECT {head}, {name(at)}, {words.day.format(turn)}, {per_day} * {pays(before(at))},"
        f" {per_day} * {pays(at)}, {2 * per_day}, 0 FROM {series(count=accounts * DAYS)}"
    )
    # At the end of a day each account has paid and been paid as often as the days say.
    done = f"({turn} + 1) * {per_day}"
    close = (
        f"SELECT {head}, {name(at)}, {words.day.format(turn)}, {done} * {net(at)},"
        f" 1 + 2 * {done} FROM {series(count=accounts * DAYS)}"
    )
    rows: list[tuple[Table, str]] = [
        (ACCOUNT, account), (ENTRY, paying), (ENTRY, paid), (DAILY_BALANCE, daily),
        (DAY_CLOSE, close), *((ASSET_BOOKED, booked(words, head, span)) for span in SPANS_S),
    ]  # fmt: skip
    return [
        f"INSERT INTO {physical(TABLES.name, table.name, SET)} ({', '.join(table.names)}) {select}"
        for table, select in rows
    ]


def booked(words: Words, head: str, span: int) -> str:
    """What the entries did to debits and credits, by spans; each transfer has its own moment."""
    entry, account = (physical(TABLES.name, one.name, SET) for one in (ENTRY, ACCOUNT))
    owed = "CASE WHEN {0} < 0 THEN 0 - ({0}) ELSE 0 END".format
    start = words.start.format(at="at", span=span) if span else "at"
    return (
        f"SELECT {head}, {span}, {start}, 'USD/2', sum(opened), sum(grown), sum(grown) FROM"
        f" (SELECT booked_at AS at, 0 AS opened, {owed('balance')} - {owed('balance - amount')}"
        f" AS grown FROM {entry} UNION ALL SELECT opened_at, 1, 0 FROM {account}) AS changes"
        f" GROUP BY {start} HAVING sum(opened) > 0 OR sum(grown) <> 0"
    )


POSITION = (
    "INSERT INTO ultra_projection_position"
    " (projection, build, shard, log_offset, epoch, booked_at, chain)"
    " VALUES ('ledger', 1, 0, 1, 1, {moment}, {chain})"
)
TOUCH = "INSERT INTO ultra_projection_slice VALUES ('ledger', 1, '{aggregate}', {day})"
MOVE = "UPDATE ultra_projection_position SET log_offset = log_offset + 1"


async def make_set(url: str) -> None:
    """The empty tables, and views that show them."""
    target = open_target(url, "bench")
    await target.open()
    made = await target.create(TABLES, 1, Instant(FIRST_DAY * DAY_S * 1_000_000))
    await target.serve(made, TABLES, made.created_at)
    await target.close()


def touched(words: Words) -> list[str]:
    """Statements after which the worker has to sum up every day."""
    return [
        TOUCH.format(aggregate=one.table.name, day=words.day.format(day))
        for one in (ASSET_DAY, ASSET_CLOSE, ASSET_HELD)
        for day in range(DAYS)
    ]


async def summed_up(url: str) -> None:
    """The worker's own sums, day by day, with every CHECK."""
    target, started = open_target(url, "bench"), time.perf_counter()
    await target.open()
    (made,) = await target.sets()
    while await target.refresh(made, TABLES, 1):
        pass
    await target.close()
    seconds = time.perf_counter() - started
    print(f"query: {DAYS} days summed up in {seconds:,.1f} s", flush=True)


async def postgres_filled(url: str, size: Size) -> None:
    """Tables in PostgreSQL."""
    await make_set(url)
    database = await asyncpg.connect(url)
    name, dialect = physical(TABLES.name, ENTRY.name, SET), PostgresDialect()
    assert ENTRY.partition is not None
    for statement in dialect.create_partition(name, ENTRY, slice_of(ENTRY.partition, FIRST_DAY)):
        await database.execute(statement)
    position = POSITION.format(moment=POSTGRES.moment.format("0"), chain=r"'\x00'::bytea")
    for statement in [*fill(POSTGRES, size), position, *touched(POSTGRES)]:
        await database.execute(statement, timeout=FILL_S)
    await database.execute("VACUUM ANALYZE", timeout=FILL_S)
    await summed_up(url)
    await database.close()


def sqlite_filled(path: Path, size: Size) -> None:
    """Tables in a file."""
    asyncio.run(make_set(f"sqlite:///{path}"))
    database = connect(path)
    position = POSITION.format(moment=SQLITE.moment.format("0"), chain="x'00'")
    for statement in [*fill(SQLITE, size), position, *touched(SQLITE), "ANALYZE"]:
        database.execute(statement)
        database.commit()
    database.close()
    asyncio.run(summed_up(f"sqlite:///{path}"))


def iso(seconds: float) -> str:
    """A moment of the month, RFC 3339."""
    at = FIRST_DAY * DAY_S + seconds
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + "Z"


def reads() -> dict[str, str]:
    """Paths below ``/v1/sql/ledger/``."""
    account = "accounts/account-0000123/statement"
    return {
        "trial balance, now": "trial-balance",
        "trial balance at the end of a business day": (
            f"trial-balance?at_effective_time={iso(12 * DAY_S - 1)[:-1]}.999999Z"
        ),
        "trial balance as recorded at the end of a day": (
            f"trial-balance?at_time={iso(12 * DAY_S - 1)[:-1]}.999999Z"
        ),
        "trial balance at a business time": (
            f"trial-balance?at_effective_time={iso(12.5 * DAY_S)}"
        ),
        "trial balance as recorded at a time": f"trial-balance?at_time={iso(12.5 * DAY_S)}",
        "turnover of all days": "turnover",
        "turnover of ten days": "turnover?from=2026-01-06&to=2026-01-16",
        "statement of a day": f"{account}?from={iso(12 * DAY_S)}&to={iso(13 * DAY_S)}",
        "statement of ten days": f"{account}?from={iso(5 * DAY_S)}&to={iso(15 * DAY_S)}",
    }


def asked(port: int, path: str) -> float:
    """Milliseconds of one GET."""
    started = time.perf_counter()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{path}: {error.read().decode()}") from error
    return (time.perf_counter() - started) * 1_000


def in_database(port: int) -> dict[str, tuple[int, float]]:
    """Calls and seconds so far, of all reads together by name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/admin/v1/patterns", timeout=60) as answer:
        shapes = json.load(answer)["shapes"]
    found: dict[str, tuple[int, float]] = {}
    for one in shapes:
        calls, seconds = found.get(one["read"], (0, 0.0))
        found[one["read"]] = calls + one["calls"] - one["cached"], seconds + one["seconds"]
    return found


def measured(work: Path, url: str, move: Any, calls: int) -> dict[str, tuple[list[float], float]]:
    """By read: milliseconds of each call over HTTP, and the mean in the database."""
    port, found = servers.free_port(), {}
    command = [str(Path(sys.executable).with_name("ultra")), "query", "--target", url,
               "--port", str(port)]  # fmt: skip
    with servers.running(command, work / "query.log", signal.SIGTERM):
        servers.wait_for_port(port)
        for name, path in reads().items():
            book = f"/v1/sql/ledger/book-1/{path}"
            times = []
            asked(port, book)  # Pages and plans are there.
            before = in_database(port)
            for _ in range(calls):
                move()
                time.sleep(AGED_S)
                times.append(asked(port, book))
            after = in_database(port)
            (read,) = [one for one in after if after[one] != before.get(one)]
            old = before.get(read, (0, 0.0))
            count = after[read][0] - old[0]
            if count != calls:
                raise SystemExit(f"{name}: {calls - count} answers came from a cache")
            found[name] = times, (after[read][1] - old[1]) / count * 1_000
    return found


def table(found: dict[str, tuple[list[float], float]]) -> list[str]:
    """The report's lines."""
    lines = ["| read | over HTTP, ms | low to high | in the database, ms |", "|---|--:|--:|--:|"]
    for name, (times, inside) in found.items():
        lines.append(
            f"| {name} | {statistics.median(times):,.1f} | {min(times):,.1f} to {max(times):,.1f} |"
            f" {inside:,.1f} |"
        )
    return lines


def aims(where: str, entries: int, found: dict[str, tuple[list[float], float]]) -> list[Row]:
    """(aim, measured, met) for `make bench`."""
    return [
        (
            f"{name} over {entries:,} entries in {where}: at most {AIM_MS:g} ms",
            f"{statistics.median(times):,.1f} ms",
            "yes" if statistics.median(times) <= AIM_MS else "**no**",
        )
        for name, (times, _) in found.items()
    ]


def of_postgres(work: Path, size: Size, calls: int) -> dict[str, tuple[list[float], float]]:
    """Fill and measure."""
    with servers.postgres(work / "query-postgres") as (port, _):
        admin = f"postgresql://bench@127.0.0.1:{port}"
        asyncio.run(projection.answering(admin))
        url = asyncio.run(projection.fresh(admin, "query"))
        started = time.perf_counter()
        asyncio.run(postgres_filled(url, size))
        print(f"query: PostgreSQL filled in {time.perf_counter() - started:,.0f} s", flush=True)

        async def moved() -> None:
            database = await asyncpg.connect(url)
            await database.execute(MOVE)
            await database.close()

        return measured(work, url, lambda: asyncio.run(moved()), calls)


def of_sqlite(work: Path, size: Size, calls: int) -> dict[str, tuple[list[float], float]]:
    """Fill and measure."""
    path, started = work / "query.sqlite", time.perf_counter()
    sqlite_filled(path, size)
    print(f"query: SQLite filled in {time.perf_counter() - started:,.0f} s", flush=True)

    def moved() -> None:
        database = connect(path)
        database.execute(MOVE)
        database.commit()
        database.close()

    return measured(work, f"sqlite:///{path}", moved, calls)


def of_mariadb(work: Path, size: Size, calls: int) -> dict[str, tuple[list[float], float]]:
    """Fill and measure."""
    place = work / "query-mariadb"
    place.mkdir()
    with mysql_rows.mariadb(place) as socket:
        mysql_rows.client(socket, "mysql", "CREATE DATABASE bench")
        url, started = f"mysql://root@/bench?socket={socket}", time.perf_counter()
        asyncio.run(make_set(url))
        position = POSITION.format(moment=MARIADB.moment.format("0"), chain="x'00'")
        statements = [
            "SET sql_mode = concat(@@sql_mode, ',PIPES_AS_CONCAT')",
            *fill(MARIADB, size), position, *touched(MARIADB),
        ]  # fmt: skip
        mysql_rows.client(socket, "bench", ";\n".join(statements))
        tables = ", ".join(physical(TABLES.name, one.name, SET) for one in TABLES.tables)
        mysql_rows.client(socket, "bench", f"ANALYZE TABLE {tables}")
        asyncio.run(summed_up(url))
        print(f"query: MariaDB filled in {time.perf_counter() - started:,.0f} s", flush=True)
        return measured(work, url, lambda: mysql_rows.client(socket, "bench", MOVE), calls)


DATABASES = {
    "postgresql": ("PostgreSQL", of_postgres),
    "sqlite": ("SQLite", of_sqlite),
    "mariadb": ("MariaDB", of_mariadb),
}
USUAL = ("postgresql", "sqlite")
"""Without `--only`: MariaDB takes the longest to fill."""


def section(
    work: Path, *, entries: int, accounts: int, calls: int, only: Sequence[str] = USUAL
) -> tuple[list[str], list[Row]]:
    """For `make bench`: the report's lines, and its aims."""
    size, lines, rows = sized(entries, accounts), list[str](), list[Row]()
    for one in only:
        place = work / f"query-{one}"
        place.mkdir()
        place.chmod(0o755)
        where, run = DATABASES[one]
        found = run(place, size, calls)
        lines += ["", f"{where}: {size.entries:,} entries, {accounts:,} accounts, {DAYS} days", "",
                  *table(found)]  # fmt: skip
        rows += aims(where, size.entries, found)
        shutil.rmtree(place)
    return lines, rows


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--calls", type=int, default=7)
    parser.add_argument("--only", choices=tuple(DATABASES), action="append")
    options = parser.parse_args()
    work = Path("/var/tmp") / f"ultra-query-{os.getpid()}"
    work.mkdir()
    work.chmod(0o755)
    try:
        lines, _ = section(
            work, entries=options.entries, accounts=options.accounts, calls=options.calls,
            only=options.only or USUAL,
        )  # fmt: skip
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
