"""Advice on MariaDB and MySQL.

A trial's copy is a temporary table of the name of the real one: the statements of the query API
find it instead.  Session and copy end together; the server sees to that when the process is
killed.  It has no partitions, as `docs/advice.md` says.

Work is counted in rows that the session has read (``Handler_read_*``), by an index or by going
through a table, and again for sorting: the same each time, and both servers count it.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from statistics import median
from typing import Any, Final

from ultraengine.advice.database import Held, Refused, is_lasting
from ultraengine.advice.mysql import statements
from ultraengine.advice.mysql.statements import Copying
from ultraengine.advice.suggest import Facts
from ultraengine.advice.sums import SPECIAL, Special, SpecialWords
from ultraengine.advice.trial import Example, Measured, Question
from ultraengine.model.limits import AdviceLimits
from ultraengine.model.projection import Projection, Table
from ultraengine.projection import added_indexes
from ultraengine.projection.added_indexes import AddedIndex, create_added
from ultraengine.projection.engine_tables import INDEXES, SETS
from ultraengine.projection.mysql import statements as sql
from ultraengine.projection.mysql.address import parse
from ultraengine.projection.mysql.dialect import MysqlDialect
from ultraengine.projection.mysql.session.driver import Lost, ServerError, Session, connect
from ultraengine.projection.mysql.values import moment
from ultraengine.projection.target import ProjectionSet, TargetUnavailable, physical

LOOK_S: Final = 60.0
"""Longest that looking at what there is may take."""
LOCK_WAIT_S: Final = 10
END_S: Final = 10.0
END_LOOK_S: Final = 0.05
"""Longest wait for the end of a connection, and between two looks."""
ONLINE: Final = " ALGORITHM=INPLACE LOCK=NONE"
"""Rather than let writers wait, the server refuses."""


@contextlib.contextmanager
def _translating() -> Iterator[None]:
    """The server's errors as `Database` has them."""
    try:
        yield
    except ServerError as error:
        raise statements.meaning(error.code, str(error)) from error
    except Lost as error:
        raise statements.away(str(error)) from error


