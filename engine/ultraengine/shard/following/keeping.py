"""Snapshots of a shard that follows, and what of its log goes behind them.

A follower's log would grow for ever without a snapshot of its own: what its leader has removed it
may need itself, at its next start.  One is taken between two groups, by the policy of a shard that
leads, on the thread that executes; copying goes on meanwhile.  What consumers and remembered ids
need stays, as the replicated state says it (it is for a leader to give a slot up); what other
copies need is their leader's concern.
"""

import contextlib
from collections.abc import Mapping
from typing import Final, Protocol

from ultraengine.execution.executor import Executor
from ultraengine.execution.registry import Registry
from ultraengine.log.damage import LogDamaged
from ultraengine.log.frame import FrameHeader
from ultraengine.log.reader import LogReader
from ultraengine.log.retention import RetentionReport
from ultraengine.model.ids import Epoch, FrameSequence, ShardId
from ultraengine.ports import Clock
from ultraengine.snapshot.image import ImagePosition
from ultraengine.snapshot.manifest import SnapshotEntry
from ultraengine.snapshot.schedule import Progress, SnapshotPolicy

ASK_EVERY_S: Final = 1.0
IDS: Final = "the memory of ids"


class Kept(Protocol):
    """The log of a follower."""

    def reader(self) -> LogReader:
        """Of what is durable."""

    def retain(
        self, snapshot_offset: int, snapshot_sequence: int, consumers: Mapping[str, int]
    ) -> RetentionReport:
        """Remove what neither the snapshot nor a consumer needs."""


class Checkpoints(Protocol):
    """The part of a shard's memory that is needed."""

    def checkpoint(self, position: ImagePosition) -> bool:
        """Keep what was executed so far as a snapshot; whether it could be kept."""


class Snapshots(Protocol):
    """The snapshots on this disk."""

    @property
    def newest(self) -> SnapshotEntry | None:
        """What a start would load up to."""

    def log_floor(self) -> SnapshotEntry | None:
        """The log is to be kept from this one's position on."""


class Keeping:
    """Of one follower.  Used on the thread that executes."""

    def __init__(
        self,
        registry: Registry,
        shard: ShardId,
        memory: Checkpoints,
        snapshots: Snapshots,
        policy: SnapshotPolicy,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._shard = shard
        self._memory = memory
        self._snapshots = snapshots
        self._policy = policy
        self._clock = clock
        self._taken_at = self._asked_at = clock.monotonic()
        self._took_s = 0.0
        self._failures = 0
        self._failed_at = 0.0

    def before(self, executor: Executor, group: FrameHeader, log: Kept) -> RetentionReport | None:
        """Before a group is executed: take a snapshot if one is due; what went of the log then.

        Raises what reading and cutting the log raise.
        """
        now = self._clock.monotonic()
        if now - self._asked_at < ASK_EVERY_S or group.base_offset != executor.applied_end:
            return None
        self._asked_at = now
        if self._policy.due(self._progress(executor, now)) is None:
            return None
        kept = False
        with contextlib.suppress(LogDamaged):
            # The state chain is read from the beginning of a segment, what is executed perhaps not.
            kept = self._memory.checkpoint(self._position(executor, group, log))
        self._asked_at = ended = self._clock.monotonic()
        if not kept:
            self._failures, self._failed_at = self._failures + 1, ended
            return None
        self._failures, self._taken_at, self._took_s = 0, ended, ended - now
        return self._cut(executor, log)

    def _position(self, executor: Executor, group: FrameHeader, log: Kept) -> ImagePosition:
        return ImagePosition(
            shard=self._shard,
            epoch=Epoch(executor.epoch),
            offset_end=executor.applied_end,
            sequence_end=FrameSequence(group.sequence),
            chain=group.chain,
            state_chain=log.reader().state_chain_at(group.sequence),
            time=executor.time,
            handlers=self._registry.handlers,
        )

    def _cut(self, executor: Executor, log: Kept) -> RetentionReport | None:
        floor = self._snapshots.log_floor()
        if floor is None:
            return None
        # A slot that is too slow is dropped by whoever leads, who logs it.  Until that is executed
        # here too, what it needs stays, beyond the cap as well: this copy may lead in a moment.
        end = min([floor.offset_end, *executor.consumers.values()])
        # Retries are answered from recorded outcomes, so ids hold the log like a consumer.
        return log.retain(end, floor.sequence_end, {IDS: int(executor.dedupe.floor_offset)})

    def _progress(self, executor: Executor, now: float) -> Progress:
        newest = self._snapshots.newest
        return Progress(
            commands=executor.applied_end - (0 if newest is None else newest.offset_end),
            elapsed_s=now - self._taken_at,
            last_duration_s=self._took_s,
            failures=self._failures,
            since_failure_s=now - self._failed_at,
        )
