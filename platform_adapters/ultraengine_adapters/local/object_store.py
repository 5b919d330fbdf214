"""The ObjectStore port on a directory, for one machine or a shared file system.

A blob is written under a temporary name in ``.partial``, synced, and only then linked or
renamed to its own name, whose directory is synced: so a reader sees the whole blob or none,
and ``put`` returns when it is durable.  What a crash leaves in ``.partial`` is removed by
the first store opened more than a day later.
"""

import contextlib
import errno
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from ultraengine_adapters.local.paths import (
    full_disk_is_named,
    inside,
    make_durable_root,
    sync_directory,
)
from ultraengine_adapters.names import check_blob_name

_PARTIAL: Final = ".partial"
_ABANDONED_AFTER_S: Final = 24 * 3600


class DirectoryObjectStore:
    """Blobs as files.  Names are '/'-separated; no part may start with '.'.

    One name may not be a directory of another: with ``a`` there, ``a/b`` raises
    NotADirectoryError, and the other way round IsADirectoryError.
    """

    def __init__(self, root: Path, *, changes: bool = True) -> None:
        """Without `changes` nothing is made or removed, and only what reads may be called."""
        self._root = root
        self._partial = root / _PARTIAL
        if not changes:
            return
        with full_disk_is_named():
            make_durable_root(self._partial)
        self._remove_abandoned()

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        """Store durably.

        Raises FileExistsError when `if_absent` and it is there, `DiskFull` when there is no
        room (then nothing is left behind), ValueError for a bad name.
        """
        self._put(name, (data,), if_absent=if_absent)

    def put_stream(self, name: str, chunks: Iterable[bytes]) -> None:
        """Store the concatenation of chunks durably; as ``put``, and what `chunks` raise."""
        self._put(name, chunks)

    def _put(self, name: str, chunks: Iterable[bytes], *, if_absent: bool = False) -> None:
        target = self._place(name)
        with full_disk_is_named(), self._written(chunks) as written:
            self._check_no_clash(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            if if_absent:
                # link(2) refuses an existing target atomically, which rename(2) cannot.
                os.link(written, target)
            else:
                written.replace(target)
        # Up to the root each time: a process killed earlier may have left one unsynced.
        for directory in target.parents:
            sync_directory(directory)
            if directory == self._root:
                break

    def get(self, name: str) -> bytes:
        """The whole blob.  Raises FileNotFoundError."""
        place = self._place(name)
        try:
            return place.read_bytes()
        except (IsADirectoryError, NotADirectoryError):
            raise FileNotFoundError(name) from None

    def get_range(self, name: str, position: int, length: int) -> bytes:
        """A part of a blob.  Raises FileNotFoundError."""
        try:
            with self._place(name).open("rb") as file:
                file.seek(position)
                return file.read(length)
        except (IsADirectoryError, NotADirectoryError):
            raise FileNotFoundError(name) from None

    def size(self, name: str) -> int:
        """Length in bytes.  Raises FileNotFoundError."""
        place = self._place(name)
        try:
            if not place.is_dir():
                return place.stat().st_size
        except NotADirectoryError:
            pass
        raise FileNotFoundError(name)

    def list(self, prefix: str) -> Sequence[str]:
        """Names that start with `prefix`, sorted by code point."""
        return sorted(name for name in self._names() if name.startswith(prefix))

    def delete(self, name: str) -> None:
        """Remove, durably; no error when it is not there."""
        place = self._place(name)
        with contextlib.suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
            place.unlink()
            sync_directory(place.parent)

    def _check_no_clash(self, target: Path) -> None:
        """Say what is wrong before mkdir or link would call it an existing blob."""
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "the name is a directory of others", str(target))
        for above in target.parents:
            if above == self._root:
                return
            if above.is_file():
                raise NotADirectoryError(errno.ENOTDIR, "a blob has this name", str(above))

    def _place(self, name: str) -> Path:
        check_blob_name(name)
        return inside(self._root, name)

    @contextlib.contextmanager
    def _written(self, chunks: Iterable[bytes]) -> Iterator[Path]:
        """A synced temporary file with the chunks, removed at the end unless it was renamed."""
        descriptor, name = tempfile.mkstemp(dir=self._partial)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                for chunk in chunks:
                    rest = memoryview(chunk)
                    while rest:
                        rest = rest[file.write(rest) :]
                os.fsync(descriptor)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _names(self) -> Iterator[str]:
        for directory, below, files in os.walk(self._root):
            below[:] = [name for name in below if not name.startswith(".")]
            place = Path(directory).relative_to(self._root)
            for file in files:
                if not file.startswith("."):
                    yield (place / file).as_posix()

    def _remove_abandoned(self) -> None:
        oldest = time.time() - _ABANDONED_AFTER_S
        for left in self._partial.iterdir():
            with contextlib.suppress(FileNotFoundError):  # Its owner was quicker.
                if left.stat().st_mtime < oldest:
                    left.unlink()
