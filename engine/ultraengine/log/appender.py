"""Appends frames to the current segment and rolls to the next (requirement 001 §2.1).

    requests -> frames -> one pwrite -> one fdatasync -> Written per request

Rules of this file:

* A request's frames lie in one segment; when they do not fit, the log rolls first.
* Whether there is room is settled before anything is written.  A request without room is
  refused whole, and everything that was formed on top of it as well.
* Every error but a full disk is raised, and then nothing may be written any more: after a
  failed fsync nobody knows what is on disk, and a second one would only pretend to
  (ATC'20 "Can Applications Recover from fsync Failures?").

Uses the Disk port, blocks, and is used by one thread at a time.
"""

from collections.abc import Callable, Sequence

import msgspec

from ultraengine.log import frame as frames
from ultraengine.log.catalog import Catalog, LogSegment
from ultraengine.log.digest import state_chain
from ultraengine.log.frame import FrameDraft, FrameKind, Place
from ultraengine.log.index import SegmentIndex
from ultraengine.log.mark import Mark
from ultraengine.log.segment import (
    HEADER_BYTES,
    LOG_DIRECTORY,
    KeyRing,
    Point,
    SegmentHeader,
    encode_header,
    path_of,
    segment_name,
)
from ultraengine.log.space import Prepared, sync_fresh
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import (
    ConfigVersion,
    Epoch,
    FrameSequence,
    Instant,
    Offset,
    ShardId,
)
from ultraengine.ports import Clock, Disk, DiskFull, File, Random


class Stamp(msgspec.Struct, frozen=True):
    """What all frames and segments of one process carry."""

    shard: ShardId
    cluster_uid: bytes
    epoch: Epoch
    config_version: ConfigVersion
    handlers: bytes
    codec: int
    compress: bool
    master_key: str
    chain_key: str


