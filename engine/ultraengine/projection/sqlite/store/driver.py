"""One SQLite file, as a target: the statements, on whatever thread calls them.

The file is in WAL mode: readers never wait for the writer, and a crash loses no committed
transaction.  ``synchronous`` is FULL, not NORMAL: after a write the worker tells the engine that
the rows are durable and the log may be cut there, so a commit must survive a power cut too.  It
costs one sync per batch.

One writer at a time: ``BEGIN IMMEDIATE`` takes the write lock first, and waits up to
`BUSY_TIMEOUT_S` for another process to leave it.

Rows go to SQLite as they are.  Only where one holds a number beyond 64 bits are the table's rows
turned into their stored form (`exact.py`), from then on.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import xxhash

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.model.projection import Aggregate, ColumnType, Projection, Row, Table
from ultraengine.projection import engine_tables
from ultraengine.projection.added_indexes import added, create_whole, select
from ultraengine.projection.fold import Batch, CurrentRows
from ultraengine.projection.partitions import DAY_US, kept_from
from ultraengine.projection.rollups import roll_up, rolled, unknown
from ultraengine.projection.sqlite.dialect import EXACT, SqliteDialect
from ultraengine.projection.sqlite.exact import AGGREGATES, FUNCTIONS, stored
from ultraengine.projection.target import (
    START,
    Checkpoint,
    Checksum,
    Fenced,
    Moved,
    Parked,
    ProjectionSet,
    Request,
    RowRefused,
    SetState,
    all_tables,
    physical,
    view,
)

BUSY_TIMEOUT_S: Final = 5.0
"""Longest wait for another process's write; then `TargetUnavailable`."""
CACHE_KIB: Final = 64 * 1024
"""Pages kept in memory by the writer."""
READER_CACHE_KIB: Final = 16 * 1024
PAGE_BYTES: Final = 8_192
"""Of a new file."""
CHECKPOINT_PAGES: Final = 8_192
"""The log file of the WAL is carried over when it is so long: 64 MiB."""
STATEMENTS: Final = 256
"""Prepared statements kept."""
SLICES_MAX: Final = 1_000
"""Slices computed by one statement."""
_REFUSED: Final = frozenset(
    {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}
)
_SET: Final = "projection = ? AND build = ?"
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_PARKED: Final = msgspec.json.Decoder(Parked)


def connect(path: str, *, cache_kib: int = READER_CACHE_KIB, uri: bool = False) -> Any:
    """A connection that computes amounts exactly, each statement a transaction of its own.

    For readers: ``connect("file:PATH?mode=ro", uri=True)``.  Raises `sqlite3.Error`.
    """
    connection = sqlite3.connect(
        path,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENTS,
        uri=uri,
    )
    for name, arguments, function in FUNCTIONS:
        connection.create_function(name, arguments, function, deterministic=True)
    for name, arguments, kind in AGGREGATES:
        connection.create_aggregate(name, arguments, kind)
    connection.execute(f"PRAGMA cache_size = -{cache_kib}")
    return connection


