"""Names for the integers and strings that must never be mixed up.

Ranges exclude their end everywhere: ``log_end`` is "last + 1".  The glossary
of the project (`docs/glossary.md`) defines each word.
"""

import re
import zlib
from typing import Final, NewType

Offset = NewType("Offset", int)
"""Dense number of a command in one shard's log, from 0, system commands included."""

Epoch = NewType("Epoch", int)
"""Number of one leadership of a shard; only grows; 1 is the first."""

FrameSequence = NewType("FrameSequence", int)
"""Dense number of a frame in one shard's log, from 0.  Positions are these, not offsets."""

BytePosition = NewType("BytePosition", int)
"""Byte position inside one file."""

ShardId = NewType("ShardId", int)
SlotId = NewType("SlotId", int)
"""Fixed hash slot of a (tenant, key), 0 <= slot < SLOT_COUNT."""

Instant = NewType("Instant", int)
"""Microseconds since the Unix epoch, UTC.  Always stamped by a port, never read in logic."""

ConfigVersion = NewType("ConfigVersion", int)
"""Version of the shard's configuration record; 0 while a shard has no replicas."""

SLOT_COUNT: Final = 4096
SPREAD: Final = 0x9E3779B1
"""2**32 divided by the golden ratio, a prime: multiplies checksums into slots."""
CHAIN_BYTES: Final = 16
NO_CHAIN: Final = bytes(CHAIN_BYTES)
"""The chain value before the first frame."""

NAME_PATTERN: Final = r"^[A-Za-z0-9._:-]{1,128}$"
"""Alphabet of idempotency keys, partition keys, account ids and the like."""

_NAME: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TYPE: Final = re.compile(
    r"(?P<domain>[a-z][a-z0-9_]{0,31})\.(?P<verb>[a-z][a-z0-9_]{0,63})(@(?P<version>[1-9][0-9]{0,4}))?"
)


def is_name(text: str) -> bool:
    """Whether `text` is 1-128 characters of ``[A-Za-z0-9._:-]``."""
    return _NAME.fullmatch(text) is not None


def split_type(text: str) -> tuple[str, str, int | None] | None:
    """Split ``domain.verb_noun[@version]`` into its parts; None when it has another shape."""
    found = _TYPE.fullmatch(text)
    if found is None:
        return None
    version = found["version"]
    return found["domain"], found["verb"], None if version is None else int(version)


def slot_of(tenant: str, key: str) -> SlotId:
    """The slot of a partition key: bits 20-31 of CRC-32(``tenant NUL key``) x 0x9E3779B1.

    CRC-32 is that of IEEE 802.3.  It is linear: keys that differ in a few bits, as ``book-0`` to
    ``book-7`` do, share bits of it.  The multiplication (Knuth, TAOCP 3, 6.4) spreads them
    (ADR 17).
    Part of the on-disk format: snapshots are grouped by slot, so this may never change.
    """
    return SlotId((zlib.crc32(f"{tenant}\0{key}".encode()) * SPREAD & 0xFFFFFFFF) >> 20)
