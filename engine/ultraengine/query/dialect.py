"""How statements of reads differ between databases: names, parameters, values.

A database is one subclass beside its reader (`readers/sqlite/dialect.py`, …).  It knows how the
target of the same name stores each `ColumnType`, and must give back what was put in.
"""

from typing import Any, ClassVar

from ultraengine.model.exact import ExactWords, expanded
from ultraengine.model.projection import Aggregate, Column, ColumnType, Value


class ReadDialect(ExactWords):
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
        """A value as the driver takes it.  Never null: a comparison with null finds nothing."""
        return value

    def load(self, raw: Any, column: Column) -> Value:  # noqa: ARG002  (others need it)
        """The value that the driver gives for one of this column; null is None."""
        found: Value = raw
        return found

    def compare(self, column: str, sign: str, place: str, value: Value, kind: ColumnType) -> str:  # noqa: ARG002
        """A comparison of a column with the parameter at `place`, whose value is `value`."""
        return f"{column} {sign} {place}"

    def aggregate_select(self, of: Aggregate) -> str:
        """The declared SELECT of an aggregate as its target computes it."""
        return expanded(of.select, self)
