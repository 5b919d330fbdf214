"""One running simulated machine below its file names: nodes, faults, space, and the end.

`SimDisk` gives it names and handles.  Every method is atomic.
"""

import errno
import os
import random
import threading
from typing import Final

from ultraengine.ports import DiskFull
from ultraengine.testing.sim_faults import (
    Call,
    Effect,
    FailedSync,
    Injected,
    LostWrite,
    MisdirectedWrite,
    Raises,
    ShortWrite,
    Stalls,
    TornWrite,
)
from ultraengine.testing.sim_image import BLOCK_BYTES, Image, Unsynced
from ultraengine.testing.sim_trace import Extent, Operation, SetSize, SyncFile, Write

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class PowerLost(OSError):
    """This machine has stopped; its disk lives on in what `power_cut` or `kill` returned."""

    def __init__(self) -> None:
        super().__init__(errno.EIO, "the simulated machine has stopped")


class Machine:
    """The state of a `SimDisk`, shared with its handles."""

    def __init__(self, seed: int, capacity: int, image: Image, *, record: bool) -> None:
        self.mutex: Final = threading.RLock()
        self.capacity = capacity
        self.image = image
        self.trace: list[Operation] = []
        self.injected: list[Injected] = []
        self.held: set[str] = set()
        self._record = record
        self._random = random.Random(seed)  # noqa: S311  (chance that can be repeated)
        self._opened: dict[int, int] = {}
        self._stopped = False

    def check_running(self) -> None:
        """Raises `PowerLost` when the machine has stopped."""
        if self._stopped:
            raise PowerLost

    def stop(self) -> int:
        """End it, and return a seed for the next one."""
        with self.mutex:
            self.check_running()
            self._stopped = True
            return self._random.getrandbits(32)

    def do(self, operation: Operation) -> None:
        """Change the image and write down how."""
        self.check_running()
        self.image.apply(operation)
        if self._record:
            self.trace.append(operation)

    def effect(self, call: Call, path: str) -> Effect | None:
        """The injected effect for this call; `Raises` and `Stalls` have happened then."""
        with self.mutex:
            self.check_running()
            effect = next((i.effect for i in self.injected if i.take(call, path)), None)
        if isinstance(effect, Stalls):
            effect.until.wait()
        if isinstance(effect, Raises):
            raise _error(call, effect.errno, path)
        return effect

    def by_chance(self, step: Unsynced) -> int:
        """How many bytes of an unsynced step survive: mostly none or all, sometimes a part."""
        kind = self._random.randrange(8)
        if kind == 0 and step.length > 1:
            return self._random.randrange(1, step.length)
        return step.length if kind > 3 else 0

    def pread(self, node: int, path: str, length: int, position: int) -> bytes:
        """Bytes as they are read now."""
        self.effect("pread", path)
        with self.mutex:
            if length < 0 or position < 0:
                raise OSError(errno.EINVAL, "Invalid argument", path)
            if node in self.image.directories:
                raise IsADirectoryError(errno.EISDIR, "Is a directory", path)
            return bytes(memoryview(self.image.files[node].data)[position : position + length])

    def pwrite(self, node: int, path: str, data: bytes, position: int) -> None:
        """Write; a part of it when there is no room (then `DiskFull`) or a fault says so."""
        effect = self.effect("pwrite", path)
        with self.mutex:
            if position < 0:
                raise OSError(errno.EINVAL, "Invalid argument", path)
            fitting = self._fitting(node, len(data), position)
            done = Extent(node, position, data[:fitting])
            match effect:
                case ShortWrite(kept=kept, errno=code):
                    self._write(Extent(node, position, data[: min(kept, fitting)]), None)
                    raise _error("pwrite", code, path)
                case LostWrite():
                    self._write(done, ())
                case TornWrite(kept=kept):
                    self._write(done, (Extent(node, position, done.data[:kept]),))
                case MisdirectedWrite(shift=shift):
                    self._write(done, (Extent(node, max(0, position + shift), done.data),))
                case _:
                    self._write(done, None)
            if fitting < len(data):
                raise DiskFull(errno.ENOSPC, "No space left on device", path)

    def sync(self, node: int, path: str) -> None:
        """fdatasync of a node."""
        effect = self.effect("sync", path)
        with self.mutex:
            if not isinstance(effect, FailedSync):
                self.do(SyncFile(node))
                return
            parts = [
                (step.order, step.start, kept)
                for step in self.image.files[node].steps(node)
                if (kept := self.by_chance(step))
            ]
            self.do(SyncFile(node, tuple(parts)))
            raise OSError(errno.EIO, "Input/output error", path)

    def size(self, node: int) -> int:
        """Length in bytes."""
        with self.mutex:
            self.check_running()
            return len(self.image.files[node].data)

    def truncate(self, node: int, path: str, length: int) -> None:
        """Set the length."""
        self.effect("truncate", path)
        with self.mutex:
            if length < 0:
                raise OSError(errno.EINVAL, "Invalid argument", path)
            if length != len(self.image.files[node].data):
                self.do(SetSize(node, length))

    def opened(self, node: int) -> None:
        """A handle is there: the node keeps its space after its name is gone."""
        with self.mutex:
            self._opened[node] = self._opened.get(node, 0) + 1

    def closed(self, node: int) -> None:
        """A handle is gone."""
        with self.mutex:
            self._opened[node] -= 1
            if not self._opened[node]:
                del self._opened[node]

    def collect(self) -> None:
        """Forget what nothing leads to any more."""
        self.image.forget_unreachable(frozenset(self._opened))

    def free_bytes(self) -> int:
        """Space that can still be written."""
        with self.mutex:
            self.check_running()
            return max(0, self.capacity - self.image.used_bytes(frozenset(self._opened)))

    def _write(self, extent: Extent, medium: tuple[Extent, ...] | None) -> None:
        if extent.data:
            self.do(Write(extent, medium))

    def _fitting(self, node: int, length: int, position: int) -> int:
        """How many of `length` bytes at `position` find room."""
        file = self.image.files[node]
        missing = position + length - file.allocated
        if missing <= 0:
            return length
        slack = -file.allocated % BLOCK_BYTES
        room = slack + self.free_bytes() // BLOCK_BYTES * BLOCK_BYTES
        return max(0, length - max(0, missing - room))


def _error(call: Call, code: int, path: str) -> OSError:
    """The error of a call; no space is `DiskFull` except from a sync, as on a real disk."""
    kind = DiskFull if code in _NO_SPACE and not call.startswith("sync") else OSError
    return kind(code, os.strerror(code), path)
