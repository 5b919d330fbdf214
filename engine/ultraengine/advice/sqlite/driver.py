"""Advice on a SQLite file.

A trial's copy is a temporary database of SQLite's own (a connection to the empty name): it has
no name in the file system from its first moment, so whatever ends the process ends the copy.
The file is attached to it, read-only, just for as long as copying takes.

Work is counted by SQLite's progress handler, in hundreds of its machine's instructions.
Indexes are made in one transaction: readers go on, the worker waits and tries again.
"""

import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote

from ultraengine.advice.database import TRIED, Held, Refused, is_lasting, sparse
from ultraengine.advice.suggest import Facts
from ultraengine.advice.sums import SPECIAL, Special, SpecialWords
from ultraengine.advice.trial import (
    Example,
    Measured,
    Question,
    TrialFailed,
    sqlite_plan,
)
from ultraengine.model.limits import AdviceLimits
from ultraengine.model.projection import Projection, Table
from ultraengine.projection import added_indexes
from ultraengine.projection.added_indexes import AddedIndex, added, create_added
from ultraengine.projection.engine_tables import INDEXES, SETS
from ultraengine.projection.own_thread.driver import OwnThread
from ultraengine.projection.partitions import DAY_US
from ultraengine.projection.sqlite.dialect import SqliteDialect
from ultraengine.projection.sqlite.driver import UNAVAILABLE, path_of
from ultraengine.projection.sqlite.store.driver import PAGE_BYTES, Store, connect
from ultraengine.projection.target import ProjectionSet, TargetUnavailable, physical

DAY_OF: Final = f"(({{time}} - ({{time}} % {DAY_US} + {DAY_US}) % {DAY_US}) / {DAY_US})"
"""Times are microseconds, also before 1970."""
STEPS: Final = 100
"""Instructions of SQLite's machine for one of `Measured.work`."""
LOOK_STEPS: Final = 100_000
"""So often the clock is looked at while time is measured."""
T = TypeVar("T")


class Running(Protocol):
    """Runs a step on the thread of the database."""

    def __call__(self, step: Callable[[], T]) -> Awaitable[T]:
        """Its result; its errors as `Database` has them."""


