"""How late a copy executes: since when what it executes next has been committed.

Pure.  A mark is kept for every `MARK_S` in which something was committed, so the answer is right
to within that.
"""

from collections import deque
from typing import Final

MARK_S: Final = 0.25


class Lateness:
    """Of one copy; frames by their sequence, times in seconds of one clock."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, float]] = deque()
        """(first frame that was not committed before, when it was), ascending."""
        self._end = 0

    def committed(self, end: int, now: float) -> None:
        """Frames below `end` are committed now."""
        if end <= self._end:
            return
        if not self._marks or now - self._marks[-1][1] >= MARK_S:
            self._marks.append((self._end, now))
        self._end = end

    def executed(self, end: int) -> None:
        """Frames below `end` are executed."""
        marks = self._marks
        while len(marks) > 1 and marks[1][0] <= end:
            marks.popleft()
        if marks and end >= self._end:
            marks.clear()

    def seconds(self, now: float) -> float:
        """How long the oldest frame that is not executed has been committed, at most."""
        return now - self._marks[0][1] if self._marks else 0.0
