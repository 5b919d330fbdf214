"""SLOTS: which slots a shard owns, kept on its own disk (requirement 001 §2.6).

A shard map can be stale, restored from a backup or edited; what a shard keeps beside its own
log cannot.  So a shard refuses keys of other slots by itself, with WRONG_SHARD, whatever a map
told the caller.  A directory without the file belongs to an engine of one shard, which owns
everything.

File ``SLOTS``: a msgpack map of `Ownership`'s fields, then the CRC-32C of its bytes (4 bytes,
little-endian).  Written under a temporary name, synced, renamed, directory synced.
"""

import struct
from functools import cached_property
from typing import Final

import google_crc32c
import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import SLOT_COUNT, ShardId
from ultraengine.ports import Disk

PATH: Final = "SLOTS"
BYTES_MAX: Final = 64 * 1024
"""Longer than any good file: 4,096 ranges of two small numbers."""
_CRC: Final = struct.Struct("<I")


class Ownership(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The content of SLOTS."""

    engine_uid: bytes
    """16 random bytes, minted with the engine's shards: shards of two engines do not mix."""
    shard: ShardId
    shard_count: int
    """Shards of the engine when the file was written."""
    map_version: int
    """Version of the shard map that this ownership came from."""
    slots: tuple[tuple[int, int], ...]
    """Ranges of slots that this shard owns; each excludes its end."""

    @cached_property
    def foreign(self) -> bytes:
        """For each slot one byte: 0 when it is this shard's, else 1."""
        table = bytearray(b"\1" * SLOT_COUNT)
        for start, end in self.slots:
            table[start:end] = bytes(end - start)
        return bytes(table)


def encode_ownership(ownership: Ownership) -> bytes:
    """The bytes of the file."""
    body = msgspec.msgpack.encode(ownership)
    return body + _CRC.pack(google_crc32c.value(body))


def decode_ownership(data: bytes) -> Ownership:
    """Inverse of `encode_ownership`.  Raises `InvariantBroken` for any other bytes."""
    body = data[:-4]
    try:
        if len(data) > 4 and _CRC.unpack_from(data, len(body))[0] == google_crc32c.value(body):
            ownership = msgspec.msgpack.decode(body, type=Ownership)
            if all(0 <= start < end <= SLOT_COUNT for start, end in ownership.slots):
                return ownership
    except msgspec.MsgspecError:
        pass  # A good checksum over another content: said below, as any damage.
    raise InvariantBroken(
        "SLOTS is damaged; write it anew from the shard map, never remove it: a shard without "
        "it would take every key",
        length=len(data),
    )


def read_ownership(disk: Disk) -> Ownership | None:
    """What the shard on this disk owns; None when it owns everything.

    Raises `InvariantBroken` for a damaged file, OSError.
    """
    if not disk.exists(PATH):
        return None
    file = disk.open(PATH)
    try:
        return decode_ownership(file.pread(BYTES_MAX, 0))
    finally:
        file.close()


def write_ownership(disk: Disk, ownership: Ownership) -> None:
    """Make an ownership durable.  Raises OSError."""
    temporary = PATH + ".tmp"
    file = disk.open(temporary, create=True, write=True)
    try:
        file.truncate(0)
        file.pwrite(encode_ownership(ownership), 0)
        file.sync()
    finally:
        file.close()
    disk.rename(temporary, PATH)
    disk.sync_directory("")
