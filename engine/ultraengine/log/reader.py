"""Reads an open log: frames by sequence, groups and single commands by offset.

Only what is durable is shown.  Every frame is checked before it is handed out: checksums,
sequence, and the chain from the frame before it in the same walk; what fails is `LogDamaged`.
Uses the Disk port, blocks, and may be used by several threads.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import chain as joined
from typing import Final, Self

from ultraengine.log import frame as frames
from ultraengine.log.archived import ArchivedSegments
from ultraengine.log.catalog import Catalog, Guard, LogSegment, ReadableFile
from ultraengine.log.damage import BelowRetention, LogDamaged, LogRefused
from ultraengine.log.digest import state_chain
from ultraengine.log.frame import Frame, FrameDamaged, FrameHeader, FrameKind
from ultraengine.log.recovery import belongs
from ultraengine.log.segment import HEADER_BYTES, Point
from ultraengine.model.command import Command
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, FrameSequence
from ultraengine.model.outcome import Outcome
from ultraengine.model.policy import LogSerializer
from ultraengine.ports import Disk

WINDOW_BYTES: Final = 256 * 1024
"""Read ahead; larger frames are read whole."""


class RecordedGroup:
    """One COMMANDS frame and what is recorded of its outcomes."""

    def __init__(self, commands: Frame, serializer: LogSerializer) -> None:
        self.header: FrameHeader = commands.header
        """Of the COMMANDS frame."""
        self.commands_payload: bytes = commands.payload
        self.chain: bytes = commands.chain
        """Of the log after the COMMANDS frame."""
        self._serializer = serializer
        self._parts: list[Frame] = []

    @cached_property
    def commands(self) -> list[Command]:
        """Decoded on first use.  Raises ValueError when the payload is not the codec's."""
        return self._serializer.decode_commands(self.commands_payload)

    @cached_property
    def outcomes(self) -> list[Outcome] | None:
        """All outcomes, or None while one is missing."""
        if not self.recorded:
            return None
        decode = self._serializer.decode_outcomes
        return [outcome for part in self._parts for outcome in decode(part.payload)]

    @cached_property
    def outcomes_payload(self) -> bytes | None:
        """The payload of the OUTCOMES frame; of several, as if it had been one."""
        if len(self._parts) == 1:
            return self._parts[0].payload if self.recorded else None
        return None if self.outcomes is None else self._serializer.encode_outcomes(self.outcomes)

    @property
    def recorded(self) -> bool:
        """Whether every command has its outcome in the log."""
        return bool(self._parts) and self._parts[-1].header.offset_end == self.header.offset_end

    @property
    def last_frame(self) -> Frame | None:
        """The OUTCOMES frame that completes the group, None while one is missing."""
        return self._parts[-1] if self.recorded else None

    def add(self, outcomes: Frame) -> None:
        """The next OUTCOMES frame of this group, in order."""
        header = outcomes.header
        expected = self._parts[-1].header.offset_end if self._parts else self.header.base_offset
        if header.base_offset != expected or header.offset_end > self.header.offset_end:
            raise InvariantBroken(
                "an OUTCOMES frame belongs to one COMMANDS frame",
                sequence=header.sequence,
                base_offset=header.base_offset,
                expected=expected,
                group_end=self.header.offset_end,
            )
        self._parts.append(outcomes)


