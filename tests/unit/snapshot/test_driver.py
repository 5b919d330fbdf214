"""Snapshots of an image that goes on changing, on a real disk and with real processes."""

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ShardId
from ultraengine.snapshot import driver
from ultraengine.snapshot.codec import Codecs
from ultraengine.snapshot.errors import SnapshotBusy, SnapshotFailed, SnapshotRefused
from ultraengine.snapshot.files import ChainFile, opened, verify_chain
from ultraengine.snapshot.image import Section
from ultraengine.snapshot.migrate import Migrations, Readable
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_faults import Raises, Stalls
from ultraengine.testing.sim_trace import SyncFile
from ultraengine.testing.snapshot_images import DictImage, ImageContract
from ultraengine_adapters.local.disk import LocalDisk

MODES = ["fork", "cooperative", "inline"]


class TestDictImage(ImageContract):
    def new_image(self) -> DictImage:
        return DictImage(pairs_per_chunk=2)

    def change(self, image: DictImage, seed: int) -> None:
        if seed % 5 == 4:
            image.remove((seed - 2) % 7, f"n{(seed - 2) % 3}")
        else:
            image.put(seed % 7, f"n{seed % 3}", str(seed).encode())


def files_in(disk: LocalDisk) -> list[str]:
    return list(disk.list("snapshots"))


def no_child_is_left() -> bool:
    """Whether no copy of this process runs, or waits to be buried, under it.

    Other tests of the same process may have started servers; these are other programs.
    """
    own = Path("/proc/self/cmdline").read_bytes()
    for tasks in Path("/proc/self/task").iterdir():
        for child in (tasks / "children").read_text().split():
            # Of a zombie nothing can be read.
            if Path(f"/proc/{child}/cmdline").read_bytes() in {own, b""}:
                return False
    return True


def rot(root: Path, name: str, *, at: float = 0.5) -> None:
    path = root / "shard" / "snapshots" / name
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("mode", MODES)
async def test_what_is_loaded_is_what_was_there_at_the_cut(
    harness: Any, local: LocalDisk, mode: Any
) -> None:
    bench = harness(local, master_key="snapshots")
    bench.driver.recover()
    bench.fill(500)
    at_cut, changes, position = bench.image.content(), bench.image.changes, bench.position()
    taking = bench.driver.take(bench.image, position, mode)
    bench.fill(300, seed=9)
    for slot in range(20):
        bench.remove(slot, f"n{slot}")
    taken = await taking
    assert taken.new
    assert taken.entry.full
    assert taken.entry.encrypted
    assert taken.entry.state_hash == taken.entry.content_hash
    assert 0 <= taken.pause_s <= taken.duration_s
    restored, report = bench.restart(check_state_hash=True)
    assert restored == position
    assert bench.image.content() == at_cut
    assert bench.image.changes == changes
    assert [each.file for each in report.chain] == [taken.entry.file]
    assert report.state_hash_checked
    assert report.damaged == {}
    assert report.sections == taken.entry.sections
    assert bench.alarms == []


@pytest.mark.parametrize("mode", MODES)
async def test_increments_hold_what_came_between_their_cuts(
    harness: Any, local: LocalDisk, mode: Any
) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.fill(400)
    contents = []
    for round_ in range(4):
        contents.append(bench.image.content())
        taking = bench.driver.take(bench.image, bench.position(), mode)
        # These come after the cut, while the snapshot is being written.
        bench.fill(30, seed=100 + round_)
        bench.remove(round_, f"n{round_}")
        bench.put(60 + round_, "a slot that is new", b"")
        taken = await taking
        assert taken.entry.full == (round_ == 0)
        known = mode != "cooperative" or round_ == 0
        assert (taken.entry.state_hash is not None) == known
    assert bench.driver.increments == 3
    last = contents.pop()
    position, report = bench.restart(check_state_hash=True)
    assert bench.image.content() == last
    assert len(report.chain) == 4
    assert report.state_hash_checked == (mode != "cooperative")
    # The next increment stands on what was loaded.
    bench.fill(10, seed=77)
    before = bench.image.content()
    again = await bench.driver.take(bench.image, bench.position(), mode)
    assert again.entry.base is not None
    assert position is not None
    assert again.entry.base.sequence_end == position.sequence_end
    bench.restart()
    assert bench.image.content() == before


async def test_all_modes_write_the_same_sections(harness: Any, tmp_path: Path) -> None:
    hashes = []
    for mode in MODES:
        bench = harness(LocalDisk(tmp_path / mode))
        bench.driver.recover()
        bench.fill(300)
        full = await bench.driver.take(bench.image, bench.position(), mode)
        bench.fill(30, seed=5)
        increment = await bench.driver.take(bench.image, bench.position(), mode)
        hashes.append((full.entry.content_hash, increment.entry.content_hash))
    assert len(set(hashes)) == 1


def test_nothing_new_writes_nothing(harness: Any, local: LocalDisk) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.fill(10)
    first = bench.take()
    again = bench.take()
    assert (again.new, again.entry) == (False, first.entry)
    assert len(bench.driver.entries) == 1
    forced = bench.take("full")
    assert forced.new
    assert forced.entry.full
    assert forced.entry.number == first.entry.number + 1


