"""What a domain declares to be seen in SQL: tables, and a pure function from events to rows.

SQL is a projection (requirement 001 §1.4, §16): every table here can be dropped and built again
from the log with the same rows.  A domain that wants tables has an attribute ``projections``
(`Projecting`); it imports nothing but this module for it.

    class LedgerTables:                          # a `Projection`
        name, version, tables = "ledger", 1, (ACCOUNT, ENTRY)
        def project(self, event, at, rows): rows.append("entry", (at.tenant, ...))

Rules, which `ultraengine.testing` checks:

* ``project`` reads the event and where it stands, calls `Rows`, and does nothing else.
* A row's values come in the order of the table's columns, in the Python types of `ColumnType`.
* Raise ``version`` when any row or table could come out differently: a new set of tables is
  then built beside the old one, and takes its place when it has caught up.
"""

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId

NAME_CHARS_MAX: Final = 24
"""Of a projection, a table, an index, a check: databases cut or refuse long identifiers, and
a set's physical names add a version to them."""
AMOUNT_END: Final = 10**38
TOTAL_END: Final = 10**57
"""Values of `ColumnType.AMOUNT` and `ColumnType.TOTAL` are below these in size."""
TEXT_CHARS_MAX: Final = 4_000
"""Longest declared text: the longest that every supported database stores in a plain column."""
_NAME: Final = re.compile(rf"[a-z][a-z0-9_]{{0,{NAME_CHARS_MAX - 1}}}")

Value = int | str | bytes | bool | None
Row = tuple[Any, ...]
"""One value per column, in the order of the table's columns: `Value`."""
Key = tuple[Any, ...]


class ColumnType(enum.StrEnum):
    """What a column holds, and as which Python value ``project`` gives it."""

    INTEGER = "integer"
    """Signed 64-bit: int."""
    AMOUNT = "amount"
    """Exact integer below 10^38 in size, never a float: int."""
    TOTAL = "total"
    """Exact integer below 10^57 in size: int.  What amounts sum to; sums that end at 10^38 would
    let a few huge amounts stop a projection."""
    TEXT = "text"
    """At most ``length`` characters, compared by code point, without U+0000 (`storable`): str.
    The empty text is not null."""
    TIME = "time"
    """Microseconds since the Unix epoch, stored as a UTC timestamp: int."""
    DATE = "date"
    """Days since 1970-01-01, UTC: int."""
    BOOLEAN = "boolean"
    """bool."""
    JSON = "json"
    """Canonical JSON text: str."""
    BYTES = "bytes"
    """At most ``length`` bytes: bytes."""


class Fold(enum.StrEnum):
    """How a column of a `TableKind.CURRENT` table takes a new value for a key that it has."""

    LAST = "last"
    SUM = "sum"
    MIN = "min"
    MAX = "max"


class TableKind(enum.StrEnum):
    """How rows enter a table."""

    APPEND = "append"
    """Rows are facts: each is written once and never changes.  Written in bulk."""
    CURRENT = "current"
    """One row per key, as of the newest event: folded per batch, then merged."""
    AGGREGATE = "aggregate"
    """Computed in the database by an `Aggregate`, slice by slice; no event writes it."""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One column.  Key columns are never null and always `Fold.LAST`."""

    name: str
    type: ColumnType
    nullable: bool = False
    length: int = 128
    """Characters of `ColumnType.TEXT`, bytes of `ColumnType.BYTES`; others ignore it."""
    fold: Fold = Fold.LAST
    summary: str = ""
    """One sentence for documents and for the database's own comments."""


class Index(msgspec.Struct, frozen=True):
    """A secondary index, or a uniqueness that the engine guarantees."""

    name: str
    columns: tuple[str, ...]
    unique: bool = False
    sparse: bool = False
    """Rows whose last column is null are left out, where the database can: they cost nothing, and
    no filter finds rows by a value that is not there.  Only of one that is not unique."""


