"""How statements of reads differ between databases: names, parameters, values.

A database is one subclass beside its reader (`readers/sqlite/dialect.py`, …).  It knows how the
target of the same name stores each `ColumnType`, and must give back what was put in.
"""

from typing import Any, ClassVar

from ultraengine.model.projection import Column, ColumnType, Value


class ReadDialect:
    """Standard SQL.  Subclasses say what is different."""

    name: ClassVar[str] = "sql"
    quotes: ClassVar[tuple[str, str]] = ('"', '"')
    row_values: ClassVar[bool] = True
    """Whether ``(a, b) > (x, y)`` is understood and finds its rows by an index."""

    def quote(self, name: str) -> str:
        """A declared name.  Quoted always: a column may be called like a keyword."""
        return f"{self.quotes[0]}{name}{self.quotes[1]}"

    def parameter(self, number: int, kind: ColumnType) -> str:  # noqa: ARG002  (others need them)
        """The place of the parameter with this number, from 1."""
        return "?"

    def bind(self, value: Value, kind: ColumnType) -> Any:  # noqa: ARG002  (others need it)
        """A value as the driver takes it."""
        return value

    def load(self, raw: Any, column: Column) -> Value:  # noqa: ARG002  (others need it)
        """The value that the driver gives for one of this column; null is None."""
        found: Value = raw
        return found
