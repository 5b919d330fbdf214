"""Changes to a damaged log that a person asked for: repair from a good copy, truncate.

Rules of this file: the directory is locked; a copy of every file that is about to change is
durable in ``broken/`` first; every step can be interrupted and the whole be run again.
"""

import contextlib
from collections.abc import Iterator

import msgspec

from ultraengine.log import frame as frames
from ultraengine.log import recovery
from ultraengine.log.damage import LogDamaged, LogInUse, LogRefused
from ultraengine.log.digest import state_chain
from ultraengine.log.frame import Frame, FrameFlag, FrameKind
from ultraengine.log.identity import IDENTITY_PATH, IdentityDamaged, LogIdentity, decode_identity
from ultraengine.log.mark import MARK_PATH, MARK_TEMPORARY, Mark, encode_mark
from ultraengine.log.segment import (
    BROKEN_DIRECTORY,
    HEADER_BYTES,
    LOCK_FILE,
    LOG_DIRECTORY,
    KeyRing,
    Point,
    SegmentDamaged,
    SegmentHeader,
    advance,
    decode_header,
    encode_header,
)
from ultraengine.log.space import keep_aside, write_file
from ultraengine.log.survey import (
    Finding,
    Survey,
    read_all,
    read_mark,
    segment_paths,
    survey,
    unproved,
    walk,
)
from ultraengine.model.ids import Instant
from ultraengine.ports import Clock, Disk, Random, Secrets


class RepairedSegment(msgspec.Struct, frozen=True, kw_only=True):
    """A segment that was written anew."""

    path: str
    from_sequence: int
    to_sequence: int
    """Frames in this range were taken from the good copy."""
    kept_as: str | None
    """Where the damaged file is kept; None where there was none any more."""


class RepairReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `repair` has done."""

    segments: tuple[RepairedSegment, ...]
    mark_kept_as: str | None
    """Where the old MARK is kept, if it had to be replaced."""
    end_sequence: int
    end_offset: int


class TruncateReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `truncate` has taken away, or would; ends exclude."""

    end_sequence: int
    """Where the log ends then."""
    end_offset: int
    lost_frames: int
    """Frames that could be read."""
    lost_commands: int
    """Commands in them: offsets from ``end_offset`` on."""
    lost_outcomes: int
    unreadable_bytes: int
    """Bytes behind them that are not zero and could not be read as frames."""
    last_sequence_seen: int | None
    """Highest frame of which at least the header could be read."""
    kept: tuple[str, ...]
    """Copies in ``broken/``."""


def repair(
    damaged: Disk,
    good: Disk,
    *,
    clock: Clock,
    random: Random,
    secrets: Secrets,
    master_key: str | None = None,
) -> RepairReport:
    """Replace damaged frames by those of a good copy of the same shard.

    What is written anew is encrypted as the damaged log was; where none of its segment
    headers can be read, as the good copy is, or under `master_key` if that is given.

    A frame is taken only where the chains agree: before the first frame taken, and wherever
    the damaged log still says what came later.  Raises `LogRefused` when the copies do not
    belong together, part before the damage, or the good one is damaged too or too short;
    then nothing was changed that the report of an earlier segment would not name.
    """
    ring = KeyRing(secrets)
    with _locked(damaged):
        ours, theirs = _identity(damaged), _identity(good)
        if (ours.cluster_uid, ours.shard) != (theirs.cluster_uid, theirs.shard):
            raise LogRefused("the two logs are of different clusters or shards")
        source = survey(good, ring, cluster_uid=theirs.cluster_uid)
        if source.damage is not None:
            raise LogRefused(f"the good copy is damaged as well: {source.damage}")
        done: list[RepairedSegment] = []
        found = survey(damaged, ring, cluster_uid=ours.cluster_uid)
        while found.damage is not None:
            finding = next((one for one in found.findings if one.damage is not None), None)
            if finding is None or any(one.path == finding.path for one in done):
                raise LogRefused(f"this cannot be repaired from the good copy: {found.damage}")
            mender = _Mender(damaged, good, ring, found, master_key)
            content, first_taken, end = mender.rebuild(finding, random)
            kept_as = None
            if damaged.exists(finding.path):
                kept_as = _keep(damaged, clock.now(), finding.path, "before-repair")
            write_file(damaged, finding.path, f"{finding.path}.tmp", content)
            done.append(
                RepairedSegment(
                    path=finding.path,
                    from_sequence=first_taken,
                    to_sequence=end,
                    kept_as=kept_as,
                )
            )
            found = survey(damaged, ring, cluster_uid=ours.cluster_uid)
        mark_kept_as = None
        last = found.findings[-1].scan if found.findings else None
        if found.mark_problem and last is not None:
            mark_kept_as = _keep(damaged, clock.now(), MARK_PATH, "before-repair")
            proved = unproved(last, found.proved_end)[0].point
            _write_mark(damaged, Mark(proved.sequence, proved.chain))
        end_point = None if last is None else last.end.point
        return RepairReport(
            segments=tuple(done),
            mark_kept_as=mark_kept_as,
            end_sequence=0 if end_point is None else end_point.sequence,
            end_offset=0 if end_point is None else end_point.offset,
        )


