"""The log's threads on a real directory: coalescing, failures, a slow disk, a stop."""

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.log.log_world import LIMITS, SECRETS, START, World, options

from ultraengine.log.driver import Log, Written
from ultraengine.log.frame import FrameDraft, FrameKind
from ultraengine.model.limits import MIB, Limits
from ultraengine.ports import Disk
from ultraengine.testing.sim_clock import SimClock, SimRandom
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_faults import FailedSync, Raises, Stalls
from ultraengine.testing.sim_trace import Write
from ultraengine_adapters.local.disk import LocalDisk

PATIENCE_S = 30.0


def wait_until(holds: Callable[[], bool]) -> None:
    """Return when it holds; fail when it never does."""
    pause = threading.Event()
    for _ in range(round(PATIENCE_S / 0.002)):
        if holds():
            return
        pause.wait(0.002)
    raise AssertionError("it never held")


class Threaded:
    """A log with its threads running."""

    def __init__(self, disk: Disk, limits: Limits = LIMITS, **changes: Any) -> None:
        self.log = Log.open(
            disk, SimClock(), SimRandom(1), SECRETS, options(limits=limits, **changes)
        )
        self.failure: list[BaseException] = []
        self.failed = threading.Event()
        self.log.start(self._fail)
        self.offset = int(self.log.recovered.end_offset)

    def _fail(self, error: BaseException) -> None:
        self.failure.append(error)
        self.failed.set()

    def queue(self, size: int = 10, *, sync: bool = True) -> "Answer":
        """Queue one command."""
        answer = Answer()
        draft = FrameDraft(FrameKind.COMMANDS, self.offset, 1, START + self.offset, b"x" * size)
        self.offset += 1
        self.log.write([draft], answer, sync=sync)
        return answer


