"""The last flush times, for status reports and for choosing how to flush.

A flush by the flush thread costs a lone command two hand-overs between threads, which take as
long as a fast disk does.  A flush on the event loop's own thread costs none, but the loop
waits for the disk.  `InlineRule` chooses by what the disk did lately.
"""

from collections import deque
from typing import Final

from ultraengine.model.policy import FlushRule

WINDOW: Final = 1_024
INLINE_WINDOW: Final = 64
INLINE_S: Final = 0.000_2
"""A flush (write and sync) that takes as long is slow."""
INLINE_SLOW_MAX: Final = INLINE_WINDOW // 2
"""Slow flushes among the last `INLINE_WINDOW` with which the disk still counts as fast.  As many,
because the flush thread's times hold its wait for the interpreter too."""
INLINE_BYTES_MAX: Final = 64 * 1024
"""Larger groups go to the flush thread: writing them would hold up the loop."""
STALL_S: Final = 0.005
"""About the longest turn that execution takes itself."""
STALL_REST_S: Final = 10.0
"""After one inline flush of at least `STALL_S`, none is made for so long."""


class FlushTimes:
    """Quantiles over the last `WINDOW` flushes."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=WINDOW)
        self.count = 0
        """Flushes since the start."""

    def add(self, seconds: float) -> None:
        """Count one flush."""
        self._times.append(seconds)
        self.count += 1

    def quantile(self, share: float) -> float:
        """The nearest-rank quantile in seconds, 0 before the first flush; 0 <= share <= 1."""
        if not self._times:
            return 0.0
        ordered = sorted(self._times)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


class InlineRule:
    """Whether a lone flush may run on the event loop's own thread: only on a fast disk."""

    def __init__(self) -> None:
        self._slow = deque([True] * INLINE_WINDOW, maxlen=INLINE_WINDOW)
        self._slow_count = INLINE_WINDOW
        self._not_before = 0.0

    def add(self, seconds: float, now: float, *, inline: bool) -> None:
        """Count a flush that took so long and ended at `now`, on a clock that starts above 0."""
        slow = seconds >= INLINE_S
        self._slow_count += slow - self._slow[0]
        self._slow.append(slow)
        if inline and seconds >= STALL_S:
            self._not_before = now + STALL_REST_S

    def allows(self, now: float) -> bool:
        """Whether the disk is fast enough at `now` for a flush to hold up the loop."""
        return self._slow_count <= INLINE_SLOW_MAX and now >= self._not_before


def open_for_s(rule: FlushRule, oldest: float | None, waiting_bytes: int, now: float) -> float:
    """How long a group may stay open for more commands, in seconds; 0 or less: close it.

    `oldest` is when its oldest command came (None = nothing waits), on the clock of `now`.
    """
    if oldest is None or waiting_bytes >= rule.group_bytes_max:
        return 0.0
    return oldest + rule.wait_s - now
