"""A real mount whose unsynced bytes and names vanish on demand.

    python fuse_disk.py MOUNTPOINT SEED

A `SimDisk` behind the kernel: what is not synced is lost by `power_cut`, sector by sector and
name by name, as hostile as `ultraengine.testing.sim_image` describes.  kill -9 alone does not
test syncs, because the kernel's page cache survives it.

It is told what to do by extended attributes of the mount point, so that each order has
happened when `setxattr` returns:

    user.power_cut   any value   lose what is not synced; open descriptors get EIO
    user.kill_caches any value   forget clean pages, as after a long time
    user.fail_sync   a number    that many syncs go through, the next one fails (ATC'20)
    user.capacity    bytes       size of the disk from now on

Needs libfuse 3 (Debian: fuse3, libfuse3-3) and mfusepy.  It ends when it is unmounted.
"""

import errno
import itertools
import os
import stat
import sys
from typing import Any, Final

import mfusepy  # type: ignore[import-untyped]  # It publishes no types.

from ultraengine.ports import File
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_faults import FailedSync

BLOCK_BYTES: Final = 4096
ROOT: Final = "/"


class PowerCutFs(mfusepy.Operations):  # type: ignore[misc]  # The base has no types.
    """FUSE operations on a `SimDisk`; one thread."""

    use_ns = True

    def __init__(self, seed: int) -> None:
        self._disk = SimDisk(seed, capacity=1 << 32)
        self._handles: dict[int, File] = {}
        self._numbers = itertools.count(1)

    def init_with_config(self, conn_info: object, config_3: Any) -> None:
        # Nothing may stay in the kernel's caches: the simulated cache is the one under test.
        config_3.direct_io = 1
        config_3.entry_timeout = config_3.attr_timeout = config_3.negative_timeout = 0
        # Without it an open file that is removed would be renamed to .fuse_hidden instead.
        config_3.hard_remove = 1

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        name = path[1:]
        if fh in self._handles:
            return self._stat(stat.S_IFREG | 0o644, self._handles[fh].size())
        if not self._disk.exists(name):
            raise mfusepy.FuseOSError(errno.ENOENT)
        if self._disk.is_directory(name):
            return self._stat(stat.S_IFDIR | 0o755, BLOCK_BYTES)
        file = self._disk.open(name)
        try:
            return self._stat(stat.S_IFREG | 0o644, file.size())
        finally:
            file.close()

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *self._disk.list(path[1:])]

    def mkdir(self, path: str, mode: int) -> int:
        self._disk.make_directory(path[1:])
        return 0

    def unlink(self, path: str) -> int:
        self._disk.remove(path[1:])
        return 0

    def rename(self, old: str, new: str) -> int:
        self._disk.rename(old[1:], new[1:])
        return 0

    def create(self, path: str, mode: int, fi: object = None) -> int:
        return self._handle(self._disk.open(path[1:], create=True, write=True))

    def open(self, path: str, flags: int) -> int:
        writing = flags & os.O_ACCMODE != os.O_RDONLY
        return self._handle(self._disk.open(path[1:], write=writing))

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return self._handles[fh].pread(size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._handles[fh].pwrite(data, offset)
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        if fh in self._handles:
            self._handles[fh].truncate(length)
            return 0
        file = self._disk.open(path[1:], write=True)
        try:
            file.truncate(length)
        finally:
            file.close()
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._handles[fh].sync()
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        self._disk.sync_directory(path[1:])
        return 0

    def release(self, path: str, fh: int) -> int:
        self._handles.pop(fh).close()
        return 0

    def utimens(self, path: str, times: object = None) -> int:
        return 0  # Times are not kept; programs that set them need no more than this.

    def statfs(self, path: str) -> dict[str, int]:
        blocks, free = self._disk.capacity // BLOCK_BYTES, self._disk.free_bytes() // BLOCK_BYTES
        sizes = {"f_bsize": BLOCK_BYTES, "f_frsize": BLOCK_BYTES, "f_namemax": 255}
        return {**sizes, "f_blocks": blocks, "f_bfree": free, "f_bavail": free}

    def setxattr(self, path: str, name: str, value: bytes, options: int, position: int = 0) -> int:
        if path != ROOT:
            raise mfusepy.FuseOSError(errno.ENOTSUP)
        match name:
            case "user.power_cut":
                self._disk = self._disk.power_cut()
            case "user.kill_caches":
                self._disk.drop_caches()
            case "user.fail_sync":
                self._disk.inject(FailedSync(), "sync", after=int(value))
            case "user.capacity":
                self._disk.capacity = int(value)
            case _:
                raise mfusepy.FuseOSError(errno.ENOTSUP)
        return 0

    def _handle(self, file: File) -> int:
        number = next(self._numbers)
        self._handles[number] = file
        return number

    @staticmethod
    def _stat(mode: int, size: int) -> dict[str, Any]:
        blocks = -(-size // 512)
        return {"st_mode": mode, "st_nlink": 1, "st_size": size, "st_blocks": blocks}


if __name__ == "__main__":
    mfusepy.FUSE(PowerCutFs(int(sys.argv[2])), sys.argv[1], foreground=True, nothreads=True)
