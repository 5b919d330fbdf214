"""What happened to a simulated disk, as values that can be replayed.

Nodes are numbers given by the disk; 0 is the root directory.
"""

import msgspec


class Extent(msgspec.Struct, frozen=True):
    """Bytes at a position of a file."""

    node: int
    position: int
    data: bytes


class CreateFile(msgspec.Struct, frozen=True):
    """A new empty file `node` as `name` in `directory`."""

    directory: int
    name: str
    node: int


class CreateDirectory(msgspec.Struct, frozen=True):
    """A new empty directory `node` as `name` in `directory`."""

    directory: int
    name: str
    node: int


class Write(msgspec.Struct, frozen=True):
    """Bytes written; `medium` says where they really go when that is elsewhere or nowhere."""

    extent: Extent
    medium: tuple[Extent, ...] | None = None


class SetSize(msgspec.Struct, frozen=True):
    """The length of a file, set."""

    node: int
    length: int


class SyncFile(msgspec.Struct, frozen=True):
    """fdatasync.  `kept` is None when it worked; otherwise it failed, and these parts
    (order, start, bytes) reached the medium while the cache calls all of them clean."""

    node: int
    kept: tuple[tuple[int, int, int], ...] | None = None


class SyncDirectory(msgspec.Struct, frozen=True):
    """fsync of a directory."""

    node: int


class Rename(msgspec.Struct, frozen=True):
    """`target` in `target_directory` replaced by `source`."""

    directory: int
    source: str
    target_directory: int
    target: str


class Remove(msgspec.Struct, frozen=True):
    """A name unlinked."""

    directory: int
    name: str


class FlipBits(msgspec.Struct, frozen=True):
    """Bit rot: the byte at `position` differs by `mask` on the medium and when read."""

    node: int
    position: int
    mask: int


class DropCaches(msgspec.Struct, frozen=True):
    """Clean pages leave the cache: what is read next comes from the medium."""


class Note(msgspec.Struct, frozen=True):
    """Something the test wants to find in the trace, such as an acknowledgement."""

    value: object


Operation = (
    CreateFile
    | CreateDirectory
    | Write
    | SetSize
    | SyncFile
    | SyncDirectory
    | Rename
    | Remove
    | FlipBits
    | DropCaches
    | Note
)
