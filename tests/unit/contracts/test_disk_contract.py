"""What every implementation of the Disk, File and Lock ports does."""

import contextlib
import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ultraengine.ports import Disk
from ultraengine.testing.sim_disk import SimDisk
from ultraengine_adapters.local.disk import LocalDisk

BAD_PATHS = ("/x", "../x", "a/../x", "a//x", "a/./x", ".", "..", "a/", "x\0y")


@contextlib.contextmanager
def refused_with(*codes: int) -> Iterator[None]:
    """The block raises OSError with one of these errno."""
    with pytest.raises(OSError, match="|".join(os.strerror(code) for code in codes)) as refused:
        yield
    assert refused.value.errno in codes


class FileContract:
    """Subclasses say which disk."""

    @pytest.fixture
    def disk(self, tmp_path: Path) -> Disk:
        raise NotImplementedError

    def test_what_is_written_is_read_back(self, disk: Disk) -> None:
        file = disk.open("x", create=True, write=True)
        file.pwrite(b"hello", 0)
        file.pwrite(memoryview(b"--world--")[2:7], 5)
        assert file.pread(100, 0) == b"helloworld"
        assert file.pread(3, 4) == b"owo"
        assert file.size() == 10

    def test_a_read_is_short_only_at_the_end_of_the_file(self, disk: Disk) -> None:
        file = disk.open("x", create=True, write=True)
        content = bytes(i % 251 for i in range(3_000_000))
        file.pwrite(content, 0)
        assert file.pread(3_000_001, 0) == content
        assert file.pread(10, 2_999_995) == content[-5:]
        assert file.pread(10, 3_000_000) == b""
        assert file.pread(10, 4_000_000) == b""
        assert file.pread(0, 0) == b""

    def test_a_write_beyond_the_end_leaves_zeros_between(self, disk: Disk) -> None:
        file = disk.open("x", create=True, write=True)
        file.pwrite(b"a", 0)
        file.pwrite(b"b", 1000)
        assert file.pread(2000, 0) == b"a" + bytes(999) + b"b"

    def test_a_write_of_nothing_changes_nothing(self, disk: Disk) -> None:
        file = disk.open("x", create=True, write=True)
        file.pwrite(b"", 500)
        assert file.size() == 0

    def test_a_view_of_wider_items_is_written_as_bytes(self, disk: Disk) -> None:
        file = disk.open("x", create=True, write=True)
        file.pwrite(memoryview(b"abcdefgh").cast("I"), 0)
        assert file.pread(100, 0) == b"abcdefgh"

    def test_truncation_cuts_and_growth_reads_as_zeros(self, disk: Disk) -> None:
        file = disk.open("x", create=True, write=True)
        file.pwrite(b"abcdef", 0)
        file.truncate(2)
        file.truncate(4)
        assert file.pread(10, 0) == b"ab\0\0"
        file.truncate(4)
        assert file.size() == 4

    def test_two_handles_see_the_same_bytes(self, disk: Disk) -> None:
        first = disk.open("x", create=True, write=True)
        second = disk.open("x")
        first.pwrite(b"seen", 0)
        assert second.pread(4, 0) == b"seen"

    def test_a_file_opened_for_reading_refuses_writes(self, disk: Disk) -> None:
        disk.open("x", create=True, write=True).pwrite(b"kept", 0)
        file = disk.open("x")
        with refused_with(errno.EBADF):
            file.pwrite(b"lost", 0)
        with refused_with(errno.EBADF, errno.EINVAL):
            file.truncate(0)
        assert file.pread(10, 0) == b"kept"

    def test_opening_does_not_truncate(self, disk: Disk) -> None:
        disk.open("x", create=True, write=True).pwrite(b"kept", 0)
        assert disk.open("x", create=True, write=True).size() == 4

    def test_closing_twice_is_no_error_and_a_closed_file_refuses_everything(
        self, disk: Disk
    ) -> None:
        file = disk.open("x", create=True, write=True)
        file.close()
        file.close()
        for call in (
            lambda: file.pread(1, 0),
            lambda: file.pwrite(b"x", 0),
            file.sync,
            file.size,
            lambda: file.truncate(0),
        ):
            with refused_with(errno.EBADF):
                call()

    def test_an_open_file_is_read_after_its_name_has_gone(self, disk: Disk) -> None:
        file = disk.open("x", create=True, write=True)
        file.pwrite(b"still", 0)
        disk.remove("x")
        disk.sync_directory("")
        assert file.pread(10, 0) == b"still"
        assert not disk.exists("x")

    def test_negative_positions_and_lengths_are_refused(self, disk: Disk) -> None:
        file = disk.open("x", create=True, write=True)
        for call in (
            lambda: file.pread(1, -1),
            lambda: file.pwrite(b"x", -1),
            lambda: file.truncate(-1),
        ):
            with refused_with(errno.EINVAL):
                call()

    def test_any_sequence_of_writes_and_truncations_equals_a_byte_array(self, disk: Disk) -> None:
        chance = random.Random(7)
        file = disk.open("x", create=True, write=True)
        model = bytearray()
        for _ in range(300):
            position, length = chance.randrange(3000), chance.randrange(1, 1500)
            if chance.random() < 0.15:
                file.truncate(position)
                del model[position:]
                model.extend(bytes(position - len(model)))
            else:
                data = chance.randbytes(length)
                file.pwrite(data, position)
                model.extend(bytes(max(0, position + length - len(model))))
                model[position : position + length] = data
            if chance.random() < 0.2:
                file.sync()
            assert file.pread(10_000, 0) == model


