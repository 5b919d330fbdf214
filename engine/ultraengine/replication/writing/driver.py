"""What a replica keeps on its disk: the log, and what it has sworn.

Everything but a write is durable at the return.  A write is in the file at the return and its flush
under way: frames are sent meanwhile, and `on_synced` is called when the flush has ended.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from ultraengine.log.archived import check_owner
from ultraengine.log.damage import LogRefused
from ultraengine.log.driver import Log, LogOptions, OnDurable, Recovered, Written
from ultraengine.log.frame import Frame, FrameDraft
from ultraengine.log.mending import truncate
from ultraengine.log.space import write_file
from ultraengine.log.survey import read_all
from ultraengine.model.ids import ConfigVersion, Epoch, ShardId
from ultraengine.model.policy import CompactionPolicy, LogSerializer
from ultraengine.ports import Clock, Disk, ObjectStore, Random, RecordStore, Secrets
from ultraengine.replication import wire
from ultraengine.replication.effects import ReplicaLimits
from ultraengine.replication.installing.place import put_in_place
from ultraengine.replication.installing.stock import NO_STOCK, Stock
from ultraengine.replication.log_view import OpenLog
from ultraengine.replication.planner import PlannerLimits
from ultraengine.replication.promise import Promise, adopted
from ultraengine.replication.record import DiskId, Holder, ReplicaId, Seat
from ultraengine.replication.sizing import Wish
from ultraengine.replication.stored import (
    STORED_PATH,
    STORED_TEMPORARY,
    Stored,
    decode_stored,
    encode_stored,
)

READ_HERE_MAX: Final = 4
"""So many frames are read on the event loop; more on a thread."""
READ_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of frames read at once, unless a single one is longer: nothing else is done meanwhile."""

_ANY_EPOCH: Final = Epoch(2**62)
"""To open a log of which nobody knows whether it is empty; nothing is stamped with it."""

log = structlog.get_logger("replication")


class ReplicaOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which replica this is, and of what."""

    shard: ShardId
    replica: ReplicaId
    addresses: tuple[tuple[str, int], ...]
    """Host and port of every replica, by its number."""
    host: str | None = None
    """To listen at; None = as the others are told."""
    cluster_uid: bytes
    """16 bytes; of the engine that all of them belong to."""
    wish: Wish
    """How many copies there are to be; the record says how many there are."""
    adopts: bool = False
    """Whether a log that was not replicated may become the first copy."""
    log: LogOptions
    codecs: tuple[LogSerializer, ...] = ()
    compaction: CompactionPolicy | None = None
    """With the world's ``archive``: what goes there before it leaves the log."""
    certificates: Path | None = None
    catch_up_bytes_per_s: float = 0.0
    """Of snapshots that are sent to copies, all together; 0: as fast as it goes."""
    url: str = ""
    """Where clients reach this replica, for those who ask another one."""
    limits: ReplicaLimits = ReplicaLimits()
    planner: PlannerLimits = PlannerLimits()


class ReplicaWorld(msgspec.Struct, frozen=True):
    """The ports of a replica."""

    disk: Disk
    clock: Clock
    random: Random
    secrets: Secrets
    records: RecordStore
    stock: Stock = NO_STOCK
    archive: ObjectStore | None = None
    """One for all copies."""


def read_stored(disk: Disk) -> Stored:
    """What the disk has sworn; nothing on a new one."""
    try:
        return decode_stored(read_all(disk, STORED_PATH))
    except FileNotFoundError:
        return Stored()