class Answer:
    """Waits for one write."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.written: Written | None = None
        self.thread = ""

    def __call__(self, written: Written) -> None:
        self.written = written
        self.thread = threading.current_thread().name
        self._event.set()

    def get(self) -> Written:
        assert self._event.wait(PATIENCE_S)
        assert self.written is not None
        return self.written

    @property
    def there(self) -> bool:
        return self._event.is_set()


def test_writes_are_answered_on_the_flush_thread_and_survive_a_stop(tmp_path: Path) -> None:
    threaded = Threaded(LocalDisk(tmp_path))
    answers = [threaded.queue(size=500) for _ in range(100)]
    ends = [int(answer.get().end_sequence) for answer in answers]
    assert ends == list(range(1, 101))
    assert {answer.thread for answer in answers} == {"log-flush"}
    assert threaded.log.idle
    threaded.log.close(clean=True)
    again = Threaded(LocalDisk(tmp_path))
    assert again.log.recovered.end_offset == 100
    assert len(list(again.log.reader().frames(0))) == 100
    again.log.close(clean=True)
    assert not [name for name in LocalDisk(tmp_path).list("log") if name.startswith("prepare")]


def test_a_clean_stop_writes_what_is_queued(tmp_path: Path) -> None:
    threaded = Threaded(LocalDisk(tmp_path))
    answers = [threaded.queue() for _ in range(20)]
    threaded.log.close(clean=True)
    assert all(answer.there for answer in answers)
    again = Threaded(LocalDisk(tmp_path))
    assert again.log.recovered.end_offset == 20
    again.log.close(clean=False)


def test_an_unclean_stop_writes_nothing_more_and_releases_the_lock(tmp_path: Path) -> None:
    threaded = Threaded(LocalDisk(tmp_path))
    threaded.queue().get()
    threaded.log.close(clean=False)
    assert not threaded.queue().there
    again = Threaded(LocalDisk(tmp_path))
    assert again.log.recovered.end_offset == 1
    again.log.close(clean=True)


def test_an_unclean_stop_leaves_what_is_queued_unwritten() -> None:
    disk = SimDisk()
    threaded = Threaded(disk, msgspec.structs.replace(LIMITS, segments_prepared=0, reserve_bytes=0))
    stall = threading.Event()
    disk.inject(Stalls(stall), "sync")
    first = threaded.queue()
    wait_until(threaded.log._queue.empty)
    later = [threaded.queue() for _ in range(5)]
    closing = threading.Thread(target=threaded.log.close, kwargs={"clean": False})
    closing.start()
    wait_until(lambda: threaded.log._stopping)
    stall.set()
    closing.join(PATIENCE_S)
    assert first.there
    assert not any(answer.there for answer in later)
    assert World(disk.kill()).log.recovered.end_offset == 1


def test_what_is_queued_during_a_flush_shares_the_next_one() -> None:
    disk = SimDisk(record=True)
    threaded = Threaded(disk, msgspec.structs.replace(LIMITS, segments_prepared=0, reserve_bytes=0))
    stall = threading.Event()
    disk.inject(Stalls(stall), "sync")
    first = threaded.queue()
    wait_until(threaded.log._queue.empty)
    assert not threaded.log.idle
    later = [threaded.queue() for _ in range(10)]
    assert not first.there
    before = len(disk.trace)
    stall.set()
    assert [int(answer.get().durable_end) for answer in later] == [11] * 10
    assert first.get().durable_end == 1
    kinds = [type(one).__name__ for one in disk.trace[before:]]
    assert kinds == ["SyncFile", "Write", "SyncFile"]
    assert [int(answer.get().end_sequence) for answer in later] == list(range(2, 12))
    threaded.log.close(clean=True)


def test_a_failed_sync_is_reported_once_and_nothing_is_written_after_it() -> None:
    disk = SimDisk()
    threaded = Threaded(disk, msgspec.structs.replace(LIMITS, segments_prepared=0, reserve_bytes=0))
    threaded.queue().get()
    disk.inject(FailedSync(), "sync")
    lost = threaded.queue()
    assert threaded.failed.wait(PATIENCE_S)
    after = threaded.queue()
    threaded.log.close(clean=True)
    assert len(threaded.failure) == 1
    assert isinstance(threaded.failure[0], OSError)
    assert not lost.there
    assert not after.there
    world = World(disk.kill())
    assert world.log.recovered.end_offset in {1, 2}


def test_a_failure_of_the_keeper_ends_the_log_too() -> None:
    disk = SimDisk()
    disk.inject(Raises(errno.EIO), "open", "RESERVE", after=1)
    threaded = Threaded(disk)
    assert threaded.failed.wait(PATIENCE_S)
    assert not threaded.queue().there
    threaded.log.close(clean=True)


def test_a_full_disk_is_noticed_and_survived() -> None:
    disk = SimDisk()
    threaded = Threaded(disk)
    wait_until(lambda: not threaded.log._space.missing)
    disk.capacity = 1
    offset = 0
    while True:
        offset = threaded.offset
        written = threaded.queue(size=2000).get()
        if written.error is not None:
            break
    assert threaded.log.read_only
    disk.capacity = 1 << 40
    threaded.offset = offset
    wait_until(lambda: not threaded.log.read_only)
    assert threaded.queue(size=2000).get().error is None
    assert not threaded.failure
    threaded.log.close(clean=True)


def test_a_fork_finds_the_threads_quiet_while_segments_are_being_prepared() -> None:
    disk = SimDisk(record=True)
    limits = Limits(segment_bytes=8 * MIB, reserve_bytes=4 * MIB, segments_prepared=3)
    threaded = Threaded(disk, limits)
    for _ in range(20):
        answers = [threaded.queue()]
        with threaded.log.quiet():
            before = len(disk.trace)
            threading.Event().wait(0.002)
            assert len(disk.trace) == before
        assert answers[0].get().error is None
    threaded.log.close(clean=True)
    assert not threaded.failure


def test_a_stop_does_not_wait_for_a_segment_to_be_filled() -> None:
    disk = SimDisk(record=True)
    stall = threading.Event()
    disk.inject(Stalls(stall), "sync", "log/prepare-1.tmp")
    limits = Limits(segment_bytes=32 * MIB, reserve_bytes=0, segments_prepared=1)
    threaded = Threaded(disk, limits)
    threaded.queue().get()
    closing = threading.Thread(target=threaded.log.close, kwargs={"clean": True})
    closing.start()
    wait_until(lambda: threaded.log._stopping)
    stall.set()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    assert not threaded.failure
    chunks = [one for one in disk.trace if isinstance(one, Write) and len(one.extent.data) == MIB]
    assert len(chunks) < 32 + 10
    assert not [name for name in disk.list("log") if name.startswith("prepare")]
    world = World(disk.kill())
    assert world.log.recovered.end_offset == 1


def test_readers_in_other_threads_see_only_whole_and_durable_frames(tmp_path: Path) -> None:
    threaded = Threaded(LocalDisk(tmp_path))
    reader = threaded.log.reader()
    wrong: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        seen = 0
        try:
            while not done.is_set() or seen < reader.durable_end:
                for frame in reader.frames(seen):
                    assert frame.header.sequence == seen
                    assert frame.payload == b"x" * 700
                    seen += 1
                if seen:
                    assert reader.chain_at(seen - 1) is not None
        except BaseException as error:  # noqa: BLE001  (reported by the test's own thread)
            wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        for answer in [threaded.queue(size=700) for _ in range(20)]:
            answer.get()
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
    threaded.log.close(clean=True)


@pytest.mark.parametrize("clean", [True, False])
def test_closing_twice_is_closing_once(tmp_path: Path, clean: bool) -> None:
    threaded = Threaded(LocalDisk(tmp_path))
    threaded.queue().get()
    threaded.log.close(clean=clean)
    threaded.log.close(clean=not clean)
    Threaded(LocalDisk(tmp_path)).log.close(clean=True)
