"""The circuit breaker, state by state."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.model.errors import InvariantBroken
from ultraengine.projection.breaker import FIRST_WAIT_S, Breaker, BreakerState


def test_a_closed_breaker_lets_everything_through() -> None:
    breaker = Breaker(30.0)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.allows(0.0)
    assert breaker.allows(-1.0)


def test_the_first_failure_opens_it_until_its_wait_is_over() -> None:
    breaker = Breaker(30.0)
    breaker.failed(100.0, 0.0)
    assert breaker.state == "open"
    assert not breaker.allows(100.0 + FIRST_WAIT_S / 2 - 0.001)
    assert breaker.allows(100.0 + FIRST_WAIT_S / 2)
    assert breaker.state == "half_open"


def test_a_half_open_breaker_lets_one_attempt_through() -> None:
    breaker = Breaker(30.0)
    breaker.failed(0.0, 0.0)
    assert breaker.allows(1.0)
    assert not breaker.allows(1.0)


def test_an_attempt_that_goes_well_closes_it() -> None:
    breaker = Breaker(30.0)
    breaker.failed(0.0, 0.0)
    breaker.allows(1.0)
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.failures == 0
    breaker.failed(2.0, 0.0)
    assert breaker.opened == 2


def test_an_attempt_that_tells_nothing_leaves_the_way_to_the_next_one() -> None:
    breaker = Breaker(30.0)
    breaker.undecided()
    assert breaker.state.value == "closed"
    breaker.failed(0.0, 0.0)
    assert breaker.allows(1.0)
    breaker.undecided()
    assert breaker.state.value == "open"
    assert breaker.allows(1.0)
    breaker.force(is_open=True)
    breaker.undecided()
    assert not breaker.allows(1.0)


def test_an_attempt_that_fails_opens_it_for_longer_up_to_the_cap() -> None:
    breaker = Breaker(1.0)
    waits = []
    for _ in range(40):
        breaker.failed(0.0, 0.0)
        waits.append(breaker.retry_at)
        assert breaker.allows(breaker.retry_at)
    assert waits[:5] == [0.05, 0.1, 0.2, 0.4, 0.5]
    assert set(waits[4:]) == {0.5}
    assert breaker.opened == 1


@given(st.integers(1, 60), st.floats(0.0, 1.0, exclude_max=True))
def test_chance_spreads_a_wait_over_its_upper_half(failures: int, chance: float) -> None:
    breaker, exact = Breaker(30.0), Breaker(30.0)
    for _ in range(failures):
        breaker.failed(0.0, chance)
        exact.failed(0.0, 0.0)
    assert exact.retry_at <= breaker.retry_at < 2 * exact.retry_at or breaker.retry_at <= 30.0


def test_a_forced_breaker_stays_open_whatever_happens() -> None:
    breaker = Breaker(30.0)
    breaker.force(is_open=True)
    breaker.failed(0.0, 0.0)
    breaker.succeeded()
    assert breaker.state is BreakerState.FORCED
    assert not breaker.allows(1e9)
    breaker.force(is_open=False)
    assert breaker.allows(0.0)


def test_a_breaker_without_a_cap_is_refused() -> None:
    with pytest.raises(InvariantBroken, match="cap"):
        Breaker(0.0)
