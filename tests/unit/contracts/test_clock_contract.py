"""What every implementation of the Clock port does."""

import threading

import pytest

from ultraengine.model.ids import Instant
from ultraengine.ports import Clock
from ultraengine.testing.sim_clock import SimClock
from ultraengine_adapters.local.clock import SystemClock

YEAR_2025 = 1_735_689_600_000_000
YEAR_2200 = 7_258_118_400_000_000


class ClockContract:
    """Subclasses say which clock."""

    @pytest.fixture
    def clock(self) -> Clock:
        raise NotImplementedError

    def test_now_is_in_microseconds_since_the_unix_epoch(self, clock: Clock) -> None:
        now = clock.now()
        assert isinstance(now, int)
        assert YEAR_2025 < now < YEAR_2200

    def test_monotonic_time_never_goes_back_in_any_thread(self, clock: Clock) -> None:
        seen: list[list[float]] = [[], []]

        def read(into: list[float]) -> None:
            into.extend(clock.monotonic() for _ in range(2000))

        threads = [threading.Thread(target=read, args=(into,)) for into in seen]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for readings in seen:
            assert len(readings) == 2000
            assert readings == sorted(readings)


class TestSystemClock(ClockContract):
    @pytest.fixture
    def clock(self) -> Clock:
        return SystemClock()

    def test_both_times_go_on_by_themselves(self, clock: Clock) -> None:
        wall, elapsed = clock.now(), clock.monotonic()
        while clock.now() == wall or clock.monotonic() == elapsed:
            pass
        assert clock.monotonic() > elapsed


class TestSimClock(ClockContract):
    @pytest.fixture
    def clock(self) -> SimClock:
        return SimClock()

    def test_time_stands_still_until_it_is_advanced(self, clock: SimClock) -> None:
        wall = clock.now()
        assert (clock.now(), clock.monotonic()) == (wall, 0.0)
        clock.advance(1.5)
        assert (clock.now(), clock.monotonic()) == (wall + 1_500_000, 1.5)

    def test_many_small_steps_add_up_exactly(self, clock: SimClock) -> None:
        for _ in range(100_000):
            clock.advance(0.0001)
        assert clock.monotonic() == 10.0

    def test_a_jump_of_the_wall_clock_is_no_passing_of_time(self, clock: SimClock) -> None:
        clock.advance(2)
        clock.set_wall(Instant(YEAR_2025))
        assert (clock.now(), clock.monotonic()) == (YEAR_2025, 2.0)

    def test_time_is_not_advanced_backwards(self, clock: SimClock) -> None:
        with pytest.raises(ValueError, match="backwards"):
            clock.advance(-0.1)