def meaning(error: sqlite3.Error, path: str) -> Exception:
    """An error of SQLite as `Database` has it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_INTERRUPT:
        return TrialFailed("a statement took longer than statement_s")
    if code == sqlite3.SQLITE_READONLY:
        return Refused(f"{path}: {error}")
    if code in UNAVAILABLE:
        return TargetUnavailable(f"{path}: {error}")
    return TrialFailed(str(error))


class SqliteDatabase:
    """Implements `advice.database.Database`."""

    dialect: Final = "sqlite"

    def __init__(self, url: str) -> None:
        """Raises `InvariantBroken` for a URL that is none."""
        self._path = path_of(url)
        self._thread = OwnThread("advice")
        self._store: Any = None
        self._sql = SqliteDialect()

    async def _run(self, step: Callable[[], T]) -> T:
        return await self._thread.run(lambda: self._translated(step))

    def _translated(self, step: Callable[[], T]) -> T:
        try:
            return step()
        except sqlite3.Error as error:
            raise meaning(error, self._path) from error

    async def open(self) -> None:
        """`Database.open`."""
        self._thread.start()
        await self._run(self._open)

    def _open(self) -> None:
        if not Path(self._path).is_file():
            raise Refused(f"{self._path} is not there")
        self._store = store = Store(self._path)
        there = store.db.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (SETS.name,))
        if there.fetchone() is None:
            raise Refused(f"{self._path} holds no tables of a projection: a worker makes them")
        store.prepare()

    async def close(self) -> None:
        """`Database.close`."""
        await self._thread.stop(self._close)

    def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.db.close()

    async def sets(self) -> Sequence[ProjectionSet]:
        """`Database.sets`."""
        return await self._run(lambda: list(self._store.sets()))

    async def facts(self, of: ProjectionSet, table: Table) -> Facts:
        """`Database.facts`."""
        name = physical(of.projection, table.name, of.suffix)

        def look() -> Facts:
            db = self._store.db
            (rows,) = db.execute(f"SELECT count(*) FROM {self._sql.quote(name)}").fetchone()
            return Facts(table, rows, (*_indexes(db, name).values(), *sparse(table)))

        return await self._run(look)

    @asynccontextmanager
    async def copy(
        self, of: ProjectionSet, table: Table, limits: AdviceLimits
    ) -> AsyncIterator["SqliteCopy"]:
        """`Database.copy`."""
        name = physical(of.projection, table.name, of.suffix)
        made = await self._run(lambda: SqliteCopy(self._path, name, table, limits, self._run))
        try:
            yield made
        finally:
            await self._run(made.db.close)

    async def held(self) -> Sequence[Held]:
        """`Database.held`; SQLite keeps no sizes of indexes."""
        return await self._run(self._held)

    def _held(self) -> list[Held]:
        db, found = self._store.db, []
        for row in db.execute(added_indexes.select(self._sql)).fetchall():
            index = added(*row)
            has = {
                of.suffix: f"{name}_{index.name}" in _indexes(db, name)
                for of, name in self._tables(index)
            }
            sets = tuple(suffix for suffix, there in has.items() if there)
            missing = tuple(suffix for suffix, there in has.items() if not there)
            found.append(Held(index, sets, missing))
        return found

    def _tables(self, index: AddedIndex) -> list[tuple[ProjectionSet, str]]:
        """The sets that may have it, with the physical name of its table."""
        found = []
        for of in self._store.sets():
            name = physical(index.projection, index.table, of.suffix)
            rows = self._store.db.execute("SELECT name FROM pragma_table_info(?)", (name,))
            if is_lasting(of, index) and set(index.columns) <= {column for (column,) in rows}:
                found.append((of, name))
        return found

    async def add(self, index: AddedIndex, projection: Projection, limits: AdviceLimits) -> str:  # noqa: ARG002  (nothing here waits for long)
        """`Database.add`: all of it is one transaction."""
        await self._run(lambda: self._add(index, projection))
        return "in one transaction: readers went on, the worker waited"

    def _add(self, index: AddedIndex, projection: Projection) -> None:
        db = self._store.db
        with self._store.transaction():
            insert = self._sql.insert(INDEXES.name, INDEXES)
            db.execute(f"{insert} ON CONFLICT DO NOTHING", index.row)
            for of, name in self._tables(index):
                if f"{name}_{index.name}" not in _indexes(db, name):
                    for statement in create_added(self._sql, projection, of.suffix, [index]):
                        db.execute(statement)

    async def remove(self, index: AddedIndex, limits: AdviceLimits) -> None:  # noqa: ARG002
        """`Database.remove`: in one transaction."""
        await self._run(lambda: self._remove(index))

    def _remove(self, index: AddedIndex) -> None:
        db = self._store.db
        with self._store.transaction():
            db.execute(added_indexes.forget(self._sql), index.row[:2])
            for of in self._store.sets():
                name = physical(index.projection, index.table, of.suffix)
                db.execute(f"DROP INDEX IF EXISTS {self._sql.quote(f'{name}_{index.name}')}")


def _indexes(db: Any, name: str) -> dict[str, tuple[str, ...]]:
    """Columns of the indexes of a table, its primary key's among them, by name.

    Those that leave rows out are among them when these are rows without the last column's value:
    no filter asks for such.
    """
    listed = db.execute(
        "SELECT l.name, l.partial, s.sql FROM pragma_index_list(?) l"
        " LEFT JOIN sqlite_schema s ON s.type = 'index' AND s.name = l.name ORDER BY l.seq",
        (name,),
    ).fetchall()
    found = {}
    for index, is_partial, text in listed:
        named = db.execute("SELECT name FROM pragma_index_info(?) ORDER BY seqno", (index,))
        columns = tuple(column for (column,) in named)
        if not is_partial or text.endswith(f' WHERE "{columns[-1]}" IS NOT NULL'):
            found[index] = columns
    return found


class SqliteCopy:
    """Implements `advice.database.Copy`."""

    unit: Final = f"{STEPS} instructions"

    def __init__(
        self, path: str, name: str, table: Table, limits: AdviceLimits, run: Running
    ) -> None:
        """On the thread of the database."""
        self.db = connect("", uri=True)
        self._run = run
        self._sql = SqliteDialect()
        self._name, self._table, self._limits = name, table, limits
        self._held = self._sql.quote(name)
        try:
            self._fill(path)
        except BaseException:
            self.db.close()
            raise
        (self.rows,) = self.db.execute(f"SELECT count(*) FROM {self._held}").fetchone()

    def _fill(self, path: str) -> None:
        """The table, at most so many rows from all over it, then its indexes."""
        self.db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        self.db.execute("ATTACH ? AS whole", (f"file:{quote(path)}?mode=ro",))
        schema = self.db.execute(
            "SELECT type = 'table', sql FROM whole.sqlite_schema WHERE tbl_name = ? AND sql"
            " IS NOT NULL ORDER BY 1 DESC",
            (self._name,),
        ).fetchall()
        if not schema:
            raise TrialFailed("the set has been dropped meanwhile")
        (_, create), *indexes = schema
        self.db.execute(create)
        (count,) = self.db.execute(f"SELECT count(*) FROM whole.{self._held}").fetchone()
        step = max(1, -(-count // self._limits.copy_rows_max))
        self.db.execute(
            f"INSERT INTO main.{self._held} SELECT * FROM whole.{self._held} WHERE rowid % ? = 0",
            (step,),
        )
        self.db.execute("DETACH whole")
        for _, create in indexes:
            self.db.execute(create)

    def _count(self) -> int:
        (pages,) = self.db.execute("PRAGMA page_count").fetchone()
        (free,) = self.db.execute("PRAGMA freelist_count").fetchone()
        return int(pages) - int(free)

    async def examples(self, columns: Sequence[str], count: int) -> Sequence[Example]:
        """`Copy.examples`: rows at even distances."""
        return await self._run(lambda: self._examples(columns, count))

    def _examples(self, columns: Sequence[str], count: int) -> list[Example]:
        there = " AND ".join(f"{self._sql.quote(name)} IS NOT NULL" for name in columns)
        found: dict[int, Example] = {}
        (least, most) = self.db.execute(
            f"SELECT min(rowid), max(rowid) FROM {self._held}"
        ).fetchone()
        for number in range(count if self.rows else 0):
            row = self.db.execute(
                f"SELECT rowid, {self._sql.names(columns)} FROM {self._held} WHERE rowid >= ?"
                f" AND {there} ORDER BY rowid LIMIT 1",
                (least + (most - least + 1) * number // count,),
            ).fetchone()
            if row is not None:
                found[row[0]] = dict(zip(columns, row[1:], strict=True))
        return list(found.values())

    async def ask(self, question: Question) -> Measured:
        """`Copy.ask`."""
        return await self._run(lambda: self._ask(question))

    def _ask(self, question: Question) -> Measured:
        explained = self.db.execute(f"EXPLAIN QUERY PLAN {question.text}", question.values)
        plan, used = sqlite_plan(explained.fetchall())
        work, _ = self._timed(question, STEPS)
        times = [self._timed(question, LOOK_STEPS)[1] for _ in range(self._limits.rounds)]
        return Measured(work=work, seconds=median(times), indexes=used, plan=plan)

    def _timed(self, question: Question, steps: int) -> tuple[int, float]:
        """How often so many instructions were executed, the last of them in part, and seconds."""
        seen = [1]
        start = time.perf_counter()
        until = start + self._limits.statement_s

        def look() -> bool:
            seen[0] += 1
            return time.perf_counter() > until

        self.db.set_progress_handler(look, steps)
        try:
            self.db.execute(question.text, question.values).fetchall()
            return seen[0], time.perf_counter() - start
        finally:
            self.db.set_progress_handler(None, 0)

    async def add(self, columns: Sequence[str]) -> tuple[float, int]:
        """`Copy.add`."""
        return await self._run(lambda: self._add(columns))

    def _add(self, columns: Sequence[str]) -> tuple[float, int]:
        before, start = self._count(), time.perf_counter()
        self.db.execute(f"CREATE INDEX {TRIED} ON {self._held} ({self._sql.names(columns)})")
        seconds = time.perf_counter() - start
        (page,) = self.db.execute("PRAGMA page_size").fetchone()
        return seconds, (self._count() - before) * int(page)

    async def remove(self) -> None:
        """`Copy.remove`."""
        await self._run(lambda: self.db.execute(f"DROP INDEX IF EXISTS {TRIED}"))

    def words(self, special: Special) -> SpecialWords:
        """`Copy.words`."""
        return SpecialWords(self._sql, special, self._held, DAY_OF)

    async def build(self, words: SpecialWords) -> tuple[float, int]:
        """`Copy.build`."""
        return await self._run(lambda: self._build(words))

    def _build(self, words: SpecialWords) -> tuple[float, int]:
        start = time.perf_counter()
        for statement in words.build():
            self.db.execute(statement)
        seconds = time.perf_counter() - start
        (rows,) = self.db.execute(f"SELECT count(*) FROM {SPECIAL}").fetchone()
        return seconds, int(rows)

    async def unbuild(self) -> None:
        """`Copy.unbuild`."""
        await self._run(lambda: self.db.execute(f"DROP TABLE IF EXISTS {SPECIAL}"))

    async def fold_seconds(self, words: SpecialWords) -> float:
        """`Copy.fold_seconds`."""
        return await self._run(lambda: min(self._fold(words) for _ in range(self._limits.rounds)))

    def _fold(self, words: SpecialWords) -> float:
        start = time.perf_counter()
        self.db.execute(words.fold(self._limits.write_rows))
        return time.perf_counter() - start

    async def write_seconds(self) -> tuple[int, float]:
        """`Copy.write_seconds`: one transaction, as a worker writes."""
        return await self._run(self._write)

    def _write(self) -> tuple[int, float]:
        step = max(1, self.rows // self._limits.write_rows)
        chosen = (step, self._limits.write_rows)
        where = f"FROM {self._held} WHERE rowid % ? = 0 LIMIT ?"
        names = self._sql.names(self._table.names)
        rows = self.db.execute(f"SELECT {names} {where}", chosen).fetchall()
        self.db.execute("BEGIN")
        try:
            self.db.execute(
                f"DELETE FROM {self._held} WHERE rowid IN (SELECT rowid {where})", chosen
            )
            times = [self._insert(rows) for _ in range(self._limits.rounds)]
        finally:
            self.db.execute("ROLLBACK")
        return len(rows), min(times)

    def _insert(self, rows: Sequence[Any]) -> float:
        """Seconds; the rows are taken out again."""
        self.db.execute("SAVEPOINT ultra_written")
        start = time.perf_counter()
        self.db.executemany(self._sql.insert(self._name, self._table), rows)
        seconds = time.perf_counter() - start
        self.db.execute("ROLLBACK TO ultra_written")
        return seconds
