"""The log's driver: threads, queue and life cycle around `opening`, `appender` and `space`.

    caller ── write ──> queue ──> flush thread: append, sync, on_durable
                                  keeper thread: prepares segments, the reserve, MARK at a roll

The flush thread encodes, checksums, compresses and encrypts; these release the GIL for large
payloads.  Whatever is queued while one flush runs goes into the next one.  No timer takes
part in a flush.  Any error but a full disk ends the log: `on_failure` is called once, and
nothing is written afterwards.
"""

import contextlib
import errno
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from ultraengine.log import frame as frames
from ultraengine.log.appender import Appender, Request, Written
from ultraengine.log.archive import Archive
from ultraengine.log.archived import ArchivedSegments
from ultraengine.log.catalog import Catalog
from ultraengine.log.digest import require_fast_crc32c
from ultraengine.log.frame import Frame, FrameDraft, frame_bytes_at_most
from ultraengine.log.identity import LogIdentity
from ultraengine.log.mark import Mark
from ultraengine.log.opening import LogOptions, Recovered, TornTail, open_log, write_mark
from ultraengine.log.reader import LogReader, RecordedGroup
from ultraengine.log.retention import RetentionReport
from ultraengine.log.segment import KeyRing, Point
from ultraengine.log.serializer import serializers
from ultraengine.log.space import Prepared, Space
from ultraengine.log.trimmer import Trimmer
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ConfigVersion, Epoch
from ultraengine.model.policy import CompactionPolicy, LogSerializer
from ultraengine.ports import Clock, Disk, DiskFull, Lock, ObjectStore, Random, Secrets

__all__ = [
    "Log",
    "LogOptions",
    "LogReader",
    "OnDurable",
    "RecordedGroup",
    "Recovered",
    "RetentionReport",
    "TornTail",
    "Written",
]

SPACE_RETRY_S: Final = 1.0
"""How often room is looked for on a full disk."""
_STOP_SEGMENT_BYTES: Final = 64 * 1024
"""Length of a segment that is only needed for the last outcomes of a stop."""

OnDurable = Callable[[Written], object]
OnFailure = Callable[[BaseException], object]


class _Queued(msgspec.Struct, frozen=True, gc=False):
    """A write on its way to the flush thread."""

    request: Request
    on_durable: OnDurable


class _Stopping(Exception):
    """The keeper was told to stop between two chunks of zeros."""


