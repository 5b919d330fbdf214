"""What one shard has logged about one slot, and what each message makes of it.

        Begin           Seal            Finish
    OWNED -> EXPORTING -> SEALED -> ABSENT -> STAGED -> OWNED, one era later
      ^---- Stop -'  Reopen -'         ^- Cancel -' Activate

The slot's first owner has era 0, and each activation is one era later.  An *attempt* to hand the
slot over has the era of its source and a number that the source counts; every message names
its attempt, so that one that is late, repeated or of a coordinator that knows no better
changes nothing that it was not meant for.

Who decides: while a slot is SEALED nobody serves it, and the destination's log alone says what
comes next: Activate makes it the owner, Cancel makes it promise that it never will be by this
attempt.  The source obeys what it is shown of that: Finish with the successor's era, or Reopen with
the fence.  The map decides nothing.

A message that has been carried out already is carried out again without effect; any other that
does not fit is `Refused`.
"""

import enum
from collections.abc import Callable
from typing import Any, Final

import msgspec

from ultraengine.model.ids import ShardId


class State(enum.Enum):
    """What a shard is to a slot."""

    ABSENT = "absent"
    """Holds nothing of it; attempts up to its own are refused here for ever."""
    STAGED = "staged"
    """Takes a copy and serves nothing; earlier attempts are refused here for ever."""
    OWNED = "owned"
    EXPORTING = "exporting"
    """Serves as the owner, while a copy is read."""
    SEALED = "sealed"
    """Has stopped; what it holds is the image that the destination must have."""


class Attempt(msgspec.Struct, frozen=True, order=True, array_like=True):
    """One attempt to hand a slot over."""

    era: int
    """Of the owner that hands it over."""
    number: int
    """Counted by that owner from 1; 0: none was made."""

    @property
    def next(self) -> "Attempt":
        """The one after it by the same owner."""
        return Attempt(self.era, self.number + 1)


FIRST: Final = Attempt(0, 0)


class SlotRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One slot in one shard's log."""

    state: State
    attempt: Attempt = FIRST
    """OWNED: the last one that was made.  EXPORTING, SEALED: the one under way.  STAGED: the one
    that the copy is of.  ABSENT: the last one that is refused here."""
    peer: ShardId | None = None
    """The other side of the attempt under way."""
    digest: bytes = b""
    """SEALED: of the slot's image as it was left."""

    @property
    def era(self) -> int:
        """Era of the ownership that this record knows of."""
        return self.attempt.era


NEVER_HELD: Final = SlotRecord(state=State.ABSENT)
FIRST_OWNER: Final = SlotRecord(state=State.OWNED)


class Begin(msgspec.Struct, frozen=True, tag=True):
    """To the owner: let a copy be read for this destination."""

    attempt: Attempt
    destination: ShardId


class Stop(msgspec.Struct, frozen=True, tag=True):
    """To an exporting owner: this attempt is over."""

    attempt: Attempt


class Seal(msgspec.Struct, frozen=True, tag=True):
    """To an exporting owner: stop serving the slot."""

    attempt: Attempt


class Reopen(msgspec.Struct, frozen=True, tag=True):
    """To a sealed owner: serve again; the destination has refused the attempt for ever."""

    attempt: Attempt
    refused_by: ShardId
    """Must be the attempt's destination: what another shard refuses says nothing."""
    fence: Attempt
    """The last attempt that it refuses: this one, or a later one of the era."""


class Finish(msgspec.Struct, frozen=True, tag=True):
    """To a sealed owner: the slot has a later owner; drop it."""

    attempt: Attempt
    successor_era: int


class Stage(msgspec.Struct, frozen=True, tag=True):
    """To the destination: take a copy, from nothing on."""

    attempt: Attempt
    source: ShardId


class Activate(msgspec.Struct, frozen=True, tag=True):
    """To the destination: the source is sealed with this image; own the slot if yours is it."""

    attempt: Attempt
    digest: bytes


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """To the destination: drop the copy and never own the slot by this attempt."""

    attempt: Attempt


Message = Begin | Stop | Seal | Reopen | Finish | Stage | Activate | Cancel


class Reason(enum.Enum):
    """Why a message changes nothing."""

    OTHER_STATE = "other state"
    """The shard is in a state that has no use for it."""
    OTHER_ATTEMPT = "other attempt"
    """It is of an attempt that is over here, or has not begun."""
    NO_PROOF = "no proof"
    """What it shows of the other shard does not allow it."""
    OTHER_IMAGE = "other image"
    """What is staged is not what was sealed."""


