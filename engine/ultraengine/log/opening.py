"""The start of a log: lock, identity, recovery, and a fresh segment (`FORMAT.md`).

    lock -> IDENTITY -> survey -> keep the torn tail in broken/ -> new segment with copies of
    the frames that are valid but not proved durable -> cut the old one -> MARK

Until the survey is done nothing but LOCK and a missing IDENTITY is written, and damage stops
the start there.  The new segment exists because after a failed sync the page cache proves
nothing: what is served must have been synced by this process, or proved by an earlier one.
"""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec

from ultraengine.log import frame as frames
from ultraengine.log import recovery
from ultraengine.log.appender import OpenSegment, Stamp, start_segment
from ultraengine.log.catalog import LogSegment
from ultraengine.log.damage import LogDamaged, LogInUse, LogRefused
from ultraengine.log.first import write_first
from ultraengine.log.frame import FrameDraft, Place
from ultraengine.log.identity import (
    FORMAT,
    IDENTITY_PATH,
    IDENTITY_TEMPORARY,
    IdentityDamaged,
    LogIdentity,
    decode_identity,
    encode_identity,
)
from ultraengine.log.mark import MARK_PATH, MARK_TEMPORARY, Mark, encode_mark
from ultraengine.log.recovery import Scan, Stand, Verdict
from ultraengine.log.segment import (
    BROKEN_DIRECTORY,
    GENESIS,
    HEADER_BYTES,
    LOCK_FILE,
    LOG_DIRECTORY,
    UID_BYTES,
    KeyRing,
    Point,
    SegmentHeader,
)
from ultraengine.log.space import Space, keep_aside, write_file
from ultraengine.log.survey import Survey, read_all, segment_paths, survey, unproved
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ConfigVersion, Epoch, FrameSequence, Instant, Offset, ShardId
from ultraengine.model.limits import Limits
from ultraengine.ports import Clock, Disk, DiskFull, Lock, Random

T = TypeVar("T")


class LogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How one process uses one shard's log."""

    shard: ShardId
    epoch: Epoch
    handlers: bytes
    """First 8 bytes of the digest of the handler versions, stamped on every frame."""
    limits: Limits
    compress: bool = False
    master_key: str | None = None
    """Name of the secret (32 bytes) that wraps segment keys; None = no encryption."""
    chain_key: str | None = None
    """Name of the secret (16 to 64 bytes) that keys the chain; None = an unkeyed chain."""
    codec: int = 1
    config_version: ConfigVersion = ConfigVersion(0)
    cluster_uid: bytes | None = None
    """16 bytes; None accepts what IDENTITY says, or mints one."""
    replica: str = ""
    adopts: bool = False
    """Whether a directory that is of no replica yet becomes the one of `replica`."""
    verify_from: Callable[[], int] = lambda: 0
    """Asked once this process owns the directory.  Frames from this sequence on are verified at the
    start; what lies before, when it is read.  A shard that replays from a snapshot may give the
    snapshot's sequence."""


class TornTail(msgspec.Struct, frozen=True):
    """Bytes behind the end of the log: a write that was under way and never acknowledged."""

    file: str
    byte_position: int
    length: int
    reason: str
    kept_as: str
    """Where the bytes are kept."""


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """Where the log stands after the start."""

    end_sequence: FrameSequence
    end_offset: Offset
    """Offset of the next command."""
    recorded_end: Offset
    """Every command below has its outcome in the log."""
    last_time: Instant
    """No later frame may carry a lower time."""
    chain: bytes
    state_chain: bytes
    torn: TornTail | None
    first_sequence: FrameSequence
    first_offset: Offset
    last_epoch: Epoch
    """0 for an empty log."""
    last_handlers: bytes | None
    """Of the last frame; None for an empty log."""
    copied_frames: int
    """Frames that were valid but not proved durable."""


class Opened(msgspec.Struct):
    """Everything the driver goes on with."""

    recovered: Recovered
    identity: LogIdentity
    stamp: Stamp
    lock: Lock
    current: OpenSegment
    segments: tuple[LogSegment, ...]
    point: Point


