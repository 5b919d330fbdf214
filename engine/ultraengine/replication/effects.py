"""What a replica asks of its driver, as values, in the order in which it is to be done."""

import msgspec

from ultraengine.log.frame import Frame
from ultraengine.replication.messages import Message
from ultraengine.replication.promise import Promise
from ultraengine.replication.record import Holder, Record, ReplicaId


class ReplicaLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Times and sizes; none of them decides what is safe."""

    silence_s: float = 1.0
    """A copy that has not answered for so long leaves the ISR, if it may."""
    resend_s: float = 0.2
    """Frames that are not answered for so long are sent again."""
    repeat_s: float = 0.04
    """A copy that has nothing new to say to its leader says it again after so long, not sooner; and
    a leader tells of a commit by itself only when no frames follow.  0: both speak at once."""
    swap_s: float = 1.0
    """A swap without an answer is asked about after so long, and forced after twice that."""
    read_s: float = 0.5
    """How often a replica that copies nobody looks at the record."""
    kept_s: float = 3600.0
    """A copy that has not answered for so long keeps nothing in its leader's log."""
    append_frames_max: int = 64
    """In one message."""
    lag_frames_max: int = 64
    """A copy that is further behind is not taken into the ISR: commits would wait for it."""


class Sending(msgspec.Struct, frozen=True):
    """A message to a replica, to leave after everything else of its `Effects` is durable."""

    to: ReplicaId | None
    """None: whoever has asked."""
    message: Message
    frames_end: int = 0
    """For an `Append`: the driver adds the frames from its position to here."""


class Swap(msgspec.Struct, frozen=True):
    """A compare-and-swap of the record."""

    expected: Record
    new: Record


class Effects(msgspec.Struct):
    """Work for the driver, in this order, and then what `Replica.committed_end` allows.

    Everything but the two writes, `copy` and `begin`, is durable before the next field is looked
    at: no answer leaves before the promise that it speaks of.  The writes need not be awaited:
    nothing that is sent counts them.
    """

    promise: Promise | None = None
    """To sync."""
    cut_to: int | None = None
    """Cut the log to this end, keep what is cut aside, and sync."""
    copy: tuple[Frame, ...] = ()
    """To write; `Replica.flushed` once they are durable."""
    begin: bool = False
    """Write the epoch-start frame of the epoch that is led, then call `Replica.written`."""
    swap: Swap | None = None
    read: bool = False
    """Ask for a quorum read of the record."""
    sends: list[Sending] = msgspec.field(default_factory=list)
    lacks: Holder | None = None
    """This leader's log begins behind this one: get a snapshot from it, and be started anew."""
    diverged: bool = False
    """Stop, keep everything, call a person."""


class Deposed(Exception):
    """This life has led and does no more: its memory is void, the next one follows."""


class Diverged(Exception):
    """The log contradicts what is known committed; everything is kept as it is."""