class Refused(Exception):
    """The message changes nothing here; look again and plan anew."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def serves(record: SlotRecord) -> bool:
    """Whether commands of the slot may be logged here: by its own record, whatever a map says."""
    return record.state in {State.OWNED, State.EXPORTING}


def proves_refusal(attempt: Attempt, fence: Attempt) -> bool:
    """Whether a destination's fence shows that this attempt was refused: a fence of a later era
    would be that of a slot which has moved on."""
    return fence.era == attempt.era and fence >= attempt


def proves_successor(attempt: Attempt, successor_era: int) -> bool:
    """Whether somebody has owned the slot after the source of this attempt."""
    return successor_era > attempt.era


def fence(record: SlotRecord) -> Attempt | None:
    """The last attempt that this shard refuses for ever; None where it serves or has stopped."""
    if record.state is State.ABSENT:
        return record.attempt
    if record.state is State.STAGED:
        return Attempt(record.era, record.attempt.number - 1)
    return None


def refuses(record: SlotRecord, attempt: Attempt) -> bool:
    """Whether this shard has not owned the slot by this attempt and never will."""
    last = fence(record)
    return last is not None and proves_refusal(attempt, last)


def step(record: SlotRecord, message: Message, digest: bytes) -> SlotRecord:
    """The record after a message; the very same one when there is nothing to do.

    `digest`: of what the shard holds of the slot now: its state when it serves, else the copy.
    Whoever calls makes the new record durable before anybody is told of it, and drops the content
    of a slot that becomes ABSENT.  Raises `Refused`.
    """
    handler = NEXT.get((record.state, type(message)))
    if handler is None:
        raise Refused(Reason.OTHER_STATE)
    return handler(record, message, digest)


def is_same(record: SlotRecord, attempt: Attempt) -> bool:
    """Whether a message is of the attempt that is under way here."""
    return record.attempt == attempt


def is_peer(record: SlotRecord, shard: ShardId) -> bool:
    """Whether a shard is the other side of the attempt under way."""
    return record.peer == shard


def _same(record: SlotRecord, attempt: Attempt) -> None:
    if not is_same(record, attempt):
        raise Refused(Reason.OTHER_ATTEMPT)


def _over(record: SlotRecord, message: Any, _digest: bytes) -> SlotRecord:
    """It asks for what is so already, or for an end of what has ended."""
    if message.attempt > record.attempt:
        raise Refused(Reason.OTHER_ATTEMPT)
    return record


def _begin(record: SlotRecord, message: Begin, _digest: bytes) -> SlotRecord:
    _same(record, Attempt(message.attempt.era, message.attempt.number - 1))
    return SlotRecord(state=State.EXPORTING, attempt=message.attempt, peer=message.destination)


def _begun(record: SlotRecord, message: Begin, _digest: bytes) -> SlotRecord:
    _same(record, message.attempt)
    if not is_peer(record, message.destination):
        raise Refused(Reason.OTHER_ATTEMPT)
    return record


def _stop(record: SlotRecord, message: Stop, _digest: bytes) -> SlotRecord:
    _same(record, message.attempt)
    return SlotRecord(state=State.OWNED, attempt=record.attempt)


def _seal(record: SlotRecord, message: Seal, digest: bytes) -> SlotRecord:
    _same(record, message.attempt)
    return msgspec.structs.replace(record, state=State.SEALED, digest=digest)


def _sealed(record: SlotRecord, message: Seal, _digest: bytes) -> SlotRecord:
    _same(record, message.attempt)
    return record


def _reopen(record: SlotRecord, message: Reopen, _digest: bytes) -> SlotRecord:
    _same(record, message.attempt)
    if not (is_peer(record, message.refused_by) and proves_refusal(message.attempt, message.fence)):
        raise Refused(Reason.NO_PROOF)
    return SlotRecord(state=State.OWNED, attempt=record.attempt)


def _finish(record: SlotRecord, message: Finish, _digest: bytes) -> SlotRecord:
    _same(record, message.attempt)
    if not proves_successor(message.attempt, message.successor_era):
        raise Refused(Reason.NO_PROOF)
    return SlotRecord(state=State.ABSENT, attempt=record.attempt)


def is_newer(record: SlotRecord, attempt: Attempt) -> bool:
    """Whether an attempt is later than all that this shard refuses or has a copy of."""
    return attempt > record.attempt


def _stage(record: SlotRecord, message: Stage, _digest: bytes) -> SlotRecord:
    if record.state is State.STAGED and record.attempt == message.attempt:
        return record
    if not is_newer(record, message.attempt):
        raise Refused(Reason.OTHER_ATTEMPT)
    return SlotRecord(state=State.STAGED, attempt=message.attempt, peer=message.source)


def is_image(sealed: bytes, staged: bytes) -> bool:
    """Whether the copy is what the source has left."""
    return sealed == staged


def _activate(record: SlotRecord, message: Activate, digest: bytes) -> SlotRecord:
    _same(record, message.attempt)
    if not is_image(message.digest, digest):
        raise Refused(Reason.OTHER_IMAGE)
    return SlotRecord(state=State.OWNED, attempt=Attempt(message.attempt.era + 1, 0))


def _activated(record: SlotRecord, message: Activate, _digest: bytes) -> SlotRecord:
    if message.attempt.era >= record.era:
        raise Refused(Reason.OTHER_STATE)
    return record


def _cancel(record: SlotRecord, message: Cancel, _digest: bytes) -> SlotRecord:
    if message.attempt < record.attempt:
        return record
    return SlotRecord(state=State.ABSENT, attempt=message.attempt)


Handler = Callable[[SlotRecord, Any, bytes], SlotRecord]
NEXT: Final[dict[tuple[State, type[Message]], Handler]] = {
    (State.OWNED, Begin): _begin,
    (State.OWNED, Stop): _over,
    (State.OWNED, Reopen): _over,
    (State.OWNED, Activate): _activated,
    (State.EXPORTING, Begin): _begun,
    (State.EXPORTING, Stop): _stop,
    (State.EXPORTING, Seal): _seal,
    (State.EXPORTING, Activate): _activated,
    (State.SEALED, Seal): _sealed,
    (State.SEALED, Reopen): _reopen,
    (State.SEALED, Finish): _finish,
    (State.SEALED, Activate): _activated,
    (State.ABSENT, Finish): _over,
    (State.ABSENT, Stage): _stage,
    (State.ABSENT, Cancel): _cancel,
    (State.STAGED, Stage): _stage,
    (State.STAGED, Activate): _activate,
    (State.STAGED, Cancel): _cancel,
}
