"""A wall clock that does not leap: what logged time is stamped with.

Logged time never goes back, so an hour that was stamped by mistake cannot be taken back: holds
expire too early, and ids leave the window in which a retry is recognised.  A clock that was set
a week ahead by accident would make the shard forget every id at once, and a retry of what it
has acknowledged would be done twice.  So a leap ahead of more than a limit, measured against
the time that has passed, is not believed while the process lives.
"""

from collections.abc import Callable

from ultraengine.model.ids import Instant
from ultraengine.ports import Clock


def _say_nothing(_detail: str) -> None:
    """Until somebody listens."""


class SteadyClock:
    """Implements `Clock` over another one.

    Small steps are followed, as are all steps back (stamps do not go back anyway).  After a leap
    ahead, time goes on from where it was by the time that passes, until the wall clock is
    within the limit again or a new process believes it.
    """

    def __init__(self, clock: Clock, leap_max_s: float) -> None:
        self._clock = clock
        self._leap_max_us = leap_max_s * 1_000_000
        self._wall = int(clock.now())
        self._elapsed = clock.monotonic()
        self.leaped = False
        """Whether the wall clock is too far ahead to be believed."""
        self.on_leap: Callable[[str], None] = _say_nothing
        """Told once per leap, in a sentence."""

    def now(self) -> Instant:
        """Wall-clock time in microseconds since the Unix epoch, as far as it is believed."""
        wall, elapsed = int(self._clock.now()), self._clock.monotonic()
        expected = self._wall + round((elapsed - self._elapsed) * 1_000_000)
        ahead = wall - expected
        leaped = ahead > self._leap_max_us
        self._wall, self._elapsed = expected if leaped else wall, elapsed
        if leaped and not self.leaped:
            self.on_leap(
                f"the wall clock leaped {ahead / 1_000_000:.0f} s ahead (limit clock_leap_max_s = "
                f"{self._leap_max_us / 1_000_000:.0f}); commands are stamped without the leap. Set "
                f"the clock right, or restart the shard if it is right now"
            )
        self.leaped = leaped
        return Instant(self._wall)

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self._clock.monotonic()
