"""Logged time does not leap, whatever the wall clock does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.model.ids import Instant
from ultraengine.shard.steady_clock import SteadyClock
from ultraengine.testing.sim_clock import START, SimClock

HOUR = 3_600_000_000
DAY = 24 * HOUR


@pytest.fixture
def wall() -> SimClock:
    return SimClock()


def test_time_that_passes_is_believed_however_much_it_is(wall: SimClock) -> None:
    clock = SteadyClock(wall, leap_max_s=3600)
    wall.advance(86_400 * 30)
    assert clock.now() == START + 30 * DAY
    assert not clock.leaped


def test_a_step_within_the_limit_is_followed(wall: SimClock) -> None:
    clock = SteadyClock(wall, leap_max_s=3600)
    wall.set_wall(Instant(START + HOUR))
    assert clock.now() == START + HOUR
    assert not clock.leaped


def test_a_leap_ahead_is_told_once_and_time_goes_on_without_it(wall: SimClock) -> None:
    clock = SteadyClock(wall, leap_max_s=3600)
    told: list[str] = []
    clock.on_leap = told.append
    wall.advance(5)
    wall.set_wall(Instant(START + 8 * DAY))
    assert clock.now() == START + 5_000_000
    wall.advance(60)
    assert clock.now() == START + 65_000_000
    assert clock.leaped
    assert len(told) == 1
    assert "leaped 691195 s ahead" in told[0]
    assert "clock_leap_max_s = 3600" in told[0]


def test_a_clock_that_was_set_right_is_believed_again(wall: SimClock) -> None:
    clock = SteadyClock(wall, leap_max_s=3600)
    told: list[str] = []
    clock.on_leap = told.append
    wall.set_wall(Instant(START + DAY))
    clock.now()
    wall.set_wall(Instant(START + 7))
    assert clock.now() == START + 7
    assert not clock.leaped
    wall.set_wall(Instant(START + DAY))
    clock.now()
    assert len(told) == 2


def test_a_step_back_is_followed_and_the_way_back_from_it_too(wall: SimClock) -> None:
    """Stamps do not go back anyway; what matters is that the right time is found again."""
    clock = SteadyClock(wall, leap_max_s=3600)
    wall.set_wall(Instant(START - HOUR // 2))
    assert clock.now() == START - HOUR // 2
    wall.set_wall(START)
    assert clock.now() == START


def test_a_new_clock_believes_what_it_finds(wall: SimClock) -> None:
    wall.set_wall(Instant(START + 365 * DAY))
    assert SteadyClock(wall, leap_max_s=3600).now() == START + 365 * DAY


def test_the_time_that_passes_is_that_of_the_clock_below(wall: SimClock) -> None:
    clock = SteadyClock(wall, leap_max_s=1)
    wall.advance(2.5)
    assert clock.monotonic() == wall.monotonic() == 2.5


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("pass"), st.integers(0, 10_000)),
            st.tuples(st.just("set"), st.integers(-10_000, 10_000)),
        )
    )
)
def test_no_reading_is_ahead_of_the_last_by_more_than_the_limit_and_what_passed(
    moves: list[tuple[str, int]],
) -> None:
    wall = SimClock()
    clock = SteadyClock(wall, leap_max_s=100)
    last, elapsed = clock.now(), 0.0
    for move, seconds in moves:
        if move == "pass":
            wall.advance(seconds)
        else:
            wall.set_wall(Instant(wall.now() + seconds * 1_000_000))
        now, passed = clock.now(), wall.monotonic() - elapsed
        assert now - last <= (passed + 100) * 1_000_000 + 1
        last, elapsed = now, wall.monotonic()
