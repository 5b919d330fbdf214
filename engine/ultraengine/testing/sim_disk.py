"""The Disk port in memory: what a process sees, what a power cut leaves, and what breaks.

A `SimDisk` is one running machine.  `power_cut` and `kill` end it: every handle it gave
out fails from then on, and they return the disk as the next process finds it.  Everything
chosen by chance comes from the seed.

Faults are put in beforehand with `inject`; the effects are in `sim_faults`, and what they
mean for the medium is written down in `sim_image`.  Safe to use from several threads.
"""

import errno
from collections.abc import Callable, Sequence
from typing import Final

from ultraengine.ports import File, Lock
from ultraengine.testing.sim_faults import Call, Effect, Injected
from ultraengine.testing.sim_image import ROOT, Image, Unsynced
from ultraengine.testing.sim_machine import Machine
from ultraengine.testing.sim_trace import (
    CreateDirectory,
    CreateFile,
    DropCaches,
    FlipBits,
    Note,
    Operation,
    Remove,
    Rename,
    SyncDirectory,
)

CAPACITY_BYTES: Final = 1 << 40
"""Space of a disk for which nothing else is said."""


class SimFile:
    """A handle.  All state is the machine's."""

    def __init__(self, machine: Machine, node: int, path: str, *, write: bool) -> None:
        self._machine = machine
        self._node = node
        self._path = path
        self._write = write
        self._open = True
        machine.opened(node)

    def pread(self, length: int, position: int) -> bytes:
        """Up to `length` bytes from `position`; fewer only at the end of the file."""
        return self._machine.pread(self._checked(), self._path, length, position)

    def pwrite(self, data: bytes | memoryview, position: int) -> None:
        """Write all of `data`, or raise with a part of it written."""
        self._machine.pwrite(self._checked(write=True), self._path, bytes(data), position)

    def sync(self) -> None:
        """Make the content durable; a failed sync leaves it unknown."""
        self._machine.sync(self._checked(), self._path)

    def size(self) -> int:
        """Length in bytes."""
        return self._machine.size(self._checked())

    def truncate(self, length: int) -> None:
        """Set the length."""
        self._machine.truncate(self._checked(write=True), self._path, length)

    def close(self) -> None:
        """Release the handle.  Idempotent, also after the machine has stopped."""
        if self._open:
            self._open = False
            self._machine.closed(self._node)

    def _checked(self, *, write: bool = False) -> int:
        if not self._open or (write and not self._write):
            raise OSError(errno.EBADF, "Bad file descriptor", self._path)
        return self._node


class SimLock:
    """A held lock; the end of the machine releases it as well."""

    def __init__(self, held: set[str], path: str) -> None:
        self._held = held
        self._path: str | None = path

    def release(self) -> None:
        """Give it back.  Idempotent."""
        if self._path is not None:
            self._held.discard(self._path)
            self._path = None


