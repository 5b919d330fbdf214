"""Work in a forked child: it sees memory as it was at the fork, and the parent goes on.

Rules of the child (requirement 001 §2.2: no pause of the writer):

* It runs one function and ends in `os._exit`: no `atexit`, no flush of inherited buffers, no
  event loop, no logging, no lock that another thread may have held at the fork.
* It closes every inherited descriptor but its report, so that no socket, lock or log file
  outlives the parent through it, and is killed by the kernel when the parent's thread ends.
* Termination signals have their default action, and the parent's wake-up descriptor is gone:
  a signal to the process group ends the child and nothing else.
* Its report is one message on a pipe; a report that is not whole is no report.

The parent waits for a pidfd (Linux >= 5.3) on its event loop and reaps the child itself.
"""

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Final, NoReturn

import msgspec

from ultraengine.snapshot.errors import SnapshotFailed
from ultraengine.snapshot.files import Written
from ultraengine.snapshot.image import Image

REPORT_BYTES_MAX: Final = 4096
"""PIPE_BUF: a report is written in one piece and never waits for its reader."""
NICE: Final = 5
"""The writer of the log goes before the child where processors are short."""
DESCRIPTORS_MAX: Final = 1 << 20
_PR_SET_PDEATHSIG: Final = 1
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class _Report(msgspec.Struct, frozen=True):
    written: Written | None = None
    problem: str = ""


_REPORT: Final = msgspec.msgpack.Decoder(_Report)


def fork_is_available() -> bool:
    """Whether this system has what a forked snapshot needs."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


class Child:
    """A running child, from the parent's side."""

    def __init__(self, pid: int, report: int) -> None:
        self.pid: Final = pid
        self._report = report
        self._pidfd = os.pidfd_open(pid)

    async def result(self, timeout_s: float) -> Written:
        """What the child reports.  Raises `SnapshotFailed` for every other end.

        However this ends, also by cancellation, the child is gone and reaped afterwards.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._pidfd, _settle, ended)
        try:
            async with asyncio.timeout(timeout_s):
                await ended
        except TimeoutError:
            raise SnapshotFailed(f"the child had not ended after {timeout_s:.0f} s") from None
        finally:
            loop.remove_reader(self._pidfd)
            how, report = self._reap(kill=not ended.done() or ended.cancelled())
        return _written(how, report)

    def abandon(self) -> None:
        """End the child at once; for callers that will not wait."""
        self._reap(kill=True)

    def _reap(self, *, kill: bool) -> tuple[str, bytes]:
        """End the child if it must be, take its exit status and its report."""
        try:
            if kill:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            try:
                _, status = os.waitpid(self.pid, 0)
                code = os.waitstatus_to_exitcode(status)
                how = f"signal {-code}" if code < 0 else f"status {code}"
            except ChildProcessError:
                how = "a status that somebody else has taken"
            return how, os.read(self._report, REPORT_BYTES_MAX)
        finally:
            os.close(self._pidfd)
            os.close(self._report)


def _settle(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


def _written(how: str, report: bytes) -> Written:
    if not report:
        raise SnapshotFailed(f"the child ended with {how} and without a report")
    try:
        found = _REPORT.decode(report)
    except msgspec.DecodeError as problem:
        raise SnapshotFailed(f"the child ended with {how}; its report: {problem}") from None
    if found.written is None:
        raise SnapshotFailed(f"the child could not do it: {found.problem}")
    return found.written


_is_child = False
"""Set in a child, before its work begins."""


def tidy_before(make: Callable[[], Image] | None) -> Callable[[], Image] | None:
    """`make`, which in a child first frees the image that it made before.

    Images hold themselves in cycles, and a child makes too few objects for the collector to run
    often enough by itself: by the end it would have held them all.
    """
    if make is None:
        return None

    def tidied() -> Image:
        if _is_child:
            gc.collect()
        return make()

    return tidied


def fork(
    work: Callable[[], Written], *, quiesce: Callable[[], AbstractContextManager[object]]
) -> Child:
    """Start `work` in a child.  Returns in the parent as soon as the kernel has forked.

    `quiesce` gives a context in which no other thread holds a lock that `work` may need.
    Raises OSError when there is no process or memory for it.
    """
    libc = ctypes.CDLL(None)
    read_end, write_end = os.pipe()
    parent = os.getpid()
    try:
        with quiesce():
            # A signal between the fork and the child's first steps must not run the parent's
            # handlers in the child: they would wake the parent's loop through a shared pipe.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            try:
                pid = os.fork()
                if pid == 0:
                    _run(work, libc=libc, parent=parent, report=write_end)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    return Child(pid, read_end)


def _apart(work: Callable[[], Written]) -> Written:
    """Do `work` on a thread of its own: the C library gives it fresh memory to allocate from.

    On the main thread it would take the gaps between the parent's objects, one after the other,
    and so copy every page that has one.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def _run(work: Callable[[], Written], *, libc: ctypes.CDLL, parent: int, report: int) -> NoReturn:
    """The child's whole life."""
    status = 1
    try:
        # A collection would write into the head of every object that the parent had and copy its
        # page, so those are kept out of it; what the child makes itself has to be freed.
        gc.freeze()
        global _is_child  # noqa: PLW0603  (true of this process for the rest of its life)
        _is_child = True
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == parent:
            # Its number may soon be that of the snapshot's own file.
            signal.set_wakeup_fd(-1)
            for each in _SIGNALS:
                signal.signal(each, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.closerange(3, report)
            os.closerange(report + 1, min(os.sysconf("SC_OPEN_MAX"), DESCRIPTORS_MAX))
            os.nice(NICE)
            os.write(report, msgspec.msgpack.encode(_Report(written=_apart(work))))
            status = 0
    except BaseException as problem:  # noqa: BLE001  (a child has nobody to raise to)
        text = f"{type(problem).__name__}: {problem}"[: REPORT_BYTES_MAX // 8]
        os.write(report, msgspec.msgpack.encode(_Report(problem=text)))
    finally:
        os._exit(status)
