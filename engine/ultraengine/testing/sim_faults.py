"""What can go wrong with a simulated disk, as values to give to `SimDisk.inject`."""

import fnmatch
import threading
from typing import Literal

import msgspec

Call = Literal[
    "open", "pread", "pwrite", "sync", "truncate", "rename", "remove", "sync_directory", "list"
]


class Raises(msgspec.Struct, frozen=True):
    """The call raises OSError with this errno and does nothing."""

    errno: int


class LostWrite(msgspec.Struct, frozen=True):
    """The write is seen until the machine stops and never reaches the medium."""


class TornWrite(msgspec.Struct, frozen=True):
    """Only the first `kept` bytes of the write ever reach the medium."""

    kept: int


class MisdirectedWrite(msgspec.Struct, frozen=True):
    """On the medium the write lands `shift` bytes further on."""

    shift: int


class ShortWrite(msgspec.Struct, frozen=True):
    """The first `kept` bytes are written, then the call raises OSError with this errno."""

    kept: int
    errno: int


class FailedSync(msgspec.Struct, frozen=True):
    """The sync raises EIO; a subset of the sectors, chosen by chance, reached the medium,
    and the cache calls all of them clean, so that the next sync succeeds without them."""


class Stalls(msgspec.Struct, frozen=True):
    """The call waits for the event before it goes on."""

    until: threading.Event


Effect = Raises | LostWrite | TornWrite | MisdirectedWrite | ShortWrite | FailedSync | Stalls


class Injected:
    """An effect waiting: `after` matching calls pass, then it happens `times` times."""

    def __init__(self, effect: Effect, call: Call, path: str, after: int, times: int) -> None:
        self.effect = effect
        self.call = call
        self.path = path
        self.after = after
        self.times = times

    def take(self, call: Call, path: str) -> bool:
        """Whether this call is the one; counts it."""
        if call != self.call or not fnmatch.fnmatchcase(path, self.path) or not self.times:
            return False
        if self.after:
            self.after -= 1
            return False
        self.times -= 1
        return True
