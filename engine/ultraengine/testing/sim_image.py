"""What a simulated disk holds: the page cache, the medium, and what lies between them.

Pure: `Image.apply` takes one recorded operation and changes both views exactly as a live
`SimDisk` does, so a recorded trace can be replayed to any point, and `Image.crashed` says
what a power cut would leave there.

The model is as hostile as POSIX allows, which is more hostile than ext4 or XFS:

* a written sector (512 bytes) reaches the medium at any time after the write, on its own,
  or never; a sync of the file makes all its sectors and its length durable;
* a change of a file's length is one more unsynced step of that file;
* creations, renames and removals are unsynced steps of their directory, each on its own;
  syncing a file does not make its name durable.  A rename inside one directory is atomic;
  across directories the old name goes only if the new one came.

Any subset of the unsynced steps may survive a crash, applied in their order.  That also
covers reordering: two steps on different sectors or names commute, and of two on the same
one the later wins or is missing.  A kept sector may be torn at any byte.

Sources: OSDI'14 "All File Systems Are Not Created Equal" (ALICE); ATC'20 "Can Applications
Recover from fsync Failures?" (`SyncFile.kept`: pages look clean after a failed sync).
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from ultraengine.testing.sim_trace import (
    CreateDirectory,
    CreateFile,
    DropCaches,
    Extent,
    FlipBits,
    Note,
    Operation,
    Remove,
    Rename,
    SetSize,
    SyncDirectory,
    SyncFile,
    Write,
)

SECTOR_BYTES: Final = 512
BLOCK_BYTES: Final = 4096
"""Unit in which space is taken."""
ROOT: Final = 0
"""Node number of the root directory."""


class Resize(msgspec.Struct, frozen=True):
    """An unsynced length of a file."""

    length: int


class Link(msgspec.Struct, frozen=True):
    """An unsynced name that appears (or now means another node)."""

    name: str
    node: int


class Unlink(msgspec.Struct, frozen=True):
    """An unsynced name that goes; after a rename elsewhere, only if `after` came there."""

    name: str
    after: tuple[int, Link] | None = None


class Move(msgspec.Struct, frozen=True):
    """An unsynced rename inside one directory."""

    source: str
    target: str
    node: int


class Unsynced(msgspec.Struct, frozen=True):
    """One step that a crash keeps or loses.  `length` is 1 where it is all or nothing."""

    node: int
    order: int
    """Index among the unsynced steps of the node."""
    start: int
    """First byte in the file, for a written sector; 0 otherwise."""
    length: int


class FileNode:
    """A file: what is read (`data`), what the medium has, and the steps between."""

    __slots__ = ("allocated", "data", "medium", "pending")

    def __init__(self, medium: bytearray) -> None:
        self.medium = medium
        self.data = bytearray(medium)
        self.pending: list[Extent | Resize] = []
        self.allocated = len(medium)
        """Highest byte that was ever written; holes below it are counted as taken."""

    def resize(self, length: int) -> None:
        _resize(self.data, length)
        self.allocated = min(self.allocated, length)
        self.pending.append(Resize(length))

    def write(self, position: int, data: bytes) -> None:
        end = position + len(data)
        if end > len(self.data):
            _resize(self.data, end)
            self.pending.append(Resize(end))
        self.data[position:end] = data
        self.allocated = max(self.allocated, end)

    def steps(self, number: int) -> Iterator[Unsynced]:
        """The unsynced steps, writes sector by sector."""
        for order, step in enumerate(self.pending):
            if isinstance(step, Resize):
                yield Unsynced(number, order, 0, 1)
            else:
                for start, length in _sectors(step):
                    yield Unsynced(number, order, start, length)

    def reached(self, number: int, keep: Callable[[Unsynced], int]) -> bytearray:
        """The medium after the kept steps, in their order."""
        medium = bytearray(self.medium)
        for step in self.steps(number):
            kept = keep(step)
            pending = self.pending[step.order]
            if kept and isinstance(pending, Resize):
                _resize(medium, pending.length)
            elif kept and isinstance(pending, Extent):
                # Beyond the length that survived there is nothing to write to.
                end = min(step.start + kept, len(medium))
                if end > step.start:
                    offset = step.start - pending.position
                    medium[step.start : end] = pending.data[offset : offset + end - step.start]
        return medium

    def settle(self) -> None:
        """Every unsynced step reaches the medium."""
        for step in self.pending:
            if isinstance(step, Resize):
                _resize(self.medium, step.length)
            else:
                end = min(step.position + len(step.data), len(self.medium))
                if end > step.position:
                    self.medium[step.position : end] = step.data[: end - step.position]
        self.pending.clear()

    def significant(self, number: int) -> Iterator[Unsynced]:
        """The steps whose survival can be told: not zeros written where zeros would be."""
        shrinks = any(
            isinstance(step, Resize) and step.length < len(self.medium) for step in self.pending
        )
        seen: set[int] = set()
        for step in self.steps(number):
            pending = self.pending[step.order]
            if isinstance(pending, Extent) and not shrinks:
                sector = step.start // SECTOR_BYTES
                offset = step.start - pending.position
                before = bytes(self.medium[step.start : step.start + step.length])
                same = pending.data[offset : offset + step.length] == before.ljust(
                    step.length, b"\0"
                )
                if same and sector not in seen:
                    continue
                seen.add(sector)
            yield step


class DirectoryNode:
    """A directory: names as listed, names on the medium, and the steps between."""

    __slots__ = ("entries", "medium", "pending")

    def __init__(self, medium: dict[str, int]) -> None:
        self.medium = medium
        self.entries = dict(medium)
        self.pending: list[Link | Unlink | Move] = []


class Image:
    """A whole tree.  Nodes have numbers; names are entries of directories."""

    def __init__(self) -> None:
        self.files: dict[int, FileNode] = {}
        self.directories: dict[int, DirectoryNode] = {ROOT: DirectoryNode({})}
        self.next_node = ROOT + 1

    def apply(self, operation: Operation) -> None:
        """Do what a live disk did.  Raises KeyError for a node or name that is not there."""
        match operation:
            case CreateFile() | CreateDirectory() | Rename() | Remove() | SyncDirectory():
                self._apply_to_directory(operation)
            case Write() | SetSize() | SyncFile() | FlipBits():
                self._apply_to_file(operation)
            case DropCaches():
                for file in self.files.values():
                    if not file.pending:
                        file.data[:] = file.medium
            case Note():
                pass

    def unsynced(self, *, significant: bool = False) -> Iterator[Unsynced]:
        """Every step a crash may lose, in a fixed order: by node, then in time."""
        for number in sorted(self.files):
            file = self.files[number]
            yield from file.significant(number) if significant else file.steps(number)
        for number in sorted(self.directories):
            for order in range(len(self.directories[number].pending)):
                yield Unsynced(number, order, 0, 1)

    def crashed(self, keep: Callable[[Unsynced], int]) -> "Image":
        """The tree after a power cut.

        `keep` is asked once for every unsynced step and returns how many of its bytes
        survive: 0 loses it, less than its length tears it.
        """
        after = Image()
        after.next_node = self.next_node
        for number in sorted(self.files):
            after.files[number] = FileNode(self.files[number].reached(number, keep))
        kept_links: list[tuple[int, Link]] = []
        kept_steps: list[tuple[int, Link | Unlink | Move]] = []
        for number in sorted(self.directories):
            for order, step in enumerate(self.directories[number].pending):
                if keep(Unsynced(number, order, 0, 1)):
                    kept_steps.append((number, step))
                    if isinstance(step, Link):
                        kept_links.append((number, step))
        trees = {n: dict(self.directories[n].medium) for n in sorted(self.directories)}
        for number, step in kept_steps:
            waits_for = step.after if isinstance(step, Unlink) else None
            # A link that is no longer pending is durable already.
            if waits_for is None or waits_for in kept_links or not self._is_pending(waits_for):
                _enter(trees[number], step)
        after.directories = {number: DirectoryNode(tree) for number, tree in trees.items()}
        after.forget_unreachable(frozenset())
        return after

    def copy(self) -> "Image":
        """An independent image of what is on the medium and in the cache."""
        twin = Image()
        twin.next_node = self.next_node
        for number, file in self.files.items():
            node = twin.files[number] = FileNode(bytearray(file.medium))
            node.data[:] = file.data
            node.pending, node.allocated = list(file.pending), file.allocated
        for number, directory in self.directories.items():
            branch = twin.directories[number] = DirectoryNode(dict(directory.medium))
            branch.entries = dict(directory.entries)
            branch.pending = list(directory.pending)
        return twin

    def walk(self) -> Iterator[tuple[str, int]]:
        """Every listed path with its node, directories before what is in them, sorted."""
        waiting = [("", ROOT)]
        while waiting:
            path, number = waiting.pop()
            if path:
                yield path, number
            if number in self.directories:
                entries = self.directories[number].entries
                waiting.extend(
                    (f"{path}/{name}" if path else name, entries[name])
                    for name in sorted(entries, reverse=True)
                )

    def digest(self) -> bytes:
        """blake2b-128 over all paths and contents as they are read."""
        whole = hashlib.blake2b(digest_size=16)
        for path, number in self.walk():
            file = self.files.get(number)
            length = -1 if file is None else len(file.data)
            whole.update(f"{path}\0{length}\0".encode())
            if file is not None:
                whole.update(file.data)
        return whole.digest()

    def used_bytes(self, opened: frozenset[int]) -> int:
        """Space taken by files that have a name or are open, in whole blocks."""
        named = {node for d in self.directories.values() for node in d.entries.values()}
        taken = (
            -(-file.allocated // BLOCK_BYTES)
            for number, file in self.files.items()
            if number in named or number in opened
        )
        return sum(taken) * BLOCK_BYTES

    def forget_unreachable(self, opened: frozenset[int]) -> None:
        """Drop nodes that no name, no unsynced step and no open file leads to."""
        reached: set[int] = set()
        waiting = [ROOT, *opened]
        while waiting:
            number = waiting.pop()
            if number in reached:
                continue
            reached.add(number)
            directory = self.directories.get(number)
            if directory is not None:
                waiting.extend(directory.entries.values())
                waiting.extend(directory.medium.values())
                waiting.extend(s.node for s in directory.pending if not isinstance(s, Unlink))
        self.files = {n: file for n, file in self.files.items() if n in reached}
        self.directories = {n: d for n, d in self.directories.items() if n in reached}

    def _apply_to_file(self, operation: Write | SetSize | SyncFile | FlipBits) -> None:
        match operation:
            case Write(extent=extent, medium=medium):
                self.files[extent.node].write(extent.position, extent.data)
                for real in (extent,) if medium is None else medium:
                    self.files[real.node].pending.append(real)
            case SetSize(node=node, length=length):
                self.files[node].resize(length)
            case SyncFile(node=node, kept=None):
                self.files[node].settle()
            case SyncFile(node=node, kept=parts):
                kept = {(order, start): length for order, start, length in parts or ()}
                file = self.files[node]
                file.medium = file.reached(node, lambda s: kept.get((s.order, s.start), 0))
                file.pending.clear()
            case FlipBits(node=node, position=position, mask=mask):
                for view in (self.files[node].data, self.files[node].medium):
                    if position < len(view):
                        view[position] ^= mask

    def _apply_to_directory(
        self, operation: CreateFile | CreateDirectory | Rename | Remove | SyncDirectory
    ) -> None:
        match operation:
            case CreateFile() | CreateDirectory():
                self._create(operation)
            case Rename():
                self._rename(operation)
            case Remove(directory=directory, name=name):
                del self.directories[directory].entries[name]
                self.directories[directory].pending.append(Unlink(name))
            case SyncDirectory(node=node):
                self._sync_directory(node)

    def _create(self, operation: CreateFile | CreateDirectory) -> None:
        if isinstance(operation, CreateFile):
            self.files[operation.node] = FileNode(bytearray())
        else:
            self.directories[operation.node] = DirectoryNode({})
        self.next_node = max(self.next_node, operation.node + 1)
        parent = self.directories[operation.directory]
        parent.entries[operation.name] = operation.node
        parent.pending.append(Link(operation.name, operation.node))

    def _sync_directory(self, number: int) -> None:
        directory = self.directories[number]
        for step in directory.pending:
            if isinstance(step, Unlink) and step.after and self._is_pending(step.after):
                # One transaction of the file system: the new name becomes durable as well,
                # with all that happened in its directory before.
                elsewhere, link = step.after
                other = self.directories[elsewhere]
                through = other.pending.index(link) + 1
                for earlier in other.pending[:through]:
                    _enter(other.medium, earlier)
                del other.pending[:through]
            _enter(directory.medium, step)
        directory.pending.clear()

    def _rename(self, operation: Rename) -> None:
        source = self.directories[operation.directory]
        target = self.directories[operation.target_directory]
        node = source.entries.pop(operation.source)
        target.entries[operation.target] = node
        if source is target:
            source.pending.append(Move(operation.source, operation.target, node))
            return
        link = Link(operation.target, node)
        target.pending.append(link)
        source.pending.append(Unlink(operation.source, (operation.target_directory, link)))

    def _is_pending(self, waits_for: tuple[int, Link]) -> bool:
        number, link = waits_for
        return number in self.directories and link in self.directories[number].pending


def _enter(names: dict[str, int], step: Link | Unlink | Move) -> None:
    match step:
        case Link(name=name, node=node):
            names[name] = node
        case Unlink(name=name):
            names.pop(name, None)
        case Move(source=source, target=target, node=node):
            names[target] = node
            # A later creation under the old name is another file and stays.
            if names.get(source) == node and source != target:
                del names[source]


def _resize(data: bytearray, length: int) -> None:
    if length < len(data):
        del data[length:]
    else:
        data.extend(bytes(length - len(data)))


def _sectors(extent: Extent) -> Iterator[tuple[int, int]]:
    """(start, length) of the parts of an extent that lie in one sector each."""
    start, end = extent.position, extent.position + len(extent.data)
    while start < end:
        stop = min(end, (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
        yield start, stop - start
        start = stop
