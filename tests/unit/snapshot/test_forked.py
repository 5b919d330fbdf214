"""The child of a fork from both sides: what it never begins, and ends that come at bad moments."""

import asyncio
import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ultraengine.snapshot.errors import SnapshotFailed
from ultraengine.snapshot.files import Written
from ultraengine.snapshot.forked.driver import Child, _run, fork


def descriptors() -> list[str]:
    return sorted(each.name for each in Path("/proc/self/fd").iterdir())


def nothing() -> Written:
    raise OSError("there is nothing to write")


def test_a_child_whose_parent_is_gone_does_not_begin(tmp_path: Path) -> None:
    """Else it would write into a directory that the next process has taken over."""
    touched = tmp_path / "touched"

    def work() -> Written:
        touched.touch()
        return nothing()

    reading, writing = os.pipe()
    libc = ctypes.CDLL(None)
    pid = os.fork()
    if pid == 0:
        _run(work, libc=libc, parent=os.getpid(), report=writing)
    os.close(writing)
    _, status = os.waitpid(pid, 0)
    assert os.read(reading, 1) == b""
    os.close(reading)
    assert os.waitstatus_to_exitcode(status) == 1
    assert not touched.exists()


def test_a_fork_that_cannot_be_made_leaves_no_descriptor() -> None:
    @contextlib.contextmanager
    def never_quiet() -> Iterator[None]:
        raise BlockingIOError("no process is left")
        yield

    before = descriptors()
    with pytest.raises(BlockingIOError):
        fork(nothing, quiesce=never_quiet)
    assert descriptors() == before


async def test_a_report_that_is_not_whole_is_no_report() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"\x82\xa7wri")
    os.close(writing)
    process = await asyncio.to_thread(subprocess.Popen, ["true"])
    with pytest.raises(SnapshotFailed, match=r"ended with status 0; its report: .*truncated"):
        await Child(process.pid, reading).result(60.0)
    process.returncode = 0  # Its status is taken.


async def test_a_child_that_ends_in_the_turn_in_which_its_wait_is_cancelled_is_reaped() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    child = fork(nothing, quiesce=contextlib.nullcontext)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222  (it ends at once)
    waiting = asyncio.create_task(child.result(60.0))
    await asyncio.sleep(0)  # It watches the child; its end is seen at the next look.
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0)
    assert told == []
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)  # noqa: ASYNC222  (it does not wait)
