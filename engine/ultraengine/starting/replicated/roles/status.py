"""The status of a shard that is kept in several copies: its own, and what its replica says."""

import msgspec

from ultraengine.replication.watching.report import (
    Difference,
    Failover,
    FollowerReport,
    Positions,
    ReplicaReport,
)
from ultraengine.shard.report import ShardStatus


class LeaderStatus(ShardStatus, frozen=True, kw_only=True):
    """Of the copy that leads.  What a member means is said in `ReplicaReport`."""

    replica: int
    replicas: int
    leader: int | None
    leader_url: str | None
    in_sync: list[int]
    min_isr: int | None
    positions: Positions
    flush_age_s: float
    barred: bool
    divergence: Difference | None
    followers: list[FollowerReport]
    last_failover: Failover | None


class FollowerStatus(ReplicaReport, frozen=True, kw_only=True):
    """Of a copy that follows."""

    shard: int
    state: str
    """``following`` while it is in sync, else ``behind``; ``diverged`` when its execution differs
    from its leader's."""
    reason: str
    applied_end: int
    """First offset not executed here."""
    dedup_floor_time: str | None = None
    alarms: int = 0


def leading(status: ShardStatus, report: ReplicaReport) -> LeaderStatus:
    """Both in one; the role is the replica's, so that who leads no more does not say so."""
    own = msgspec.structs.asdict(status)
    return LeaderStatus(**{**msgspec.structs.asdict(report), **own, "role": report.role})


def following(shard: int, report: ReplicaReport) -> FollowerStatus:
    """Of a copy."""
    found, state = report.divergence, "behind"
    if report.barred:
        state = "diverged"
    elif report.replica in report.in_sync:
        state = "following"
    reason = "" if found is None else f"offset {found.offset} came out differently here"
    return FollowerStatus(
        **msgspec.structs.asdict(report),
        shard=shard,
        state=state,
        reason=reason,
        applied_end=report.positions.executed_end,
        alarms=int(report.barred),
    )