async def test_nothing_new_is_told_by_take_too(harness: Any, local: LocalDisk) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.fill(10)
    first = await bench.driver.take(bench.image, bench.position(), "inline")
    again = await bench.driver.take(bench.image, bench.position(), "fork")
    assert (again.new, again.entry) == (False, first.entry)


def test_chains_are_bounded_and_old_ones_go(harness: Any, local: LocalDisk) -> None:
    bench = harness(local, increments_max=2, increments_share_max=100.0, fulls_kept=2)
    bench.driver.recover()
    kinds = []
    for round_ in range(8):
        bench.fill(5, seed=round_)
        kinds.append(bench.take().entry.full)
    assert kinds == [True, False, False, True, False, False, True, False]
    bench.fill(5)
    assert bench.take("increment").entry.full is False
    bench.fill(5)
    assert bench.take("increment").entry.full is True
    listed = {each.file for each in bench.driver.entries}
    assert sum(each.full for each in bench.driver.entries) == 2
    assert listed | {"MANIFEST"} == set(files_in(local))
    floor = bench.driver.log_floor()
    assert floor.full
    assert floor.sequence_end == min(each.sequence_end for each in bench.driver.entries)
    assert bench.driver.newest.number == 9 + 1


def test_increments_that_outgrow_their_full_image_end_the_chain(
    harness: Any, local: LocalDisk
) -> None:
    bench = harness(local, increments_share_max=0.5)
    bench.driver.recover()
    bench.fill(50)
    assert bench.take().entry.full
    bench.fill(500, seed=1)
    assert not bench.take().entry.full
    bench.fill(1)
    assert bench.take().entry.full


def test_a_dropped_slot_asks_for_a_full_image(harness: Any, local: LocalDisk) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.fill(5)
    bench.take()
    bench.driver.require_full()
    bench.fill(5)
    assert bench.take("increment").entry.full


@pytest.mark.parametrize("at", [0.0, 0.5, 0.999])
def test_a_damaged_newest_snapshot_falls_back_to_the_one_before(
    harness: Any, local: LocalDisk, tmp_path: Path, at: float
) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.fill(200)
    bench.take()
    bench.fill(20, seed=3)
    older, position = bench.image.content(), bench.position()
    bench.take()
    bench.fill(20, seed=4)
    newest = bench.take().entry.file
    rot(tmp_path, newest, at=at)
    restored, report = bench.restart()
    assert restored == position
    assert bench.image.content() == older
    assert list(report.damaged) == [newest]
    assert newest in report.damaged[newest]
    assert [event for event, _ in bench.alarms] == ["snapshot.damaged"]
    assert bench.alarms[0][1]["file"] == newest
    assert newest not in files_in(local)
    assert local.list("broken") == [f"snapshot-{newest}"]
    # It is forgotten, not met again; and the next increment stands on the older one.
    bench.alarms.clear()
    _, report = bench.restart()
    assert report.damaged == {}
    assert bench.alarms == []
    bench.fill(1)
    assert bench.take().entry.base.sequence_end == position.sequence_end


def test_with_every_snapshot_damaged_the_image_is_empty_and_says_so(
    harness: Any, local: LocalDisk, tmp_path: Path
) -> None:
    bench = harness(local)
    bench.driver.recover()
    names: list[str] = []
    for kind in ("full", "full", "increment"):
        bench.fill(50, seed=len(names))
        names.append(bench.take(kind).entry.file)
    for name in names:
        rot(tmp_path, name)
    position, report = bench.restart()
    assert position is None
    assert report.chain == ()
    # Without its full image no increment is even tried.
    assert list(report.damaged) == [names[1], names[0]]
    assert bench.image.content() == {}
    bench.fill(3)
    assert bench.take().entry.full
    assert files_in(local) == [bench.driver.newest.file, "MANIFEST"]


def test_no_increment_is_put_on_a_base_that_rots(
    harness: Any, local: LocalDisk, tmp_path: Path
) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.fill(50)
    rot(tmp_path, bench.take().entry.file)
    bench.fill(5, seed=1)
    with pytest.raises(SnapshotFailed, match="is damaged at byte"):
        bench.take()
    assert bench.take().entry.full


def test_a_file_swapped_for_another_good_one_is_not_taken_for_it(
    harness: Any, local: LocalDisk, tmp_path: Path
) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.fill(5)
    first = bench.take().entry.file
    bench.fill(5, seed=1)
    second = bench.take("full").entry.file
    (tmp_path / "shard/snapshots" / second).write_bytes(
        (tmp_path / "shard/snapshots" / first).read_bytes()
    )
    _, report = bench.restart()
    assert "another file than listed" in report.damaged[second]
    assert report.chain[0].file == first


def test_a_listed_file_that_is_gone_is_an_alarm_and_no_end(
    harness: Any, local: LocalDisk, tmp_path: Path
) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.fill(5)
    kept = bench.take().entry
    bench.fill(5, seed=1)
    gone = bench.take("full").entry.file
    (tmp_path / "shard/snapshots" / gone).unlink()
    position, report = bench.restart()
    assert ("snapshot.missing", {"file": gone}) in bench.alarms
    assert report.chain == (kept,)
    assert position is not None
    assert position.sequence_end == kept.sequence_end


