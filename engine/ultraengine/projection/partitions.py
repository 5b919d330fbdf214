"""Where partitions begin, in days since 1970."""

from datetime import date
from typing import Final

from ultraengine.model.ids import Instant
from ultraengine.model.projection import Interval, Partition

DAY_US: Final = 86_400_000_000
_EPOCH: Final = date(1970, 1, 1).toordinal()


def kept_from(partition: Partition, keep_days: int, now: Instant) -> int:
    """Where the oldest kept partition starts: the one that holds the last moment to keep."""
    day = (now - keep_days * DAY_US) // DAY_US
    return month_start(day) if partition.interval is Interval.MONTH else day


def month_start(day: int) -> int:
    """First day of the month of a day."""
    return date.fromordinal(_EPOCH + day).replace(day=1).toordinal() - _EPOCH
