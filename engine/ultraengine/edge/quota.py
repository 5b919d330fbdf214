"""Per-tenant quotas: token buckets as values of time, no clock inside (REQ_016).

A bucket holds up to ``burst`` tokens and gains ``rate`` per second; a command costs one at the
gateway, a read one at `ultra query`.
A request is taken when the bucket holds as many tokens as it costs, or is full: a batch
larger than the burst passes a full bucket and leaves a debt, else it could never pass.
Nothing of a refused request is taken.

Answers carry ``RateLimit-Policy`` and ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers-10).
"""

import math
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from ultraengine.edge.auth import TenantQuota
from ultraengine.model.errors import EngineError

POLICY: Final = "tenant"
ROUNDING: Final = 1e-6
"""Tokens that floats may have lost: who waits exactly as long as told is not refused again."""


class TokenBucket:
    """One tenant's tokens.  Times are seconds of a monotonic clock."""

    __slots__ = ("_at", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self.rate = rate
        """Tokens per second, above 0."""
        self.burst = burst
        self._tokens = float(burst)
        self._at = now

    def _refill(self, now: float) -> None:
        if now > self._at:
            self._tokens = min(float(self.burst), self._tokens + (now - self._at) * self.rate)
            self._at = now

    def take(self, count: int, now: float) -> float:
        """Take `count` tokens; 0.0 when taken, else the seconds to wait, nothing taken."""
        self._refill(now)
        needed = min(count, self.burst)
        if self._tokens + ROUNDING >= needed:
            self._tokens -= count
            return 0.0
        return (needed - self._tokens) / self.rate

    def remaining(self, now: float) -> int:
        """Whole tokens left, never below 0."""
        self._refill(now)
        return max(0, math.floor(self._tokens))

    def full_in_s(self, now: float) -> int:
        """Whole seconds until the bucket is full."""
        self._refill(now)
        return math.ceil((self.burst - self._tokens) / self.rate)


class Charged(msgspec.Struct, frozen=True):
    """What a quota counts."""

    word: str
    """In the plural."""
    own: Callable[[TenantQuota], tuple[float | None, int | None]]
    """A tenant's own rate and burst, where its key file says them."""


COMMANDS: Final = Charged("commands", lambda own: (own.commands_per_s, own.burst))
READS: Final = Charged("reads", lambda own: (own.reads_per_s, own.reads_burst))


class Quotas:
    """The buckets of all tenants.  As many as there are tenants with keys, so bounded."""

    def __init__(
        self,
        rate: float,
        burst: int,
        own: Mapping[str, TenantQuota],
        charged: Charged = COMMANDS,
    ) -> None:
        self._charged = charged
        self._rate = rate
        self._burst = burst
        self._own = own
        self._buckets: dict[str, TokenBucket] = {}
        self._any = rate > 0 or bool(own)
        """Whether there is any quota at all; most engines have none."""

    def replace(self, own: Mapping[str, TenantQuota]) -> None:
        """Take a new table; buckets of tenants whose quota stayed the same keep their level."""
        self._own = own
        self._any = self._rate > 0 or bool(own)
        for tenant, bucket in list(self._buckets.items()):
            if (bucket.rate, bucket.burst) != self._terms(tenant):
                del self._buckets[tenant]

    def _terms(self, tenant: str) -> tuple[float, int]:
        own = self._own.get(tenant)
        rate, burst = (None, None) if own is None else self._charged.own(own)
        return self._rate if rate is None else rate, self._burst if burst is None else burst

    def _bucket(self, tenant: str, now: float) -> TokenBucket | None:
        bucket = self._buckets.get(tenant)
        if bucket is None:
            rate, burst = self._terms(tenant)
            if rate <= 0:
                return None
            bucket = self._buckets[tenant] = TokenBucket(rate, burst, now)
        return bucket

    def take(self, tenant: str, count: int, now: float) -> None:
        """Charge a tenant.  Raises `EngineError` QUOTA with the seconds to wait."""
        bucket = self._bucket(tenant, now) if self._any else None
        if bucket is None:
            return
        wait = bucket.take(count, now)
        if wait > 0:
            raise EngineError(
                f"{count} {self._charged.word} are above the quota of {bucket.rate:g} "
                f"{self._charged.word}/s "
                f"with bursts of {bucket.burst}",
                code="QUOTA",
                retry_after_s=round(wait, 3),
            )

    def headers(self, tenant: str, now: float) -> tuple[tuple[str, str], ...]:
        """``RateLimit`` headers of a tenant under a quota; none without one."""
        bucket = self._bucket(tenant, now) if self._any else None
        if bucket is None:
            return ()
        window = math.ceil(bucket.burst / bucket.rate)
        return (
            ("RateLimit-Policy", f'"{POLICY}";q={bucket.burst};w={window}'),
            ("RateLimit", f'"{POLICY}";r={bucket.remaining(now)};t={bucket.full_in_s(now)}'),
        )
