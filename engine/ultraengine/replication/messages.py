"""What replicas, and whoever plans a failover, say to each other.

Every message names the life that it speaks for, so that a late one is known as such: nothing here
relies on order or on single delivery.
"""

import msgspec

from ultraengine.log.frame import Frame
from ultraengine.model.ids import ConfigVersion, Epoch
from ultraengine.replication.epochs import EpochTable
from ultraengine.replication.follower import Join
from ultraengine.replication.promotion import Answer
from ultraengine.replication.record import Holder, Record, Seat, Size


class Beacon(msgspec.Struct, frozen=True, tag=True):
    """A leader, or a candidate, is here: whoever does not copy it yet says `Hello`."""

    epoch: Epoch
    leader: Holder


class Hello(msgspec.Struct, frozen=True, tag=True):
    """What a copy holds before it joins; for this leadership alone."""

    epoch: Epoch
    me: Holder
    number: int
    """Of this life's hellos.  One that is answered is not answered again."""
    table: EpochTable
    end: int


class Joining(msgspec.Struct, frozen=True, tag=True):
    """The answer to one `Hello`.

    A second answer, or one to an earlier hello, is dropped: its end of the leader's log is an
    old one, and a cut to it would take away what the leader has counted since.
    """

    number: int
    join: Join


class Append(msgspec.Struct, frozen=True, tag=True):
    """Frames from `position` on, perhaps none: then it says that the leader lives."""

    epoch: Epoch
    leader: Holder
    seat: Seat
    """Whom it is for."""
    version: ConfigVersion
    seated: bool
    position: int
    committed_end: int
    frames: tuple[Frame, ...] = ()
    size: Size | None = None
    """Of the same record as `version`."""


class Held(msgspec.Struct, frozen=True, tag=True):
    """A copy holds this leader's log durably below `position`, and has sworn to `version`."""

    epoch: Epoch
    leader: Holder
    me: Holder
    position: int
    version: ConfigVersion


class Behind(msgspec.Struct, frozen=True, tag=True):
    """What this copy would be sent next has been cut from its leader's log."""

    epoch: Epoch
    leader: Holder
    seat: Seat
    """Whom it is for."""


class Ask(msgspec.Struct, frozen=True, tag=True):
    """What does your disk say?"""

    number: int


class Reserve(msgspec.Struct, frozen=True, tag=True):
    """Swear this epoch to whoever will be chosen for it (clause 11), and answer."""

    number: int
    epoch: Epoch


class Found(msgspec.Struct, frozen=True, tag=True):
    """This is to be the first record: swear to be in it, and answer.  It is created when all of
    its disks have sworn."""

    number: int
    record: Record


class Told(msgspec.Struct, frozen=True, tag=True):
    """The answer to `Ask`, `Reserve` and `Found`."""

    number: int
    seat: Seat
    answer: Answer
    leads: Epoch | None
    """The epoch that this life leads, or tries to."""
    flush_age_s: float = 0.0
    """How long its oldest flush has been under way: a disk that hangs is as good as silent."""
    executed_end: int = 0
    """First offset that it has not executed; 0: it does not say."""
    url: str = ""
    """Where clients reach it; empty: it does not say."""


class Lead(msgspec.Struct, frozen=True, tag=True):
    """This record was in force when it was sent: its swap was won, or a quorum read showed it."""

    record: Record


class Confirm(msgspec.Struct, frozen=True, tag=True):
    """Do you still obey me?  Asked by a leader before it answers reads (clause 9)."""

    epoch: Epoch
    leader: Holder
    number: int
    """Of the round; an answer proves what it says for the time after the round began."""


class Confirmed(msgspec.Struct, frozen=True, tag=True):
    """Its disk has sworn to this leadership, and to no later one."""

    epoch: Epoch
    leader: Holder
    me: Holder
    number: int


Message = (
    Beacon
    | Hello
    | Joining
    | Append
    | Held
    | Behind
    | Ask
    | Reserve
    | Found
    | Told
    | Lead
    | Confirm
    | Confirmed
)
