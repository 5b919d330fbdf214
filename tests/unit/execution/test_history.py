"""The history store: what was appended is read, byte for byte the same after every replay."""

import errno
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ultraengine.execution import history
from ultraengine.execution.history import (
    EVENTS,
    HEADER_BYTES,
    NAME,
    RECORD_BYTES,
    Cursor,
    DecodedCommands,
    SegmentHeader,
    SegmentIndex,
    encode_records,
    records,
)
from ultraengine.execution.history_files import driver
from ultraengine.execution.history_files.driver import HistoryFile
from ultraengine.log.digest import crc32c
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Offset, ShardId
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_faults import FailedSync, Raises, Stalls

SMALL_SEGMENT = 1_000
SHARD = ShardId(7)

Appended = tuple[int, str, bytes]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small constants, so that short histories have many segments and index entries."""
    for module in (history, driver):
        monkeypatch.setattr(module, "SEGMENT_BYTES", SMALL_SEGMENT)
    monkeypatch.setattr(history, "INDEX_BYTES", 150)
    monkeypatch.setattr(driver, "FLUSH_BYTES", 400)
    monkeypatch.setattr(driver, "WAITING_BYTES_MAX", 3_000)
    monkeypatch.setattr(driver, "SEGMENTS_OPEN_MAX", 3)


def decode(payload: bytes) -> Sequence[Any]:
    decoded: list[Any] = msgspec.msgpack.decode(payload)
    return decoded


def opened(
    disk: SimDisk, spawn: Callable[[Callable[[], None]], object] | None = None
) -> HistoryFile:
    return HistoryFile(disk, SHARD, {"ledger": decode, "trading": decode}, spawn=spawn)


def empty(
    disk: SimDisk, spawn: Callable[[Callable[[], None]], object] | None = None
) -> HistoryFile:
    store = opened(disk, spawn)
    store.truncate_to(0, 0)
    return store


def some(count: int, *, start: int = 0) -> list[Appended]:
    return [
        (
            offset * 3,
            "ledger" if offset % 4 else "trading",
            msgspec.msgpack.encode(["x" * (offset % 90)]),
        )
        for offset in range(start, start + count)
    ]


def append_all(store: HistoryFile, appended: Sequence[Appended]) -> None:
    for offset, domain, payload in appended:
        store.append(offset, domain, payload)


def assert_holds(store: HistoryFile, appended: Sequence[Appended]) -> None:
    for offset, domain, payload in appended:
        other = "trading" if domain == "ledger" else "ledger"
        assert store.read(offset, domain) == payload
        assert store.read(offset, other) is None
        assert store.read(offset + 1, domain) is None
    assert store.read(appended[-1][0] + 3 if appended else 0, "ledger") is None


def files(disk: SimDisk) -> dict[str, bytes]:
    content = {}
    for name in disk.list("history"):
        file = disk.open(f"history/{name}")
        content[name] = file.pread(file.size(), 0)
        file.close()
    return content


def test_records_are_read_wherever_they_are() -> None:
    disk = SimDisk(1)
    store = empty(disk)
    appended = some(200)
    for number, one in enumerate(appended):
        store.append(*one)
        if number % 40 == 0:
            assert_holds(store, appended[: number + 1])
    assert len(files(disk)) > 8
    assert_holds(store, appended)
    store.flush()
    assert_holds(store, appended)


def test_an_empty_history_holds_nothing() -> None:
    store = empty(SimDisk(1))
    assert store.end == 0
    assert store.read(0, "ledger") is None
    store.sync()
    assert store.end == 0


def test_nothing_is_written_until_there_is_enough_or_a_sync() -> None:
    disk = SimDisk(1)
    tasks: deque[Callable[[], None]] = deque()
    store = empty(disk, tasks.append)
    store.append(0, "ledger", b"\x90" * 10)
    assert (files(disk), len(tasks)) == ({}, 0)
    store.append(1, "ledger", b"\x90" * 390)
    store.append(2, "ledger", b"\x90" * 500)
    assert (files(disk), len(tasks)) == ({}, 1)
    assert store.read(1, "ledger") == b"\x90" * 390
    tasks.popleft()()
    assert sum(map(len, files(disk).values())) > 900
    assert store.read(1, "ledger") == b"\x90" * 390
    store.append(3, "ledger", b"\x91\x01")
    store.sync()
    (kept,) = [disk.power_cut(keep=lambda _step: 0)]
    again = opened(kept)
    again.truncate_to(store.end, 4)
    assert again.read(3, "ledger") == b"\x91\x01"


def test_the_files_are_a_function_of_what_was_appended() -> None:
    appended = some(150)
    contents = []
    for flush_every in (1, 7, 1_000):
        disk = SimDisk(flush_every)
        store = empty(disk)
        for number, one in enumerate(appended):
            store.append(*one)
            if number % flush_every == 0:
                store.flush()
        store.close()
        contents.append((store.end, files(disk)))
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize("cut", [0, 1, 2, 37, 99, 149, 150])
def test_appending_again_after_a_cut_gives_the_same_files(cut: int) -> None:
    appended = some(150)
    disk = SimDisk(1)
    store = empty(disk)
    append_all(store, appended[:cut])
    position = store.end
    append_all(store, appended[cut:])
    store.close()
    whole = files(disk)
    again = opened(disk.kill())
    again.truncate_to(position, appended[cut][0] if cut < 150 else 10_000)
    assert again.end == position
    assert_holds(again, appended[:cut])
    append_all(again, appended[cut:])
    again.close()
    assert files(again._disk) == whole  # type: ignore[arg-type]  # It is the simulated one.


def test_every_position_is_one_to_cut_to() -> None:
    appended = some(60)
    disk = SimDisk(1)
    store = empty(disk)
    positions = [0]
    for one in appended:
        store.append(*one)
        positions.append(store.end)
    assert positions == sorted(set(positions))
    store.sync()
    for count in range(len(appended), -1, -1):
        disk = disk.kill()
        store = opened(disk)
        store.truncate_to(positions[count], appended[count - 1][0] + 1 if count else 0)
        assert store.end == positions[count]
        assert_holds(store, appended[:count])


def test_a_record_may_fill_its_segment_to_the_last_byte() -> None:
    disk = SimDisk(1)
    store = empty(disk)
    room = SMALL_SEGMENT - HEADER_BYTES - 2 * RECORD_BYTES - len("ledger")
    store.append(0, "ledger", b"a" * room)
    assert store.end == SMALL_SEGMENT
    store.append(1, "ledger", b"b")
    store.sync()
    assert len(files(disk)) == 2
    for position, offset, expected in ((store.end, 2, b"b"), (SMALL_SEGMENT, 1, None)):
        disk = disk.kill()
        again = opened(disk)
        again.truncate_to(position, offset)
        assert again.read(0, "ledger") == b"a" * room
        assert again.read(1, "ledger") == expected
    with pytest.raises(InvariantBroken, match="fits a segment"):
        again.append(5, "ledger", b"a" * (room + 1))


def unsynced_bytes(disk: SimDisk) -> int:
    return sum(step.length for step in disk.unsynced())


def make_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """One long segment, so that its end syncs nothing."""
    for module in (history, driver):
        monkeypatch.setattr(module, "SEGMENT_BYTES", 100_000)
    monkeypatch.setattr(driver, "SYNC_BYTES", 800)


def test_the_background_leaves_little_for_a_later_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    make_long(monkeypatch)
    disk, most = SimDisk(1), 0
    store = empty(disk, lambda task: task())
    for number in range(100):
        store.append(number, "ledger", b"\x90" * 100)
        most = max(most, unsynced_bytes(disk))
    assert 0 < most < 2_000
    assert sum(map(len, files(disk).values())) > 9_000


def test_a_sync_that_fails_in_the_background_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_long(monkeypatch)
    disk = SimDisk(1)
    store = empty(disk, lambda task: task())
    disk.inject(FailedSync(), "sync")
    append_all(store, some(40))
    assert store.error is not None
    assert_holds(store, some(40))
    with pytest.raises(OSError, match=r"."):
        store.sync()


def test_a_power_cut_loses_nothing_that_was_synced() -> None:
    appended = some(120)
    for seed in range(40):
        disk = SimDisk(seed)
        store = empty(disk)
        append_all(store, appended[:70])
        store.sync()
        position = store.end
        append_all(store, appended[70:])
        store.flush()
        again = opened(disk.power_cut())
        again.truncate_to(position, appended[70][0])
        assert_holds(again, appended[:70])
        append_all(again, appended[70:])
        again.sync()
        assert_holds(again, appended)


def test_offsets_must_ascend() -> None:
    store = empty(SimDisk(1))
    store.append(5, "ledger", b"\x90")
    for offset in (5, 4):
        with pytest.raises(InvariantBroken, match="ascend"):
            store.append(offset, "ledger", b"\x90")


def test_it_must_be_cut_before_it_grows() -> None:
    store = opened(SimDisk(1))
    with pytest.raises(InvariantBroken, match="before it grows"):
        store.append(0, "ledger", b"\x90")


def test_a_position_that_the_files_do_not_reach_is_refused() -> None:
    disk = SimDisk(1)
    store = empty(disk)
    append_all(store, some(5))
    store.sync()
    for position in (store.end + 1, 10 * SMALL_SEGMENT, 5, store.end - 1):
        disk = disk.kill()
        with pytest.raises(InvariantBroken):
            opened(disk).truncate_to(position, 1_000)
    again = opened(disk.kill())
    with pytest.raises(InvariantBroken, match="older"):
        again.truncate_to(store.end, 12)


def test_another_shards_history_is_refused() -> None:
    disk = SimDisk(1)
    store = empty(disk)
    append_all(store, some(5))
    store.sync()
    with pytest.raises(InvariantBroken, match="this shard's"):
        HistoryFile(disk, ShardId(8), {})


def test_segments_beyond_a_gap_or_a_torn_header_do_not_count() -> None:
    disk = SimDisk(1)
    store = empty(disk)
    append_all(store, some(150))
    store.sync()
    first_end = SMALL_SEGMENT * 2
    disk.remove(f"history/his-{first_end:020}.seg")
    again = opened(disk.kill())
    assert len(again._firsts) == 2
    disk = again._disk  # type: ignore[assignment]  # It is the simulated one.
    disk.flip_bits(f"history/his-{SMALL_SEGMENT:020}.seg", 20)
    again = opened(disk.kill())
    assert len(again._firsts) == 1
    again.truncate_to(0, 0)
    assert files(again._disk) == {}  # type: ignore[arg-type]


def test_every_flipped_byte_is_reported_or_changes_no_answer() -> None:
    appended = some(30)
    disk = SimDisk(1)
    store = empty(disk)
    append_all(store, appended)
    store.sync()
    position = store.end
    whole = files(disk)
    reported = 0
    names = sorted(whole)[:2]
    for name in names:
        for at in range(0, len(whole[name]), 3):
            damaged = disk.kill()
            disk = damaged.kill()
            damaged = disk.kill()
            disk = SimDisk(1, image=damaged.image())
            damaged.flip_bits(f"history/{name}", at, 0x20)
            damaged.drop_caches()
            try:
                again = opened(damaged)
                again.truncate_to(position, 1_000)
                assert_holds(again, appended)
            except InvariantBroken:
                reported += 1
    assert reported > 300


def test_a_failed_write_is_tried_again_and_loses_nothing() -> None:
    appended = some(150)
    for call, path in (("pwrite", "history/*"), ("open", "history/*2000.seg")):
        disk = SimDisk(1)
        tasks: deque[Callable[[], None]] = deque()
        store = empty(disk, tasks.append)
        disk.inject(Raises(errno.ENOSPC), call, path, after=1 if call == "pwrite" else 0, times=2)  # type: ignore[arg-type]
        failed = 0
        for number, one in enumerate(appended):
            store.append(*one)
            while tasks:
                tasks.popleft()()
                if store.error is not None:
                    failed += 1
                    assert_holds(store, appended[: number + 1])
        assert failed == 2
        assert_holds(store, appended)
        store.sync()
        assert store.error is None
        assert store._waiting_bytes == 0
        twin_disk = SimDisk(2)
        twin = empty(twin_disk)
        append_all(twin, appended)
        twin.sync()
        assert files(disk) == files(twin_disk)


def test_a_part_that_was_written_before_the_failure_is_not_noted_twice() -> None:
    appended = some(24, start=30)
    disk = SimDisk(1)
    tasks: deque[Callable[[], None]] = deque()
    store = empty(disk, tasks.append)
    disk.inject(Raises(errno.EMFILE), "open", f"history/his-{SMALL_SEGMENT:020}.seg")
    append_all(store, appended)
    (flush,) = tasks
    flush()
    assert store.error is not None
    assert_holds(store, appended)
    store.append(1_000, "trading", b"\x90" * 700)
    store.sync()
    twin_disk = SimDisk(2)
    twin = empty(twin_disk)
    append_all(twin, [*appended, (1_000, "trading", b"\x90" * 700)])
    twin.sync()
    assert len(files(disk)) == 3
    assert files(disk) == files(twin_disk)


def test_after_a_cut_another_history_leaves_no_trace_of_the_first() -> None:
    first, second = some(50), some(50, start=400)
    disk = SimDisk(1)
    store = empty(disk)
    append_all(store, first[:3])
    position = store.end
    append_all(store, first[3:])
    store.sync()
    again = opened(disk.kill())
    again.truncate_to(position, first[3][0])
    append_all(again, second)
    again.close()
    twin_disk = SimDisk(2)
    twin = empty(twin_disk)
    append_all(twin, first[:3] + second)
    twin.close()
    assert files(again._disk) == files(twin_disk)  # type: ignore[arg-type]  # It is simulated.


def test_a_file_that_got_shorter_is_reported() -> None:
    disk = SimDisk(1)
    store = empty(disk)
    append_all(store, some(10))
    store.sync()
    disk.open(f"history/his-{0:020}.seg", write=True).truncate(200)
    with pytest.raises(InvariantBroken, match="as long as"):
        assert_holds(store, some(10))


def test_memory_is_bounded_when_nothing_can_be_written() -> None:
    disk = SimDisk(1)
    store = empty(disk, lambda task: task())
    disk.inject(Raises(errno.ENOSPC), "pwrite", times=10_000)
    with pytest.raises(OSError, match=r"."):
        append_all(store, some(1_000))
    assert store._waiting_bytes <= 3_200


def test_after_a_failed_sync_no_later_one_succeeds() -> None:
    disk = SimDisk(1)
    store = empty(disk)
    append_all(store, some(10))
    disk.inject(FailedSync(), "sync")
    for _ in range(2):
        with pytest.raises(OSError, match=r"."):
            store.sync()
    assert store.error is not None
    store.truncate_to(0, 0)
    append_all(store, some(10))
    store.sync()
    assert store.error is None


def test_reads_wait_for_no_write() -> None:
    disk = SimDisk(1)
    threads: list[threading.Thread] = []

    def spawn(task: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=task))
        threads[-1].start()

    store = empty(disk, spawn)
    release = threading.Event()
    appended = some(60)
    append_all(store, appended[:10])
    store.flush()
    disk.inject(Stalls(release), "pwrite")
    append_all(store, appended[10:])
    assert threads
    assert_holds(store, appended)
    release.set()
    for thread in threads:
        thread.join()
    store.sync()
    assert_holds(store, appended)


def test_threads_read_while_the_writer_appends() -> None:
    disk = SimDisk(1)
    store = empty(disk, lambda task: threading.Thread(target=task).start())
    appended = some(3_000)
    done = threading.Event()
    wrong: list[object] = []
    progress = [0]

    def reader(seed: int) -> None:
        at = seed
        while not done.is_set():
            if progress[0]:
                at = (at * 7919 + 1) % progress[0]
                offset, domain, payload = appended[at]
                try:
                    found = store.read(offset, domain)
                except BaseException as error:  # noqa: BLE001  (shown by the assertion below)
                    found = repr(error).encode()
                if found != payload:
                    wrong.append((offset, found))

    readers = [threading.Thread(target=reader, args=(seed,)) for seed in (1, 2)]
    for thread in readers:
        thread.start()
    for number, one in enumerate(appended):
        store.append(*one)
        progress[0] = number + 1
    store.sync()
    done.set()
    for thread in readers:
        thread.join()
    assert wrong == []
    assert_holds(store, appended[-200:])


def test_few_segments_are_open_however_many_there_are() -> None:
    disk = SimDisk(1)
    store = empty(disk)
    appended = some(600)
    append_all(store, appended)
    store.sync()
    assert len(files(disk)) > 20
    assert_holds(store, appended)
    assert len(store._open) <= 3
    assert store._retired == []


def test_a_view_shows_decoded_events_below_its_end_only() -> None:
    store = empty(SimDisk(1))
    store.append(3, "ledger", msgspec.msgpack.encode(["a", "b"]))
    store.append(4, "trading", msgspec.msgpack.encode(["c"]))
    end = [4]
    view = store.view("ledger", lambda: end[0])
    assert view.events(Offset(3)) == ["a", "b"]
    assert view.events(Offset(2)) is None
    assert view.events(Offset(4)) is None
    assert store.view("trading", lambda: end[0]).events(Offset(4)) is None
    end[0] = 5
    assert view.events(Offset(4)) is None
    assert store.view("trading", lambda: end[0]).events(Offset(4)) == ["c"]


def test_a_view_forgets_decoded_events_when_the_history_is_cut() -> None:
    store = empty(SimDisk(1))
    view = store.view("ledger", lambda: 10)
    store.append(3, "ledger", msgspec.msgpack.encode(["old"]))
    assert view.events(Offset(3)) == ["old"]
    store.truncate_to(0, 0)
    store.append(3, "ledger", msgspec.msgpack.encode(["new"]))
    assert view.events(Offset(3)) == ["new"]


def test_decoded_commands_are_bounded_and_keep_what_is_used() -> None:
    kept = DecodedCommands(100)
    kept.put(1, ["used"], 10)
    for offset in range(2, 60):
        kept.put(offset, ["once"], 10)
        assert kept.get(1) == ["used"]
    assert kept.get(2) is None
    assert len(kept._young) + len(kept._old) <= 20
    kept.clear()
    assert kept.get(1) is None


def test_a_view_decodes_a_command_once() -> None:
    calls: list[bytes] = []

    def counting(payload: bytes) -> Sequence[Any]:
        calls.append(payload)
        return decode(payload)

    store = HistoryFile(SimDisk(1), SHARD, {"ledger": counting})
    store.truncate_to(0, 0)
    store.append(1, "ledger", msgspec.msgpack.encode(["a"]))
    views = [store.view("ledger", lambda: 5) for _ in range(2)]
    assert [view.events(Offset(1)) for view in views] == [["a"], ["a"]]
    assert len(calls) == 1


def test_the_format_is_what_version_1_says() -> None:
    disk = SimDisk(1)
    store = empty(disk)
    store.append(0x0A, "ledger", b"\x91\x05")
    store.close()
    (content,) = files(disk).values()
    assert content[:12] == b"UEHS" + bytes([1, 0, 64, 0, 7, 0, 0, 0])
    assert content[16:32] == bytes(8) + (10).to_bytes(8, "little")
    name, events = content[64:90], content[90:]
    assert name[4:] == (
        bytes([6, 0, 0, 0]) + (10).to_bytes(8, "little") + bytes([0, 0, 2, 0]) + b"ledger"
    )
    assert events[4:] == (
        bytes([2, 0, 0, 0]) + (10).to_bytes(8, "little") + bytes([0, 0, 1, 0]) + b"\x91\x05"
    )
    assert store.end == len(content)


def index_bytes(index: SegmentIndex) -> bytes:
    return bytes(index.ends) + index.encode()


def test_an_index_reads_back_and_damage_to_it_is_none() -> None:
    index = SegmentIndex()
    index.note([(0, 64, 5, 0, NAME, b"ledger"), (0, 90, 5, 1, NAME, "é".encode())], 200)
    index.note([(0, 964, 9, 0, EVENTS, b"")], 984)
    data = index_bytes(index)
    again = SegmentIndex.decode(lambda length, at: data[at : at + length], len(data))
    assert again is not None
    assert (again.offsets, again.starts, again.names, again.ends) == (
        index.offsets,
        index.starts,
        index.names,
        index.ends,
    )
    for at in range(index.ends, len(data)):
        damaged = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
        assert SegmentIndex.decode(lambda n, p, d=damaged: d[p : p + n], len(data)) is None  # type: ignore[misc]
    assert SegmentIndex.decode(lambda n, p: b"short"[p : p + n], 5) is None


def test_a_scan_refuses_offsets_that_do_not_ascend() -> None:
    data = bytes(HEADER_BYTES) + encode_records([(0, 64, 5, 0, EVENTS, b"a")]) * 2
    with pytest.raises(InvariantBroken, match="ascend"):
        SegmentIndex.scan(lambda n, p: data[p : p + n], len(data), "f")
    with pytest.raises(InvariantBroken, match="byte=64"):
        list(records(b"\0" * 30, 64, "f"))


def test_a_header_of_another_version_is_refused() -> None:
    header = SegmentHeader(1, 0, 0).encode()
    assert SegmentHeader.decode(header, "f") == SegmentHeader(1, 0, 0)
    other = bytearray(header[:60])
    other[4] = 2
    forged = bytes(other) + crc32c(bytes(other)).to_bytes(4, "little")
    with pytest.raises(InvariantBroken, match="f"):
        SegmentHeader.decode(forged, "f")


def test_places_do_not_depend_on_where_a_cursor_was_made() -> None:
    cursor = Cursor()
    placed = [place for one in some(40) for place in cursor.place(*one)]
    assert all(start + RECORD_BYTES <= SMALL_SEGMENT for _, start, *_ in placed)
    assert [segment for segment, *_ in placed] == sorted(segment for segment, *_ in placed)
    assert cursor.position == cursor.segment * SMALL_SEGMENT + cursor.end_byte


class HistoryMachine(RuleBasedStateMachine):
    """The store against a list, with background writes, crashes and cuts in any order."""

    @initialize()
    def start(self) -> None:
        self.patch = pytest.MonkeyPatch()
        make_small(self.patch)
        self.disk = SimDisk(3)
        self.tasks: deque[Callable[[], None]] = deque()
        self.store = empty(self.disk, self.tasks.append)
        self.model: list[Appended] = []
        self.snapshot: tuple[int, int] = (0, 0)
        """(position, number of records) that a synced snapshot names."""
        self.offset = 0

    def teardown(self) -> None:
        self.patch.undo()

    @rule(
        sizes=st.lists(st.integers(0, 300), min_size=1, max_size=12),
        domain=st.sampled_from(["ledger", "trading"]),
        gap=st.integers(2, 4),
    )
    def append(self, sizes: list[int], domain: str, gap: int) -> None:
        for size in sizes:
            self.offset += gap
            payload = bytes([self.offset % 251]) * size
            self.store.append(self.offset, domain, payload)
            self.model.append((self.offset, domain, payload))

    @rule()
    def background_task(self) -> None:
        if self.tasks:
            self.tasks.popleft()()

    @rule()
    def take_snapshot(self) -> None:
        self.store.sync()
        self.snapshot = (self.store.end, len(self.model))

    @rule(power=st.booleans(), replayed=st.floats(0, 1))
    def crash(self, power: bool, replayed: float) -> None:
        self.tasks.clear()
        self.disk = self.disk.power_cut() if power else self.disk.kill()
        self.store = opened(self.disk, self.tasks.append)
        position, count = self.snapshot
        tail = self.model[count:]
        self.store.truncate_to(position, tail[0][0] if tail else self.offset + 1)
        self.model = self.model[: count + int(len(tail) * replayed)]
        append_all(self.store, self.model[count:])

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        if self.model:
            offset, domain, payload = data.draw(st.sampled_from(self.model))
            assert self.store.read(offset, domain) == payload

    @invariant()
    def holds_what_the_list_holds(self) -> None:
        assert_holds(self.store, self.model[-15:])
        for offset, domain, payload in self.model[:5]:
            assert self.store.read(offset, domain) == payload


TestHistoryAgainstAList = HistoryMachine.TestCase
TestHistoryAgainstAList.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("length", [1, 3, 40])
def test_a_run_of_commands_is_kept_as_if_each_had_been_appended(length: int) -> None:
    payloads = [msgspec.msgpack.encode(["y" * (number % 90)]) for number in range(120)]
    one_by_one, in_runs = empty(SimDisk(1)), empty(SimDisk(1))
    kept = one_by_one._disk, in_runs._disk
    for start in range(0, len(payloads), length):
        domain = "ledger" if start % 2 else "trading"
        part = payloads[start : start + length]
        for offset, payload in enumerate(part, 5 + start):
            one_by_one.append(offset, domain, payload)
        in_runs.append_run(5 + start, domain, part)
        assert in_runs.end == one_by_one.end
        for offset, payload in enumerate(part, 5 + start):
            assert in_runs.read(offset, domain) == payload
    assert len(in_runs._firsts) > 5
    with pytest.raises(InvariantBroken, match="offsets ascend"):
        in_runs.append_run(5, "ledger", payloads[:1])
    for store in (one_by_one, in_runs):
        store.sync()
    assert files(kept[0]) == files(kept[1])  # type: ignore[arg-type]


def test_a_run_waits_for_the_cut_and_is_written_when_there_is_enough() -> None:
    disk = SimDisk(1)
    tasks: deque[Callable[[], None]] = deque()
    store = opened(disk, tasks.append)
    with pytest.raises(InvariantBroken, match="cut to its position"):
        store.append_run(0, "ledger", [b"\x90"])
    store.truncate_to(0, 0)
    store.append_run(0, "ledger", [b"\xa1x"] * 10)
    assert not tasks
    store.append_run(10, "ledger", [b"\xd9\x64" + b"x" * 100] * 5)
    assert len(tasks) == 1
    store.append_run(15, "ledger", [b"\xa1x"])
    assert len(tasks) == 1
    assert files(disk) == {}
    store.append_run(16, "ledger", [b"\xd9\xc8" + b"x" * 200] * 15)
    assert files(disk) != {}
    assert store.read(30, "ledger") == b"\xd9\xc8" + b"x" * 200
