"""A follower: whom it obeys, where its log is cut, what it may answer, what it may execute.

It copies one leader at a time.  It first *joins*: both logs are compared, the follower's is cut to
where they agree, and only from there on do its answers count (clause 8).  A cut below what
is known committed cannot happen while the protocol holds, so it stops the replica instead.
"""

import enum
from typing import Any, Protocol

import msgspec

from ultraengine.model.ids import ConfigVersion, Epoch
from ultraengine.replication.epochs import EpochTable, LogView, common_end, first_of
from ultraengine.replication.promise import Promise, follows, promised, takes
from ultraengine.replication.record import Election, Holder, Seat, Size


class Verdict(enum.Enum):
    """What becomes of a message."""

    TAKEN = "taken"
    STALE = "stale"
    """Of a lower epoch, of a second leader of the same one, or about a log changed since."""
    LACKING = "lacking"
    """The leader's log begins behind what this one agrees with: a snapshot has to come first."""
    DIVERGED = "diverged"
    """It contradicts what is known committed: stop, keep everything, call a person."""


class Join(msgspec.Struct, frozen=True):
    """A leader's first message on a connection, in answer to the follower's own table and end."""

    epoch: Epoch
    leader: Holder
    version: ConfigVersion
    seated: bool
    """Whether the record in force has the follower's seat in its ISR."""
    table: EpochTable
    end: int
    agreed: int
    """Up to where the logs agree, by the table and end that the follower has told."""
    chain: object
    """The leader's chain hash there.  The logs may turn out to differ at the leader's first
    position, and the copy may not reach it: then it lacks what is not sent frame by frame."""
    size: Size | None = None
    """Of the same record as `version`."""
    elections: tuple[Election, ...] = ()
    """Likewise."""


class Follower(msgspec.Struct, frozen=True):
    """One replica that copies, or waits to."""

    me: Holder
    promise: Promise
    joined: Epoch | None = None
    """The epoch in which its log was compared with the leader's, in this life."""
    committed_end: int = 0
    """First position not known to be committed; what lies below may be executed."""

    def with_(self, **changes: Any) -> "Follower":
        """A copy with some fields changed."""
        return msgspec.structs.replace(self, **changes)


class Joined(msgspec.Struct, frozen=True):
    """What a join asks of the driver: sync the promise, cut the log and sync, answer, in turn."""

    verdict: Verdict
    follower: Follower
    cut_to: int
    """The end of the log after it; the cut bytes are kept in a side file."""


def join(follower: Follower, message: Join, log: LogView) -> Joined:
    """Begin to copy a leader."""
    if not takes(follower.promise, message.epoch, message.leader) or (
        message.epoch > follower.promise.epoch and not follows(message.elections, follower.promise)
    ):
        return Joined(Verdict.STALE, follower, log.end)
    sworn = _sworn(follower, message)
    verdict, agreed = _compared(follower, message, log)
    match verdict:
        case Verdict.TAKEN:
            return Joined(verdict, follower.with_(promise=sworn, joined=message.epoch), agreed)
        case Verdict.LACKING:
            return Joined(verdict, follower.with_(promise=sworn, joined=None), log.end)
        case _:
            return Joined(verdict, follower, log.end)


def _compared(follower: Follower, message: Join, log: LogView) -> tuple[Verdict, int]:
    """What the tables and chains of both logs say, and up to where they agree."""
    mine, first = log.epochs, first_of(message.table, message.end)
    if message.end < first_of(mine, log.end):
        return Verdict.DIVERGED, 0  # The leader lacks what this copy has cut as committed.
    agreed = common_end(mine, log.end, message.table, message.end)
    chain = log.chain(agreed) if agreed <= log.end else None
    if agreed != message.agreed or (chain is None and agreed <= log.end):
        return Verdict.STALE, agreed  # The log is not what was told.
    if chain == message.chain:
        return (Verdict.DIVERGED if agreed < follower.committed_end else Verdict.TAKEN), agreed
    # Where the leader's log begins, nobody has claimed that both agree.
    lacking = agreed == first > follower.committed_end
    return (Verdict.LACKING if lacking else Verdict.DIVERGED), agreed


def may_append(
    follower: Follower, epoch: Epoch, leader: Holder, position: int, log: LogView
) -> bool:
    """Whether frames that begin at `position` continue this log under that leader."""
    return (
        follower.joined == epoch
        and follower.promise.epoch == epoch
        and follower.promise.holder == leader
        and position == log.end
    )


def copies(follower: Follower, seat: Seat, epoch: Epoch, leader: Holder) -> bool:
    """Whether a message to `seat` is for this disk, from the leadership that it copies."""
    return (seat, epoch, leader) == (follower.me.seat, follower.joined, follower.promise.holder)


def obeys(follower: Follower, epoch: Epoch, leader: Holder) -> bool:
    """Whether its disk has sworn to this leadership, and to no later one."""
    return (follower.promise.epoch, follower.promise.holder) == (epoch, leader)


class Telling(Protocol):
    """A leader's word of the record in force."""

    @property
    def epoch(self) -> Epoch: ...
    @property
    def leader(self) -> Holder: ...
    @property
    def version(self) -> ConfigVersion: ...
    @property
    def seated(self) -> bool: ...
    @property
    def size(self) -> Size | None: ...


def told(follower: Follower, word: Telling) -> Follower:
    """The leader names a newer record: to be sworn to, and synced, before the next answer."""
    if follower.joined != word.epoch or follower.promise.holder != word.leader:
        return follower
    return follower.with_(promise=_sworn(follower, word))


def _sworn(follower: Follower, word: Telling) -> Promise:
    return promised(
        follower.promise, word.epoch, word.leader, word.version, seated=word.seated, size=word.size
    )


def committed(follower: Follower, epoch: Epoch, end: int, log: LogView) -> Follower:
    """The leader's commit index: it counts up to where the logs were compared and are durable."""
    if follower.joined != epoch:
        return follower
    return follower.with_(committed_end=max(follower.committed_end, min(end, log.durable_end)))
