"""What the ledger's computed reads share: columns, the book, days."""

from typing import Any, Final

from ultraengine.domains.ledger.tables import (
    ACCOUNT,
    DAY_US,
)
from ultraengine.model.projection import Column, ColumnType
from ultraengine.model.reads import (
    Parameter,
)

TIME_FIRST: Final = -62_135_596_800_000_000
TIME_END: Final = 253_402_300_800_000_000
"""Years 0001 to 9999: what stands in for an end that is not given."""

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