class _Mender:
    """Builds one segment out of two logs."""

    def __init__(
        self, damaged: Disk, good: Disk, ring: KeyRing, found: Survey, master_key: str | None
    ) -> None:
        self._master_key = master_key
        self._damaged = damaged
        self._good = good
        self._ring = ring
        self._found = found

    def rebuild(self, finding: Finding, random: Random) -> tuple[bytes, int, int]:
        """The new file, the first frame from the good copy, and the segment's new end."""
        lost = not self._damaged.exists(finding.path)
        data = b"" if lost else read_all(self._damaged, finding.path)
        old, scan = finding.header, finding.scan
        if old is None or scan is None:
            template, own = self._template(finding), []
        else:
            template, own = old, list(self._own_frames(data, old, scan.end.byte_position))
        header, keys = self._ring.create(template, random)
        content, point = [encode_header(header)], header.point
        for frame in own:
            parts, point = _again(frame, point, header, keys)
            content += parts
        first_taken = point.sequence
        chains = {int(point.sequence): point.chain}
        for _, _, frame, before in walk(self._good, self._ring, first_taken, finding.next_sequence):
            if before != point:
                raise LogRefused(
                    f"the histories differ before frame {point.sequence} (offset {point.offset}): "
                    f"the good copy is not of the same log"
                )
            parts, point = _again(frame, point, header, keys)
            content += parts
            chains[int(point.sequence)] = point.chain
        own_end = HEADER_BYTES if scan is None else scan.end.byte_position
        self._check_end(finding, data, own_end, point, chains)
        return b"".join(content), first_taken, point.sequence

    def _own_frames(self, data: bytes, header: SegmentHeader, end: int) -> Iterator[Frame]:
        """The good frames of the damaged segment, up to a byte position."""
        keys, point, position = self._ring.open(header), header.point, HEADER_BYTES
        while position < end:
            frame, point = recovery.read_frame(data, position, header, keys, point)
            yield frame
            position += frame.header.frame_bytes

    def _template(self, finding: Finding) -> SegmentHeader:
        """A header for a segment whose own one is lost.

        The point comes from the segment before, or for the first segment from the good copy;
        all else from any segment that has a header.
        """
        first = finding.first_sequence
        point = None
        for one in self._found.findings:
            if one.next_sequence == first and one.scan is not None:
                point = one.scan.end.point
        if point is None:
            found = next(walk(self._good, self._ring, first, first + 1), None)
            if found is None:
                raise self._too_short(finding, first)
            point = found[3]
        headers = [one.header for one in self._found.findings if one.header is not None]
        if not headers:
            path = segment_paths(self._good)[-1][1]
            header = decode_header(read_all(self._good, path)[:HEADER_BYTES])
            key = header.master_key if self._master_key is None else self._master_key
            headers = [msgspec.structs.replace(header, master_key=key)]
        return msgspec.structs.replace(headers[0], point=point)

    def _check_end(
        self,
        finding: Finding,
        data: bytes,
        own_end: int,
        point: Point,
        chains: dict[int, bytes],
    ) -> None:
        """What the damaged log still knows of later frames must agree with what was taken."""
        wanted = finding.next_sequence
        if wanted is None:
            wanted = self._found.proved_end
        if point.sequence < wanted:
            raise self._too_short(finding, point.sequence)
        known = []
        if finding.header is not None:
            later = recovery.later_headers(data, own_end, finding.header)
            known = [(int(one.sequence), one.chain) for one in later]
        for one in self._found.findings:
            if one.header is not None and one.first_sequence == finding.next_sequence:
                known.append((one.first_sequence, one.header.point.chain))
        if self._found.mark is not None:
            known.append((int(self._found.mark.durable_end), self._found.mark.chain))
        for sequence, chain in known:
            if chains.get(sequence, chain) != chain:
                raise LogRefused(
                    f"the good copy has another history before frame {sequence}, which the "
                    f"damaged log still proves"
                )

    def _too_short(self, finding: Finding, sequence: int) -> LogRefused:
        wanted = finding.next_sequence or self._found.proved_end
        return LogRefused(
            f"the good copy does not have frame {sequence}; frames below {wanted} are needed "
            f"for {finding.path}"
        )


