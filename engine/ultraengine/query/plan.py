"""From path and query string to a checked query: what may be asked, and nothing else.

    asset=USD/2               equal                booked_at.gte=2026-11-20
    code.in=a,b               one of these         reference.prefix=INV-
    order=booked  limit=50    cursor=…             min_offset=41  shard=0

A value is only ever a value: it is read by the column's type and travels beside the statement
(`sql.py`), so what looks like SQL in it is text.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ultraengine.model.errors import EngineError, Malformed
from ultraengine.model.limits import Limits
from ultraengine.model.projection import Column, Table, Value
from ultraengine.model.reads import (
    Computed,
    Filter,
    Operator,
    Order,
    Parameter,
    Part,
    Read,
    path_names,
)
from ultraengine.query.cursor import Cursors
from ultraengine.query.positions import NOTHING, Wanted, read_wanted
from ultraengine.query.routes import Match, Route
from ultraengine.query.values import read_value

_WAIT: Final = ("min_offset", "shard")
_PAGE: Final = ("limit", "cursor", "order")


class Condition(msgspec.Struct, frozen=True):
    """One comparison of a column."""

    column: Column
    operator: Operator
    values: tuple[Value, ...]
    """One; more of `Operator.IN`."""


class Shape(msgspec.Struct, frozen=True):
    """A query without its values: what is recorded of it."""

    read: str
    filters: tuple[tuple[str, str], ...] = ()
    """(column, operator) of the filters used, sorted; of computed reads (parameter, "")."""
    order: str = ""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A checked query of one tenant."""

    route: Route
    tenant: str
    shape: Shape
    conditions: tuple[Condition, ...] = ()
    order: Order | None = None
    limit: int = 1
    after: tuple[Value, ...] | None = None
    """Order columns of the row before the page."""
    values: Mapping[str, Value] = {}
    """Prepared parameters of a `Computed` read."""
    wanted: Wanted = NOTHING

    @property
    def parts(self) -> list[Part]:
        """Of a `Computed` read, those that run for these values."""
        read = self.route.read
        if isinstance(read, Read):
            return []
        return [
            part
            for part in read.parts
            if part.when is None or self.values[part.when[0]] == part.when[1]
        ]

    @property
    def aggregates(self) -> list[str]:
        """What it reads of tables that are summed up later than they move."""
        return [
            name
            for name in self.route.aggregates
            if any(f"{{table:{name}}}" in part.select for part in self.parts)
        ]

    @property
    def key(self) -> tuple[Any, ...]:
        """What the answer depends on besides the tables: equal keys, equal answers."""
        return (
            self.tenant,
            self.route.name,
            tuple((one.column.name, one.operator.value, one.values) for one in self.conditions),
            "" if self.order is None else self.order.name,
            self.limit,
            self.after,
            tuple(sorted(self.values.items())),
        )


def context(asked: Asked) -> list[Any]:
    """What a cursor of this list is bound to."""
    assert asked.order is not None  # noqa: S101  (only lists have cursors)
    conditions = sorted(
        [one.column.name, one.operator.value, *map(str, one.values)] for one in asked.conditions
    )
    return [1, asked.route.name, asked.order.name, asked.tenant, conditions]


def plan(
    match: Match,
    tenant: str,
    query: Sequence[tuple[str, str]],
    offsets: Sequence[str],
    *,
    cursors: Cursors,
    limits: Limits,
) -> Asked:
    """Check a request; `offsets` are its ``Ultra-Offset`` headers.

    Raises `Malformed`, UNKNOWN_FILTER, BAD_CURSOR, and NOT_FOUND for an empty path segment.
    """
    given: dict[str, str] = {}
    for name, text in query:
        if name in given:
            raise Malformed(f"{name[:60]!r} is there twice", pointer=f"/query/{name[:60]}")
        given[name] = text
    if "" in match.path.values():
        raise EngineError("a part of the path is empty", code="NOT_FOUND")
    wanted = read_wanted(given.pop("min_offset", None), given.pop("shard", None), offsets)
    read = match.route.read
    if isinstance(read, Computed):
        return _computed(match, read, tenant, given, wanted)
    return _rows(match, read, tenant, given, wanted, cursors, limits)


# --- rows of a table -----------------------------------------------------------------------


