"""What is recorded: shapes and figures in bounded memory, and no value."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.advice.recorder import BUCKETS, Recorder, Report, Usage, bucket, quantile
from ultraengine.advice.sketch import EXACT_MAX, REGISTERS, Distinct
from ultraengine.model.ids import Instant

NOW = Instant(1_000_000)
CODE = ("code", "eq")


def usage(read: str = "d.transfers", **more: Any) -> Usage:
    return Usage("ledger", read, "transfer", ("book",), (CODE,), ("booked_at desc",), **more)


def test_calls_are_counted_by_shape() -> None:
    recorder = Recorder(Instant(0))
    recorder.answered(usage(), NOW, 0.004, 10, {CODE: [1]})
    recorder.answered(usage(), NOW, 0.001, 30, {CODE: [2, 1]})
    recorder.answered(usage(), NOW, 0.001, 0, {CODE: [1]})
    recorder.hit(usage(), Instant(2_000_000))
    recorder.failure(usage(), NOW)
    recorder.hit(usage("d.other"), NOW)
    report = recorder.report(Instant(3_000_000))
    assert (report.calls, len(recorder), report.version) == (6, 2, 1)
    assert (report.since, report.until) == (
        "1970-01-01T00:00:00.000000Z",
        "1970-01-01T00:00:03.000000Z",
    )
    shape, other = report.shapes
    assert (shape.calls, shape.cached, shape.failed) == (5, 1, 1)
    assert (shape.rows, shape.rows_max) == (40, 30)
    assert (shape.seconds, shape.seconds_max) == (0.006, 0.004)
    assert [(one.column, one.operator, one.distinct, one.exact) for one in shape.filters] == [
        ("code", "eq", 2, True)
    ]
    assert sum(shape.latency) == 3
    assert (other.read, other.cached, other.seconds_p99) == ("d.other", 1, 0)
    assert recorder.totals() == [
        ("d.other", 1, 1, 0, 0.0),
        ("d.transfers", 5, 1, 1, pytest.approx(0.006)),
    ]


def test_the_report_is_the_same_after_a_way_through_json() -> None:
    recorder = Recorder(Instant(0))
    recorder.answered(usage(), NOW, 0.004, 10, {CODE: [1]})
    report = recorder.report(NOW)
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_the_rarest_shape_makes_room_and_its_loss_is_counted() -> None:
    recorder = Recorder(Instant(0), shapes_max=2)
    for read in ("d.a", "d.a", "d.b", "d.c", "d.c", "d.c"):
        recorder.hit(usage(read), NOW)
    report = recorder.report(NOW)
    assert {one.read: one.calls for one in report.shapes} == {"d.a": 2, "d.c": 3}
    assert (report.evicted_shapes, report.evicted_calls, report.calls) == (1, 1, 6)


def test_many_shapes_take_no_more_memory_than_some() -> None:
    recorder = Recorder(Instant(0), shapes_max=8)
    for number in range(1_000):
        recorder.hit(usage(f"d.{number}"), NOW)
    assert len(recorder) == 8
    assert recorder.evicted_shapes == 992


@given(st.floats(0, 1e5))
def test_a_bucket_holds_what_is_below_its_bound(seconds: float) -> None:
    place = bucket(seconds)
    assert 0 <= place < BUCKETS
    if place < BUCKETS - 1:
        assert seconds * 1e6 <= 2**place
    if place:
        assert seconds * 1e6 > 2 ** (place - 1) - 1


def test_a_quantile_is_the_bound_of_its_bucket() -> None:
    latency = [0] * BUCKETS
    assert quantile(latency, 0.5) == 0
    latency[3], latency[10] = 98, 2
    assert quantile(latency, 0.5) == 8e-6
    assert quantile(latency, 0.98) == 8e-6
    assert quantile(latency, 0.99) == 1024e-6


@pytest.mark.parametrize("count", [0, 1, EXACT_MAX])
def test_few_values_are_counted_exactly(count: int) -> None:
    chance = random.Random(count)
    distinct = Distinct()
    for hashed in [chance.getrandbits(64) for _ in range(count)] * 3:
        distinct.add(hashed)
    assert (distinct.count(), distinct.is_exact) == (count, True)


@pytest.mark.parametrize("count", [EXACT_MAX + 1, 1_000, 20_000, 200_000])
def test_many_values_are_estimated_in_a_kilobyte(count: int) -> None:
    chance = random.Random(count)
    distinct = Distinct()
    for hashed in [chance.getrandbits(64) for _ in range(count)]:
        distinct.add(hashed)
        distinct.add(hashed)
    assert not distinct.is_exact
    assert abs(distinct.count() - count) <= 0.12 * count
    assert len(distinct._registers) == REGISTERS
    assert distinct._exact is None
