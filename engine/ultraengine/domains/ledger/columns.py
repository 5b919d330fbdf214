"""Columns that several of the ledger's tables have."""

from typing import Any, Final

from ultraengine.model.projection import Column, ColumnType

DAY_US: Final = 86_400_000_000
INTEGER, AMOUNT, TOTAL = ColumnType.INTEGER, ColumnType.AMOUNT, ColumnType.TOTAL
TEXT, TIME = ColumnType.TEXT, ColumnType.TIME


def column(name: str, type: ColumnType, summary: str, **more: Any) -> Column:
    """One column with its sentence."""
    return Column(name=name, type=type, summary=summary, **more)


TENANT: Final = column("tenant", TEXT, "Tenant that owns the book.")
BOOK: Final = column("book", TEXT, "Book: the partition key of its commands.")
ACCOUNT_ID: Final = column("account", TEXT, "Id of the account.")
ASSET: Final = column("asset", TEXT, "CODE/scale, as in USD/2.", length=20)
SHARD: Final = column("shard", INTEGER, "Shard whose log holds it.")
OF_CHANGE: Final = column("log_offset", INTEGER, "Offset of the command that changed it last.")
