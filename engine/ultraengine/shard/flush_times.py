"""The last flush times, for status reports and for choosing how to flush."""

from collections import deque
from typing import Final

from ultraengine.model.policy import FlushRule

WINDOW: Final = 1_024


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


def open_for_s(rule: FlushRule, oldest: float | None, waiting_bytes: int, now: float) -> float:
    """How long a group may stay open for more commands, in seconds; 0 or less: close it.

    `oldest` is when its oldest command came (None = nothing waits), on the clock of `now`.
    """
    if oldest is None or waiting_bytes >= rule.group_bytes_max:
        return 0.0
    return oldest + rule.wait_s - now
