"""What a domain declares to be asked through SQL, next to its tables (`model.projection`).

A `Read` is a list (or one row) of a table: which filters, which order, which columns.  A
`Computed` read is SQL of the domain's own, that all databases share, and a pure function from
its rows to the answer.  `ultra query` serves both as ``GET /v1/sql/{domain}/{path}`` and checks
them at its start (`check_reads`).

    Read(name="accounts", path="{book}/accounts", table="account", shown=("account", "balance"),
         orders=(Order("account", ("account",)),), filters=(Filter("asset"),))

Rules:

* Nothing here names a tenant.  Every table that a read touches is narrowed to the tenant of the
  key by the one function that writes table references (`query.sql`), so a read that forgets it
  cannot be declared: declared SQL speaks of tables only as ``{table:NAME}``.
* A value never becomes part of a statement's text: it is a parameter, ``{:NAME}``.
* A list is read in an order whose columns, with those of the path, hold the table's key: a
  cursor is then one place between two rows, and stays it while rows are added.
"""

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.exact import MACROS
from ultraengine.model.projection import (
    Aggregate,
    Column,
    ColumnType,
    Projection,
    Table,
    TableKind,
    Value,
)

TENANT: Final = "tenant"
RESERVED: Final = frozenset({"limit", "cursor", "order", "min_offset", "shard", TENANT})
"""Query parameters of every read, and the one column that nobody may choose."""
PAGE_ITEMS: Final = 100
ROWS_MAX: Final = 10_000
REFERENCE: Final = re.compile(
    r"\{(?:table:(?P<table>[a-z][a-z0-9_]*)|:(?P<parameter>[a-z][a-z0-9_]*)"
    r"|(?P<column>[a-z][a-z0-9_]*))\}"
)
"""``{table:NAME}``, which an alias follows, ``{:PARAMETER}``, ``{column}``."""
_PATH_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,30}")
_SYMBOLS: Final = re.compile(r"[-\sa-zA-Z0-9_(),.=<>+*]*")
_WORD: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_ALIAS: Final = re.compile(r"(?:\)\s+|\bAS\s+)([a-z][a-z0-9]*)\b")
_SOURCE: Final = re.compile(r"\b(?:FROM|JOIN)\s+(?!\()")
KEYWORDS: Final = frozenset(
    {
        "ALL", "AND", "AS", "ASC", "BETWEEN", "BY", "CASE", "COALESCE", "COUNT", "DESC",
        "DISTINCT", "ELSE", "END", "EXISTS", "FROM", "GROUP", "HAVING", "IN", "IS", "JOIN", "LEFT",
        "LIMIT", "MAX", "MIN", "NOT", "NULL", "ON", "OR", "ORDER", "SELECT", "SUM", "THEN",
        "UNION", "WHEN", "WHERE",
    }
)  # fmt: skip
"""The words of declared SQL.  Every other word is an alias that the text itself introduces; an
alias has no underscore, and every table of a projection has one: none can be named but by
reference."""

Values = Mapping[str, Value]
Record = Mapping[str, Any]
"""One row by column name, in the Python types of `ColumnType`."""


class Operator(enum.StrEnum):
    """How a filter compares; after the column in a request: ``amount.gte=100``."""

    EQ = "eq"
    """Also without a dot: ``asset=USD/2``."""
    IN = "in"
    """One of several, with commas between."""
    LT = "lt"
    LTE = "lte"
    GT = "gt"
    GTE = "gte"
    PREFIX = "prefix"
    """Text that begins with it."""


RANGE: Final = (Operator.EQ, Operator.LT, Operator.LTE, Operator.GT, Operator.GTE)


class Filter(msgspec.Struct, frozen=True):
    """A column that a request may narrow."""

    column: str
    operators: tuple[Operator, ...] = (Operator.EQ,)


