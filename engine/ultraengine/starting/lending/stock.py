"""The files with which another build can decide a shard's log again.

The whole log, the oldest full snapshot that it leads on from, and the history below that; without
a snapshot and without history where the log begins at the beginning. Of the segment that is being
written, as much as is good now: what is written later is not seen in parts.
"""

import contextlib

from ultraengine.execution.history_files.driver import segment_files
from ultraengine.log.identity import IDENTITY_PATH
from ultraengine.log.recovery import good_part
from ultraengine.log.segment import HEADER_BYTES, KeyRing, SegmentDamaged, decode_header
from ultraengine.log.survey import read_all, segment_paths
from ultraengine.ports import Disk, Secrets
from ultraengine.replication.installing.stock import OpenPart, Taken, taken_in_time
from ultraengine.snapshot.errors import SnapshotDamaged
from ultraengine.snapshot.manifest import (
    Manifest,
    decode_manifest,
    encode_manifest,
    oldest_full,
)
from ultraengine.snapshot.store import DIRECTORY as SNAPSHOTS
from ultraengine.snapshot.store import MANIFEST


class LentFiles:
    """Implements `replication.installing.stock.Stock`; the proof is the candidate's."""

    def __init__(self, disk: Disk, secrets: Secrets) -> None:
        self._disk = disk
        self._ring = KeyRing(secrets)

    def take(self) -> Taken:
        """See the Protocol. Raises OSError, `LogRefused` without a key."""
        return taken_in_time(self._take)

    def prove(self, beside: str, sequence_end: int) -> str:
        """Nothing is received here."""
        return f"nothing is received here: {beside}, {sequence_end}"

    def _take(self) -> Taken:
        names = [path for _, path in segment_paths(self._disk)]
        if not names:
            raise FileNotFoundError("there is no log")
        taken = Taken(0, [OpenPart.held(IDENTITY_PATH, read_all(self._disk, IDENTITY_PATH))])
        with contextlib.ExitStack() as undo:
            undo.callback(taken.close)
            for path in names[:-1]:
                taken.parts.append(OpenPart.opened(self._disk, path))
            taken.parts.append(self._tail(names[-1]))
            oldest = taken.parts[1].read(0, HEADER_BYTES)
            if decode_header(oldest).point.sequence:
                self._add_state(taken.parts)
            undo.pop_all()
        return taken

    def _add_state(self, parts: list[OpenPart]) -> None:
        path = f"{SNAPSHOTS}/{MANIFEST}"
        try:
            manifest = decode_manifest(read_all(self._disk, path), path)
        except SnapshotDamaged as error:
            raise OSError(str(error)) from error
        entry = oldest_full(manifest.entries)
        if entry is None:
            raise FileNotFoundError(
                "the log does not begin at the beginning, and no snapshot is whole"
            )
        parts.append(OpenPart.opened(self._disk, f"{SNAPSHOTS}/{entry.file}"))
        for name in segment_files(self._disk):
            parts.append(OpenPart.opened(self._disk, name))  # noqa: PERF401  (closed on failure)
        told = Manifest(next_number=manifest.next_number, entries=(entry,))
        parts.append(OpenPart.held(path, encode_manifest(told)))

    def _tail(self, path: str) -> OpenPart:
        data = read_all(self._disk, path)
        try:
            header = decode_header(data[:HEADER_BYTES])
        except SegmentDamaged as error:
            raise OSError(f"{path}: {error}") from error
        end, _ = good_part(data, header, self._ring.open(header))
        return OpenPart.held(path, data[:end])
