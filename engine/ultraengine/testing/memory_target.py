"""A projection target in memory: dicts in place of tables, and a database that can go away.

    database = MemoryDatabase()
    target = MemoryTarget("memory", database)

It keeps every promise of `projection.target.Target`: a write is checked whole before anything of it
is kept.  `MemoryDatabase` outlives its targets as a real one does, so a worker that is killed
leaves behind what it had committed and nothing else.  Its faults: `MemoryDatabase.away`, and
`MemoryTarget.dies_at`, which stands for a kill at any call, before or after its effect.

Declared checks are evaluated as written, with exact integers; the SQL of aggregates is run by
SQLite in memory, as the SQLite target does it.
"""

import ast
import asyncio
import hashlib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Instant, ShardId
from ultraengine.model.projection import (
    AMOUNT_END,
    TOTAL_END,
    Aggregate,
    Check,
    Column,
    ColumnType,
    Key,
    Projection,
    Rollup,
    Row,
    Table,
    TableKind,
)
from ultraengine.projection.engine_tables import LEDGER
from ultraengine.projection.fold import COMBINE, Batch, CurrentRows
from ultraengine.projection.partitions import DAY_US, kept_from
from ultraengine.projection.rollups import roll_up, rolled
from ultraengine.projection.sqlite.dialect import EXACT, SqliteDialect
from ultraengine.projection.sqlite.exact import loaded, stored
from ultraengine.projection.sqlite.store.driver import connect
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
    TargetUnavailable,
    all_tables,
    physical,
    view,
)

