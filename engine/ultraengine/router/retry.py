"""When a forwarded request is sent again, and what its sender is told when it is not.

Every command carries an id, so sending it again is safe, and a shard that had done it answers
with the first reply.  What must not happen is that a command that may have been logged is
called refused: its sender would use a new id and book twice.  Hence:

    never sent                        SHARD_UNAVAILABLE at once: the sender decides
    sent, and the answer is lost      again, until the deadline; then OUTCOME_UNKNOWN
    then "try later" of the shard     no answer to the first attempt: again, as above
    a copy that does not lead         the other copies at once; when none leads, as above:
                                      never sent, or again until the deadline
"""

import enum
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec

FIRST_DELAY_S: Final = 0.02
DELAY_MAX_S: Final = 0.5
UNAVAILABLE_RETRY_AFTER_S: Final = 1.0
"""What the sender is told to wait: about the time in which a process starts again."""
STRANGER: Final = 401
"""The status by which a shard refuses its front, and never the sender."""
_RETRYABLE: Final = frozenset({STRANGER, 421, 429, 502, 503, 504})


TURNS_MAX: Final = 3
"""How often a request goes round the copies of a shard, at most, before it waits."""
Place = tuple[str, int]
"""One address of a shard: that of one copy, where a name has several."""


class _Problem(msgspec.Struct):
    code: str = ""


class TurnedAway(NamedTuple):
    """A copy that does not lead has answered, and has taken nothing."""

    place: Place


def does_not_lead(status: int, body: bytes) -> bool:
    """Whether an answer is that of a copy which follows another one."""
    if status != 503:
        return False
    try:
        return msgspec.json.decode(body, type=_Problem).code == "NOT_LEADER"
    except msgspec.DecodeError:
        return False


def in_turn(places: Sequence[Place], first: Place | None) -> list[Place]:
    """Addresses in the order in which they are tried: from the one that led last on."""
    ordered = sorted(places)
    at = ordered.index(first) if first in ordered else 0
    return ordered[at:] + ordered[:at]


def goes_round(turned: Sequence[Place], places: Sequence[Place]) -> bool:
    """Whether a request that these copies have turned away, in this order, is to be sent to the
    next one.  Connections that were on their way may lead to the same one more than once."""
    return not set(places) <= set(turned) and len(turned) < TURNS_MAX * len(places)


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
