"""Reads a log directory and judges it, changing nothing (`FORMAT.md`).

The start of a process, and the tools for people, act on the same `Survey`.  Uses the Disk
port alone.  Memory: one segment at a time.
"""

import contextlib
from collections.abc import Iterator
from typing import Final

import msgspec

from ultraengine.log import recovery
from ultraengine.log.damage import LogDamaged, LogRefused
from ultraengine.log.first import FIRST_PATH, FirstDamaged, decode_first
from ultraengine.log.frame import (
    PAYLOAD_BYTES_MAX,
    Frame,
    FrameDamaged,
    FrameKind,
    frame_bytes_at_most,
)
from ultraengine.log.index import SegmentIndex
from ultraengine.log.mark import MARK_PATH, Mark, MarkDamaged, decode_mark
from ultraengine.log.recovery import Scan, Stand, Verdict
from ultraengine.log.segment import (
    GENESIS,
    HEADER_BYTES,
    LOG_DIRECTORY,
    KeyRing,
    Point,
    SegmentDamaged,
    SegmentHeader,
    decode_header,
    first_sequence_of,
    path_of,
    segment_name,
)
from ultraengine.ports import Disk, File

LOST_FIRST: Final = (
    "Nothing was changed. Repair it from a good copy with 'ultra log repair', or, where snapshots "
    "and consumers no longer need these frames, remove log/FIRST to go on without them."
)
TAIL_BYTES: Final = 64 * 1024
"""Of a segment that is passed over, read first to find its last frame."""
FRAME_BYTES_MAX: Final = frame_bytes_at_most(PAYLOAD_BYTES_MAX)
OVERTAKEN_MAX: Final = 3
"""How often a survey beside a running process begins again because a segment was removed under
it."""


class Finding(msgspec.Struct, kw_only=True):
    """One segment as it was found."""

    path: str
    first_sequence: int
    """From the name."""
    next_sequence: int | None
    """First sequence of the next segment; None for the last one."""
    file_bytes: int = 0
    header: SegmentHeader | None = None
    """None when it is damaged."""
    index: SegmentIndex | None = None
    scan: Scan | None = None
    """None when the header is damaged, or when the segment was not asked for and its end shows that
    it leads to the next one."""
    verdict: Verdict | None = None
    used_end: int = 0
    """Byte position behind the last byte that is not zero, of a scanned segment."""
    damage: LogDamaged | None = None


class Survey(msgspec.Struct, kw_only=True):
    """A whole log as it was found.  It may be used when `damage` is None."""

    findings: list[Finding]
    mark: Mark | None
    mark_problem: str
    """Why MARK cannot be read; empty when it can, or when there is none."""
    first: int | None
    """What FIRST says; None when it is not there or cannot be read."""
    first_problem: str
    """Why FIRST cannot be read; empty when it can, or when there is none."""
    proved_end: int
    """Every frame with a lower sequence was durable once."""
    damage: LogDamaged | None
    """The first damage."""


def read_all(disk: Disk, path: str) -> bytes:
    """The whole content of a file.  Raises FileNotFoundError."""
    file = disk.open(path)
    try:
        return file.pread(file.size(), 0)
    finally:
        file.close()


def read_mark(disk: Disk) -> tuple[Mark | None, str]:
    """MARK, or why it cannot be read (empty when there is none)."""
    try:
        return decode_mark(read_all(disk, MARK_PATH)), ""
    except FileNotFoundError:
        return None, ""
    except MarkDamaged as error:
        return None, str(error)


def read_first(disk: Disk) -> tuple[int | None, str]:
    """FIRST, or why it cannot be read (empty when there is none)."""
    try:
        return decode_first(read_all(disk, FIRST_PATH)), ""
    except FileNotFoundError:
        return None, ""
    except FirstDamaged as error:
        return None, str(error)


def segment_paths(disk: Disk) -> list[tuple[int, str]]:
    """First sequence and path of each segment, ascending."""
    named = ((first_sequence_of(name), path_of(name)) for name in disk.list(LOG_DIRECTORY))
    return sorted((first, path) for first, path in named if first is not None)


def survey(
    disk: Disk,
    ring: KeyRing,
    *,
    verify_from: int = 0,
    cluster_uid: bytes | None = None,
) -> Survey:
    """Judge the log of `disk`.

    All segment headers are checked, and all frames from the segment that holds frame
    `verify_from` on (or the durable end that MARK names, if that is lower); the last segment is
    always scanned.  Of older ones the last frame is: it must lead to the point that the next
    header names, or the whole segment is scanned too.
    Raises `LogRefused` for missing keys, newer formats and logs of another cluster.
    """
    return _Surveyor(disk, ring, verify_from, cluster_uid).run()


