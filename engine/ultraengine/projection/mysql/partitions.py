"""Which partitions a table of MariaDB or MySQL has, and which it is to get.

A table begins with one partition, `REST`, that takes all of time.  Ranges are cut off its front
before rows of theirs arrive, so that nothing is ever copied; what is older than the first of them
lies in the first, what is newer than the last in the rest.  Ranges are named by their first day
(``p20260101``), so their names sort as they do.

Rules: pure; days are counted from 1970-01-01, UTC; ranges are made only after those there are.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import date, timedelta
from typing import Final

import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.projection import ColumnType, Interval, Partition, Row, Table

REST: Final = "p_rest"
RANGES_MAX: Final = 1_000
"""Of one table; the server's own limit is 8,192 with sub-partitions.  Rows beyond go to the
rest until older ranges are dropped."""
AHEAD: Final = 2
"""Ranges that are kept ready after the one of today."""
DAY_US: Final = 86_400_000_000
_EPOCH: Final = date(1970, 1, 1)


class Range(msgspec.Struct, frozen=True, order=True):
    """One partition."""

    start: date
    end: date
    """First day after it."""

    @property
    def name(self) -> str:
        """``p20260101``"""
        return f"p{self.start:%Y%m%d}"


def cut_of(table: Table) -> Partition:
    """How it is cut.  Raises `InvariantBroken` when it is not."""
    if table.partition is None:
        raise InvariantBroken("a table without partitions has no ranges", table=table.name)
    return table.partition


def range_of(partition: Partition, day: date) -> Range:
    """The range that holds a day.  Raises OverflowError at the end of time."""
    if partition.interval is Interval.DAY:
        return Range(day, day + timedelta(days=1))
    start = day.replace(day=1)
    return Range(start, (start + timedelta(days=31)).replace(day=1))


def following(partition: Partition, start: date, end: date) -> Iterable[Range]:
    """Ranges from the one that holds `start` to the one that holds `end`."""
    one = range_of(partition, start)
    while one.start <= end:
        yield one
        one = range_of(partition, one.end)


def to_add(table: Table, held: Collection[Range], first: date, last: date) -> Sequence[Range]:
    """Ranges that are missing for rows from `first` to `last`, ascending.

    Nothing before those there are; the gap after them is filled, so that rows after an outage do
    not make one range of many.  Never more than `RANGES_MAX` in all: then the newest lie in the
    rest.
    """
    begin = max((one.end for one in held), default=first)
    made: list[Range] = []
    for one in following(cut_of(table), begin, last):
        if len(held) + len(made) == RANGES_MAX:
            break
        made.append(one)
    return made


def to_drop(table: Table, held: Iterable[Range], today: date) -> Sequence[Range]:
    """Ranges that are past their keep, whole."""
    keep_days = cut_of(table).keep_days
    if keep_days is None:
        return ()
    before = today - timedelta(days=keep_days)
    return sorted(one for one in held if one.end <= before)


def ahead(table: Table, today: date) -> date:
    """The last day for which there are to be ranges."""
    one = range_of(cut_of(table), today)
    for _ in range(AHEAD):
        one = range_of(cut_of(table), one.end)
    return one.start


def day_of_time(value: int) -> date:
    """The UTC day of an instant.  Raises OverflowError outside of the years 1 to 9999."""
    return _EPOCH + timedelta(days=value // DAY_US)


def span(table: Table, rows: Sequence[Row]) -> tuple[date, date] | None:
    """First and last day of rows of a partitioned table.

    None where there are none, or none that can be written: what is wrong is refused elsewhere.
    """
    if table.partition is None:
        return None
    position = table.names.index(table.partition.column)
    values = [row[position] for row in rows if len(row) == len(table.columns)]
    values = [value for value in values if type(value) is int]
    if not values:
        return None
    unit = DAY_US if table.column(table.partition.column).type is ColumnType.TIME else 1
    try:
        first, last = (_EPOCH + timedelta(days=one // unit) for one in (min(values), max(values)))
    except OverflowError:
        return None
    return first, last


def read_ranges(table: Table, names: Iterable[str]) -> tuple[Range, ...]:
    """The ranges of a table from the names of its partitions; the rest is not one."""
    cut = cut_of(table)
    return tuple(range_of(cut, date.fromisoformat(name[1:])) for name in names if name != REST)
