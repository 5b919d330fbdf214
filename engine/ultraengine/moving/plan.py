"""What a coordinator does next, from what the shards say and the map names.

    observe (the map first, then the shards) -> plan -> carry one action out -> observe again

A coordinator keeps nothing: what it has seen may be old, it may be killed between any two steps,
and any number of them may run; the shards' records see to it that nothing but time is lost.
To abort a move is to want the slot where it is.  Before the seal that needs the source alone; after
it the destination must have promised never to own the slot by this attempt.

The map follows: once a shard owns a slot, the map is made to name it, by a compare-and-swap onto
the version that was read *before* the shards were asked.  Until then callers are told
WRONG_SHARD and try again.
"""

import enum
from collections.abc import Mapping

import msgspec

from ultraengine.model.ids import ShardId
from ultraengine.moving.record import (
    Activate,
    Attempt,
    Begin,
    Cancel,
    Finish,
    Message,
    Reopen,
    Seal,
    SlotRecord,
    Stage,
    State,
    Stop,
    fence,
    is_image,
    proves_refusal,
    proves_successor,
    refuses,
    serves,
)


class Seen(msgspec.Struct, frozen=True):
    """What one shard said of the slot."""

    record: SlotRecord
    digest: bytes = b""
    """STAGED: of the copy."""
    position: int = 0
    """How far it is: what the source holds, or what of it the destination has."""


class Send(msgspec.Struct, frozen=True):
    """Give a shard a message; its answer is a new observation."""

    shard: ShardId
    message: Message


class Copy(msgspec.Struct, frozen=True):
    """Read on from the source and give it to the destination, from the copy's position on."""

    source: ShardId
    destination: ShardId
    attempt: Attempt


class Publish(msgspec.Struct, frozen=True):
    """Swap in a map that names this shard, onto the version that was read."""

    owner: ShardId


class Rest(enum.Enum):
    """Nothing to do now."""

    DONE = "done"
    """The slot is where it is wanted, the map says so, and nothing is left elsewhere."""
    WAIT = "wait"
    """What was seen does not say enough: observe again."""


Action = Send | Copy | Publish | Rest
View = Mapping[ShardId, Seen]
"""Of every shard that answered."""


def plan(goal: ShardId, mapped: ShardId, view: View, *, lag_max: int) -> Action:
    """The next action towards `goal` owning the slot, which the map says is `mapped`'s.

    `lag_max`: how far the copy may be behind when the source is stopped; the pause is about as
    long as so much takes to copy.
    """
    found = holder(view)
    if found is None:
        return Rest.WAIT
    record = view[found].record
    if serves(record) and mapped != found:
        return Publish(found)
    left = _left_behind(record, view)
    if left is not None:
        return left
    if record.state is State.OWNED:
        if goal == found:
            return Rest.DONE
        return Send(found, Begin(record.attempt.next, goal))
    if record.state is State.EXPORTING:
        return _exporting(goal, found, record, view, lag_max)
    return _sealed(goal, found, record, view)


def holder(view: View) -> ShardId | None:
    """Who has the slot, of those seen: the one of the latest era that serves it or has stopped."""
    return max(
        (
            shard
            for shard, seen in view.items()
            if seen.record.state not in {State.ABSENT, State.STAGED}
        ),
        key=lambda shard: (view[shard].record.era, -shard),
        default=None,
    )


def _left_behind(record: SlotRecord, view: View) -> Action | None:
    """What earlier moves have left elsewhere, one at a time, by shard."""
    for shard, seen in sorted(view.items()):
        other = seen.record
        if other.state is State.SEALED and proves_successor(other.attempt, record.era):
            return Send(shard, Finish(other.attempt, record.era))
        if other.state is State.STAGED and is_over(other.attempt, record):
            return Send(shard, Cancel(other.attempt))
    return None


def is_over(attempt: Attempt, owner: SlotRecord) -> bool:
    """Whether the slot's holder shows that nothing can come of an attempt any more."""
    return attempt < owner.attempt or (owner.state is State.OWNED and attempt == owner.attempt)


def _exporting(
    goal: ShardId, source: ShardId, record: SlotRecord, view: View, lag_max: int
) -> Action:
    attempt, peer = record.attempt, record.peer
    seen = None if peer is None else view.get(peer)
    if peer is None or goal != peer:
        return Send(source, Stop(attempt))
    if seen is None:
        return Rest.WAIT
    if refuses(seen.record, attempt):
        return Send(source, Stop(attempt))
    if seen.record.state is State.STAGED and seen.record.attempt == attempt:
        if view[source].position - seen.position > lag_max:
            return Copy(source, peer, attempt)
        return Send(source, Seal(attempt))
    return _staging(source, peer, attempt, seen)


def _sealed(goal: ShardId, source: ShardId, record: SlotRecord, view: View) -> Action:
    attempt, peer = record.attempt, record.peer
    seen = None if peer is None else view.get(peer)
    if peer is None or seen is None:
        return Rest.WAIT
    if proves_successor(attempt, seen.record.era):
        return Send(source, Finish(attempt, seen.record.era))
    refused = fence(seen.record)
    if refused is not None and proves_refusal(attempt, refused):
        return Send(source, Reopen(attempt, peer, refused))
    if goal != peer:
        return Send(peer, Cancel(attempt))
    if seen.record.state is State.STAGED and seen.record.attempt == attempt:
        if not is_image(record.digest, seen.digest):
            return Copy(source, peer, attempt)
        return Send(peer, Activate(attempt, record.digest))
    return _staging(source, peer, attempt, seen)


def _staging(source: ShardId, peer: ShardId, attempt: Attempt, seen: Seen) -> Action:
    if seen.record.state in {State.ABSENT, State.STAGED} and seen.record.attempt < attempt:
        return Send(peer, Stage(attempt, source))
    return Rest.WAIT
