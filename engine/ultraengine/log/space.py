"""Room ahead of the log: zero-filled segments and the reserve (`FORMAT.md`).

A segment is filled with zeros and synced before its first use, so that appends overwrite
allocated blocks and `fdatasync` journals no metadata.  The reserve is a file of zeros that is
given back to the file system when a stop needs room on a full disk.

`Space` uses the Disk port alone; who calls it, and from which thread, is the driver's matter.
"""

import contextlib
import errno
from collections.abc import Callable
from typing import Final

import msgspec

from ultraengine.log.segment import (
    LOG_DIRECTORY,
    is_prepared_name,
    path_of,
    prepared_name,
)
from ultraengine.model.limits import Limits
from ultraengine.ports import Disk, DiskFull, File

RESERVE_PATH: Final = "RESERVE"
_CHUNK: Final = bytes(1024 * 1024)
"""Written and synced at once: bounds how long another file's flush can stand behind the zeros."""
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class Prepared(msgspec.Struct, frozen=True):
    """A zero-filled, synced file that is not in use yet."""

    path: str
    file_bytes: int


def _no_pause() -> None:
    """Nothing to wait for between two chunks."""


class Space:
    """Keeps the reserve and `segments_prepared` segments ready.  Not thread-safe."""

    def __init__(
        self, disk: Disk, limits: Limits, *, between_chunks: Callable[[], None] = _no_pause
    ) -> None:
        self._disk = disk
        self._limits = limits
        self._between_chunks = between_chunks
        self._number = 0
        self.ready: list[Prepared] = []
        self.full = False
        """Whether the last attempt to get room failed for lack of it."""
        self._stopping = False
        self.reserve_held = self._reserve_is_whole()

    def remove_leftovers(self) -> None:
        """Remove prepared segments of an earlier process: nothing proves that they are zero."""
        for name in self._disk.list(LOG_DIRECTORY):
            if is_prepared_name(name):
                self._disk.remove(path_of(name))

    @property
    def segment_bytes(self) -> int:
        """Length of a segment that nothing makes longer."""
        return self._limits.segment_bytes

    @property
    def missing(self) -> bool:
        """Whether `step` has work to do."""
        return not self._stopping and (
            self.reserve_missing or len(self.ready) < self._limits.segments_prepared
        )

    @property
    def reserve_missing(self) -> bool:
        """Whether a stop could lack room."""
        return not self.reserve_held and self._limits.reserve_bytes > 0

    def step(self) -> bool:
        """Make one of the things that are missing.

        False when there is no room for it; then `full` is set.
        """
        try:
            if self.reserve_missing:
                self._fill(RESERVE_PATH, self._limits.reserve_bytes)
                self.reserve_held = True
            else:
                self.ready.append(self.prepare(self._limits.segment_bytes))
        except DiskFull:
            self.full = True
            return False
        return True

    def prepare(self, file_bytes: int) -> Prepared:
        """Make a zero-filled segment of at least `file_bytes`.  Raises `DiskFull`."""
        path = path_of(prepared_name(self._number))
        self._number += 1
        self._fill(path, file_bytes)
        return Prepared(path, file_bytes)

    def take_ready(self, file_bytes: int) -> Prepared | None:
        """A segment of at least `file_bytes` that is ready, if there is one.

        May be called by another thread than the one in ``step``, which only appends.
        """
        for number, prepared in enumerate(self.ready):
            if prepared.file_bytes >= file_bytes:
                return self.ready.pop(number)
        return None

    def take(self, file_bytes: int) -> Prepared:
        """A segment of at least `file_bytes`, made now: none is ready.  Raises `DiskFull`."""
        try:
            return self.prepare(file_bytes)
        except DiskFull:
            self.full = True
            raise

    def stop(self) -> None:
        """Give the reserve and what is ready back to the file system: a stop needs the room."""
        self._stopping = True
        self.full = False
        self._remove_reserve()
        self.discard()

    def borrow_reserve(self) -> None:
        """Give the reserve back until there is room to make it again."""
        self.full = True
        self._remove_reserve()

    def discard(self) -> None:
        """Remove what is ready or was begun: a stopped log keeps no segment ahead."""
        self.ready.clear()
        self.remove_leftovers()

    def _remove_reserve(self) -> None:
        self.reserve_held = False
        with contextlib.suppress(FileNotFoundError):
            self._disk.remove(RESERVE_PATH)
            self._disk.sync_directory("")

    def _reserve_is_whole(self) -> bool:
        try:
            file = self._disk.open(RESERVE_PATH)
        except FileNotFoundError:
            return False
        try:
            return file.size() == self._limits.reserve_bytes
        finally:
            file.close()

    def _fill(self, path: str, file_bytes: int) -> None:
        """Write a file of zeros and sync it; on `DiskFull` nothing of it is left."""
        try:
            file = self._disk.open(path, create=True, write=True)
            try:
                self._write_zeros(file, file_bytes)
            finally:
                file.close()
        except DiskFull:
            with contextlib.suppress(FileNotFoundError):
                self._disk.remove(path)
            raise

    def _write_zeros(self, file: File, file_bytes: int) -> None:
        file.truncate(0)
        position = 0
        while position < file_bytes:
            length = min(len(_CHUNK), file_bytes - position)
            file.pwrite(memoryview(_CHUNK)[:length], position)
            position += length
            sync_fresh(file)
            self._between_chunks()


def sync_fresh(file: File) -> None:
    """Sync a file that nothing depends on yet.

    Delayed allocation may report a full disk only here; the file is then thrown away, so
    that is `DiskFull`.  Every other error stays what it is.
    """
    try:
        file.sync()
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise DiskFull(error.errno, error.strerror) from error
        raise


def write_file(disk: Disk, path: str, temporary: str, content: bytes) -> None:
    """Replace a small file atomically and durably.  Raises `DiskFull`, with the old one kept."""
    try:
        file = disk.open(temporary, create=True, write=True)
        try:
            file.truncate(0)
            file.pwrite(content, 0)
            sync_fresh(file)
        finally:
            file.close()
        disk.rename(temporary, path)
    except DiskFull:
        with contextlib.suppress(FileNotFoundError):
            disk.remove(temporary)
        raise
    directory, _, _ = path.rpartition("/")
    disk.sync_directory(directory)


def keep_aside(disk: Disk, stem: str, content: bytes) -> str:
    """Write a new file durably under a name that is free: `stem`, or one with a number.

    Returns the name.  Raises `DiskFull` with nothing written.
    """
    name, number = f"{stem}.bin", 1
    while disk.exists(name):
        name, number = f"{stem}-{number}.bin", number + 1
    write_file(disk, name, f"{name}.tmp", content)
    return name
