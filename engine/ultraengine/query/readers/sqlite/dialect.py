"""Reads of what `projection.sqlite` writes: words and texts for amounts, integers for times."""

from typing import Any, ClassVar

from ultraengine.model.projection import Aggregate, Column, ColumnType, Value
from ultraengine.projection.sqlite.dialect import EXACT, exact_select
from ultraengine.projection.sqlite.exact import WORD_END, SqliteWords, loaded, stored
from ultraengine.query.dialect import ReadDialect


class SqliteReadDialect(SqliteWords, ReadDialect):
    """SQLite's, with the functions of `projection.sqlite.exact` on the connection."""

    name: ClassVar[str] = "sqlite"

    def parameter(self, number: int, kind: ColumnType) -> str:  # noqa: ARG002  (all are alike)
        """Numbered: a comparison names its value twice."""
        return f"?{number}"

    def bind(self, value: Value, kind: ColumnType) -> Any:
        """Amounts in their one form, truths as integers."""
        if kind in EXACT:
            return stored(int(value))  # type: ignore[arg-type]  # An amount is never null here.
        return int(value) if isinstance(value, bool) else value

    def load(self, raw: Any, column: Column) -> Value:
        """Inverse of how the target stores."""
        if column.type in EXACT:
            return loaded(raw)
        if column.type is ColumnType.BOOLEAN and raw is not None:
            return bool(raw)
        found: Value = raw
        return found

    def compare(self, column: str, sign: str, place: str, value: Value, kind: ColumnType) -> str:
        """Natively between words; a text, of which each is larger in size, by its number."""
        if kind not in EXACT or sign == "=":
            return f"{column} {sign} {place}"
        exact = f"ultra_compare({column}, {place}) {sign} 0"
        if not -WORD_END <= int(value) < WORD_END:  # type: ignore[arg-type]  # Never null here.
            return exact
        near = f"typeof({column}) = 'integer'"
        return f"CASE WHEN {near} THEN {column} {sign} {place} ELSE {exact} END"

    def aggregate_select(self, of: Aggregate) -> str:
        """With exact sums."""
        return exact_select(of)
