"""What a replica has of itself to give away: a port that the process fills.

Snapshots and history belong to packages that replication does not know; they are files to it.
"""

import contextlib
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import msgspec

from ultraengine.ports import Disk, File
from ultraengine.replication.installing.offer import Part

TRIES: Final = 3
"""Retention may remove a file between the look at the names and the opening."""
T = TypeVar("T")


class OpenPart(msgspec.Struct):
    """A part that stays readable until it is closed, also when its file is removed."""

    part: Part
    file: File | None
    content: bytes = b""
    """Of a part that has no file here."""

    @classmethod
    def opened(cls, disk: Disk, path: str) -> "OpenPart":
        """A file as it is.  Raises OSError."""
        file = disk.open(path)
        return cls(Part(path, file.size()), file)

    @classmethod
    def held(cls, path: str, content: bytes) -> "OpenPart":
        """Content that is no such file here."""
        return cls(Part(path, len(content)), None, content)

    def read(self, position: int, length: int) -> bytes:
        """Some of it.  Raises OSError."""
        end = min(self.part.size, position + length)
        if self.file is None:
            return self.content[position:end]
        return self.file.pread(end - position, position)


class Taken(msgspec.Struct):
    """The newest verified snapshot and what belongs to it, opened."""

    sequence_end: int
    """First frame that is not in it."""
    parts: list[OpenPart]

    def close(self) -> None:
        """Keep it no longer."""
        for one in self.parts:
            if one.file is not None:
                with contextlib.suppress(OSError):
                    one.file.close()


def taken_in_time(take: Callable[[], T]) -> T:
    """What `take` opens, tried again when a file went meanwhile.  Raises OSError."""
    for _ in range(TRIES - 1):
        with contextlib.suppress(FileNotFoundError):
            return take()
    return take()


class Stock(Protocol):
    """Snapshots and history of this replica.  Calls block."""

    def take(self) -> Taken | None:
        """What a copy needs besides the log; None without a verified snapshot.  Raises OSError."""

    def prove(self, beside: str, sequence_end: int) -> str:
        """Read what was received, whose files end in `beside`; why it is not good, or nothing."""


class NoStock:
    """Of a replica that has nothing but its log."""

    def take(self) -> Taken | None:
        """Nothing."""
        return None

    def prove(self, beside: str, sequence_end: int) -> str:  # noqa: ARG002  (Protocol)
        """Nothing is good here."""
        return "this replica keeps no snapshots"


NO_STOCK: Final = NoStock()