@pytest.mark.parametrize("how", ["gone", "rotten"])
def test_a_lost_manifest_is_made_anew_from_what_verifies(
    harness: Any, local: LocalDisk, tmp_path: Path, how: str
) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.fill(100)
    bench.take()
    bench.fill(20, seed=1)
    content = bench.image.content()
    good = bench.take().entry
    bench.fill(20, seed=2)
    rotten = bench.take().entry.file
    rot(tmp_path, rotten)
    if how == "gone":
        local.remove("snapshots/MANIFEST")
    else:
        rot(tmp_path, "MANIFEST")
    _, report = bench.restart()
    assert report.chain[-1] == good
    assert bench.image.content() == content
    events = [event for event, _ in bench.alarms]
    assert "snapshot.manifest_rebuilt" in events
    assert ("snapshot.manifest_damaged" in events) == (how == "rotten")
    assert local.list("broken") == [f"snapshot-{rotten}"]
    bench.fill(1)
    assert bench.take().entry.number > good.number + 1


def test_leftovers_of_a_crash_are_removed_and_their_numbers_not_used_again(
    harness: Any, local: LocalDisk, tmp_path: Path
) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.fill(5)
    entry = bench.take().entry
    directory = tmp_path / "shard/snapshots"
    unlisted = f"{7:020d}-{41:010d}.full"
    (directory / unlisted).write_bytes(b"complete but never listed")
    (directory / "x.full.tmp").write_bytes(b"half")
    (directory / "notes.txt").write_bytes(b"somebody's own")
    bench.restart()
    assert files_in(local) == [entry.file, "MANIFEST", "notes.txt"]
    bench.fill(1)
    assert bench.take().entry.number == 42


@pytest.mark.parametrize("mode", MODES)
async def test_one_at_a_time(harness: Any, local: LocalDisk, mode: Any) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.fill(50)
    taking = bench.driver.take(bench.image, bench.position(), "fork")
    assert bench.driver.busy
    with pytest.raises(SnapshotBusy):
        bench.driver.take(bench.image, bench.position(), mode)
    with pytest.raises(SnapshotBusy):
        bench.driver.compact()
    await taking
    assert not bench.driver.busy


def test_without_recovery_nothing_is_taken(harness: Any, local: LocalDisk) -> None:
    bench = harness(local)
    with pytest.raises(InvariantBroken, match="recovers"):
        bench.take()


def test_an_image_does_not_go_back(harness: Any, local: LocalDisk) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.fill(5)
    bench.take()
    bench.sequence -= 1
    with pytest.raises(InvariantBroken, match="never goes back"):
        bench.take()
    bench.sequence += 2
    with pytest.raises(InvariantBroken, match="snapshots itself"):
        bench.driver.take_inline(
            bench.image, msgspec.structs.replace(bench.position(), shard=ShardId(4)), kind="full"
        )


class OddImage(DictImage):
    """Does something odd in the process that reads all its sections."""

    def __init__(self, odd: Any) -> None:
        super().__init__()
        self.odd = odd

    def sections(self, *, full: bool) -> Iterator[Section]:
        self.odd()
        return super().sections(full=full)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise OSError("the dump is broken")


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (die, "signal 9 and without a report"),
        (fail, "the dump is broken"),
        (lambda: os._exit(0), "status 0 and without a report"),
        (lambda: time.sleep(60), "had not ended after"),
    ],
)
async def test_a_child_that_does_not_make_it_leaves_nothing(
    harness: Any, local: LocalDisk, odd: Any, reason: str
) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.fill(50)
    good = bench.take().entry
    bench.image.__class__ = OddImage
    bench.image.odd = odd
    bench.fill(50, seed=1)
    # Only the child that sleeps has to be short of time: no other may meet this limit.
    patient = bench.driver._options
    if "not ended" in reason:
        bench.driver._options = msgspec.structs.replace(patient, child_s_max=0.3)
    with pytest.raises(SnapshotFailed, match=reason):
        await bench.driver.take(bench.image, bench.position(), "fork")
    bench.driver._options = patient
    assert bench.driver.entries == (good,)
    assert files_in(local) == [good.file, "MANIFEST"]
    assert [event for event, _ in bench.alarms] == ["snapshot.failed"]
    assert not bench.driver.busy
    assert no_child_is_left()
    # What changed before the failed cut is not marked any more: only a full one is right.
    bench.image.odd = lambda: None
    bench.fill(5, seed=2)
    content = bench.image.content()
    taken = await bench.driver.take(bench.image, bench.position(), "fork", kind="increment")
    assert taken.entry.full
    bench.restart()
    assert bench.image.content() == content


async def test_a_report_counts_also_when_somebody_else_has_reaped_the_child(
    harness: Any, local: LocalDisk
) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.fill(50)
    taking = bench.driver.take(bench.image, bench.position(), "fork")
    pid, _ = os.waitpid(-1, 0)  # noqa: ASYNC222  (the thief)
    assert pid > 0
    assert (await taking).entry.full
    bench.image.__class__ = OddImage
    bench.image.odd = die
    bench.fill(1)
    taking = bench.driver.take(bench.image, bench.position(), "fork")
    os.waitpid(-1, 0)  # noqa: ASYNC222
    with pytest.raises(SnapshotFailed, match="somebody else has taken and without a report"):
        await taking


