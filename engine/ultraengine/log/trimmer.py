"""Takes the old end of an open log away, as `retention` has planned it.

Archive first, then remove, from the lowest segment on and one by one, so that a crash at any
point leaves a log without a gap.  How old a segment is counts in logged time: a wall clock that
was set years ahead by mistake must not empty an archive.  Uses the Disk port and blocks; one
caller at a time.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence

from ultraengine.log.archive import Archive, ArchiveFailed
from ultraengine.log.catalog import Catalog
from ultraengine.log.damage import LogError
from ultraengine.log.first import write_first
from ultraengine.log.reader import LogReader
from ultraengine.log.retention import RetentionReport, SegmentSpan, alarms_of, plan
from ultraengine.log.segment import LOG_DIRECTORY
from ultraengine.model.ids import Instant
from ultraengine.model.limits import Limits
from ultraengine.ports import Disk


class Trimmer:
    """Retention of one log."""

    def __init__(
        self,
        disk: Disk,
        logged_time: Callable[[], Instant],
        limits: Limits,
        catalog: Catalog,
        reader: LogReader,
    ) -> None:
        self._disk = disk
        self._logged_time = logged_time
        self._bytes_max = limits.retention_bytes_max
        self._catalog = catalog
        self._reader = reader
        self.archive: Archive | None = None
        """Where removed segments go; None = nowhere."""

    def trim(
        self, snapshot_offset: int, snapshot_sequence: int, consumers: Mapping[str, int]
    ) -> RetentionReport:
        """Archive and remove what nobody needs.  Raises OSError of the disk."""
        sealed, current_bytes = self._spans()
        planned = plan(
            sealed,
            current_bytes=current_bytes,
            snapshot_sequence=snapshot_sequence,
            snapshot_offset=snapshot_offset,
            consumers=consumers,
            bytes_max=self._bytes_max,
        )
        alarms = alarms_of(planned, self._bytes_max)
        remove = planned.remove
        archived: list[str] = []
        pruned: list[str] = []
        if self.archive is not None:
            try:
                archived, pruned = self.archive.keep(remove, self._reader, self._logged_time())
            except (ArchiveFailed, LogError) as error:
                alarms += (f"segments stay in the log, archiving them failed: {error}",)
                remove = ()
        self._remove(remove)
        first = self._catalog.segments[0].header.point
        return RetentionReport(
            removed=tuple(span.path for span in remove),
            archived=tuple(archived),
            pruned=tuple(pruned),
            dropped=planned.dropped,
            limited_by=planned.limited_by,
            first_sequence=first.sequence,
            first_offset=first.offset,
            log_bytes=current_bytes + sum(one.file_bytes for one in sealed[len(remove) :]),
            alarms=alarms,
        )

    def _spans(self) -> tuple[list[SegmentSpan], int]:
        """The sealed segments, and the length of the one being written."""
        segments = self._catalog.segments
        spans = []
        for segment, following in itertools.pairwise(segments):
            here, there = segment.header.point, following.header.point
            spans.append(
                SegmentSpan(
                    segment.path,
                    here.sequence,
                    there.sequence,
                    here.offset,
                    there.offset,
                    self._file_bytes(segment.path),
                    following.header.created,
                )
            )
        return spans, self._file_bytes(segments[-1].path)

    def _file_bytes(self, path: str) -> int:
        file = self._disk.open(path)
        try:
            return file.size()
        finally:
            file.close()

    def _remove(self, spans: Sequence[SegmentSpan]) -> None:
        if spans:
            write_first(self._disk, spans[-1].end_sequence)
        self._catalog.drop({span.path for span in spans})
        for span in spans:
            self._disk.remove(span.path)
            # One by one: a crash may keep any of the removals that were not synced.
            self._disk.sync_directory(LOG_DIRECTORY)
