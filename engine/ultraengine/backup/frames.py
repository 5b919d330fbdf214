"""Frames of one segment, one after the other, each proved.  Pure."""

from collections.abc import Iterator

from ultraengine.backup.errors import BackupDamaged
from ultraengine.log import recovery
from ultraengine.log.frame import Frame, FrameDamaged
from ultraengine.log.segment import (
    HEADER_BYTES,
    KeyRing,
    Point,
    SegmentDamaged,
    SegmentHeader,
    decode_header,
)


def header_of(data: bytes, name: str) -> SegmentHeader:
    """The header of a segment.  Raises `BackupDamaged`, `LogRefused` for a newer format."""
    try:
        return decode_header(data[:HEADER_BYTES])
    except SegmentDamaged as error:
        raise BackupDamaged(name, str(error)) from None


def walk(
    data: bytes, name: str, header: SegmentHeader, ring: KeyRing, end_sequence: int
) -> Iterator[tuple[Frame, int, Point, Point]]:
    """Each frame up to a sequence, its byte position, and the points before and after it.

    Raises `BackupDamaged` with the place, `LogRefused` for keys.
    """
    keys, point, position = ring.open(header), header.point, HEADER_BYTES
    while point.sequence < end_sequence:
        try:
            frame, after = recovery.read_frame(data, position, header, keys, point)
        except FrameDamaged as error:
            raise BackupDamaged(
                name, f"byte {position}, frame {point.sequence} (offset {point.offset}): {error}"
            ) from None
        yield frame, position, point, after
        point, position = after, position + frame.header.frame_bytes
