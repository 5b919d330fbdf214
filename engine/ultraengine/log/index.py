"""Sparse index of one segment: where to start looking for a frame or an offset.

One entry per 64 KiB of log.  It is filled by whoever passes the frames in order: the start,
the appender, or a reader that needs it first.
"""

from array import array
from bisect import bisect_right
from typing import Final

from ultraengine.log.segment import HEADER_BYTES, Point

STRIDE_BYTES: Final = 64 * 1024


class SegmentIndex:
    """Entries (sequence, offset, byte position), all ascending.

    One thread at a time may `note`; others may look up meanwhile: the sequences, which are
    searched, are appended last.
    """

    __slots__ = ("_offsets", "_positions", "_sequences", "covered_end", "covered_sequence")

    def __init__(self, first: Point) -> None:
        self._offsets = array("Q", (first.offset,))
        self._positions = array("Q", (HEADER_BYTES,))
        self._sequences = array("Q", (first.sequence,))
        self.covered_end = HEADER_BYTES
        """Byte position of the first frame not noted yet."""
        self.covered_sequence: int = first.sequence
        """Sequence of that frame."""

    def note(self, sequence: int, offset: int, position: int, frame_bytes: int) -> None:
        """The next frame: `offset` is the base offset of the next COMMANDS frame from it on.

        Who begins again at the segment's start, after damage had stopped it, adds no place twice.
        """
        if position - self._positions[-1] >= STRIDE_BYTES:
            self._positions.append(position)
            self._offsets.append(offset)
            self._sequences.append(sequence)
        self.covered_end = position + frame_bytes
        self.covered_sequence = sequence + 1

    def start_of_sequence(self, sequence: int) -> int:
        """Byte position of a frame at or before the frame with this sequence."""
        found = bisect_right(self._sequences, sequence) - 1
        return self._positions[max(found, 0)]

    def start_of_offset(self, offset: int) -> int:
        """Byte position of a frame at or before the COMMANDS frame that holds `offset`."""
        found = bisect_right(self._offsets, offset, 0, len(self._sequences)) - 1
        return self._positions[max(found, 0)]
