"""Sums by what another row says: a batch's rows by account become rows by asset and span.

    put by account and moment -> `unknown`: whose asset must be asked for -> `roll_up` -> written

A target asks its own tables for what the batch itself does not say.  What a rollup looks up never
changes, so a target may remember what it was told of *committed* rows (`LookedUp`).  Pure.
"""

from collections.abc import Iterable, Mapping
from operator import add
from typing import Any, Final

from ultraengine.model.projection import Key, Rollup, Table
from ultraengine.projection.fold import Batch, CurrentRows
from ultraengine.projection.target import RowRefused

MICROSECONDS: Final = 1_000_000
REMEMBERED_MAX: Final = 200_000
"""Values that a target remembers of what it has looked up; more of them, and it begins anew."""

Values = Mapping[Key, Any]
"""What a column of a source says, by the source's key."""


class LookedUp:
    """What a target was told, by the physical name of the source and the column."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], dict[Key, Any]] = {}
        self._count = 0

    def of(self, name: str, column: str) -> dict[Key, Any]:
        """All that is remembered of a column."""
        return self._held.get((name, column), {})

    def remember(self, name: str, column: str, values: Values) -> None:
        """Of committed rows only."""
        if self._count + len(values) > REMEMBERED_MAX:
            self.forget()
        self._held.setdefault((name, column), {}).update(values)
        self._count += len(values)

    def forget(self) -> None:
        """Everything: a set of this name may come again with other rows."""
        self._held = {}  # Who has got some of it goes on with that.
        self._count = 0


def rolled(tables: Iterable[Table], batch: Batch) -> list[tuple[Table, Rollup]]:
    """The tables of a batch that have rows to roll up."""
    return [
        (table, table.rollup)
        for table in tables
        if table.rollup is not None and batch.taken[table.name].rows
    ]


def unknown(rollup: Rollup, table: Table, batch: Batch, known: Values) -> list[Key]:
    """Keys of the source of which neither the batch nor `known` says the column."""
    own, width = batch.current[rollup.source.name].put, len(rollup.source.key)
    keys = dict.fromkeys([row[:width] for row in batch.taken[table.name].rows])
    if keys.keys() <= known.keys():
        return []
    return [key for key in keys if key not in own and key not in known]


def roll_up(rollup: Rollup, table: Table, batch: Batch, known: Values) -> None:
    """Fill the rows that are written.  Idempotent; raises `RowRefused` for a source that is not
    there."""
    own, width = batch.current[rollup.source.name].put, len(rollup.source.key)
    shared, place = width - 1, rollup.source.names.index(rollup.column)
    moments: dict[Key, list[Any]] = {}
    for row in batch.taken[table.name].rows:
        value = known.get(key := row[:width])
        if value is None:
            source = own.get(key)
            if source is None:
                raise RowRefused(f"{table.name}: {rollup.source.name} has no row {key}")
            value = source[place]
        held = moments.get(moment := (*row[:shared], row[width], value))
        if held is None:
            moments[moment] = list(row[width + 1 :])
        else:
            held[:] = map(add, held, row[width + 1 :])
    written = CurrentRows(table)
    for (*head, at, value), sums in moments.items():
        for span in rollup.spans_s:
            written.take((*head, span, start_of(at, span), value, *sums))
    batch.current[table.name] = written


def start_of(moment: int, span_s: int) -> int:
    """First microsecond of the span that holds a moment; with spans of nothing, the moment."""
    span = span_s * MICROSECONDS
    return moment - moment % span if span else moment
