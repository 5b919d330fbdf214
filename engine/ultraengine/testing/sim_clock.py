"""The Clock, Random and Secrets ports for tests: time stands still until it is told to go,
and chance is a seed."""

import random
import threading
from collections.abc import Mapping
from typing import Final

from ultraengine.model.ids import Instant

START: Final = Instant(1_767_225_600_000_000)
"""2026-01-01T00:00:00Z, where a simulated clock starts unless told otherwise."""


class SimClock:
    """A clock that only moves when told to.  Safe to use from several threads."""

    def __init__(self, start: Instant = START) -> None:
        self._now = int(start)
        self._elapsed = 0
        self._mutex = threading.Lock()

    def now(self) -> Instant:
        """Wall-clock time in microseconds since the Unix epoch."""
        with self._mutex:
            return Instant(self._now)

    def monotonic(self) -> float:
        """Seconds since this clock was made, by `advance` alone."""
        with self._mutex:
            return self._elapsed / 1_000_000

    def advance(self, seconds: float) -> None:
        """Let time pass.  Raises ValueError for a negative time."""
        if seconds < 0:
            raise ValueError(f"time does not pass backwards: {seconds} s")
        with self._mutex:
            self._now += round(seconds * 1_000_000)
            self._elapsed += round(seconds * 1_000_000)

    def set_wall(self, now: Instant) -> None:
        """Let the wall clock jump, forwards or back; no time passes."""
        with self._mutex:
            self._now = int(now)


class SimRandom:
    """Bytes from a seed.  Safe to use from several threads; their order is not fixed then."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311  (chance that can be repeated)
        self._mutex = threading.Lock()

    def bytes(self, length: int) -> bytes:
        """The next `length` bytes of the sequence.  Raises ValueError for a negative length."""
        with self._mutex:
            return self._random.randbytes(length)


class SimSecrets:
    """Secrets in a mapping that the test may change."""

    def __init__(self, values: Mapping[str, bytes]) -> None:
        self.values = dict(values)

    def get(self, name: str) -> bytes:
        """Current value.  Raises KeyError with the name when there is none."""
        return self.values[name]
