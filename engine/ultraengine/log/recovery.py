"""Where a log ends: proved, not guessed (`FORMAT.md`, "Where the log ends").

Pure functions over the bytes of one segment.  `scan` walks good frames, `later_proof` looks
behind the first position that is not good, `decide` is the decision table.

A torn tail can only be what was never acknowledged; what was acknowledged and is not there
any more is damage, and the two are told apart by the proved end (FAST'18 "Protocol-Aware
Recovery": systems that cut at the first bad checksum throw away committed data).
"""

import enum
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from ultraengine.log import frame as frames
from ultraengine.log.digest import state_chain
from ultraengine.log.frame import Frame, FrameDamaged, FrameHeader, FrameKind, Keys
from ultraengine.log.segment import HEADER_BYTES, Point, SegmentHeader, advance

Visit = Callable[[Frame, int], None]
"""Called with each good frame and its byte position."""

_ZEROS: Final = bytes(256 * 1024)
"""Most of a segment may be room ahead: compared in blocks, it costs a twentieth of stripping."""


class Verdict(enum.Enum):
    """What the first position that is not a good frame means."""

    CONTINUE = "the log goes on in the next segment"
    END = "the log ends here"
    TORN = "the log ends here; what follows was never acknowledged"
    DAMAGE = "acknowledged frames are missing"


def decide(
    *, next_segment_starts_here: bool, below_proved_end: bool, rest_is_zero: bool, mark_lost: bool
) -> Verdict:
    """The decision table; the conditions are read from top to bottom.

    `mark_lost`: MARK is there and unreadable, so the proved end may be too low; then only an
    end that nothing follows is believed.
    """
    if next_segment_starts_here:
        return Verdict.CONTINUE
    if below_proved_end:
        return Verdict.DAMAGE
    if rest_is_zero:
        return Verdict.END
    if mark_lost:
        return Verdict.DAMAGE
    return Verdict.TORN


class Stand(msgspec.Struct, frozen=True, gc=False):
    """A point and the byte position in its segment where the next frame starts."""

    point: Point
    byte_position: int


class Scan(msgspec.Struct, frozen=True):
    """What a walk over one segment found."""

    end: Stand
    """Behind the last good frame."""
    proved_end: int
    """Highest frame sequence below which all frames were durable, as far as seen."""
    unproved: tuple[Stand, ...]
    """Stands from the proved end (or the segment's start, if that is later) to `end`."""
    reason: str
    """Why the walk stopped; empty when it reached `stop`."""


def follow(point: Point, header: FrameHeader) -> None:
    """Raise `FrameDamaged` unless a frame with this header may stand at `point`."""
    if header.sequence != point.sequence:
        raise FrameDamaged(f"frame {header.sequence} stands here")
    if header.chain != point.chain:
        raise FrameDamaged("the chain does not continue the frames before")
    if header.epoch < point.epoch or header.time < point.time:
        raise FrameDamaged("epoch or time goes back")
    if header.kind == FrameKind.COMMANDS:
        fits = header.base_offset == point.offset
    elif header.kind == FrameKind.OUTCOMES:
        fits = header.base_offset == point.recorded_end and header.offset_end <= point.offset
    else:
        fits = False
    if not fits:
        raise FrameDamaged(f"kind {header.kind} with base offset {header.base_offset}")


def belongs(header: FrameHeader, segment: SegmentHeader) -> None:
    """Raise `FrameDamaged` unless a frame with this header was written to this segment."""
    if header.shard != segment.shard or header.salt != segment.salt:
        raise FrameDamaged("the frame belongs to another segment")


def read_frame(
    data: bytes, position: int, segment: SegmentHeader, keys: Keys, point: Point
) -> tuple[Frame, Point]:
    """The good frame at `position` and the point after it.  Raises `FrameDamaged`."""
    found = frames.decode(data, position, keys)
    belongs(found.header, segment)
    follow(point, found.header)
    state = point.state_chain
    if found.header.kind == FrameKind.OUTCOMES:
        state = state_chain(state, found.payload)
    return found, advance(point, found.header, found.chain, state)


