"""What a shard says of itself, as far as the operator reports it."""

from collections.abc import Mapping
from typing import Any

import msgspec

from ultraengine_operator.observed import SeenFailover, SeenShard


class _Failover(msgspec.Struct):
    old_epoch: int
    new_epoch: int
    acknowledged_offset: int
    promoted_offset: int
    chain: str
    lossless: bool
    silent_since: str
    elected_at: str
    serving_at: str | None = None
    took_s: float | None = None


def seen_shard(shard: int, answer: Mapping[str, Any]) -> SeenShard:
    """From the answer of `GET /admin/v1/status`."""
    offset = answer.get("applied_end", answer.get("log_end", 0))
    return SeenShard(
        shard,
        str(answer.get("state", "")),
        str(answer.get("epoch", 0)),
        str(offset),
        _failover(answer.get("last_failover")),
    )


def _failover(found: Any) -> SeenFailover | None:
    """How its leadership began; None for the first one, of another release, or with one copy."""
    try:
        told = msgspec.convert(found, _Failover)
    except msgspec.ValidationError:
        return None
    if told.old_epoch == 0:
        return None
    return SeenFailover(
        old_epoch=str(told.old_epoch),
        new_epoch=str(told.new_epoch),
        acknowledged_offset=str(told.acknowledged_offset),
        promoted_offset=str(told.promoted_offset),
        chain=told.chain,
        lossless="True" if told.lossless else "Unknown",
        silent_since=told.silent_since,
        elected_at=told.elected_at,
        serving_at=told.serving_at,
        downtime=None if told.took_s is None else f"{told.took_s:.3f}s",
    )
