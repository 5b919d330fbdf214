"""What a shard's replica gives to a copy that is filled, and how it proves what it was given.

The newest chain of verified snapshots, a manifest of that chain alone, and the history files as
far as they are written: a snapshot counts when the history below it is synced, and the new copy
cuts what is beyond it.
"""

import contextlib

from ultraengine.execution.history_files.driver import DIRECTORY as HISTORY
from ultraengine.execution.history_files.driver import segment_files
from ultraengine.log.survey import read_all
from ultraengine.ports import Disk
from ultraengine.replication.installing.stock import OpenPart, Taken, taken_in_time
from ultraengine.snapshot.codec import Codecs
from ultraengine.snapshot.errors import SnapshotDamaged, SnapshotRefused
from ultraengine.snapshot.files import ChainFile, opened
from ultraengine.snapshot.loader import KeyOf
from ultraengine.snapshot.manifest import Manifest, decode_manifest, encode_manifest, plan_load
from ultraengine.snapshot.store import DIRECTORY, MANIFEST


class ShardStock:
    """Implements `replication.installing.stock.Stock`."""

    def __init__(self, disk: Disk, codecs: Codecs, key_of: KeyOf) -> None:
        self._disk = disk
        self._codecs = codecs
        self._key_of = key_of

    def take(self) -> Taken | None:
        """See the Protocol."""
        return taken_in_time(self._take)

    def _take(self) -> Taken | None:
        manifest = self._manifest(f"{DIRECTORY}/{MANIFEST}")
        chain = None if manifest is None else plan_load(manifest.entries)
        if manifest is None or not chain:
            return None
        told = encode_manifest(Manifest(next_number=manifest.next_number, entries=chain))
        taken = Taken(chain[-1].sequence_end, [])
        with contextlib.ExitStack() as undo:
            undo.callback(taken.close)
            paths = [f"{DIRECTORY}/{one.file}" for one in chain]
            for path in (*paths, *segment_files(self._disk)):
                taken.parts.append(OpenPart.opened(self._disk, path))
            taken.parts.append(OpenPart.held(f"{DIRECTORY}/{MANIFEST}", told))
            undo.pop_all()
        return taken

    def _manifest(self, path: str) -> Manifest | None:
        try:
            return decode_manifest(read_all(self._disk, path), path)
        except (FileNotFoundError, SnapshotDamaged):
            return None

    def prove(self, beside: str, sequence_end: int) -> str:
        """See the Protocol: every section of every snapshot is read, with its checksums."""
        manifest = self._manifest(f"{DIRECTORY}/{MANIFEST}{beside}")
        chain = None if manifest is None else plan_load(manifest.entries)
        if not chain or chain[-1].sequence_end != sequence_end:
            return "there is no snapshot at the position that was offered"
        history_end = 0
        try:
            for entry in chain:
                file = ChainFile(path=f"{DIRECTORY}/{entry.file}{beside}", entry=entry)
                with opened(self._disk, file, self._codecs, self._key_of) as found:
                    history_end = found.header.position.history_end
                    for _ in found.sections():
                        pass
        except (SnapshotDamaged, SnapshotRefused, KeyError) as error:
            return f"{type(error).__name__}: {error}"
        there = any(name.endswith(beside) for name in self._disk.list(HISTORY))
        return "the history is missing" if history_end and not there else ""