def _again(
    frame: Frame, point: Point, header: SegmentHeader, keys: frames.Keys
) -> tuple[list[bytes], Point]:
    """A good frame's bytes for another segment of the same history, and the point after it."""
    place = frames.place_of(frame.header, salt=header.salt)
    compress = bool(frame.header.flags & FrameFlag.LZ4)
    parts, _, chain = frames.encode(frames.draft_of(frame), place, keys, compress=compress)
    state = point.state_chain
    if frame.header.kind == FrameKind.OUTCOMES:
        state = state_chain(state, frame.payload)
    return parts, advance(point, frame.header, chain, state)


def truncate(
    disk: Disk,
    after_sequence: int,
    *,
    clock: Clock,
    secrets: Secrets,
    keep_broken: bool = True,
) -> TruncateReport:
    """End the log behind frame `after_sequence` (-1: before the first one of all).

    Everything later is lost for good, acknowledged or not; the report says what.  Raises
    `LogRefused`, with nothing changed, when the frames up to there are not good.
    """
    ring = KeyRing(secrets)
    with _locked(disk):
        end = after_sequence + 1
        path, cut, point = _stand_at(disk, ring, end)
        affected = [path] + [one for _, one in segment_paths(disk) if one > path]
        loss = _Loss(end)
        loss.count(disk, ring)
        mark, mark_problem = read_mark(disk)
        kept = []
        if keep_broken:
            kept = [_keep(disk, clock.now(), one, "before-truncate") for one in affected]
        if mark_problem or (mark is not None and mark.durable_end > end):
            if keep_broken:
                kept.append(_keep(disk, clock.now(), MARK_PATH, "before-truncate"))
            _write_mark(disk, Mark(point.sequence, point.chain))
        # From the highest on: what is left in between is a longer log, never one with a gap.
        for one in reversed(affected[1:]):
            disk.remove(one)
            disk.sync_directory(LOG_DIRECTORY)
        file = disk.open(path, write=True)
        try:
            file.truncate(cut)
            file.sync()
        finally:
            file.close()
        return loss.report(point, tuple(kept))


def foresee(disk: Disk, after_sequence: int, *, secrets: Secrets) -> TruncateReport:
    """What `truncate` would take away.  Changes nothing; raises as it does."""
    ring = KeyRing(secrets)
    with _locked(disk):
        _, _, point = _stand_at(disk, ring, after_sequence + 1)
        loss = _Loss(after_sequence + 1)
        loss.count(disk, ring)
        return loss.report(point, ())


