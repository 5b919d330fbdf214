"""From recorded query shapes to indexes and tables that might help.  Pure; nothing is tried here.

A shape asks for rows whose columns E equal a value (the tenant, what the path names, ``eq``
filters), maybe within bounds of others, in some order.  An index helps that has

    E, the tenant first        then the columns of the order, or one column that has bounds

since behind equal columns the rows stand in the order of what follows.  Both endings are
candidates where a shape has both: which of them is better is a question to the data (`trial`).
Every candidate stands for the shapes it serves; one that is the beginning of another is that.

Left out, with the reason: what a key or an index serves already, rare and fast shapes, small
tables, and rows of an index that a database could refuse, for that would stop the projection.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from ultraengine.advice.recorder import Report, ShapeReport
from ultraengine.model.limits import AdviceLimits
from ultraengine.model.projection import Column, ColumnType, Table
from ultraengine.model.reads import TENANT

DESCENDING: Final = " desc"
_EQUAL: Final = "eq"
_TEXT_BYTES: Final = 4
"""Of a character, at most."""
_PLAIN_BYTES: Final = 32
"""Of any other value; an amount of 57 digits is 27."""
NAME_BYTES: Final = 5
Place = tuple[str, str]
"""(projection, table)."""


class Facts(msgspec.Struct, frozen=True):
    """A table as the database holds it."""

    table: Table
    rows: int
    indexes: tuple[tuple[str, ...], ...]
    """Columns of its primary key and of each index, as they are there."""


class Demand(msgspec.Struct, frozen=True):
    """What an index must begin with to serve a shape."""

    equal: tuple[str, ...]
    """In any order; the tenant is the first."""
    tail: tuple[str, ...]
    """Behind them, in this order."""

    def is_met_by(self, columns: Sequence[str]) -> bool:
        """Whether an index over these columns serves it."""
        count = len(self.equal)
        behind = tuple(columns[count : count + len(self.tail)])
        return set(columns[:count]) == set(self.equal) and behind == self.tail


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Why a shape is worth a thought."""

    read: str
    filters: tuple[str, ...]
    """``column`` or ``column.operator``."""
    order: tuple[str, ...]
    calls: int
    """Answered by the database."""
    share: float
    """Of all time that was recorded."""
    seconds: float
    seconds_p50: float
    seconds_p95: float
    returned: float
    """Rows of an answer, on average."""


class Candidate(msgspec.Struct, frozen=True):
    """An index to try."""

    projection: str
    table: str
    columns: tuple[str, ...]
    shapes: tuple[ShapeReport, ...]
    """What it serves, the dearest first."""
    evidence: tuple[Evidence, ...]
    """Of each shape."""

    @property
    def name(self) -> str:
        """The same for the same columns of the same table."""
        whole = f"{self.projection}.{self.table}({','.join(self.columns)})"
        return f"advised_{blake2b(whole.encode(), digest_size=NAME_BYTES).hexdigest()}"

    @property
    def seconds(self) -> float:
        """Recorded time of its shapes."""
        return sum(one.seconds for one in self.shapes)


class LeftOut(msgspec.Struct, frozen=True):
    """A shape without a suggestion."""

    read: str
    filters: tuple[str, ...]
    order: tuple[str, ...]
    reason: str


class Suggestions(msgspec.Struct, frozen=True):
    """What a report gives rise to."""

    candidates: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...]


def spelled(shape: ShapeReport) -> tuple[str, ...]:
    """The filters of a shape as a request writes them."""
    return tuple(
        one.column if one.operator in {_EQUAL, ""} else f"{one.column}.{one.operator}"
        for one in shape.filters
    )


def same_as(shape: ShapeReport) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """What tells a shape from others."""
    return shape.read, spelled(shape), shape.order


def answered(shape: ShapeReport) -> int:
    """Calls that the database has answered."""
    return shape.calls - shape.cached - shape.failed


def evidence_of(shape: ShapeReport, seconds: float) -> Evidence:
    """The figures of a shape; `seconds` is the time of all."""
    calls = max(1, answered(shape))
    return Evidence(
        read=shape.read,
        filters=spelled(shape),
        order=shape.order,
        calls=answered(shape),
        share=round(shape.seconds / seconds, 4) if seconds else 0.0,
        seconds=shape.seconds,
        seconds_p50=shape.seconds_p50,
        seconds_p95=shape.seconds_p95,
        returned=round(shape.rows / calls, 1),
    )


def rare(shape: ShapeReport, evidence: Evidence, slow_s_min: float, limits: AdviceLimits) -> str:
    """Why a shape is not worth the trouble; empty when it is."""
    if evidence.calls < limits.calls_min:
        return f"{evidence.calls} calls are less than calls_min ({limits.calls_min})"
    if evidence.share < limits.share_min:
        return f"{evidence.share:.2%} of the time is less than share_min ({limits.share_min:.2%})"
    if shape.seconds_p95 < slow_s_min:
        return f"95 % took less than {shape.seconds_p95 * 1e3:g} ms: it is fast enough"
    return ""


