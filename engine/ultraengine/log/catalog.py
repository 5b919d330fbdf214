"""The segments of an open log, as seen by its writer, its readers and retention.

The writer publishes by replacing immutable values, so that a reader takes no lock: it takes
the durable end first and the segments second, and never sees an end without its segment.
"""

from contextlib import AbstractContextManager
from typing import Any, Protocol

import msgspec

from ultraengine.log.frame import Keys
from ultraengine.log.index import SegmentIndex
from ultraengine.log.mark import Mark
from ultraengine.log.segment import KeyRing, SegmentHeader
from ultraengine.ports import Disk

Guard = AbstractContextManager[Any]
"""A mutex, handed in by the driver."""


class ReadableFile(Protocol):
    """As much of `ports.File` as a reader needs."""

    def pread(self, length: int, position: int) -> bytes:
        """Up to `length` bytes from `position`; fewer only at the end of the file."""

    def close(self) -> None:
        """Release it.  Idempotent."""


class LogSegment:
    """One segment of an open log.  Its keys are opened when they are first needed."""

    __slots__ = ("_keys", "_ring", "header", "index", "path")

    def __init__(
        self,
        path: str,
        header: SegmentHeader,
        index: SegmentIndex,
        ring: KeyRing,
        keys: Keys | None = None,
    ) -> None:
        self.path = path
        self.header = header
        self.index = index
        self._ring = ring
        self._keys = keys

    def open(self, disk: Disk) -> ReadableFile:
        """Its bytes.  Raises FileNotFoundError when retention was quicker."""
        return disk.open(self.path)

    @property
    def keys(self) -> Keys:
        """Raises `LogRefused` when the master key is missing or another one."""
        keys = self._keys
        if keys is None:
            keys = self._keys = self._ring.open(self.header)
        return keys


class View(msgspec.Struct, frozen=True, gc=False):
    """What may be read at one moment."""

    durable: Mark
    """Frames below are durable; the chain there."""
    segments: tuple[LogSegment, ...]


class Catalog:
    """Shared by the writer, the readers and retention."""

    def __init__(self, segments: tuple[LogSegment, ...], durable: Mark, guard: Guard) -> None:
        self._segments = segments
        self._guard = guard
        self.durable = durable
        """Set by the writer alone, after each sync."""
        self.written_end = durable.durable_end
        """Frames below can be read, durable or not.  Set by the writer alone, after each write."""

    def view(self) -> View:
        """The durable end, and segments that reach at least that far."""
        durable = self.durable
        return View(durable, self._segments)

    @property
    def segments(self) -> tuple[LogSegment, ...]:
        """All segments, ascending; the last one is being written."""
        return self._segments

    def add(self, segment: LogSegment) -> None:
        """The next segment; it replaces an empty one of the same name."""
        with self._guard:
            others = tuple(one for one in self._segments if one.path != segment.path)
            self._segments = (*others, segment)

    def drop(self, segments: set[str]) -> None:
        """Forget the segments with these paths, which are about to be removed."""
        with self._guard:
            self._segments = tuple(one for one in self._segments if one.path not in segments)
