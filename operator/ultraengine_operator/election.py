"""Who leads among operators: the pure half of an elector on a Lease.

As client-go's: a Lease that has not changed for its duration, by the watcher's own clock, may be
taken; the holder renews it, and stops acting when it could not do so for the renew deadline.
Clocks of machines are never compared. A Lease is no fence: every write that must not come from
an old leader carries a uid or a resourceVersion as well.
"""

from typing import Any, Final

import msgspec

DURATION_S: Final = 15.0
RENEW_DEADLINE_S: Final = 10.0
RETRY_S: Final = 2.0


class Seen(msgspec.Struct, frozen=True):
    """The Lease as it was seen last, and when it was first seen so (monotonic)."""

    version: str
    since_s: float


def watch(seen: Seen | None, lease: dict[str, Any], now_s: float) -> Seen:
    """What is known after looking at the Lease again."""
    version = str(lease["metadata"].get("resourceVersion", ""))
    return seen if seen is not None and seen.version == version else Seen(version, now_s)


def holder_of(lease: dict[str, Any]) -> str:
    """Who holds the Lease; empty when nobody."""
    return str(lease.get("spec", {}).get("holderIdentity") or "")


def may_take(lease: dict[str, Any], seen: Seen, identity: str, now_s: float) -> bool:
    """Whether the Lease is ours, free, or has been silent for its whole duration."""
    duration_s = float(lease.get("spec", {}).get("leaseDurationSeconds") or DURATION_S)
    return holder_of(lease) in ("", identity) or now_s - seen.since_s > duration_s


def taken(lease: dict[str, Any], identity: str, now: str) -> dict[str, Any]:
    """The Lease as its holder writes it; a change of holder is counted."""
    spec = dict(lease.get("spec", {}))
    if spec.get("holderIdentity") != identity:
        spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + bool(spec)
        spec["acquireTime"] = now
    spec.update(holderIdentity=identity, leaseDurationSeconds=int(DURATION_S), renewTime=now)
    return {**lease, "spec": spec}


def released(lease: dict[str, Any], now: str) -> dict[str, Any]:
    """The Lease as a holder leaves it, so that the next one need not wait."""
    return {**lease, "spec": {**lease["spec"], "holderIdentity": "", "renewTime": now}}
