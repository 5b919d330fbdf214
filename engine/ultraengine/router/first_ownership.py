"""What a new disk of a pod owns: written once, from the map that the pod is given.

A pod is told the name of its engine and where the shard map is.  What its disk says outranks
both, so the map is read when the disk does not say yet:

    SLOTS   log         map                          then
    there   any         not read                     counts; that of another engine is refused
    none    none        any, and the volume holds    refused: another shard's volume is mounted
                        other shards
    none    none        first version                the slots that the map names, or none
    none    none        later, no slots for us       no slots: the shard waits for some
    none    none        later, with slots for us     refused: another disk has their commands;
                                                     but a copy of a shard that has a record
                                                     joins, and the others fill it
    none    this shard  names this shard alone       everything: the directory is adopted
    none    any         names others                 refused: it would take every key

Later versions are made by moving slots, and a slot moves to a shard that runs; so a shard that
is named by one has had a disk before.  SLOTS comes before the log's IDENTITY: a start that ends
between the two finds its own SLOTS, and one that ends before finds an empty disk.

A copy that joins takes SLOTS from the map of now.  That is as good as the first: SLOTS counts for
slots of which the log says nothing, and those have never moved, so every map names them alike.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from ultraengine.log.damage import LogInUse, LogRefused
from ultraengine.log.identity import IDENTITY_PATH, IdentityDamaged, decode_identity
from ultraengine.log.segment import LOCK_FILE
from ultraengine.model.ids import ShardId
from ultraengine.ports import Disk
from ultraengine.router.shard_map import ShardMap
from ultraengine.shard.ownership import Ownership, read_ownership, write_ownership

UID_BYTES: Final = 16
IDENTITY_BYTES_MAX: Final = 4_096
"""Longer than any good IDENTITY."""


class OnDisk(msgspec.Struct, frozen=True):
    """What stands in the directory of a shard."""

    ownership: Ownership | None = None
    has_log: bool = False
    log_shard: ShardId | None = None
    """Whose log it is, as IDENTITY says; None without one, or when it is damaged."""
    others: tuple[ShardId, ...] = ()
    """Other shards that have a directory on the same volume."""


def engine_uid_of(name: str) -> bytes:
    """The 16 bytes for an engine's name: those of a uid with or without hyphens, else a hash."""
    digits = name.replace("-", "")
    if len(digits) == 2 * UID_BYTES:
        try:
            return bytes.fromhex(digits)
        except ValueError:
            pass  # A name of that length.
    return hashlib.blake2b(name.encode(), digest_size=UID_BYTES).digest()


def decide(
    found: OnDisk,
    shard: ShardId,
    engine: str,
    read_map: Callable[[], ShardMap],
    *,
    joins: bool = False,
) -> Ownership | None:
    """The ownership to write; None when the disk is to be left as it is.

    `joins`: it is one of several copies, and a record says which of the others count.  An empty
    disk is none of those until it was filled, so nothing is forgotten by it.

    Raises `LogRefused`, and what `read_map` raises.
    """
    engine_uid = engine_uid_of(engine)
    if found.ownership is not None:
        theirs = found.ownership.engine_uid
        if theirs != engine_uid:
            raise LogRefused(
                f"SLOTS: this directory belongs to engine {theirs.hex()}, not to "
                f"{engine_uid.hex()} ({engine!r}): the wrong volume is mounted"
            )
        return None
    shard_map = read_map()
    slots = shard_map.slots_of(shard)
    if found.has_log:
        if shard_map.shards != (shard,):
            raise LogRefused(
                f"the directory holds a log and no SLOTS, and the map names "
                f"{len(shard_map.shards)} shards: restore the file together with the log; a shard "
                "without it would take every key"
            )
        if found.log_shard != shard:
            return None  # Another shard's, or damaged: the start of the log says so.
    elif found.others:
        raise LogRefused(
            f"the volume holds shard {', '.join(map(str, found.others))} and nothing of shard "
            f"{shard}: the wrong volume is mounted"
        )
    elif slots and shard_map.version > 1 and not joins:
        raise LogRefused(
            f"the directory is empty, and version {shard_map.version} of the map names slots of "
            f"shard {shard}: restore its volume; an empty one in its place would forget what was "
            "acknowledged"
        )
    return Ownership(
        engine_uid=engine_uid,
        shard=shard,
        shard_count=len(shard_map.shards),
        map_version=shard_map.version,
        slots=slots,
    )


def look(disk: Disk, others: Callable[[], Sequence[ShardId]] = tuple) -> OnDisk:
    """What the directory says; `others` are asked for when it says nothing.

    Raises `InvariantBroken` for a damaged SLOTS, OSError.
    """
    ownership = read_ownership(disk)
    if not disk.exists(IDENTITY_PATH):
        return OnDisk(ownership, others=() if ownership is not None else tuple(others()))
    file = disk.open(IDENTITY_PATH)
    try:
        log_shard = decode_identity(file.pread(IDENTITY_BYTES_MAX, 0)).shard
    except IdentityDamaged:
        log_shard = None
    finally:
        file.close()
    return OnDisk(ownership, has_log=True, log_shard=log_shard)


def settle(
    disk: Disk,
    shard: ShardId,
    engine: str,
    read_map: Callable[[], ShardMap],
    *,
    others: Callable[[], Sequence[ShardId]] = tuple,
    joins: bool = False,
) -> bool:
    """See to it that the disk says what its shard owns; whether it was written now.  `joins` as in
    `decide`.

    Raises `LogRefused`, `LogInUse`, `InvariantBroken`, OSError, and what `read_map` raises.
    """
    try:
        lock = disk.lock(LOCK_FILE)
    except BlockingIOError:
        raise LogInUse(LOCK_FILE) from None
    try:
        ownership = decide(look(disk, others), shard, engine, read_map, joins=joins)
        if ownership is not None:
            write_ownership(disk, ownership)
    finally:
        lock.release()
    return ownership is not None