class Check(msgspec.Struct, frozen=True):
    """What the engine guarantees of every row, for the database to guard a second time.

    ``condition`` is SQL that all databases share, with column names in braces:
    ``{min_balance} IS NULL OR {balance} >= {min_balance}``.
    """

    name: str
    condition: str


class Interval(enum.StrEnum):
    """Width of a partition."""

    DAY = "day"
    MONTH = "month"


class Partition(msgspec.Struct, frozen=True):
    """How a large table is cut, where the database can (requirement 001 §3.3 SQL scale)."""

    column: str
    """A `TIME` or `DATE` column without nulls; it joins the primary key where that must be."""
    interval: Interval = Interval.MONTH
    by_shard: bool = False
    """Also by the column ``shard``, which the table then has."""
    keep_days: int | None = None
    """Retention: whole partitions older than this are dropped; None = kept for ever."""


SPAN: Final = "span"
START: Final = "start"
MOMENT: Final = "moment"


class Rollup(msgspec.Struct, frozen=True):
    """How a CURRENT table of sums is kept: by what a row of another table says, and by spans.

    ``project`` puts rows by the key of `source` and a moment, ``(*key, moment, *sums)``, because an
    event does not say all that its account does.  What is kept is ``(*key without its last column,
    span, start, column, *sums)``, once for each of the spans: so the sums up to any moment are
    those of whole spans and few rests, of each of which there is one row, however many accounts.
    """

    source: "Table"
    """A CURRENT table of the projection, whose key is text.  Each row that is put names one that is
    there, or put by the same batch."""
    column: str
    """A column of the source, of text, that never changes."""
    spans_s: tuple[int, ...]
    """Seconds of the spans; 0 keeps each moment."""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """One table of a projection.  Each has a TEXT column ``tenant``, first in its key."""

    name: str
    kind: TableKind
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    """Primary key; its columns stand first, in this order."""
    indexes: tuple[Index, ...] = ()
    checks: tuple[Check, ...] = ()
    partition: Partition | None = None
    """Only `TableKind.APPEND`."""
    rollup: "Rollup | None" = None
    """Only `TableKind.CURRENT`: rows are put in another shape than they are kept in."""
    led_by: str = ""
    """A column of the key that whoever looks for rows by their key names.  Where it helps
    (PostgreSQL), keys and indexes that have it begin with it: rows of one book differ in it, and
    an index that begins with tenant and book compares these at each step, for nothing."""
    summary: str = ""

    @property
    def taken(self) -> "Table":
        """The table in whose shape ``project`` puts rows: itself, but for a `Rollup`."""
        rollup = self.rollup
        if rollup is None:
            return self
        keyed = (*rollup.source.columns[: len(rollup.source.key)],
                 Column(name=MOMENT, type=ColumnType.TIME))  # fmt: skip
        return Table(
            name=self.name,
            kind=self.kind,
            key=(*rollup.source.key, MOMENT),
            columns=(*keyed, *self.columns[len(self.key) :]),
        )

    def column(self, name: str) -> Column:
        """Raises KeyError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"table {self.name} has no column {name}")

    @property
    def names(self) -> tuple[str, ...]:
        """Column names, in order."""
        return tuple(column.name for column in self.columns)


class Aggregate(msgspec.Struct, frozen=True, kw_only=True):
    """A table that the worker computes in the database from other tables of the projection.

    ``select`` is SQL that all databases share.  ``{table:NAME}`` stands for a table of the set;
    it yields the columns of ``table`` in order, and ends with a ``WHERE {slice}``-able shape: the
    worker replaces ``{slice}`` by a condition on ``slice_column`` and groups by the key.
    Slices (days, as a rule) that a batch has touched are computed anew, whole.  Amounts that are
    more than a column or its SUM are computed by the macros of `model.exact`.
    """

    table: Table
    source: str
    """The CURRENT table whose written rows name the touched slices."""
    slice_column: str
    """A DATE column of both tables, in the key of the source: a row never changes its slice."""
    select: str
    carried: bool = False
    """Whether its rows of a slice also follow from rows of other slices: touching one touches all
    later ones that the table has."""


class Source(Protocol):
    """Where an event stands.  One object, reused for each event: take values, keep none."""

    @property
    def shard(self) -> ShardId:
        """The shard whose log holds it."""

    @property
    def epoch(self) -> Epoch:
        """Epoch of the frame."""

    @property
    def offset(self) -> Offset:
        """Offset of the command that produced the event."""

    @property
    def index(self) -> int:
        """Index of the event among that command's events."""

    @property
    def time(self) -> Instant:
        """Stamped time of the frame."""

    @property
    def tenant(self) -> str:
        """Tenant of the command; of a timer's event, that of the hold or the like."""

    @property
    def key(self) -> str:
        """Partition key, likewise."""

    @property
    def type(self) -> str:
        """Command type with its handler version."""

    @property
    def id(self) -> str:
        """Idempotency key of the command."""

    @property
    def principal(self) -> str:
        """Who sent it."""

    @property
    def correlation_id(self) -> str | None:
        """The caller's, carried through."""


