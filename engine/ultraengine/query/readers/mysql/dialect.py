"""Reads of what `projection.mysql` writes: decimals for amounts, DATETIME in UTC for times."""

from datetime import timedelta
from decimal import Decimal
from typing import Any, ClassVar, Final

from ultraengine.model.exact import GreatestWords
from ultraengine.model.projection import Column, ColumnType, Value
from ultraengine.projection.mysql.dialect import MysqlDialect
from ultraengine.projection.mysql.values import EPOCH_DAY, INT64_END, instant_of, moment
from ultraengine.query.dialect import ReadDialect

_AMOUNTS: Final = frozenset({ColumnType.AMOUNT, ColumnType.TOTAL})


class MysqlReadDialect(GreatestWords, ReadDialect):
    """MariaDB's and MySQL's."""

    name: ClassVar[str] = "mysql"
    row_values: ClassVar[bool] = False
    """They are understood, but no index is used for them."""

    def __init__(self) -> None:
        self._written = MysqlDialect()

    def quote(self, name: str) -> str:
        """As the target quotes it: too long names are shortened there."""
        return self._written.quote(name)

    def bind(self, value: Value, kind: ColumnType) -> Any:
        """As asyncmy takes it for a prepared statement."""
        if kind in _AMOUNTS:
            number = int(value)  # type: ignore[arg-type]  # Never null.
            return number if -INT64_END <= number < INT64_END else Decimal(number)
        if kind is ColumnType.TIME:
            return moment(int(value))  # type: ignore[arg-type]  # Never null.
        if kind is ColumnType.DATE:
            return EPOCH_DAY + timedelta(days=int(value))  # type: ignore[arg-type]  # Never null.
        return value

    def load(self, raw: Any, column: Column) -> Value:
        """Inverse of how the target stores."""
        if raw is None:
            return None
        if column.type is ColumnType.INTEGER or column.type in _AMOUNTS:
            return int(raw)
        if column.type is ColumnType.TIME:
            return instant_of(raw)
        if column.type is ColumnType.DATE:
            return int((raw - EPOCH_DAY).days)
        if column.type is ColumnType.BOOLEAN:
            return bool(raw)
        if column.type in {ColumnType.TEXT, ColumnType.JSON}:
            return raw.decode() if isinstance(raw, bytes) else str(raw)
        return bytes(raw)
