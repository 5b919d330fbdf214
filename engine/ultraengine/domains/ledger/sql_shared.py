"""What the ledger's computed reads share: columns, the book, days."""

from typing import Any, Final

from ultraengine.domains.ledger.account_table import ACCOUNT
from ultraengine.domains.ledger.columns import DAY_US
from ultraengine.model.projection import Column, ColumnType
from ultraengine.model.reads import (
    Parameter,
)

TIME_FIRST: Final = -62_135_596_800_000_000
TIME_LAST: Final = 253_402_300_799_999_999
"""Years 0001 to 9999, which every database can hold: what stands in for an end that is not given.
A period excludes its end, and statements get its last moment instead, so that this holds."""

BOOK: Final = Parameter(name="book", type=ColumnType.TEXT, summary="Partition key of its commands")
ASSET: Final = ACCOUNT.column("asset")
COUNT: Final = Column(name="count", type=ColumnType.INTEGER)


def total_column(name: str) -> Column:
    return Column(name=name, type=ColumnType.TOTAL)


def sum_column(name: str) -> Column:
    """A sum of nothing is null."""
    return Column(name=name, type=ColumnType.TOTAL, nullable=True)


def day_of(moment: Any) -> tuple[int, int]:
    """The UTC day of a moment, and that day's first microsecond."""
    day = moment // DAY_US
    return day, day * DAY_US


def bounds(first: Any, end: Any, least: int, most: int) -> tuple[int, int]:
    """First and last moment (or day) of a period whose ends may be absent; without any moment,
    the first is behind the last."""
    begin = least if first is None else first
    last = most if end is None else end - 1
    return (begin, last) if last >= least else (least + 1, least)