SetKey = tuple[str, int]
_REFERENCE: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_WORDS: Final = (
    (re.compile(r"\bIS NOT NULL\b"), "is not None"),
    (re.compile(r"\bIS NULL\b"), "is None"),
    (re.compile(r"\bAND\b"), "and"),
    (re.compile(r"\bOR\b"), "or"),
    (re.compile(r"\bNOT\b"), "not"),
    (re.compile(r"\bIN\b"), "in"),
    (re.compile(r"<>"), "!="),
    (re.compile(r"(?<![<>!=])=(?!=)"), "=="),
)
_COMPARE: Final[dict[type[ast.cmpop], Callable[[Any, Any], bool]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_COMPUTE: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}


class _Tables(msgspec.Struct):
    """The tables of one set."""

    tables: dict[str, Table]
    appended: dict[str, dict[Key, Row]]
    current: dict[str, dict[Key, list[Any]]]
    """Aggregates too."""
    slices: dict[str, set[int]]
    """By aggregate: slices that were touched and not computed anew."""


class LedgerRow(msgspec.Struct, frozen=True):
    """One write into one shard's part of a set, for auditors."""

    of: ProjectionSet
    moved: Moved
    rows: int

    @property
    def row(self) -> Row:
        """Its columns as `engine_tables.LEDGER` has them."""
        of, after = self.of, self.moved.after
        return (
            of.projection, of.build, self.moved.shard, after.offset, of.version, after.epoch,
            after.time, after.chain, self.rows,
        )  # fmt: skip


class MemoryDatabase:
    """What outlives its targets."""

    def __init__(self) -> None:
        self.away = False
        """Whether nobody can reach it."""
        self.sets: dict[SetKey, ProjectionSet] = {}
        self.tables: dict[SetKey, _Tables] = {}
        self.positions: dict[SetKey, dict[ShardId, Checkpoint]] = {}
        self.ledger: list[LedgerRow] = []
        self.asked: list[tuple[str, Request]] = []
        self.shown: dict[str, SetKey] = {}
        """Set by the name of a view."""
        self.writes = 0

    def rows(self, name: str) -> list[Row]:
        """The rows of a view, a table of a set or the ledger, sorted.

        Raises LookupError when there is nothing of this name.
        """
        if name == LEDGER.name:
            return sorted(one.row for one in self.ledger)
        found = self._relation(name)
        return sorted((tuple(row) for row in found.values()), key=repr)

    def _relation(self, name: str) -> Mapping[Key, Sequence[Any]]:
        for key, held in self.tables.items():
            for table in held.tables:
                shown = self.shown.get(name) == key and name == view(key[0], table)
                if shown or name == physical(key[0], table, self.sets[key].suffix):
                    return held.appended[table] if table in held.appended else held.current[table]
        raise LookupError(name)


class MemoryTarget:
    """A connection to a `MemoryDatabase`: a `projection.target.Target`."""

    dialect = "memory"
    exactly_once = True

    def __init__(self, name: str, database: MemoryDatabase) -> None:
        self.name = name
        self.database = database
        self.dead = False
        """Its process was killed: nothing that it still calls reaches the database."""
        self.calls = 0
        self.dies_at: int | None = None
        """The call, counted from 1, at which its process is killed."""
        self.is_open = False

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        self.calls += 1
        if self.calls == self.dies_at:
            self.dead = True
        if self.dead or self.database.away:
            raise TargetUnavailable("the database is away")

    async def open(self) -> None:
        """Connect."""
        await self._reach()
        self.is_open = True

    async def close(self) -> None:
        """Disconnect."""
        await asyncio.sleep(0)
        self.is_open = False

    async def sets(self) -> Sequence[ProjectionSet]:
        """All sets."""
        await self._reach()
        return [one for _, one in sorted(self.database.sets.items())]

    async def create(self, projection: Projection, build: int, now: Instant) -> ProjectionSet:
        """Make the tables of a set."""
        await self._reach()
        key = (projection.name, build)
        of = ProjectionSet(projection.name, projection.version, build, SetState.BUILDING, now, now)
        if key not in self.database.sets:
            tables = {table.name: table for table in all_tables(projection)}
            self.database.sets[key] = of
            self.database.positions[key] = {}
            self.database.tables[key] = _Tables(
                tables,
                {name: {} for name, one in tables.items() if one.kind is TableKind.APPEND},
                {name: {} for name, one in tables.items() if one.kind is not TableKind.APPEND},
                {one.table.name: set() for one in projection.aggregates},
            )
        return self.database.sets[key]

    async def positions(self, of: ProjectionSet) -> Mapping[ShardId, Checkpoint]:
        """How far a set has come."""
        await self._reach()
        return dict(self.database.positions.get((of.projection, of.build), {}))

    async def write(
        self, of: ProjectionSet, projection: Projection, batch: Batch, moved: Sequence[Moved]
    ) -> None:
        """Keep a batch, or nothing of it."""
        await self._reach()
        database, key = self.database, (of.projection, of.build)
        positions = database.positions.get(key)
        if positions is None or any(positions.get(one.shard, START) != one.before for one in moved):
            raise Fenced(f"the positions of {of.projection} build {of.build} were moved")
        held = database.tables[key]
        appended = {
            name: _appended(held.tables[name], held.appended[name], rows)
            for name, rows in batch.appended.items()
        }
        for table, rollup in rolled(projection.tables, batch):
            roll_up(rollup, table, batch, looked_up(rollup, held.current[rollup.source.name]))
        current = {name: _merged(rows, held.current[name]) for name, rows in batch.current.items()}
        for name, new in appended.items():
            held.appended[name].update(new)
        for name, merged in current.items():
            held.current[name].update(merged)
        for aggregate in projection.aggregates:
            slices = batch.current[aggregate.source].slices(aggregate.slice_column)
            touched = held.slices[aggregate.table.name]
            touched.update(slices)
            if aggregate.carried and slices:
                place = aggregate.table.names.index(aggregate.slice_column)
                rows = held.current[aggregate.table.name].values()
                touched.update(row[place] for row in rows if row[place] > min(slices))
        for one in moved:
            positions[one.shard] = one.after
            database.ledger.append(LedgerRow(of, one, batch.row_count))
        database.writes += 1
        await self._reach()  # The commit may be done and its answer lost.

    async def refresh(self, of: ProjectionSet, projection: Projection, slices_max: int) -> int:
        """Compute touched slices anew."""
        await self._reach()
        held = self.database.tables[of.projection, of.build]
        for aggregate in projection.aggregates:
            touched = held.slices[aggregate.table.name]
            chosen = sorted(touched)[:slices_max]
            if chosen:
                held.current[aggregate.table.name] = _recomputed(
                    held, aggregate, of.projection, chosen
                )
                touched.difference_update(chosen)
        return sum(map(len, held.slices.values()))

    async def serve(self, of: ProjectionSet, projection: Projection, now: Instant) -> None:
        """Show a set in place of the one that served."""
        await self._reach()
        database, key = self.database, (of.projection, of.build)
        for other, one in list(database.sets.items()):
            if other != key and other[0] == key[0] and one.state is SetState.SERVING:
                self._change(other, state=SetState.RETIRED, changed_at=now)
        if database.sets[key].state is not SetState.SERVING:
            self._change(key, state=SetState.SERVING, changed_at=now)
        database.shown = {
            name: shown for name, shown in database.shown.items() if shown[0] != key[0]
        }
        for table in all_tables(projection):
            database.shown[view(projection.name, table.name)] = key

    async def drop(self, of: ProjectionSet, tables: Sequence[str], now: Instant) -> None:  # noqa: ARG002
        """Forget a set."""
        await self._reach()
        key = (of.projection, of.build)
        found = self.database.sets.get(key)
        if found is not None and found.state is SetState.SERVING:
            raise InvariantBroken("a set that serves is not dropped", of=found)
        for held in (self.database.sets, self.database.tables, self.database.positions):
            held.pop(key, None)

    async def park(self, of: ProjectionSet, parked: Parked | None) -> None:
        """Remember why a set stands still."""
        await self._reach()
        self._change((of.projection, of.build), parked=parked)

    async def ask(self, projection: str, request: Request, now: Instant) -> None:  # noqa: ARG002
        """Leave a request."""
        await self._reach()
        self.database.asked.append((projection, request))

    async def requests(self) -> Sequence[tuple[str, Request]]:
        """Take the requests."""
        await self._reach()
        asked, self.database.asked = self.database.asked, []
        return asked

    async def pause(self, of: ProjectionSet, *, paused: bool) -> None:
        """Remember that a set is to stand still."""
        await self._reach()
        self._change((of.projection, of.build), paused=paused)

    async def keep(self, of: ProjectionSet, projection: Projection, now: Instant) -> None:
        """Forget the rows of partitions past their keep."""
        await self._reach()
        for table in projection.tables:
            partition = table.partition
            if partition is None or partition.keep_days is None:
                continue
            start = kept_from(partition, partition.keep_days, now)
            if table.column(partition.column).type is ColumnType.TIME:
                start *= DAY_US
            place = table.names.index(partition.column)
            held = self.database.tables[of.projection, of.build].appended[table.name]
            for key in [key for key, row in held.items() if row[place] < start]:
                del held[key]

    async def checksums(self, of: ProjectionSet, tables: Sequence[Table]) -> Mapping[str, Checksum]:
        """The content of some tables."""
        await self._reach()
        held = self.database.tables[of.projection, of.build]
        found: dict[str, Checksum] = {}
        for table in tables:
            source: Mapping[Key, Sequence[Any]] = (
                held.appended.get(table.name) or held.current.get(table.name) or {}
            )
            lines = sorted(repr(tuple(row)) for row in source.values())
            digest = hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()
            found[table.name] = Checksum(len(lines), digest)
        return found

    def _change(self, key: SetKey, **changes: Any) -> None:
        of = self.database.sets.get(key)
        if of is not None:
            self.database.sets[key] = msgspec.structs.replace(of, **changes)


def looked_up(rollup: Rollup, held: Mapping[Key, Sequence[Any]]) -> dict[Key, Any]:
    """What rows of a rollup's source say."""
    place = rollup.source.names.index(rollup.column)
    return {key: row[place] for key, row in held.items()}


def _appended(table: Table, held: Mapping[Key, Row], rows: Sequence[Row]) -> dict[Key, Row]:
    new: dict[Key, Row] = {}
    for row in rows:
        key = row[: len(table.key)]
        if key in held or key in new:
            raise RowRefused(f"{table.name} has {key} already")
        _check(table, row)
        new[key] = row
    return new


def _merged(rows: CurrentRows, held: Mapping[Key, Sequence[Any]]) -> dict[Key, list[Any]]:
    table = rows.table
    combine = [COMBINE[column.fold] for column in table.columns]
    merged: dict[Key, list[Any]] = {}
    for key, row in rows.put.items():
        old = held.get(key)
        new = (
            list(row)
            if old is None
            else [fold(a, b) for fold, a, b in zip(combine, old, row, strict=True)]
        )
        _check(table, new)
        merged[key] = new
    for key, changes in rows.changed.items():
        if key not in held:
            raise RowRefused(f"{table.name} has no {key} to change")
        new = list(held[key])
        for position, value in changes.items():
            new[position] = combine[position](new[position], value)
        _check(table, new)
        merged[key] = new
    return merged


def _check(table: Table, row: Sequence[Any]) -> None:
    if len(row) != len(table.columns):
        raise RowRefused(f"a row of {table.name} has {len(row)} values")
    for column, value in zip(table.columns, row, strict=True):
        if not (column.nullable if value is None else _fits(column, value)):
            raise RowRefused(f"{table.name}.{column.name} cannot hold {value!r}")
    values = dict(zip(table.names, row, strict=True))
    for check in table.checks:
        if not _holds(check, values):
            raise RowRefused(f"{table.name}: the check {check.name} does not hold of {row!r}")


def _holds(check: Check, values: Mapping[str, Any]) -> bool:
    """Whether a condition is true or unknown, as SQL has it."""
    text = _REFERENCE.sub(lambda found: found[1], check.condition)
    for pattern, word in _WORDS:
        text = pattern.sub(word, text)
    return _value(ast.parse(text, mode="eval").body, values) is not False


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    """What an expression is, None where SQL would say NULL."""
    match node:
        case ast.Name(id=name):
            return values[name]
        case ast.Constant(value=value):
            return value
        case ast.Tuple(elts=parts):
            return [_value(part, values) for part in parts]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            inner = _value(operand, values)
            return None if inner is None else not inner
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, values)
        case ast.BoolOp(op=op, values=parts):
            found = [_value(part, values) for part in parts]
            decisive = isinstance(op, ast.Or)
            if decisive in found:
                return decisive
            return None if None in found else not decisive
        case ast.BinOp(left=left, op=op, right=right):
            pair = (_value(left, values), _value(right, values))
            return None if None in pair else _COMPUTE[type(op)](*pair)
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            first = _value(left, values)
            if isinstance(op, ast.Is | ast.IsNot):
                return (first is None) is isinstance(op, ast.Is)
            second = _value(right, values)
            if isinstance(op, ast.In | ast.NotIn):
                inside = first in (second if isinstance(second, list) else [second])
                return None if first is None else inside is isinstance(op, ast.In)
            return None if None in (first, second) else _COMPARE[type(op)](first, second)
    raise NotImplementedError(ast.unparse(node))


