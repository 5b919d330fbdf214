"""Rows of a SQLite target as a projection gave them, read by a connection of its own."""

from contextlib import closing
from pathlib import Path
from typing import Any

from ultraengine.model.projection import ColumnType, Row, Table
from ultraengine.projection.sqlite.dialect import EXACT, SqliteDialect
from ultraengine.projection.sqlite.exact import loaded
from ultraengine.projection.sqlite.store.driver import connect


def read_rows(path: Path, relation: str, table: Table) -> list[Row]:
    """All rows of a table or view, in any order.  Raises LookupError where there is none."""
    dialect = SqliteDialect()
    with closing(connect(f"file:{path}?mode=ro", uri=True)) as connection:
        # One transaction: what is asked for may not go between the question and the read.
        connection.execute("BEGIN")
        there = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (relation,))
        if there.fetchone() is None:
            raise LookupError(relation)
        columns, name = dialect.names(table.names), dialect.quote(relation)
        rows = connection.execute(f"SELECT {columns} FROM {name}").fetchall()  # noqa: S608  (declared names)
    kinds = [column.type for column in table.columns]
    return [tuple(map(value_of, kinds, row)) for row in rows]


def value_of(kind: ColumnType, stored: Any) -> Any:
    """A stored value as a projection gave it."""
    if kind is ColumnType.BOOLEAN and stored is not None:
        return bool(stored)
    return loaded(stored) if kind in EXACT else stored
