"""Advice on PostgreSQL.

A trial's copy is a temporary table in the session's own schema, of the name of the real one: the
statements of the query API find it instead.  Session and copy end together; the server sees to
that when the process is killed.  It is no load on replicas (temporary tables are not logged), it
is never read in parallel, and it has no partitions: all three are said in `docs/advice.md`.

Work is counted in pages that EXPLAIN (ANALYZE, BUFFERS) says were touched, and the rows that were
looked at in them.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from statistics import median
from typing import Any, Final

import asyncpg
import msgspec

from ultraengine.advice.database import TRIED, Held, Refused, is_lasting, sparse
from ultraengine.advice.postgres import statements
from ultraengine.advice.postgres.statements import Copying, Maker, Piece, pieces_of
from ultraengine.advice.suggest import Facts
from ultraengine.advice.sums import SPECIAL, Special, SpecialWords
from ultraengine.advice.trial import (
    ROWS_PER_PAGE,
    Example,
    Measured,
    Question,
    postgres_plan,
)
from ultraengine.model.limits import AdviceLimits
from ultraengine.model.projection import Projection, Table
from ultraengine.projection.added_indexes import AddedIndex
from ultraengine.projection.engine_tables import INDEXES
from ultraengine.projection.postgres import statements as sql
from ultraengine.projection.postgres.dialect import PostgresDialect
from ultraengine.projection.postgres.session.driver import SETTINGS
from ultraengine.projection.target import ProjectionSet, TargetUnavailable, physical

CONNECT_S: Final = 10.0
TEMP_BUFFERS: Final = "256MB"
"""The copy is to stay in memory, as the real table's pages mostly do."""
_AWAY: Final = (OSError, TimeoutError, EOFError, asyncpg.InterfaceError,
                asyncpg.InternalClientError)  # fmt: skip
Connection = Any
"""`asyncpg.Connection`, which publishes no types."""


@contextlib.contextmanager
def _translating() -> Any:
    """The server's errors as `Database` has them."""
    try:
        yield
    except asyncpg.PostgresError as error:
        raise statements.meaning(error.sqlstate or "", str(error)) from error
    except _AWAY as error:
        raise TargetUnavailable(str(error) or type(error).__name__) from error


