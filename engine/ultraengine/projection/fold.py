"""Folds the rows of many events into one batch: what a target writes in one transaction.

Appended rows stay as they are.  Of a current row only the last state counts, so a batch writes
each key once however often it changed.  Pure; order of keys is that of their first change.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.projection import Fold, Key, Row, Table, TableKind, Value

Combine = Callable[[Any, Any], Any]


def _last(old: Any, new: Any) -> Any:  # noqa: ARG001  (one shape for all folds)
    return new


def _sum(old: Any, new: Any) -> Any:
    return old + new


COMBINE: Final[Mapping[Fold, Combine]] = {
    Fold.LAST: _last,
    Fold.SUM: _sum,
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
        self._names = {name: position for position, name in enumerate(table.names)}
        self._combine = [COMBINE[column.fold] for column in table.columns]

    def take(self, row: Row) -> None:
        """Fold a whole row."""
        if len(row) != len(self._combine):
            raise _wrong_width(self.table, row)
        key = row[: self._width]
        old = self.put.get(key)
        if old is None:
            changed = self.changed.pop(key, None)
            new = list(row)
            if changed is not None:
                # What was said of the row before applies to what the target holds: only folds
                # that keep it (a sum, a highest value) still matter.
                for position, value in changed.items():
                    new[position] = self._combine[position](value, new[position])
            self.put[key] = new
            return
        for position in range(self._width, len(row)):
            old[position] = self._combine[position](old[position], row[position])

    def change(self, key: Key, values: Mapping[str, Value]) -> None:
        """Fold some columns of a row."""
        row = self.put.get(key)
        if row is not None:
            for name, value in values.items():
                position = self._names[name]
                row[position] = self._combine[position](row[position], value)
            return
        changed = self.changed.setdefault(key, {})
        for name, value in values.items():
            position = self._names[name]
            changed[position] = (
                self._combine[position](changed[position], value) if position in changed else value
            )


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

    def append(self, table: str, row: Row) -> None:
        """A row of an APPEND table.  Targets check its width when they write it."""
        self.appended[table].append(row)

    def appender(self, table: str) -> Callable[[Row], None]:
        """``append`` for one table."""
        return self.appended[table].append

    def put(self, table: str, row: Row) -> None:
        """A whole row of a CURRENT table.  Raises `InvariantBroken` for another width."""
        self.current[table].take(row)

    def change(self, table: str, key: Key, values: Mapping[str, Value]) -> None:
        """Some columns of a row of a CURRENT table.  Raises KeyError for an unknown column."""
        self.current[table].change(key, values)

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
