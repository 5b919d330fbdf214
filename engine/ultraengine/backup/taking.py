"""Copies a shard to an object store: its newest snapshot, its whole log, its history.

The directory must stand still meanwhile, but for the end of the log: no snapshot is removed
and no segment.  Each object is proved before it is sent and read back afterwards; the manifest
comes last, so a copy that is broken off has left objects that nobody asks for, and the next
one goes on from them.  Uses the Disk and ObjectStore ports and blocks.
"""

import contextlib
import hashlib
import itertools
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from ultraengine.backup import reading
from ultraengine.backup.errors import BackupDamaged, BackupError, BackupRefused
from ultraengine.backup.frames import header_of, walk
from ultraengine.backup.manifest import (
    Backup,
    Owner,
    Piece,
    Position,
    Stored,
    StoredFile,
    StoredSnapshot,
    encode_backup,
    history_name,
    owner_name,
    snapshot_name,
    tail_name,
)
from ultraengine.execution.history import SEGMENT_BYTES
from ultraengine.execution.history_files.driver import DIRECTORY as HISTORY
from ultraengine.log.archive import segment_object
from ultraengine.log.identity import IDENTITY_PATH, LogIdentity, decode_identity
from ultraengine.log.recovery import good_part
from ultraengine.log.retention import SegmentSpan
from ultraengine.log.segment import HEADER_BYTES, KeyRing, Point, SegmentHeader
from ultraengine.log.survey import read_all, segment_paths
from ultraengine.model.ids import Instant, ShardId
from ultraengine.ports import Disk, ObjectStore, Secrets
from ultraengine.shard.ownership import PATH as SLOTS
from ultraengine.snapshot import tools as snapshots
from ultraengine.snapshot.codec import Codecs
from ultraengine.snapshot.format import Header
from ultraengine.snapshot.manifest import plan_load

_HISTORY_FILE: Final = re.compile(r"his-([0-9]{20})\.seg")


class Source(msgspec.Struct, frozen=True):
    """The directory of one shard."""

    disk: Disk
    secrets: Secrets
    codecs: Codecs = Codecs()

    @property
    def snapshots(self) -> snapshots.Tools:
        """What reads its snapshots."""
        return snapshots.Tools(disk=self.disk, secrets=self.secrets, codecs=self.codecs)


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A backup, and what it cost."""

    name: str
    backup: Backup
    sent_objects: int
    sent_bytes: int
    kept_objects: int
    """Objects that were there already."""


def identity_of(disk: Disk) -> LogIdentity:
    """Whose directory it is.  Raises FileNotFoundError, `IdentityDamaged`."""
    return decode_identity(read_all(disk, IDENTITY_PATH))


def claim(store: ObjectStore, identity: LogIdentity) -> None:
    """Take the shard's place in the store, once and for all.  Raises `BackupRefused`."""
    ours = Owner(cluster_uid=identity.cluster_uid.hex(), shard=int(identity.shard))
    with contextlib.suppress(FileExistsError):
        store.put(owner_name(ours.shard), msgspec.json.encode(ours), if_absent=True)
        return
    theirs = reading.owner(store, ours.shard)
    if theirs != ours:
        raise BackupRefused(
            f"{owner_name(ours.shard)}: the place belongs to cluster {theirs.cluster_uid}, and "
            f"this directory to {ours.cluster_uid}: give each engine a prefix of its own. A "
            "restored engine is another one"
        )


