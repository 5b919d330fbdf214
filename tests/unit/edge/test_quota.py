"""Token buckets against a slow but obvious model."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.edge.auth import TenantQuota
from ultraengine.edge.quota import READS, Quotas, TokenBucket
from ultraengine.model.errors import EngineError


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    bucket = TokenBucket(rate=10, burst=5, now=0.0)
    assert [bucket.take(1, 0.0) for _ in range(5)] == [0.0] * 5
    assert bucket.take(1, 0.0) == pytest.approx(0.1)
    assert bucket.take(1, 0.1) == 0.0
    assert bucket.take(1, 0.1) == pytest.approx(0.1)


def test_a_refused_request_takes_nothing() -> None:
    bucket = TokenBucket(rate=1, burst=10, now=0.0)
    assert bucket.take(8, 0.0) == 0.0
    assert bucket.take(3, 0.0) == pytest.approx(1.0)
    assert bucket.take(2, 0.0) == 0.0


def test_a_batch_larger_than_the_burst_passes_a_full_bucket_and_is_paid_for_later() -> None:
    bucket = TokenBucket(rate=1, burst=10, now=0.0)
    assert bucket.take(25, 0.0) == 0.0
    assert bucket.take(1, 0.0) == pytest.approx(16.0)
    assert bucket.remaining(0.0) == 0
    assert bucket.full_in_s(0.0) == 25
    assert bucket.take(1, 16.0) == 0.0


def test_time_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(rate=1, burst=1, now=100.0)
    assert bucket.take(1, 100.0) == 0.0
    assert bucket.take(1, 0.0) > 0.0
    assert bucket.take(1, 101.0) == 0.0


@given(
    rate=st.integers(1, 100),
    burst=st.integers(1, 50),
    steps=st.lists(st.tuples(st.integers(0, 64), st.integers(1, 80)), max_size=40),
)
def test_over_any_time_no_more_is_given_than_burst_and_rate_allow(
    rate: int, burst: int, steps: list[tuple[int, int]]
) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    tokens, now = Fraction(burst), Fraction(0)
    for wait, count in steps:
        now += Fraction(wait, 64)
        tokens = min(Fraction(burst), tokens + Fraction(wait, 64) * rate)
        asked = bucket.take(count, float(now))
        needed = min(count, burst)
        if abs(tokens - needed) > Fraction(1, 10**6):  # Beyond what floats can disagree about.
            assert (asked == 0.0) is (tokens >= needed)
        if asked == 0.0:
            tokens -= count
        else:
            assert asked == pytest.approx(float((needed - tokens) / rate), abs=1e-6)


def test_without_a_quota_nothing_is_refused_and_no_header_is_sent() -> None:
    quotas = Quotas(0.0, 10, {})
    for _ in range(100):
        quotas.take("acme", 1_000, 0.0)
    assert quotas.headers("acme", 0.0) == ()


def test_a_tenant_above_its_quota_is_told_when_to_come_back() -> None:
    quotas = Quotas(2.0, 4, {})
    quotas.take("acme", 4, 0.0)
    with pytest.raises(EngineError) as caught:
        quotas.take("acme", 1, 0.0)
    assert (caught.value.code, caught.value.retry_after_s) == ("QUOTA", 0.5)
    assert quotas.headers("acme", 0.0) == (
        ("RateLimit-Policy", '"tenant";q=4;w=2'),
        ("RateLimit", '"tenant";r=0;t=2'),
    )


def test_one_tenant_never_uses_up_anothers_quota() -> None:
    quotas = Quotas(1.0, 1, {})
    quotas.take("acme", 1, 0.0)
    quotas.take("other", 1, 0.0)
    with pytest.raises(EngineError):
        quotas.take("acme", 1, 0.0)


def test_a_tenants_own_quota_stands_instead_of_the_common_one() -> None:
    quotas = Quotas(0.0, 10, {"acme": TenantQuota(1.0, 1), "free": TenantQuota(0.0, 1)})
    quotas.take("acme", 1, 0.0)
    with pytest.raises(EngineError):
        quotas.take("acme", 1, 0.0)
    for _ in range(5):
        quotas.take("free", 5, 0.0)
        quotas.take("unnamed", 50, 0.0)


def test_commands_and_reads_of_a_tenant_are_charged_apart_and_what_is_unsaid_is_as_for_all() -> (
    None
):
    own = {"acme": TenantQuota(reads_per_s=1.0)}
    commands, reads = Quotas(0.0, 10, own), Quotas(0.0, 2, own, READS)
    commands.take("acme", 1_000, 0.0)
    reads.take("other", 1_000, 0.0)
    reads.take("acme", 2, 0.0)
    with pytest.raises(EngineError, match=r"1 reads are above the quota of 1 reads/s .* of 2$"):
        reads.take("acme", 1, 0.0)


def test_a_new_table_keeps_the_level_of_quotas_that_stayed() -> None:
    quotas = Quotas(0.0, 10, {"acme": TenantQuota(1.0, 1), "other": TenantQuota(1.0, 1)})
    quotas.take("acme", 1, 0.0)
    quotas.take("other", 1, 0.0)
    quotas.replace({"acme": TenantQuota(1.0, 1), "other": TenantQuota(1.0, 2)})
    with pytest.raises(EngineError):
        quotas.take("acme", 1, 0.0)
    quotas.take("other", 2, 0.0)
    quotas.replace({})
    quotas.take("acme", 100, 0.0)
