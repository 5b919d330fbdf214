"""A ledger with enough rows to be slow, in each database, and reports that a recorder has made."""

import contextlib
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from tests.servers.postgres import connection

from ultraengine.advice.recorder import Recorder, Report, Usage
from ultraengine.domains.ledger.domain import DOMAIN
from ultraengine.domains.ledger.tables import TABLES
from ultraengine.model.ids import NO_CHAIN, Epoch, Instant, Offset, ShardId
from ultraengine.model.limits import AdviceLimits
from ultraengine.model.projection import Row
from ultraengine.projection.fold import Batch
from ultraengine.projection.mysql.address import parse
from ultraengine.projection.mysql.session.driver import connect
from ultraengine.projection.target import START, Checkpoint, Moved, ProjectionSet, Target
from ultraengine.projection.targets import open_target
from ultraengine.query.advised import RouteAsker
from ultraengine.query.main import routes_of
from ultraengine.query.readers.factory import open_reader

ROWS: Final = 12_000
CODES: Final = 60
T0: Final = 1_767_225_600_000_000
SPAN_US: Final = 60 * 86_400_000_000
"""Two months, so that tables with partitions have more than one."""
NOW: Final = Instant(T0 + SPAN_US)
PLAIN: Final = AdviceLimits(
    rounds=1, examples=3, write_rows=200, write_cost_max=1_000.0, time_gain_min=0.0
)
"""What a verdict says here must not hang on how busy the machine is."""
BY_CODE: Final = Usage(
    "ledger", "ledger.transfers", "transfer", ("book",), (("code", "eq"),),
    ("booked_at desc", "transfer desc"),
)  # fmt: skip
BY_COUNTERPARTY: Final = Usage(
    "ledger", "ledger.entries", "entry", ("book", "account"), (("counterparty", "eq"),),
    ("version desc",),
)  # fmt: skip


def transfer(number: int) -> Row:
    """A row of the table ``transfer``."""
    at = T0 + number * (SPAN_US // ROWS)
    return (
        "acme", "main", f"t{number:06}", "bank", f"a{number % 300}", number + 1, "posted",
        f"c{number * 7 % CODES}", None, None, None, at, at, 0, number, 0, f"k{number}", "p", None,
    )  # fmt: skip


def entry(number: int) -> Row:
    """A row of the table ``entry``: all of one account."""
    at = T0 + number * (SPAN_US // ROWS)
    return (
        "acme", "main", "bank", number + 2, f"t{number:06}", f"a{number % 300}", -number - 1, 0,
        at, at, 0, number, 0,
    )  # fmt: skip


def moved(before: Checkpoint, end: int) -> tuple[Moved, Checkpoint]:
    after = Checkpoint(Offset(end), Epoch(1), NOW, NO_CHAIN)
    return Moved(ShardId(0), before, after), after


class World:
    """One target."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.target: Target = open_target(url, "test")

    async def fill(self, rows: int = ROWS) -> ProjectionSet:
        """A set that serves, with rows."""
        await self.target.open()
        of = await self.build(1, rows)
        await self.target.serve(of, TABLES, NOW)
        return of

    async def build(self, number: int, rows: int = 10) -> ProjectionSet:
        """A set, written as a worker writes it."""
        of = await self.target.create(TABLES, number, NOW)
        batch = Batch(TABLES.tables)
        for one in range(rows):
            batch.append("transfer", transfer(one))
            batch.append("entry", entry(one))
        await self.target.write(of, TABLES, batch, [moved(START, rows)[0]])
        return of

    async def execute(self, statement: str) -> None:
        """Behind everybody's back."""
        if self.url.startswith("sqlite"):
            with contextlib.closing(sqlite3.connect(self.url.removeprefix("sqlite:///"))) as held:
                held.execute(statement)
                held.commit()
        elif self.url.startswith("mysql"):
            session = await connect(parse(self.url), 10)
            await session.run(statement)
            await session.close()
        else:
            async with connection(self.url) as held:
                await held.execute(statement)


def asker(url: str) -> RouteAsker:
    return RouteAsker(routes_of([DOMAIN]), open_reader(url, 1).dialect)


def report(*usages: Usage, calls: int = 100, seconds: float = 0.05, rows: int = 10) -> Report:
    """As `ultra query` would keep it."""
    recorder = Recorder(Instant(0))
    for usage in usages:
        for number in range(calls):
            hashes: dict[Any, Sequence[int]] = {place: [number % 9] for place in usage.filters}
            recorder.answered(usage, Instant(number), seconds, rows, hashes)
    return recorder.report(NOW)