class DiskContract:
    """Subclasses say which disk."""

    @pytest.fixture
    def disk(self, tmp_path: Path) -> Disk:
        raise NotImplementedError

    def test_a_missing_file_is_not_opened_unless_created(self, disk: Disk) -> None:
        with pytest.raises(FileNotFoundError):
            disk.open("x")
        with pytest.raises(FileNotFoundError):
            disk.open("x", write=True)
        with pytest.raises(FileNotFoundError):
            disk.open("no/x", create=True, write=True)
        disk.open("x", create=True)
        assert disk.open("x").size() == 0

    @pytest.mark.parametrize("path", BAD_PATHS)
    def test_a_path_that_could_leave_the_tree_is_refused(self, disk: Disk, path: str) -> None:
        disk.open("there", create=True, write=True)
        for call in (
            lambda: disk.open(path, create=True, write=True),
            lambda: disk.list(path),
            lambda: disk.make_directory(path),
            lambda: disk.sync_directory(path),
            lambda: disk.rename("there", path),
            lambda: disk.rename(path, "there"),
            lambda: disk.remove(path),
            lambda: disk.exists(path),
            lambda: disk.lock(path),
        ):
            with pytest.raises(ValueError, match=r"relative path|null"):
                call()
        assert disk.list("") == ["there"]

    def test_the_root_is_a_directory_and_no_file(self, disk: Disk) -> None:
        assert disk.exists("")
        disk.make_directory("")
        disk.sync_directory("")
        for call in (
            lambda: disk.open("", create=True, write=True),
            lambda: disk.remove(""),
            lambda: disk.rename("", "x"),
            lambda: disk.lock(""),
        ):
            with pytest.raises(ValueError, match=r"relative path|the root"):
                call()

    def test_names_are_listed_sorted(self, disk: Disk) -> None:
        disk.make_directory("d")
        for name in ("b", "a", "c.tmp", "B"):
            disk.open(f"d/{name}", create=True, write=True)
        disk.make_directory("d/sub")
        assert list(disk.list("d")) == ["B", "a", "b", "c.tmp", "sub"]

    def test_the_list_of_what_is_no_directory_is_empty(self, disk: Disk) -> None:
        disk.open("file", create=True, write=True)
        for path in ("nowhere", "nowhere/deeper", "file", "file/deeper"):
            assert list(disk.list(path)) == []

    def test_directories_are_made_with_their_parents_and_again_without_error(
        self, disk: Disk
    ) -> None:
        disk.make_directory("a/b/c")
        disk.make_directory("a/b/c")
        disk.open("a/b/c/x", create=True, write=True)
        disk.make_directory("a/b")
        assert list(disk.list("a/b/c")) == ["x"]

    def test_a_file_is_not_turned_into_a_directory(self, disk: Disk) -> None:
        disk.open("x", create=True, write=True).pwrite(b"kept", 0)
        with pytest.raises(FileExistsError):
            disk.make_directory("x")
        with pytest.raises(NotADirectoryError):
            disk.make_directory("x/y")
        with pytest.raises(NotADirectoryError):
            disk.open("x/y", create=True, write=True)
        with pytest.raises(NotADirectoryError):
            disk.sync_directory("x")
        assert disk.open("x").pread(9, 0) == b"kept"

    def test_a_directory_is_neither_written_nor_removed_as_a_file(self, disk: Disk) -> None:
        disk.make_directory("d")
        with pytest.raises(IsADirectoryError):
            disk.open("d", write=True)
        with pytest.raises(IsADirectoryError):
            disk.remove("d")
        with pytest.raises(IsADirectoryError):
            disk.open("d").pread(1, 0)
        assert disk.exists("d")

    def test_syncing_a_missing_directory_is_an_error(self, disk: Disk) -> None:
        with pytest.raises(FileNotFoundError):
            disk.sync_directory("nowhere")

    def test_a_rename_replaces_the_target(self, disk: Disk) -> None:
        disk.open("new", create=True, write=True).pwrite(b"new", 0)
        disk.open("old", create=True, write=True).pwrite(b"old", 0)
        disk.rename("new", "old")
        assert list(disk.list("")) == ["old"]
        assert disk.open("old").pread(9, 0) == b"new"

    def test_an_open_handle_follows_its_file_through_a_rename(self, disk: Disk) -> None:
        file = disk.open("a", create=True, write=True)
        disk.make_directory("d")
        disk.rename("a", "d/b")
        file.pwrite(b"moved", 0)
        assert disk.open("d/b").pread(9, 0) == b"moved"
        assert not disk.exists("a")

    def test_a_rename_onto_itself_changes_nothing(self, disk: Disk) -> None:
        disk.open("a", create=True, write=True).pwrite(b"x", 0)
        disk.rename("a", "a")
        assert disk.open("a").pread(9, 0) == b"x"

    def test_a_directory_is_renamed_with_what_is_in_it(self, disk: Disk) -> None:
        disk.make_directory("d/e")
        disk.open("d/e/x", create=True, write=True)
        disk.make_directory("empty")
        disk.rename("d", "empty")
        assert list(disk.list("empty/e")) == ["x"]
        assert not disk.exists("d")

    def test_renames_that_would_lose_something_are_refused(self, disk: Disk) -> None:
        disk.make_directory("full/sub")
        disk.make_directory("other")
        disk.open("file", create=True, write=True)
        with pytest.raises(FileNotFoundError):
            disk.rename("missing", "file")
        with pytest.raises(FileNotFoundError):
            disk.rename("file", "missing/file")
        with pytest.raises(IsADirectoryError):
            disk.rename("file", "full")
        with pytest.raises(NotADirectoryError):
            disk.rename("full", "file")
        with refused_with(errno.ENOTEMPTY):
            disk.rename("other", "full")
        assert list(disk.list("")) == ["file", "full", "other"]

    def test_removing_what_is_not_there_is_an_error(self, disk: Disk) -> None:
        with pytest.raises(FileNotFoundError):
            disk.remove("x")
        disk.open("x", create=True, write=True)
        disk.remove("x")
        with pytest.raises(FileNotFoundError):
            disk.open("x")

    def test_a_removed_file_comes_back_empty(self, disk: Disk) -> None:
        disk.open("x", create=True, write=True).pwrite(b"before", 0)
        disk.remove("x")
        assert disk.open("x", create=True, write=True).size() == 0

    def test_a_lock_is_held_once_at_a_time(self, disk: Disk) -> None:
        held = disk.lock("LOCK")
        with pytest.raises(BlockingIOError):
            disk.lock("LOCK")
        disk.lock("OTHER").release()
        held.release()
        held.release()
        again = disk.lock("LOCK")
        held.release()
        with pytest.raises(BlockingIOError):
            disk.lock("LOCK")
        again.release()

    def test_a_lock_needs_its_directory(self, disk: Disk) -> None:
        with pytest.raises(FileNotFoundError):
            disk.lock("nowhere/LOCK")

    def test_writing_takes_free_space(self, disk: Disk) -> None:
        before = disk.free_bytes()
        file = disk.open("x", create=True, write=True)
        file.pwrite(bytes(16 << 20), 0)
        file.sync()
        # Others may write to the same real disk meanwhile: half of it proves the direction.
        assert before - disk.free_bytes() > 8 << 20


class OnLocalDisk:
    @pytest.fixture
    def disk(self, tmp_path: Path) -> Disk:
        return LocalDisk(tmp_path / "deep" / "root")


class OnSimDisk:
    @pytest.fixture
    def disk(self) -> Disk:
        return SimDisk()


class TestLocalFile(OnLocalDisk, FileContract):
    pass


class TestSimFile(OnSimDisk, FileContract):
    pass


class TestLocalDisk(OnLocalDisk, DiskContract):
    pass


class TestSimDisk(OnSimDisk, DiskContract):
    pass