async def test_close_ends_the_child_and_clears_up(harness: Any, local: LocalDisk) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.image.__class__ = OddImage
    bench.image.odd = lambda: time.sleep(60)
    bench.fill(5)
    taking = bench.driver.take(bench.image, bench.position(), "fork")
    await bench.driver.close()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert no_child_is_left()
    assert files_in(local) == []
    assert not bench.driver.busy
    await bench.driver.close()


async def test_cancelling_the_wait_does_not_end_the_snapshot(
    harness: Any, local: LocalDisk
) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.fill(50)
    taking = bench.driver.take(bench.image, bench.position(), "fork")
    taking.cancel()
    async with asyncio.timeout(120):
        while bench.driver.busy:  # noqa: ASYNC110  (nobody is told when nobody waits)
            await asyncio.sleep(0.01)
    assert len(bench.driver.entries) == 1


async def test_the_child_keeps_no_descriptor_but_its_own(
    harness: Any, local: LocalDisk, tmp_path: Path
) -> None:
    """A lock or socket that lived on in the child would outlive a crashed parent."""
    found = tmp_path / "descriptors"

    def look() -> None:
        names = []
        for number in range(3, 256):
            with contextlib.suppress(OSError):
                names.append(str(Path(f"/proc/self/fd/{number}").readlink()))
        found.write_text("\n".join(names))

    bench = harness(local)
    bench.driver.recover()
    bench.image.__class__ = OddImage
    bench.image.odd = look
    bench.fill(5)
    held = local.lock("LOCK")
    with contextlib.closing(local.open("other", create=True, write=True)):
        await bench.driver.take(bench.image, bench.position(), "fork")
    held.release()
    text = found.read_text()
    assert "pipe:" in text
    assert "LOCK" not in text
    assert "other" not in text
    assert "socket" not in text
    assert "eventpoll" not in text


async def test_the_child_frees_its_own_garbage_and_leaves_the_parents_objects_alone(
    harness: Any, local: LocalDisk, tmp_path: Path
) -> None:
    """Scratch images hold themselves in cycles: unfreed, proving took as much memory again."""
    found = tmp_path / "alive"

    class Ring:
        def __init__(self) -> None:
            self.myself = self

    def look() -> None:
        rings = [weakref.ref(Ring()) for _ in range(20_000)]
        alive = sum(ring() is not None for ring in rings)
        found.write_text(f"{alive} {gc.get_freeze_count()}")

    bench = harness(local)
    bench.driver.recover()
    bench.image.__class__ = OddImage
    bench.image.odd = look
    bench.fill(5)
    await bench.driver.take(bench.image, bench.position(), "fork")
    alive, frozen = map(int, found.read_text().split())
    assert alive < 2_000
    assert frozen > 10_000


async def test_other_threads_are_quiet_exactly_around_the_fork(
    harness: Any, local: LocalDisk
) -> None:
    calls: list[tuple[str, int]] = []

    @contextlib.contextmanager
    def quiesce() -> Iterator[None]:
        calls.append(("in", os.getpid()))
        yield
        calls.append(("out", os.getpid()))

    bench = harness(local, driver={"quiesce": quiesce, "child_disk": lambda: local})
    bench.driver.recover()
    bench.fill(5)
    taking = bench.driver.take(bench.image, bench.position(), "fork")
    assert calls == [("in", os.getpid()), ("out", os.getpid())]
    await taking
    assert len(calls) == 2


async def test_signals_of_the_parent_are_its_own(harness: Any, local: LocalDisk) -> None:
    """SIGTERM to the child ends the child; the parent's handler is not run, nor woken."""
    loop = asyncio.get_running_loop()
    woken: list[int] = []
    loop.add_signal_handler(signal.SIGTERM, woken.append, 1)
    bench = harness(local)
    bench.driver.recover()
    bench.image.__class__ = OddImage

    def terminated() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    bench.image.odd = terminated
    bench.fill(5)
    try:
        with pytest.raises(SnapshotFailed, match="signal 15"):
            await bench.driver.take(bench.image, bench.position(), "fork")
        await asyncio.sleep(0.01)
        assert woken == []
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        assert signal.SIGTERM not in blocked
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def test_it_works_on_uvloop(harness: Any, local: LocalDisk) -> None:
    bench = harness(local)
    bench.driver.recover()

    async def both() -> None:
        bench.fill(50)
        await bench.driver.take(bench.image, bench.position(), "fork")
        bench.fill(50, seed=1)
        await bench.driver.take(bench.image, bench.position(), "cooperative")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(both())
    content = bench.image.content()
    bench.restart()
    assert bench.image.content() == content


class Forgetful(DictImage):
    """An image whose load loses something."""

    def load(self, section: Section) -> None:
        if section.slot != 7:
            super().load(section)