class SimDisk:
    """A disk of one running machine, empty unless an image is given (which it then owns)."""

    def __init__(
        self,
        seed: int = 0,
        *,
        capacity: int = CAPACITY_BYTES,
        image: Image | None = None,
        record: bool = False,
    ) -> None:
        self._machine = Machine(seed, capacity, image or Image(), record=record)

    @property
    def capacity(self) -> int:
        """Bytes; may be set at any time, also below what is used."""
        return self._machine.capacity

    @capacity.setter
    def capacity(self, capacity: int) -> None:
        self._machine.capacity = capacity

    @property
    def trace(self) -> Sequence[Operation]:
        """Every change since this disk was made, in order; empty unless it records."""
        with self._machine.mutex:
            return tuple(self._machine.trace)

    # The port.

    def open(self, path: str, *, create: bool = False, write: bool = False) -> File:
        """Open a file, for reading alone unless `write`."""
        self._machine.effect("open", path)
        with self._machine.mutex:
            directory, name = self._parent(path)
            node = self._machine.image.directories[directory].entries.get(name)
            if node is None:
                if not create:
                    raise FileNotFoundError(errno.ENOENT, "No such file", path)
                node = self._machine.image.next_node
                self._machine.do(CreateFile(directory, name, node))
            elif node in self._machine.image.directories and (create or write):
                raise IsADirectoryError(errno.EISDIR, "Is a directory", path)
            return SimFile(self._machine, node, path, write=write)

    def list(self, path: str) -> Sequence[str]:
        """Names in a directory, sorted; empty when there is no such directory."""
        self._machine.effect("list", path)
        with self._machine.mutex:
            node = self._find(path)
            directory = None if node is None else self._machine.image.directories.get(node)
            return () if directory is None else sorted(directory.entries)

    def make_directory(self, path: str) -> None:
        """Create a directory and its parents; no error when it is there."""
        with self._machine.mutex:
            self._machine.check_running()
            at = ROOT
            parts = _parts(path)
            for depth, name in enumerate(parts, 1):
                node = self._machine.image.directories[at].entries.get(name)
                if node is None:
                    node = self._machine.image.next_node
                    self._machine.do(CreateDirectory(at, name, node))
                elif node in self._machine.image.files:
                    kind = FileExistsError if depth == len(parts) else NotADirectoryError
                    raise kind(errno.EEXIST, "A file is in the way", path)
                at = node

    def sync_directory(self, path: str) -> None:
        """Make creations, renames and removals in a directory durable."""
        self._machine.effect("sync_directory", path)
        with self._machine.mutex:
            node = self._find(path)
            if node is None:
                raise FileNotFoundError(errno.ENOENT, "No such directory", path)
            if node in self._machine.image.files:
                raise NotADirectoryError(errno.ENOTDIR, "Not a directory", path)
            self._machine.do(SyncDirectory(node))
            self._machine.collect()

    def rename(self, source: str, target: str) -> None:
        """Replace `target` by `source` atomically."""
        self._machine.effect("rename", source)
        with self._machine.mutex:
            directory, name = self._parent(source)
            target_directory, target_name = self._parent(target)
            node = self._machine.image.directories[directory].entries.get(name)
            replaced = self._machine.image.directories[target_directory].entries.get(target_name)
            if node is None:
                raise FileNotFoundError(errno.ENOENT, "No such file", source)
            if node == replaced:
                return
            if replaced in self._machine.image.directories:
                if node in self._machine.image.files:
                    raise IsADirectoryError(errno.EISDIR, "Is a directory", target)
                if self._machine.image.directories[replaced].entries:
                    raise OSError(errno.ENOTEMPTY, "Directory not empty", target)
            elif replaced is not None and node in self._machine.image.directories:
                raise NotADirectoryError(errno.ENOTDIR, "Not a directory", target)
            self._machine.do(Rename(directory, name, target_directory, target_name))

    def remove(self, path: str) -> None:
        """Unlink a file.  Raises FileNotFoundError, and OSError for a directory."""
        self._machine.effect("remove", path)
        with self._machine.mutex:
            directory, name = self._parent(path)
            node = self._machine.image.directories[directory].entries.get(name)
            if node is None:
                raise FileNotFoundError(errno.ENOENT, "No such file", path)
            if node in self._machine.image.directories:
                raise IsADirectoryError(errno.EISDIR, "Is a directory", path)
            self._machine.do(Remove(directory, name))

    def exists(self, path: str) -> bool:
        """Whether a file or directory is there."""
        with self._machine.mutex:
            self._machine.check_running()
            return self._find(path) is not None

    def lock(self, path: str) -> Lock:
        """Take an exclusive lock on a file, which is created."""
        with self._machine.mutex:
            self.open(path, create=True, write=True).close()
            if path in self._machine.held:
                raise BlockingIOError(errno.EAGAIN, "held", path)
            self._machine.held.add(path)
            return SimLock(self._machine.held, path)

    def free_bytes(self) -> int:
        """Space that can still be written."""
        return self._machine.free_bytes()

    # What a test does to it.

    def is_directory(self, path: str) -> bool:
        """Whether a path is a directory, which the port does not tell."""
        with self._machine.mutex:
            self._machine.check_running()
            return self._find(path) in self._machine.image.directories

    def inject(
        self, effect: Effect, call: Call, path: str = "*", *, after: int = 0, times: int = 1
    ) -> None:
        """Let `effect` happen at a later call on a path that matches the pattern.

        `after` matching calls go through first; it then happens `times` times in a row.
        """
        with self._machine.mutex:
            self._machine.injected.append(Injected(effect, call, path, after, times))

    def flip_bits(self, path: str, position: int, mask: int = 1) -> None:
        """Bit rot of one byte.  Raises FileNotFoundError; IndexError beyond the end."""
        with self._machine.mutex:
            node = self._find(path)
            if node is None or node not in self._machine.image.files:
                raise FileNotFoundError(errno.ENOENT, "No such file", path)
            if not 0 <= position < len(self._machine.image.files[node].data) or not 0 < mask < 256:
                raise IndexError(f"{path} has no byte {position}, or {mask} flips nothing")
            self._machine.do(FlipBits(node, position, mask))

    def drop_caches(self) -> None:
        """Forget clean pages, so that reads see what the medium has."""
        with self._machine.mutex:
            self._machine.do(DropCaches())

    def note(self, value: object) -> None:
        """Put something into the trace, such as an acknowledgement."""
        with self._machine.mutex:
            self._machine.do(Note(value))

    def unsynced(self) -> Sequence[Unsynced]:
        """The steps that a power cut may lose."""
        with self._machine.mutex:
            return list(self._machine.image.unsynced())

    def image(self) -> Image:
        """A copy of everything, cache and medium."""
        with self._machine.mutex:
            return self._machine.image.copy()

    def power_cut(self, keep: Callable[[Unsynced], int] | None = None) -> "SimDisk":
        """Stop the machine and return its disk as the next one finds it.

        `keep` says how many bytes of each unsynced step survive; without it, chance does.
        """
        with self._machine.mutex:
            seed = self._machine.stop()
            after = self._machine.image.crashed(keep or self._machine.by_chance)
            return SimDisk(seed, capacity=self.capacity, image=after)

    def kill(self) -> "SimDisk":
        """End the process alone: the page cache survives, locks and handles do not."""
        with self._machine.mutex:
            seed = self._machine.stop()
            return SimDisk(seed, capacity=self.capacity, image=self._machine.image.copy())

    def _find(self, path: str) -> int | None:
        at = ROOT
        for name in _parts(path):
            directory = self._machine.image.directories.get(at)
            if directory is None or name not in directory.entries:
                return None
            at = directory.entries[name]
        return at

    def _parent(self, path: str) -> tuple[int, str]:
        """The directory a path is in, and its name there."""
        self._machine.check_running()
        parts = _parts(path)
        if not parts:
            raise ValueError("the root is no file")
        above = self._find("/".join(parts[:-1]))
        if above is None:
            raise FileNotFoundError(errno.ENOENT, "No such directory", path)
        if above in self._machine.image.files:
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", path)
        return above, parts[-1]


def _parts(path: str) -> Sequence[str]:
    """The names in a path; none for '', the root.  Raises ValueError as a real disk does."""
    parts = path.split("/") if path else []
    if "\0" in path or any(part in {"", ".", ".."} for part in parts):
        raise ValueError(f"{path!r} is not a relative path without '..'")
    return parts