def check_options(options: LogOptions) -> None:
    """Raises `InvariantBroken` for limits that cannot work together."""
    limits = options.limits
    if limits.frame_bytes_max > frames.PAYLOAD_BYTES_MAX:
        raise InvariantBroken(
            "frame_bytes_max is at most 16 MiB", frame_bytes_max=limits.frame_bytes_max
        )
    if limits.segment_bytes < 2 * HEADER_BYTES or limits.segment_bytes % 8:
        raise InvariantBroken(
            "segment_bytes is at least 8,192 and a multiple of 8",
            segment_bytes=limits.segment_bytes,
        )
    if len(options.handlers) != frames.HANDLERS_BYTES:
        raise InvariantBroken("the handlers' digest has 8 bytes", handlers=options.handlers)
    if not 1 <= options.codec <= 255:
        raise InvariantBroken("a codec is 1 to 255", codec=options.codec)


def open_log(
    disk: Disk, clock: Clock, random: Random, ring: KeyRing, space: Space, options: LogOptions
) -> Opened:
    """Recover the log of `disk` and make it ready for appending.  Blocks.

    Raises `LogDamaged`, `LogInUse`, `LogRefused`, `DiskFull` (nothing was lost), OSError.
    """
    check_options(options)
    lock = _locked(disk)
    with contextlib.ExitStack() as undo:
        undo.callback(lock.release)
        identity = _identity(disk, clock, random, options)
        found = survey(
            disk, ring, verify_from=options.verify_from(), cluster_uid=identity.cluster_uid
        )
        if found.damage is not None:
            raise found.damage
        for finding in found.findings:
            if finding.header is not None and finding.header.shard != options.shard:
                raise LogRefused(f"{finding.path} belongs to shard {finding.header.shard}")
        stamp = Stamp(
            options.shard,
            identity.cluster_uid,
            options.epoch,
            options.config_version,
            options.handlers,
            options.codec,
            options.compress,
            options.master_key or "",
            options.chain_key or "",
        )
        opened = _start(disk, clock, random, ring, space, stamp, identity, lock, found)
        undo.pop_all()
    return opened


def write_mark(disk: Disk, mark: Mark) -> None:
    """Replace MARK.  Raises `DiskFull` (the old one stays), OSError."""
    write_file(disk, MARK_PATH, MARK_TEMPORARY, encode_mark(mark))


def _locked(disk: Disk) -> Lock:
    try:
        lock = disk.lock(LOCK_FILE)
    except BlockingIOError:
        raise LogInUse(LOCK_FILE) from None
    return lock


def _identity(disk: Disk, clock: Clock, random: Random, options: LogOptions) -> LogIdentity:
    """Read IDENTITY, or write it for an empty directory."""
    try:
        identity = decode_identity(read_all(disk, IDENTITY_PATH))
    except FileNotFoundError:
        if segment_paths(disk):
            raise _identity_damage("it is missing, but there are segments") from None
        return _new_identity(disk, clock, random, options)
    except IdentityDamaged as error:
        raise _identity_damage(str(error)) from None
    if identity.format != FORMAT:
        raise LogRefused(f"{IDENTITY_PATH}: format {identity.format}; this release reads {FORMAT}")
    if options.adopts and not identity.replica:
        identity = msgspec.structs.replace(identity, replica=options.replica)
        write_file(disk, IDENTITY_PATH, IDENTITY_TEMPORARY, encode_identity(identity))
    for name, there, wanted in (
        ("shard", identity.shard, options.shard),
        ("replica", identity.replica, options.replica),
        ("cluster", identity.cluster_uid, options.cluster_uid or identity.cluster_uid),
    ):
        if there != wanted:
            raise LogRefused(
                f"{IDENTITY_PATH}: this directory belongs to {name} {there!r}, not to {wanted!r}: "
                f"the wrong volume is mounted"
            )
    return identity


def _identity_damage(reason: str) -> LogDamaged:
    return LogDamaged(
        reason,
        file=IDENTITY_PATH,
        byte_position=0,
        sequence=0,
        offset=0,
        advice="Nothing was changed. Restore the file from a backup of this directory.",
    )


def _new_identity(disk: Disk, clock: Clock, random: Random, options: LogOptions) -> LogIdentity:
    identity = LogIdentity(
        cluster_uid=options.cluster_uid or random.bytes(UID_BYTES),
        shard=options.shard,
        replica=options.replica,
        disk_uuid=random.bytes(UID_BYTES),
        format=FORMAT,
        created=clock.now(),
    )
    if len(identity.cluster_uid) != UID_BYTES:
        raise InvariantBroken("a cluster uid has 16 bytes", cluster_uid=identity.cluster_uid)
    write_file(disk, IDENTITY_PATH, IDENTITY_TEMPORARY, encode_identity(identity))
    return identity