class Store:
    """One connection, used by one thread."""

    def __init__(self, path: str) -> None:
        self.db: sqlite3.Connection = connect(path, cache_kib=CACHE_KIB)
        self._dialect = SqliteDialect()
        self._wide: set[str] = set()
        """Physical tables in which numbers beyond 64 bits were met."""

    def prepare(self) -> None:
        """The file's settings and the engine's own tables."""
        self.db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute("PRAGMA temp_store = MEMORY")
        self.db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        with self.transaction():
            there = {name for (name,) in self.db.execute("SELECT name FROM sqlite_schema")}
            for table in engine_tables.engine_tables:
                if table.name not in there:
                    self._run(self._dialect.create_table(table.name, table))

    @contextmanager
    def transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        self.db.execute(f"BEGIN {kind}")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise

    def _run(self, statements: Sequence[str]) -> None:
        for statement in statements:
            self.db.execute(statement)

    # --- sets ----------------------------------------------------------------------------

    def sets(self) -> list[ProjectionSet]:
        rows = self.db.execute(
            "SELECT projection, version, build, state, created_at, changed_at, parked, paused"
            " FROM ultra_projection_set ORDER BY projection, build"
        )
        return [
            ProjectionSet(
                projection,
                version,
                build,
                SetState(state),
                Instant(created),
                Instant(changed),
                None if parked is None else _PARKED.decode(parked),
                bool(paused),
            )
            for projection, version, build, state, created, changed, parked, paused in rows
        ]

    def _find(self, projection: str, build: int) -> ProjectionSet | None:
        for one in self.sets():
            if (one.projection, one.build) == (projection, build):
                return one
        return None

    def create(self, projection: Projection, build: int, now: Instant) -> ProjectionSet:
        with self.transaction():
            found = self._find(projection.name, build)
            if found is not None:
                return found
            made = ProjectionSet(
                projection.name, projection.version, build, SetState.BUILDING, now, now
            )
            remembered = [added(*row) for row in self.db.execute(select(self._dialect))]
            self._run(create_whole(self._dialect, projection, made.suffix, remembered))
            names = ",".join(table.name for table in all_tables(projection))
            self._insert(
                engine_tables.SETS,
                (made.projection, build, made.version, made.state, now, now, False, None, names),
            )
            return made

    def _insert(self, table: Table, row: Row) -> None:
        self.db.execute(self._dialect.insert(table.name, table), row)

    def _tables(self, projection: str, build: int | None = None) -> set[str]:
        """Names of the tables of a set, or of all sets of a projection."""
        rows = self.db.execute(
            "SELECT tables FROM ultra_projection_set WHERE projection = ?1"
            " AND build = coalesce(?2, build)",
            (projection, build),
        )
        return {name for (names,) in rows for name in names.split(",")}

    def serve(self, of: ProjectionSet, projection: Projection, now: Instant) -> None:
        with self.transaction():
            found = self._find(of.projection, of.build)
            if found is None:
                raise Fenced(f"{of.projection} {of.suffix} is gone")
            if found.state is SetState.SERVING:
                return
            gone = self._tables(of.projection) - {table.name for table in all_tables(projection)}
            for name in sorted(gone):
                shown = self._dialect.quote(view(of.projection, name))
                self.db.execute(f"DROP VIEW IF EXISTS {shown}")
            self._run(self._dialect.swap_views(projection, of.suffix))
            change = (
                "UPDATE ultra_projection_set SET state = ?, changed_at = ? WHERE projection = ?"
            )
            self.db.execute(
                f"{change} AND state = ?",
                (SetState.RETIRED, now, of.projection, SetState.SERVING),
            )
            self.db.execute(f"{change} AND build = ?", (SetState.SERVING, now, *_key(of)))

    def drop(self, of: ProjectionSet, tables: Sequence[str]) -> None:
        with self.transaction():
            found = self._find(of.projection, of.build)
            if found is not None and found.state is SetState.SERVING:
                raise InvariantBroken("a set that serves is not dropped", set=of.suffix)
            for name in sorted({*tables, *self._tables(of.projection, of.build)}):
                self.db.execute(self._dialect.drop_table(physical(of.projection, name, of.suffix)))
            for name in ("set", "position", "ledger", "slice"):
                self.db.execute(f"DELETE FROM ultra_projection_{name} WHERE {_SET}", _key(of))

    def note(self, of: ProjectionSet, column: str, value: str | int | None) -> None:
        self.db.execute(
            f"UPDATE ultra_projection_set SET {column} = ? WHERE {_SET}", (value, *_key(of))
        )

    def ask(self, projection: str, request: Request, now: Instant) -> None:
        with self.transaction():
            (last,) = self.db.execute(
                "SELECT coalesce(max(id), 0) FROM ultra_projection_request"
            ).fetchone()
            self._insert(engine_tables.REQUESTS, (last + 1, projection, request, now))

    def requests(self) -> list[tuple[str, Request]]:
        with self.transaction():
            rows = self.db.execute(
                "SELECT projection, request FROM ultra_projection_request ORDER BY id"
            ).fetchall()
            self.db.execute("DELETE FROM ultra_projection_request")
            return [(projection, Request(request)) for projection, request in rows]

    # --- writing -------------------------------------------------------------------------

    def positions(self, of: ProjectionSet) -> dict[ShardId, Checkpoint]:
        rows = self.db.execute(
            "SELECT shard, log_offset, epoch, booked_at, chain FROM ultra_projection_position"
            f" WHERE {_SET} ORDER BY shard",
            _key(of),
        )
        return {
            ShardId(shard): Checkpoint(Offset(offset), Epoch(epoch), Instant(time), chain)
            for shard, offset, epoch, time, chain in rows
        }

    def write(
        self, of: ProjectionSet, projection: Projection, batch: Batch, moved: Sequence[Moved]
    ) -> None:
        with self.transaction():
            if self._find(of.projection, of.build) is None:
                raise Fenced(f"{of.projection} {of.suffix} is gone")
            for move in moved:
                self._move(of, move, batch.row_count)
            self._roll_up(of, projection, batch)
            for table in projection.tables:
                with _refusing(table):
                    if table.name in batch.appended:
                        self._append(of, table, batch.appended[table.name])
                    else:
                        self._merge(of, table, batch.current[table.name])
            for aggregate in projection.aggregates:
                self._touch(of, aggregate, batch.current[aggregate.source])

    def _roll_up(self, of: ProjectionSet, projection: Projection, batch: Batch) -> None:
        for table, rollup in rolled(projection.tables, batch):
            name = physical(of.projection, rollup.source.name, of.suffix)
            statement = self._dialect.lookup(name, rollup, 1)
            known = {}
            for key in unknown(rollup, table, batch, {}):
                for *_, value in self.db.execute(statement, key):
                    known[key] = value
            roll_up(rollup, table, batch, known)

    def _touch(self, of: ProjectionSet, aggregate: Aggregate, source: CurrentRows) -> None:
        slices = source.slices(aggregate.slice_column)
        facts = (*_key(of), aggregate.table.name)
        self.db.executemany(
            "INSERT OR IGNORE INTO ultra_projection_slice VALUES (?, ?, ?, ?)",
            [(*facts, one) for one in sorted(slices)],
        )
        if aggregate.carried and slices:
            later = self._dialect.later_slices(aggregate, of.projection, of.suffix, "?, ?, ?")
            self.db.execute(
                f"INSERT OR IGNORE INTO ultra_projection_slice {later} ?", (*facts, min(slices))
            )

    def _move(self, of: ProjectionSet, move: Moved, rows: int) -> None:
        """Move a position from where the writer believes it to be.  Raises `Fenced`."""
        before, after = move.before, move.after
        place = (after.offset, after.epoch, after.time, after.chain)
        if before == START:
            found = self.db.execute(
                "INSERT OR IGNORE INTO ultra_projection_position VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*_key(of), move.shard, *place),
            )
        else:
            found = self.db.execute(
                "UPDATE ultra_projection_position"
                " SET log_offset = ?, epoch = ?, booked_at = ?, chain = ?"
                f" WHERE {_SET} AND shard = ? AND log_offset = ? AND epoch = ? AND chain = ?",
                (*place, *_key(of), move.shard, before.offset, before.epoch, before.chain),
            )
        if found.rowcount != 1:
            raise Fenced(f"shard {move.shard} of {of.projection} {of.suffix} is not at {before}")
        self._insert(
            engine_tables.LEDGER,
            (*_key(of), move.shard, after.offset, of.version, *place[1:], rows),
        )

    def _append(self, of: ProjectionSet, table: Table, rows: Sequence[Row]) -> None:
        name = physical(of.projection, table.name, of.suffix)
        places = _places(table, range(len(table.columns)))
        self._many(name, self._dialect.insert(name, table), rows, places)

    def _merge(self, of: ProjectionSet, table: Table, current: CurrentRows) -> None:
        name = physical(of.projection, table.name, of.suffix)
        if current.put:
            values = f"VALUES ({self._dialect.placeholders(len(table.columns))})"
            statement = self._dialect.merge(name, table, values)
            places = _places(table, range(len(table.columns)))
            self._many(name, statement, list(current.put.values()), places)
        shapes: dict[tuple[int, ...], list[Row]] = {}
        for key, change in current.changed.items():
            shapes.setdefault(tuple(change), []).append((*change.values(), *key))
        for shape, rows in shapes.items():
            columns = [table.names[place] for place in shape]
            statement = self._dialect.update(name, table, columns)
            changed = self._many(name, statement, rows, _places(table, shape))
            if changed != len(rows):
                raise RowRefused(
                    f"table {table.name}: {len(rows) - changed} of {len(rows)} rows to be changed "
                    f"are not there, {self._missing(name, table, rows)} the first"
                )

    def _many(
        self, name: str, statement: str, rows: Sequence[Row | list[Any]], places: Sequence[int]
    ) -> int:
        """Run a statement for each row; how many rows it changed.

        A number beyond a word stops SQLite before its row; the rows are then written anew in
        their stored form.
        """
        if name not in self._wide:
            self.db.execute("SAVEPOINT rows")
            try:
                changed = self.db.executemany(statement, rows).rowcount
            except OverflowError:
                self.db.execute("ROLLBACK TO rows")
                self._wide.add(name)
            else:
                self.db.execute("RELEASE rows")
                return changed
        return self.db.executemany(statement, (_narrow(row, places) for row in rows)).rowcount

    def _missing(self, name: str, table: Table, rows: Sequence[Row]) -> Row:
        """Key of the first row to be changed that is not there."""
        where = " AND ".join(f"{self._dialect.quote(column)} = ?" for column in table.key)
        keys = (row[-len(table.key) :] for row in rows)
        query = f"SELECT 1 FROM {self._dialect.quote(name)} WHERE {where}"
        return next(key for key in keys if self.db.execute(query, key).fetchone() is None)

    # --- what follows from rows ----------------------------------------------------------

    def refresh(self, of: ProjectionSet, projection: Projection, slices_max: int) -> int:
        with self.transaction():
            for aggregate in projection.aggregates:
                key = (*_key(of), aggregate.table.name)
                slices = self.db.execute(
                    f"SELECT slice FROM ultra_projection_slice WHERE {_SET} AND aggregate = ?"
                    " ORDER BY slice LIMIT ?",
                    (*key, min(slices_max, SLICES_MAX)),
                ).fetchall()
                slices_max -= len(slices)
                if not slices:
                    continue
                parameters = [one for (one,) in slices]
                statements = self._dialect.aggregate(
                    aggregate, of.projection, of.suffix, len(parameters)
                )
                with _refusing(aggregate.table):
                    for statement in statements:
                        self.db.execute(statement, parameters)
                self.db.executemany(
                    f"DELETE FROM ultra_projection_slice WHERE {_SET} AND aggregate = ?"
                    " AND slice = ?",
                    [(*key, one) for one in parameters],
                )
            (left,) = self.db.execute(
                f"SELECT count(*) FROM ultra_projection_slice WHERE {_SET}", _key(of)
            ).fetchone()
            return int(left)

    def keep(self, of: ProjectionSet, projection: Projection, now: Instant) -> None:
        with self.transaction():
            for table in projection.tables:
                partition = table.partition
                if partition is None or partition.keep_days is None:
                    continue
                start = kept_from(partition, partition.keep_days, now)
                if table.column(partition.column).type is ColumnType.TIME:
                    start *= DAY_US
                name = self._dialect.quote(physical(of.projection, table.name, of.suffix))
                column = self._dialect.quote(partition.column)
                self.db.execute(f"DELETE FROM {name} WHERE {column} < ?", (start,))

    def checksums(self, of: ProjectionSet, tables: Sequence[Table]) -> dict[str, Checksum]:
        found = {}
        with self.transaction("DEFERRED"):
            for table in tables:
                name = self._dialect.quote(physical(of.projection, table.name, of.suffix))
                columns = self._dialect.names(table.names)
                count, digest = 0, 0
                for row in self.db.execute(f"SELECT {columns} FROM {name}"):
                    count += 1
                    digest += xxhash.xxh3_128_intdigest(_ENCODE(row))
                found[table.name] = Checksum(count, f"{digest % (1 << 128):032x}")
        return found


def _key(of: ProjectionSet) -> tuple[str, int]:
    return of.projection, of.build


def _places(table: Table, positions: Sequence[int]) -> list[int]:
    """Where among these columns are amounts."""
    return [
        place for place, position in enumerate(positions) if table.columns[position].type in EXACT
    ]


def _narrow(row: Row | list[Any], places: Sequence[int]) -> list[Any]:
    """A row in its stored form."""
    values = list(row)
    for place in places:
        if isinstance(values[place], int):
            values[place] = stored(values[place])
    return values


@contextmanager
def _refusing(table: Table) -> Iterator[None]:
    """Turns what SQLite says of a row, or cannot take as a value, into `RowRefused`."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None or code & 0xFF in _REFUSED:
            raise RowRefused(f"table {table.name}: {error}") from error
        raise
    except (OverflowError, UnicodeEncodeError) as error:
        raise RowRefused(f"table {table.name}: {error}") from error
