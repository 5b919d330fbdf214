"""A switchover, values in and values out: the leader names its successor by one swap.

    intake stops -> everything is committed, and the successor holds it -> swap -> won: it is over
                                                                       '-> not won: go on

The swap is the one of any failover (clause 6), sent by the leader itself, so it can lose nothing
whatever happens; what is waited for before it makes sure that nothing has to be done again.
Between the swap and its fate the leader stays stopped: a swap whose fate is unknown is asked about
and then forced, like any other (clause 4), and lands before that or never.
"""

import enum
from collections.abc import Mapping

import msgspec

from ultraengine.replication import leader as leaders
from ultraengine.replication.leader import Leader
from ultraengine.replication.messages import Told
from ultraengine.replication.record import (
    Holder,
    NotAllowed,
    Record,
    ReplicaId,
    Seat,
    counted,
    elders,
    elected,
)


class Phase(enum.Enum):
    """How far a handover is."""

    WAITING = "waiting"
    """For the successor to hold everything."""
    SENT = "sent"
    """Its swap is under way."""
    WON = "won"
    """Another leads."""
    GIVEN_UP = "given up"
    """This leader goes on."""


class Handover(msgspec.Struct, frozen=True):
    """One attempt of a leader to be replaced."""

    to: Seat
    until: float
    """When it is given up, unless its swap has been sent."""
    phase: Phase = Phase.WAITING
    swap: Record | None = None

    @property
    def stops(self) -> bool:
        """Whether commands are not taken meanwhile."""
        return self.phase is not Phase.GIVEN_UP


def chosen(
    record: Record,
    me: Seat,
    told: Mapping[ReplicaId, Told],
    wanted: ReplicaId | None,
    places: int,
) -> Seat | str:
    """Who is to lead next, or why nobody can: a member of the ISR that has said how it is, in one
    of the first `places`.

    Without a wish, the one that has executed most, and of those the lowest.
    """
    others = [seat for seat in record.isr if seat != me and seat.replica < places]
    if wanted is not None:
        if wanted == me.replica:
            return f"replica {wanted} leads already"
        others = [seat for seat in others if seat.replica == wanted]
        if not others:
            return f"replica {wanted} is not in sync"
    if not others:
        return "no other copy is in sync"
    able = [seat for seat in others if _is_able(seat, told.get(seat.replica))]
    if not able:
        names = ", ".join(str(seat.replica) for seat in others)
        return f"of the copies in sync ({names}) none can lead: barred, or it does not answer"
    return max(able, key=lambda seat: (told[seat.replica].executed_end, -seat.replica))


def _is_able(seat: Seat, told: Told | None) -> bool:
    return told is not None and told.seat == seat and not told.answer.barred


def handing(leader: Leader, to: Seat, log_end: int) -> Leader:
    """Send the swap that lets `to` lead the next epoch.

    The leader's own seat leaves with it while enough stay: its process ends, and nobody should
    wait for it.  Raises `NotAllowed` while anything of the log is not committed, while `to` is not
    known to hold all of it in its present life, and while another swap is unresolved.
    """
    copy = leaders.copy_of(leader, to)
    if leader.begin is None or leader.committed_end < log_end:
        raise NotAllowed("not everything is committed")
    if copy is None or copy.matched < log_end:
        raise NotAllowed(f"{to} does not hold everything")
    record = leader.record
    rest = [seat for seat in record.isr if seat != leader.me.seat]
    leaves = counted(record, rest) >= record.min_isr and leader.me.seat not in elders(record)
    members = rest if leaves else list(record.isr)
    return leaders.sending(leader, elected(record, Holder(to, copy.start), members))


def sent(handover: Handover | None, leader: Leader, swap: Record) -> Handover | None:
    """Where it stands, once its leader has sent a swap, which may be the one of the handover."""
    if handover is None or swap.epoch == leader.epoch:
        return handover
    return msgspec.structs.replace(handover, phase=Phase.SENT, swap=swap)


def after(handover: Handover, leader: Leader, now: float) -> Handover:
    """Where it stands, once something has happened to its leader."""
    if handover.phase is Phase.WAITING and now >= handover.until:
        return msgspec.structs.replace(handover, phase=Phase.GIVEN_UP)
    if handover.phase is not Phase.SENT:
        return handover
    if leader.record == handover.swap:
        return msgspec.structs.replace(handover, phase=Phase.WON)
    if not leader.over and handover.swap not in leader.unresolved:
        # Another swap of this leader has landed on the record that this one was computed from.
        return msgspec.structs.replace(handover, phase=Phase.GIVEN_UP)
    return handover
