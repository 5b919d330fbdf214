"""From a checked query to statements: text and values, side by side.

**The tenant is enforced here and nowhere else.**  A `Scope` belongs to one tenant, and its
`table` is the only function of the package that writes the name of a table; it writes it as

    (SELECT "book", "account", … FROM "ledger_account__v1_b1" WHERE "tenant" = ?)

so whatever stands around it sees this tenant's rows alone.  Declared SQL can name no table but
through it (`model.reads.check_reads`).
Databases merge such a derived table into the statement around it; their indexes are used.

Values never enter the text: `Scope.value` keeps each for the driver and writes its place.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.exact import expanded
from ultraengine.model.ids import Instant
from ultraengine.model.projection import Column, ColumnType, Value
from ultraengine.model.reads import (
    REFERENCE,
    TENANT,
    Computed,
    Operator,
    Part,
    Read,
    Values,
)
from ultraengine.projection.target import physical
from ultraengine.query.dialect import ReadDialect
from ultraengine.query.plan import Asked, Condition
from ultraengine.query.positions import Position
from ultraengine.query.routes import Route

TEXT_END: Final = 0x10FFFF
Kinds = Mapping[str, ColumnType]
_SURROGATES: Final = range(0xD800, 0xE000)
_SIGNS: Final = {
    Operator.EQ: "=",
    Operator.LT: "<",
    Operator.LTE: "<=",
    Operator.GT: ">",
    Operator.GTE: ">=",
}


class Moment(msgspec.Struct, frozen=True):
    """What a snapshot of the database shows of one projection."""

    version: int
    build: int
    position: Position
    time: Instant = Instant(0)
    """Stamped time of the newest group in the tables, 0 without one."""
    pending: Mapping[str, tuple[int, ...]] = {}
    """By aggregate: slices (days) that it does not yet say as its source does."""

    @property
    def suffix(self) -> str:
        """What the set's physical names end with."""
        return f"v{self.version}_b{self.build}"


class Statement(msgspec.Struct, frozen=True):
    """What a reader runs."""

    name: str
    """Of the part."""
    text: str
    values: tuple[Any, ...]
    """As the driver takes them, in the order of their places."""
    columns: tuple[Column, ...]
    """What each row holds."""
    rows_max: int
    """It yields at most one row more, which tells that there are more."""
    required: bool = False
    """Without a row the others need not run."""


class Scope:
    """Writes one statement of one tenant."""

    def __init__(self, route: Route, tenant: str, moment: Moment, dialect: ReadDialect) -> None:
        if not tenant:
            raise InvariantBroken("a statement belongs to a tenant", read=route.name)
        self._route = route
        self._tenant = tenant
        self._moment = moment
        self._dialect = dialect
        self._values: list[Any] = []
        self._tables = 0

    def value(self, value: Value, kind: ColumnType) -> str:
        """Keep a value; returns its place.  Called in the order of the text."""
        self._values.append(self._dialect.bind(value, kind))
        return self._dialect.parameter(len(self._values), kind)

    def names(self, columns: Sequence[str]) -> str:
        """A list of columns."""
        return ", ".join(map(self._dialect.quote, columns))

    def table(self, name: str) -> str:
        """This tenant's rows of a table, as a derived table: an alias must follow.

        An aggregate is read with the slices that it does not yet say made anew from its source.
        """
        table = self._route.tables[name]
        quote = self._dialect.quote
        source = quote(physical(self._route.projection.name, name, self._moment.suffix))
        text = (
            f"SELECT {self.names(table.names)} FROM {source}"
            f" WHERE {quote(TENANT)} = {self.value(self._tenant, ColumnType.TEXT)}"
        )
        self._tables += 1
        aggregate = self._route.aggregates.get(name)
        pending = self._moment.pending.get(name, ())
        if aggregate is not None and pending:
            column = quote(aggregate.slice_column)
            text += f" AND {column} NOT IN ({self._slices(pending)}) UNION ALL "
            select = self._dialect.aggregate_select(aggregate)
            before, _, after = select.partition("{slice}")
            text += self.resolved(before)
            text += f"{column} IN ({self._slices(pending)})"
            text += self.resolved(after)
        return f"({text})"

    def _slices(self, pending: Sequence[int]) -> str:
        return ", ".join(self.value(one, ColumnType.DATE) for one in pending)

    def resolved(self, text: str, values: Values = {}, kinds: Kinds = {}) -> str:  # noqa: B006
        """Declared SQL with its references written out, from left to right."""

        def write(found: re.Match[str]) -> str:
            if found["table"]:
                return self.table(found["table"])
            name = found["parameter"]
            return (
                self.value(values[name], kinds[name])
                if name
                else self._dialect.quote(found[0][1:-1])
            )

        return REFERENCE.sub(write, text)

    def statement(
        self, name: str, text: str, columns: Sequence[Column], rows_max: int
    ) -> Statement:
        """The statement.  Raises `InvariantBroken` when it reads no table of the tenant."""
        if not self._tables:
            raise InvariantBroken("a statement reads the tables of its tenant", part=name)
        return Statement(name, text, tuple(self._values), tuple(columns), rows_max)


