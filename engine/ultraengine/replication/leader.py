"""The leader of one epoch: what is committed, whom it waits for, how the ISR changes.

Values in, values out.  A group is committed when it is durable here and on every member of the
wait set, at least ``min_isr`` are in sync, and the epoch-start frame is committed with it:

    wait set = ISR in force  +  ISR of every swap whose fate is not known
"""

from typing import Any

import msgspec

from ultraengine.model.ids import ConfigVersion, Epoch
from ultraengine.replication.record import (
    Holder,
    NotAllowed,
    Record,
    Seat,
    agreed,
    counted,
    elders,
    grown,
    narrowed,
    settled,
    shrunk,
    touched,
    widened,
)


class Copy(msgspec.Struct, frozen=True):
    """What is known of one copy of this leader's log, its own included."""

    start: int
    """Start counter of the life that it was compared with; answers of another life do not count."""
    matched: int
    """It holds this leader's log durably up to here."""
    version: ConfigVersion
    """Version of the record that its disk has sworn to in this epoch."""


class Leader(msgspec.Struct, frozen=True):
    """One leadership.  ``over`` once it is known that another record is in force."""

    me: Holder
    record: Record
    """The newest record known to be in force (by a won swap, or a quorum read)."""
    begin: int | None = None
    """Position of the epoch-start frame; below it is the tail that was adopted whole.  None: a
    candidate, which writes nothing yet."""
    committed_end: int = 0
    """First position that is not committed; never below what it was."""
    copies: tuple[tuple[Seat, Copy], ...] = ()
    """By seat, ascending; few, so a scan is as good as a table, and the whole can be compared."""
    unresolved: tuple[Record, ...] = ()
    """Swaps that were sent and whose fate is not known, oldest first."""
    over: bool = False

    @property
    def epoch(self) -> Epoch:
        """The epoch that it leads."""
        return self.record.epoch

    def with_(self, **changes: Any) -> "Leader":
        """A copy with some fields changed."""
        return msgspec.structs.replace(self, **changes)


def wait_set(leader: Leader) -> tuple[Seat, ...]:
    """Whose answers a commit needs, ascending (clauses 3, 4)."""
    seats = set(leader.record.isr)
    for swap in leader.unresolved:
        seats.update(swap.isr)
    return tuple(sorted(seats))


def is_enough(leader: Leader) -> bool:
    """Whether enough are in sync to commit anything, in every record that may be in force."""
    records = (leader.record, *leader.unresolved)
    return all(counted(record, record.isr) >= record.min_isr for record in records)


def copy_of(leader: Leader, seat: Seat) -> Copy | None:
    """What is known of one copy; None before its first answer."""
    for one, copy in leader.copies:
        if one == seat:
            return copy
    return None


def held(leader: Leader, seat: Seat) -> int:
    """Up to where `seat` holds this leader's log, as far as it was compared in this epoch."""
    copy = copy_of(leader, seat)
    return 0 if copy is None else copy.matched


def knows(leader: Leader, seat: Seat) -> bool:
    """Whether the disk of `seat` has sworn to the record in force.

    Only then do its answers commit anything: after a roll-back of the record, the disks that
    hold what was acknowledged must be the ones that notice (clause 11).
    """
    copy = copy_of(leader, seat)
    return copy is not None and copy.version >= leader.record.version


def advanced(leader: Leader) -> Leader:
    """With everything committed that may be."""
    if leader.over or not is_enough(leader):
        return leader
    waited = wait_set(leader)
    end = min(held(leader, seat) for seat in waited)
    if leader.begin is None or end <= max(leader.begin, leader.committed_end):
        # Below the epoch-start frame: the adopted tail alone is not this leader's to promise.
        return leader
    if not all(knows(leader, seat) for seat in leader.record.isr):
        return leader
    return leader.with_(committed_end=end)


def may_begin(leader: Leader) -> bool:
    """Whether a candidate may write its epoch-start frame (clause 2).

    So many disks have sworn its epoch that every set of disks that a later planner must hear has
    one of them: a record that goes back cannot give the same epoch to somebody else unnoticed.
    Disks of other places than the record's are not among those that must be heard.
    """
    sworn = [seat for seat, _ in leader.copies if seat.replica < leader.record.replicas]
    return (
        leader.begin is None
        and not leader.over
        and len(sworn) >= leader.record.min_isr
        and leader.me.seat in sworn
    )


def begun(leader: Leader, log_end: int) -> Leader:
    """The epoch-start frame stands at what was the log's end: the whole tail is adopted (clause 7).

    Raises `NotAllowed` before enough disks have sworn.
    """
    if not may_begin(leader):
        raise NotAllowed(f"{len(leader.copies)} disks have sworn epoch {leader.epoch}")
    return leader.with_(begin=log_end)