class Order(msgspec.Struct, frozen=True):
    """An order that a list can be read in; ``order=NAME`` chooses it."""

    name: str
    columns: tuple[str, ...]
    descending: bool = False


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one table."""

    name: str
    """Unique among the domain's reads; in metrics, reports and the OpenAPI document."""
    path: str
    """Below ``/v1/sql/{domain}/``; ``{column}`` segments are equal to that column."""
    table: str
    shown: tuple[str, ...]
    """Columns of the answer, in order."""
    orders: tuple[Order, ...] = ()
    """The first is the default.  None: the path holds the whole key; the answer is one row."""
    filters: tuple[Filter, ...] = ()
    page_items: int = PAGE_ITEMS
    """Items per page unless ``limit`` says otherwise."""
    settled: bool = False
    """One row whose shown columns never change once it is there: master data.  It may be kept
    however far the tables move on."""
    summary: str = ""

    @property
    def one(self) -> bool:
        """Whether the answer is one row."""
        return not self.orders


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A typed value of a `Computed` read."""

    name: str
    type: ColumnType
    default: Value = None
    """None: it must be given, in the path or in the query string, unless it is `optional`."""
    optional: bool = False
    """May be absent; ``prepare`` then sees None and says what stands in for it."""
    choices: tuple[str, ...] = ()
    derived: bool = False
    """Made by ``prepare``; no request may give it."""
    length: int = 128
    summary: str = ""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One statement of a `Computed` read.  All of them see one moment."""

    name: str
    select: str
    """One SELECT: `KEYWORDS`, aliases, references; no literal text, no comments."""
    columns: tuple[Column, ...]
    """What it yields, in order; their types decode the rows."""
    required: bool = False
    """No row at all is 404 NOT_FOUND."""
    rows_max: int = ROWS_MAX
    """More rows: 413 TOO_LARGE."""
    when: tuple[str, str] | None = None
    """(parameter, value): only run when the prepared parameter has this value."""


Rowed = Mapping[str, Sequence[Record]]
"""Rows by part; parts that did not run are absent."""


def _as_given(values: Values) -> Values:
    return values


class Computed(msgspec.Struct, frozen=True, kw_only=True):
    """An answer made from SQL of the domain's own."""

    name: str
    path: str
    """Below ``/v1/sql/{domain}/``; ``{parameter}`` segments."""
    parameters: tuple[Parameter, ...]
    parts: tuple[Part, ...]
    result: Any
    """Type of the answer, for documents."""
    finish: Callable[[Rowed, Values], Any]
    """The answer.  Pure; raises `EngineError` only for what the request asks in vain."""
    prepare: Callable[[Values], Values] = _as_given
    """Gives derived parameters their values.  Pure; raises `Malformed` for contradictions."""
    summary: str = ""


@runtime_checkable
class Readable(Protocol):
    """A domain that can be asked through SQL; it has projections too."""

    @property
    def sql_reads(self) -> Sequence[Read | Computed]:
        """All of them."""


def path_names(path: str) -> tuple[str, ...]:
    """Names of the ``{…}`` segments of a path."""
    return tuple(part[1:-1] for part in path.split("/") if part.startswith("{"))


def shape_of(path: str) -> str:
    """A path without the names of its parameters: what two reads may not share."""
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))


def tables_of(projection: Projection) -> dict[str, Table]:
    """All tables of a projection by name, aggregates included."""
    aggregates: Sequence[Aggregate] = projection.aggregates
    return {table.name: table for table in (*projection.tables, *(one.table for one in aggregates))}


def check_reads(reads: Sequence[Read | Computed], projection: Projection) -> None:
    """Raises `InvariantBroken` for declarations that contradict themselves or the rules above."""
    tables = tables_of(projection)
    if len({read.name for read in reads}) != len(reads):
        raise InvariantBroken("reads have names of their own", projection=projection.name)
    if len({shape_of(read.path) for read in reads}) != len(reads):
        raise InvariantBroken("reads have paths of their own", projection=projection.name)
    for read in reads:
        if isinstance(read, Read):
            problem = _path_problem(read.path) or _read_problem(read, tables)
        else:
            problem = _path_problem(read.path) or _computed_problem(read, tables)
        if problem:
            raise InvariantBroken(problem, read=read.name)


def _path_problem(path: str) -> str:
    names = path_names(path)
    literal = [part for part in path.split("/") if not part.startswith("{")]
    if len(set(names)) != len(names):
        return "a path names each parameter once"
    if not all(_PATH_NAME.fullmatch(part) for part in literal):
        return "a path has segments of a-z, 0-9, - and {parameters}"
    return ""


