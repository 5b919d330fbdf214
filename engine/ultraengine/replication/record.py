"""The configuration record of one shard: who leads, in which epoch, and whose copies count.

The record lives outside (in the shard's fencing Lease) and changes by compare-and-swap alone:
every change is computed from one record that was read and lands only while that record is still
in force.  The functions here compute changes; nothing here waits.  `docs/protocol.md` names each
clause, what it prevents, and the test that fails without it.  Primary-backup with an external
configuration manager: Lin et al., PacificA, MSR-TR-2008-25; ISR: KIP-966.
"""

from collections.abc import Iterable
from typing import Any, NewType

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
    if not 1 <= record.min_isr <= len(isr):
        raise InvariantBroken("an ISR has at least min_isr seats", isr=isr, min_isr=record.min_isr)


def bootstrap(
    cluster_uid: bytes, shard: ShardId, holder: Holder, seats: Iterable[Seat], min_isr: int
) -> Record:
    """The first record, made once, when all replicas have reported empty disks.

    A record that is missing later has been lost: it is never made again (clause 11).
    """
    record = Record(
        cluster_uid, shard, Epoch(1), holder, tuple(sorted(seats)), min_isr, ConfigVersion(1)
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
    if len(record.isr) - 1 < record.min_isr:
        raise NotAllowed(f"{len(record.isr)} in sync, {record.min_isr} are needed")
    return _next(record, isr=tuple(one for one in record.isr if one != seat))


def grown(record: Record, seat: Seat) -> Record:
    """With one more seat.  By the leader alone, of a copy that has caught up with it (clause 4).

    The same replica with another disk must have left before.  Raises `NotAllowed`.
    """
    if any(one.replica == seat.replica for one in record.isr):
        raise NotAllowed(f"replica {seat.replica} has a seat in {record.isr}")
    return _next(record, isr=tuple(sorted((*record.isr, seat))))


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
    if len(members) < record.min_isr:
        raise NotAllowed(f"{len(members)} in sync, {record.min_isr} are needed")
    return _next(record, epoch=Epoch(record.epoch + 1), holder=holder, isr=members)


def recovered(
    record: Record, epoch: Epoch, version: ConfigVersion, holder: Holder, isr: Iterable[Seat]
) -> Record:
    """What follows a record that went back: above everything on any disk heard (clause 11).

    `epoch` is the one that the members have promised, `version` is above all that they have seen.
    Raises `NotAllowed` when it would not go forward.
    """
    members = tuple(sorted(set(isr)))
    made = msgspec.structs.replace(
        record, epoch=epoch, version=version, holder=holder, isr=members, settled=False
    )
    if made.order <= record.order or epoch <= record.epoch:
        raise NotAllowed(f"{made.order} does not follow {record.order}")
    check(made)
    return made


def _next(record: Record, **changes: Any) -> Record:
    made = msgspec.structs.replace(record, version=ConfigVersion(record.version + 1), **changes)
    check(made)
    return made