@pytest.mark.parametrize("mode", MODES)
async def test_a_snapshot_that_loads_to_another_state_does_not_count(
    harness: Any, local: LocalDisk, mode: Any
) -> None:
    bench = harness(local, new_image=Forgetful)
    bench.driver.recover()
    bench.fill(100)
    with pytest.raises(SnapshotFailed, match="loads to another state"):
        await bench.driver.take(bench.image, bench.position(), mode)
    assert bench.driver.entries == ()
    assert files_in(local) == []


@pytest.mark.parametrize("mode", MODES)
async def test_without_an_image_to_load_the_bytes_are_proved(
    harness: Any, local: LocalDisk, mode: Any
) -> None:
    bench = harness(local, new_image=None, hash_increments=False)
    bench.driver.recover()
    for round_ in range(2):
        bench.fill(50, seed=round_)
        await bench.driver.take(bench.image, bench.position(), mode)
    content = bench.image.content()
    assert bench.driver.entries[1].state_hash is None
    bench.restart()
    assert bench.image.content() == content


def test_a_proof_in_another_schema_compares_what_can_be_compared(
    harness: Any, local: LocalDisk
) -> None:
    """The hash of a dump says nothing about a dump in a newer schema."""
    bench = harness(local, new_image=lambda: DictImage(schema=2))
    bench.driver.recover()
    bench.fill(50)
    assert bench.take().entry.full


def test_a_file_with_another_footer_than_was_written_is_no_snapshot(
    samples: Any, local: LocalDisk
) -> None:
    local.make_directory("snapshots")
    with contextlib.closing(local.open("snapshots/x", create=True, write=True)) as file:
        file.pwrite(samples.file(samples.sections()), 0)
    path = ChainFile(path="snapshots/x")
    with opened(local, path, Codecs(), samples.key_of) as found:
        footer = found.footer
    assert not verify_chain(local, [path], Codecs(), samples.key_of, expected=footer)
    other = msgspec.structs.replace(footer, state_hash=bytes(32))
    with pytest.raises(SnapshotFailed, match="does not end with the footer"):
        verify_chain(local, [path], Codecs(), samples.key_of, expected=other)


class Unreadable(DictImage):
    """Cannot dump one slot."""

    def slot_sections(self, slot: int, *, full: bool) -> Iterator[Section]:
        if slot == 8:
            raise ZeroDivisionError("slot 8")
        return super().slot_sections(slot, full=full)


async def test_a_slot_that_cannot_be_read_ends_the_snapshot_and_not_the_command(
    harness: Any, local: LocalDisk
) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.fill(100)
    bench.image.__class__ = Unreadable
    for early in (True, False):
        taking = bench.driver.take(bench.image, bench.position(), "cooperative")
        if early:
            bench.put(8, "x", b"")  # Does not raise.
        with pytest.raises(SnapshotFailed, match="slot 8"):
            await taking
    assert bench.driver.entries == ()
    assert files_in(local) == []


async def test_a_cooperative_snapshot_is_given_up_before_it_takes_too_much_memory(
    harness: Any, local: LocalDisk
) -> None:
    bench = harness(local, captured_bytes_max=1000, rest_s=0.05)
    bench.driver.recover()
    bench.fill(2000)
    taking = bench.driver.take(bench.image, bench.position(), "cooperative")
    bench.fill(200, seed=1)
    with pytest.raises(SnapshotFailed, match="the most is 1000"):
        await taking
    bench.fill(1)
    small = await bench.driver.take(bench.image, bench.position(), "fork")
    assert small.entry.full


async def test_the_watch_is_set_for_as_long_as_the_cut_is_open(
    harness: Any, local: LocalDisk
) -> None:
    watched: list[Any] = []
    bench = harness(local, driver={"watch": watched.append})
    bench.driver.recover()
    bench.fill(20)
    taking = bench.driver.take(bench.image, bench.position(), "cooperative")
    assert watched == [bench.driver.before_slot_mutation]
    await taking
    assert watched == [bench.driver.before_slot_mutation, None]


async def test_close_ends_a_cooperative_snapshot_and_its_thread(
    harness: Any, local: LocalDisk
) -> None:
    bench = harness(local, turn_s=0.0, rest_s=0.01)
    bench.driver.recover()
    bench.fill(2000)
    taking = bench.driver.take(bench.image, bench.position(), "cooperative")
    await asyncio.sleep(0.03)
    await bench.driver.close()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert files_in(local) == []
    assert bench.driver.entries == ()


async def test_a_full_disk_fails_the_snapshot_and_keeps_the_old_ones(harness: Any) -> None:
    disk = SimDisk()
    bench = harness(disk, compress=False)
    bench.driver.recover()
    bench.fill(50)
    good = bench.take().entry
    disk.capacity = 80_000
    for number in range(200):
        bench.put(number % 50, f"big {number}", os.urandom(1000))
    for mode in ("inline", "cooperative"):
        with pytest.raises(SnapshotFailed, match="DiskFull"):
            await bench.driver.take(bench.image, bench.position(), mode)
        assert bench.driver.entries == (good,)
        assert list(disk.list("snapshots")) == [good.file, "MANIFEST"]
    disk.capacity = 10_000_000
    assert bench.take("increment").entry.full