class Rows(Protocol):
    """Takes the rows of one batch, in the order of the log."""

    def append(self, table: str, row: Row) -> None:
        """A row of an APPEND table."""

    def appender(self, table: str) -> Callable[[Row], None]:
        """``append`` for one table, to be kept for the length of one call of ``project``."""

    def put(self, table: str, row: Row) -> None:
        """A whole row of a CURRENT table: new, or folded into the one of the same key.

        Of a table with a `Rollup`, in the shape of `Table.taken`.
        """

    def putter(self, table: str) -> Callable[[Row], None]:
        """``put`` for one table, to be kept for the length of one call of ``project``."""

    def change(self, table: str, key: Key, values: Mapping[str, Value]) -> None:
        """Some columns of a row of a CURRENT table that is there already, by their folds.

        That it is there is the projection's promise: a target that does not find it parks.
        """

    def changer(
        self, table: str, columns: tuple[str, ...]
    ) -> Callable[[Key, Sequence[Value]], None]:
        """``change`` of always the same columns, for hot paths: one value per column.

        To be kept for the length of one call of ``project``.
        """


class Projection(Protocol):
    """The tables of one domain and how its events fill them."""

    @property
    def name(self) -> str:
        """Lower-case; prefix of its tables and views."""

    @property
    def version(self) -> int:
        """Raise it when any row or table could come out differently."""

    @property
    def tables(self) -> Sequence[Table]:
        """APPEND and CURRENT tables."""

    @property
    def aggregates(self) -> Sequence[Aggregate]:
        """What the worker computes from them."""

    def project(self, event: Any, at: Source, rows: Rows) -> None:
        """The rows of one event.  Pure; raising parks the projection at this event."""


@runtime_checkable
class Projecting(Protocol):
    """A domain that has tables."""

    @property
    def projections(self) -> Sequence[Projection]:
        """All of them; names are unique in a process."""


def check_projection(projection: Projection) -> None:
    """Raises `InvariantBroken` for declarations that contradict themselves or the rules above."""
    _named(projection.name)
    tables = [*projection.tables, *(one.table for one in projection.aggregates)]
    if len({table.name for table in tables}) != len(tables):
        raise InvariantBroken("tables have names of their own", projection=projection.name)
    for table in projection.tables:
        if table.kind is TableKind.AGGREGATE:
            raise InvariantBroken("an aggregate is declared as one", table=table.name)
    for table in tables:
        _check_table(table)
    by_name = {table.name: table for table in projection.tables}
    for table in projection.tables:
        if (
            table.rollup is not None
            and by_name.get(table.rollup.source.name) != table.rollup.source
        ):
            raise InvariantBroken("a rollup has a source of its projection", table=table.name)
    for aggregate in projection.aggregates:
        source = by_name.get(aggregate.source)
        if (
            aggregate.table.kind is not TableKind.AGGREGATE
            or source is None
            or source.kind is not TableKind.CURRENT
            or source.rollup is not None
            or aggregate.slice_column not in source.key
            or aggregate.slice_column not in aggregate.table.names
            or aggregate.table.column(aggregate.slice_column).type is not ColumnType.DATE
            or "{slice}" not in aggregate.select
        ):
            raise InvariantBroken(
                "an aggregate has a current source whose key holds its slice",
                table=aggregate.table.name,
            )


