"""The promise of a replica: the highest epoch it has entered, durable before any use of it.

File ``PROMISE`` in the shard's directory: magic ``UEPR``, 4 zero bytes, epoch (8 bytes,
little-endian), CRC-32C of the 16 bytes before.  Written under a temporary name, synced,
renamed, directory synced.  A process leads only in an epoch entered by its own promise, so a
restarted leader takes the next one, and frames of two processes never share an epoch.
"""

import struct
from typing import Final

import google_crc32c

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch
from ultraengine.ports import Disk

PATH: Final = "PROMISE"
_LAYOUT: Final = struct.Struct("<4sIQI")
_MAGIC: Final = b"UEPR"


def encode_promise(epoch: Epoch) -> bytes:
    """The 20 bytes of the file."""
    body = _LAYOUT.pack(_MAGIC, 0, epoch, 0)[:-4]
    return body + struct.pack("<I", google_crc32c.value(body))


def decode_promise(data: bytes) -> Epoch:
    """Inverse of `encode_promise`.  Raises `InvariantBroken` for any other bytes."""
    if len(data) == _LAYOUT.size:
        magic, zero, epoch, crc = _LAYOUT.unpack(data)
        if magic == _MAGIC and zero == 0 and crc == google_crc32c.value(data[:-4]):
            return Epoch(epoch)
    raise InvariantBroken(
        "PROMISE is damaged; remove it only if no other replica of this shard exists",
        length=len(data),
    )


def read_promise(disk: Disk) -> Epoch:
    """The highest epoch entered on this disk, 0 before the first."""
    if not disk.exists(PATH):
        return Epoch(0)
    file = disk.open(PATH)
    try:
        return decode_promise(file.pread(_LAYOUT.size + 1, 0))
    finally:
        file.close()


def write_promise(disk: Disk, epoch: Epoch) -> None:
    """Make a promise durable.  Raises OSError; nothing may be done in the epoch then."""
    temporary = PATH + ".tmp"
    file = disk.open(temporary, create=True, write=True)
    try:
        file.truncate(0)
        file.pwrite(encode_promise(epoch), 0)
        file.sync()
    finally:
        file.close()
    disk.rename(temporary, PATH)
    disk.sync_directory("")
