"""Promises: what a disk has sworn, and whose messages it takes (clause 2).

A promise is synced before any answer in its epoch and before the first frame of one's own.  It
outranks the record: a message, a swap or a restored record of a lower epoch changes nothing here.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from ultraengine.model.ids import ConfigVersion, Epoch
from ultraengine.replication.record import Election, Holder, Record, Size


class Promise(msgspec.Struct, frozen=True):
    """The newest leadership that this disk has agreed to."""

    epoch: Epoch
    holder: Holder | None
    """None: nobody yet; the epoch was promised to whoever is chosen for it (clause 11)."""
    version: ConfigVersion
    """Highest version of a record in that epoch that this disk has acted on."""
    seated: bool = False
    """Whether this disk has been in an ISR since it was found empty: it then knows, or its place
    in the log shows, what was acknowledged while it was (clauses 5, 11)."""
    size: Size | None = None
    """How many copies there are, by the newest record that it has acted on (clause 14)."""


NO_PROMISE: Final = Promise(Epoch(0), None, ConfigVersion(0))


def takes(promise: Promise, epoch: Epoch, leader: Holder) -> bool:
    """Whether this leadership is obeyed: none of a lower epoch, no second one of the same."""
    if epoch != promise.epoch:
        return epoch > promise.epoch
    return promise.holder is None or promise.holder == leader


def follows(elections: Sequence[Election], promise: Promise) -> bool:
    """Whether a record with these elections comes after what a disk has sworn (clause 11).

    Epochs and versions of one history grow together.  A record that went back, and grew again, has
    other versions in its epochs: a candidate of before, who learns late that it was elected, meets
    disks that have acknowledged since.  What is older than all elections is not judged: a recovery
    has made an end of it.
    """
    if not elections or promise.epoch < elections[0].epoch:
        return True
    known = [one.epoch for one in elections if one.version <= promise.version]
    return promise.holder is not None and known[-1:] == [promise.epoch]


def promised(
    promise: Promise,
    epoch: Epoch,
    leader: Holder,
    version: ConfigVersion,
    *,
    seated: bool = False,
    size: Size | None = None,
) -> Promise:
    """What to sync before the answer; the same object when it is sworn already."""
    later = epoch > promise.epoch
    newest = version if later else max(promise.version, version)
    if size is None or not (later or version >= promise.version):
        size = promise.size
    made = Promise(epoch, leader, ConfigVersion(newest), promise.seated or seated, size)
    return promise if made == promise else made


def sworn_to(promise: Promise, record: Record, me: Holder) -> Promise:
    """Likewise, of who leads the record's epoch."""
    return promised(promise, record.epoch, me, record.version, seated=True, size=record.size)


def reserved(promise: Promise, epoch: Epoch) -> Promise | None:
    """Swear an epoch to whoever will be chosen for it (clause 11); None when it is too late."""
    if epoch <= promise.epoch:
        return None
    return Promise(epoch, None, promise.version, promise.seated, promise.size)


def founding(promise: Promise) -> Promise | None:
    """Swear to be in the first record, before it is created; None for a disk that is not new.

    A member that was dropped before it ever copied anything would otherwise not count as one, and
    its testimony could be the one that a failover lacks (clause 11).
    """
    if promise.epoch:
        return None
    return Promise(promise.epoch, promise.holder, promise.version, seated=True, size=promise.size)


def adopted(last_epoch: Epoch) -> Promise:
    """Of a disk whose log was not replicated: its epochs are over, and it holds everything."""
    return Promise(last_epoch, None, ConfigVersion(0), seated=True)


def may_lead(promise: Promise, record: Record, me: Holder) -> bool:
    """Whether this process, in this life, may enter the record's epoch.

    Once: an epoch that this disk has promised already, to an earlier life or to another, is over
    for it (clause 7).  The record must come from a quorum read, or from a push that was sent after
    its swap was known won (clause 2).
    """
    if record.holder != me:
        return False
    return _is_reserved(promise, record.epoch) or (
        record.epoch > promise.epoch and follows(record.elections, promise)
    )


def is_behind(record: Record | None, promise: Promise, cluster_uid: bytes) -> bool:
    """Whether a disk knows better than the record (clause 11): it was rolled back or replaced."""
    return (
        record is None
        or record.cluster_uid != cluster_uid
        or record.order < (promise.epoch, promise.version)
        or not (_is_reserved(promise, record.epoch) or follows(record.elections, promise))
    )


def _is_reserved(promise: Promise, epoch: Epoch) -> bool:
    """Whether this epoch was promised to whoever is chosen for it."""
    return promise.epoch == epoch and promise.holder is None