def _stand_at(disk: Disk, ring: KeyRing, sequence: int) -> tuple[str, int, Point]:
    """Segment, byte position and point before the frame `sequence`, which must be reached."""
    paths = segment_paths(disk)
    holding = [path for first, path in paths if first < sequence] or [
        path for first, path in paths if first == sequence
    ]
    if not holding:
        raise LogRefused(f"the log has nothing to keep up to frame {sequence - 1}")
    path = holding[-1]
    data = read_all(disk, path)
    try:
        header = decode_header(data[:HEADER_BYTES])
    except SegmentDamaged as error:
        raise LogRefused(f"{path}: {error}; name an earlier frame") from None
    keys = ring.open(header)
    found = recovery.scan(data, header, keys, stop=sequence)
    if found.end.point.sequence != sequence:
        raise LogRefused(
            f"{path}: the log is good up to frame {found.end.point.sequence - 1} only "
            f"({found.reason}); name that one or an earlier one"
        )
    return path, found.end.byte_position, found.end.point


class _Loss:
    """Counts what lies behind a frame sequence."""

    def __init__(self, end: int) -> None:
        self._end = end
        self.frames = 0
        self.commands = 0
        self.outcomes = 0
        self.unreadable_bytes = 0
        self.last_sequence: int | None = None

    def count(self, disk: Disk, ring: KeyRing) -> None:
        paths = segment_paths(disk)
        for number, (_, path) in enumerate(paths):
            stop = paths[number + 1][0] if number + 1 < len(paths) else None
            if stop is None or stop > self._end:
                self._segment(read_all(disk, path), ring, stop)

    def _segment(self, data: bytes, ring: KeyRing, stop: int | None) -> None:
        try:
            header = decode_header(data[:HEADER_BYTES])
        except SegmentDamaged:
            self.unreadable_bytes += recovery.used_end(data)
            return
        found = recovery.scan(
            data, header, ring.open(header), stop=stop, visit=lambda frame, _: self._frame(frame)
        )
        if stop is not None and found.end.point.sequence == stop:
            return
        position = found.end.byte_position
        self.unreadable_bytes += max(0, recovery.used_end(data) - position)
        for later in recovery.later_headers(data, position, header):
            self._saw(later.sequence)

    def _frame(self, frame: Frame) -> None:
        if frame.header.sequence < self._end:
            return
        self.frames += 1
        if frame.header.kind == FrameKind.COMMANDS:
            self.commands += frame.header.count
        else:
            self.outcomes += frame.header.count
        self._saw(frame.header.sequence)

    def report(self, point: Point, kept: tuple[str, ...]) -> TruncateReport:
        return TruncateReport(
            end_sequence=point.sequence,
            end_offset=point.offset,
            lost_frames=self.frames,
            lost_commands=self.commands,
            lost_outcomes=self.outcomes,
            unreadable_bytes=self.unreadable_bytes,
            last_sequence_seen=self.last_sequence,
            kept=kept,
        )

    def _saw(self, sequence: int) -> None:
        if sequence >= self._end:
            self.last_sequence = max(sequence, self.last_sequence or 0)


@contextlib.contextmanager
def _locked(disk: Disk) -> Iterator[None]:
    try:
        lock = disk.lock(LOCK_FILE)
    except BlockingIOError:
        raise LogInUse(LOCK_FILE) from None
    try:
        yield
    finally:
        lock.release()


def _identity(disk: Disk) -> LogIdentity:
    try:
        return decode_identity(read_all(disk, IDENTITY_PATH))
    except (FileNotFoundError, IdentityDamaged) as error:
        raise LogDamaged(
            f"it cannot be read ({error})",
            file=IDENTITY_PATH,
            byte_position=0,
            sequence=0,
            offset=0,
            advice="Nothing was changed. Restore the file from a backup of this directory.",
        ) from None


def _keep(disk: Disk, now: Instant, path: str, why: str) -> str:
    """Copy a file to broken/, durably, under a name that is free."""
    disk.make_directory(BROKEN_DIRECTORY)
    disk.sync_directory("")
    stem = f"{BROKEN_DIRECTORY}/{path.rpartition('/')[2]}-{why}-{now}"
    return keep_aside(disk, stem, read_all(disk, path))


def _write_mark(disk: Disk, mark: Mark) -> None:
    write_file(disk, MARK_PATH, MARK_TEMPORARY, encode_mark(mark))
