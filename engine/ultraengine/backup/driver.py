"""Backups of a running shard: on demand, by the clock, and each segment when it is complete.

A backup begins with a snapshot, so that it holds one that is verified and as new as can be, and
is copied while no snapshot is removed and no log is cut; commands go on.  What fails is told
by an alarm and tried again later: the shard does not depend on its backups.
"""

import asyncio
import time
from typing import Final

import msgspec
import structlog

from ultraengine.backup.errors import BackupError
from ultraengine.backup.taking import Source, Taken, archive_sealed, take
from ultraengine.log.damage import LogError
from ultraengine.log.survey import segment_paths
from ultraengine.model.errors import EngineError
from ultraengine.ports import Clock, ObjectStore
from ultraengine.shard.driver import Shard
from ultraengine.shard.snapshotting.driver import Snapshots
from ultraengine.snapshot.errors import SnapshotBusy, SnapshotError

LOOK_EVERY_S: Final = 5.0
"""How often complete segments are looked for."""
RETRY_S: Final = 60.0
"""After a failure."""
BUSY_S: Final = 0.2
"""Until a running snapshot is asked for again."""

log = structlog.get_logger("backup")


class BackupReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an administrator is told of a backup."""

    shard: int
    name: str
    """Of its manifest in the store."""
    location: str
    snapshot_offset: int
    """First offset that is not in the snapshot."""
    state_hash: str | None
    """Of the state there."""
    offset_end: int
    """First offset that is not in the log that was copied."""
    verified_at: int
    """When all of it had been read back, µs since the Unix epoch."""
    sent_objects: int
    sent_bytes: int
    kept_objects: int
    """Objects that were there already."""


class Backups:
    """The backups of one shard, one at a time."""

    def __init__(
        self,
        shard: Shard,
        snapshots: Snapshots,
        source: Source,
        store: ObjectStore,
        location: str,
        clock: Clock,
        interval_s: float,
        *,
        look_every_s: float = LOOK_EVERY_S,
        holds_log: bool = False,
    ) -> None:
        """`holds_log`: the log is cut only below what a backup has."""
        self._shard = shard
        self._snapshots = snapshots
        self._source = source
        self._store = store
        self._location = location
        self._clock = clock
        self._interval_s = interval_s
        self._look_every_s = look_every_s
        self._taking = asyncio.Lock()
        self._taken_at = self._failed_at = -float("inf")
        self._taken_end = 0
        self._sealed: tuple[str, ...] = ()
        """Segments that were complete at the last look."""
        self._holds_log = holds_log
        self._proved: tuple[int, int] | None = None
        """Where the snapshot of the last backup of this process stands."""
        if holds_log:
            snapshots.elsewhere = lambda: self._proved

    async def take(self) -> BackupReport:
        """Back up now; returns when everything was read back.

        Raises `EngineError`: SHARD_UNAVAILABLE when the store or the snapshot fails.
        """
        try:
            async with self._taking:
                taken = await self._take()
        except (BackupError, LogError, SnapshotError, OSError) as error:
            self._failed(error)
            raise EngineError(
                f"the backup failed: {error}", code="SHARD_UNAVAILABLE", retry_after_s=RETRY_S
            ) from error
        self._taken_at, self._taken_end = time.monotonic(), taken.backup.end.offset_end
        report = BackupReport(
            shard=taken.backup.shard,
            name=taken.name,
            location=self._location,
            snapshot_offset=taken.backup.at.offset_end,
            state_hash=taken.backup.state_hash,
            offset_end=taken.backup.end.offset_end,
            verified_at=int(self._clock.now()),
            sent_objects=taken.sent_objects,
            sent_bytes=taken.sent_bytes,
            kept_objects=taken.kept_objects,
        )
        log.info("backup.taken", **msgspec.to_builtins(report))
        return report

    async def _take(self) -> Taken:
        while True:
            try:
                await self._snapshots.take()
                break
            except SnapshotBusy:
                await asyncio.sleep(BUSY_S)
        async with self._snapshots.undisturbed():
            taken = await asyncio.to_thread(take, self._source, self._store, self._clock.now())
            if self._holds_log:
                self._proved = (taken.backup.at.offset_end, taken.backup.at.sequence_end)
                await self._snapshots.cut_log()
            return taken

    async def run(self) -> None:
        """Look every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(self._look_every_s)
            now = time.monotonic()
            if now < self._failed_at + RETRY_S:
                continue
            if self._due(now):
                try:
                    await self.take()
                except EngineError:
                    continue  # Told by an alarm.
            await self._archive()

    def _due(self, now: float) -> bool:
        grown = self._shard.executor.applied_end > self._taken_end
        return self._interval_s > 0 and grown and now >= self._taken_at + self._interval_s

    async def _archive(self) -> None:
        try:
            async with self._taking:
                sealed = tuple(path for _, path in segment_paths(self._source.disk)[:-1])
                if sealed == self._sealed:
                    return
                sent = await asyncio.to_thread(archive_sealed, self._source, self._store)
                self._sealed = sealed
        except (BackupError, LogError, OSError) as error:
            self._failed(error)
            return
        if sent:
            log.info("backup.archived", shard=self._shard.executor.shard, segments=sent)

    def _failed(self, error: BaseException) -> None:
        self._failed_at = time.monotonic()
        self._shard.alarm(
            "backup.failed",
            offset=self._shard.executor.applied_end,
            detail=str(error),
            error=error,
        )

    async def stop(self) -> None:
        """Wait for the one that is being taken, if any."""
        async with self._taking:
            return
