"""A follower: whom it obeys, where its log is cut, what it may answer, what it may execute.

It copies one leader at a time.  It first *joins*: both logs are compared, the follower's is cut to
where they agree, and only from there on do its answers count (clause 8).  A cut below what
is known committed cannot happen while the protocol holds, so it stops the replica instead.
"""

import enum
from typing import Any

import msgspec

from ultraengine.model.ids import ConfigVersion, Epoch
from ultraengine.replication.epochs import EpochTable, LogView, common_end
from ultraengine.replication.promise import Promise, promised, takes
from ultraengine.replication.record import Holder


class Verdict(enum.Enum):
    """What becomes of a message."""

    TAKEN = "taken"
    STALE = "stale"
    """Of a lower epoch, of a second leader of the same one, or about a log changed since."""
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
    """The leader's chain hash there."""


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
    if not takes(follower.promise, message.epoch, message.leader):
        return Joined(Verdict.STALE, follower, log.end)
    agreed = common_end(log.epochs, log.end, message.table, message.end)
    if agreed != message.agreed:
        return Joined(Verdict.STALE, follower, log.end)  # The log is not what was told.
    if agreed < follower.committed_end or log.chain(agreed) != message.chain:
        return Joined(Verdict.DIVERGED, follower, log.end)
    sworn = promised(
        follower.promise, message.epoch, message.leader, message.version, seated=message.seated
    )
    return Joined(Verdict.TAKEN, follower.with_(promise=sworn, joined=message.epoch), agreed)


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


def told(
    follower: Follower, epoch: Epoch, leader: Holder, version: ConfigVersion, *, seated: bool
) -> Follower:
    """The leader names a newer record: to be sworn to, and synced, before the next answer."""
    if follower.joined != epoch or follower.promise.holder != leader:
        return follower
    return follower.with_(promise=promised(follower.promise, epoch, leader, version, seated=seated))


def committed(follower: Follower, epoch: Epoch, end: int, log: LogView) -> Follower:
    """The leader's commit index: it counts up to where the logs were compared and are durable."""
    if follower.joined != epoch:
        return follower
    return follower.with_(committed_end=max(follower.committed_end, min(end, log.durable_end)))
