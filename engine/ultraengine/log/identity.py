"""IDENTITY: which shard, replica and disk a directory belongs to (`FORMAT.md`).

Written once.  A restored or moved volume, or one mounted for another shard, is recognised
before anything is read or written.
"""

import struct
from typing import Final

import msgspec

from ultraengine.log.digest import crc32c
from ultraengine.model.ids import Instant, ShardId

IDENTITY_PATH: Final = "IDENTITY"
IDENTITY_TEMPORARY: Final = "IDENTITY.tmp"
FORMAT: Final = 1
_CRC: Final = struct.Struct("<I")


class LogIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The content of IDENTITY."""

    cluster_uid: bytes
    """16 random bytes, minted when the cluster's first log is created."""
    shard: ShardId
    replica: str
    """Number of the replica, as text; empty where the shard has one copy."""
    disk_uuid: bytes
    """16 random bytes, minted with the directory: a new volume is a new disk."""
    format: int
    created: Instant


class IdentityDamaged(ValueError):
    """The bytes are not a good IDENTITY."""


def encode_identity(identity: LogIdentity) -> bytes:
    """The msgpack map and its checksum."""
    body = msgspec.msgpack.encode(identity)
    return body + _CRC.pack(crc32c(body))


def decode_identity(raw: bytes) -> LogIdentity:
    """Inverse of `encode_identity`.  Raises `IdentityDamaged`."""
    body = raw[:-4]
    if len(raw) < 4 or _CRC.unpack_from(raw, len(body))[0] != crc32c(body):
        raise IdentityDamaged("the checksum differs")
    try:
        return msgspec.msgpack.decode(body, type=LogIdentity)
    except msgspec.MsgspecError as error:
        raise IdentityDamaged(str(error)) from None
