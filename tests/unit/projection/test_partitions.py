"""Where partitions begin."""

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ultraengine.model.ids import Instant
from ultraengine.model.projection import Interval, Partition
from ultraengine.projection.partitions import DAY_US, kept_from, month_start

EPOCH = date(1970, 1, 1)


@given(st.dates())
def test_a_month_starts_at_its_first_day(day: date) -> None:
    start = EPOCH + timedelta(month_start((day - EPOCH).days))
    assert (start.year, start.month, start.day) == (day.year, day.month, 1)


@given(st.integers(0, 40_000), st.integers(0, DAY_US - 1), st.integers(0, 400))
def test_the_partition_that_holds_the_last_moment_to_keep_stays(
    day: int, within: int, keep_days: int
) -> None:
    now = Instant(day * DAY_US + within)
    kept = day - keep_days
    assert kept_from(Partition("at", Interval.DAY), keep_days, now) == kept
    assert kept_from(Partition("at"), keep_days, now) == month_start(kept)
