"""Snapshots of a running shard: the cut, the schedule, and the log's retention behind them.

The cut is one exact position: no group is formed until what was accepted is executed and
its outcomes are recorded, then the image is cut (a fork, or the start of a cooperative
snapshot) and groups form again.  The pause is a flush or two and the cut itself.

The history is synced before a snapshot counts, and the log is cut only below a verified one
(requirement 001 §2.1: log compaction; `docs/snapshots.md`).
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final, Protocol

import structlog

from ultraengine.execution.system import RaiseFloor
from ultraengine.log.retention import RetentionReport
from ultraengine.model.ids import Epoch, FrameSequence, Instant, Offset, ShardId
from ultraengine.shard.driver import Shard
from ultraengine.snapshot.driver import Mode, SnapshotDriver, SnapshotTaken
from ultraengine.snapshot.errors import SnapshotBusy, SnapshotFailed
from ultraengine.snapshot.image import Image, ImagePosition
from ultraengine.snapshot.schedule import Progress, SnapshotPolicy

ASK_EVERY_S: Final = 1.0
INCREMENTS_MERGED_AT: Final = 4
"""Increments on one full image that are merged into a new one."""
DEDUPE: Final = "the memory of ids"
"""The idempotency memory among those who need the log; no consumer can have this name."""
BEYOND_THE_CAP: Final = "it held back more of the log than retention_bytes_max"

log = structlog.get_logger("snapshot")


class DurableHistory(Protocol):
    """The part of the history store that snapshots need."""

    @property
    def end(self) -> int:
        """Bytes that belong to what was executed so far."""

    def sync(self) -> None:
        """Make everything appended so far durable.  Blocks."""


class HeldSlots(Protocol):
    """The consumer slots of the feed, as far as they hold the log."""

    def offsets(self) -> Mapping[str, int]:
        """First offset that each consumer still needs, by name."""

    def drop(self, name: str, reason: str) -> None:
        """Wait for this one no more; logged."""


class SpilledIds(Protocol):
    """The part of the idempotency memory that lies in files."""

    @property
    def is_spilled(self) -> bool:
        """Whether ids lie in files that only this process has open."""

    def steady(self) -> AbstractContextManager[None]:
        """The files stay as they are inside."""


class Snapshots:
    """Takes the snapshots of one shard, one at a time."""

    def __init__(
        self,
        shard: Shard,
        driver: SnapshotDriver,
        image: Image,
        history: DurableHistory,
        policy: SnapshotPolicy,
        mode: Mode,
        spilled: SpilledIds,
        slots: HeldSlots | None = None,
    ) -> None:
        self._shard = shard
        self._driver = driver
        self._image = image
        self._history = history
        self._policy = policy
        self._mode: Mode = mode
        self._spilled = spilled
        self._slots = slots
        self._taking = asyncio.Lock()
        self._taken_at = time.monotonic()
        self._failures = 0
        self._failed_at = 0.0
        self._last_duration_s = 0.0
        self._rate = _Rate(shard.executor.applied_end)
        self.elsewhere: Callable[[], tuple[int, int] | None] | None = None
        """(offset, frame) of the newest snapshot that lies outside of this disk as well: the log is
        kept from there on, all of it while there is none.  None = this disk is enough."""
        shard.executor.before_mutation = driver.before_slot_mutation
        shard.snapshot = self.newest

    def newest(self) -> tuple[int | None, float | None]:
        """(first offset not in the newest verified snapshot, seconds since its cut)."""
        entry = self._driver.newest
        if entry is None:
            return None, None
        return entry.offset_end, time.monotonic() - self._taken_at

    async def run(self) -> None:
        """Ask the policy every second, until cancelled."""
        while True:
            await asyncio.sleep(ASK_EVERY_S)
            reason = self._policy.due(self._progress())
            if reason is None:
                continue
            log.info("snapshot.due", shard=self._shard.executor.shard, reason=reason)
            with contextlib.suppress(SnapshotFailed, SnapshotBusy):
                await self.take()

    def _progress(self) -> Progress:
        newest = self._driver.newest
        end = self._shard.executor.applied_end
        now = time.monotonic()
        replay = self._shard.replay_per_s
        return Progress(
            commands=end - (0 if newest is None else newest.offset_end),
            elapsed_s=now - self._taken_at,
            replay_per_s=replay,
            arrivals_per_s=self._rate.update(end, now),
            last_duration_s=self._last_duration_s,
            failures=self._failures,
            since_failure_s=now - self._failed_at,
            running=self._taking.locked(),
        )

    async def take(self) -> SnapshotTaken:
        """Take one now and cut the log behind it.

        Raises `SnapshotBusy` while another one runs, `SnapshotFailed` with the reason.
        """
        if self._taking.locked():
            raise SnapshotBusy("another snapshot of this shard is running")
        async with self._taking:
            try:
                taken = await self._take()
            except SnapshotFailed as error:
                self._failures += 1
                self._failed_at = time.monotonic()
                self._shard.alarm(
                    "snapshot.failed",
                    offset=self._shard.executor.applied_end,
                    detail=str(error),
                    error=error,
                )
                raise
            self._failures = 0
            self._last_duration_s = taken.duration_s
            self._shard.metrics.snapshots.inc()
            self._shard.metrics.snapshot_offset.set(taken.entry.offset_end)
            log.info(
                "snapshot.taken",
                shard=self._shard.executor.shard,
                offset_end=taken.entry.offset_end,
                bytes=taken.entry.bytes,
                pause_s=round(taken.pause_s, 6),
                duration_s=round(taken.duration_s, 3),
            )
            await self.cut_log()
            await self._merge()
            return taken

    async def _merge(self) -> None:
        """Keep chains of increments short: loading them costs a start its time."""
        if self._driver.increments < INCREMENTS_MERGED_AT:
            return
        try:
            await self._driver.compact("inline" if self._mode == "inline" else "fork")
        except SnapshotFailed as error:
            self._shard.alarm(
                "snapshot.merge_failed",
                offset=self._shard.executor.applied_end,
                detail=str(error),
                error=error,
            )

    @contextlib.asynccontextmanager
    async def undisturbed(self) -> AsyncIterator[None]:
        """No snapshot is taken, merged or removed inside: the moment to read one."""
        async with self._taking:
            yield

    async def _take(self) -> SnapshotTaken:
        mode = self._mode
        if mode == "fork" and self._spilled.is_spilled:
            # A child has no descriptors but its own, and spilled ids are read from open files.
            mode = "cooperative"
        with self._spilled.steady():
            return await self._take_as(mode)

    async def _take_as(self, mode: Mode) -> SnapshotTaken:
        await self._sync_history()  # The bulk, while commands go on.
        await self._shard.hold()
        try:
            await self._sync_history()
            position = self.position()
            self._taken_at = time.monotonic()
            if self._shard.executor.moves.take_dropped():
                self._driver.require_full()
            work = self._driver.take(self._image, position, mode)
        finally:
            self._shard.release()
        return await work

    async def _sync_history(self) -> None:
        try:
            await asyncio.to_thread(self._history.sync)
        except OSError as error:
            raise SnapshotFailed(f"the history cannot be made durable: {error}") from error

    def position(self) -> ImagePosition:
        """Where the shard stands.  Only exact while it is held or at rest."""
        shard, stand = self._shard, self._shard.stand
        return ImagePosition(
            shard=ShardId(shard.executor.shard),
            epoch=Epoch(shard.epoch),
            offset_end=Offset(shard.executor.applied_end),
            sequence_end=FrameSequence(stand.end_sequence),
            chain=stand.chain,
            state_chain=stand.state_chain,
            time=Instant(shard.machine.time),
            handlers=shard.registry.handlers,
            history_end=self._history.end,
        )

    async def cut_log(self) -> RetentionReport | None:
        """Drop what every verified snapshot and every consumer no longer needs."""
        floor = self._driver.log_floor()
        if floor is None:
            return None
        offset_end, sequence_end = int(floor.offset_end), int(floor.sequence_end)
        if self.elsewhere is not None:
            there = self.elsewhere()
            if there is None:
                return None
            offset_end, sequence_end = min(offset_end, there[0]), min(sequence_end, there[1])
        dedupe = self._shard.executor.dedupe
        # Retries are answered from recorded outcomes, so ids hold the log like a consumer.
        held = {} if self._slots is None else self._slots.offsets()
        consumers = {**held, DEDUPE: int(dedupe.floor_offset)}
        report = await asyncio.to_thread(
            self._shard.log.retain, Offset(offset_end), FrameSequence(sequence_end), consumers
        )
        # Also when an earlier cut dropped it and the floor was never recorded.
        if report.first_offset > dedupe.floor_offset:
            self._shard.log_own(RaiseFloor(report.first_offset))
        if self._slots is not None:
            for name in report.dropped:
                if name != DEDUPE:
                    self._slots.drop(name, BEYOND_THE_CAP)
                    self._shard.metrics.consumers_dropped.inc()
        for alarm in report.alarms:
            self._shard.alarm("retention", offset=floor.offset_end, detail=alarm, error=None)
        return report

    async def stop(self) -> None:
        """Wait for the one that is being taken, if any."""
        async with self._taking:
            return


class _Rate:
    """Commands per second, between two looks."""

    def __init__(self, end: int) -> None:
        self._end, self._at = end, time.monotonic()

    def update(self, end: int, now: float) -> float:
        passed = now - self._at
        rate = (end - self._end) / passed if passed > 0 else 0.0
        self._end, self._at = end, now
        return rate
