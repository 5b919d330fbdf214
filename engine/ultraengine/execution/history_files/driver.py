"""`HistoryFile`: the history store of one shard on its disk (format: `execution.history`).

The writer's thread appends without ever touching a file: records wait in memory, where reads
find them, and a background task writes them when there are `FLUSH_BYTES`.  Nothing is synced
per group; ``sync`` is called before a snapshot counts.  Recovery calls ``truncate_to`` with the
snapshot's position, and replay appends the rest again, byte for byte.

Any thread may read, also while the writer appends.  Memory: what waits to be written, and the
indexes of the `SEGMENTS_OPEN_MAX` segments used last, however long the history is.

Errors: a write that failed is tried again with the next flush, because it is a write of the
same bytes at the same place; an append raises only when `WAITING_BYTES_MAX` wait.  After a
failed sync nothing is durable for certain, so every later ``sync`` fails as well until the
process starts again and cuts the history to what was durable before.
"""

import re
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from ultraengine.execution.history import (
    HEADER_BYTES,
    SEGMENT_BYTES,
    Cursor,
    DecodedCommands,
    DomainHistory,
    Placed,
    SegmentHeader,
    SegmentIndex,
    encode_records,
)
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ShardId
from ultraengine.ports import Disk, File

DIRECTORY: Final = "history"
FLUSH_BYTES: Final = 256 * 1024
"""Bytes that wait before a background task writes them."""
SYNC_BYTES: Final = 1024 * 1024
"""Bytes of a file that are written before a background task syncs them.  Left to the system they
would go to the disk at once, tens of megabytes, and a flush of the log behind them."""
WAITING_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes that may wait; more: the append writes them itself."""
SEGMENTS_OPEN_MAX: Final = 64
DECODED_BYTES_MAX: Final = 4 * 1024 * 1024
"""Payload bytes whose decoded events are kept per domain."""

_SEGMENT_NAME: Final = re.compile(r"his-(\d{20})\.seg")

Spawn = Callable[[Callable[[], None]], object]
"""Runs a task on another thread, later."""
Decode = Callable[[bytes], Sequence[Any]]


def segment_files(disk: Disk) -> list[str]:
    """Paths of the history that a shard's directory has.  Raises OSError."""
    names = disk.list(DIRECTORY)
    return [f"{DIRECTORY}/{name}" for name in names if _SEGMENT_NAME.fullmatch(name)]


class _Segment:
    """An open segment file with its index."""

    __slots__ = ("file", "index", "path", "unsynced_bytes")

    def __init__(self, path: str, file: File, index: SegmentIndex) -> None:
        self.path = path
        self.file = file
        self.index = index
        self.unsynced_bytes = 0
        """Written since the last sync; a write that is tried again counts twice."""