def take(source: Source, store: ObjectStore, now: Instant) -> Taken:
    """Copy everything that a restore needs, and list it.

    Raises `BackupError`, what the log and the snapshots raise, and errors of both ports.
    """
    identity = identity_of(source.disk)
    claim(store, identity)
    copier = _Copier(source.disk, store, int(identity.shard))
    tools = source.snapshots
    chain = plan_load(snapshots.listed(tools)) or ()
    images = tuple(
        StoredSnapshot(
            entry=entry,
            stored=copier.file(
                snapshot_name(copier.shard, entry), f"{tools.directory}/{entry.file}", entry.bytes
            ),
        )
        for entry in chain
    )
    tip = snapshots.info(tools, chain[-1].file).header if chain else None
    history = tuple(copier.history(0 if tip is None else tip.position.history_end))
    # The log last: it reaches at least as far as the snapshot.
    log, end, keys = copier.log(KeyRing(source.secrets))
    if tip is None and log[0].first_offset:
        raise BackupError("the log does not begin at offset 0 and there is no snapshot")
    backup = Backup(
        cluster_uid=identity.cluster_uid.hex(),
        shard=copier.shard,
        created=now,
        at=_position(tip),
        state_hash=chain[-1].state_hash if chain else None,
        end=Position(
            sequence_end=end.sequence, offset_end=end.offset, chain=end.chain.hex(), time=end.time
        ),
        recorded_end=end.recorded_end,
        epoch=end.epoch,
        handlers={} if tip is None else dict(tip.position.handlers),
        secrets=tuple(sorted(keys | ({tip.key_name} if tip and tip.key_name else set()))),
        slots=read_all(source.disk, SLOTS).hex() if source.disk.exists(SLOTS) else None,
        snapshots=images,
        log=tuple(log),
        history=history,
    )
    data = encode_backup(backup)
    store.put(backup.name, data, if_absent=True)
    if store.get(backup.name) != data:
        raise BackupDamaged(backup.name, "it reads back with other bytes")
    return Taken(
        name=backup.name,
        backup=backup,
        sent_objects=copier.sent_objects,
        sent_bytes=copier.sent_bytes,
        kept_objects=copier.kept_objects,
    )


def archive_sealed(source: Source, store: ObjectStore) -> list[str]:
    """Copy the segments that are complete and not in the store yet; their names.

    Raises as `take` does.
    """
    identity = identity_of(source.disk)
    claim(store, identity)
    copier = _Copier(source.disk, store, int(identity.shard))
    paths = segment_paths(source.disk)
    return copier.sealed_only(KeyRing(source.secrets), paths)


def _position(tip: Header | None) -> Position:
    if tip is None:
        return Position()
    at = tip.position
    return Position(
        sequence_end=at.sequence_end, offset_end=at.offset_end, chain=at.chain.hex(), time=at.time
    )