class Written(msgspec.Struct, frozen=True, gc=False):
    """What became of one request."""

    end_sequence: FrameSequence
    """Behind the request's last frame; unchanged when it was refused."""
    durable_end: FrameSequence
    """Frames below are durable."""
    chain: bytes
    """At ``end_sequence``."""
    state_chain: bytes
    """At ``end_sequence``."""
    write_s: float
    """Duration of the pwrite that it was part of."""
    sync_s: float
    """Duration of the fdatasync; 0 without one."""
    frames: Sequence[bytes]
    """Each as it stands on the disk, for who sends them on during the sync: of a write without one,
    in the clear."""
    bytes: int
    """Length of the request's frames on disk."""
    error: DiskFull | None = None
    """There was no room: nothing of the request was written."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """Frames to be written together; without drafts, only the sync is asked for."""

    drafts: Sequence[FrameDraft]
    sync: bool
    places: Sequence[Place] = ()
    """Of frames that another replica has formed, one for each draft; empty: their place is here."""


class _Formed(msgspec.Struct, frozen=True, gc=False):
    """A request whose frames stand ready in the buffer."""

    point: Point
    """Behind its last frame."""
    frames_bytes: int
    sync: bool
    frames: Sequence[bytes]


class _Buffer:
    """Frames that go into one pwrite."""

    __slots__ = ("before", "formed", "frames", "frames_bytes", "has_commands", "parts")

    def __init__(self, before: Point) -> None:
        self.before = before
        """Where the log stood before them."""
        self.parts: list[bytes] = []
        self.formed: list[_Formed] = []
        self.frames: list[tuple[int, int, int]] = []
        """(sequence, offset, length) of each frame, for the index."""
        self.frames_bytes = 0
        self.has_commands = False

    def last(self, parts_before: int, count: int) -> list[bytes]:
        """The last frames, of which the first parts are those behind the parts before."""
        raw, found, end = b"".join(self.parts[parts_before:]), [], 0
        for _, _, length in self.frames[len(self.frames) - count :]:
            found.append(raw[end : end + length])
            end += length
        return found


class OpenSegment(msgspec.Struct):
    """The segment being written."""

    segment: LogSegment
    file: File
    file_bytes: int
    position: int
    """Where the next frame goes."""


Take = Callable[[int], Prepared]
"""A prepared segment of at least that many bytes.  Raises `DiskFull`."""


class Appender:
    """The writing end of a log."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        random: Random,
        ring: KeyRing,
        stamp: Stamp,
        segment_bytes: int,
        current: OpenSegment,
        point: Point,
        catalog: Catalog,
        take: Take,
    ) -> None:
        self._disk = disk
        self._clock = clock
        self._random = random
        self._ring = ring
        self._stamp = stamp
        self.segment_bytes = segment_bytes
        """Length of the next segment, unless a request needs more."""
        self._current = current
        self._take = take
        self._abandoned = False
        """The current segment refused bytes: the next frames need a new one."""
        self._unsynced = False
        self.catalog = catalog
        self.point = point
        """Behind the last frame written."""
        self.durable = catalog.durable
        """Behind the last frame synced; replaced as a whole, so any thread may read it."""
        self.refusing: DiskFull | None = None
        """Set while the last request with frames was refused."""
        self.rolls = 0
        """Number of rolls so far."""

    @property
    def room_bytes(self) -> int:
        """Bytes left in the current segment."""
        return 0 if self._abandoned else self._current.file_bytes - self._current.position

    def append(self, requests: Sequence[Request]) -> list[Written]:
        """Write the requests in order, with as few writes and syncs as the segments allow.

        Raises OSError of the disk and `InvariantBroken` for frames that do not continue the
        log; afterwards the appender must not be used any more.
        """
        done: list[Written] = []
        buffer = _Buffer(self.point)
        for request in requests:
            if request.drafts:
                refusal, buffer = self._make_room(request.drafts, buffer, done)
                if refusal is not None:
                    buffer = self._commit(buffer, done)
                    self.refusing = refusal
                    done.append(self._written(self.point, 0, 0.0, 0.0, refusal))
                    continue
            before_bytes, before = buffer.frames_bytes, len(buffer.parts)
            self._form(request.drafts, request.places, buffer)
            length = buffer.frames_bytes - before_bytes
            sends = not (request.sync or request.places or self._current.segment.keys.cipher)
            raw = buffer.last(before, len(request.drafts)) if sends else ()
            buffer.formed.append(_Formed(self.point, length, request.sync, raw))
        self._commit(buffer, done)
        return done

    def sync(self) -> None:
        """Sync what was written without a sync.  Raises OSError."""
        if self._unsynced:
            self._current.file.sync()
            self._set_durable()

    def seal(self) -> None:
        """End the current segment: sync it, cut it to its used length, close it."""
        self.sync()
        self._current.file.truncate(self._current.position)
        self._current.file.sync()
        self._current.file.close()

    def close(self) -> None:
        """Release the file as it is."""
        self._current.file.close()

    def _unfit(self, drafts: Sequence[FrameDraft]) -> DiskFull | None:
        """Check that the drafts continue the log.

        After a refusal, the caller may have formed more on top of what was refused; that is
        refused with the same error until it has noticed.
        """
        point = self.point
        offset, recorded, time = int(point.offset), int(point.recorded_end), int(point.time)
        for draft in drafts:
            frames.check_draft(draft)
            commands = draft.kind is FrameKind.COMMANDS
            expected = offset if commands else recorded
            if draft.base_offset != expected or draft.time < time:
                if self.refusing is not None:
                    return self.refusing
                raise InvariantBroken(
                    "a frame continues the log",
                    kind=draft.kind.name,
                    base_offset=draft.base_offset,
                    expected=expected,
                    time=draft.time,
                    time_before=time,
                )
            time = draft.time
            if commands:
                offset += draft.count
            else:
                recorded += draft.count
                if recorded > offset:
                    raise InvariantBroken(
                        "outcomes follow their commands", recorded_end=recorded, offset=offset
                    )
        return None

    def _make_room(
        self, drafts: Sequence[FrameDraft], buffer: _Buffer, done: list[Written]
    ) -> tuple[DiskFull | None, _Buffer]:
        """See that the drafts continue the log and fit; why not, and the buffer to use."""
        refusal = self._unfit(drafts)
        if refusal is not None:
            return refusal, buffer
        need = sum(frames.frame_bytes_at_most(len(draft.payload)) for draft in drafts)
        if need <= self.room_bytes - buffer.frames_bytes:
            return None, buffer
        buffer = self._commit(buffer, done)
        refusal = self._unfit(drafts)  # The commit may have been refused, and this stood on it.
        if refusal is None:
            try:
                self._roll(need)
            except DiskFull as error:
                refusal = error
        return refusal, buffer

    def stamp(self, epoch: Epoch, config_version: ConfigVersion) -> None:
        """What frames carry from now on.  Raises `InvariantBroken` for an epoch that goes back."""
        if epoch < self.point.epoch:
            raise InvariantBroken("epochs only grow", epoch=epoch, last_epoch=self.point.epoch)
        self._stamp = msgspec.structs.replace(
            self._stamp, epoch=epoch, config_version=config_version
        )

    def _place(self, number: int, places: Sequence[Place]) -> Place:
        """Where the next frame stands: here, or where its leader has put it."""
        point, stamp = self.point, self._stamp
        durable_end, salt = self.durable.durable_end, self._current.segment.header.salt
        if not places:
            if stamp.epoch < point.epoch:
                # Copied since the last stamp; what follows it would be damage to the next start.
                raise InvariantBroken("epochs only grow", epoch=stamp.epoch, last_epoch=point.epoch)
            return Place(
                stamp.shard,
                stamp.epoch,
                stamp.config_version,
                point.sequence,
                stamp.handlers,
                durable_end,
                point.chain,
                salt,
                stamp.codec,
            )
        place = places[number]
        continues = (stamp.shard, point.sequence, point.chain)
        if (place.shard, place.sequence, place.chain) != continues or place.epoch < point.epoch:
            raise InvariantBroken(
                "a copied frame continues this log",
                shard=place.shard,
                sequence=place.sequence,
                end=point.sequence,
                epoch=place.epoch,
                last_epoch=point.epoch,
            )
        return msgspec.structs.replace(place, durable_end=durable_end, salt=salt)

    def _form(self, drafts: Sequence[FrameDraft], places: Sequence[Place], buffer: _Buffer) -> None:
        """Encode the drafts behind what is buffered, and move the point."""
        stamp = self._stamp
        keys = self._current.segment.keys
        for number, draft in enumerate(drafts):
            point, place = self.point, self._place(number, places)
            parts, length, chain = frames.encode(draft, place, keys, compress=stamp.compress)
            buffer.parts += parts
            buffer.frames_bytes += length
            buffer.frames.append((point.sequence, point.offset, length))
            offset, recorded, state = point.offset, point.recorded_end, point.state_chain
            if draft.kind is FrameKind.COMMANDS:
                buffer.has_commands = True
                offset = Offset(offset + draft.count)
            else:
                recorded = Offset(recorded + draft.count)
                state = state_chain(state, draft.payload)
            self.point = Point(
                FrameSequence(point.sequence + 1),
                offset,
                recorded,
                place.epoch,
                Instant(draft.time),
                place.handlers,
                chain,
                state,
            )

    def _commit(self, buffer: _Buffer, done: list[Written]) -> _Buffer:
        """Write and sync what is buffered, report it, and return an empty buffer."""
        clock, current = self._clock, self._current
        started = written = clock.monotonic()
        if buffer.parts:
            try:
                current.file.pwrite(b"".join(buffer.parts), current.position)
            except DiskFull as error:
                self._take_back(buffer, done, error)
                return _Buffer(self.point)
            self._note(buffer)
            self._unsynced = True
            if buffer.has_commands:
                self.refusing = None
            written = clock.monotonic()
        synced = written
        if self._unsynced and any(one.sync for one in buffer.formed):
            current.file.sync()
            self._set_durable()
            synced = clock.monotonic()
        write_s, sync_s = written - started, synced - written
        done += [
            self._written(one.point, one.frames_bytes, write_s, sync_s, None, one.frames)
            for one in buffer.formed
        ]
        return _Buffer(self.point)

    def _note(self, buffer: _Buffer) -> None:
        current = self._current
        index = current.segment.index
        for sequence, offset, length in buffer.frames:
            index.note(sequence, offset, current.position, length)
            current.position += length
        self.catalog.written_end = self.point.sequence

    def _set_durable(self) -> None:
        self._unsynced = False
        self.catalog.durable = self.durable = Mark(self.point.sequence, self.point.chain)

    def _take_back(self, buffer: _Buffer, done: list[Written], error: DiskFull) -> None:
        """The file system had no room after all: leave nothing of the buffer behind.

        What was torn is cut off, so that no later start takes it for written, and the segment
        is not used any more, so that no nonce is used twice.
        """
        current = self._current
        current.file.truncate(current.position)
        current.file.sync()
        self.point = buffer.before
        self._set_durable()
        self._abandoned = True
        self.refusing = error
        done += [self._written(self.point, 0, 0.0, 0.0, error) for _ in buffer.formed]

    def _written(
        self,
        point: Point,
        frames_bytes: int,
        write_s: float,
        sync_s: float,
        error: DiskFull | None = None,
        frames: Sequence[bytes] = (),
    ) -> Written:
        return Written(
            point.sequence,
            self.durable.durable_end,
            point.chain,
            point.state_chain,
            write_s,
            sync_s,
            frames,
            frames_bytes,
            error,
        )

    def _roll(self, need: int) -> None:
        """Go on in a new segment with room for `need` bytes.

        Raises `DiskFull` with nothing changed; the segment that is left is cut to its used
        length.  A segment's name proves all frames before it, so these are synced first.
        """
        self.sync()
        prepared = self._take(max(self.segment_bytes, HEADER_BYTES + need))
        current = start_segment(
            self._disk,
            self._random,
            self._ring,
            self._stamp,
            self._clock.now(),
            prepared,
            self.point,
        )
        self._current.file.truncate(self._current.position)
        self._current.file.close()
        self._current = current
        self._abandoned = False
        self.rolls += 1
        self.catalog.add(current.segment)