def statements(asked: Asked, moment: Moment, dialect: ReadDialect) -> list[Statement]:
    """All statements of a query; they are to be run on one snapshot, that of `moment`."""
    read = asked.route.read
    if isinstance(read, Read):
        return [_rows(asked, read, moment, dialect)]
    return [_part(asked, read, part, moment, dialect) for part in asked.parts]


def _part(
    asked: Asked, read: Computed, part: Part, moment: Moment, dialect: ReadDialect
) -> Statement:
    scope = Scope(asked.route, asked.tenant, moment, dialect)
    kinds = {one.name: one.type for one in read.parameters}
    text = scope.resolved(expanded(part.select, dialect), asked.values, kinds)
    text = f"{text} LIMIT {part.rows_max + 1}"
    made = scope.statement(part.name, text, part.columns, part.rows_max)
    return msgspec.structs.replace(made, required=part.required)


def _rows(asked: Asked, read: Read, moment: Moment, dialect: ReadDialect) -> Statement:
    scope = Scope(asked.route, asked.tenant, moment, dialect)
    table = asked.route.tables[read.table]
    order = asked.order
    needed = [*read.shown, *(() if order is None else order.columns)]
    columns = [table.column(name) for name in dict.fromkeys(needed)]
    text = f"SELECT {scope.names([one.name for one in columns])} FROM {scope.table(read.table)} t"
    conditions = [_condition(scope, one, dialect) for one in asked.conditions]
    if order is not None and asked.after is not None:
        by = [table.column(name) for name in order.columns]
        conditions.append(
            _after(scope, by, asked.after, ">" if not order.descending else "<", dialect)
        )
    conditions = [one for one in conditions if one]
    if conditions:
        text += f" WHERE {' AND '.join(conditions)}"
    if order is not None:
        direction = " DESC" if order.descending else ""
        by_names = ", ".join(f"{dialect.quote(name)}{direction}" for name in order.columns)
        text += f" ORDER BY {by_names}"
    return scope.statement("rows", f"{text} LIMIT {asked.limit + 1}", columns, asked.limit)


def _condition(scope: Scope, one: Condition, dialect: ReadDialect) -> str:
    column, kind = dialect.quote(one.column.name), one.column.type
    if one.operator is Operator.IN:
        listed = ", ".join(scope.value(value, kind) for value in one.values)
        return f"{column} IN ({listed})"
    if one.operator is Operator.PREFIX:
        prefix = str(one.values[0])
        if not prefix:
            return f"{column} IS NOT NULL"
        text = f"{column} >= {scope.value(prefix, kind)}"
        end = prefix_end(prefix)
        return text if end is None else f"{text} AND {column} < {scope.value(end, kind)}"
    value = one.values[0]
    return dialect.compare(column, _SIGNS[one.operator], scope.value(value, kind), value, kind)


def prefix_end(prefix: str) -> str | None:
    """The first text, by code point, after all that begin with `prefix`; None without one."""
    for last in range(len(prefix) - 1, -1, -1):
        point = ord(prefix[last]) + 1
        if point in _SURROGATES:
            point = _SURROGATES.stop
        if point <= TEXT_END:
            return prefix[:last] + chr(point)
    return None


def _after(
    scope: Scope, by: Sequence[Column], place: Sequence[Value], sign: str, dialect: ReadDialect
) -> str:
    """Rows behind `place` in the order of `by`."""
    if dialect.row_values and len(by) > 1:
        names = scope.names([one.name for one in by])
        values = ", ".join(
            scope.value(value, one.type) for one, value in zip(by, place, strict=True)
        )
        return f"({names}) {sign} ({values})"
    column, kind = dialect.quote(by[0].name), by[0].type
    if len(by) == 1:
        return f"{column} {sign} {scope.value(place[0], kind)}"
    # The first comparison alone lets the index find the place; the rest decides among equals.
    return (
        f"{column} {sign}= {scope.value(place[0], kind)}"
        f" AND ({column} {sign} {scope.value(place[0], kind)}"
        f" OR {_after(scope, by[1:], place[1:], sign, dialect)})"
    )
