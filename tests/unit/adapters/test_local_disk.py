"""What only a real file system can show: its errors, its locks, its permissions."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ultraengine.ports import DiskFull
from ultraengine_adapters.local.disk import LocalDisk, LocalFile
from ultraengine_adapters.local.paths import full_disk_is_named

HOLD_LOCK = """
import sys
from pathlib import Path
from ultraengine_adapters.local.disk import LocalDisk
lock = LocalDisk(Path(sys.argv[1])).lock("LOCK")
print("held", flush=True)
sys.stdin.read()
"""


def test_no_space_is_disk_full_with_its_errno() -> None:
    file = LocalFile(os.open("/dev/full", os.O_RDWR))
    with pytest.raises(DiskFull) as full:
        file.pwrite(b"x", 0)
    assert full.value.errno == errno.ENOSPC
    file.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_used_up_quota_is_disk_full_too(code: int) -> None:
    with pytest.raises(DiskFull) as full, full_disk_is_named():
        raise OSError(code, "reason", "name")
    assert (full.value.errno, full.value.strerror, full.value.filename) == (code, "reason", "name")


def test_any_other_error_keeps_its_kind() -> None:
    with pytest.raises(PermissionError) as refused, full_disk_is_named():
        raise OSError(errno.EACCES, "reason")
    assert not isinstance(refused.value, DiskFull)


def test_a_sync_error_is_not_softened_to_disk_full() -> None:
    reading, writing = os.pipe()
    file = LocalFile(writing)
    with pytest.raises(OSError, match="Invalid argument") as failed:
        file.sync()
    assert not isinstance(failed.value, DiskFull)
    file.close()
    os.close(reading)


def test_the_root_is_made_with_its_parents(tmp_path: Path) -> None:
    LocalDisk(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    LocalDisk(tmp_path / "a" / "b" / "c")


def test_a_file_in_place_of_the_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileExistsError):
        LocalDisk(tmp_path / "file")


def test_files_are_not_readable_for_everyone(tmp_path: Path) -> None:
    disk = LocalDisk(tmp_path)
    disk.open("x", create=True, write=True).close()
    disk.lock("LOCK").release()
    assert (tmp_path / "x").stat().st_mode & 0o007 == 0
    assert (tmp_path / "LOCK").stat().st_mode & 0o007 == 0


def test_a_lock_keeps_other_processes_out_until_the_holder_is_killed(tmp_path: Path) -> None:
    disk = LocalDisk(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError):
            disk.lock("LOCK")
        holder.kill()
        holder.wait()
        disk.lock("LOCK").release()


def test_a_refused_lock_leaks_no_descriptor(tmp_path: Path) -> None:
    disk = LocalDisk(tmp_path)
    held = disk.lock("LOCK")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        with pytest.raises(BlockingIOError):
            disk.lock("LOCK")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    held.release()


def test_a_short_count_is_followed_by_a_write_of_the_rest(tmp_path: Path) -> None:
    # Under a file size limit the kernel writes up to it and returns a short count; only the
    # write of the rest fails.
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from ultraengine_adapters.local.disk import LocalDisk\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "file = LocalDisk(Path(sys.argv[1])).open('x', create=True, write=True)\n"
        "try:\n"
        "    file.pwrite(b'y' * 20_000, 0)\n"
        "except OSError as error:\n"
        "    print(error.errno, file.size())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.split() == [str(errno.EFBIG), "10000"]


def test_a_read_that_the_kernel_cuts_short_is_continued() -> None:
    # The kernel hands this file out in pages, however much is asked for.
    path = Path("/proc/kallsyms")
    descriptor = os.open(path, os.O_RDONLY)
    assert len(os.pread(descriptor, 100_000, 0)) < 100_000
    assert LocalFile(descriptor).pread(100_000, 0) == path.read_bytes()[:100_000]
    os.close(descriptor)
