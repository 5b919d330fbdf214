"""The counter domain: sums, bounds, and what it answers."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.domains.counter import DOMAIN
from ultraengine.domains.counter.domain import (
    INT64_MAX,
    INT64_MIN,
    Added,
    Counter,
    CounterAnswer,
    CounterParams,
    Sum,
)
from ultraengine.model.domain import Domain
from ultraengine.model.errors import EngineError, InvariantBroken, Malformed
from ultraengine.model.outcome import Status
from ultraengine.testing.memory import Bench

PROTOCOL: Domain = DOMAIN


def _value(bench: Bench, key: str = "k", tenant: str = "t") -> int:
    state = bench.executor.slot_state("counter", tenant, key)
    answer: CounterAnswer = DOMAIN.queries[0].capture(state, tenant, key, CounterParams())
    return answer.value


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(-50, 50)), max_size=30))
def test_a_counter_is_the_sum_of_what_was_added_to_it(steps: list[tuple[str, int]]) -> None:
    bench, sums = Bench(DOMAIN), dict[str, int]()
    for key, delta in steps:
        executed = bench.run("counter.add", {"delta": delta}, key=key)
        sums[key] = sums.get(key, 0) + delta
        assert executed.result == Sum(sums[key])
    assert {key: _value(bench, key) for key in sums} == sums
    assert bench.replayed().dump() == bench.dump()
    assert list(bench.executor.check()) == []


def test_counters_of_one_name_belong_to_their_tenants() -> None:
    bench = Bench(DOMAIN)
    bench.run("counter.add", {"delta": 5}, tenant="one")
    bench.run("counter.add", {"delta": 7}, tenant="two")
    assert (_value(bench, tenant="one"), _value(bench, tenant="two")) == (5, 7)


@pytest.mark.parametrize(
    ("data", "code", "pointer"),
    [
        ({"delta": -11, "minimum": 0}, "below_minimum", "/data/minimum"),
        ({"delta": 11, "maximum": 20}, "above_maximum", "/data/maximum"),
        ({"delta": INT64_MAX}, "out_of_range", "/data/delta"),
    ],
)
def test_a_sum_beyond_a_bound_is_rejected_and_changes_nothing(
    data: dict[str, int], code: str, pointer: str
) -> None:
    bench = Bench(DOMAIN)
    bench.run("counter.add", {"delta": 10})
    before = bench.dump()
    outcome = bench.run("counter.add", data).outcome
    assert outcome.status == Status.REJECTED
    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.pointer) == (code, pointer)
    assert bench.dump() == before


def test_the_least_sum_is_that_of_64_bits() -> None:
    bench = Bench(DOMAIN)
    assert bench.run("counter.add", {"delta": INT64_MIN}).result == Sum(INT64_MIN)
    failure = bench.run("counter.add", {"delta": -1}).outcome.failure
    assert failure is not None
    assert failure.code == "out_of_range"


@pytest.mark.parametrize("data", [{"delta": -10, "minimum": 0}, {"delta": 10, "maximum": 20}])
def test_a_sum_at_a_bound_is_accepted(data: dict[str, int]) -> None:
    bench = Bench(DOMAIN)
    bench.run("counter.add", {"delta": 10})
    assert bench.run("counter.add", data).outcome.status == Status.ACCEPTED


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        ({}, "/data"),
        ({"delta": "5"}, "/data/delta"),
        ({"delta": 1.5}, "/data/delta"),
        ({"delta": INT64_MAX + 1}, "/data/delta"),
        ({"delta": 1, "minimum": INT64_MIN - 1}, "/data/minimum"),
        ({"delta": 1, "limit": 5}, "/data"),
        ({"delta": 1, "minimum": 3, "maximum": 2}, "/data/minimum"),
    ],
)
def test_another_shape_is_refused_with_its_place(data: dict[str, object], pointer: str) -> None:
    bench = Bench(DOMAIN)
    with pytest.raises(Malformed) as refused:
        bench.run("counter.add", data)
    assert refused.value.pointer == pointer
    assert bench.log == []


def test_a_read_tells_the_value_and_how_many_additions_made_it() -> None:
    bench = Bench(DOMAIN)
    query = DOMAIN.queries[0]
    for delta in (5, 0, -2):
        bench.run("counter.add", {"delta": delta})
    answer = query.capture(
        bench.executor.slot_state("counter", "t", "k"), "t", "k", CounterParams()
    )
    assert answer == CounterAnswer(value=3, additions=3)
    assert query.etag is not None
    assert query.etag(answer) == "3"


def test_a_counter_that_nothing_was_added_to_is_not_found() -> None:
    bench = Bench(DOMAIN)
    bench.run("counter.add", {"delta": -1, "minimum": 0})
    with pytest.raises(EngineError) as missing:
        _value(bench)
    assert missing.value.code == "NOT_FOUND"


def test_an_event_that_does_not_fit_the_state_stops_the_shard() -> None:
    bench = Bench(DOMAIN)
    bench.run("counter.add", {"delta": 1})
    command, outcome, time = bench.log[0]
    wrong = msgspec.structs.replace(
        outcome, events=msgspec.Raw(msgspec.msgpack.encode([Added(1, 2)]))
    )
    other = Bench(DOMAIN)
    with pytest.raises(InvariantBroken) as stopped:
        other.executor.replay(command, wrong, time=time, epoch=bench.executor.epoch)
    assert isinstance(stopped.value.__cause__, InvariantBroken)
    assert stopped.value.__cause__.facts["reached"] == 1


def test_impossible_counters_are_named_by_the_check() -> None:
    state = DOMAIN.new_state()
    state.put(("t", "fine"), Counter(1, 1))
    state.put(("t", "huge"), Counter(INT64_MAX + 1, 1))
    state.put(("t", "never"), Counter(0, 0))
    sentences = DOMAIN.check(state)
    assert len(sentences) == 2
    assert "'huge'" in sentences[0]
    assert "'never'" in sentences[1]
