"""Archived segments as a reader sees them: in front of the first segment of the log.

The compaction policy ``time`` stores whole segments before they are removed (`archive`), so
what is archived and what is left are one history.  Names say what a segment covers; only
segments that lead up to the log without a gap are used, and a reader checks the chain from one
to the next.  They may overlap: copies of a shard archive to one place, and begin their segments
where each of them likes, but what they have archived is committed, so it is the same.  Nothing is
copied: objects are read by ranges, through a reader's window.

Uses the ObjectStore port and blocks; several threads may read.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from ultraengine.log.catalog import LogSegment, ReadableFile
from ultraengine.log.damage import LogDamaged, LogRefused
from ultraengine.log.index import SegmentIndex
from ultraengine.log.segment import (
    HEADER_BYTES,
    KeyRing,
    SegmentDamaged,
    SegmentHeader,
    decode_header,
)
from ultraengine.model.ids import ShardId
from ultraengine.ports import Disk, ObjectStore

SEGMENTS_KEPT: Final = 16
"""Archived segments whose header, keys and index stay in memory."""
_NAME: Final = re.compile(r"([0-9]{20})-([0-9]{20})-([0-9]{20})-([0-9]{20})-[0-9]{20}\.log")


class Span(msgspec.Struct, frozen=True):
    """An archived segment by its name; ends exclude."""

    name: str
    first_sequence: int
    end_sequence: int
    first_offset: int
    end_offset: int


class ArchivedSegment(LogSegment):
    """A segment that is read from the archive."""

    __slots__ = ("_store", "end_sequence")

    def __init__(
        self, store: ObjectStore, span: Span, header: SegmentHeader, ring: KeyRing
    ) -> None:
        super().__init__(span.name, header, SegmentIndex(header.point), ring)
        self._store = store
        self.end_sequence = span.end_sequence

    def open(self, disk: Disk) -> ReadableFile:
        """The stored object, whatever the disk holds."""
        del disk
        return _Object(self._store, self.path)


def check_owner(store: ObjectStore, shard: ShardId, cluster_uid: bytes) -> None:
    """Raise `LogRefused` when what is stored of a shard belongs to another engine.

    Names say offsets and no owner: the segments of two engines would be taken for one history,
    and what one has archived by key for what the other need not archive any more.  A store that
    cannot be read now keeps nobody from starting; nothing leaves the log before it can.
    """
    with contextlib.suppress(OSError):
        names = store.list(f"{shard}/")
        for name in (names[0], names[-1]) if names else ():
            with contextlib.suppress(SegmentDamaged):  # Whoever reads it says so.
                header = decode_header(store.get_range(name, 0, HEADER_BYTES))
                if header.cluster_uid != cluster_uid:
                    raise LogRefused(
                        f"the archive's {name} is of another engine ({header.cluster_uid.hex()}, "
                        f"this is {cluster_uid.hex()}): give each engine an archive of its own"
                    )


class ArchivedSegments:
    """What is archived of one shard's log."""

    def __init__(self, store: ObjectStore, shard: ShardId, ring: KeyRing) -> None:
        self._store = store
        self._shard = shard
        self._ring = ring
        self._listed: tuple[int, tuple[Span, ...]] | None = None
        """First sequence of the log, and what leads up to it."""
        self._kept: dict[str, ArchivedSegment] = {}

    def spans(self, log_first: SegmentHeader) -> tuple[Span, ...]:
        """What leads up to the log's first segment without a gap, ascending; each is read up to
        where the next one begins."""
        listed = self._listed
        if listed is None or listed[0] != log_first.first_sequence:
            listed = (log_first.first_sequence, tuple(self._leading_to(log_first)))
            self._listed = listed
        return listed[1]

    def forget(self) -> None:
        """List anew: an object was removed."""
        self._listed = None

    def segments(self, log_first: SegmentHeader, offset: int) -> Iterator[ArchivedSegment]:
        """The segments from the one that holds `offset` up to the log, opened one by one.

        Nothing when `offset` is not archived.  Raises FileNotFoundError when one was removed
        meanwhile, `LogDamaged`, `LogRefused`.
        """
        spans = self.spans(log_first)
        if not spans or offset < spans[0].first_offset:
            return
        for span in spans:
            if span.end_offset > offset:
                yield self._opened(span)

    def _leading_to(self, log_first: SegmentHeader) -> list[Span]:
        prefix = f"{self._shard}/segments/"
        stored: list[Span] = []
        for name in self._store.list(prefix):
            match = _NAME.fullmatch(name.removeprefix(prefix))
            if match is not None:
                stored.append(Span(name, *(int(number) for number in match.groups())))
        found: list[Span] = []
        at = int(log_first.first_sequence)
        stored.sort(key=lambda span: (span.end_sequence, span.name))
        best: Span | None = None
        while True:
            # Of those that reach this place the one that goes back the furthest: no other choice
            # comes further.
            while stored and stored[-1].end_sequence >= at:
                one = stored.pop()
                if best is None or one.first_sequence < best.first_sequence:
                    best = one
            if best is None or best.first_sequence >= at:
                return found[::-1]
            found.append(best)
            at = best.first_sequence

    def _opened(self, span: Span) -> ArchivedSegment:
        kept = self._kept.pop(span.name, None)
        if kept is None:
            raw = self._store.get_range(span.name, 0, HEADER_BYTES)
            try:
                header = decode_header(raw)
            except SegmentDamaged as error:
                raise _damage(span, str(error)) from error
            point = header.point
            if (header.shard, point.sequence, point.offset) != (
                self._shard,
                span.first_sequence,
                span.first_offset,
            ):
                raise _damage(span, "the archived segment is not what its name says")
            kept = ArchivedSegment(self._store, span, header, self._ring)
        self._kept[span.name] = kept  # The newest one last.
        while len(self._kept) > SEGMENTS_KEPT:
            self._kept.pop(next(iter(self._kept)), None)
        return kept


class _Object:
    """An object of the store, to be read like a file."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store = store
        self._name = name

    def pread(self, length: int, position: int) -> bytes:
        """Up to `length` bytes from `position`."""
        return self._store.get_range(self._name, position, length)

    def close(self) -> None:
        """Nothing is held."""


def _damage(span: Span, reason: str) -> LogDamaged:
    return LogDamaged(
        reason,
        file=span.name,
        byte_position=0,
        sequence=span.first_sequence,
        offset=span.first_offset,
    )