def demands_of(shape: ShapeReport, table: Table) -> tuple[Demand, ...]:
    """What indexes could begin with to serve a shape; none when its key finds the row."""
    fixed = [one.column for one in shape.filters if one.operator == _EQUAL]
    equal = tuple(dict.fromkeys([TENANT, *shape.fixed, *sorted(fixed)]))
    if set(table.key) <= set(equal):
        return ()
    order = tuple(
        name for name in (one.removesuffix(DESCENDING) for one in shape.order) if name not in equal
    )
    bounded = dict.fromkeys(one.column for one in shape.filters if one.operator != _EQUAL)
    tails = [order] if order else []
    tails += [(name,) for name in bounded if name not in equal and name not in order[:1]]
    return tuple(Demand(equal, tail) for tail in tails or [()])


def bytes_of(columns: Iterable[Column]) -> int:
    """The longest row of an index over them."""
    return sum(
        _TEXT_BYTES * one.length if one.type is ColumnType.TEXT
        else one.length if one.type is ColumnType.BYTES
        else _PLAIN_BYTES
        for one in columns
    )  # fmt: skip


def narrowed(demand: Demand, table: Table, limits: AdviceLimits) -> Demand | None:
    """The demand with as much of its order as an index may hold; None when that is nothing."""
    tail = demand.tail
    while True:
        columns = [table.column(name) for name in (*demand.equal, *tail)]
        if bytes_of(columns) <= limits.index_bytes_max:
            return Demand(demand.equal, tail)
        if len(tail) <= 1:
            return None
        tail = tail[:-1]


def suggest(report: Report, facts: Mapping[Place, Facts], limits: AdviceLimits) -> Suggestions:
    """Indexes for the shapes of lists; computed reads are the matter of `specialise`."""
    total = sum(shape.seconds for shape in report.shapes)
    left_out: list[LeftOut] = []
    wanted: dict[Place, list[tuple[Demand, ShapeReport]]] = {}
    for shape in report.shapes:
        if not shape.table:
            continue
        place = (shape.projection, shape.table)
        demands, reason = _demands(shape, facts.get(place), total, limits)
        if reason:
            left_out.append(LeftOut(shape.read, spelled(shape), shape.order, reason))
        if demands:
            wanted.setdefault(place, []).extend((demand, shape) for demand in demands)
    found = [
        _candidate(place, columns, shapes, total)
        for place, demanded in wanted.items()
        for columns, shapes in _merged(demanded, facts[place].table)
    ]
    found.sort(key=lambda one: (-one.seconds, one.projection, one.table, one.columns))
    for one in found[limits.candidates_max :]:
        reason = f"candidates_max ({limits.candidates_max}) others are for dearer shapes"
        left_out += [
            LeftOut(shape.read, spelled(shape), shape.order, reason) for shape in one.shapes
        ]
    return Suggestions(tuple(found[: limits.candidates_max]), tuple(left_out))


def _demands(
    shape: ShapeReport, facts: Facts | None, total: float, limits: AdviceLimits
) -> tuple[tuple[Demand, ...], str]:
    """What an index would have to serve, or why there is nothing to be done."""
    reason = rare(shape, evidence_of(shape, total), limits.slow_s_min, limits)
    if reason:
        return (), reason
    if facts is None or not _columns(shape) <= set(facts.table.names):
        return (), "the table, or a column of it, is not declared any more"
    if facts.rows < limits.table_rows_min:
        return (), f"{facts.rows} rows are less than table_rows_min ({limits.table_rows_min})"
    demands = demands_of(shape, facts.table)
    if not demands:
        return (), "the key finds the row"
    held = [one for one in demands if not any(map(one.is_met_by, facts.indexes))]
    if not held:
        return (), "an index serves it already"
    fitting = [narrowed(one, facts.table, limits) for one in held]
    kept = tuple(
        one for one in fitting if one is not None and not any(map(one.is_met_by, facts.indexes))
    )
    reason = f"rows of the index could be longer than index_bytes_max ({limits.index_bytes_max})"
    return kept, "" if kept else reason


def _columns(shape: ShapeReport) -> set[str]:
    ordered = (one.removesuffix(DESCENDING) for one in shape.order)
    return {*shape.fixed, *(one.column for one in shape.filters), *ordered}


def _merged(
    demanded: Sequence[tuple[Demand, ShapeReport]], table: Table
) -> list[tuple[tuple[str, ...], list[ShapeReport]]]:
    """Columns of as few indexes as serve all demands, each with its shapes."""
    used = [name for demand, _ in demanded for name in demand.equal]
    # What most shapes fix stands first, so that more of them share a beginning.
    often = {name: -used.count(name) for name in used}
    longest = sorted(
        demanded, key=lambda one: (-len(one[0].equal) - len(one[0].tail), -one[1].seconds)
    )
    made: list[tuple[tuple[str, ...], list[tuple[Demand, ShapeReport]]]] = []
    for demand, shape in longest:
        same = next((served for columns, served in made if demand.is_met_by(columns)), None)
        if same is None:
            equal = sorted(
                demand.equal[1:], key=lambda name: (often[name], table.names.index(name))
            )
            same = []
            made.append(((demand.equal[0], *equal, *demand.tail), same))
        same.append((demand, shape))
    return [
        (columns, sorted((shape for _, shape in served), key=lambda one: -one.seconds))
        for columns, served in made
    ]


def _candidate(
    place: Place, columns: tuple[str, ...], shapes: Sequence[ShapeReport], total: float
) -> Candidate:
    evidence = tuple(evidence_of(one, total) for one in shapes)
    return Candidate(*place, columns, tuple(shapes), evidence)
