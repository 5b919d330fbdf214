"""`StoredHistory`: a shard's history as far as a snapshot vouches for it, to be read by others.

Changes nothing and takes no lock: what lies below a snapshot's position is durable and is never
written again but with the same bytes.  For whoever decides logged commands again without
owning the directory; the owner's store is `driver.HistoryFile`.
"""

import contextlib
from bisect import bisect_right
from typing import Final

from ultraengine.execution.history import (
    HEADER_BYTES,
    SEGMENT_BYTES,
    SegmentHeader,
    SegmentIndex,
)
from ultraengine.execution.history_files.driver import DIRECTORY
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ShardId
from ultraengine.ports import Disk, File

INDEXES_KEPT: Final = 64
"""Segments whose index stays in memory."""


class StoredHistory:
    """The records below a position.  Uses the Disk port and blocks."""

    def __init__(
        self, disk: Disk, shard: ShardId, position: int, *, directory: str = DIRECTORY
    ) -> None:
        """Raises `InvariantBroken` when a segment up to there is not this shard's,
        FileNotFoundError when one is missing."""
        self._disk = disk
        self._directory = directory
        # A position at the distance of two segments is the end of the first one.
        self._last, byte = divmod(max(position - 1, 0), SEGMENT_BYTES)
        self._end = byte + 1
        self._indexes: dict[int, SegmentIndex] = {}
        self._firsts: list[int] = []
        for number in range(self._last + 1 if position else 0):
            path = self._path(number)
            with contextlib.closing(disk.open(path)) as file:
                header = SegmentHeader.decode(file.pread(HEADER_BYTES, 0), path)
            if (header.shard, header.start) != (shard, number * SEGMENT_BYTES):
                raise InvariantBroken("a history segment is this shard's", file=path)
            self._firsts.append(header.first_offset)

    def read(self, offset: int, domain: str) -> bytes | None:
        """The payload of the command at `offset`; None if it had none of this domain.

        Raises `InvariantBroken` when the file disagrees with its index, OSError.
        """
        number = bisect_right(self._firsts, offset) - 1
        if number < 0:
            return None
        path = self._path(number)
        with contextlib.closing(self._disk.open(path)) as file:
            index = self._index(number, file, path)
            start, end = index.range(offset) or (HEADER_BYTES, HEADER_BYTES)
            found = index.find(file.pread(end - start, start), start, offset, path)
        return found[1] if found is not None and found[0] == domain else None

    def _path(self, segment: int) -> str:
        return f"{self._directory}/his-{segment * SEGMENT_BYTES:020}.seg"

    def _index(self, number: int, file: File, path: str) -> SegmentIndex:
        index = self._indexes.pop(number, None)
        if index is None and number < self._last:
            index = SegmentIndex.decode(file.pread, file.size())
            if index is None:
                raise InvariantBroken("a full history segment ends with its index", file=path)
        elif index is None:
            # The owner may have gone on behind the position, or have filled the segment.
            index, _ = SegmentIndex.scan(file.pread, self._end, path)
        self._indexes[number] = index  # Used last.
        if len(self._indexes) > INDEXES_KEPT:
            del self._indexes[next(iter(self._indexes))]
        return index
