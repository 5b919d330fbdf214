"""Who leads next: the pure planner behind every change of the holder (clauses 1, 6, 7, 11).

Whoever plans (the operator, or a restarted holder in its absence) has one quorum read of the
record and the answers of replicas.  The plan is a swap; nothing follows from it until it is won.

At least RF - min_isr + 1 disks that have been in an ISR must have answered: any such set meets the
copies that hold what was acknowledged, so a record that has gone back is noticed here.
"""

import enum
from collections.abc import Mapping

import msgspec

from ultraengine.model.ids import ConfigVersion, Epoch
from ultraengine.replication.promise import Promise, is_behind
from ultraengine.replication.record import (
    Holder,
    Record,
    Seat,
    Size,
    counted,
    elders,
    elected,
    recovered,
)


class Answer(msgspec.Struct, frozen=True):
    """What one replica says of its disk."""

    start: int
    promise: Promise
    last_epoch: Epoch
    end: int
    barred: bool = False
    """Its execution differs from its leader's: its log counts, and it is not chosen."""

    @property
    def order(self) -> tuple[Epoch, int]:
        """How much of the newest history it holds."""
        return self.last_epoch, self.end


class Refused(enum.Enum):
    """Why there is no plan."""

    TOO_FEW = "too few"
    """Fewer disks answered than a failover needs: wait."""
    NO_CANDIDATE = "no candidate"
    """No member of the ISR that may lead answered: wait, or a person accepts the loss."""
    ROLLED_BACK = "rolled back"
    """A disk knows a newer record: `recovery_epoch`, promises, then `plan_recovery`."""
    UNSETTLED = "unsettled"
    """The leader after a roll-back was lost before its ISR held what it has adopted: likewise."""


def needed(replicas: int, min_isr: int) -> int:
    """How many disks must be heard: every set of so many meets every set of ``min_isr``."""
    return replicas - min_isr + 1


def counts(record: Record, seat: Seat, answer: Answer) -> bool:
    """Whether a disk can testify: it has been in an ISR, as the record or its own promise says, and
    its place is one of the shard's."""
    return is_of(record.replicas, seat) and (seat in record.isr or answer.promise.seated)


def is_of(replicas: int, seat: Seat) -> bool:
    """Whether this is a place of so many (clause 14)."""
    return seat.replica < replicas


def newest_size(record: Record, answers: Mapping[Seat, Answer]) -> Size:
    """How many copies there are, as the record or any disk heard knows it (clause 14)."""
    return max([record.size, *(one.promise.size or record.size for one in answers.values())])


def plan_failover(
    record: Record,
    answers: Mapping[Seat, Answer],
    *,
    cluster_uid: bytes,
    only: Seat | None = None,
) -> Record | Refused:
    """The swap that lets the best answering member of the ISR lead the next epoch.

    `only`: a restarted holder plans for itself alone.  Members that did not answer leave the ISR
    as long as ``min_isr`` stay.
    """
    if any(is_behind(record, answer.promise, cluster_uid) for answer in answers.values()):
        return Refused.ROLLED_BACK
    if not record.settled:
        return Refused.UNSETTLED
    heard = [seat for seat, answer in answers.items() if counts(record, seat, answer)]
    if len(heard) < needed(record.replicas, record.min_isr):
        return Refused.TOO_FEW
    candidates = [
        seat
        for seat in record.isr
        if seat in heard and not answers[seat].barred and only in {None, seat}
    ]
    if not candidates:
        return Refused.NO_CANDIDATE
    best = best_of(answers, candidates)
    return elected(record, Holder(best, answers[best].start), _members(record, answers, best))


def best_of(answers: Mapping[Seat, Answer], candidates: list[Seat]) -> Seat:
    """The one with the newest history; the lowest replica among equals."""
    return max(candidates, key=lambda seat: (*answers[seat].order, -seat.replica))


def newest_of(answers: Mapping[Seat, Answer]) -> list[Seat]:
    """All that have the newest history."""
    newest = max(answer.order for answer in answers.values())
    return [seat for seat in sorted(answers) if answers[seat].order == newest]


def _members(record: Record, answers: Mapping[Seat, Answer], best: Seat) -> list[Seat]:
    """The candidate, who answered, and of the others those that may not leave yet and as many as
    ``min_isr`` asks for."""
    stay = [seat for seat in record.isr if seat in answers or seat in elders(record)]
    absent = [seat for seat in record.isr if seat not in stay]
    missing = max(0, record.min_isr - counted(record, stay))
    return [*stay, *absent[:missing]] if best in stay else [best]


def recovery_epoch(record: Record | None, answers: Mapping[Seat, Answer]) -> Epoch:
    """The epoch to collect promises for: above everything that anybody has heard of."""
    epochs = [answer.promise.epoch for answer in answers.values()]
    if record is not None:
        epochs.append(record.epoch)
    return Epoch(max(epochs, default=0) + 1)


def plan_recovery(
    record: Record,
    epoch: Epoch,
    sworn: Mapping[Seat, Answer],
) -> Record | Refused:
    """The swap after a roll-back, or while the record is not settled: of the disks that have sworn
    `epoch` to nobody yet, the one with the newest history leads, and they are the ISR.

    `record` is what the manager holds now.  It may have gone back behind a change of the number of
    copies: the newest that a disk has sworn to counts (clause 14).
    """
    size = newest_size(record, sworn)
    heard = {
        seat: answer
        for seat, answer in sworn.items()
        if answer.promise.seated and is_of(size.replicas, seat)
    }
    if len(heard) < max(needed(size.replicas, size.min_isr), size.min_isr):
        return Refused.TOO_FEW
    candidates = [seat for seat in newest_of(heard) if not heard[seat].barred]
    if not candidates:
        return Refused.NO_CANDIDATE
    best = best_of(heard, candidates)
    version = max(answer.promise.version for answer in heard.values())
    return recovered(
        record,
        epoch,
        ConfigVersion(max(version, record.version) + 1),
        Holder(best, heard[best].start),
        heard,
        size,
    )
