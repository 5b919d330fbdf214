"""Reads of what `projection.postgres` writes: numeric for amounts, timestamptz for times."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, ClassVar, Final

from ultraengine.model.exact import GreatestWords
from ultraengine.model.projection import Column, ColumnType, Value
from ultraengine.projection.postgres.dialect import PostgresDialect
from ultraengine.query.dialect import ReadDialect

_START: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY: Final = date(1970, 1, 1)
_MICROSECOND: Final = timedelta(microseconds=1)
_TYPES: Final = {
    ColumnType.INTEGER: "bigint",
    ColumnType.AMOUNT: "numeric",
    ColumnType.TOTAL: "numeric",
    ColumnType.TEXT: "text",
    ColumnType.TIME: "timestamptz",
    ColumnType.DATE: "date",
    ColumnType.BOOLEAN: "boolean",
    ColumnType.JSON: "text",
    ColumnType.BYTES: "bytea",
}
_AS_TEXT: Final = frozenset({ColumnType.TIME, ColumnType.DATE})
_NUMBERS: Final = frozenset({ColumnType.INTEGER, ColumnType.AMOUNT, ColumnType.TOTAL})

_WRITTEN: Final = PostgresDialect()


@lru_cache(maxsize=4_096)
def _quoted(name: str) -> str:
    """Declared names: the same few, twenty and more in each statement."""
    return _WRITTEN.quote(name)


class PostgresReadDialect(GreatestWords, ReadDialect):
    """PostgreSQL's."""

    name: ClassVar[str] = "postgresql"

    def quote(self, name: str) -> str:
        """As the target quotes it: too long names are shortened there."""
        return _quoted(name)

    def parameter(self, number: int, kind: ColumnType) -> str:
        """Numbered, and with its type: the server need not guess from what is around it.

        Times and dates travel as text: asyncpg takes the first and the last one for infinity.
        """
        place = f"CAST(${number} AS text)" if kind in _AS_TEXT else f"${number}"
        return f"CAST({place} AS {_TYPES[kind]})"

    def bind(self, value: Value, kind: ColumnType) -> Any:
        """As asyncpg takes it."""
        if kind in {ColumnType.AMOUNT, ColumnType.TOTAL}:
            return Decimal(int(value))  # type: ignore[arg-type]  # Never null.
        if kind is ColumnType.TIME:
            return (_START + timedelta(microseconds=int(value))).isoformat()  # type: ignore[arg-type]  # Never null.
        if kind is ColumnType.DATE:
            return (_DAY + timedelta(days=int(value))).isoformat()  # type: ignore[arg-type]  # Never null.
        return value

    def load(self, raw: Any, column: Column) -> Value:
        """Inverse of how the target stores; sums of integers are numeric here."""
        if raw is None:
            return None
        if column.type in _NUMBERS:
            return int(raw)
        if column.type is ColumnType.TIME:
            return int((raw - _START) // _MICROSECOND)
        if column.type is ColumnType.DATE:
            return int((raw - _DAY).days)
        found: Value = raw
        return found