def survey_beside(
    disk: Disk, ring: KeyRing, *, verify_from: int = 0, cluster_uid: bytes | None = None
) -> Survey:
    """A survey, also of a log whose process removes old segments meanwhile."""
    for _ in range(OVERTAKEN_MAX):
        try:
            return survey(disk, ring, verify_from=verify_from, cluster_uid=cluster_uid)
        except FileNotFoundError:
            continue
    return survey(disk, ring, verify_from=verify_from, cluster_uid=cluster_uid)


class _Surveyor:
    """Goes through the segments in order and remembers where the log stands."""

    def __init__(
        self,
        disk: Disk,
        ring: KeyRing,
        verify_from: int,
        cluster_uid: bytes | None,
    ) -> None:
        self._disk = disk
        self._ring = ring
        self._cluster_uid = cluster_uid
        self._mark, self._mark_problem = read_mark(disk)
        # What MARK says of the history is compared where MARK stands.
        marked = verify_from if self._mark is None else int(self._mark.durable_end)
        self._verify_from = 0 if self._mark_problem else min(verify_from, marked)
        self._mark_chain_differs = False
        self._proved_end = 0 if self._mark is None else int(self._mark.durable_end)
        self._point: Point | None = None
        """Where the segments so far end; None when that is not known."""

    def run(self) -> Survey:
        paths = segment_paths(self._disk)
        # After the names: where a process removes segments meanwhile, FIRST is ahead of them.
        first, first_problem = read_first(self._disk)
        damage = None
        findings = []
        if paths:
            self._proved_end = max(self._proved_end, paths[-1][0])
            if first is not None and paths[0][0] > first:
                findings.append(self._missing(first, paths[0][0]))
                damage = findings[0].damage
        elif self._proved_end > 0:
            damage = LogDamaged(
                "there is no segment, but MARK proves frames",
                file=LOG_DIRECTORY,
                byte_position=0,
                sequence=0,
                offset=0,
                proved_end=self._proved_end,
            )
        for number, (sequence, path) in enumerate(paths):
            following, after = paths[number + 1] if number + 1 < len(paths) else (None, "")
            finding = Finding(path=path, first_sequence=sequence, next_sequence=following)
            self._examine(finding, after)
            findings.append(finding)
            if damage is None:
                damage = finding.damage
        return Survey(
            findings=findings,
            mark=self._mark,
            mark_problem=self._mark_problem,
            first=first,
            first_problem=first_problem,
            proved_end=self._proved_end,
            damage=damage,
        )

    def _missing(self, first: int, following: int) -> Finding:
        """The segment that should be the first one."""
        finding = Finding(
            path=path_of(segment_name(first)), first_sequence=first, next_sequence=following
        )
        finding.damage = LogDamaged(
            f"FIRST says that the log begins there, but the first segment begins at {following}",
            file=finding.path,
            byte_position=0,
            sequence=first,
            offset=0,
            proved_end=self._proved_end,
            advice=LOST_FIRST,
        )
        return finding

    def _examine(self, finding: Finding, after: str) -> None:
        following = finding.next_sequence
        with contextlib.closing(self._disk.open(finding.path)) as file:
            finding.file_bytes = file.size()
            skippable = following is not None and following <= self._verify_from
            if skippable and self._pass_over(finding, file, after):
                return
            data = file.pread(finding.file_bytes, 0)
        try:
            header = decode_header(data[:HEADER_BYTES])
            self._check_header(header, finding)
        except SegmentDamaged as error:
            offset = 0 if self._point is None else self._point.offset
            finding.damage = self._damage(finding, str(error), 0, finding.first_sequence, offset)
            self._point = None
            return
        finding.header = header
        finding.index = SegmentIndex(header.point)
        self._scan(finding, header, finding.index, data)

    def _pass_over(self, finding: Finding, file: File, after: str) -> bool:
        """Take a segment as read if its header is good and its end leads to the next segment."""
        try:
            header = decode_header(file.pread(HEADER_BYTES, 0))
            self._check_header(header, finding)
            with contextlib.closing(self._disk.open(after)) as other:
                following = decode_header(other.pread(HEADER_BYTES, 0)).point
        except SegmentDamaged:
            return False  # The scan finds it again, and says where.
        keys = self._ring.open(header)
        length = TAIL_BYTES
        while True:
            position = max(HEADER_BYTES, finding.file_bytes - length)
            tail = file.pread(max(0, finding.file_bytes - position), position)
            if recovery.leads_to(tail, position, header, keys, following):
                break
            if position == HEADER_BYTES or length >= FRAME_BYTES_MAX:
                return False
            length *= 8
        finding.header = header
        finding.index = SegmentIndex(header.point)
        self._point = following
        self._compare_mark(following.sequence, following.chain)
        return True

    def _check_header(self, header: SegmentHeader, finding: Finding) -> None:
        if self._cluster_uid is not None and header.cluster_uid != self._cluster_uid:
            raise LogRefused(
                f"{finding.path} belongs to cluster {header.cluster_uid.hex()}, but the "
                f"directory's IDENTITY names {self._cluster_uid.hex()}"
            )
        if header.archive or header.first_sequence != finding.first_sequence:
            raise SegmentDamaged(f"the header is that of segment {header.first_sequence}")
        expected = GENESIS if finding.first_sequence == 0 else self._point
        if expected is not None and header.point != expected:
            raise SegmentDamaged(
                f"the segments before end at frame {expected.sequence} with another history "
                f"than this header names"
            )

    def _scan(
        self, finding: Finding, header: SegmentHeader, index: SegmentIndex, data: bytes
    ) -> None:
        next_offset = header.point.offset

        def note(frame: Frame, position: int) -> None:
            nonlocal next_offset
            found = frame.header
            index.note(found.sequence, next_offset, position, found.frame_bytes)
            if found.kind == FrameKind.COMMANDS:
                next_offset = found.offset_end
            self._compare_mark(found.sequence, found.chain)

        following = finding.next_sequence
        keys = self._ring.open(header)
        found = recovery.scan(
            data, header, keys, floor=self._proved_end, stop=following, visit=note
        )
        end = found.end
        finding.scan = found
        finding.used_end = recovery.used_end(data)
        self._point = end.point
        self._compare_mark(end.point.sequence, end.point.chain)
        continued = following == end.point.sequence
        if not continued:
            later = recovery.later_proof(data, end.byte_position, header)
            self._proved_end = max(found.proved_end, later)
        finding.verdict = recovery.decide(
            next_segment_starts_here=continued,
            below_proved_end=end.point.sequence < self._proved_end,
            rest_is_zero=finding.used_end <= end.byte_position,
            mark_lost=bool(self._mark_problem) or self._mark_chain_differs,
        )
        if finding.verdict is Verdict.DAMAGE or self._mark_chain_differs:
            self._report(finding, end, found.reason)

    def _compare_mark(self, sequence: int, chain: bytes) -> None:
        mark = self._mark
        if mark is not None and mark.durable_end == sequence and mark.chain != chain:
            self._mark_chain_differs = True

    def _report(self, finding: Finding, end: Stand, reason: str) -> None:
        if self._mark_chain_differs:
            reason = "MARK was written for another history: its chain differs"
        elif self._mark_problem:
            reason += f"; MARK cannot be read ({self._mark_problem}), so this may be acknowledged"
        point = end.point
        finding.damage = self._damage(
            finding, reason, end.byte_position, point.sequence, point.offset
        )
        self._point = None

    def _damage(
        self, finding: Finding, reason: str, position: int, sequence: int, offset: int
    ) -> LogDamaged:
        return LogDamaged(
            reason,
            file=finding.path,
            byte_position=position,
            sequence=sequence,
            offset=offset,
            proved_end=self._proved_end,
        )


