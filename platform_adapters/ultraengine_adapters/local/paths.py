"""How names of the ports become paths of one directory tree, and errno becomes ours.

A port path is relative and '/'-separated.  Empty parts, ``.``, ``..``, a leading '/' and
NUL are refused with ValueError, because such a path is a bug of the caller and could
leave the tree.  For calls that take a directory, '' names the root.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ultraengine.ports import DiskFull

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def inside(root: Path, path: str) -> Path:
    """The place of a file or directory below `root`.  Raises ValueError for a bad path."""
    if not path or "\0" in path or any(part in {"", ".", ".."} for part in path.split("/")):
        raise ValueError(f"{path!r} is not a relative path without '..'")
    return root / path


def directory_inside(root: Path, path: str) -> Path:
    """Like `inside`; '' is the root itself."""
    return inside(root, path) if path else root


def sync_directory(path: Path) -> None:
    """fsync a directory.  Raises OSError; never `DiskFull`, see `full_disk_is_named`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_durable_root(root: Path) -> None:
    """Create the root of a tree and its missing parents, each durable in its directory.

    The directory above is synced even when the root is there: a process killed between
    creation and sync would otherwise leave a tree that a power cut removes as a whole.
    """
    missing = [place for place in (root, *root.parents) if not place.exists()]
    root.mkdir(parents=True, exist_ok=True)
    for created in reversed(missing):
        sync_directory(created.parent)
    if not missing:
        # Who may not read the directory above did not create the tree: a volume was mounted.
        with contextlib.suppress(PermissionError):
            sync_directory(root.parent)


@contextlib.contextmanager
def full_disk_is_named() -> Iterator[None]:
    """Turn ENOSPC and EDQUOT into `DiskFull`; all other errors pass.

    Never put around fsync or fdatasync: an error there, even ENOSPC, leaves the unsynced
    content unknown (ATC'20 "Can Applications Recover from fsync Failures?"), whereas
    `DiskFull` promises that nothing durable was lost and that the caller may go on.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise DiskFull(error.errno, error.strerror, error.filename) from error
        raise
