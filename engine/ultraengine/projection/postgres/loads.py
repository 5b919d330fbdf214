"""What one COPY of a batch sends: rows of a table, in the order of its key, encoded piece by piece.

    a batch -> `loads_of` -> one `Load` for each table with rows -> pieces of bytes

In the order of the key, neighbours in the index are filled one after the other.  For the server
that is two fifths less work, far more than ordering costs here.  A server inserts what it has
been sent while the next piece is encoded; so the next table is put in order before the last piece
of this one is sent, and not after, when the server would wait for it.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from ultraengine.model.projection import Table
from ultraengine.projection.fold import Batch, CurrentRows
from ultraengine.projection.postgres.dialect import SHAPE, led
from ultraengine.projection.postgres.rows import (
    SIGNATURE,
    TRAILER,
    encode,
    in_order,
    kinds,
    lead,
)

PIECE_ROWS: Final = 2_000
"""Rows per message of a COPY."""

_Rows = Sequence[Sequence[Any]]


class Load:
    """Rows for one COPY."""

    def __init__(self, table: Table, rows: _Rows, current: CurrentRows | None = None) -> None:
        """`rows` go into the table itself; those of `current` into its staging table, which says
        of each row what shape it has: 0 is a whole row, others are in the order of `changes`."""
        self.table = table
        self.rows = rows
        self.current = current
        self.changes: dict[tuple[int, ...], list[list[object]]] = {}
        """Changed rows by the positions of what changes in them; empty until it is in order."""
        self._groups: list[tuple[bytes, _Rows]] | None = None

    @property
    def columns(self) -> Sequence[str]:
        """Names of the columns that are sent."""
        return self.table.names if self.current is None else (SHAPE, *self.table.names)

    def put_in_order(self) -> None:
        """Sort.  Idempotent; raises TypeError and IndexError for what is no row of the table."""
        if self._groups is None:
            names = self.table.names
            key = [names.index(name) for name in led(self.table.key, self.table)]
            self._groups = [(first, in_order(rows, key)) for first, rows in self._shaped()]

    def _shaped(self) -> list[tuple[bytes, _Rows]]:
        """How rows begin, and the rows that begin so."""
        width = len(self.table.columns)
        if self.current is None:
            return [(lead(width), self.rows)]
        self.changes = shapes_of(self.current)
        shapes: list[_Rows] = [list(self.current.put.values()), *self.changes.values()]
        return [(lead(width + 1, shape), rows) for shape, rows in enumerate(shapes)]

    def pieces(self, following: "Load | None") -> Iterator[bytes]:
        """All of the COPY's data.  The following load is put in order while the server inserts.

        Raises ValueError, TypeError and IndexError for what is no row of the table.
        """
        self.put_in_order()
        columns = kinds(self.table.columns)
        yield SIGNATURE
        for first, rows in self._groups or ():
            for start in range(0, len(rows), PIECE_ROWS):
                yield encode(first, columns, rows[start : start + PIECE_ROWS])
        if following is not None:
            following.put_in_order()
        yield TRAILER


def shapes_of(current: CurrentRows) -> dict[tuple[int, ...], list[list[object]]]:
    """The changed rows of a table by which columns change: rows in full width, the rest null."""
    shapes: dict[tuple[int, ...], list[list[object]]] = {}
    blank: list[object] = [None] * (len(current.table.columns) - len(current.table.key))
    for key, values in current.changed.items():
        row = [*key, *blank]
        for position, value in values.items():
            row[position] = value
        shapes.setdefault(tuple(sorted(values)), []).append(row)
    return shapes


def loads_of(tables: Sequence[Table], batch: Batch) -> list[Load]:
    """The loads of a batch in the order in which they are sent: facts first."""
    by_name = {table.name: table for table in tables}
    facts = [Load(by_name[name], rows) for name, rows in batch.appended.items() if rows]
    current = [
        Load(rows.table, (), rows) for rows in batch.current.values() if rows.put or rows.changed
    ]
    return facts + current