def _read_problem(read: Read, tables: Mapping[str, Table]) -> str:
    table = tables.get(read.table)
    if table is None:
        return "a read has a table of its projection"
    in_path = path_names(read.path)
    used = {*in_path, *read.shown, *(one.column for one in read.filters)}
    used |= {column for order in read.orders for column in order.columns}
    if not used <= set(table.names) or TENANT in used:
        return "a read names columns of its table, and never the tenant"
    if not read.shown or len(set(read.shown)) != len(read.shown):
        return "a read shows columns, each once"
    key = set(table.key) - {TENANT}
    if read.one:
        if set(in_path) != key or read.filters:
            return "a read without order has the whole key in its path, and no filters"
        return ""
    if read.settled:
        return "only one row can be settled"
    if table.kind is TableKind.AGGREGATE:
        return "an aggregate is read by SQL of the domain's own"
    return _order_problem(read, table, in_path, key) or _filter_problem(read, table, in_path)


_UNORDERED: Final = frozenset(
    {ColumnType.JSON, ColumnType.BOOLEAN, ColumnType.AMOUNT, ColumnType.TOTAL}
)
"""Not every database sorts amounts of any size as numbers."""


def _order_problem(read: Read, table: Table, in_path: Sequence[str], key: set[str]) -> str:
    if len({order.name for order in read.orders}) != len(read.orders):
        return "orders have names of their own"
    for order in read.orders:
        columns = [table.column(name) for name in order.columns]
        if not columns or any(column.nullable or column.type in _UNORDERED for column in columns):
            return "a list is ordered by columns that are never null, and by no amounts"
        if not key <= {*in_path, *order.columns}:
            return "an order and the path hold the table's key"
    return ""


def _filter_problem(read: Read, table: Table, in_path: Sequence[str]) -> str:
    names = [one.column for one in read.filters]
    if len(set(names)) != len(names) or set(names) & {*in_path, *RESERVED}:
        return "a filter is there once, and not in the path or reserved"
    for one in read.filters:
        kind = table.column(one.column).type
        if not one.operators or kind is ColumnType.JSON:
            return "a filter has operators, and its column is no JSON"
        if Operator.PREFIX in one.operators and kind is not ColumnType.TEXT:
            return "a prefix is of a text"
        if kind in {ColumnType.BOOLEAN, ColumnType.BYTES} and one.operators != (Operator.EQ,):
            return "a truth or bytes are only compared as equal"
    return ""


def _computed_problem(read: Computed, tables: Mapping[str, Table]) -> str:
    given = {one.name: one for one in read.parameters}
    in_path = path_names(read.path)
    if len(given) != len(read.parameters) or set(given) & RESERVED:
        return "parameters have names of their own, none of them reserved"
    if not set(in_path) <= {one.name for one in read.parameters if not one.derived}:
        return "a path names parameters"
    if any(one.choices and one.type is not ColumnType.TEXT for one in read.parameters):
        return "choices are of a text"
    if not read.parts or len({part.name for part in read.parts}) != len(read.parts):
        return "parts have names of their own"
    return next(filter(None, (_part_problem(part, given, tables) for part in read.parts)), "")


def _part_problem(part: Part, given: Mapping[str, Parameter], tables: Mapping[str, Table]) -> str:
    text = part.select
    bare = REFERENCE.sub("()", text)
    if not text.startswith("SELECT ") or not _SYMBOLS.fullmatch(bare) or "--" in bare:
        return "a part is one SELECT of references, words, numbers, and comparisons"
    named = [found["table"] for found in REFERENCE.finditer(text) if found["table"]]
    if not named or not set(named) <= set(tables):
        return "a part reads tables of the projection"
    if not set(_WORD.findall(bare)) <= {*KEYWORDS, *MACROS, *_ALIAS.findall(bare)}:
        return "the words of a part are keywords in capitals and its own aliases"
    if _SOURCE.search(bare):
        return "a part reads tables by reference"
    used = {found["parameter"] for found in REFERENCE.finditer(text)} - {None}
    if not used <= set(given) or (part.when is not None and part.when[0] not in given):
        return "a part uses declared parameters"
    if not part.columns or part.rows_max < 1:
        return "a part yields columns and rows"
    return ""
