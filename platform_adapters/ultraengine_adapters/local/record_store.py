"""The RecordStore port on a directory of this machine: one file, changed under an flock.

For replicas that share a machine or a file system whose locks and renames hold between its
machines.  Who holds the lock reads, compares, writes a temporary file, syncs it, renames it and
syncs the directory.  A crash leaves the old content or the new one, and the lock to the next.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ultraengine.ports import OutcomeUnknown
from ultraengine_adapters.local.paths import make_durable_root, sync_directory

_LOCK: Final = "RECORD.lock"
_RECORD: Final = "RECORD"
_TEMPORARY: Final = "RECORD.tmp"


class DirectoryRecordStore:
    """The value is the content of ``RECORD``; no file, no value."""

    def __init__(self, root: Path) -> None:
        self._root = root
        make_durable_root(root)

    def read(self) -> bytes | None:
        """What is in force.  Raises OSError."""
        with self._locked():
            return self._content()

    def swap(self, expected: bytes | None, new: bytes) -> bool:
        """Put `new` in the place of exactly `expected`; whether it was done.

        Raises `OutcomeUnknown` when the directory could not be synced after the renaming, and any
        other OSError when nothing was done.
        """
        temporary = self._root / _TEMPORARY
        with self._locked():
            if self._content() != expected:
                return False
            with temporary.open("wb") as file:
                file.write(new)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._root / _RECORD)
            try:
                sync_directory(self._root)
            except OSError as error:
                raise OutcomeUnknown(error.errno, str(error)) from error
        return True

    def _content(self) -> bytes | None:
        try:
            content = (self._root / _RECORD).read_bytes()
        except FileNotFoundError:
            return None
        # Seen by a read is durable: whoever renamed it may have ended before syncing.
        sync_directory(self._root)
        return content

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._root / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
