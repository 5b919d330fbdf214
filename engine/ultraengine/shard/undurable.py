"""Outcomes that were written and are not synced yet, which only ``async`` lets happen.

Until the sync they cannot be read back, so memory must go on answering for them: a retry that
finds neither would be executed a second time.
"""

from collections import deque
from collections.abc import Sequence

from ultraengine.log.frame import FrameDraft


class Undurable:
    """Written OUTCOMES frames, in the order of the log."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Sequence[FrameDraft]]] = deque()
        """(frame sequence behind them, frames)."""

    def add(self, end_sequence: int, drafts: Sequence[FrameDraft]) -> None:
        """These frames end at `end_sequence`, exclusive."""
        if drafts:
            self._waiting.append((end_sequence, drafts))

    def take(self, durable_end: int) -> list[FrameDraft]:
        """The frames that are durable now that everything below `durable_end` is."""
        durable: list[FrameDraft] = []
        while self._waiting and self._waiting[0][0] <= durable_end:
            durable.extend(self._waiting.popleft()[1])
        return durable