def answered(
    leader: Leader, seat: Seat, *, start: int, position: int, version: ConfigVersion
) -> Leader:
    """`seat`, in this life, holds this leader's log durably below `position`, and its disk has
    sworn to `version` of the record.  The leader's own disk answers in the same way.

    The transport gives only answers of this epoch whose connection began with a comparison of the
    logs (clause 8).  An answer of an earlier life than one already heard is late, and dropped.
    """
    copy = copy_of(leader, seat)
    if copy is not None and start < copy.start:
        return leader
    if copy is not None and start == copy.start:
        position = max(position, copy.matched)
        version = ConfigVersion(max(version, copy.version))
    others = [pair for pair in leader.copies if pair[0] != seat]
    copies = tuple(sorted([*others, (seat, Copy(start, position, version))], key=_seat_of))
    return advanced(leader.with_(copies=copies))


def _seat_of(pair: tuple[Seat, Copy]) -> Seat:
    return pair[0]


def dropping(leader: Leader, seat: Seat) -> Leader:
    """Send the swap that lets `seat` go; it is waited for until the swap is known won (clause 4).

    Raises `NotAllowed`; also while another swap is unresolved, since it may be in force.
    """
    return sending(leader, shrunk(leader.record, seat))


def adding(leader: Leader, seat: Seat) -> Leader:
    """Send the swap that takes `seat` in, which is waited for at once (clause 4).

    Raises `NotAllowed`; also when its log does not reach what may be acknowledged: what this
    leader has committed, and the whole tail that it has adopted from the epochs before.
    """
    if leader.begin is None or held(leader, seat) < max(leader.begin, leader.committed_end):
        raise NotAllowed(f"{seat} holds less than what may be acknowledged")
    return sending(leader, grown(leader.record, seat))


def widening(leader: Leader, min_isr: int) -> Leader:
    """Send the swap that makes one place more, whose copy is in sync (clause 14).

    Raises `NotAllowed`; also before that copy knows of it: it could not testify otherwise, and as
    many would have to.
    """
    if not all(knows(leader, seat) for seat in leader.record.isr):
        raise NotAllowed("not all copies in sync know that they are")
    return sending(leader, widened(leader.record, min_isr))


def narrowing(leader: Leader, min_isr: int) -> Leader:
    """Send the swap that makes one place less; its copy stays in sync for now (clause 14).

    Raises `NotAllowed`.
    """
    return sending(leader, narrowed(leader.record, min_isr))


def agreeing(leader: Leader) -> Leader:
    """Send the swap that says that the copies of before have sworn to their new number: from then
    on they may leave (clause 14).

    Raises `NotAllowed` while one of them has not, and when it is said already.
    """
    record = leader.record
    for seat in elders(record):
        copy = copy_of(leader, seat)
        if copy is None or copy.version < record.resized[1]:
            raise NotAllowed(f"{seat} has not sworn to {record.replicas} copies")
    return sending(leader, agreed(record))


def settling(leader: Leader) -> Leader:
    """Send the swap that says that all of the ISR hold what this leader has adopted (clause 11).

    Raises `NotAllowed` before its epoch-start frame is committed, and when it is said already.
    """
    if leader.begin is None or leader.committed_end <= leader.begin:
        raise NotAllowed("the epoch-start frame is not committed")
    return sending(leader, settled(leader.record))


def forcing(leader: Leader) -> Leader:
    """Send the unchanged content once more: whichever of the swaps lands, the others cannot.

    The one way to settle an unknown outcome without hearing of it (clause 4).
    """
    if not leader.unresolved:
        raise NotAllowed("no swap is unresolved")
    return leader.with_(unresolved=(*leader.unresolved, touched(leader.record)))


def sending(leader: Leader, swap: Record) -> Leader:
    """Send a swap, which is waited for until its fate is known (clause 4).

    Raises `NotAllowed` while another one is unresolved, since it may be in force.
    """
    if leader.over or leader.unresolved:
        raise NotAllowed("one swap at a time")
    return leader.with_(unresolved=(swap,))


def won(leader: Leader, swap: Record) -> Leader:
    """The manager says that this swap landed.  It is in force, and the others never will be."""
    if swap not in leader.unresolved:
        return leader  # An answer that came after the question was settled otherwise.
    if swap.epoch != leader.epoch:
        # It has named its successor.
        return leader.with_(record=swap, unresolved=(), over=True)
    return advanced(leader.with_(record=swap, unresolved=()))


def lost(leader: Leader, swap: Record, current: Record) -> Leader:
    """This swap met another record: `current`, by a quorum read after it.

    A record that is no newer than the one the swap started from is not the one that was met: the
    record has gone back (clause 11), and nothing that it says may be relied on.
    """
    if swap not in leader.unresolved:
        return leader
    if current.order <= leader.record.order:
        return leader.with_(over=True)
    return read(leader, current)


def read(leader: Leader, current: Record) -> Leader:
    """A quorum read.  It settles swaps only when it shows a higher version: while it shows the one
    that they started from, they may still land (clause 4)."""
    if current in leader.unresolved:
        return won(leader, current)
    if current.epoch != leader.epoch or current.holder != leader.me:
        return leader.with_(over=True)
    if current.elections != leader.record.elections:
        # The same epoch, given again after the record went back.
        return leader.with_(over=True)
    if current.version < leader.record.version:
        return leader.with_(over=True)
    if current.version == leader.record.version:
        return leader
    return advanced(leader.with_(record=current, unresolved=()))
