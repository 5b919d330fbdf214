"""What a power cut, a kill and each fault leave on a simulated disk."""

import contextlib
import errno
import threading
from collections.abc import Callable, Sequence

import pytest

from ultraengine.ports import Disk, DiskFull, File
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_faults import (
    FailedSync,
    LostWrite,
    MisdirectedWrite,
    Raises,
    ShortWrite,
    Stalls,
    TornWrite,
)
from ultraengine.testing.sim_image import Image, Unsynced
from ultraengine.testing.sim_machine import PowerLost

OLD, NEW = b"o" * 2048, b"n" * 2048


def everything(step: Unsynced) -> int:
    return step.length


def nothing(_: Unsynced) -> int:
    return 0


def only(steps: Sequence[Unsynced], bits: int, *, others: bool = True) -> Callable[[Unsynced], int]:
    """Keep the steps whose bit is set, and `others` or not."""

    def keep(step: Unsynced) -> int:
        kept = bits >> steps.index(step) & 1 if step in steps else others
        return step.length if kept else 0

    return keep


def settled(content: bytes = OLD) -> tuple[SimDisk, File]:
    """A disk with one durable file ``x``, and its handle."""
    disk = SimDisk(record=True)
    file = disk.open("x", create=True, write=True)
    file.pwrite(content, 0)
    file.sync()
    disk.sync_directory("")
    return disk, file


def content(disk: Disk, path: str = "x") -> bytes:
    return disk.open(path).pread(1 << 20, 0)


