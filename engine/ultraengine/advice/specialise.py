"""Tables that would hold what computed reads sum up again and again.  Pure.

What a read sums is in its SQL (`model.reads.Part`): ``TOTAL(e.{amount})`` over
``{table:entry} e`` where ``e.{book} = {:book}``.  From that follows the declaration of a table
with one row per group and day:

* of a CURRENT table with a day in its key, an `Aggregate` that the worker computes;
* of an APPEND table, a CURRENT table with `Fold.SUM` columns, which ``project`` puts rows into.

It is printed to be pasted into the domain, never applied: the domain's version rises with it,
the read has to be written anew over it, and a person must know whether days are what is asked for.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ultraengine.advice.recorder import Report, ShapeReport
from ultraengine.advice.suggest import Evidence, Facts, LeftOut, evidence_of, rare, spelled
from ultraengine.advice.sums import COUNT, DAY, Special
from ultraengine.model.limits import AdviceLimits
from ultraengine.model.projection import ColumnType, Table, TableKind
from ultraengine.model.reads import TENANT, Computed, Part

_TABLE: Final = re.compile(r"\{table:(?P<table>[a-z0-9_]+)\} (?:AS )?(?P<alias>[a-z0-9]+)")
_SUM: Final = r"(?:TOTAL|SUM)\({alias}\.{{(?P<column>[a-z0-9_]+)}}\)"
_EQUAL: Final = r"{alias}\.{{(?P<column>[a-z0-9_]+)}} = \{{:"
_GROUP: Final = re.compile(r"GROUP BY (?P<columns>[^)]*?)(?: ORDER BY|\)|$)")
_MEMBER: Final = r"{alias}\.{{(?P<column>[a-z0-9_]+)}}"


class Specialised(msgspec.Struct, frozen=True):
    """A table to declare."""

    projection: str
    table: str
    """What it is made of."""
    evidence: Evidence
    rows: int
    """Of that table: at most so many are looked at for one answer."""
    declaration: str
    """Python to paste into the domain."""
    instruction: str
    """What else there is to do."""
    special: Special
    """The same for a trial on a copy."""


class Sums(msgspec.Struct, frozen=True):
    """What one part of a read sums up of one table."""

    table: str
    columns: tuple[str, ...]
    groups: tuple[str, ...]
    """Columns that are equal to a parameter or grouped by."""
    equal: tuple[str, ...] = ()
    """Those that are equal to a parameter."""


def sums_of(part: Part) -> tuple[Sums, ...]:
    """What a part sums up, by table; none when it sums nothing of a table's own columns."""
    text = part.select
    found = []
    for named in _TABLE.finditer(text):
        alias = named["alias"]
        columns = _named(_SUM, alias, text)
        if columns:
            grouped = " ".join(one["columns"] for one in _GROUP.finditer(text))
            equal = _named(_EQUAL, alias, text)
            groups = tuple(dict.fromkeys((*equal, *_named(_MEMBER, alias, grouped))))
            found.append(Sums(named["table"], columns, groups, equal))
    return tuple(found)


def _named(pattern: str, alias: str, text: str) -> tuple[str, ...]:
    found = re.finditer(pattern.format(alias=alias), text)
    return tuple(dict.fromkeys(one["column"] for one in found))


def specialise(
    report: Report,
    computed: Mapping[str, Computed],
    facts: Mapping[tuple[str, str], Facts],
    limits: AdviceLimits,
) -> tuple[tuple[Specialised, ...], tuple[LeftOut, ...]]:
    """Declarations for the computed reads of a report; `computed`: by ``domain.name``."""
    total = sum(shape.seconds for shape in report.shapes)
    found: dict[str, Specialised] = {}
    left_out = []
    for shape in report.shapes:
        if shape.table:
            continue
        evidence = evidence_of(shape, total)
        read = computed.get(shape.read)
        reason = rare(shape, evidence, limits.computed_slow_s_min, limits)
        if not reason and read is None:
            reason = "the read is not declared any more"
        made: list[Specialised] = []
        if not reason and read is not None:
            made = _of_read(shape, read, evidence, facts, limits)
            reason = "" if made else "no table by group and day follows from what it sums up"
        if reason:
            left_out.append(LeftOut(shape.read, spelled(shape), shape.order, reason))
        for one in made:
            found.setdefault(one.declaration, one)
    return tuple(found.values()), tuple(left_out)