def unproved(scan: Scan, proved_end: int) -> tuple[Stand, ...]:
    """The stands of `scan` from the proved end on; the last one is its end.

    `proved_end` may be higher than the scan alone could see, but not beyond the scan's end.
    """
    stands = scan.unproved
    keep = [number for number, stand in enumerate(stands) if stand.point.sequence <= proved_end]
    return stands[keep[-1] :] if keep else stands


def walk(
    disk: Disk, ring: KeyRing, from_sequence: int = 0, to_sequence: int | None = None
) -> Iterator[tuple[str, int, Frame, Point]]:
    """Path, byte position, frame, and the point before it, of the good frames of a log.

    Ends at the first position that is not good; `survey` says what that means.  Raises
    `LogRefused` for missing keys and newer formats.
    """
    paths = segment_paths(disk)
    for number, (first, path) in enumerate(paths):
        stop = paths[number + 1][0] if number + 1 < len(paths) else None
        if stop is not None and stop <= from_sequence:
            continue
        if to_sequence is not None and first >= to_sequence:
            return
        data = read_all(disk, path)
        try:
            header = decode_header(data[:HEADER_BYTES])
        except SegmentDamaged:
            return
        keys = ring.open(header)
        point, position = header.point, HEADER_BYTES
        while (stop is None or point.sequence < stop) and (
            to_sequence is None or point.sequence < to_sequence
        ):
            try:
                frame, following = recovery.read_frame(data, position, header, keys, point)
            except FrameDamaged:
                return
            if point.sequence >= from_sequence:
                yield path, position, frame, point
            point, position = following, position + frame.header.frame_bytes
