"""What a replica keeps beside its log: its promise and how often it was started.

File ``REPLICA`` in the shard's directory: magic ``UERP``, CRC-32C of the rest (4 bytes,
little-endian), then msgpack.  It is replaced atomically, as IDENTITY is; the disk's own number is
in IDENTITY, so a file that was copied from another disk does not make this disk the other one.
"""

import struct
from typing import Final

import msgspec

from ultraengine.log.digest import crc32c
from ultraengine.model.errors import InvariantBroken
from ultraengine.replication.promise import NO_PROMISE, Promise

STORED_PATH: Final = "REPLICA"
STORED_TEMPORARY: Final = "REPLICA.tmp"
_MAGIC: Final = b"UERP"
_CRC: Final = struct.Struct("<I")


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """Content of the file."""

    start: int = 0
    """Synced + 1 at every start, before anything else is done (clause 7)."""
    promise: Promise = NO_PROMISE


def encode_stored(stored: Stored) -> bytes:
    """The bytes of the file."""
    body = msgspec.msgpack.encode(stored)
    return _MAGIC + _CRC.pack(crc32c(body)) + body


def decode_stored(raw: bytes) -> Stored:
    """Inverse of `encode_stored`.  Raises `InvariantBroken`: a replica that does not know what it
    has sworn may answer nobody."""
    body = raw[8:]
    try:
        if raw[:4] == _MAGIC and _CRC.unpack_from(raw, 4)[0] == crc32c(body):
            return msgspec.msgpack.decode(body, type=Stored)
    except (struct.error, msgspec.DecodeError, msgspec.ValidationError):
        pass
    raise InvariantBroken("REPLICA says what this disk has sworn", length=len(raw))