def start_segment(
    disk: Disk,
    random: Random,
    ring: KeyRing,
    stamp: Stamp,
    created: Instant,
    prepared: Prepared,
    point: Point,
    copied: Sequence[tuple[FrameDraft, Place]] = (),
) -> OpenSegment:
    """Turn a prepared file into the segment that starts at `point`, durably.

    `copied` are frames to be written into it before it gets its name.  Raises `DiskFull` with
    the prepared file removed and nothing else changed.
    """
    header, keys = ring.create(
        SegmentHeader(
            shard=stamp.shard,
            cluster_uid=stamp.cluster_uid,
            created=created,
            point=point,
            salt=b"",
            master_key=stamp.master_key,
            chain_key=stamp.chain_key,
        ),
        random,
    )
    path = path_of(segment_name(point.sequence))
    segment = LogSegment(path, header, SegmentIndex(point), ring, keys)
    content = [encode_header(header)]
    position, offset = HEADER_BYTES, point.offset
    for draft, place in copied:
        own = msgspec.structs.replace(place, salt=header.salt)
        parts, length, _ = frames.encode(draft, own, keys, compress=stamp.compress)
        content += parts
        segment.index.note(place.sequence, offset, position, length)
        position += length
        if draft.kind is FrameKind.COMMANDS:
            offset = Offset(draft.base_offset + draft.count)
    file = disk.open(prepared.path, write=True)
    try:
        file.pwrite(b"".join(content), 0)
        sync_fresh(file)
        disk.rename(prepared.path, path)
    except DiskFull:
        file.close()
        disk.remove(prepared.path)
        raise
    disk.sync_directory(LOG_DIRECTORY)
    return OpenSegment(segment, file, prepared.file_bytes, position)
