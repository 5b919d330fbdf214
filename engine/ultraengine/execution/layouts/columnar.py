"""The columnar layout: many small rows of numbers, compact in memory, scanned by column.

A row type's ``int`` fields live in arrays of 64-bit integers and its ``float`` fields in
arrays of doubles (8 bytes each instead of an object); fields of any other type are lists of
objects.  A number that does not fit its array raises OverflowError and changes nothing; as
``evolve`` may not fail, ``decide`` has to keep sums within 64 bits.

Rows are found by key through a dict.  Insertion appends and removal moves the last row into
the gap, so both are cheap; rows are arranged by key again before anything that shows their
order, so that scans depend on content alone.  Keys that arrive in ascending order (ids,
times) never need it.
"""

import math
from array import array
from collections.abc import Iterator, MutableSequence
from typing import Any, Generic

import msgspec

from ultraengine.execution.layouts.chunk import K, V, chunk_decoder, generic, write_chunks


class Column:
    """The values of one field, by row."""

    __slots__ = ("is_real", "name", "values")

    def __init__(self, name: str, info: msgspec.inspect.Type) -> None:
        self.name = name
        self.is_real = isinstance(info, msgspec.inspect.FloatType)
        self.values: MutableSequence[Any] = []
        if self.is_real:
            self.values = array("d")
        elif isinstance(info, msgspec.inspect.IntType):
            self.values = array("q")

    def arrange(self, order: list[int]) -> None:
        """Put the rows into `order`."""
        old = self.values
        arranged = [old[row] for row in order]
        self.values = array(old.typecode, arranged) if isinstance(old, array) else arranged

    def move_last(self, row: int) -> None:
        """Shorten by one: the last value takes the place of the one at `row`."""
        last = self.values.pop()
        if row < len(self.values):
            self.values[row] = last


