"""The record of a replicated shard, as its Lease shows it: who leads, and whose copies count.

The operator makes the Lease once and reads it.  What is in it is the replicas' alone: an apply, a
patch, or a Lease made anew under the same name would be a change that nobody has agreed on.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ultraengine_operator import names

ANNOTATION: Final = f"{names.GROUP}/record"


class _Seat(msgspec.Struct):
    replica: int


class _Holder(msgspec.Struct):
    seat: _Seat


class _Record(msgspec.Struct):
    epoch: int
    holder: _Holder
    isr: list[_Seat]
    replicas: int = 0


class SeenRecord(msgspec.Struct, frozen=True):
    """A shard's Lease."""

    shard: int
    name: str
    engine_uid: str
    epoch: int = 0
    """0: there is no record yet; the copies have not found each other."""
    leader: int | None = None
    """Number of the copy that leads."""
    in_sync: tuple[int, ...] = ()
    """Numbers of the copies that hold all that is acknowledged, the leader's among them."""
    replicas: int = 0
    """How many copies the shard has; 0: the record does not say it."""

    @property
    def places(self) -> int:
        """Pods that the record needs: those of the shard's copies, and of one that leaves."""
        return max(self.replicas, *(one + 1 for one in self.in_sync), 0)


def read_record(content: Mapping[str, Any], shard: int) -> SeenRecord:
    """What a Lease says; a record that cannot be read is as one that is not there yet."""
    metadata = content["metadata"]
    uid = str((metadata.get("labels") or {}).get(names.ENGINE_UID, ""))
    text = (metadata.get("annotations") or {}).get(ANNOTATION, "")
    try:
        found = msgspec.json.decode(text, type=_Record)
    except msgspec.DecodeError:
        return SeenRecord(shard, metadata["name"], uid)
    in_sync = tuple(sorted(seat.replica for seat in found.isr))
    leader = found.holder.seat.replica
    return SeenRecord(shard, metadata["name"], uid, found.epoch, leader, in_sync, found.replicas)
