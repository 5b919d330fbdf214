"""What a shard says of itself: to operators, probes and `ultra status`."""

import msgspec

from ultraengine.model.instant import format_instant
from ultraengine.shard.flush_times import FlushTimes
from ultraengine.shard.machine import Machine
from ultraengine.shard.parts import ShardParts
from ultraengine.shard.status import ShardState


class ConsumerStatus(msgspec.Struct, frozen=True):
    """A consumer slot of the feed."""

    name: str
    offset: int
    """Everything below is confirmed."""
    lag: int
    """Executed commands that it has not confirmed."""


class ShardStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A report; nothing reads it back to decide."""

    shard: int
    role: str
    state: ShardState
    reason: str
    """Why it is not serving, for people; empty while it serves."""
    epoch: int
    log_end: int
    """Next offset to assign."""
    durable_end: int
    """First offset not durable here."""
    applied_end: int
    """First offset not executed."""
    time: str
    """Stamped time of the last executed command."""
    durability: str
    waiting_commands: int
    waiting_bytes: int
    in_flight: int
    flushes: int
    flush_p50_us: float
    flush_p99_us: float
    replayed: int
    """Commands replayed at the last start."""
    replay_s: float
    snapshot_offset: int | None
    """First offset not in the newest verified snapshot."""
    snapshot_age_s: float | None
    dedup_floor_time: str | None
    first_offset: int
    """First offset that the log holds still."""
    consumers: list[ConsumerStatus]
    """By name; the slowest may hold the log."""
    handlers: dict[str, int]
    alarms: int
    """Since the start; each was logged."""


def report(
    machine: Machine,
    flushes: FlushTimes,
    *,
    state: ShardState,
    reason: str,
    parts: ShardParts,
    snapshot: tuple[int | None, float | None],
    alarms: int,
) -> ShardStatus:
    """Put the report together; `snapshot` is (first offset not in the newest, its age in s)."""
    executor = machine.executor
    floor = executor.dedupe.floor_time
    return ShardStatus(
        shard=executor.shard,
        role="leader",
        state=state,
        reason=reason,
        epoch=machine.epoch,
        log_end=machine.log_end,
        durable_end=machine.durable_end,
        applied_end=executor.applied_end,
        time=format_instant(executor.time),
        durability=machine.durable.policy,
        waiting_commands=len(machine.waiting),
        waiting_bytes=machine.waiting_bytes,
        in_flight=len(machine.in_flight),
        flushes=flushes.count,
        flush_p50_us=flushes.quantile(0.5) * 1e6,
        flush_p99_us=flushes.quantile(0.99) * 1e6,
        replayed=parts.replayed,
        replay_s=parts.replay_s,
        snapshot_offset=snapshot[0],
        snapshot_age_s=snapshot[1],
        dedup_floor_time=format_instant(floor) if floor else None,
        first_offset=parts.log.first_offset,
        consumers=[
            ConsumerStatus(name, offset, max(0, executor.applied_end - offset))
            for name, offset in sorted(executor.consumers.items())
        ],
        handlers=executor.registry.handlers,
        alarms=alarms,
    )