class _Copier:
    """Sends what the store does not have."""

    def __init__(self, disk: Disk, store: ObjectStore, shard: int) -> None:
        self._disk = disk
        self._store = store
        self.shard = shard
        self.sent_objects = self.sent_bytes = self.kept_objects = 0
        self._there = set(store.list(f"{shard}/"))
        newest = reading.newest(store, shard)
        self._known = {} if newest is None else {one.name: one for one in newest.objects}
        """What the newest manifest vouches for is not sent again."""

    def file(self, name: str, path: str, length: int) -> Stored:
        """An object of the first `length` bytes of a file."""
        known = self._kept(name, length)
        if known is not None:
            return known
        digest = hashlib.sha256()

        def chunks() -> Iterator[bytes]:
            with contextlib.closing(self._disk.open(path)) as file:
                for at in range(0, length, reading.CHUNK_BYTES):
                    chunk = file.pread(min(reading.CHUNK_BYTES, length - at), at)
                    digest.update(chunk)
                    yield chunk

        self._store.put_stream(name, chunks())
        return self._read_back(Stored(name=name, bytes=length, sha256=digest.hexdigest()))

    def _bytes(self, name: str, data: bytes) -> Stored:
        stored = Stored(name=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        self._store.put(name, data)
        return self._read_back(stored)

    def _kept(self, name: str, length: int | None) -> Stored | None:
        known = self._known.get(name)
        if known is None or name not in self._there or known.bytes != (length or known.bytes):
            return None
        self.kept_objects += 1
        return known

    def _read_back(self, stored: Stored) -> Stored:
        for _ in reading.content(self._store, stored):
            pass
        self.sent_objects += 1
        self.sent_bytes += stored.bytes
        return stored

    def history(self, end: int) -> Iterator[StoredFile]:
        """The files of the history up to a position."""
        for name in self._disk.list(HISTORY):
            found = _HISTORY_FILE.fullmatch(name)
            if found is None or int(found[1]) >= end:
                continue
            start, path = int(found[1]), f"{HISTORY}/{name}"
            with contextlib.closing(self._disk.open(path)) as file:
                length = min(SEGMENT_BYTES, end - start, file.size())
            yield StoredFile(
                path=path,
                stored=self.file(history_name(self.shard, start, length), path, length),
            )

    def log(self, ring: KeyRing) -> tuple[list[Piece], Point, set[str]]:
        """All segments; where the last one ends; names of the keys they need."""
        paths = segment_paths(self._disk)
        pieces: list[Piece] = []
        keys: set[str] = set()
        point: Point | None = None
        for number, (_, path) in enumerate(paths):
            data = read_all(self._disk, path)
            header = header_of(data, path)
            keys |= {name for name in (header.master_key, header.chain_key) if name}
            if number + 1 < len(paths):
                piece, point = self._sealed(ring, path, data, header, paths[number + 1][1])
            else:
                piece, point = self._tail(ring, data, header)
            pieces.append(piece)
        if point is None:
            raise BackupRefused("the directory holds no log")
        return pieces, point, keys

    def sealed_only(self, ring: KeyRing, paths: list[tuple[int, str]]) -> list[str]:
        """Send the complete segments that are missing; their names."""
        sent = []
        for (_, path), (_, following) in itertools.pairwise(paths):
            try:
                header = self._header(path)
                name = segment_object(
                    ShardId(self.shard), _span(path, header, self._header(following))
                )
                if name not in self._there:
                    self._sealed(ring, path, read_all(self._disk, path), header, following)
                    sent.append(name)
            except FileNotFoundError:
                # Retention was quicker: a snapshot that is backed up stands for it.
                continue
        return sent

    def _header(self, path: str) -> SegmentHeader:
        with contextlib.closing(self._disk.open(path)) as file:
            return header_of(file.pread(HEADER_BYTES, 0), path)

    def _sealed(
        self, ring: KeyRing, path: str, data: bytes, header: SegmentHeader, following: str
    ) -> tuple[Piece, Point]:
        after = self._header(following)
        span = _span(path, header, after)
        name = segment_object(ShardId(self.shard), span)
        stored = self._kept(name, None)
        if stored is None:
            end = HEADER_BYTES
            for frame, position, _, _ in walk(data, path, header, ring, span.end_sequence):
                end = position + frame.header.frame_bytes
            stored = self._bytes(name, data[:end])
        return (
            Piece(
                name=name,
                first_sequence=span.first_sequence,
                end_sequence=span.end_sequence,
                first_offset=span.first_offset,
                end_offset=span.end_offset,
                sealed=True,
                stored=stored,
            ),
            after.point,
        )

    def _tail(self, ring: KeyRing, data: bytes, header: SegmentHeader) -> tuple[Piece, Point]:
        """As much of the segment being written as is good."""
        end, point = good_part(data, header, ring.open(header))
        piece = Piece(
            name="",
            first_sequence=header.point.sequence,
            end_sequence=point.sequence,
            first_offset=header.point.offset,
            end_offset=point.offset,
            sealed=False,
        )
        name = tail_name(self.shard, piece)
        stored = self._kept(name, end) or self._bytes(name, data[:end])
        return msgspec.structs.replace(piece, name=name, stored=stored), point


def _span(path: str, header: SegmentHeader, after: SegmentHeader) -> SegmentSpan:
    here, there = header.point, after.point
    return SegmentSpan(
        path, here.sequence, there.sequence, here.offset, there.offset, 0, after.created
    )