class PostgresDatabase:
    """Implements `advice.database.Database`."""

    dialect: Final = "postgresql"

    def __init__(self, url: str) -> None:
        self._url = url
        self._sql = PostgresDialect()
        self._connection: Connection = None

    async def _connect(self, statement_s: float, lock_s: float) -> Connection:
        return await asyncpg.connect(
            self._url,
            timeout=CONNECT_S,
            server_settings={
                **SETTINGS,
                "application_name": "ultra advise",
                "statement_timeout": str(round(statement_s * 1_000)),
                "lock_timeout": str(round(lock_s * 1_000)),
                "temp_buffers": TEMP_BUFFERS,
                # Who may see some tenants' rows only is refused, rather than shown less.
                "row_security": "off",
            },
        )

    async def open(self) -> None:
        """`Database.open`."""
        with _translating():
            self._connection = await self._connect(60.0, 10.0)
            if not await self._connection.fetchval(sql.HAS_TABLE, sql.SET):
                raise Refused("the database holds no tables of a projection: a worker makes them")
            if not await self._connection.fetchval(sql.HAS_TABLE, INDEXES.name):
                for statement in self._sql.create_table(INDEXES.name, INDEXES):
                    await self._connection.execute(statement)

    async def close(self) -> None:
        """`Database.close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    @property
    def _db(self) -> Connection:
        if self._connection is None:
            raise TargetUnavailable("it is not open")
        return self._connection

    async def sets(self) -> Sequence[ProjectionSet]:
        """`Database.sets`."""
        with _translating():
            return [sql.set_of(row) for row in await self._db.fetch(sql.ALL_SETS)]

    async def facts(self, of: ProjectionSet, table: Table) -> Facts:
        """`Database.facts`; rows by the planner's statistics, counted where it has none."""
        name = self._sql.identifier(physical(of.projection, table.name, of.suffix))
        with _translating():
            rows = await self._db.fetchval(statements.ESTIMATE, name)
            if not rows:
                rows = await self._db.fetchval(f"SELECT count(*) FROM {self._sql.quote(name)}")
            indexes = await self._db.fetch(statements.INDEXES_OF, name)
        whole = tuple(tuple(one["columns"]) for one in indexes)
        return Facts(table, rows, (*whole, *sparse(table)))

    @asynccontextmanager
    async def copy(
        self, of: ProjectionSet, table: Table, limits: AdviceLimits
    ) -> AsyncIterator["PostgresCopy"]:
        """`Database.copy`: on a connection of its own, which ends with it."""
        name = physical(of.projection, table.name, of.suffix)
        with _translating():
            connection = await self._connect(limits.statement_s, limits.lock_s)
        try:
            yield await PostgresCopy.made(connection, self._sql, name, limits)
        finally:
            connection.terminate()

    # --- indexes that are added --------------------------------------------------------------

    async def held(self) -> Sequence[Held]:
        """`Database.held`."""
        found = []
        with _translating():
            for row in await self._db.fetch(sql.ALL_ADDED):
                index = sql.added_of(row)
                sets, missing, size = [], [], 0
                for of, maker, name in await self._places(index):
                    state = await self._db.fetchrow(statements.INDEX_STATE, maker.index(name))
                    if state is not None and state["valid"]:
                        sets.append(of.suffix)
                        size += await self._db.fetchval(statements.INDEX_BYTES, maker.index(name))
                    else:
                        missing.append(of.suffix)
                found.append(Held(index, tuple(sets), tuple(missing), size))
        return found

    async def _places(self, index: AddedIndex) -> list[tuple[ProjectionSet, Maker, str]]:
        """The sets that may have it, and the physical name of its table there."""
        found = []
        for of in [sql.set_of(row) for row in await self._db.fetch(sql.ALL_SETS)]:
            name = self._sql.identifier(physical(index.projection, index.table, of.suffix))
            there = {row[0] for row in await self._db.fetch(statements.COLUMNS_OF, name)}
            if is_lasting(of, index) and set(index.columns) <= there:
                found.append((of, Maker(self._sql, name, index.name, index.columns), name))
        return found

    async def add(self, index: AddedIndex, projection: Projection, limits: AdviceLimits) -> str:  # noqa: ARG002  (the tables say what there is)
        """`Database.add`: remembered first, so that a set that is made meanwhile has it."""
        how = "concurrently: nobody waited"
        with _translating():
            async with self._db.transaction():
                # A worker that is making a set is waited for.
                await self._db.execute(sql.ENGINE_LOCK)
                known = await self._db.execute(
                    statements.REMEMBER, *index.row[:4], sql.moment(index.created_at)
                )
            is_new = known.endswith(" 1")
            builder = await self._connect(limits.build_s, limits.lock_s)
            try:
                for _, maker, name in await self._places(index):
                    pieces = await self._build(builder, maker, name)
                    if pieces > 1:
                        how = (
                            f"in {pieces} pieces, the partitions concurrently: writers waited for "
                            "a moment"
                        )
            except BaseException:
                if is_new:
                    with contextlib.suppress(asyncpg.PostgresError, *_AWAY, Refused):
                        await self._undo(index, limits)
                raise
            finally:
                builder.terminate()
        return how

    async def _build(self, builder: Connection, maker: Maker, name: str) -> int:
        """On one set, where it is not there and whole; how many pieces it has."""
        pieces = await self._pieces(builder, name)
        own, covered = [], set()
        for piece in pieces:
            if piece.parent in covered or await self._is_covered(builder, maker, piece):
                covered.add(piece.name)
            else:
                await self._build_piece(builder, maker, piece)
                own.append(piece)
        # Deepest first: a parent's index is valid when all below it are attached.
        for piece in reversed(own):
            if piece.parent is not None:
                await builder.execute(maker.attach(piece, piece.parent))
        return len(pieces)

    async def _is_covered(self, builder: Connection, maker: Maker, piece: Piece) -> bool:
        """Whether a part of the parent's index is there; a worker's new partitions get one."""
        if piece.parent is None:
            return False
        whole = maker.index(piece.parent)
        return bool(await builder.fetchval(statements.IS_COVERED, whole, piece.name))

    async def _pieces(self, builder: Connection, name: str) -> list[Piece]:
        return pieces_of(name, await builder.fetch(statements.TREE, name))

    async def _build_piece(self, builder: Connection, maker: Maker, piece: Piece) -> None:
        own = maker.index(piece.name)
        state = await builder.fetchrow(statements.INDEX_STATE, own)
        if state is not None and (state["valid"] or not piece.is_leaf):
            return
        if state is not None:
            # What an earlier attempt has left half made.
            await builder.execute(maker.drop(concurrently=True, table=piece.name))
        await builder.execute(maker.create(piece))

    async def remove(self, index: AddedIndex, limits: AdviceLimits) -> None:
        """`Database.remove`: forgotten first, so that no new set gets it."""
        with _translating():
            await self._undo(index, limits)

    async def _undo(self, index: AddedIndex, limits: AdviceLimits) -> None:
        async with self._db.transaction():
            await self._db.execute(sql.ENGINE_LOCK)
            await self._db.execute(statements.FORGET, index.projection, index.name)
        builder = await self._connect(limits.build_s, limits.lock_s)
        try:
            for _, maker, name in await self._places(index):
                pieces = await self._pieces(builder, name)
                # A partitioned one cannot be dropped concurrently; its partitions' go with it,
                # but for those that were never attached.
                await builder.execute(maker.drop(concurrently=pieces[0].is_leaf))
                for piece in pieces[1:]:
                    await builder.execute(maker.drop(concurrently=False, table=piece.name))
        finally:
            builder.terminate()


