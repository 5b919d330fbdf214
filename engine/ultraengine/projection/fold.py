"""Folds the rows of many events into one batch: what a target writes in one transaction.

Appended rows stay as they are.  Of a current row only the last state counts, so a batch writes
each key once however often it changed.  Pure; order of keys is that of their first change.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.projection import Fold, Key, Row, Table, TableKind, Value

Combine = Callable[[Any, Any], Any]
Change = Callable[[Key, Sequence[Value]], None]


def _last(old: Any, new: Any) -> Any:  # noqa: ARG001  (one shape for all folds)
    return new


COMBINE: Final[Mapping[Fold, Combine]] = {
    Fold.LAST: _last,
    Fold.SUM: operator.add,
    Fold.MIN: min,
    Fold.MAX: max,
}


class CurrentRows:
    """The rows of one CURRENT table in a batch, folded."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.put: dict[Key, list[Any]] = {}
        """Whole rows by key: to be merged by the folds of the columns."""
        self.changed: dict[Key, dict[int, Any]] = {}
        """Columns, by position, of rows that the target has: to be merged by the same folds."""
        self._width = len(table.key)
        self._columns = len(table.columns)
        self._names = {name: position for position, name in enumerate(table.names)}
        self._folds = [
            (position, COMBINE[column.fold])
            for position, column in enumerate(table.columns)
            if column.fold is not Fold.LAST
        ]
        """Only what is not simply replaced: most columns are."""
        self._replaced = [
            position
            for position, column in enumerate(table.columns)
            if column.fold is Fold.LAST and position >= self._width
        ]
        self._changers: dict[tuple[str, ...], Change] = {}

    def take(self, row: Row) -> None:
        """Fold a whole row."""
        if len(row) != self._columns:
            raise _wrong_width(self.table, row)
        key = row[: self._width]
        old = self.put.get(key)
        if old is not None:
            for position, combine in self._folds:
                old[position] = combine(old[position], row[position])
            for position in self._replaced:
                old[position] = row[position]
            return
        self.put[key] = new = list(row)
        if self.changed:
            # What was said of the row before applies to what the target holds: only folds
            # that keep it (a sum, a highest value) still matter.
            changed = self.changed.pop(key, {})
            for position, combine in self._folds:
                if position in changed:
                    new[position] = combine(changed[position], new[position])

    def slices(self, column: str) -> set[Any]:
        """What a column of the key says in the rows of the batch."""
        place = self.table.key.index(column)
        return {key[place] for keys in (self.put, self.changed) for key in keys}

    def changer(self, names: tuple[str, ...]) -> Change:
        """Folds values of these columns into a row.  Raises KeyError for an unknown column."""
        found = self._changers.get(names)
        if found is None:
            found = self._changers[names] = self._make_changer(names)
        return found

    def _make_changer(self, names: tuple[str, ...]) -> Change:
        positions = [self._names[name] for name in names]
        folds = [fold for fold in self._folds if fold[0] in positions]
        return self._folding(positions, folds) if folds else self._replacing(positions)

    def _replacing(self, positions: list[int]) -> Change:
        """The common case: the new values are the values."""
        put, changed = self.put, self.changed

        def change(key: Key, values: Sequence[Value]) -> None:
            pairs = zip(positions, values, strict=True)
            row = put.get(key) if put else None
            if row is not None:
                for position, value in pairs:
                    row[position] = value
                return
            old = changed.get(key)
            if old is None:
                changed[key] = dict(pairs)
            else:
                old.update(pairs)

        return change

    def _folding(self, positions: list[int], folds: list[tuple[int, Combine]]) -> Change:
        put, changed = self.put, self.changed

        def change(key: Key, values: Sequence[Value]) -> None:
            new = dict(zip(positions, values, strict=True))
            row = put.get(key)
            if row is not None:
                for position, combine in folds:
                    new[position] = combine(row[position], new[position])
                for position, value in new.items():
                    row[position] = value
                return
            old = changed.setdefault(key, {})
            for position, combine in folds:
                if position in old:
                    new[position] = combine(old[position], new[position])
            old.update(new)

        return change


class TakenRows:
    """Rows put into a rollup, as they came: by assets and moments there are few, by keys many."""

    def __init__(self, table: Table) -> None:
        """`table` is the rollup in the shape in which rows are put (`Table.taken`)."""
        self.table = table
        self.rows: list[Row] = []
        self._columns = len(table.columns)

    def take(self, row: Row) -> None:
        """Keep a whole row."""
        if len(row) != self._columns:
            raise _wrong_width(self.table, row)
        self.rows.append(row)


class Batch:
    """The rows of consecutive events: a `model.projection.Rows`."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self.appended: dict[str, list[Row]] = {
            table.name: [] for table in tables if table.kind is TableKind.APPEND
        }
        """By table, in the order of the log."""
        self.current: dict[str, CurrentRows] = {
            table.name: CurrentRows(table) for table in tables if table.kind is TableKind.CURRENT
        }
        """As targets write them.  Those of a rollup are there once `rollups.roll_up` has run."""
        self.taken: dict[str, TakenRows] = {
            table.name: TakenRows(table.taken) for table in tables if table.rollup
        }
        """What was put into rollups."""
        self._takers = {name: rows.take for name, rows in self.current.items()}
        self._takers.update((name, rows.take) for name, rows in self.taken.items())

    def append(self, table: str, row: Row) -> None:
        """A row of an APPEND table.  Targets check its width when they write it."""
        self.appended[table].append(row)

    def appender(self, table: str) -> Callable[[Row], None]:
        """``append`` for one table."""
        return self.appended[table].append

    def put(self, table: str, row: Row) -> None:
        """A whole row of a CURRENT table.  Raises `InvariantBroken` for another width."""
        self._takers[table](row)

    def putter(self, table: str) -> Callable[[Row], None]:
        """``put`` for one table."""
        return self._takers[table]

    def change(self, table: str, key: Key, values: Mapping[str, Value]) -> None:
        """Some columns of a row of a CURRENT table.  Raises KeyError for an unknown column."""
        self.current[table].changer(tuple(values))(key, tuple(values.values()))

    def changer(self, table: str, columns: tuple[str, ...]) -> Change:
        """``change`` for one table and these columns."""
        return self.current[table].changer(columns)

    @property
    def row_count(self) -> int:
        """Rows that a target will write."""
        return sum(map(len, self.appended.values())) + sum(
            len(rows.put) + len(rows.changed) for rows in self.current.values()
        )


def _wrong_width(table: Table, row: Row) -> InvariantBroken:
    return InvariantBroken(
        "a row has one value per column", table=table.name, values=len(row), columns=table.names
    )