def _rows(
    match: Match,
    read: Read,
    tenant: str,
    given: dict[str, str],
    wanted: Wanted,
    cursors: Cursors,
    limits: Limits,
) -> Asked:
    table = match.route.tables[read.table]
    in_path = [
        _condition(table.column(name), Operator.EQ, match.path[name], f"/path/{name}", limits)
        for name in path_names(read.path)
    ]
    if read.one:
        _refuse_unknown(given, (), _WAIT)
        return Asked(
            route=match.route,
            tenant=tenant,
            shape=Shape(match.route.name),
            conditions=tuple(in_path),
            wanted=wanted,
        )
    page = {name: given.pop(name, None) for name in _PAGE}
    filters = [_filter(read, table, name, text, limits) for name, text in sorted(given.items())]
    order = _order(read, page["order"])
    asked = Asked(
        route=match.route,
        tenant=tenant,
        shape=Shape(
            match.route.name,
            tuple(sorted((one.column.name, one.operator.value) for one in filters)),
            order.name,
        ),
        conditions=(*in_path, *filters),
        order=order,
        limit=_limit(read, page["limit"], limits),
        wanted=wanted,
    )
    if page["cursor"] is None:
        return asked
    return msgspec.structs.replace(asked, after=cursors.read(context(asked), page["cursor"]))


def _filter(read: Read, table: Table, name: str, text: str, limits: Limits) -> Condition:
    column, _, word = name.partition(".")
    operator = word or Operator.EQ.value
    allowed = next((one.operators for one in read.filters if one.column == column), ())
    if operator not in allowed or name.endswith("."):
        raise _unknown(name, [text for one in read.filters for text in _spelled(one)])
    pointer = f"/query/{name}"
    return _condition(table.column(column), Operator(operator), text, pointer, limits)


def _spelled(one: Filter) -> list[str]:
    return [
        one.column if operator is Operator.EQ else f"{one.column}.{operator.value}"
        for operator in one.operators
    ]


def _unknown(name: str, known: Sequence[str]) -> EngineError:
    listed = ", ".join([*known, *_PAGE, *_WAIT])
    return EngineError(
        f"no filter {name[:60]!r}; there are {listed}", code="UNKNOWN_FILTER", pointer="/query"
    )


def _refuse_unknown(given: Mapping[str, str], known: Sequence[str], more: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise EngineError(
                f"no parameter {name[:60]!r}; there are {', '.join([*known, *more])}",
                code="UNKNOWN_FILTER",
                pointer="/query",
            )


def _condition(
    column: Column, operator: Operator, text: str, pointer: str, limits: Limits
) -> Condition:
    texts = text.split(",") if operator is Operator.IN else [text]
    if len(texts) > limits.filter_values_max:
        raise Malformed(
            f"{len(texts)} values are more than filter_values_max ({limits.filter_values_max})",
            pointer=pointer,
        )
    values = tuple(read_value(one, column.type, column.length, pointer) for one in texts)
    return Condition(column, operator, values)


def _order(read: Read, name: str | None) -> Order:
    if name is None:
        return read.orders[0]
    for order in read.orders:
        if order.name == name:
            return order
    known = ", ".join(order.name for order in read.orders)
    raise Malformed(f"no order {name[:60]!r}; there are {known}", pointer="/query/order")


def _limit(read: Read, text: str | None, limits: Limits) -> int:
    if text is None:
        return min(read.page_items, limits.page_items_max)
    if text.isascii() and text.isdigit() and len(text) <= 9 and int(text) >= 1:
        if int(text) <= limits.page_items_max:
            return int(text)
        detail = f"{text} is more than page_items_max ({limits.page_items_max})"
    else:
        detail = f"a limit is 1 to {limits.page_items_max}"
    raise Malformed(detail, pointer="/query/limit")


# --- SQL of the domain's own ---------------------------------------------------------------


def _computed(
    match: Match, read: Computed, tenant: str, given: dict[str, str], wanted: Wanted
) -> Asked:
    settable = [one for one in read.parameters if not one.derived]
    in_path = path_names(read.path)
    _refuse_unknown(given, [one.name for one in settable if one.name not in in_path], _WAIT)
    texts = {**given, **match.path}
    values: dict[str, Value] = {}
    for one in settable:
        where = "path" if one.name in in_path else "query"
        text = texts.get(one.name)
        values[one.name] = one.default if text is None else _parameter(one, text, where)
        if values[one.name] is None and not one.optional:
            raise Malformed(f"{one.name!r} is needed", pointer=f"/query/{one.name}")
    prepared = read.prepare(values)
    return Asked(
        route=match.route,
        tenant=tenant,
        shape=Shape(match.route.name, tuple((name, "") for name in sorted(given))),
        values=prepared,
        wanted=wanted,
    )


def _parameter(one: Parameter, text: str, where: str) -> Value:
    pointer = f"/{where}/{one.name}"
    if one.choices and text not in one.choices:
        raise Malformed(f"{one.name} is one of {', '.join(one.choices)}", pointer=pointer)
    return read_value(text, one.type, one.length, pointer)