class TestPowerCut:
    def test_synced_bytes_and_names_survive_whatever_else_is_lost(self) -> None:
        disk, file = settled()
        file.pwrite(NEW, 0)
        disk.rename("x", "y")
        after = disk.power_cut(nothing)
        assert list(after.list("")) == ["x"]
        assert content(after) == OLD

    def test_unsynced_bytes_and_names_survive_when_the_disk_was_quick(self) -> None:
        disk, file = settled()
        file.pwrite(NEW, 0)
        disk.rename("x", "y")
        after = disk.power_cut(everything)
        assert list(after.list("")) == ["y"]
        assert content(after, "y") == NEW

    @pytest.mark.parametrize("kept", range(16))
    def test_every_sector_survives_on_its_own(self, kept: int) -> None:
        disk, file = settled()
        file.pwrite(NEW, 0)
        after = disk.power_cut(lambda step: step.length * (kept >> step.start // 512 & 1))
        expected = b"".join((NEW if kept >> i & 1 else OLD)[:512] for i in range(4))
        assert content(after) == expected

    def test_a_sector_may_be_torn_at_any_byte(self) -> None:
        disk, file = settled()
        file.pwrite(NEW[:512], 0)
        assert content(disk.power_cut(lambda _: 37)) == NEW[:37] + OLD[37:]

    def test_a_write_across_sectors_is_split_at_their_borders(self) -> None:
        disk, file = settled()
        file.pwrite(NEW[:600], 500)
        assert [(s.start, s.length) for s in disk.unsynced()] == [(500, 12), (512, 512), (1024, 76)]

    def test_an_older_version_of_a_sector_may_be_the_one_that_survives(self) -> None:
        disk, file = settled()
        file.pwrite(b"1" * 512, 0)
        file.pwrite(b"2" * 512, 0)
        after = disk.power_cut(lambda step: step.length if step.order == 0 else 0)
        assert content(after)[:512] == b"1" * 512

    def test_a_length_that_was_not_kept_hides_the_bytes_beyond_it(self) -> None:
        disk, file = settled(b"")
        file.pwrite(NEW, 0)
        assert [s.length for s in disk.unsynced()] == [1, 512, 512, 512, 512]
        assert content(disk.power_cut(lambda s: s.length if s.length > 1 else 0)) == b""

    def test_a_length_that_was_kept_without_bytes_shows_zeros(self) -> None:
        disk, file = settled(b"")
        file.pwrite(NEW, 0)
        assert content(disk.power_cut(lambda s: 1 if s.length == 1 else 0)) == bytes(2048)

    def test_an_unsynced_truncation_may_come_undone(self) -> None:
        for keep, expected in ((nothing, OLD), (everything, OLD[:10])):
            disk, file = settled()
            file.truncate(10)
            assert content(disk.power_cut(keep)) == expected

    def test_a_new_file_whose_directory_was_not_synced_may_be_gone_with_its_synced_bytes(
        self,
    ) -> None:
        for keep, names in ((nothing, []), (everything, ["x"])):
            disk = SimDisk()
            file = disk.open("x", create=True, write=True)
            file.pwrite(NEW, 0)
            file.sync()
            assert list(disk.power_cut(keep).list("")) == names

    def test_a_directory_whose_parent_was_not_synced_takes_its_files_with_it(self) -> None:
        disk = SimDisk()
        disk.make_directory("d")
        disk.open("d/x", create=True, write=True).sync()
        disk.sync_directory("d")
        assert list(disk.power_cut(nothing).list("")) == []

    def test_a_removed_file_may_come_back_with_its_bytes(self) -> None:
        disk, _ = settled()
        disk.remove("x")
        assert content(disk.power_cut(nothing)) == OLD

    def test_a_synced_removal_stays(self) -> None:
        disk, _ = settled()
        disk.remove("x")
        disk.sync_directory("")
        assert not disk.power_cut(nothing).exists("x")

    def test_of_two_steps_in_one_directory_either_may_be_the_one_that_survives(self) -> None:
        found = set()
        for kept in range(4):
            disk, _ = settled()
            disk.open("y", create=True, write=True)
            disk.remove("x")
            found.add(tuple(disk.power_cut(only(disk.unsynced(), kept)).list("")))
        assert found == {("x",), ("x", "y"), (), ("y",)}

    def test_a_rename_inside_a_directory_is_all_or_nothing(self) -> None:
        for keep, expected in ((nothing, b"old"), (everything, b"new")):
            disk, file = settled(b"old")
            fresh = disk.open("x.tmp", create=True, write=True)
            fresh.pwrite(b"new", 0)
            fresh.sync()
            disk.sync_directory("")
            disk.rename("x.tmp", "x")
            after = disk.power_cut(keep)
            assert content(after) == expected
            assert after.exists("x.tmp") == (expected == b"old")
            file.close()

    def test_a_renamed_file_that_was_not_synced_may_be_empty(self) -> None:
        disk, _ = settled()
        disk.open("x.tmp", create=True, write=True).pwrite(NEW, 0)
        disk.rename("x.tmp", "x")
        disk.sync_directory("")
        assert content(disk.power_cut(nothing)) == b""

    def test_a_rename_across_directories_never_loses_both_names(self) -> None:
        seen = set()
        for kept in range(4):
            disk, _ = settled()
            disk.make_directory("d")
            disk.sync_directory("")
            disk.rename("x", "d/x")
            after = disk.power_cut(only(disk.unsynced(), kept))
            seen.add((after.exists("x"), after.exists("d/x")))
        assert seen == {(True, False), (True, True), (False, True)}

    def test_syncing_the_old_directory_of_a_moved_file_keeps_its_new_name(self) -> None:
        disk, _ = settled()
        disk.make_directory("d")
        disk.open("d/x", create=True, write=True)
        disk.remove("d/x")
        disk.sync_directory("")
        disk.rename("x", "d/x")
        disk.sync_directory("")
        disk.sync_directory("d")
        assert content(disk.power_cut(nothing), "d/x") == OLD

    def test_the_machine_that_stopped_does_nothing_more(self) -> None:
        disk, file = settled()
        lock = disk.lock("LOCK")
        after = disk.power_cut(nothing)
        for call in (
            file.size,
            file.sync,
            lambda: file.pwrite(NEW, 0),
            lambda: file.pread(1, 0),
            lambda: disk.open("x"),
            lambda: disk.list(""),
            lambda: disk.exists("x"),
            lambda: disk.make_directory("d"),
            disk.free_bytes,
            disk.kill,
            disk.power_cut,
        ):
            with pytest.raises(PowerLost):
                call()
        file.close()
        lock.release()
        assert content(after) == OLD
        after.lock("LOCK")

    def test_the_same_seed_gives_the_same_crash_and_other_seeds_others(self) -> None:
        def crash(seed: int) -> bytes:
            disk = SimDisk(seed)
            file = disk.open("x", create=True, write=True)
            disk.sync_directory("")
            file.pwrite(bytes(20_000), 0)
            file.sync()
            file.pwrite(NEW * 9, 0)
            return content(disk.power_cut())

        assert crash(1) == crash(1)
        assert len({crash(seed) for seed in range(10)}) == 10


class TestKill:
    def test_a_killed_process_leaves_the_page_cache(self) -> None:
        disk, file = settled()
        file.pwrite(NEW, 0)
        disk.lock("LOCK")
        after = disk.kill()
        assert content(after) == NEW
        after.lock("LOCK").release()
        with pytest.raises(PowerLost):
            file.sync()
        assert content(after.power_cut(nothing)) == OLD


class TestFaults:
    def test_after_a_failed_sync_the_pages_look_clean_and_the_next_sync_saves_nothing(
        self,
    ) -> None:
        disk, file = settled(bytes(64 * 512))
        file.pwrite(b"n" * 64 * 512, 0)
        disk.inject(FailedSync(), "sync", "x")
        with pytest.raises(OSError, match="Input/output error"):
            file.sync()
        file.sync()
        assert file.pread(64 * 512, 0) == b"n" * 64 * 512
        assert list(disk.unsynced()) == []
        found = content(disk.power_cut(nothing))
        assert found.count(b"n") not in {0, 64 * 512}

    def test_dropping_caches_shows_what_a_failed_sync_really_saved(self) -> None:
        disk, file = settled(bytes(64 * 512))
        file.pwrite(b"n" * 64 * 512, 0)
        disk.drop_caches()
        assert file.pread(64 * 512, 0) == b"n" * 64 * 512
        disk.inject(FailedSync(), "sync", "x")
        with pytest.raises(OSError, match="Input/output error"):
            file.sync()
        disk.drop_caches()
        assert 0 < file.pread(64 * 512, 0).count(b"n") < 64 * 512

    def test_a_lost_write_is_seen_until_the_power_goes_even_when_synced(self) -> None:
        disk, file = settled()
        disk.inject(LostWrite(), "pwrite", "x")
        file.pwrite(NEW, 0)
        file.sync()
        assert content(disk) == NEW
        assert content(disk.power_cut(everything)) == OLD

    def test_a_torn_write_saves_its_beginning_alone(self) -> None:
        disk, file = settled()
        disk.inject(TornWrite(kept=700), "pwrite", "x")
        file.pwrite(NEW, 0)
        file.sync()
        assert content(disk.power_cut(everything)) == NEW[:700] + OLD[700:]

    def test_a_misdirected_write_lands_elsewhere(self) -> None:
        disk, file = settled()
        disk.inject(MisdirectedWrite(shift=1024), "pwrite", "x")
        file.pwrite(NEW[:512], 0)
        file.sync()
        assert content(disk.power_cut(everything)) == OLD[:1024] + NEW[:512] + OLD[1536:]

    def test_a_short_write_leaves_its_beginning_and_raises(self) -> None:
        disk, file = settled()
        disk.inject(ShortWrite(kept=3, errno=errno.EIO), "pwrite", "x")
        with pytest.raises(OSError, match="Input/output error"):
            file.pwrite(NEW, 0)
        assert content(disk) == NEW[:3] + OLD[3:]

    def test_injected_lack_of_space_is_disk_full_except_from_a_sync(self) -> None:
        disk, file = settled()
        disk.inject(Raises(errno.ENOSPC), "pwrite")
        disk.inject(Raises(errno.ENOSPC), "sync")
        with pytest.raises(DiskFull):
            file.pwrite(NEW, 0)
        with pytest.raises(OSError, match="No space") as failed:
            file.sync()
        assert not isinstance(failed.value, DiskFull)
        assert content(disk) == OLD

    def test_a_fault_comes_as_often_and_as_late_as_asked_and_only_on_its_path(self) -> None:
        disk, _ = settled()
        disk.inject(Raises(errno.EIO), "open", "y*", after=1, times=2)
        failed = []
        for number, path in enumerate(("y1", "x", "y2", "x", "y3", "y4")):
            try:
                disk.open(path, create=True, write=True)
            except OSError:
                failed.append(number)
        assert failed == [2, 4]

    def test_bit_rot_is_read_and_survives(self) -> None:
        disk, file = settled()
        disk.flip_bits("x", 5, 0x81)
        assert file.pread(1, 5)[0] == OLD[5] ^ 0x81
        assert content(disk.power_cut(nothing))[5] == OLD[5] ^ 0x81

    def test_bit_rot_needs_a_byte_and_a_bit(self) -> None:
        disk, _ = settled()
        for position, mask in ((-1, 1), (2048, 1), (0, 0), (0, 256)):
            with pytest.raises(IndexError):
                disk.flip_bits("x", position, mask)
        with pytest.raises(FileNotFoundError):
            disk.flip_bits("y", 0)

    def test_a_stalled_call_waits_without_stopping_the_others(self) -> None:
        disk, file = settled()
        gate = threading.Event()
        disk.inject(Stalls(gate), "sync", "x")
        stalled = threading.Thread(target=file.sync)
        stalled.start()
        file.pwrite(NEW, 0)
        assert stalled.is_alive()
        gate.set()
        stalled.join()
        assert list(disk.unsynced()) == []


class TestCapacity:
    def test_a_full_disk_takes_what_fits_and_raises_disk_full(self) -> None:
        disk = SimDisk(capacity=3 * 4096)
        file = disk.open("x", create=True, write=True)
        with pytest.raises(DiskFull):
            file.pwrite(b"a" * 20_000, 0)
        assert file.size() == 3 * 4096
        assert disk.free_bytes() == 0

    def test_overwriting_needs_no_space(self) -> None:
        disk = SimDisk(capacity=4096)
        file = disk.open("x", create=True, write=True)
        file.pwrite(OLD * 2, 0)
        file.pwrite(NEW * 2, 0)
        assert content(disk) == NEW * 2
        with pytest.raises(DiskFull):
            file.pwrite(b"x", 4096)

    def test_space_returns_with_the_last_handle_of_a_removed_file(self) -> None:
        disk = SimDisk(capacity=8192)
        file = disk.open("x", create=True, write=True)
        file.pwrite(OLD, 0)
        disk.sync_directory("")
        disk.remove("x")
        disk.sync_directory("")
        assert disk.free_bytes() == 4096
        file.close()
        assert disk.free_bytes() == 8192

    def test_truncation_gives_space_back(self) -> None:
        disk = SimDisk(capacity=8192)
        file = disk.open("x", create=True, write=True)
        file.pwrite(bytes(8192), 0)
        file.truncate(1)
        assert disk.free_bytes() == 4096

    def test_capacity_may_change_while_the_disk_is_used(self) -> None:
        disk, file = settled()
        disk.capacity = 0
        assert disk.free_bytes() == 0
        with pytest.raises(DiskFull):
            file.pwrite(NEW * 3, 0)
        disk.capacity = 1 << 20
        file.pwrite(NEW * 3, 0)
        assert disk.power_cut(nothing).capacity == 1 << 20


class TestTrace:
    def test_replaying_the_trace_gives_the_same_disk_at_every_step(self) -> None:
        disk, file = settled()
        disk.make_directory("d")
        disk.inject(FailedSync(), "sync", "x")
        disk.inject(MisdirectedWrite(600), "pwrite", "x")
        digests = []
        acts: tuple[Callable[[], object], ...] = (
            lambda: file.pwrite(NEW, 100),
            lambda: disk.note("here"),
            lambda: disk.rename("x", "d/y"),
            lambda: disk.sync_directory(""),
            lambda: file.truncate(77),
            lambda: disk.flip_bits("d/y", 3),
            lambda: disk.open("z", create=True, write=True).pwrite(b"z" * 999, 1),
            lambda: disk.remove("z"),
            disk.drop_caches,
            file.sync,
        )
        for act in acts:
            with contextlib.suppress(OSError):  # The sync is the one that fails.
                act()
            image = disk.image()
            crashes = [image.crashed(keep).digest() for keep in (nothing, everything)]
            digests.append((len(disk.trace), image.digest(), crashes))
        for length, digest, crashes in digests:
            replayed = Image()
            for operation in disk.trace[:length]:
                replayed.apply(operation)
            assert replayed.digest() == digest
            assert [replayed.crashed(k).digest() for k in (nothing, everything)] == crashes

    def test_nothing_is_recorded_unless_asked_for(self) -> None:
        disk = SimDisk()
        disk.open("x", create=True, write=True).pwrite(NEW, 0)
        assert disk.trace == ()

    def test_only_zeros_written_over_zeros_are_called_insignificant(self) -> None:
        disk, file = settled(bytes(2048))
        file.pwrite(bytes(1024), 0)
        file.pwrite(b"n" * 512, 512)
        file.pwrite(bytes(512), 512)
        steps = list(disk.image().unsynced(significant=True))
        assert [(s.order, s.start) for s in steps] == [(1, 512), (2, 512)]

    def test_leaving_out_insignificant_steps_loses_no_crash_state(self) -> None:
        for shrink in (False, True):
            disk, file = settled(b"a" * 512 + bytes(1024))
            if shrink:
                file.truncate(700)
            file.pwrite(bytes(900), 600)
            file.pwrite(b"b" * 100, 1000)
            image = disk.image()
            every, significant = list(image.unsynced()), list(image.unsynced(significant=True))
            assert len(significant) < len(every) or shrink
            reached = [
                {image.crashed(only(steps, bits)).digest() for bits in range(1 << len(steps))}
                for steps in (every, significant)
            ]
            assert reached[0] == reached[1]
            assert len(reached[0]) > 2

    def test_nodes_that_nothing_leads_to_are_forgotten(self) -> None:
        disk = SimDisk()
        for number in range(20):
            file = disk.open(f"x{number}", create=True, write=True)
            file.pwrite(NEW, 0)
            file.sync()
            file.close()
            disk.sync_directory("")
            disk.remove(f"x{number}")
            disk.sync_directory("")
        assert len(disk.image().files) == 0