def test_without_room_for_it_none_is_begun_and_the_marks_stay(harness: Any) -> None:
    disk = SimDisk()
    bench = harness(disk, free_bytes_min=100_000)
    bench.driver.recover()
    bench.fill(50)
    bench.take()
    bench.fill(50, seed=1)
    capacity, disk.capacity = disk.capacity, 50_000
    with pytest.raises(SnapshotFailed, match="a snapshot needs"):
        bench.take()
    disk.capacity = capacity
    assert bench.take().entry.base is not None
    content = bench.image.content()
    bench.restart()
    assert bench.image.content() == content


@pytest.mark.parametrize("call", ["sync", "rename", "sync_directory", "pwrite", "open"])
def test_any_error_of_the_disk_fails_the_snapshot(harness: Any, call: Any) -> None:
    disk = SimDisk()
    bench = harness(disk)
    bench.driver.recover()
    bench.fill(50)
    good = bench.take().entry
    bench.fill(5, seed=1)
    disk.inject(Raises(5), call)
    with pytest.raises(SnapshotFailed):
        bench.take()
    assert bench.driver.entries == (good,)
    content = bench.image.content()
    assert bench.take().entry.full
    bench.restart()
    assert bench.image.content() == content


def test_a_file_that_cannot_be_read_now_is_passed_over_and_kept(harness: Any) -> None:
    disk = SimDisk()
    bench = harness(disk)
    bench.driver.recover()
    bench.fill(50)
    older = bench.take().entry
    bench.fill(5, seed=1)
    newer = bench.take("full").entry
    disk.inject(Raises(5), "pread", f"snapshots/{newer.file}")
    _, report = bench.restart()
    assert report.chain == (older,)
    assert list(report.damaged) == [newer.file]
    assert newer in bench.driver.entries
    _, report = bench.restart()
    assert report.chain == (newer,)


def test_what_belongs_to_others_is_refused_and_not_called_damaged(
    harness: Any, local: LocalDisk
) -> None:
    bench = harness(local, cluster_uid=b"a" * 16, master_key="snapshots")
    bench.driver.recover()
    bench.fill(5)
    file = bench.take().entry.file
    bench.options["cluster_uid"] = b"b" * 16
    with pytest.raises(SnapshotRefused, match="is of cluster 6161"):
        bench.restart()
    bench.options["cluster_uid"] = bytes(16)
    bench.restart()
    bench.options["shard"] = ShardId(4)
    with pytest.raises(SnapshotRefused, match="is of shard 3; this is 4"):
        bench.restart()
    del bench.options["shard"]
    bench.restart(migrations=Migrations({"pairs": Readable(1), "changes": Readable(1)}))
    with pytest.raises(SnapshotRefused, match="no owner"):
        bench.restart(migrations=Migrations({"changes": Readable(1)}))
    assert files_in(local) == [file, "MANIFEST"]


def test_a_wrong_key_stops_the_start_and_nothing_is_set_aside(
    harness: Any, samples: Any, local: LocalDisk
) -> None:
    bench = harness(local, master_key="snapshots")
    bench.driver.recover()
    bench.fill(5)
    bench.take()
    bench.fill(5, seed=1)
    bench.take("full")
    names = files_in(local)
    bench.secret = bytes(32)
    with pytest.raises(SnapshotRefused, match="another value of the key 'snapshots'"):
        bench.restart()
    assert files_in(local) == names
    bench.secret = None
    with pytest.raises(SnapshotRefused, match="which this process has not"):
        bench.restart()
    bench.secret = samples.master
    bench.restart()
    bench.secret = None
    bench.driver = bench.new_driver()
    bench.driver.recover()
    with pytest.raises(SnapshotFailed, match="KeyError: 'snapshots'"):
        bench.take()


def test_a_load_that_raises_says_where(harness: Any, local: LocalDisk) -> None:
    class Strict(DictImage):
        def load(self, section: Section) -> None:
            if section.slot == 3:
                raise ZeroDivisionError
            super().load(section)

    bench = harness(local)
    bench.driver.recover()
    bench.fill(50)
    file = bench.take().entry.file
    with pytest.raises(ZeroDivisionError) as caught:
        bench.driver.load_newest(Strict)
    assert caught.value.__notes__ == [
        f"while loading section 'pairs', schema 1, of slot 3 from snapshots/{file}"
    ]


def test_a_state_other_than_told_is_refused_at_load_when_asked_for(
    harness: Any, local: LocalDisk
) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.fill(50)
    bench.take()
    with pytest.raises(SnapshotRefused, match="loads to another state"):
        bench.driver.load_newest(Forgetful, check_state_hash=True)
    _, _, report = bench.driver.load_newest(lambda: DictImage(schema=2), check_state_hash=True)
    assert not report.state_hash_checked


def test_a_copy_may_be_of_an_earlier_position(harness: Any, local: LocalDisk) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.fill(50)
    bench.take()
    content, sequence = bench.image.content(), bench.sequence
    bench.fill(5, seed=1)
    newest = bench.take()
    copy, position = bench.driver.load_copy(DictImage, sequence_max=sequence + 3)
    assert position.sequence_end == sequence
    assert copy.content() == content
    assert bench.driver.load_copy(DictImage, sequence_max=sequence - 1)[1] is None
    # The image that is snapshotted still stands where it stood.
    bench.fill(1)
    assert bench.take().entry.base.sequence_end == newest.entry.sequence_end


