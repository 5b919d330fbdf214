"""A circuit breaker: whether it makes sense to try a database that has failed just now.

    closed ──failed──▶ open ──its wait is over──▶ half-open ──succeeded──▶ closed
                        ▲                             │
                        └─────failed, undecided───────┘
    forced: a person has opened it; only a person closes it

The first failure opens it: a writer that knows its database is away does not hammer it.  Waits
double up to a cap, with jitter, so that many workers do not come back at one moment.  Time and
chance are arguments.  Asking a closed one costs a comparison.
"""

import enum
from typing import Final

from ultraengine.model.errors import InvariantBroken

FIRST_WAIT_S: Final = 0.1
EXPONENT_MAX: Final = 30
"""Beyond this many failures a wait no longer doubles, whatever the cap."""


class BreakerState(enum.StrEnum):
    """What a breaker lets through."""

    CLOSED = "closed"
    """Everything."""
    OPEN = "open"
    """Nothing until `Breaker.retry_at`."""
    HALF_OPEN = "half_open"
    """One attempt, whose end decides."""
    FORCED = "forced"
    """Nothing until a person says so."""


_CLOSED: Final = BreakerState.CLOSED


class Breaker:
    """The breaker of one target.  Instants are seconds of a clock that never goes back."""

    __slots__ = ("_wait_max_s", "failures", "opened", "retry_at", "state")

    def __init__(self, wait_max_s: float) -> None:
        if not wait_max_s >= FIRST_WAIT_S:
            raise InvariantBroken("a wait has a cap", wait_max_s=wait_max_s, first=FIRST_WAIT_S)
        self._wait_max_s = wait_max_s
        self.state = _CLOSED
        self.failures = 0
        """In a row."""
        self.opened = 0
        """How often it has left `BreakerState.CLOSED`."""
        self.retry_at = 0.0

    def allows(self, now: float) -> bool:
        """Whether to try.  An open one whose wait is over lets one attempt through."""
        if self.state is _CLOSED:
            return True
        if self.state is BreakerState.OPEN and now >= self.retry_at:
            self.state = BreakerState.HALF_OPEN
            return True
        return False

    def succeeded(self) -> None:
        """An attempt went well."""
        self.failures = 0
        if self.state is not BreakerState.FORCED:
            self.state = _CLOSED

    def failed(self, now: float, chance: float) -> None:
        """An attempt failed; `chance` in [0, 1) spreads the wait over its upper half."""
        self.failures += 1
        if self.state is BreakerState.FORCED:
            return
        if self.state is _CLOSED:
            self.opened += 1
        longest = FIRST_WAIT_S * 2.0 ** min(self.failures - 1, EXPONENT_MAX)
        wait = min(longest, self._wait_max_s)
        self.retry_at = now + wait * (0.5 + chance / 2)
        self.state = BreakerState.OPEN

    def undecided(self) -> None:
        """An attempt ended and told nothing of the database (it was cancelled, perhaps): the next
        one may be made at once.  Every attempt that was let through ends in one of the three."""
        if self.state is BreakerState.HALF_OPEN:
            self.state = BreakerState.OPEN

    def force(self, *, is_open: bool) -> None:
        """A person opens it for good, or closes it again."""
        self.state = BreakerState.FORCED if is_open else _CLOSED
        self.failures = 0
