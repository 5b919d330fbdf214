"""The RecordStore port on a directory of this machine: one file, changed under an flock.

For replicas that share a machine or a file system whose locks and renames hold between its
machines.  Who holds the lock reads, compares, writes a temporary file, syncs it, renames it and
syncs the directory.  A crash leaves the old content or the new one, and the lock to the next.
``CLUSTER`` beside it, the mark, is written in the same way, once.

A read takes no lock: a rename is seen whole or not at all.  A swap waits for the lock
`LOCK_WAIT_S` and no longer: one that stopped while it had it must not stop all others.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ultraengine.ports import OutcomeUnknown
from ultraengine_adapters.local.paths import make_durable_root, sync_directory

LOCK_WAIT_S: Final = 2.0
_LOCK_RETRY_S: Final = 0.005

_LOCK: Final = "RECORD.lock"
_RECORD: Final = "RECORD"
_MARK: Final = "CLUSTER"
_TEMPORARY: Final = "RECORD.tmp"


class DirectoryRecordStore:
    """The value is the content of ``RECORD``; no file, no value."""

    def __init__(self, root: Path, *, lock_wait_s: float = LOCK_WAIT_S) -> None:
        self._root = root
        self._lock_wait_s = lock_wait_s
        make_durable_root(root)

    def read(self) -> bytes | None:
        """What is in force.  Raises OSError."""
        return self._content(_RECORD)

    def swap(self, expected: bytes | None, new: bytes) -> bool:
        """Put `new` in the place of exactly `expected`; whether it was done.

        Raises `OutcomeUnknown` when the directory could not be synced after the renaming, and any
        other OSError when nothing was done.
        """
        with self._locked():
            if self._content(_RECORD) != expected:
                return False
            self._put(_RECORD, new)
        return True

    def mark(self, first: bytes | None) -> bytes | None:
        """Whose place this is; `first` where nothing says it.  Raises OSError."""
        found = self._content(_MARK)
        if found is not None or first is None:
            return found
        with self._locked():
            found = self._content(_MARK)
            if found is None:
                self._put(_MARK, first)
                found = first
        return found

    def _put(self, name: str, content: bytes) -> None:
        temporary = self._root / _TEMPORARY
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._root / name)
        try:
            sync_directory(self._root)
        except OSError as error:
            raise OutcomeUnknown(error.errno, str(error)) from error

    def _content(self, name: str) -> bytes | None:
        try:
            content = (self._root / name).read_bytes()
        except FileNotFoundError:
            return None
        # Seen by a read is durable: whoever renamed it may have ended before syncing.
        sync_directory(self._root)
        return content

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._root / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            self._lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        deadline = time.monotonic() + self._lock_wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError(
                        errno.ETIMEDOUT, "another process holds the lock: not done", _LOCK
                    ) from None
                time.sleep(_LOCK_RETRY_S)
            else:
                return