_ENDS: Final = {ColumnType.AMOUNT: AMOUNT_END, ColumnType.TOTAL: TOTAL_END}


def _fits(column: Column, value: Any) -> bool:
    match column.type:
        case ColumnType.AMOUNT | ColumnType.TOTAL:
            return type(value) is int and abs(value) < _ENDS[column.type]
        case ColumnType.INTEGER | ColumnType.TIME | ColumnType.DATE:
            return type(value) is int and -(1 << 63) <= value < 1 << 63
        case ColumnType.BOOLEAN:
            return type(value) is bool
        case ColumnType.BYTES:
            return type(value) is bytes and len(value) <= column.length
        case ColumnType.TEXT:
            return type(value) is str and len(value) <= column.length
    return type(value) is str


def _recomputed(
    held: _Tables, aggregate: Aggregate, projection: str, slices: Sequence[int]
) -> dict[Key, list[Any]]:
    """The rows of an aggregate with some slices computed anew.  Raises `RowRefused`."""
    dialect, connection = SqliteDialect(), connect(":memory:")
    try:
        for name, table in held.tables.items():
            place = physical(projection, name, "memory")
            bare = msgspec.structs.replace(table, checks=(), indexes=())
            for statement in dialect.create_table(place, bare):
                connection.execute(statement)
            exact = [column.type in EXACT for column in table.columns]
            source: Any = held.appended.get(name) or held.current.get(name) or {}
            connection.executemany(
                dialect.insert(place, table),
                [
                    [
                        stored(value) if large and value is not None else value
                        for large, value in zip(exact, row, strict=True)
                    ]
                    for row in source.values()
                ],
            )
        for statement in dialect.aggregate(aggregate, projection, "memory", len(slices)):
            connection.execute(statement, slices)
        table = aggregate.table
        columns = dialect.names(table.names)
        place = dialect.quote(physical(projection, table.name, "memory"))
        found = connection.execute(f"SELECT {columns} FROM {place}").fetchall()  # noqa: S608
    finally:
        connection.close()
    exact = [column.type in EXACT for column in table.columns]
    rows = [
        [loaded(value) if large else value for large, value in zip(exact, row, strict=True)]
        for row in found
    ]
    for row in rows:
        _check(table, row)
    return {tuple(row[: len(table.key)]): row for row in rows}
