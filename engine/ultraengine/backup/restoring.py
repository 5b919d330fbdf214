"""Writes a new directory of a shard from an object store.

What is written is another engine's: it has a cluster uid and a disk uuid of its own, so that
neither replicas, records nor volumes of the old one take it for theirs.  The frames are those
of the old log, byte for byte, with their chain, and so are offsets, epochs and ids: what was
answered before the position is answered likewise.  Every byte is proved on the way: objects by
their hash, frames by their chain.

A position inside of a group ends in frames that are formed anew: a new segment, with a new
key, holds the part of the group below the position and the outcomes that lay behind.

The directory is written where nobody looks, and renamed by the caller when it is whole.  Uses
the Disk and ObjectStore ports and blocks.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from ultraengine.backup import reading
from ultraengine.backup.choosing import Target, choose, pieces
from ultraengine.backup.errors import BackupDamaged, BackupRefused
from ultraengine.backup.frames import header_of, walk
from ultraengine.backup.manifest import Backup, Piece, Stored
from ultraengine.log.driver import Log, LogOptions
from ultraengine.log.first import write_first
from ultraengine.log.frame import Frame, FrameDraft, FrameHeader, FrameKind, draft_of
from ultraengine.log.identity import (
    FORMAT,
    IDENTITY_PATH,
    IDENTITY_TEMPORARY,
    LogIdentity,
    encode_identity,
)
from ultraengine.log.mark import Mark
from ultraengine.log.opening import write_mark
from ultraengine.log.segment import (
    HEADER_BYTES,
    LOG_DIRECTORY,
    UID_BYTES,
    KeyRing,
    Point,
    SegmentHeader,
    encode_header,
    path_of,
    segment_name,
)
from ultraengine.log.serializer import serializers
from ultraengine.log.space import write_file
from ultraengine.model.ids import ConfigVersion, Epoch, ShardId
from ultraengine.model.limits import DEFAULT_LIMITS
from ultraengine.model.policy import LogSerializer
from ultraengine.ports import Clock, Disk, ObjectStore, Random, Secrets
from ultraengine.shard.ownership import decode_ownership, write_ownership
from ultraengine.shard.promise import write_promise
from ultraengine.snapshot.manifest import Manifest, encode_manifest
from ultraengine.snapshot.store import DIRECTORY as SNAPSHOTS
from ultraengine.snapshot.store import MANIFEST

_CUT_LIMITS: Final = msgspec.structs.replace(
    DEFAULT_LIMITS, segment_bytes=64 * 1024, reserve_bytes=0, segments_prepared=0
)
"""Of the log while the frames of a cut are written; the shard's own come with its start."""

Progress = Callable[[str], None]
"""Told the name of each object that was read."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to restore."""

    shard: int
    target: Target
    engine_uid: bytes
    """16 bytes: the engine that the directory belongs to, for its SLOTS."""
    cluster_uid: bytes
    base: Backup | None = None
    """Instead of the newest backup that leads to the target."""


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the new directory.  Binary values in hexadecimal."""

    shard: int
    cluster_uid: str
    backup: str
    """Name of the manifest."""
    snapshot_offset: int
    state_hash: str | None
    """Of the state at the snapshot's offset, as the manifest says."""
    offset_end: int
    """First offset that is not there."""
    recorded_end: int
    """Commands from here on are decided again at the first start."""
    time: int
    """Of the last command, µs since the Unix epoch."""
    chain: str
    """Of the log as it was copied; behind a cut inside of a group, before the new frames."""
    cut: bool
    """Whether frames were formed anew."""


class _Cut(msgspec.Struct):
    """Where the old frames end, and what comes behind."""

    at: int
    """First offset that is not wanted."""
    piece: int
    position: int
    point: Point
    header: FrameHeader
    split: Frame | None
    """The group that lies on both sides."""
    outcomes: list[Frame]

    @property
    def epoch(self) -> int:
        """What the frames formed anew carry: of the split group, else of the frame before."""
        return self.point.epoch if self.split is None else self.header.epoch

    @property
    def handlers(self) -> bytes:
        """Likewise."""
        return self.point.handlers if self.split is None else self.header.handlers

    @property
    def time(self) -> int:
        """Likewise."""
        return self.point.time if self.split is None else self.header.time


class _Read(msgspec.Struct):
    """A segment as it will stand in the new directory."""

    header: SegmentHeader
    data: bytes


