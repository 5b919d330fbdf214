"""Where a leader's log stood when: how far a copy is behind, in bytes and in seconds.

A mark for each write, at most `MARKS_MAX`; of what is older, the oldest mark tells at least.
"""

from bisect import bisect_right
from typing import Final

import msgspec

MARKS_MAX: Final = 8192
"""Then every second one is forgotten."""


class Lag(msgspec.Struct, frozen=True):
    """How far a copy is behind its leader."""

    frames: int
    bytes: int
    seconds: float
    """Age of the oldest frame that it is not known to hold."""


class Marks:
    """The writes of one leadership."""

    def __init__(self) -> None:
        self._ends: list[int] = []
        self._bytes: list[int] = []
        self._times: list[float] = []
        self._total = 0

    def add(self, end: int, size: int, now: float) -> None:
        """The log has been written up to `end`."""
        self._total += size
        self._ends.append(end)
        self._bytes.append(self._total)
        self._times.append(now)
        if len(self._ends) > MARKS_MAX:
            for column in (self._ends, self._bytes, self._times):
                del column[::2]

    def lag(self, held_end: int, end: int, now: float) -> Lag:
        """Of a copy that holds everything below `held_end`."""
        frames = max(0, end - held_end)
        first = bisect_right(self._ends, held_end)
        if not frames or first == len(self._ends):
            return Lag(frames, 0, 0.0)
        before = self._bytes[first - 1] if first else 0
        return Lag(frames, self._total - before, max(0.0, now - self._times[first]))
