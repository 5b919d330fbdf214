"""A directory of this machine whose log hangs or has no room, as long as a test says so."""

import errno
import threading
from pathlib import Path

from ultraengine.ports import DiskFull, File
from ultraengine_adapters.local.disk import LocalDisk


class TroubledFile:
    """A file of the log."""

    def __init__(self, file: File, disk: "TroubledDisk") -> None:
        self._file = file
        self._disk = disk

    def pread(self, length: int, position: int) -> bytes:
        return self._file.pread(length, position)

    def pwrite(self, data: bytes | memoryview, position: int) -> None:
        if self._disk.full:
            self._disk.refused += 1
            raise DiskFull(errno.ENOSPC, "no room")
        if not self._disk.writes.is_set():
            self._disk.held += 1
            self._disk.writes.wait()
        self._file.pwrite(data, position)

    def sync(self) -> None:
        self._disk.flows.wait()
        self._file.sync()

    def size(self) -> int:
        return self._file.size()

    def truncate(self, length: int) -> None:
        self._file.truncate(length)

    def close(self) -> None:
        self._file.close()


class TroubledDisk(LocalDisk):
    """Syncs wait for `flows`, writes for `writes`, and are refused while it is `full`, but for what
    it swears."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.full = False
        self.refused = 0
        self.held = 0
        """Writes that have waited."""
        self.flows, self.writes = threading.Event(), threading.Event()
        self.flows.set()
        self.writes.set()

    def open(self, path: str, *, create: bool = False, write: bool = False) -> File:
        file = super().open(path, create=create, write=write)
        return TroubledFile(file, self) if write and not path.startswith("REPLICA") else file