def test_a_snapshot_beyond_the_end_of_the_log_stops_the_start(
    harness: Any, local: LocalDisk
) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.fill(50)
    file = bench.take().entry.file
    bench.restart(sequence_max=50)
    with pytest.raises(SnapshotRefused, match=f"{file} stands at frame 50 and the log ends at 49"):
        bench.restart(sequence_max=49)
    assert files_in(local) == [file, "MANIFEST"]


def test_what_was_loaded_is_not_a_change(harness: Any, local: LocalDisk) -> None:
    class Counting(DictImage):
        def load(self, section: Section) -> None:
            super().load(section)
            self._changed.setdefault(section.slot, {}).update(
                dict.fromkeys(self._slots.get(section.slot, {}))
            )

    bench = harness(local)
    bench.driver.recover()
    bench.fill(500)
    bench.take()
    image, _, _ = bench.driver.load_newest(Counting)
    bench.image = image
    bench.put(1, "one", b"")
    increment = bench.take().entry
    assert not increment.full
    assert increment.sections == 2  # The shard-wide part and slot 1.


async def test_merging_in_a_child_goes_on_beside_new_increments(
    harness: Any, local: LocalDisk
) -> None:
    bench = harness(local, fulls_kept=1, master_key="snapshots")
    bench.driver.recover()
    bench.fill(300)
    for seed in range(3):
        bench.fill(20, seed=seed)
        bench.take("increment")
    tip = bench.driver.newest
    merging = bench.driver.compact()
    bench.fill(20, seed=9)
    merged = await merging
    assert merged.mode == "merge"
    assert merged.entry.full
    assert merged.entry.state_hash == merged.entry.content_hash == tip.state_hash
    assert merged.entry.offset_end == tip.offset_end
    assert bench.driver.entries == (merged.entry,)
    assert bench.driver.increments == 0
    again = await bench.driver.compact()
    assert (again.new, again.entry) == (False, merged.entry)
    # Increments go on from the merged image, which stands where the last one stood.
    taken = await bench.driver.take(bench.image, bench.position(), "fork")
    assert taken.entry.base.state_hash == merged.entry.state_hash
    content = bench.image.content()
    _, report = bench.restart(check_state_hash=True)
    assert report.chain == (merged.entry, taken.entry)
    assert bench.image.content() == content


async def test_a_merge_that_does_not_give_the_told_state_does_not_count(
    harness: Any, local: LocalDisk
) -> None:
    bench = harness(local)
    bench.driver.recover()
    for seed in range(2):
        bench.fill(100, seed=seed)
        bench.take("increment")
    entries = bench.driver.entries
    bench.new_image = Forgetful
    bench.restart()
    bench.sequence += 1
    for mode in ("fork", "inline"):
        with pytest.raises(SnapshotFailed, match="merges to another state"):
            await bench.driver.compact(mode)
        assert bench.driver.entries == entries
        assert not bench.driver.busy


async def test_there_has_to_be_something_to_merge(harness: Any, local: LocalDisk) -> None:
    bench = harness(local)
    bench.driver.recover()
    with pytest.raises(SnapshotFailed, match="no snapshot to merge"):
        await bench.driver.compact()


@pytest.mark.parametrize("mode", ["fork", "cooperative"])
async def test_a_cut_that_cannot_be_made_fails_and_a_bug_is_raised(harness: Any, mode: Any) -> None:
    disk = SimDisk()
    bench = harness(disk, free_bytes_min=1 << 60)
    bench.driver.recover()
    bench.fill(5)
    with pytest.raises(SnapshotFailed, match="a snapshot needs"):
        await bench.driver.take(bench.image, bench.position(), mode)
    assert not bench.driver.busy
    elsewhere = msgspec.structs.replace(bench.position(), shard=ShardId(4))
    with pytest.raises(InvariantBroken, match="snapshots itself"):
        bench.driver.take(bench.image, elsewhere, mode)
    assert not bench.driver.busy


class Unmarkable(DictImage):
    """Its marks are broken."""

    def mark(self, slot: int | None = None) -> None:
        raise ZeroDivisionError(slot)


@pytest.mark.parametrize("kind", ["full", "increment"])
async def test_a_child_is_not_left_behind_when_the_cut_fails_beside_the_fork(
    harness: Any, local: LocalDisk, kind: Any
) -> None:
    """Marks are set before the fork of a full image, and after that of an increment."""
    bench = harness(local)
    bench.driver.recover()
    bench.fill(5)
    good = bench.take().entry
    bench.fill(5, seed=1)
    bench.image.__class__ = Unmarkable
    with pytest.raises(ZeroDivisionError):
        bench.driver.take(bench.image, bench.position(), "fork", kind=kind)
    assert no_child_is_left()
    assert not bench.driver.busy
    assert bench.driver.entries == (good,)


