"""The configuration record of one shard: who leads, in which epoch, and whose copies count.

The record lives outside (in the shard's fencing Lease) and changes by compare-and-swap alone:
every change is computed from one record that was read and lands only while that record is still
in force.  The functions here compute changes; nothing here waits.  `docs/protocol.md` names each
clause, what it prevents, and the test that fails without it.  Primary-backup with an external
configuration manager: Lin et al., PacificA, MSR-TR-2008-25; ISR: KIP-966.
"""

from collections.abc import Iterable
from typing import Any, Final, NewType

import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ConfigVersion, Epoch, ShardId

ReplicaId = NewType("ReplicaId", int)
"""Number of a replica within its shard; its place, not its disk."""

DiskId = NewType("DiskId", bytes)
"""Random, minted when a volume is found empty, kept in the identity file (clause 5)."""


class Seat(msgspec.Struct, frozen=True, order=True):
    """A copy that counts: this disk in this place.  Another disk there is another seat."""

    replica: ReplicaId
    disk: DiskId


class Holder(msgspec.Struct, frozen=True, order=True):
    """One life of one process on one disk (clause 7)."""

    seat: Seat
    start: int
    """Start counter, on disk, synced + 1 at every start: it tells lives apart."""


class Size(msgspec.Struct, frozen=True, order=True):
    """How many copies there are, as a disk swears to it; the newest is the greatest (clause 14)."""

    epoch: Epoch
    version: ConfigVersion
    """Of the record that brought it."""
    replicas: int
    """Places 0 to this are those of the shard."""
    min_isr: int


class Election(msgspec.Struct, frozen=True, order=True, array_like=True):
    """Which version of the record began an epoch."""

    epoch: Epoch
    version: ConfigVersion


ELECTIONS_MAX: Final = 16
"""That a record keeps, the newest; what was sworn before the oldest of them is not judged."""


class Record(msgspec.Struct, frozen=True):
    """What the configuration manager keeps.  Only functions of this module make the next one."""

    cluster_uid: bytes
    """Random, minted at bootstrap: a record of another cluster never counts."""
    shard: ShardId
    epoch: Epoch
    holder: Holder
    isr: tuple[Seat, ...]
    """In-sync replicas, ascending: all of them hold every acknowledged frame, once settled."""
    min_isr: int
    version: ConfigVersion
    """+ 1 with every change, the unchanged content swapped again included."""
    settled: bool = True
    """Whether all of the ISR hold every acknowledged frame.  Not so after a roll-back: those who
    were heard are the ISR, and of them the holder alone is known to, until its epoch-start frame
    is on all of them (clause 11)."""
    replicas: int = 0
    """Places 0 to this are those of the shard.  0 only on the way in, of a record of a release
    that did not say it (`store.decode_record`)."""
    resized: tuple[Epoch, ConfigVersion] = (Epoch(0), ConfigVersion(0))
    """Epoch and version of the record that brought this number; it orders numbers."""
    before: int = 0
    """The number before, while not all copies of those places have sworn to this one (clause 14);
    0: they have."""
    elections: tuple[Election, ...] = ()
    """Ascending, from the first record or the newest recovery on: they tell a record that follows
    what a disk has sworn from one that is of a time that was taken back (clause 11)."""

    @property
    def size(self) -> Size:
        """How many copies there are."""
        return Size(*self.resized, self.replicas, self.min_isr)

    @property
    def order(self) -> tuple[Epoch, ConfigVersion]:
        """Records of one cluster are ordered by this; going back is a roll-back (clause 11)."""
        return self.epoch, self.version


class NotAllowed(Exception):
    """A change that the protocol forbids: the caller has asked for it too early or wrongly."""


def check(record: Record) -> None:
    """Raises `InvariantBroken` for a record that no correct writer has written."""
    isr = record.isr
    if list(isr) != sorted(set(isr)) or len({seat.replica for seat in isr}) != len(isr):
        raise InvariantBroken("seats are ascending, one for each replica", isr=isr)
    if record.holder.seat not in isr:
        raise InvariantBroken("the holder is in sync", holder=record.holder, isr=isr)
    if not 1 <= record.min_isr <= counted(record, isr):
        raise InvariantBroken("an ISR has at least min_isr seats", isr=isr, min_isr=record.min_isr)
    if record.holder.seat.replica >= record.replicas:
        raise InvariantBroken("the holder is of the shard", holder=record.holder)


def counted(record: Record, seats: Iterable[Seat]) -> int:
    """How many of these are in places of the shard: the others are waited for, and no more."""
    return sum(1 for seat in seats if seat.replica < record.replicas)


def bootstrap(
    cluster_uid: bytes,
    shard: ShardId,
    holder: Holder,
    seats: Iterable[Seat],
    min_isr: int,
    *,
    replicas: int | None = None,
    epoch: Epoch = Epoch(1),  # noqa: B008  (a number)
) -> Record:
    """The first record, made once, when all replicas have reported empty disks; or, in an epoch
    above those of its log, when a log that was not replicated becomes the first copy.

    A record that is missing later has been lost: it is never made again (clause 11).
    """
    isr, version = tuple(sorted(seats)), ConfigVersion(1)
    record = Record(
        cluster_uid,
        shard,
        epoch,
        holder,
        isr,
        min_isr,
        version,
        replicas=len(isr) if replicas is None else replicas,
        resized=(epoch, version),
        elections=(Election(epoch, version),),
    )
    check(record)
    return record


