"""What every implementation of the RecordStore port does."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ultraengine.ports import OutcomeUnknown, RecordStore
from ultraengine.testing.sim_record import SimRecordStore
from ultraengine_adapters.local.record_store import DirectoryRecordStore


class RecordStoreContract:
    """Subclasses say which store."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> RecordStore:
        raise NotImplementedError

    def test_there_is_nothing_at_first(self, store: RecordStore) -> None:
        assert store.read() is None

    def test_it_is_created_once(self, store: RecordStore) -> None:
        assert store.swap(None, b"first")
        assert not store.swap(None, b"second")
        assert store.read() == b"first"

    def test_a_swap_lands_on_what_it_expects_alone(self, store: RecordStore) -> None:
        assert not store.swap(b"first", b"second")
        assert store.read() is None
        store.swap(None, b"first")
        assert not store.swap(b"other", b"second")
        assert not store.swap(b"firs", b"second")
        assert store.swap(b"first", b"second")
        assert store.read() == b"second"
        assert not store.swap(b"first", b"third")
        assert store.read() == b"second"

    def test_a_shorter_value_replaces_a_longer_one_whole(self, store: RecordStore) -> None:
        store.swap(None, b"long" * 5000)
        assert store.swap(b"long" * 5000, b"short")
        assert store.read() == b"short"

    def test_of_many_swaps_at_once_exactly_one_lands(self, store: RecordStore) -> None:
        store.swap(None, b"0")
        landed: list[int] = []

        def race(number: int) -> None:
            if store.swap(b"0", str(number).encode()):
                landed.append(number)

        threads = [threading.Thread(target=race, args=(number,)) for number in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(landed) == 1
        assert store.read() == str(landed[0]).encode()


class TestSimRecordStore(RecordStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> RecordStore:
        return SimRecordStore()

    def test_a_lost_request_does_not_land_and_a_lost_answer_says_nothing(self) -> None:
        store = SimRecordStore(iter(["lost", "", "late", "", "late"]))
        with pytest.raises(OutcomeUnknown):
            store.swap(None, b"first")
        assert store.read() is None
        with pytest.raises(OutcomeUnknown):
            store.swap(None, b"first")
        assert store.read() == b"first"
        with pytest.raises(TimeoutError):
            store.read()


COUNTING = """
import sys
from pathlib import Path
from ultraengine_adapters.local.record_store import DirectoryRecordStore
store = DirectoryRecordStore(Path(sys.argv[1]))
landed = 0
while landed < 100:
    found = store.read()
    landed += store.swap(found, str(int(found or b"0") + 1).encode())
"""


class TestDirectoryRecordStore(RecordStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> RecordStore:
        return DirectoryRecordStore(tmp_path / "record")

    def test_another_process_finds_what_was_swapped_in(self, tmp_path: Path) -> None:
        DirectoryRecordStore(tmp_path).swap(None, b"first")
        assert DirectoryRecordStore(tmp_path).read() == b"first"

    def test_no_swap_of_processes_side_by_side_is_lost(self, tmp_path: Path) -> None:
        processes = [
            subprocess.Popen([sys.executable, "-c", COUNTING, str(tmp_path)]) for _ in range(3)
        ]
        assert [process.wait(60) for process in processes] == [0, 0, 0]
        assert DirectoryRecordStore(tmp_path).read() == b"300"

    def test_what_a_crash_left_half_written_is_not_read(self, tmp_path: Path) -> None:
        store = DirectoryRecordStore(tmp_path)
        store.swap(None, b"first")
        (tmp_path / "RECORD.tmp").write_bytes(b"sec")
        assert store.read() == b"first"
        assert store.swap(b"first", b"second")
        assert store.read() == b"second"

    def test_what_cannot_be_written_has_not_been_done(self, tmp_path: Path) -> None:
        store = DirectoryRecordStore(tmp_path)
        store.swap(None, b"first")
        (tmp_path / "RECORD.tmp").mkdir()
        with pytest.raises(IsADirectoryError):
            store.swap(b"first", b"second")
        assert store.read() == b"first"