def restore(
    order: Order,
    store: ObjectStore,
    disk: Disk,
    secrets: Secrets,
    clock: Clock,
    random: Random,
    *,
    codecs: Sequence[LogSerializer] = (),
    progress: Progress = lambda _: None,
) -> Restored:
    """Write the directory into an empty `disk`.

    Raises `BackupRefused` and `BackupDamaged` with what is wrong, `LogRefused` for keys, and
    errors of both ports; then the directory is of no use.
    """
    known = reading.backups(store, order.shard)
    backup = order.base or choose(known, order.target)
    for folder in (LOG_DIRECTORY, SNAPSHOTS):
        disk.make_directory(folder)
    log = _LogCopy(order, store, disk, secrets, random, progress)
    point, cut = log.copy(pieces(backup, reading.log_pieces(store, order.shard)))
    if backup.at.offset_end > point.offset or point.recorded_end < backup.at.offset_end:
        raise BackupDamaged(backup.name, "its log ends before its snapshot")
    for image in backup.snapshots:
        _file(store, disk, f"{SNAPSHOTS}/{image.entry.file}", image.stored, progress)
    entries = tuple(one.entry for one in backup.snapshots)
    listed = Manifest(
        next_number=1 + max((one.number for one in entries), default=0), entries=entries
    )
    write_file(
        disk, f"{SNAPSHOTS}/{MANIFEST}", f"{SNAPSHOTS}/{MANIFEST}.tmp", encode_manifest(listed)
    )
    for one in backup.history:
        disk.make_directory(one.path.rpartition("/")[0])
        _file(store, disk, one.path, one.stored, progress)
    _identify(order, backup, disk, clock, random, point)
    end, recorded_end = int(point.offset), int(point.recorded_end)
    if cut is not None:
        _write_cut(order, cut, disk, secrets, clock, random, codecs, log.last)
        end = cut.at
        behind = (min(end, one.header.offset_end) for one in cut.outcomes)
        recorded_end = max(recorded_end, *behind, 0)
    disk.sync_directory("")
    return Restored(
        shard=order.shard,
        cluster_uid=order.cluster_uid.hex(),
        backup=backup.name,
        snapshot_offset=backup.at.offset_end,
        state_hash=backup.state_hash,
        offset_end=end,
        recorded_end=recorded_end,
        time=log.time if cut is None or cut.split is None else cut.time,
        chain=point.chain.hex(),
        cut=cut is not None and bool(cut.split or cut.outcomes),
    )


class _LogCopy:
    """The segments up to the target."""

    def __init__(
        self,
        order: Order,
        store: ObjectStore,
        disk: Disk,
        secrets: Secrets,
        random: Random,
        progress: Progress,
    ) -> None:
        self._target = order.target
        self._uid = order.cluster_uid
        self._store = store
        self._disk = disk
        self._ring = KeyRing(secrets)
        self._random = random
        self._progress = progress
        self._cut: _Cut | None = None
        self._point: Point | None = None
        self.time = 0
        """Of the last group that is wanted as a whole."""
        self.last: SegmentHeader | None = None
        """Of the last segment that was written."""

    def copy(self, found: Sequence[Piece]) -> tuple[Point, _Cut | None]:
        """Write what is wanted of them; where the old frames end, and what comes behind."""
        for number, piece in enumerate(found):
            data = reading.piece_bytes(self._store, piece)
            self._progress(piece.name)
            kept = self._read(number, piece, data)
            cut = self._cut
            if cut is None or cut.piece == number:
                self._write(piece, _Read(*kept))
            if cut is not None and self._ended(cut):
                break
        cut, point = self._cut, self._point
        if point is None:
            raise BackupRefused("the backup holds no log")
        wanted = self._target.offset
        if cut is None and wanted is not None and wanted > point.offset:
            raise BackupRefused(f"the store holds offsets below {point.offset}, and not {wanted}")
        return (point, None) if cut is None else (cut.point, cut)

    def _read(self, number: int, piece: Piece, data: bytes) -> tuple[SegmentHeader, bytes]:
        """Prove a segment; what is wanted of it."""
        header = header_of(data, piece.name)
        if self._point is not None and header.point != self._point:
            raise BackupDamaged(
                piece.name, f"it does not continue the history at frame {self._point.sequence}"
            )
        self._point, end = header.point, HEADER_BYTES
        if header.point.sequence != piece.first_sequence:
            raise BackupDamaged(piece.name, "the segment is not what its name says")
        for frame, position, before, after in walk(
            data, piece.name, header, self._ring, piece.end_sequence
        ):
            if self._cut is None and self._beyond(frame):
                self._begin(number, position, before, frame)
            elif self._cut is None:
                end = position + frame.header.frame_bytes
                if frame.header.kind == FrameKind.COMMANDS:
                    self.time = frame.header.time
            elif (
                frame.header.kind == FrameKind.OUTCOMES and frame.header.base_offset < self._cut.at
            ):
                self._cut.outcomes.append(frame)
            self._point = after
            if self._cut is not None and self._ended(self._cut):
                break
        return header, data[:end]

    def _beyond(self, frame: Frame) -> bool:
        header = frame.header
        return header.kind == FrameKind.COMMANDS and self._target.beyond(
            offset_end=header.offset_end, time=header.time
        )

    def _begin(self, number: int, position: int, before: Point, frame: Frame) -> None:
        header = frame.header
        at = header.base_offset if self._target.offset is None else self._target.offset
        split = frame if header.base_offset < at else None
        self._cut = _Cut(at, number, position, before, header, split, [])

    def _ended(self, cut: _Cut) -> bool:
        return self._point is not None and self._point.recorded_end >= cut.at

    def _write(self, piece: Piece, kept: _Read) -> None:
        if len(kept.data) == HEADER_BYTES and self.last is not None:
            return  # Nothing of it is wanted, and the one before is the last.
        self.last = header = self._ring.rehome(kept.header, self._uid, self._random)
        path = path_of(segment_name(piece.first_sequence))
        _write(self._disk, path, [encode_header(header), kept.data[HEADER_BYTES:]])


