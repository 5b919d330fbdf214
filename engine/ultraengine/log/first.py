"""FIRST: where the log begins, so that a segment that is lost there is not taken for retention.

It is replaced before retention removes anything, so segments may begin before it, and never
behind it.  A witness and nothing more: without it, or where it cannot be read, the log is
believed, and the next start writes it anew (`FORMAT.md`).
"""

import contextlib
import struct
from typing import Final

from ultraengine.log.digest import crc32c
from ultraengine.log.segment import LOG_DIRECTORY
from ultraengine.log.space import write_file
from ultraengine.model.ids import FrameSequence
from ultraengine.ports import Disk, DiskFull

FIRST_PATH: Final = "log/FIRST"
FIRST_TEMPORARY: Final = "log/FIRST.tmp"
MAGIC: Final = b"UEFS"
FIRST_BYTES: Final = 20
_BODY: Final = struct.Struct("<4sIQ")
_CRC: Final = struct.Struct("<I")


class FirstDamaged(ValueError):
    """The bytes are not a good FIRST."""


def encode_first(sequence: int) -> bytes:
    """The 20 bytes."""
    body = _BODY.pack(MAGIC, 0, sequence)
    return body + _CRC.pack(crc32c(body))


def decode_first(raw: bytes) -> FrameSequence:
    """Inverse of `encode_first`.  Raises `FirstDamaged`."""
    if len(raw) != FIRST_BYTES:
        raise FirstDamaged(f"{len(raw)} bytes instead of {FIRST_BYTES}")
    if _CRC.unpack_from(raw, _BODY.size)[0] != crc32c(raw[: _BODY.size]):
        raise FirstDamaged("the checksum differs")
    magic, zero, sequence = _BODY.unpack_from(raw)
    if magic != MAGIC or zero:
        raise FirstDamaged("the magic or a reserved field differs")
    return FrameSequence(sequence)


def write_first(disk: Disk, sequence: int) -> None:
    """Say durably that the log need not reach below `sequence`.

    On a full disk FIRST is removed instead: room comes from the segments that go next.
    """
    try:
        write_file(disk, FIRST_PATH, FIRST_TEMPORARY, encode_first(sequence))
    except DiskFull:
        with contextlib.suppress(FileNotFoundError):
            disk.remove(FIRST_PATH)
            disk.sync_directory(LOG_DIRECTORY)