class HistoryFile:
    """Implements `executor.HistoryStore`, with files."""

    def __init__(
        self,
        disk: Disk,
        shard: ShardId,
        decoders: Mapping[str, Decode],
        *,
        spawn: Spawn | None = None,
        directory: str = DIRECTORY,
    ) -> None:
        """Find the segments.  Blocking.  ``truncate_to`` must follow before anything else.

        `decoders` decode each domain's events; without `spawn`, appends write by themselves.
        """
        self._disk = disk
        self._shard = shard
        self._decoders = dict(decoders)
        self._spawn = spawn
        self._directory = directory
        self._kept = {domain: DecodedCommands(DECODED_BYTES_MAX) for domain in decoders}
        self._ready = False
        self._cursor = Cursor()
        # Waiting records by offset, in order: those that come, and those being written.
        self._coming: dict[int, tuple[str, bytes]] = {}
        self._placed: list[Placed] = []
        self._coming_bytes = 0
        self._waiting_bytes = 0
        self._writing: dict[int, tuple[str, bytes]] = {}
        self._retry: list[Placed] = []
        self._flush_wanted = False
        self._error: BaseException | None = None
        self._sync_error: BaseException | None = None
        self._directory_synced = True
        self._lock = threading.Lock()
        """Guards the fields that readers use; never held while a file is read or written."""
        self._write_lock = threading.Lock()
        """One writer of files at a time."""
        self._firsts: list[int] = []
        """First offset of each segment."""
        self._open: dict[int, _Segment] = {}
        """By segment number, least recently used first."""
        self._reading = 0
        self._retired: list[File] = []
        disk.make_directory(directory)
        disk.sync_directory(directory.rpartition("/")[0])
        self._find_segments()

    # --- start -------------------------------------------------------------------------------

    def _path(self, segment: int) -> str:
        return f"{self._directory}/his-{segment * SEGMENT_BYTES:020}.seg"

    def _find_segments(self) -> None:
        names = self._disk.list(self._directory)
        found = sorted(int(named[1]) for named in map(_SEGMENT_NAME.fullmatch, names) if named)
        for segment, start in enumerate(found):
            if start != segment * SEGMENT_BYTES:
                break  # Beyond a gap nothing counts; ``truncate_to`` removes it.
            path = self._path(segment)
            file = self._disk.open(path)
            try:
                header = SegmentHeader.decode(file.pread(HEADER_BYTES, 0), path)
            except InvariantBroken:
                break  # Its creation was never durable.
            finally:
                file.close()
            if (header.shard, header.start) != (self._shard, start):
                raise InvariantBroken("a history segment is this shard's", file=path)
            self._firsts.append(header.first_offset)

    def truncate_to(self, position: int, offset: int) -> None:
        """Forget all records of commands from `offset` on; `position` is where they begin.

        Raises `InvariantBroken` when the files do not hold intact records up to there.
        """
        with self._write_lock:
            self._close_files()
            segment, end = divmod(position, SEGMENT_BYTES)
            if position and end == 0:
                segment, end = segment - 1, SEGMENT_BYTES
            kept = segment + 1 if position else 0
            if kept > len(self._firsts) or 0 < position < segment * SEGMENT_BYTES + HEADER_BYTES:
                raise InvariantBroken(
                    "the history reaches its position", position=position, segments=self._firsts
                )
            for name in self._disk.list(self._directory):
                named = _SEGMENT_NAME.fullmatch(name)
                if named and int(named[1]) >= kept * SEGMENT_BYTES:
                    self._disk.remove(f"{self._directory}/{name}")
            self._disk.sync_directory(self._directory)
            self._forget(kept)
            if kept:
                self._reopen_last(segment, end, offset)
            self._ready = True

    def _forget(self, kept: int) -> None:
        with self._lock:
            del self._firsts[kept:]
            self._coming, self._writing = {}, {}
            self._placed, self._retry = [], []
            self._coming_bytes = self._waiting_bytes = 0
            self._error = self._sync_error = None
            self._cursor = Cursor()
            for kept_commands in self._kept.values():
                kept_commands.clear()

    def _reopen_last(self, segment: int, end: int, offset: int) -> None:
        path = self._path(segment)
        file = self._disk.open(path, write=True)
        try:
            index, last = SegmentIndex.scan(file.pread, end, path)
            if last >= offset:
                raise InvariantBroken(
                    "the history before a position is older", file=path, last=last, offset=offset
                )
            file.truncate(end)
        except BaseException:
            file.close()
            raise
        with self._lock:
            self._open[segment] = _Segment(path, file, index)
            self._cursor = Cursor.at(segment, index, last)

    # --- append ------------------------------------------------------------------------------

    @property
    def end(self) -> int:
        """Position after the last appended record: a function of the log."""
        return self._cursor.position

    @property
    def error(self) -> BaseException | None:
        """Why the last write or sync failed; None while all is well."""
        return self._sync_error or self._error

    def append(self, offset: int, domain: str, payload: bytes, /) -> None:
        """Keep the encoded events of the command at `offset`.

        Raises `InvariantBroken` unless offsets ascend; OSError only when too much waits
        because nothing can be written.
        """
        if not self._ready:
            raise InvariantBroken("the history is cut to its position before it grows")
        placed = self._cursor.place(offset, domain, payload)
        with self._lock:
            self._placed += placed
            self._coming[offset] = (domain, payload)
            due = self._grown(len(payload))
        if due:
            self._flush_due()

    def append_run(self, offset: int, domain: str, payloads: Sequence[bytes], /) -> None:
        """`append` for commands at consecutive offsets, the lock taken once."""
        if not self._ready:
            raise InvariantBroken("the history is cut to its position before it grows")
        placed = self._cursor.place_run(offset, domain, payloads)
        with self._lock:
            self._placed += placed
            self._coming.update(enumerate(((domain, payload) for payload in payloads), offset))
            due = self._grown(sum(map(len, payloads)))
        if due:
            self._flush_due()

    def _grown(self, size: int) -> bool:
        """Count what waits, and say whether something is to be done about it; under the lock."""
        self._coming_bytes += size
        self._waiting_bytes += size
        return self._waiting_bytes >= WAITING_BYTES_MAX or (
            self._coming_bytes >= FLUSH_BYTES and not self._flush_wanted
        )

    def _flush_due(self) -> None:
        with self._lock:
            waits = self._waiting_bytes >= WAITING_BYTES_MAX
            self._flush_wanted = True
        if waits or self._spawn is None:
            self.flush()
        else:
            self._spawn(self._flush_in_background)

    def _flush_in_background(self) -> None:
        try:
            self.flush()
            self._sync_ahead()
        except OSError as error:
            self._error = error

    def flush(self) -> None:
        """Write what waits, without syncing it.  Raises OSError; nothing is lost by that."""
        with self._write_lock:
            with self._lock:
                self._flush_wanted = False
                placed = self._retry + self._placed
                self._retry, self._placed = placed, []
                self._writing.update(self._coming)
                self._coming, self._coming_bytes = {}, 0
            for number, part in groupby(placed, key=itemgetter(0)):
                self._write(number, list(part))
            with self._lock:
                self._waiting_bytes -= sum(len(payload) for _, payload in self._writing.values())
                self._retry, self._writing = [], {}
                self._error = None

    def _write(self, number: int, placed: Sequence[Placed]) -> None:
        """Write neighbouring records of one segment, and only then let the index know them."""
        with self._lock:
            segment = self._open.get(number)
        _, first, offset, *_ = placed[0]
        if segment is None:
            segment = self._create(number, offset)
        if first < segment.index.ends:
            return  # An earlier attempt wrote these, and failed at a later segment.
        data = encode_records(placed)
        segment.unsynced_bytes += len(data)
        segment.file.pwrite(data, first)
        segment.index.note(placed, first + len(data))

    def _create(self, number: int, first_offset: int) -> _Segment:
        """Finish the segment before, and begin the next one."""
        if number:
            with self._lock:
                before = self._open[number - 1]
            index = before.index.encode()
            before.unsynced_bytes += len(index)
            before.file.pwrite(index, before.index.ends)
            # Synced here, so that segments that only snapshots would sync do not pile up.
            self._sync(before)
        path = self._path(number)
        file = self._disk.open(path, create=True, write=True)
        try:
            file.truncate(0)
            file.pwrite(
                SegmentHeader(self._shard, number * SEGMENT_BYTES, first_offset).encode(), 0
            )
        except BaseException:
            file.close()
            raise
        segment = _Segment(path, file, SegmentIndex())
        segment.unsynced_bytes = HEADER_BYTES
        self._directory_synced = False
        with self._lock:
            self._firsts.append(first_offset)
            self._keep(number, segment)
        return segment

    def sync(self) -> None:
        """Make everything appended so far durable.  Blocks.  Raises OSError."""
        self.flush()
        with self._write_lock:
            with self._lock:
                segments = list(self._open.values())
            for segment in segments:
                self._sync(segment)
            if not self._directory_synced:
                self._disk.sync_directory(self._directory)
                self._directory_synced = True

    def _sync_ahead(self) -> None:
        """Bound what a later sync, or the system by itself, has to write at once."""
        with self._write_lock:
            with self._lock:
                segments = list(self._open.values())
            for segment in segments:
                if segment.unsynced_bytes >= SYNC_BYTES:
                    self._sync(segment)

    def _sync(self, segment: _Segment) -> None:
        """Sync one file.  A sync is never tried again after an error: it might lie."""
        if self._sync_error is not None:
            raise self._sync_error
        if segment.unsynced_bytes:
            try:
                segment.file.sync()
            except OSError as error:
                self._sync_error = error
                raise
            segment.unsynced_bytes = 0

    # --- read --------------------------------------------------------------------------------

    def view(self, domain: str, visible_end: Callable[[], int], /) -> DomainHistory:
        """Reads of one domain, below the offset that `visible_end` gives at the time."""
        return DomainHistory(
            domain, self.read, self._decoders[domain], self._kept[domain], visible_end
        )

    def read(self, offset: int, domain: str) -> bytes | None:
        """The payload appended for the command at `offset`; None if it had none of this domain.

        Raises `InvariantBroken` when the file disagrees with its index, OSError.
        """
        with self._lock:
            found = self._coming.get(offset) or self._writing.get(offset)
            number = bisect_right(self._firsts, offset) - 1
        if found is None and number >= 0:
            with self._segment(number) as segment:
                place = segment.index.range(offset)
                if place is not None:
                    start, end = place
                    data = segment.file.pread(end - start, start)
                    if len(data) != end - start:
                        raise InvariantBroken(
                            "a history segment is as long as its index says",
                            file=segment.path,
                            byte=start,
                        )
                    found = segment.index.find(data, start, offset, segment.path)
        return found[1] if found is not None and found[0] == domain else None

    @contextmanager
    def _segment(self, number: int) -> Iterator[_Segment]:
        """A segment to read from; its file stays open meanwhile."""
        with self._lock:
            self._reading += 1
            segment = self._open.pop(number, None)
            if segment is not None:
                self._open[number] = segment  # Used last.
        try:
            yield segment or self._open_sealed(number)
        finally:
            with self._lock:
                self._reading -= 1
                retired = [] if self._reading else self._retired
                if retired:
                    self._retired = []
            for file in retired:
                file.close()

    def _open_sealed(self, number: int) -> _Segment:
        path = self._path(number)
        file = self._disk.open(path)
        size = file.size()
        index = SegmentIndex.decode(file.pread, size)
        if index is None:
            file.close()
            raise InvariantBroken("a full history segment ends with its index", file=path)
        with self._lock:
            there = self._open.get(number)
            if there is not None:
                self._retired.append(file)  # Another reader was faster.
                return there
            segment = _Segment(path, file, index)
            self._keep(number, segment)
            return segment

    def _keep(self, number: int, segment: _Segment) -> None:
        """Add an open segment; drop the one used longest ago that is full and synced."""
        self._open[number] = segment
        if len(self._open) > SEGMENTS_OPEN_MAX:
            # Only the last segment may be unsynced, see ``_create``.
            last = len(self._firsts) - 1
            oldest = next(other for other in self._open if other not in (number, last))
            self._retired.append(self._open.pop(oldest).file)

    def close(self) -> None:
        """Write what waits and release the files."""
        self.flush()
        with self._write_lock:
            self._close_files()
            self._ready = False

    def _close_files(self) -> None:
        with self._lock:
            files = [segment.file for segment in self._open.values()] + self._retired
            self._open, self._retired = {}, []
        for file in files:
            file.close()
