"""What a store holds of a shard, checked as it is read.  Uses the ObjectStore port and blocks."""

import hashlib
from collections.abc import Iterator
from typing import Final

import msgspec

from ultraengine.backup.errors import BackupDamaged
from ultraengine.backup.manifest import (
    Backup,
    Owner,
    Piece,
    Stored,
    backups_prefix,
    decode_backup,
    owner_name,
    piece_of,
    shard_of,
)
from ultraengine.ports import ObjectStore

CHUNK_BYTES: Final = 8 * 1024 * 1024
"""Read at a time of an object that may be large."""


def shards(store: ObjectStore) -> list[int]:
    """The shards that the store has a place for."""
    return sorted(one for one in map(shard_of, store.list("")) if one is not None)


def owner(store: ObjectStore, shard: int) -> Owner:
    """Raises `BackupDamaged`; FileNotFoundError when nobody has claimed the place."""
    name = owner_name(shard)
    try:
        return msgspec.json.decode(store.get(name), type=Owner)
    except msgspec.MsgspecError as error:
        raise BackupDamaged(name, str(error)) from None


def backups(store: ObjectStore, shard: int) -> list[Backup]:
    """All manifests, by position.  Raises `BackupDamaged`, `BackupRefused`."""
    return [decode_backup(store.get(name), name) for name in store.list(backups_prefix(shard))]


def newest(store: ObjectStore, shard: int) -> Backup | None:
    """The manifest of the newest position.  Raises `BackupDamaged`, `BackupRefused`."""
    names = store.list(backups_prefix(shard))
    return decode_backup(store.get(names[-1]), names[-1]) if names else None


def log_pieces(store: ObjectStore, shard: int) -> list[Piece]:
    """Every segment and tail that is there."""
    names = (*store.list(f"{shard}/segments/"), *store.list(f"{shard}/tails/"))
    return [piece for piece in map(piece_of, names) if piece is not None]


def content(store: ObjectStore, stored: Stored) -> Iterator[bytes]:
    """The bytes of an object in chunks; whoever has read to the end knows that they are right.

    Raises `BackupDamaged`.
    """
    digest, at = hashlib.sha256(), 0
    try:
        size = store.size(stored.name)
        if size != stored.bytes:
            raise BackupDamaged(stored.name, f"it has {size} bytes instead of {stored.bytes}")
        while at < size:
            chunk = store.get_range(stored.name, at, min(CHUNK_BYTES, size - at))
            if not chunk:
                raise BackupDamaged(stored.name, f"it ends at byte {at} of {size}")
            digest.update(chunk)
            at += len(chunk)
            yield chunk
    except FileNotFoundError:
        raise BackupDamaged(stored.name, "it is missing from the store") from None
    if digest.hexdigest() != stored.sha256:
        raise BackupDamaged(stored.name, "its bytes are not those that were stored (SHA-256)")


def piece_bytes(store: ObjectStore, piece: Piece) -> bytes:
    """The bytes of a segment.  Raises `BackupDamaged`."""
    if piece.stored is not None:
        return b"".join(content(store, piece.stored))
    try:
        return store.get(piece.name)
    except FileNotFoundError:
        raise BackupDamaged(piece.name, "it is missing from the store") from None


def check(store: ObjectStore, backup: Backup) -> list[str]:
    """Read every object of a backup; what is wrong, each in a sentence."""
    problems = []
    for stored in backup.objects:
        try:
            for _ in content(store, stored):
                pass
        except BackupDamaged as error:
            problems.append(str(error))
    return problems
