"""What a backup consists of: names in the store, and the manifest that is stored last.

    <shard>/OWNER                                   whose place it is, put once
    <shard>/segments/<first sequence>-<end sequence>-<first offset>-<end offset>-<sealed at>.log
    <shard>/tails/<first sequence>-<end sequence>-<first offset>-<end offset>.log
    <shard>/snapshots/<name on the disk>-<content hash, 16 digits>
    <shard>/history/<start>-<length>.seg
    <shard>/backups/<offset end>-<created>.json     the manifest

Segments are named as in an archive (`log/FORMAT.md`).  A tail is the part of the segment that
was being written.  Nothing counts but what a manifest names, or continues from there, frame by
frame.  Numbers in names have 20 digits.  Pure.
"""

import re
from typing import Final

import msgspec

from ultraengine.backup.errors import BackupDamaged, BackupRefused
from ultraengine.log.digest import crc32c
from ultraengine.snapshot.manifest import SnapshotEntry

FORMAT: Final = 1
_PIECE: Final = re.compile(
    r"[0-9]+/(segments|tails)/([0-9]{20})-([0-9]{20})-([0-9]{20})-([0-9]{20})(-[0-9]{20})?\.log"
)


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """An object, and what it has to be."""

    name: str
    bytes: int
    sha256: str


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A segment of the log, or the part of it that was there; ends exclude."""

    name: str
    first_sequence: int
    end_sequence: int
    first_offset: int
    end_offset: int
    sealed: bool
    stored: Stored | None = None
    """None when only its name is known: then its frames say whether it is good."""


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the shard's directory as an object."""

    path: str
    stored: Stored


class StoredSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot as it is listed on the disk, and its object."""

    entry: SnapshotEntry
    stored: Stored


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """A moment of the shard.  Binary values in hexadecimal."""

    sequence_end: int = 0
    offset_end: int = 0
    chain: str = ""
    time: int = 0
    """µs since the Unix epoch, as stamped by the shard."""


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest."""

    format: int = FORMAT
    cluster_uid: str
    shard: int
    created: int
    """µs since the Unix epoch, by the wall clock."""
    at: Position
    """Of the snapshot; zeros without one."""
    state_hash: str | None
    """Of the state there."""
    end: Position
    """Of the log."""
    recorded_end: int
    """Every lower offset has its outcome in the log."""
    epoch: int
    handlers: dict[str, int]
    """Domain to handler version, as the snapshot says."""
    secrets: tuple[str, ...]
    """Names of the keys without which nothing can be read."""
    slots: str | None
    """Content of SLOTS, in hexadecimal."""
    snapshots: tuple[StoredSnapshot, ...]
    """The full image first, then its increments."""
    log: tuple[Piece, ...]
    history: tuple[StoredFile, ...]

    @property
    def name(self) -> str:
        """Of the manifest in the store."""
        return backup_name(self.shard, self.at.offset_end, self.created)

    @property
    def objects(self) -> tuple[Stored, ...]:
        """Everything that it needs."""
        return (
            *(one.stored for one in self.snapshots),
            *(one.stored for one in self.log if one.stored is not None),
            *(one.stored for one in self.history),
        )


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Whose place in the store it is."""

    cluster_uid: str
    shard: int


def owner_name(shard: int) -> str:
    """Of the owner's object."""
    return f"{shard}/OWNER"


def backups_prefix(shard: int) -> str:
    """Of all manifests of a shard."""
    return f"{shard}/backups/"


def backup_name(shard: int, offset_end: int, created: int) -> str:
    """Of a manifest: sorted by position, then by time."""
    return f"{backups_prefix(shard)}{offset_end:020d}-{created:020d}.json"


def tail_name(shard: int, piece: Piece) -> str:
    """Of the part of a segment that is still written."""
    return (
        f"{shard}/tails/{piece.first_sequence:020d}-{piece.end_sequence:020d}-"
        f"{piece.first_offset:020d}-{piece.end_offset:020d}.log"
    )


def snapshot_name(shard: int, entry: SnapshotEntry) -> str:
    """Of a snapshot; a number may come again when a list was lost, a content does not."""
    return f"{shard}/snapshots/{entry.file}-{entry.content_hash[:16]}"


def history_name(shard: int, start: int, length: int) -> str:
    """Of a file of the history, as far as it belongs to the snapshot."""
    return f"{shard}/history/{start:020d}-{length:020d}.seg"


def piece_of(name: str) -> Piece | None:
    """What the name of a segment or tail says; None for any other name."""
    found = _PIECE.fullmatch(name)
    if found is None or (found[1] == "segments") is (found[6] is None):
        return None
    first_sequence, end_sequence, first_offset, end_offset = map(int, found.groups()[1:5])
    return Piece(
        name=name,
        first_sequence=first_sequence,
        end_sequence=end_sequence,
        first_offset=first_offset,
        end_offset=end_offset,
        sealed=found[1] == "segments",
    )


def shard_of(name: str) -> int | None:
    """The shard that an owner's object is of; None for any other name."""
    shard, slash, rest = name.partition("/")
    return int(shard) if slash and rest == "OWNER" and shard.isdecimal() else None


def encode_backup(backup: Backup) -> bytes:
    """A line of JSON and a line with its checksum."""
    line = msgspec.json.encode(backup)
    return line + f"\n{crc32c(line):08x}\n".encode()


def decode_backup(data: bytes, name: str) -> Backup:
    """Inverse of `encode_backup`.  Raises `BackupDamaged`; `BackupRefused` for a later format."""
    line, _, rest = data.partition(b"\n")
    if rest != f"{crc32c(line):08x}\n".encode():
        raise BackupDamaged(name, "the manifest does not match its checksum")
    try:
        version = msgspec.json.decode(line, type=dict[str, msgspec.Raw]).get("format", b"0")
        if msgspec.json.decode(version, type=int) > FORMAT:
            raise BackupRefused(f"{name}: a newer release wrote it; this one reads {FORMAT}")
        return msgspec.json.decode(line, type=Backup)
    except msgspec.MsgspecError as error:
        raise BackupDamaged(name, str(error)) from None