class ColumnarLayout(Generic[K, V]):
    """Implements `model.layout.Layout` with one column per field of a struct.

    ``get`` builds a row from its columns: mutating it changes nothing here.  Write with
    ``put``, ``set`` or through a ``row`` view.
    """

    __slots__ = (
        "_by_name",
        "_columns",
        "_decoder",
        "_keys",
        "_ordered",
        "_row_type",
        "_rows",
        "changed",
    )

    def __init__(self, key_type: Any, row_type: Any) -> None:
        self._decoder = chunk_decoder((key_type, generic(tuple, key_type, row_type)))
        info = msgspec.inspect.type_info(row_type)
        if not isinstance(info, msgspec.inspect.StructType):
            raise TypeError(f"the rows of a columnar layout are msgspec structs, not {row_type!r}")
        self._row_type = row_type
        self._columns = [Column(field.name, field.type) for field in info.fields]
        self._by_name = {column.name: column for column in self._columns}
        self._keys: list[K] = []
        self._rows: dict[K, int] = {}
        self._ordered = True
        self.changed: set[K] = set()
        """Keys changed since ``mark``."""

    def get(self, key: K) -> V | None:
        """A row built from the columns, None when there is none."""
        row = self._rows.get(key)
        return None if row is None else self._build(row)

    def put(self, key: K, value: V) -> None:
        """Insert or replace a row, and count `key` as changed.  Raises OverflowError for a number
        of more than 64 bits, and TypeError for no number, where the column is an array."""
        self._store(key, value)
        self.changed.add(key)

    def set(self, key: K, column: str, value: Any) -> None:
        """Set one cell, and count `key` as changed.  Raises KeyError without such a row."""
        self._by_name[column].values[self._rows[key]] = value
        self.changed.add(key)

    def cell(self, key: K, column: str) -> Any:
        """One cell.  Raises KeyError without such a row or column."""
        return self._by_name[column].values[self._rows[key]]

    def row(self, key: K) -> "RowView[K]":
        """A live view of a row: ``view["stock"] -= 1``.  Raises KeyError without such a row."""
        if key not in self._rows:
            raise KeyError(key)
        return RowView(self, key)

    def remove(self, key: K) -> None:
        """Remove a row if it is there, and count `key` as changed."""
        if self._drop(key):
            self.changed.add(key)

    def touch(self, key: K) -> None:
        """Count `key` as changed after a value inside one of its cells was mutated in place."""
        self.changed.add(key)

    def items(self) -> Iterator[tuple[K, V]]:
        """All rows by ascending key; the layout may not change meanwhile."""
        self._arrange()
        for row, key in enumerate(self._keys):
            yield key, self._build(row)

    def scan(self, *columns: str) -> Iterator[tuple[Any, ...]]:
        """The named cells of each row, by ascending key; the layout may not change meanwhile."""
        self._arrange()
        return zip(*(self._by_name[name].values for name in columns), strict=True)

    def select(self, column: str, low: Any, high: Any) -> list[K]:
        """Keys whose cell has ``low <= cell < high``, ascending; None leaves a side open."""
        self._arrange()
        cells = zip(self._keys, self._by_name[column].values, strict=True)
        return [
            key
            for key, cell in cells
            if (low is None or low <= cell) and (high is None or cell < high)
        ]

    def total(self, column: str) -> Any:
        """Exact sum of a column of integers; of floats the exact sum, rounded once.

        Neither depends on the order of rows.
        """
        cells = self._by_name[column]
        return math.fsum(cells.values) if cells.is_real else sum(cells.values)

    def extent(self, column: str) -> tuple[Any, Any] | None:
        """Least and greatest cell of a column, None without rows."""
        self._arrange()
        values = self._by_name[column].values
        return (min(values), max(values)) if values else None

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._keys)

    def __contains__(self, key: object) -> bool:
        """Whether there is a row for `key`."""
        return key in self._rows

    def dump(self) -> Iterator[bytes]:
        """Every row, by ascending key."""
        return write_chunks(((), self.items()))

    def changes(self) -> Iterator[bytes]:
        """What changed since ``mark``: removed keys, then written rows, both ascending."""
        rows = self._rows
        changed = sorted(self.changed)
        removed = (key for key in changed if key not in rows)
        written = ((key, self._build(rows[key])) for key in changed if key in rows)
        return write_chunks((removed, written))

    def mark(self) -> None:
        """Start counting changes anew."""
        self.changed.clear()

    def load(self, chunk: bytes) -> None:
        """Apply one chunk.  Raises `msgspec.ValidationError` when it is of another type."""
        removed, written = self._decoder.decode(chunk)
        for key in removed:
            self._drop(key)
        for key, value in written:
            self._store(key, value)

    def _build(self, row: int) -> V:
        cells = {column.name: column.values[row] for column in self._columns}
        built: V = self._row_type(**cells)
        return built

    def _store(self, key: K, value: V) -> None:
        end = len(self._keys)
        try:
            for column in self._columns:
                column.values.append(getattr(value, column.name))
        except BaseException:
            for column in self._columns:
                del column.values[end:]
            raise
        row = self._rows.get(key)
        if row is not None:
            for column in self._columns:
                column.move_last(row)
            return
        if self._keys and key < self._keys[-1]:
            self._ordered = False
        self._rows[key] = end
        self._keys.append(key)

    def _drop(self, key: K) -> bool:
        row = self._rows.pop(key, None)
        if row is None:
            return False
        last = self._keys.pop()
        if row < len(self._keys):
            self._keys[row] = last
            self._rows[last] = row
            self._ordered = False
        for column in self._columns:
            column.move_last(row)
        return True

    def _arrange(self) -> None:
        if self._ordered:
            return
        keys = self._keys
        order = sorted(range(len(keys)), key=keys.__getitem__)
        self._keys = [keys[row] for row in order]
        self._rows = {key: row for row, key in enumerate(self._keys)}
        for column in self._columns:
            column.arrange(order)
        self._ordered = True


class RowView(Generic[K]):
    """A row by name of column, read and written where it lives."""

    __slots__ = ("_key", "_layout")

    def __init__(self, layout: ColumnarLayout[K, Any], key: K) -> None:
        self._layout = layout
        self._key = key

    def __getitem__(self, column: str) -> Any:
        """One cell."""
        return self._layout.cell(self._key, column)

    def __setitem__(self, column: str, value: Any) -> None:
        """Set one cell and count the row as changed."""
        self._layout.set(self._key, column, value)