def storable(text: str) -> str:
    """`text` as every database can hold it: U+0000, which some refuse, becomes U+FFFD."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


def _named(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise InvariantBroken(
            f"a name is a lower-case letter and up to {NAME_CHARS_MAX - 1} of a-z, 0-9, _",
            name=name,
        )


def _check_table(table: Table) -> None:
    _named(table.name)
    names = table.names
    for name in (*names, *(one.name for one in table.indexes), *(c.name for c in table.checks)):
        _named(name)
    problem = (
        "columns have names of their own" if len(set(names)) != len(names)
        else "a key stands first" if not table.key or names[: len(table.key)] != table.key
        else "every table has a tenant, first in its key" if table.key[0] != "tenant"
        else "what leads a key is of it" if table.led_by and table.led_by not in table.key
        else "an index names columns" if any(
            column not in names for index in table.indexes for column in index.columns)
        else "a unique index has all rows" if any(
            index.unique and index.sparse for index in table.indexes)
        else _column_problem(table) or _partition_problem(table) or _rollup_problem(table)
    )  # fmt: skip
    if problem:
        raise InvariantBroken(problem, table=table.name)


_FOLDED: Final = frozenset(
    {ColumnType.INTEGER, ColumnType.AMOUNT, ColumnType.TOTAL, ColumnType.TIME}
)


def _column_problem(table: Table) -> str:
    for column in table.columns:
        in_key = column.name in table.key
        if in_key and (column.nullable or column.fold is not Fold.LAST):
            return "a key column is never null and never folded"
        if column.fold is not Fold.LAST and (
            table.kind is not TableKind.CURRENT or column.nullable or column.type not in _FOLDED
        ):
            return "a folded column is a number or a time of a current table, without nulls"
        if not 1 <= column.length <= TEXT_CHARS_MAX:
            return f"a length is 1 to {TEXT_CHARS_MAX}"
    return ""


def _partition_problem(table: Table) -> str:
    partition = table.partition
    if partition is None:
        return ""
    if table.kind is not TableKind.APPEND or partition.column not in table.names:
        return "an append table is partitioned by one of its columns"
    column = table.column(partition.column)
    if column.nullable or column.type not in {ColumnType.TIME, ColumnType.DATE}:
        return "a partition is cut by a time that is never null"
    if partition.by_shard and "shard" not in table.names:
        return "a table partitioned by shard has that column"
    return ""


def _rollup_problem(table: Table) -> str:
    rollup = table.rollup
    if rollup is None:
        return ""
    source = rollup.source
    keyed = [source.column(name).type for name in (*source.key, rollup.column)]
    kept = [table.column(name).type for name in table.key]
    if source.kind is not TableKind.CURRENT or set(keyed) != {ColumnType.TEXT}:
        return "a rollup has a current source, keyed by text"
    if (
        table.kind is not TableKind.CURRENT
        or table.key != (*source.key[:-1], SPAN, START, rollup.column)
        or kept[-3:] != [ColumnType.INTEGER, ColumnType.TIME, ColumnType.TEXT]
    ):
        return "a rollup is kept by its source's key but the last, span, start and what it looks up"
    if any(one.fold is not Fold.SUM for one in table.columns[len(table.key) :]):
        return "a rollup holds sums"
    if not rollup.spans_s or len(set(rollup.spans_s)) != len(rollup.spans_s):
        return "a rollup has spans, each once"
    return "" if min(rollup.spans_s) >= 0 else "a span is no shorter than nothing"