async def test_a_disk_of_another_process_is_no_place_for_a_child(harness: Any) -> None:
    """The child reports success, and the parent finds no file: nothing is listed."""
    bench = harness(SimDisk())
    bench.driver.recover()
    bench.fill(5)
    with pytest.raises(SnapshotFailed):
        await bench.driver.take(bench.image, bench.position(), "fork")
    assert bench.driver.entries == ()


def test_a_large_file_is_synced_in_parts(harness: Any) -> None:
    """So that the log's own syncs never wait behind all of it."""

    def syncs(sync_bytes: int) -> int:
        disk = SimDisk(record=True)
        bench = harness(disk, sync_bytes=sync_bytes, block_bytes=500, compress=False)
        bench.driver.recover()
        bench.fill(500)
        size = bench.take().entry.bytes
        assert size > 5_000
        return sum(isinstance(each, SyncFile) for each in disk.trace)

    assert syncs(1 << 20) == 2  # The snapshot and the manifest.
    assert syncs(1000) > 5


async def test_a_file_that_cannot_be_removed_waits_for_the_next_start(harness: Any) -> None:
    disk = SimDisk()
    bench = harness(disk, fulls_kept=1)
    bench.driver.recover()
    bench.fill(5)
    old = bench.take().entry.file
    disk.inject(Raises(5), "remove", f"snapshots/{old}")
    bench.fill(5)
    new = bench.take("full").entry.file
    assert bench.alarms[0][0] == "snapshot.not_removed"
    assert bench.alarms[0][1]["file"] == old
    assert old in disk.list("snapshots")
    bench.restart()
    assert list(disk.list("snapshots")) == [new, "MANIFEST"]


def test_a_file_that_vanishes_while_the_engine_runs_is_damage(
    harness: Any, local: LocalDisk
) -> None:
    bench = harness(local)
    bench.driver.recover()
    bench.fill(5)
    older = bench.take().entry
    bench.fill(5)
    newer = bench.take("full").entry
    local.remove(f"snapshots/{newer.file}")
    _, _, report = bench.driver.load_newest(DictImage)
    assert report.chain == (older,)
    assert "there is no such file" in report.damaged[newer.file]
    assert bench.driver.entries == (older,)


class Gate(threading.Event):
    """Tells when somebody stands before it."""

    reached = False

    def wait(self, timeout: float | None = None) -> bool:
        self.reached = True
        return super().wait(timeout)


async def test_close_while_it_is_being_listed_lets_the_listing_end(harness: Any) -> None:
    """What is on the disk and what the driver knows stay the same thing."""
    disk, gate = SimDisk(), Gate()
    bench = harness(disk)
    bench.driver.recover()
    bench.fill(50)
    disk.inject(Stalls(gate), "rename")
    taking = bench.driver.take(bench.image, bench.position(), "cooperative")
    async with asyncio.timeout(10):
        while not gate.reached:  # noqa: ASYNC110  (a thread stands there, not a task)
            await asyncio.sleep(0.001)
    closing = asyncio.create_task(bench.driver.close())
    await asyncio.sleep(0.01)
    gate.set()
    await closing
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert len(bench.driver.entries) == 1
    assert list(disk.list("snapshots")) == [bench.driver.entries[0].file, "MANIFEST"]


def test_collections_are_off_while_loading_and_as_before_after(
    harness: Any, local: LocalDisk
) -> None:
    seen: list[bool] = []

    class Looking(DictImage):
        def load(self, section: Section) -> None:
            seen.append(gc.isenabled())
            super().load(section)

    bench = harness(local)
    bench.driver.recover()
    bench.fill(5)
    bench.take()
    bench.driver.load_newest(Looking)
    assert gc.isenabled()
    gc.disable()
    bench.driver.load_newest(Looking)
    assert not gc.isenabled()
    gc.enable()
    assert seen
    assert not any(seen)


def test_a_shard_keeps_at_least_one(harness: Any, local: LocalDisk) -> None:
    with pytest.raises(InvariantBroken, match="keeps a snapshot"):
        harness(local, fulls_kept=0)


async def test_without_a_rate_a_file_is_synced_in_parts_and_nothing_waits(
    harness: Any, local: LocalDisk
) -> None:
    bench = harness(local, write_bytes_per_s=0, sync_bytes=1000, compress=False)
    bench.driver.recover()
    bench.fill(400)
    taken = await bench.driver.take(bench.image, bench.position(), "fork")
    assert taken.entry.bytes > 1000


async def test_a_system_that_cannot_watch_its_children_is_told_the_other_mode(
    harness: Any, local: LocalDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "fork_is_available", lambda: False)
    bench = harness(local)
    bench.driver.recover()
    bench.fill(5)
    with pytest.raises(SnapshotFailed, match="use mode 'cooperative'"):
        await bench.driver.take(bench.image, bench.position(), "fork")
    assert not bench.driver.busy
    assert (await bench.driver.take(bench.image, bench.position(), "cooperative")).entry.full


async def test_writing_can_be_slowed_down(harness: Any, local: LocalDisk) -> None:
    bench = harness(local, write_bytes_per_s=50_000, sync_bytes=1000, compress=False)
    bench.driver.recover()
    bench.fill(400)
    slow = await bench.driver.take(bench.image, bench.position(), "fork")
    assert slow.duration_s > (slow.entry.bytes - 1000) / 50_000