def _of_read(
    shape: ShapeReport,
    read: Computed,
    evidence: Evidence,
    facts: Mapping[tuple[str, str], Facts],
    limits: AdviceLimits,
) -> list[Specialised]:
    made = []
    for sums in (one for part in read.parts for one in sums_of(part)):
        held = facts.get((shape.projection, sums.table))
        if held is None:
            continue
        if held.rows < limits.computed_rows_min * max(1.0, evidence.returned):
            continue
        declared = _declared(sums, held.table)
        if declared is not None:
            made.append(Specialised(shape.projection, sums.table, evidence, held.rows, *declared))
    return made


def _declared(sums: Sums, table: Table) -> tuple[str, str, Special] | None:
    """Declaration, instruction, what to try; None when the table is as coarse already."""
    groups = [name for name in dict.fromkeys((TENANT, *sums.groups)) if name in table.names]
    columns = [name for name in sums.columns if name in table.names]
    if not columns:
        return None
    name = "_".join([*(groups[1:] or [table.name]), DAY])[:24].rstrip("_")
    if table.kind is TableKind.CURRENT:
        day = next((one for one in table.key if table.column(one).type is ColumnType.DATE), None)
        if day is None or set(table.key) <= {*groups, day} or not set(groups) <= set(table.key):
            return None
        groups = [one for one in groups if one != day]
        return *_aggregate(name, groups, day, columns, table), _special(sums, groups, table, day)
    if table.kind is TableKind.APPEND:
        times = [one.name for one in table.columns if one.type is ColumnType.TIME]
        if not times:
            return None
        made = _folded(name, groups, columns, table, times[0])
        return *made, _special(sums, groups, table, times[0])
    return None


def _special(sums: Sums, groups: Sequence[str], table: Table, time: str) -> Special:
    equal = tuple(one for one in groups if one == TENANT or one in sums.equal)
    columns = tuple(one for one in sums.columns if one in table.names)
    return Special(table, tuple(groups), equal, columns, time)


def _column(name: str, table: Table) -> str:
    return f"{table.name.upper()}.column({name!r})"


def _sum(name: str, extra: str = "") -> str:
    return f"Column(name={name!r}, type=ColumnType.TOTAL{extra})"


def _lines(members: Sequence[str], indent: int) -> str:
    return "".join(f"{' ' * indent}{one},\n" for one in members)


def _aggregate(
    name: str, groups: list[str], day: str, columns: list[str], table: Table
) -> tuple[str, str]:
    key = [*groups, day]
    listed = _lines([*(_column(one, table) for one in key), *(_sum(one) for one in columns)], 12)
    keyed = ", ".join(f"{{{one}}}" for one in key)
    summed = ", ".join(f"SUM({{{one}}})" for one in columns)
    declaration = (
        f"{name.upper()} = Aggregate(\n"
        f"    table=Table(\n"
        f"        name={name!r},\n"
        f"        kind=TableKind.AGGREGATE,\n"
        f"        key={tuple(key)!r},\n"
        f"        columns=(\n{listed}        ),\n"
        f"    ),\n"
        f"    source={table.name!r},\n"
        f"    slice_column={day!r},\n"
        f'    select="SELECT {keyed}, {summed} FROM {{table:{table.name}}} WHERE {{slice}} '
        f'GROUP BY {keyed}",\n'
        f")\n"
    )
    return declaration, (
        "Add it to the projection's aggregates, raise the projection's version, and let the read "
        "sum its rows instead."
    )


def _folded(
    name: str, groups: list[str], columns: list[str], table: Table, time: str
) -> tuple[str, str]:
    key = [*groups, DAY]
    keyed = [
        *(_column(one, table) for one in groups),
        f"Column(name={DAY!r}, type=ColumnType.DATE)",
    ]
    summed = [*(_sum(one, ", fold=Fold.SUM") for one in columns),
              f"Column(name={COUNT!r}, type=ColumnType.INTEGER, fold=Fold.SUM)"]  # fmt: skip
    declaration = (
        f"{name.upper()} = Table(\n"
        f"    name={name!r},\n"
        f"    kind=TableKind.CURRENT,\n"
        f"    key={tuple(key)!r},\n"
        f"    columns=(\n{_lines([*keyed, *summed], 8)}    ),\n"
        f")\n"
    )
    values = ", ".join([*groups, f"{time} // DAY_US", *columns, "1"])
    return declaration, (
        f"Add it to the projection's tables, raise the projection's version, and where project() "
        f"appends to {table.name!r} also: rows.put({name!r}, ({values})). Take another time than "
        f"{time} if the read asks by it; then let it sum these rows for whole days."
    )