def good_part(data: bytes, segment: SegmentHeader, keys: Keys) -> tuple[int, Point]:
    """Where the good frames of a segment end, also of one that is being written: byte position and
    point."""
    point, position = segment.point, HEADER_BYTES
    while True:
        try:
            frame, after = read_frame(data, position, segment, keys, point)
        except FrameDamaged:
            return position, point  # Zeros, or a write that is under way.
        point, position = after, position + frame.header.frame_bytes


def scan(
    data: bytes,
    segment: SegmentHeader,
    keys: Keys,
    *,
    floor: int = 0,
    stop: int | None = None,
    visit: Visit | None = None,
) -> Scan:
    """Walk the good frames of a whole segment.

    `floor` is a proved end known beforehand (MARK).  `stop` is the first sequence of the next
    segment, which supersedes all frames from there on.
    """
    stand = Stand(segment.point, HEADER_BYTES)
    unproved = deque((stand,))
    proved = floor
    reason = ""
    while stop is None or stand.point.sequence < stop:
        position = stand.byte_position
        try:
            found, point = read_frame(data, position, segment, keys, stand.point)
        except FrameDamaged as error:
            reason = str(error)
            break
        if visit is not None:
            visit(found, position)
        stand = Stand(point, position + found.header.frame_bytes)
        unproved.append(stand)
        proved = max(proved, found.header.durable_end)
        while len(unproved) > 1 and unproved[1].point.sequence <= proved:
            unproved.popleft()
    return Scan(stand, proved, tuple(unproved), reason)


def leads_to(
    tail: bytes, position: int, segment: SegmentHeader, keys: Keys, following: Point
) -> bool:
    """Whether a sealed segment ends with a good frame behind which the log stands at `following`.

    `tail` is the segment from byte `position` on.  The chain behind that frame covers everything
    before it: with the one that the next segment names, nothing is missing between the two.
    """
    at = tail.rfind(frames.MAGIC)
    while at >= 0:
        try:
            if (position + at) % frames.ALIGNMENT == 0:
                found = frames.decode(tail, at, keys)
                belongs(found.header, segment)
                if at + found.header.frame_bytes == len(tail):
                    return _stands_at(found.header, found.chain, following)
        except FrameDamaged:
            pass  # It only looked like a frame: content may, and so may the end of one.
        at = tail.rfind(frames.MAGIC, 0, at)
    return False


def _stands_at(header: FrameHeader, chain: bytes, point: Point) -> bool:
    """Whether what a frame's header says of the point after it is true of `point`."""
    end = point.offset if header.kind == FrameKind.COMMANDS else point.recorded_end
    return (header.sequence + 1, header.epoch, header.time, header.handlers, chain) == (
        point.sequence,
        point.epoch,
        point.time,
        point.handlers,
        point.chain,
    ) and header.offset_end == end


def later_headers(data: bytes, position: int, segment: SegmentHeader) -> list[FrameHeader]:
    """Headers of this segment at any 8-byte boundary from `position` on whose checksum holds.

    The salt keeps out what only looks like a header: content of commands, and blocks of
    removed files that a file system hands back.
    """
    found = []
    at = data.find(frames.MAGIC, position)
    while at >= 0:
        if at % frames.ALIGNMENT == 0:
            try:
                header = frames.decode_header(data[at : at + frames.HEADER_BYTES])
                belongs(header, segment)
                found.append(header)
            except FrameDamaged:
                pass
        at = data.find(frames.MAGIC, at + 1)
    return found


def later_proof(data: bytes, position: int, segment: SegmentHeader) -> int:
    """Highest durable end in `later_headers`; 0 when there are none."""
    return max((h.durable_end for h in later_headers(data, position, segment)), default=0)


def used_end(data: bytes) -> int:
    """Byte position behind the last byte that is not zero."""
    end = len(data)
    while end >= len(_ZEROS) and data[end - len(_ZEROS) : end] == _ZEROS:
        end -= len(_ZEROS)
    start = max(0, end - len(_ZEROS))
    return start + len(data[start:end].rstrip(b"\0"))