class LogReader:
    """Reads what the log's writer has made durable."""

    def __init__(
        self,
        disk: Disk,
        catalog: Catalog,
        codecs: Mapping[int, LogSerializer],
        guard: Guard,
        archived: ArchivedSegments | None = None,
    ) -> None:
        """With `archived`, groups below the log's first offset are read from there."""
        self._disk = disk
        self._catalog = catalog
        self._codecs = codecs
        self._guard = guard
        self._archived = archived

    @property
    def durable_end(self) -> int:
        """Frames below can be read now."""
        return self._catalog.durable.durable_end

    @property
    def first(self) -> Point:
        """Where the log begins now: before its first frame that is still here."""
        return self._catalog.segments[0].header.point

    def frames(
        self, from_sequence: int, to_sequence: int | None = None, *, unsynced: bool = False
    ) -> Iterator[Frame]:
        """Frames of ``from_sequence <= sequence < to_sequence``, as far as durable now, or
        (`unsynced`) as far as written: what a leader sends while its own flush still runs.

        Raises `BelowRetention`, `LogDamaged`, `LogRefused` (keys).
        """
        written_end = self._catalog.written_end
        view = self._catalog.view()
        end = int(written_end if unsynced else view.durable.durable_end)
        if to_sequence is not None:
            end = min(end, to_sequence)
        if from_sequence >= end:
            return
        firsts = [segment.header.first_sequence for segment in view.segments]
        at = bisect_right(firsts, from_sequence) - 1
        if at < 0:
            raise _below(view.segments)
        segments = view.segments[at:]
        self._cover(segments)
        position = segments[0].index.start_of_sequence(from_sequence)
        yield from self._walk(segments, position, from_sequence, end)

    def groups(
        self, from_offset: int, to_offset: int | None = None, *, below: int | None = None
    ) -> Iterator[RecordedGroup]:
        """Groups with a command of ``from_offset <= offset < to_offset``, each whole, in order.

        The last ones may lack outcomes.  Frames from sequence `below` on are not looked at: they
        may be durable here and not be committed.  Raises like `frames`, and `LogRefused` for a
        codec that is not given.
        """
        pending: deque[RecordedGroup] = deque()
        closed = False
        for frame in self._frames_of_offset(from_offset, below):
            header = frame.header
            if header.kind == FrameKind.COMMANDS:
                if header.offset_end > from_offset and not closed:
                    pending.append(RecordedGroup(frame, self._serializer(header)))
                closed = to_offset is not None and header.offset_end >= to_offset
            elif pending and header.base_offset >= pending[0].header.base_offset:
                pending[0].add(frame)
                if pending[0].recorded:
                    yield pending.popleft()
            if closed and not pending:
                return
        yield from pending

    def find(self, offset: int) -> tuple[FrameHeader, Command, Outcome | None] | None:
        """The command at `offset` with its outcome, None when it is not in the log (yet).

        Raises like `groups`; a command removed by retention is `BelowRetention`.
        """
        for group in self.groups(offset, offset + 1):
            index = offset - group.header.base_offset
            outcome = None if group.outcomes is None else group.outcomes[index]
            return group.header, group.commands[index], outcome
        return None

    def chain_at(self, sequence: int) -> bytes:
        """The chain before the frame with this sequence: equal chains are equal histories.

        Raises `BelowRetention`, and LookupError beyond the durable end.
        """
        durable = self._catalog.durable
        if sequence == durable.durable_end:
            return durable.chain
        for frame in self.frames(sequence, sequence + 1):
            return frame.header.chain
        raise LookupError(f"frame {sequence} is not below the durable end {durable.durable_end}")

    def epoch_starts(self) -> list[tuple[Epoch, FrameSequence]]:
        """(epoch, sequence of its first frame) of what is durable and still here, ascending.

        Walks only segments in which an epoch begins, and the last one.  Raises like `frames`.
        """
        view = self._catalog.view()
        starts: list[tuple[Epoch, FrameSequence]] = []
        before: Epoch | None = None
        for segment, following in zip(view.segments, [*view.segments[1:], None], strict=True):
            point = segment.header.point
            if before == point.epoch and following and following.header.point.epoch == before:
                continue
            stop = following.header.first_sequence if following else view.durable.durable_end
            for frame in self.frames(point.sequence, int(stop)):
                if frame.header.epoch != before:
                    before = frame.header.epoch
                    starts.append((before, frame.header.sequence))
        return starts

    def segment_offset(self, sequence: int) -> int:
        """First offset of the segment that holds a frame: who needs the frame needs it from there;
        of the first segment for what is not there any more."""
        segments = self._catalog.view().segments
        firsts = [segment.header.first_sequence for segment in segments]
        at = max(0, bisect_right(firsts, sequence) - 1)
        return int(segments[at].header.point.offset)

    def state_chain_at(self, sequence: int) -> bytes:
        """The state chain over all OUTCOMES frames below `sequence`, which is durable.

        Reads the segment up to there.  Raises like `frames`.
        """
        segments = self._catalog.view().segments
        firsts = [segment.header.first_sequence for segment in segments]
        at = bisect_right(firsts, sequence) - 1
        if at < 0:
            raise _below(segments)
        point = segments[at].header.point
        chain = point.state_chain
        for frame in self.frames(point.sequence, sequence):
            if frame.header.kind == FrameKind.OUTCOMES:
                chain = state_chain(chain, frame.payload)
        return chain

    def _serializer(self, header: FrameHeader) -> LogSerializer:
        found = self._codecs.get(header.codec)
        if found is None:
            raise LogRefused(
                f"frame {header.sequence} has codec {header.codec}; no serializer is given for it"
            )
        return found

    def _frames_of_offset(self, offset: int, below: int | None) -> Iterator[Frame]:
        """Frames from shortly before the COMMANDS frame that holds `offset`."""
        view = self._catalog.view()
        offsets = [segment.header.point.offset for segment in view.segments]
        at = bisect_right(offsets, offset) - 1
        end = int(view.durable.durable_end)
        if below is not None:
            end = min(end, below)
        if at < 0:
            yield from self._archived_frames(view.segments, offset, end)
            return
        segments = view.segments[at:]
        self._cover(segments)
        position = segments[0].index.start_of_offset(offset)
        yield from self._walk(segments, position, 0, end)

    def _archived_frames(
        self, segments: tuple[LogSegment, ...], offset: int, end: int
    ) -> Iterator[Frame]:
        """The same, from the archive on into the log."""
        archived = self._archived
        if archived is None:
            raise _below(segments)
        log_first = segments[0].header
        try:
            older = archived.segments(log_first, offset)
            first = next(older, None)
            if first is not None:
                self._cover_to(first, first.end_sequence)
                position = first.index.start_of_offset(offset)
                yield from self._walk(joined((first,), older, segments), position, 0, end)
                return
        except (FileNotFoundError, BelowRetention):
            archived.forget()
        spans = archived.spans(self._catalog.segments[0].header)
        if not spans:
            raise _below(self._catalog.segments)
        raise BelowRetention(
            first_sequence=spans[0].first_sequence, first_offset=spans[0].first_offset
        )

    def _walk(
        self, segments: Iterable[LogSegment], position: int, from_sequence: int, end: int
    ) -> Iterator[Frame]:
        """Good frames from a byte position of the first segment on, up to sequence `end`."""
        chain: bytes | None = None
        rest = iter(segments)
        segment, following = next(rest, None), next(rest, None)
        while segment is not None and segment.header.first_sequence < end:
            stop = end
            if following is not None:
                stop = min(end, int(following.header.first_sequence))
            with _Opened(self._disk, self._catalog, segment) as opened:
                yield from opened.walk(position, from_sequence, stop, chain)
                chain = opened.chain
            position = HEADER_BYTES
            segment, following = following, next(rest, None)

    def _cover(self, segments: tuple[LogSegment, ...]) -> None:
        """See that the index covers a segment that nobody has walked yet; the appender covers
        the last one as it writes."""
        if len(segments) > 1:
            self._cover_to(segments[0], int(segments[1].header.first_sequence))

    def _cover_to(self, segment: LogSegment, stop: int) -> None:
        if segment.index.covered_sequence >= stop:
            return
        with self._guard, _Opened(self._disk, self._catalog, segment) as opened:
            opened.cover(stop)


