"""Whose copies these are: the mark beside the record, and what a disk says.

    a new disk                 ->  the mark is read, or minted where there is none
    a disk that holds anything ->  the mark is read; there must be one, of the same cluster

The uid is random and minted once, so that a cluster that was made anew under the same name is
another one, and its disks are strangers.  The name is compared for people: it tells at the start
that a setting names the wrong place, before a disk is written.
"""

import msgspec

from ultraengine.log.damage import LogRefused
from ultraengine.log.identity import LogIdentity
from ultraengine.model.errors import InvariantBroken

UID_BYTES = 16


class Cluster(msgspec.Struct, frozen=True):
    """The mark, as JSON: a person can read it where it lies."""

    name: str
    uid: bytes


_DECODER = msgspec.json.Decoder(Cluster)


def encode_cluster(cluster: Cluster) -> bytes:
    """The bytes to keep."""
    return msgspec.json.encode(cluster)


def decode_cluster(raw: bytes) -> Cluster:
    """Inverse of `encode_cluster`.  Raises `InvariantBroken` for what no replica has written."""
    try:
        found = _DECODER.decode(raw)
    except (msgspec.DecodeError, ValueError) as error:
        raise InvariantBroken("the mark beside the record is none", why=str(error)) from None
    if len(found.uid) != UID_BYTES:
        raise InvariantBroken("a cluster uid has 16 bytes", length=len(found.uid))
    return found


def belonging(identity: LogIdentity | None, found: Cluster | None, name: str) -> bytes:
    """The cluster uid of a replica: `identity` is its disk's, `found` the mark of the place.

    Raises `LogRefused` when the place is of another cluster than the disk or the setting, and when
    it is empty and the disk is not: then the record was lost, or another place is named.
    """
    if found is None:
        raise LogRefused(
            "there is no mark beside the record, and this disk holds a history: the place of the "
            "record was lost, or another one is named"
        )
    if found.name != name:
        raise LogRefused(f"the record's place is of the cluster {found.name!r}, not of {name!r}")
    if identity is not None and identity.cluster_uid != found.uid:
        raise LogRefused(
            f"this disk belongs to cluster {identity.cluster_uid.hex()}, the record's place to "
            f"{found.uid.hex()}, both called {name!r}"
        )
    return found.uid