class PostgresCopy:
    """Implements `advice.database.Copy`."""

    unit: Final = f"pages, and {ROWS_PER_PAGE} rows as one more"

    def __init__(self, db: Connection, copying: Copying, limits: AdviceLimits, rows: int) -> None:
        self._db = db
        self._copying = copying
        self._limits = limits
        self._sql = PostgresDialect()
        self.rows = rows

    @classmethod
    async def made(
        cls, db: Connection, dialect: PostgresDialect, name: str, limits: AdviceLimits
    ) -> "PostgresCopy":
        """Copy the table, or a sample of it."""
        most = limits.copy_rows_max
        with _translating():
            copying = Copying(dialect, await db.fetchval("SELECT current_schema()"), name)
            percent = None
            count = await db.fetchval(copying.bounded_count(most))
            if count > most:
                known = await db.fetchval(statements.ESTIMATE, dialect.identifier(name))
                percent = 100 * most / max(known, count)
            await db.execute(copying.create())
            await db.execute(copying.fill(percent, most))
            await db.execute(f"VACUUM (ANALYZE) {copying.held}")
            rows = await db.fetchval(f"SELECT count(*) FROM {copying.held}")
        return cls(db, copying, limits, rows)

    async def examples(self, columns: Sequence[str], count: int) -> Sequence[Example]:
        """`Copy.examples`."""
        with _translating():
            rows = await self._db.fetch(self._copying.examples(columns), count)
        return [dict(row) for row in rows]

    async def ask(self, question: Question) -> Measured:
        """`Copy.ask`."""
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {question.text}"
        with _translating():
            document = msgspec.json.decode(await self._db.fetchval(explain, *question.values))
            plan, used, work = postgres_plan(document)
            times = []
            for _ in range(self._limits.rounds + 1):
                start = time.perf_counter()
                await self._db.fetch(question.text, *question.values)
                times.append(time.perf_counter() - start)
        # The first one has prepared the statement.
        return Measured(work=work, seconds=median(times[1:]), indexes=used, plan=plan)

    async def add(self, columns: Sequence[str]) -> tuple[float, int]:
        """`Copy.add`."""
        held, names = self._copying.held, self._sql.names(columns)
        with _translating():
            start = time.perf_counter()
            await self._db.execute(f"CREATE INDEX {TRIED} ON {held} ({names})")
            seconds = time.perf_counter() - start
            size = await self._db.fetchval(f"SELECT pg_relation_size('pg_temp.{TRIED}')")
        return seconds, int(size)

    async def remove(self) -> None:
        """`Copy.remove`."""
        with _translating():
            await self._db.execute(f"DROP INDEX IF EXISTS pg_temp.{TRIED}")

    def words(self, special: Special) -> SpecialWords:
        """`Copy.words`."""
        return SpecialWords(self._sql, special, self._copying.held, statements.DAY_OF)

    async def build(self, words: SpecialWords) -> tuple[float, int]:
        """`Copy.build`."""
        with _translating():
            start = time.perf_counter()
            for statement in words.build():
                await self._db.execute(statement)
            seconds = time.perf_counter() - start
            await self._db.execute(f"VACUUM (ANALYZE) {SPECIAL}")
            return seconds, int(await self._db.fetchval(f"SELECT count(*) FROM {SPECIAL}"))

    async def unbuild(self) -> None:
        """`Copy.unbuild`."""
        with _translating():
            await self._db.execute(f"DROP TABLE IF EXISTS pg_temp.{SPECIAL}")

    async def fold_seconds(self, words: SpecialWords) -> float:
        """`Copy.fold_seconds`."""
        return await _fastest(
            lambda: self._db.execute(words.fold(self._limits.write_rows)), self._limits.rounds
        )

    async def write_seconds(self) -> tuple[int, float]:
        """`Copy.write_seconds`."""
        times = []
        with _translating(), contextlib.suppress(_Undone):
            async with self._db.transaction():
                for statement in self._copying.aside(self.rows, self._limits.write_rows):
                    await self._db.execute(statement)
                for _ in range(self._limits.rounds):
                    with contextlib.suppress(_Undone):
                        async with self._db.transaction():
                            start = time.perf_counter()
                            done = await self._db.execute(self._copying.write())
                            times.append(time.perf_counter() - start)
                            raise _Undone
                raise _Undone
        return int(done.rpartition(" ")[2]), min(times)


class _Undone(Exception):
    """Ends a transaction without its effects."""


async def _fastest(run: Callable[[], Awaitable[Any]], rounds: int) -> float:
    times = []
    with _translating():
        for _ in range(rounds):
            start = time.perf_counter()
            await run()
            times.append(time.perf_counter() - start)
    return min(times)
