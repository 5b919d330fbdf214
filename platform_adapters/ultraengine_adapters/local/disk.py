"""The Disk port on a local directory (requirement 001 §2.1; 002 D-T.8).

Every call is one system call, or a loop of the same one over what the kernel left undone.
Nothing is cached and nothing is retried after an error: what an error means is decided by
the log.  Descriptors are close-on-exec; a forked child shares them.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from ultraengine.ports import File, Lock
from ultraengine_adapters.local.paths import (
    directory_inside,
    full_disk_is_named,
    inside,
    make_durable_root,
    sync_directory,
)

_CLOSED = -1


class LocalFile:
    """An open file.  Reads and writes at different positions may run in different threads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def pread(self, length: int, position: int) -> bytes:
        """Up to `length` bytes from `position`; fewer only at the end of the file."""
        first = os.pread(self._descriptor, length, position)
        if len(first) == length or not first:
            return first
        parts, got = [first], len(first)
        while got < length:
            part = os.pread(self._descriptor, length - got, position + got)
            if not part:
                break
            parts.append(part)
            got += len(part)
        return b"".join(parts)

    def pwrite(self, data: bytes | memoryview, position: int) -> None:
        """Write all of `data`.  Raises `DiskFull` or OSError; then a part may be written."""
        with full_disk_is_named():
            rest = memoryview(data).cast("B")
            while rest:
                written = os.pwrite(self._descriptor, rest, position)
                if written == 0:  # POSIX allows it; without this the loop would never end.
                    raise OSError(errno.EIO, "pwrite wrote nothing")
                rest = rest[written:]
                position += written

    def sync(self) -> None:
        """fdatasync.  Every error is a plain OSError, ENOSPC too, because none is harmless."""
        if self._descriptor == _CLOSED:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))  # fdatasync(-1) is ValueError.
        os.fdatasync(self._descriptor)

    def size(self) -> int:
        """Length in bytes."""
        return os.fstat(self._descriptor).st_size

    def truncate(self, length: int) -> None:
        """Set the length; bytes beyond the old one read as zeros."""
        with full_disk_is_named():
            os.ftruncate(self._descriptor, length)

    def close(self) -> None:
        """Release the descriptor.  Idempotent; every later call raises OSError (EBADF)."""
        descriptor, self._descriptor = self._descriptor, _CLOSED
        if descriptor != _CLOSED:
            os.close(descriptor)


class LocalLock:
    """An flock.  A forked child keeps it held until the child has ended too."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Give it back.  Idempotent."""
        descriptor, self._descriptor = self._descriptor, _CLOSED
        if descriptor != _CLOSED:
            # Closing alone would leave it held while a forked child lives.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


class LocalDisk:
    """One directory tree of the local file system.

    The root is created, durably, when it is not there.  '' names it in calls that take a
    directory.  Raises ValueError for a path that could leave it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        with full_disk_is_named():
            make_durable_root(root)

    def open(self, path: str, *, create: bool = False, write: bool = False) -> File:
        """Open a file, for reading alone unless `write`."""
        flags = os.O_RDWR if write else os.O_RDONLY
        if create:
            flags |= os.O_CREAT
        with full_disk_is_named():
            return LocalFile(os.open(inside(self._root, path), flags, 0o640))

    def list(self, path: str) -> Sequence[str]:
        """Names in a directory, sorted; empty when there is no such directory."""
        try:
            return sorted(place.name for place in directory_inside(self._root, path).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return ()

    def make_directory(self, path: str) -> None:
        """Create a directory and its parents; no error when it is there."""
        with full_disk_is_named():
            directory_inside(self._root, path).mkdir(parents=True, exist_ok=True)

    def sync_directory(self, path: str) -> None:
        """fsync a directory.  Raises FileNotFoundError."""
        sync_directory(directory_inside(self._root, path))

    def rename(self, source: str, target: str) -> None:
        """Replace `target` by `source` atomically."""
        with full_disk_is_named():
            inside(self._root, source).replace(inside(self._root, target))

    def remove(self, path: str) -> None:
        """Unlink a file.  Raises FileNotFoundError, and OSError for a directory."""
        inside(self._root, path).unlink()

    def exists(self, path: str) -> bool:
        """Whether a file or directory is there."""
        return directory_inside(self._root, path).exists()

    def lock(self, path: str) -> Lock:
        """Take an flock on a file, which is created.  Raises `BlockingIOError` when it is held."""
        with full_disk_is_named():
            descriptor = os.open(inside(self._root, path), os.O_RDWR | os.O_CREAT, 0o640)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            undo.pop_all()
        return LocalLock(descriptor)

    def free_bytes(self) -> int:
        """Space that a process without privileges can still write."""
        space = os.statvfs(self._root)
        return space.f_bavail * space.f_frsize