def _below(segments: tuple[LogSegment, ...]) -> BelowRetention:
    first = segments[0].header.point
    return BelowRetention(first_sequence=first.sequence, first_offset=first.offset)


class _Opened:
    """One segment's file, read through a window."""

    def __init__(self, disk: Disk, catalog: Catalog, segment: LogSegment) -> None:
        self._segment = segment
        try:
            self._file: ReadableFile = segment.open(disk)
        except FileNotFoundError:
            first = catalog.segments[0]
            if first.header.first_sequence > segment.header.first_sequence:
                raise _below(catalog.segments) from None
            raise
        self.chain: bytes | None = None
        """Behind the last frame that ``walk`` has given."""
        self._window = b""
        self._window_at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def walk(
        self, position: int, from_sequence: int, stop: int, chain: bytes | None
    ) -> Iterator[Frame]:
        """Frames of ``from_sequence <= sequence < stop``, from a frame's byte position on.

        `chain` is the one before the frame at `position`, if it is known.
        """
        keys = self._segment.keys
        start = self._segment.header.point
        expected: int | None = None
        offset = start.offset
        if position == HEADER_BYTES:
            expected = start.sequence
            if chain is not None and chain != start.chain:
                raise self._damage("the segments before have another chain", 0, expected, offset)
            chain = start.chain
        while expected is None or expected < stop:
            try:
                raw, header = self._header(position, expected)
                if header.sequence >= stop:
                    return
                if chain is not None and header.chain != chain:
                    raise FrameDamaged("the chain does not continue the frames before")
                after, payload = b"", None
                if header.sequence >= from_sequence:
                    stored = self._bytes(position + frames.HEADER_BYTES, header.stored_bytes)
                    payload = frames.decode_payload(header, raw, stored, keys)
                    after = frames.chain_after(raw, payload, keys)
            except FrameDamaged as error:
                raise self._damage(str(error), position, expected, offset) from None
            # Frames before the first one asked for are not hashed: the next check starts there.
            self.chain = chain = after or None
            if payload is not None:
                yield Frame(header, payload, after)
            position += header.frame_bytes
            expected = header.sequence + 1
            if header.kind == FrameKind.COMMANDS:
                offset = header.offset_end

    def cover(self, stop: int) -> None:
        """Note the frames up to sequence `stop` in the index, by their headers alone."""
        index = self._segment.index
        offset = int(self._segment.header.point.offset)
        position, expected = HEADER_BYTES, int(self._segment.header.first_sequence)
        while expected < stop:
            try:
                _, header = self._header(position, expected)
            except FrameDamaged as error:
                raise self._damage(str(error), position, expected, offset) from None
            index.note(expected, offset, position, header.frame_bytes)
            if header.kind == FrameKind.COMMANDS:
                offset = header.offset_end
            position += header.frame_bytes
            expected += 1

    def _header(self, position: int, expected: int | None) -> tuple[bytes, FrameHeader]:
        raw = self._bytes(position, frames.HEADER_BYTES)
        header = frames.decode_header(raw)
        belongs(header, self._segment.header)
        if expected is not None and header.sequence != expected:
            raise FrameDamaged(f"frame {header.sequence} stands here")
        return raw, header

    def _bytes(self, position: int, length: int) -> bytes:
        start = position - self._window_at
        if start < 0 or start + length > len(self._window):
            self._window = self._file.pread(max(length, WINDOW_BYTES), position)
            self._window_at, start = position, 0
        return self._window[start : start + length]

    def _damage(self, reason: str, position: int, expected: int | None, offset: int) -> LogDamaged:
        first = int(self._segment.header.first_sequence)
        return LogDamaged(
            reason,
            file=self._segment.path,
            byte_position=position,
            sequence=first if expected is None else expected,
            offset=offset,
        )