class Log:
    """One shard's log, open for writing.  Made by ``Log.open``."""

    recovered: Recovered
    """Where the log stood when it was opened."""
    identity: LogIdentity
    """Content of IDENTITY."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        random: Random,
        ring: KeyRing,
        options: LogOptions,
        codecs: Mapping[int, LogSerializer],
    ) -> None:
        self._disk = disk
        self._codecs = codecs
        self._limits = options.limits
        self._queue: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        self._submitted = self._completed = 0
        self._threads: list[threading.Thread] = []
        self._keeper: threading.Thread | None = None
        self._on_failure: OnFailure | None = None
        self._failure: BaseException | None = None
        self._closed = False
        self._stopping = False
        self._draining = False
        self._wake = threading.Event()
        self._mark_due = False
        self._rolls_marked = 0
        # Taken in this order, if more than one is.
        self._flushing = threading.Lock()
        self._space_guard = threading.Lock()
        self._gate = threading.Lock()
        self._keeping = threading.Lock()
        self._mark_guard = threading.Lock()
        self._index_guard = threading.Lock()
        self._retain_guard = threading.Lock()
        self._failure_guard = threading.Lock()
        self._space = Space(disk, options.limits, between_chunks=self._between_chunks)
        self._keeping.acquire()
        try:
            opened = open_log(disk, clock, random, ring, self._space, options)
        finally:
            self._keeping.release()
        self.recovered = opened.recovered
        self.identity = opened.identity
        self._lock: Lock = opened.lock
        self._stamp = opened.stamp
        durable = Mark(opened.point.sequence, opened.point.chain)
        self._catalog = Catalog(opened.segments, durable, threading.Lock())
        self._archived: ArchivedSegments | None = None
        """What was removed from the log and stored."""
        logged_time = lambda: self.point.time  # noqa: E731  (used once, below)
        self._trimmer = Trimmer(disk, logged_time, options.limits, self._catalog, self.reader())
        self._appender = Appender(
            disk,
            clock,
            random,
            ring,
            opened.stamp,
            options.limits.segment_bytes,
            opened.current,
            opened.point,
            self._catalog,
            self._take,
        )

    @classmethod
    def open(
        cls,
        disk: Disk,
        clock: Clock,
        random: Random,
        secrets: Secrets,
        options: LogOptions,
        *,
        codecs: Sequence[LogSerializer] = (),
        compaction: CompactionPolicy | None = None,
        store: ObjectStore | None = None,
    ) -> "Log":
        """Recover the log in `disk` and open a new segment.  Blocks.

        `codecs` are users' own serializers (64 to 255).  `compaction` says what of the
        removed segments goes to `store`; without both, nothing does.

        Raises `LogDamaged` with file, byte position, sequence and offset; `LogInUse`;
        `LogRefused` for keys, formats, a wrong volume or a slow CRC-32C; `DiskFull`; OSError.
        """
        require_fast_crc32c()
        if (compaction is None) != (store is None):
            raise InvariantBroken("a compaction policy and its store are given together")
        ring = KeyRing(secrets)
        log = cls(disk, clock, random, ring, options, serializers(codecs))
        if store is not None:
            log._archived = ArchivedSegments(store, options.shard, ring)
        if compaction is not None and store is not None and compaction.name != "none":
            log._trimmer.archive = Archive(store, compaction, disk, random, ring, log._stamp)
        return log

    def start(self, on_failure: OnFailure, *, threads: bool = True) -> None:
        """Start the flush thread and the keeper.

        `on_failure` is called once, on any thread, after an error that ended the log: the
        process must stop.  Without `threads` (simulations) writes happen in ``write`` itself
        and ``maintain`` does the keeper's work.
        """
        if self._on_failure is not None:
            raise InvariantBroken("a log is started once")
        self._on_failure = on_failure
        if not threads:
            self.maintain()
            return
        flusher = threading.Thread(target=self._flush_loop, name="log-flush", daemon=True)
        self._keeper = threading.Thread(target=self._keep_loop, name="log-keeper", daemon=True)
        self._threads = [flusher, self._keeper]
        for thread in self._threads:
            thread.start()
        self._wake.set()

    def write(
        self, drafts: Sequence[FrameDraft], on_durable: OnDurable, *, sync: bool = True
    ) -> None:
        """Queue one write of these frames; `on_durable` is called on the flush thread.

        Call it from one thread.  Frames of one call lie in one segment and are refused
        together when there is no room (``Written.error``); then nothing of them was written,
        and what was formed on top of them is refused as well.  With ``sync=False`` the call
        reports after the write alone; a later write with ``sync``, or without drafts, makes
        it durable.  After a failure or ``close`` nothing happens any more.
        """
        if self._on_failure is None:
            raise InvariantBroken("a log is written after its start")
        self._submit(Request(drafts, sync), on_durable)

    def copy(self, copied: Sequence[Frame], on_durable: OnDurable, *, sync: bool = True) -> None:
        """Queue one write of frames that another replica has formed, as they are there.

        Otherwise as ``write``.  A frame that does not continue this log by sequence and chain
        ends the log.
        """
        if self._on_failure is None:
            raise InvariantBroken("a log is written after its start")
        drafts = [frames.draft_of(frame) for frame in copied]
        places = [frames.place_of(frame.header) for frame in copied]
        self._submit(Request(drafts, sync, places), on_durable)

    def stamp(self, epoch: Epoch, config_version: ConfigVersion) -> None:
        """What frames of this process carry from now on: another leadership, another record.

        Only while ``idle``.  Raises `InvariantBroken`.
        """
        if not self.idle:
            raise InvariantBroken("frames are stamped anew between writes")
        with self._flushing:
            self._appender.stamp(epoch, config_version)

    def _submit(self, request: Request, on_durable: OnDurable) -> None:
        if self._closed or self._failure is not None:
            return
        self._submitted += 1
        self._queue.put(_Queued(request, on_durable))
        if not self._threads and not self._draining:
            self._flush_here()

    def sync(self, on_durable: OnDurable) -> None:
        """Make durable what was written with ``sync=False``."""
        self.write((), on_durable)

    def takes_now(self, drafts: Sequence[FrameDraft], bytes_max: int) -> bool:
        """Whether `write_now` would wait for nothing but one write, of at most `bytes_max`, and
        one sync: nothing is queued or written, no fork is made, and the segment has room."""
        if not self.idle or self._closed or self._failure or self._flushing.locked():
            return False
        size = sum(frame_bytes_at_most(len(draft.payload)) for draft in drafts)
        return size <= min(bytes_max, self._appender.room_bytes)

    def write_now(self, drafts: Sequence[FrameDraft], *, sync: bool = True) -> Written | None:
        """Write on the caller's thread, without a hop; only while ``idle``.

        Blocks for the disk.  None after a failure that ended the log, which `on_failure` has
        been told: then nobody knows what is durable, as when ``write`` never reports.
        """
        if not self.idle or self._closed or self._on_failure is None:
            raise InvariantBroken("write_now needs an idle log", idle=self.idle)
        if self._failure is not None:
            return None
        try:
            with self._flushing:
                return self._append([Request(drafts, sync)])[0]
        except BaseException as error:  # noqa: BLE001  (handed on; the log is at its end)
            self._fail(error)
            return None

    @property
    def idle(self) -> bool:
        """No write is queued or running."""
        return self._submitted == self._completed

    @property
    def point(self) -> Point:
        """Where the next frame goes; only while ``idle``."""
        return self._appender.point

    @property
    def read_only(self) -> bool:
        """There is too little space; it is looked for again every second."""
        space, appender = self._space, self._appender
        if not space.full:
            return False
        return (
            space.reserve_missing
            or appender.refusing is not None
            or (not space.ready and appender.room_bytes < self._limits.segment_bytes // 2)
        )

    @property
    def durable(self) -> Mark:
        """Durable end and the chain there."""
        return self._catalog.durable

    @property
    def first_offset(self) -> int:
        """First offset that is still in the log; commands below it were cut."""
        return self._catalog.segments[0].header.point.offset

    def reader(self, *, archived: bool = False) -> LogReader:
        """A reader of what is durable, and with `archived` of what was, as far as it is stored.

        Thread-safe; may outlive neither disk nor process.
        """
        older = self._archived if archived else None
        return LogReader(self._disk, self._catalog, self._codecs, self._index_guard, older)

    def mark(self) -> bool:
        """Write MARK with the durable end of now; after each verified snapshot.  Blocks.

        False when there was no room, in which case the old one stays.  Raises OSError, which
        ends the log.
        """
        with self._mark_guard:
            if self._failure is not None:
                return False
            try:
                write_mark(self._disk, self._catalog.durable)
            except DiskFull:
                return False
            except OSError as error:
                self._fail(error)
                raise
        return True

    def retain(
        self, snapshot_offset: int, snapshot_sequence: int, consumers: Mapping[str, int]
    ) -> RetentionReport:
        """Archive and remove what neither the snapshot nor a consumer needs.  Blocks.

        The snapshot is a verified one; nothing at or above its sequence or offset goes.
        `consumers` maps names to the first offset they still need.  Also writes MARK.  May be
        called from any thread; a failing archive keeps the segments and raises an alarm.
        Raises OSError of the disk, which ends the log.
        """
        with self._retain_guard:
            if self._closed or self._failure is not None:
                return RetentionReport()
            self.mark()
            try:
                return self._trimmer.trim(snapshot_offset, snapshot_sequence, consumers)
            except OSError as error:
                self._fail(error)
                raise

    def maintain(self) -> None:
        """The keeper's work once: MARK after a roll, the reserve, segments ahead.  Blocks."""
        if self._mark_due and self.mark():
            self._mark_due = False
        with self._space_guard:
            while self._space.missing and not self._stopping:
                with self._keeping:
                    if not self._space.step():
                        return
            # Everything that is kept ahead is there, so a refused write may try again.
            self._space.full = False

    def release_reserve(self) -> None:
        """Give the reserved space back, so that a stop on a full disk can write the last
        outcomes and MARK.  Nothing is kept ahead from now on; blocks shortly."""
        with self._flushing, self._space_guard:
            self._space.stop()
            self._appender.segment_bytes = min(self._limits.segment_bytes, _STOP_SEGMENT_BYTES)

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """No flush and no preparation runs inside: the moment for a fork."""
        with self._flushing, self._gate, self._keeping:
            yield

    def close(self, *, clean: bool) -> None:
        """Stop.  Clean: write what is queued, seal the segment, write MARK.

        Not clean: whatever is queued stays unwritten.  Idempotent.  Raises OSError.
        """
        if self._closed:
            return
        self._closed = True
        self._stopping = True
        clean = clean and self._failure is None
        if not clean:
            self._failure = self._failure or InvariantBroken("the log was closed")
        self._queue.put(None)
        self._wake.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        try:
            if clean and self._failure is None:
                self._appender.seal()
                self._space.discard()
                if not self.mark():
                    self._space.stop()
                    self.mark()
            else:
                self._appender.close()
        finally:
            self._lock.release()

    def _append(self, requests: Sequence[Request]) -> list[Written]:
        appender = self._appender
        written = appender.append(requests)
        if appender.rolls != self._rolls_marked:
            self._rolls_marked = appender.rolls
            self._mark_due = True
            self._wake.set()
        return written

    def _flush_loop(self) -> None:
        get, empty = self._queue.get, self._queue.empty
        stopped = False
        while not stopped:
            first = get()
            if first is None:
                return
            batch = [first]
            while not empty():
                further = get()
                if further is None:
                    stopped = True
                    break
                batch.append(further)
            if self._failure is not None or not self._flush(batch):
                return

    def _flush_here(self) -> None:
        """Without threads: write until nothing is queued, also what callbacks have queued."""
        self._draining = True
        try:
            while not self._queue.empty():
                queued = self._queue.get()
                if queued is None or not self._flush([queued]):
                    return
        finally:
            self._draining = False

    def _flush(self, batch: list[_Queued]) -> bool:
        """Write one batch and report it.  False after a failure."""
        try:
            with self._flushing:
                done = self._append([queued.request for queued in batch])
            # Before the callbacks, so that whoever hears of the last write finds the log idle.
            self._completed += len(batch)
            for queued, written in zip(batch, done, strict=True):
                queued.on_durable(written)
        except BaseException as error:  # noqa: BLE001  (handed on; the thread ends)
            self._fail(error)
            return False
        return True

    def _keep_loop(self) -> None:
        try:
            while not self._stopping:
                self.maintain()
                waiting = self._space.missing or self._space.full or self._mark_due
                self._wake.wait(SPACE_RETRY_S if waiting else None)
                self._wake.clear()
        except _Stopping:
            return
        except BaseException as error:  # noqa: BLE001  (handed on; the thread ends)
            self._fail(error)

    def _between_chunks(self) -> None:
        """Let a fork through, and end early when the log stops."""
        if self._stopping and threading.current_thread() is self._keeper:
            raise _Stopping
        self._keeping.release()
        try:
            with self._gate:
                pass
        finally:
            self._keeping.acquire()

    def _take(self, file_bytes: int) -> Prepared:
        """A segment for the appender; waits while the keeper makes one.  Raises `DiskFull`."""
        prepared = self._space.take_ready(file_bytes)
        if prepared is None:
            with self._space_guard:
                prepared = self._space.take_ready(file_bytes)
                if prepared is None:
                    if self._threads and self._space.full:
                        # The keeper tries every second; zeros until ENOSPC per write would
                        # only take the last bytes from everybody else.
                        raise DiskFull(errno.ENOSPC, "no room for the next log segment")
                    with self._keeping:
                        prepared = self._space.take(file_bytes)
        self._wake.set()
        return prepared

    def _fail(self, error: BaseException) -> None:
        with self._failure_guard:
            first = self._failure is None
            if first:
                self._failure = error
        if first:
            self._wake.set()
            if self._on_failure is not None:
                self._on_failure(error)
