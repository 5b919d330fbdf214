"""Puts a whole new copy in the place of an old one, so that a crash leaves one of the two.

    parts beside the old files (NAME.install), synced  ->  INSTALL, which names them all, synced
    at the next start, before anything is read: old files go, parts get their names, INSTALL goes

Before INSTALL is there the old copy is whole, and what lies beside it is removed; from then on the
new one is, and putting it in place may be interrupted and done again.  IDENTITY, REPLICA and
``broken/`` are not touched: the disk stays who it is, and what it has sworn stays sworn.

Rules: one process at a time, which holds LOCK or has the log open.  Blocks.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from ultraengine.log.damage import LogInUse
from ultraengine.log.digest import crc32c
from ultraengine.log.identity import LogIdentity
from ultraengine.log.segment import (
    LOCK_FILE,
    LOG_DIRECTORY,
    KeyRing,
    Point,
    SegmentHeader,
    encode_header,
    path_of,
    segment_name,
)
from ultraengine.log.space import write_file
from ultraengine.log.survey import read_all
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Instant
from ultraengine.ports import Disk, Random

INSTALL_PATH: Final = "INSTALL"
INSTALL_TEMPORARY: Final = "INSTALL.tmp"
BESIDE: Final = ".install"
REPLACED: Final = (LOG_DIRECTORY, "snapshots", "history", "dedup")
"""Directories whose content is replaced as a whole; all of it is a function of the log."""
_MAGIC: Final = b"UEIN"
_CRC: Final = struct.Struct("<I")


class Installed(Exception):
    """A whole new copy lies beside the old one: this life is over, the next one begins with it."""


def check_part(path: str) -> None:
    """Raises `InvariantBroken` for a path that no leader offers."""
    directory, _, name = path.rpartition("/")
    if directory not in REPLACED or not name or name.startswith(".") or name.endswith(BESIDE):
        raise InvariantBroken("a part is a file of the copy", path=path)


def base_part(
    random: Random,
    ring: KeyRing,
    identity: LogIdentity,
    base: Point,
    created: Instant,
    *,
    master_key: str,
    chain_key: str,
) -> tuple[str, bytes]:
    """Path and content of the segment with which the new log begins: a header and no frame."""
    header, _ = ring.create(
        SegmentHeader(
            shard=identity.shard,
            cluster_uid=identity.cluster_uid,
            created=created,
            point=base,
            salt=b"",
            master_key=master_key,
            chain_key=chain_key,
        ),
        random,
    )
    return path_of(segment_name(base.sequence)), encode_header(header)


def clear(disk: Disk) -> None:
    """Remove what lies beside the copy.  Not while INSTALL names it."""
    for path in list(_beside(disk)):
        disk.remove(path)


def write_part(disk: Disk, path: str, content: bytes) -> None:
    """A small part, whole and synced; its name is made durable by ``ready``."""
    directory, _, _ = path.rpartition("/")
    disk.make_directory(directory)
    file = disk.open(path + BESIDE, create=True, write=True)
    try:
        file.truncate(0)
        file.pwrite(content, 0)
        file.sync()
    finally:
        file.close()


def ready(disk: Disk, paths: Sequence[str]) -> None:
    """All parts are beside the copy, synced: from here on they are the copy."""
    for directory in REPLACED:
        if disk.exists(directory):
            disk.sync_directory(directory)
    disk.sync_directory("")
    body = msgspec.msgpack.encode(tuple(paths))
    write_file(disk, INSTALL_PATH, INSTALL_TEMPORARY, _MAGIC + _CRC.pack(crc32c(body)) + body)


def is_ready(disk: Disk) -> bool:
    """Whether a new copy waits to be put in place."""
    return disk.exists(INSTALL_PATH)


def _named(disk: Disk) -> frozenset[str]:
    raw = read_all(disk, INSTALL_PATH)
    body = raw[8:]
    try:
        if raw[:4] == _MAGIC and _CRC.unpack_from(raw, 4)[0] == crc32c(body):
            return frozenset(msgspec.msgpack.decode(body, type=tuple[str, ...]))
    except (struct.error, msgspec.DecodeError):
        pass
    raise InvariantBroken("INSTALL names the parts of a copy", length=len(raw))


def put_in_place(disk: Disk) -> bool:
    """Put a new copy in place, or clear what came to nothing; whether there was one.

    Takes LOCK for it.  Raises `LogInUse` when another process has the directory.
    """
    if not is_ready(disk) and not any(_beside(disk)):
        return False
    try:
        lock = disk.lock(LOCK_FILE)
    except BlockingIOError:
        raise LogInUse(LOCK_FILE) from None
    try:
        if is_ready(disk):
            return _replace(disk, _named(disk))
        clear(disk)
        return False
    finally:
        lock.release()


def _beside(disk: Disk) -> Iterator[str]:
    for directory in REPLACED:
        names = disk.list(directory)
        yield from (f"{directory}/{name}" for name in names if name.endswith(BESIDE))
    if disk.exists(INSTALL_TEMPORARY):
        yield INSTALL_TEMPORARY


def _replace(disk: Disk, named: frozenset[str]) -> bool:
    for directory in REPLACED:
        for name in disk.list(directory):
            path = f"{directory}/{name}"
            # One that is named is a part in its place, or will be replaced by it.
            if path not in named and not (name.endswith(BESIDE) and path[: -len(BESIDE)] in named):
                disk.remove(path)
    for path in sorted(named):
        if disk.exists(path + BESIDE):
            disk.rename(path + BESIDE, path)
        elif not disk.exists(path):
            raise InvariantBroken("a part that INSTALL names is there", path=path)
    for directory in REPLACED:
        if disk.exists(directory):
            disk.sync_directory(directory)
    disk.remove(INSTALL_PATH)
    disk.sync_directory("")
    return True