def shrunk(record: Record, seat: Seat) -> Record:
    """Without a seat that does not keep up.  By the leader alone (clause 4).

    Raises `NotAllowed` for the holder's own seat, for one that is not in, and when fewer than
    ``min_isr`` would remain: a shard that may not lose one more copy waits instead.
    """
    if seat not in record.isr or seat == record.holder.seat:
        raise NotAllowed(f"{seat} cannot leave {record.isr}")
    rest = tuple(one for one in record.isr if one != seat)
    if counted(record, rest) < record.min_isr:
        raise NotAllowed(f"{len(record.isr)} in sync, {record.min_isr} are needed")
    if seat in elders(record):
        raise NotAllowed(f"{seat} has perhaps not sworn to {record.replicas} copies")
    return _next(record, isr=rest)


def grown(record: Record, seat: Seat) -> Record:
    """With one more seat.  By the leader alone, of a copy that has caught up with it (clause 4).

    The same replica with another disk must have left before.  The copy of the next place may come
    in too, before that is one of the shard's (clause 14).  Raises `NotAllowed`.
    """
    if any(one.replica == seat.replica for one in record.isr):
        raise NotAllowed(f"replica {seat.replica} has a seat in {record.isr}")
    if seat.replica > record.replicas:
        raise NotAllowed(f"replica {seat.replica} is none of {record.replicas}, and not the next")
    return _next(record, isr=tuple(sorted((*record.isr, seat))))


def elders(record: Record) -> tuple[Seat, ...]:
    """Whose copies may not leave yet: those of before a change of their number, until all of them
    have sworn to it.  A record from before that change could count on them (clause 14)."""
    return tuple(seat for seat in record.isr if seat.replica < record.before)


def widened(record: Record, min_isr: int) -> Record:
    """One place more.  By the leader alone (clause 14).

    Raises `NotAllowed` unless all copies are in sync, and the one of the next place with them.
    """
    return _resized(record, record.replicas + 1, min_isr, kept=record.replicas + 1)


def narrowed(record: Record, min_isr: int) -> Record:
    """One place less, the last; its copy leaves later, as one that is silent does (clause 14).

    Raises `NotAllowed` unless all other copies are in sync and one of them leads.
    """
    replicas = record.replicas - 1
    if record.holder.seat.replica >= replicas:
        raise NotAllowed("the copy that leads does not go")
    return _resized(record, replicas, min_isr, kept=replicas)


def _resized(record: Record, replicas: int, min_isr: int, *, kept: int) -> Record:
    places = {int(seat.replica) for seat in record.isr}
    if record.before or not record.settled:
        raise NotAllowed("one change at a time")
    if not set(range(kept)) <= places or max(places) > max(kept, record.replicas - 1):
        raise NotAllowed(f"the copies of {kept} places are not in sync, or others still are")
    if not 1 <= min_isr <= replicas:
        raise NotAllowed(f"{min_isr} in sync of {replicas}")
    at = (record.epoch, ConfigVersion(record.version + 1))
    return _next(record, replicas=replicas, min_isr=min_isr, resized=at, before=record.replicas)


def agreed(record: Record) -> Record:
    """All copies of before have sworn to their new number.  By the leader alone (clause 14).

    Raises `NotAllowed` when it is said already.
    """
    if not record.before:
        raise NotAllowed("no change of the number of copies is under way")
    return _next(record, before=0)


def touched(record: Record) -> Record:
    """The same content, one version on: lands only if nothing else has, and so resolves it."""
    return _next(record)


def settled(record: Record) -> Record:
    """All of the ISR hold what their leader has adopted.  By the leader alone (clause 11).

    Raises `NotAllowed` for a record that is settled.
    """
    if record.settled:
        raise NotAllowed("the record is settled")
    return _next(record, settled=True)


def elected(record: Record, holder: Holder, isr: Iterable[Seat]) -> Record:
    """The next epoch, led by a member of the ISR (clauses 1, 6, 7).

    Raises `NotAllowed` for a candidate or members from outside, fewer than ``min_isr``, or a
    record that is not settled: not all of its ISR may lead.
    """
    if not record.settled:
        raise NotAllowed("of an ISR that is not settled, the newest history leads")
    members = tuple(sorted(set(isr)))
    if holder.seat not in members or not set(members) <= set(record.isr):
        raise NotAllowed(f"{members} led by {holder} is not drawn from {record.isr}")
    if counted(record, members) < record.min_isr:
        raise NotAllowed(f"{len(members)} in sync, {record.min_isr} are needed")
    if holder.seat.replica >= record.replicas or not set(elders(record)) <= set(members):
        raise NotAllowed(f"{members} led by {holder} while the number of copies changes")
    epoch, version = Epoch(record.epoch + 1), ConfigVersion(record.version + 1)
    elections = (*record.elections, Election(epoch, version))[-ELECTIONS_MAX:]
    return _next(record, epoch=epoch, holder=holder, isr=members, elections=elections)


def recovered(
    record: Record,
    epoch: Epoch,
    version: ConfigVersion,
    holder: Holder,
    isr: Iterable[Seat],
    size: Size | None = None,
) -> Record:
    """What follows a record that went back: above everything on any disk heard (clause 11).

    `epoch` is the one that the members have promised, `version` is above all that they have seen,
    and `size` the newest that they have sworn to.  Raises `NotAllowed` when it would not go
    forward.
    """
    members = tuple(sorted(set(isr)))
    size = record.size if size is None else size
    made = msgspec.structs.replace(
        record,
        epoch=epoch,
        version=version,
        holder=holder,
        isr=members,
        settled=False,
        replicas=size.replicas,
        min_isr=size.min_isr,
        resized=(epoch, version),
        before=0,
        elections=(Election(epoch, version),),
    )
    if made.order <= record.order or epoch <= record.epoch:
        raise NotAllowed(f"{made.order} does not follow {record.order}")
    check(made)
    return made


def _next(record: Record, **changes: Any) -> Record:
    made = msgspec.structs.replace(record, version=ConfigVersion(record.version + 1), **changes)
    check(made)
    return made