class ReplicaFiles:
    """The directory of one life of a replica.  Used on the event loop's thread, but for `open`."""

    view: OpenLog
    me: Holder
    promise: Promise
    """At the start."""

    def __init__(
        self,
        world: ReplicaWorld,
        options: ReplicaOptions,
        *,
        on_failure: Callable[[BaseException], None],
        on_synced: Callable[[], None],
    ) -> None:
        """Both are called on the event loop: what ended the log, and after each flush."""
        self._world = world
        self._options = options
        self._on_failure = on_failure
        self._on_synced = on_synced
        self._loop = asyncio.get_running_loop()
        self._cutting = False
        self._began: float | None = None
        self._again = False
        self._ended = asyncio.Event()
        self._stamped: tuple[Epoch, ConfigVersion] | None = None
        self._read_last: tuple[int, int, list[bytes]] = (0, 0, [])

    def open(self) -> None:
        """Open the log and count this life.  Blocks.

        A new copy that lies beside the old one is put in its place first.  The directory is locked
        before anything in it is changed.  Raises what ``Log.open``
        raises, and `LogRefused` for a log that was not replicated, unless it may be adopted: then
        it is as if its epochs had been sworn to nobody in particular.
        """
        disk = self._world.disk
        put_in_place(disk)
        known = disk.exists(STORED_PATH)
        opened = self._open_log(read_stored(disk).promise.epoch if known else _ANY_EPOCH)
        try:
            if self._world.archive is not None:
                shard, owner = self._options.shard, opened.identity.cluster_uid
                check_owner(self._world.archive, shard, owner)
            stored = read_stored(disk)
            if opened.recovered.end_sequence and not known:
                if not self._options.adopts:
                    raise LogRefused(
                        "the directory holds a log that was not replicated; with ULTRA_ADOPT "
                        "replica 0 makes it the first copy"
                    )
                log.info("log.adopted", end=opened.recovered.end_sequence)
                stored = msgspec.structs.replace(
                    stored, promise=adopted(opened.recovered.last_epoch)
                )
            self._stored = msgspec.structs.replace(stored, start=stored.start + 1)
            self._store()
            self.view = OpenLog(opened)
        except BaseException:
            opened.close(clean=False)
            raise
        seat = Seat(self._options.replica, DiskId(opened.identity.disk_uuid))
        self.me, self.promise = Holder(seat, self._stored.start), stored.promise
        self._start(opened)

    def _open_log(self, epoch: Epoch) -> Log:
        world, options = self._world, self._options
        told = msgspec.structs.replace(
            options.log,
            epoch=epoch,
            cluster_uid=options.cluster_uid,
            replica=str(options.replica),
            adopts=options.adopts and not world.disk.exists(STORED_PATH),
        )
        return Log.open(
            world.disk,
            world.clock,
            world.random,
            world.secrets,
            told,
            codecs=options.codecs,
            compaction=options.compaction,
            store=world.archive,
        )

    def _start(self, opened: Log) -> None:
        opened.start(lambda error: self._loop.call_soon_threadsafe(self._on_failure, error))

    def _store(self) -> None:
        write_file(self._world.disk, STORED_PATH, STORED_TEMPORARY, encode_stored(self._stored))

    async def close(self, *, clean: bool) -> None:
        """Close the log.  Idempotent."""
        await asyncio.to_thread(lambda: self.view.log.close(clean=clean))

    async def swear(self, promise: Promise) -> None:
        """Sync a promise.  Raises OSError: then nothing may be answered any more."""
        self._stored = msgspec.structs.replace(self._stored, promise=promise)
        await asyncio.to_thread(self._store)

    async def cut(self, end: int) -> None:
        """End the log before frame `end`; what is cut is kept in ``broken/``."""
        await self._flushed()
        before, world, epoch = self.view.log, self._world, self._stored.promise.epoch

        def cut() -> Log:
            before.close(clean=False)
            truncate(world.disk, end - 1, clock=world.clock, secrets=world.secrets)
            opened = self._open_log(epoch)
            self._start(opened)
            return opened

        log.warning("log.cut", end=end, was=self.view.end)
        self._cutting = True
        self.view.reopened(await asyncio.to_thread(cut))
        self._cutting = False
        self._stamped, self._read_last = None, (0, 0, [])

    @property
    def readable(self) -> Log | None:
        """The log as it is open now; None while a cut closes it and opens it anew."""
        return None if self._cutting else self.view.log

    async def copy(self, frames: tuple[Frame, ...]) -> Written:
        """Write a leader's frames; not done when there is no room, as ``Written.error`` says."""
        written = await self._write(lambda tell: self.view.log.copy(frames, tell, sync=False))
        if written.error is None:
            self.view.copied(frames, written)
            self._flush()
        return written

    async def append(
        self, drafts: Sequence[FrameDraft], epoch: Epoch, version: ConfigVersion
    ) -> Written:
        """Write frames of an epoch that is led here; likewise."""
        if self._stamped != (epoch, version):
            await self._flushed()
            self.view.log.stamp(epoch, version)
            self._stamped = (epoch, version)
        begin = self.view.end
        written = await self._write(lambda tell: self.view.log.write(drafts, tell, sync=False))
        if written.error is None:
            if 0 < written.bytes <= READ_BYTES_MAX and written.frames:
                # What is on the disk is what travels: it need not be read again.
                self._read_last = (begin, int(written.end_sequence), list(written.frames))
                written = msgspec.structs.replace(written, frames=())
            self.view.grown(epoch, written)
            self._flush()
        return written

    async def _write(self, submit: Callable[[OnDurable], None]) -> Written:
        future: asyncio.Future[Written] = self._loop.create_future()

        def settle(written: Written) -> None:
            if not future.done():
                future.set_result(written)

        submit(lambda written: self._loop.call_soon_threadsafe(settle, written))
        return await future

    def _flush(self) -> None:
        """Sync what is written, unless that is under way; then once more."""
        if self._began is not None:
            self._again = True
            return
        self._began = self._world.clock.monotonic()
        self._ended.clear()
        self.view.log.sync(lambda _written: self._loop.call_soon_threadsafe(self._synced))

    def _synced(self) -> None:
        self._began = None
        self._ended.set()
        if self._again:
            self._again = False
            self._flush()
        self._on_synced()

    async def _flushed(self) -> None:
        """Wait until no flush is under way."""
        while self._began is not None:
            await self._ended.wait()

    @property
    def flush_age_s(self) -> float:
        """How long the oldest flush has been under way."""
        return 0.0 if self._began is None else self._world.clock.monotonic() - self._began

    async def frames(self, position: int, end: int) -> list[bytes]:
        """Frames as they travel, at least one, up to `READ_BYTES_MAX`: perhaps not all of them.

        The last ones are kept, since every follower gets the same.  Raises `BelowRetention`.
        """
        if self._read_last[:2] == (position, end):
            return self._read_last[2]

        def read() -> list[bytes]:
            found: list[bytes] = []
            size = 0
            for one in self.view.log.reader().frames(position, end, unsynced=True):
                raw = wire.stored(one, compress=self._options.log.compress)
                if found and size + len(raw) > READ_BYTES_MAX:
                    break
                found.append(raw)
                size += len(raw)
            return found

        many = end - position > READ_HERE_MAX
        frames = await asyncio.to_thread(read) if many else read()
        self._read_last = (position, end, frames)
        return frames

    def stand(self) -> Recovered:
        """Where the log stands, for whoever recovers a shard from it; while nothing is written."""
        opened, point = self.view.log, self.view.log.point
        return msgspec.structs.replace(
            opened.recovered,
            end_sequence=point.sequence,
            end_offset=point.offset,
            recorded_end=point.recorded_end,
            last_time=point.time,
            chain=point.chain,
            state_chain=point.state_chain,
            last_epoch=point.epoch,
            last_handlers=point.handlers,
        )