class MysqlDatabase:
    """Implements `advice.database.Database`."""

    dialect: Final = "mysql"

    def __init__(self, url: str) -> None:
        """Raises `InvariantBroken` for a URL that is none."""
        self._address = parse(url)
        self._sql = MysqlDialect()
        self._session: Session | None = None
        self.lock_wait_s = LOCK_WAIT_S
        """Longest wait for a worker that makes or shows a set."""

    async def _connect(self, statement_s: float, lock_s: float) -> Session:
        session = await connect(self._address, max(1, round(lock_s)))
        with _translating():
            await session.run(statements.limit(session.flavor, statement_s))
        return session

    async def open(self) -> None:
        """`Database.open`."""
        self._session = session = await self._connect(LOOK_S, LOCK_WAIT_S)
        self._sql = MysqlDialect(session.flavor)
        with _translating():
            ((there,),) = await session.rows(statements.HAS_TABLE, SETS.name)
            if not there:
                raise Refused("the database holds no tables of a projection: a worker makes them")
            ((there,),) = await session.rows(statements.HAS_TABLE, INDEXES.name)
            if not there:
                for statement in self._sql.create_table(INDEXES.name, INDEXES):
                    await session.run(statement)

    async def close(self) -> None:
        """`Database.close`."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @property
    def _db(self) -> Session:
        if self._session is None:
            raise TargetUnavailable("it is not open")
        return self._session

    async def sets(self) -> Sequence[ProjectionSet]:
        """`Database.sets`."""
        db = self._db
        with _translating():
            return [sql.set_of(row) for row in await db.rows(sql.ALL_SETS)]

    async def facts(self, of: ProjectionSet, table: Table) -> Facts:
        """`Database.facts`; rows are counted where the server does not believe them to be many."""
        name = self._sql.identifier(physical(of.projection, table.name, of.suffix))
        with _translating():
            ((rows,),) = await self._db.rows(statements.ESTIMATE, name) or ((0,),)
            if (rows or 0) < statements.COUNTED_MAX:
                counted = f"SELECT COUNT(*) FROM {self._sql.quote(name)}"
                ((rows,),) = await self._db.rows(counted)
        indexes = await self._indexes(name)
        return Facts(table, int(rows), tuple(indexes.values()))

    async def _indexes(self, name: str) -> dict[str, tuple[str, ...]]:
        """Columns by index of a physical table."""
        with _translating():
            found = await self._db.rows(statements.INDEXES_OF, name)
        return statements.grouped([(str(index), str(column)) for index, column in found])

    @asynccontextmanager
    async def copy(
        self, of: ProjectionSet, table: Table, limits: AdviceLimits
    ) -> AsyncIterator["MysqlCopy"]:
        """`Database.copy`: on a connection of its own, which ends with it."""
        name = physical(of.projection, table.name, of.suffix)
        session = await self._connect(limits.statement_s, limits.lock_s)
        try:
            yield await MysqlCopy.made(session, self._sql, name, table, limits)
        finally:
            session.drop()

    # --- indexes that are added --------------------------------------------------------------

    async def held(self) -> Sequence[Held]:
        """`Database.held`; the server says sizes to few."""
        found = []
        for index in await self._added():
            has = {
                of.suffix: self._index(name, index) in await self._indexes(name)
                for of, name in await self._places(index)
            }
            sets = tuple(suffix for suffix, there in has.items() if there)
            missing = tuple(suffix for suffix, there in has.items() if not there)
            found.append(Held(index, sets, missing))
        return found

    async def _added(self) -> list[AddedIndex]:
        with _translating():
            rows = await self._db.rows(added_indexes.select(self._sql))
        return [sql.added_of(row) for row in rows]

    def _index(self, table: str, index: AddedIndex) -> str:
        return self._sql.identifier(f"{table}_{index.name}")

    async def _places(self, index: AddedIndex) -> list[tuple[ProjectionSet, str]]:
        """The sets that may have it, and the physical name of its table there."""
        found = []
        for of in await self.sets():
            name = self._sql.identifier(physical(index.projection, index.table, of.suffix))
            with _translating():
                there = {str(one) for (one,) in await self._db.rows(statements.COLUMNS_OF, name)}
            if is_lasting(of, index) and set(index.columns) <= there:
                found.append((of, name))
        return found

    async def _known(self, statement: str, *values: Any) -> int:
        """Change what is remembered while no worker is making a set."""
        with _translating():
            ((taken,),) = await self._db.rows(sql.TAKE_LOCK, "sets", self.lock_wait_s)
            if not taken:
                raise Refused("a worker makes or shows a set, try again")
            try:
                return await self._db.change(statement, *values)
            finally:
                await self._db.rows(sql.GIVE_LOCK, "sets")

    async def add(self, index: AddedIndex, projection: Projection, limits: AdviceLimits) -> str:
        """`Database.add`: remembered first, so that a set that is made meanwhile has it."""
        values = (*index.row[:4], moment(index.created_at))
        is_new = await self._known(statements.REMEMBER, *values) == 1
        try:
            await self._build(index, projection, limits)
        except BaseException:
            if is_new:
                with contextlib.suppress(TargetUnavailable, Refused):
                    await self.remove(index, limits)
            raise
        return "online: writers waited for a moment"

    @asynccontextmanager
    async def _building(self, limits: AdviceLimits) -> AsyncIterator[Session]:
        """A connection for long definitions.

        A server does not look whether its client is still there while it changes a table, so it
        is told when the work ends before its time.
        """
        builder = await self._connect(limits.build_s, limits.lock_s)
        number, is_done = None, False
        try:
            with _translating():
                ((number,),) = await builder.rows("SELECT CONNECTION_ID()")
            yield builder
            is_done = True
        finally:
            builder.drop()
            if number is not None and not is_done:
                await self._end(int(number))

    async def _end(self, number: int) -> None:
        """End a connection of ours, and wait until the server has undone what it did."""
        with contextlib.suppress(ServerError, Lost):  # It has ended meanwhile, or the server.
            await self._db.run(f"KILL CONNECTION {number}")
            for _ in range(round(END_S / END_LOOK_S)):
                ((left,),) = await self._db.rows(statements.RUNS, number)
                if not left:
                    return
                await asyncio.sleep(END_LOOK_S)

    async def _build(self, index: AddedIndex, projection: Projection, limits: AdviceLimits) -> None:
        async with self._building(limits) as builder:
            for of, name in await self._places(index):
                if self._index(name, index) not in await self._indexes(name):
                    with _translating():
                        for statement in create_added(self._sql, projection, of.suffix, [index]):
                            await builder.run(statement + ONLINE)

    async def remove(self, index: AddedIndex, limits: AdviceLimits) -> None:
        """`Database.remove`: forgotten first, so that no new set gets it."""
        await self._known(added_indexes.forget(self._sql), *index.row[:2])
        async with self._building(limits) as builder:
            for _, name in await self._places(index):
                made = self._index(name, index)
                if made in await self._indexes(name):
                    with _translating():
                        await builder.run(
                            f"DROP INDEX {self._sql.quote(made)} ON {self._sql.quote(name)}"
                        )


class MysqlCopy:
    """Implements `advice.database.Copy`."""

    unit: Final = "rows read"

    def __init__(
        self,
        db: Session,
        dialect: MysqlDialect,
        copying: Copying,
        limits: AdviceLimits,
        rows: int,
        looking: int,
    ) -> None:
        self._db = db
        self._sql = dialect
        self._copying = copying
        self._limits = limits
        self._looking = looking
        """What looking at the count adds to it."""
        self._is_indexed = False
        self.rows = rows

    @classmethod
    async def made(
        cls, db: Session, dialect: MysqlDialect, name: str, table: Table, limits: AdviceLimits
    ) -> "MysqlCopy":
        """Copy the table, or a sample of it."""
        most, copying = limits.copy_rows_max, Copying(dialect, name, table)
        with _translating():
            ((_, shown),) = await db.rows(f"SHOW CREATE TABLE {copying.held}")
            ((count,),) = await db.rows(copying.count())
            await db.run(copying.create(_text(shown)))
            await db.run(copying.fill(most / max(1, count), most))
            await db.run(copying.hide())
            ((rows,),) = await db.rows(copying.count())
        first = await _reads(db)
        return cls(db, dialect, copying, limits, int(rows), await _reads(db) - first)

    async def examples(self, columns: Sequence[str], count: int) -> Sequence[Example]:
        """`Copy.examples`."""
        with _translating():
            rows = await self._db.rows(self._copying.examples(columns, count))
        return [dict(zip(columns, row, strict=True)) for row in rows]

    async def ask(self, question: Question) -> Measured:
        """`Copy.ask`."""
        db, times = self._db, []
        with _translating():
            ((document,),) = await db.rows(f"EXPLAIN FORMAT=JSON {question.text}", *question.values)
            plan, used = statements.plan_of(json.loads(_text(document)))
            before = await _reads(db)
            await db.rows(question.text, *question.values)
            work = await _reads(db) - before - self._looking
            for _ in range(self._limits.rounds):
                start = time.perf_counter()
                await db.rows(question.text, *question.values)
                times.append(time.perf_counter() - start)
        return Measured(work=work, seconds=median(times), indexes=used, plan=plan)

    async def add(self, columns: Sequence[str]) -> tuple[float, int]:
        """`Copy.add`; the server has no size of a temporary table's index, so it is added up."""
        with _translating():
            start = time.perf_counter()
            await self._db.run(self._copying.index(columns))
            seconds = time.perf_counter() - start
            self._is_indexed = True
            ((size,),) = await self._db.rows(self._copying.index_bytes(columns))
        return seconds, int(size)

    async def remove(self) -> None:
        """`Copy.remove`."""
        if self._is_indexed:
            with _translating():
                await self._db.run(self._copying.no_index())
            self._is_indexed = False

    def words(self, special: Special) -> SpecialWords:
        """`Copy.words`."""
        return SpecialWords(self._sql, special, self._copying.held, statements.DAY_OF)

    async def build(self, words: SpecialWords) -> tuple[float, int]:
        """`Copy.build`."""
        with _translating():
            start = time.perf_counter()
            for statement in words.build():
                await self._db.run(statement)
            seconds = time.perf_counter() - start
            ((rows,),) = await self._db.rows(f"SELECT COUNT(*) FROM {SPECIAL}")
        return seconds, int(rows)

    async def unbuild(self) -> None:
        """`Copy.unbuild`."""
        with _translating():
            await self._db.run(f"DROP TEMPORARY TABLE IF EXISTS {SPECIAL}")

    async def fold_seconds(self, words: SpecialWords) -> float:
        """`Copy.fold_seconds`."""
        times = []
        with _translating():
            for _ in range(self._limits.rounds):
                start = time.perf_counter()
                await self._db.run(words.fold(self._limits.write_rows))
                times.append(time.perf_counter() - start)
        return min(times)

    async def write_seconds(self) -> tuple[int, float]:
        """`Copy.write_seconds`; what is taken out is put in again, each time."""
        db, times, done = self._db, [], 0
        with _translating():
            await db.run(self._copying.aside(self.rows, self._limits.write_rows))
            for _ in range(self._limits.rounds):
                # A transaction as a worker's; undoing it would not bring back a temporary
                # table's rows.
                await db.run("START TRANSACTION")
                await db.run(self._copying.take_out())
                start = time.perf_counter()
                done = await db.change(self._copying.write())
                times.append(time.perf_counter() - start)
                await db.run("COMMIT")
            await db.run(f"DROP TEMPORARY TABLE {statements.ASIDE}")
        return done, min(times)


async def _reads(db: Session) -> int:
    """Rows that the session has read so far."""
    with _translating():
        return sum(int(value) for _, value in await db.rows(statements.READS))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