def _identify(
    order: Order, backup: Backup, disk: Disk, clock: Clock, random: Random, point: Point
) -> None:
    """Whose directory it is, and what counts in it."""
    write_first(disk, backup.log[0].first_sequence)
    write_mark(disk, Mark(point.sequence, point.chain))
    write_promise(disk, Epoch(max(backup.epoch, point.epoch)))
    if backup.slots is not None:
        owned = decode_ownership(bytes.fromhex(backup.slots))
        write_ownership(disk, msgspec.structs.replace(owned, engine_uid=order.engine_uid))
    identity = LogIdentity(
        cluster_uid=order.cluster_uid,
        shard=ShardId(order.shard),
        replica="",
        disk_uuid=random.bytes(UID_BYTES),
        format=FORMAT,
        created=clock.now(),
    )
    write_file(disk, IDENTITY_PATH, IDENTITY_TEMPORARY, encode_identity(identity))


def _write_cut(
    order: Order,
    cut: _Cut,
    disk: Disk,
    secrets: Secrets,
    clock: Clock,
    random: Random,
    codecs: Sequence[LogSerializer],
    last: SegmentHeader | None,
) -> None:
    """The frames behind the cut, in a segment of their own."""
    drafts = _drafts(cut, codecs)
    if not drafts:
        return
    options = LogOptions(
        shard=ShardId(order.shard),
        epoch=Epoch(cut.epoch),
        handlers=cut.handlers,
        limits=_CUT_LIMITS,
        master_key=(last.master_key if last else "") or None,
        chain_key=(last.chain_key if last else "") or None,
        codec=(cut.split or cut.outcomes[0]).header.codec,
        config_version=ConfigVersion(cut.header.config_version),
    )
    failures: list[BaseException] = []
    log = Log.open(disk, clock, random, secrets, options, codecs=codecs)
    with contextlib.ExitStack() as stack:
        stack.callback(log.close, clean=False)
        log.start(failures.append, threads=False)
        written: list[bool] = []
        log.write(drafts, lambda done: written.append(done.error is None))
        if failures:
            raise failures[0]
        if written != [True]:
            raise BackupRefused("the frames behind the cut cannot be written: no room")
        log.close(clean=True)


def _drafts(cut: _Cut, codecs: Sequence[LogSerializer]) -> list[FrameDraft]:
    table = serializers(codecs)
    drafts = []
    if cut.split is not None:
        frame = cut.split
        head = frame.header
        serializer = _serializer(table, head)
        commands = serializer.decode_commands(frame.payload)[: cut.at - head.base_offset]
        drafts.append(
            FrameDraft(
                FrameKind.COMMANDS,
                head.base_offset,
                len(commands),
                head.time,
                serializer.encode_commands(commands),
            )
        )
    for frame in cut.outcomes:
        head = frame.header
        # A frame that is split takes no time from behind the position.
        draft = msgspec.structs.replace(draft_of(frame), time=cut.time)
        if head.offset_end > cut.at:
            serializer = _serializer(table, head)
            kept = serializer.decode_outcomes(frame.payload)[: cut.at - head.base_offset]
            draft = msgspec.structs.replace(
                draft, count=len(kept), payload=serializer.encode_outcomes(kept)
            )
        drafts.append(draft)
    return drafts


def _serializer(table: Mapping[int, LogSerializer], header: FrameHeader) -> LogSerializer:
    found = table.get(header.codec)
    if found is None:
        raise BackupRefused(f"no serializer for codec {header.codec} of frame {header.sequence}")
    return found


def _file(store: ObjectStore, disk: Disk, path: str, stored: Stored, progress: Progress) -> None:
    _write(disk, path, reading.content(store, stored))
    progress(stored.name)


def _write(disk: Disk, path: str, chunks: Iterable[bytes]) -> None:
    """A new file, durable but for its name."""
    with contextlib.closing(disk.open(path, create=True, write=True)) as file:
        at = 0
        for chunk in chunks:
            file.pwrite(chunk, at)
            at += len(chunk)
        file.truncate(at)
        file.sync()
    disk.sync_directory(path.rpartition("/")[0])
