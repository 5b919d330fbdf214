"""When a forwarded request is sent again, and what its sender is told when it is not.

Every command carries an id, so sending it again is safe, and a shard that had done it answers
with the first reply.  What must not happen is that a command that may have been logged is
called refused: its sender would use a new id and book twice.  Hence:

    never sent                        SHARD_UNAVAILABLE at once: the sender decides
    sent, and the answer is lost      again, until the deadline; then OUTCOME_UNKNOWN
    then "try later" of the shard     no answer to the first attempt: again, as above
"""

import enum
from typing import Final, Literal, NamedTuple

FIRST_DELAY_S: Final = 0.02
DELAY_MAX_S: Final = 0.5
UNAVAILABLE_RETRY_AFTER_S: Final = 1.0
"""What the sender is told to wait: about the time in which a process starts again."""
STRANGER: Final = 401
"""The status by which a shard refuses its front, and never the sender."""
_RETRYABLE: Final = frozenset({STRANGER, 421, 429, 502, 503, 504})


class Failure(enum.Enum):
    """How an attempt ended without a final answer."""

    NOT_SENT = "not sent"
    """No byte of it left: no connection could be had."""
    LOST = "lost"
    """Something of it was sent, and the connection broke or stayed silent."""
    LATER = "later"
    """The shard answered that it takes nothing now."""


class Again(NamedTuple):
    """Send it again after so many seconds."""

    delay_s: float


class GiveUp(NamedTuple):
    """Tell the sender."""

    code: Literal["SHARD_UNAVAILABLE", "OUTCOME_UNKNOWN"]


def after(
    failure: Failure, *, was_sent: bool, attempts: int, elapsed_s: float, deadline_s: float
) -> Again | GiveUp:
    """What follows an attempt that failed.

    `was_sent`: whether any attempt, this one included, may have reached the shard;
    `attempts`: how many there were; times in seconds since the first one began.
    """
    if not was_sent:
        return GiveUp("SHARD_UNAVAILABLE")
    # A connection that broke while it was idle is the common case: the first time at once.
    first = attempts == 1 and failure is Failure.LOST
    delay = 0.0 if first else min(FIRST_DELAY_S * 2 ** min(attempts, 16), DELAY_MAX_S)
    if elapsed_s + delay >= deadline_s:
        return GiveUp("OUTCOME_UNKNOWN")
    return Again(delay)


def is_final(status: int, *, was_lost: bool) -> bool:
    """Whether an answer is the sender's: any is, unless an earlier attempt was lost and this
    one was not taken."""
    return not (was_lost and status in _RETRYABLE)