def _start(
    disk: Disk,
    clock: Clock,
    random: Random,
    ring: KeyRing,
    space: Space,
    stamp: Stamp,
    identity: LogIdentity,
    lock: Lock,
    found: Survey,
) -> Opened:
    """Act on a survey without damage."""
    for directory in (LOG_DIRECTORY, BROKEN_DIRECTORY):
        disk.make_directory(directory)
    disk.sync_directory("")
    space.remove_leftovers()
    last = found.findings[-1] if found.findings else None
    first_stamp = stamp
    start, end, torn, copied = Stand(GENESIS, HEADER_BYTES), GENESIS, None, []
    if last is not None and last.scan is not None and last.header is not None:
        start, end = unproved(last.scan, found.proved_end)[0], last.scan.end.point
        data = read_all(disk, last.path)
        if last.verdict is Verdict.TORN:
            tail = data[: last.used_end]
            keep = partial(_keep_torn, disk, clock, last.path, last.scan, tail)
            torn = _with_reserve(space, keep)
        copied = _to_copy(data, start, last.scan.end, last.header, ring)
        if copied:
            # Their chain was computed under the old key; a new one begins with the next segment.
            first_stamp = msgspec.structs.replace(stamp, chain_key=last.header.chain_key)
    if stamp.epoch < end.epoch:
        raise InvariantBroken("epochs only grow", epoch=stamp.epoch, last_epoch=end.epoch)
    need = sum(frames.frame_bytes_at_most(len(draft.payload)) for draft, _ in copied)
    file_bytes = max(space.segment_bytes, HEADER_BYTES + need)
    prepared = _with_reserve(space, partial(space.take, file_bytes))
    current = start_segment(
        disk, random, ring, first_stamp, clock.now(), prepared, start.point, copied
    )
    segments = tuple(
        LogSegment(one.path, one.header, one.index, ring)
        for one in found.findings
        if one.header is not None and one.index is not None and one.path != current.segment.path
    )
    if last is not None and last.path != current.segment.path:
        _cut(disk, last.path, start.byte_position)
    first = (*segments, current.segment)[0].header.point
    if found.first is None:
        write_first(disk, first.sequence)
    with contextlib.suppress(DiskFull):
        # A witness more; on a full disk the proof of the new segment's name has to do.
        write_mark(disk, Mark(end.sequence, end.chain))
    recovered = Recovered(
        end_sequence=end.sequence,
        end_offset=end.offset,
        recorded_end=end.recorded_end,
        last_time=end.time,
        chain=end.chain,
        state_chain=end.state_chain,
        torn=torn,
        first_sequence=first.sequence,
        first_offset=first.offset,
        last_epoch=end.epoch,
        last_handlers=end.handlers if end.sequence > 0 else None,
        copied_frames=len(copied),
    )
    return Opened(recovered, identity, stamp, lock, current, (*segments, current.segment), end)


def _with_reserve(space: Space, action: Callable[[], T]) -> T:
    """Do what needs room, on a full disk at the cost of the reserve.

    The log then starts read-only, and the driver makes the reserve again when it can.
    """
    try:
        return action()
    except DiskFull:
        space.borrow_reserve()
        return action()


def _keep_torn(disk: Disk, clock: Clock, path: str, scan: Scan, data: bytes) -> TornTail:
    """Copy what `data`, the used part of a segment, has behind the log's end to broken/."""
    position = scan.end.byte_position
    name = path.rpartition("/")[2]
    stem = f"{BROKEN_DIRECTORY}/{name}-torn-at-{position}-{clock.now()}"
    tail = data[position:]
    kept_as = keep_aside(disk, stem, tail)
    return TornTail(path, position, len(tail), scan.reason, kept_as)


def _to_copy(
    data: bytes, start: Stand, end: Stand, header: SegmentHeader, ring: KeyRing
) -> list[tuple[FrameDraft, Place]]:
    """The frames of a segment from `start` to `end`."""
    keys = ring.open(header)
    copied = []
    point, position = start.point, start.byte_position
    while position < end.byte_position:
        found, point = recovery.read_frame(data, position, header, keys, point)
        copied.append((frames.draft_of(found), frames.place_of(found.header)))
        position += found.header.frame_bytes
    return copied


def _cut(disk: Disk, path: str, length: int) -> None:
    """Cut a segment to what the next one does not hold."""
    file = disk.open(path, write=True)
    try:
        file.truncate(length)
        file.sync()
    finally:
        file.close()
