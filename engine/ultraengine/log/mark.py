"""MARK: a second witness of what was durable (`FORMAT.md`; FAST'18 "Protocol-Aware Recovery").

It is replaced atomically and lies apart from the frames, so that the loss of acknowledged
frames at the very end of the log is found, which the frames alone cannot show.
"""

import struct
from typing import Final

import msgspec

from ultraengine.log.digest import crc32c
from ultraengine.model.ids import CHAIN_BYTES, FrameSequence

MARK_PATH: Final = "log/MARK"
MARK_TEMPORARY: Final = "log/MARK.tmp"
MAGIC: Final = b"UEMK"
MARK_BYTES: Final = 36
_BODY: Final = struct.Struct(f"<4sIQ{CHAIN_BYTES}s")
_CRC: Final = struct.Struct("<I")


class Mark(msgspec.Struct, frozen=True):
    """Every frame below `durable_end` was durable; `chain` is the chain there."""

    durable_end: FrameSequence
    chain: bytes


class MarkDamaged(ValueError):
    """The bytes are not a good MARK."""


def encode_mark(mark: Mark) -> bytes:
    """The 36 bytes."""
    body = _BODY.pack(MAGIC, 0, mark.durable_end, mark.chain)
    return body + _CRC.pack(crc32c(body))


def decode_mark(raw: bytes) -> Mark:
    """Inverse of `encode_mark`.  Raises `MarkDamaged`."""
    if len(raw) != MARK_BYTES:
        raise MarkDamaged(f"{len(raw)} bytes instead of {MARK_BYTES}")
    if _CRC.unpack_from(raw, _BODY.size)[0] != crc32c(raw[: _BODY.size]):
        raise MarkDamaged("the checksum differs")
    magic, zero, durable_end, chain = _BODY.unpack_from(raw)
    if magic != MAGIC or zero:
        raise MarkDamaged("the magic or a reserved field differs")
    return Mark(durable_end, chain)
