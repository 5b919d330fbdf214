"""Sorted runs: what is written is found again, and damage is never taken for an answer."""

import random
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultraengine.execution.dedup_runs import (
    BLOCK_ENTRIES_MAX,
    HEADER_BYTES,
    SPAN_MAX,
    Filter,
    Run,
    RunDamaged,
    RunInfo,
    RunTable,
    RunWriter,
    merge_sorted,
    to_merge,
)
from ultraengine.execution.packed import Entry

LOW = 1_000

Content = dict[int, list[Entry]]


def random_content(seed: int, sizes: dict[int, int], low: int = LOW) -> Content:
    source = random.Random(seed)
    offsets = list(range(low, low + sum(sizes.values())))
    source.shuffle(offsets)
    return {
        slot: sorted((source.getrandbits(64), offsets.pop()) for _ in range(size))
        for slot, size in sorted(sizes.items())
    }


def encoded(content: Content, *, low: int = LOW, high: int = 1_000_000, expected: int = 0) -> bytes:
    count = expected or sum(map(len, content.values()))
    writer = RunWriter(shard=3, low=low, high=high, count_expected=count)
    blocks = b"".join(writer.put(slot, entries) for slot, entries in content.items())
    tail, header = writer.finish()
    return header + blocks + tail


def opened(data: bytes, name: str = "run") -> Run:
    return Run(name, lambda length, at: data[at : at + length], size=len(data))


def read_back(run: Run) -> Content:
    return {slot: [entry for block in run.blocks(slot) for entry in block] for slot in run.slots}


def test_a_run_gives_back_what_was_put_in() -> None:
    content = random_content(1, {0: 3, 7: BLOCK_ENTRIES_MAX, 8: 2_000, 4095: 1})
    run = opened(encoded(content))
    assert read_back(run) == content
    assert (run.info.low, run.info.high, run.info.shard) == (LOW, 1_000_000, 3)
    assert run.info.count == sum(map(len, content.values()))


def test_every_entry_is_found_and_no_other_slot_answers() -> None:
    content = random_content(2, {5: 1_500, 6: 700})
    run = opened(encoded(content))
    for slot, entries in content.items():
        assert all(run.find(slot, mirrored) == [offset] for mirrored, offset in entries)
    assert all(run.find(6, mirrored) == [] for mirrored, _ in content[5])
    assert all(run.find(9, mirrored) == [] for mirrored, _ in content[5])


def test_equal_hashes_are_all_found_across_blocks_in_ascending_order() -> None:
    same = [(77, LOW + number) for number in range(BLOCK_ENTRIES_MAX * 2 + 9)]
    run = opened(encoded({1: [(3, LOW + 9_000), *same, (99, LOW + 9_001)]}))
    assert run.find(1, 77) == [offset for _, offset in same]
    assert run.find(1, 3) == [LOW + 9_000]
    assert run.find(1, 99) == [LOW + 9_001]


def test_a_hash_across_two_neighbours_is_not_found() -> None:
    first, second = 0x0101010101010102, 0x0304050607080909
    across = 0x0102030405060708
    run = opened(encoded({1: [(first, LOW), (second, LOW + 1)]}))
    assert run.look_up(1, across) == []
    assert run.look_up(1, second) == [LOW + 1]


def test_several_runs_answer_in_their_order() -> None:
    contents = [random_content(n, {1: 300, 2: 300}, low=n * 1_000) for n in range(3)]
    for content in contents[1:]:
        content[1] = sorted([*content[1], (77, content[1][0][1] + 500)])
    runs = [opened(encoded(content, low=n * 1_000)) for n, content in enumerate(contents)]
    table = RunTable(runs)
    for content in contents:
        for slot, entries in content.items():
            for mirrored, _ in entries:
                expected = [offset for run in runs for offset in run.find(slot, mirrored)]
                assert table.find(slot, mirrored) == expected
    assert len(table.find(1, 77)) == 2
    assert table.find(3, 77) == []


def test_the_filter_keeps_nineteen_of_twenty_fresh_ids_from_the_disk() -> None:
    content = random_content(3, {1: 20_000})
    filter_ = Filter.sized(20_000)
    filter_.add(content[1])
    assert all(filter_.may_hold(mirrored) for mirrored, _ in content[1])
    source = random.Random(4)
    passed = sum(filter_.may_hold(source.getrandbits(64)) for _ in range(20_000))
    assert passed < 1_000


def test_a_run_reads_nothing_for_an_id_that_the_filter_refuses() -> None:
    content = random_content(3, {1: 5_000})
    data = encoded(content)
    reads: list[int] = []

    def read(length: int, at: int) -> bytes:
        reads.append(at)
        return data[at : at + length]

    run = Run("run", read, size=len(data))
    reads.clear()
    source = random.Random(5)
    for _ in range(2_000):
        run.find(1, source.getrandbits(64))
    assert len(reads) < 100


def test_memory_per_entry_is_a_byte_and_a_half() -> None:
    run = opened(encoded(random_content(3, {1: 30_000, 2: 30_000})))
    assert run.memory_bytes / 60_000 <= 1.5


def test_an_empty_run_is_a_run() -> None:
    run = opened(encoded({}))
    assert run.find(1, 5) == []
    assert read_back(run) == {}


def test_a_filter_that_is_too_small_hides_nothing() -> None:
    content = random_content(6, {1: 3_000})
    run = opened(encoded(content, expected=1))
    assert all(run.find(1, mirrored) == [offset] for mirrored, offset in content[1])


def test_blocks_can_start_at_an_offset() -> None:
    content = random_content(7, {4: 600})
    run = opened(encoded(content))
    found = [entry for block in run.blocks(4, LOW + 500) for entry in block]
    assert found == [entry for entry in content[4] if entry[1] >= LOW + 500]


def test_the_format_is_what_version_1_says() -> None:
    data = encoded({2: [(0x0102030405060708, LOW + 5)]}, high=LOW + 10)
    assert data[:8] == b"UEDR" + (1).to_bytes(2, "little") + (128).to_bytes(2, "little")
    assert RunInfo.decode(data[:HEADER_BYTES], "run").length == len(data)
    block = data[HEADER_BYTES : HEADER_BYTES + 20]
    assert block[4:8] == bytes([2, 0, 1, 0])
    assert block[8:16] == bytes([1, 2, 3, 4, 5, 6, 7, 8])
    assert block[16:20] == (5).to_bytes(4, "little")
    assert data[148:150] == (2).to_bytes(2, "little")
    assert len(data) == HEADER_BYTES + 20 + 12 + 8


def test_every_flipped_byte_is_detected() -> None:
    content = random_content(8, {1: 9, 2: 40})
    data = encoded(content)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        with pytest.raises(RunDamaged, match=r"^run: "):
            read_back(opened(bytes(damaged)))


def test_every_shorter_or_longer_file_is_detected() -> None:
    data = encoded(random_content(8, {1: 40}))
    for length in range(len(data)):
        with pytest.raises(RunDamaged):
            opened(data[:length])
    with pytest.raises(RunDamaged):
        opened(data + b"\0")


def test_another_version_is_refused() -> None:
    data = encoded({})
    info = RunInfo.decode(data[:HEADER_BYTES], "run")
    assert info.encode() == data[:HEADER_BYTES]
    other = bytearray(data[:124])
    other[4] = 2
    from ultraengine.log.digest import crc32c  # noqa: PLC0415  (this test forges a header)

    forged = bytes(other) + crc32c(bytes(other)).to_bytes(4, "little")
    with pytest.raises(RunDamaged, match="version 2"):
        RunInfo.decode(forged, "run")


def test_a_block_of_another_slot_is_not_taken_for_this_one() -> None:
    first = encoded({1: [(5, LOW)]})
    second = encoded({2: [(5, LOW)]})
    swapped = first[:HEADER_BYTES] + second[HEADER_BYTES : HEADER_BYTES + 20]
    swapped += first[HEADER_BYTES + 20 :]
    with pytest.raises(RunDamaged, match="block at byte 128"):
        opened(swapped).find(1, 5)


def test_entries_out_of_order_are_refused() -> None:
    writer = RunWriter(shard=0, low=0, high=100, count_expected=10)
    assert writer.put(2, []) == b""
    writer.put(2, [(5, 1), (6, 2)])
    for slot, entry in ((2, (6, 2)), (2, (5, 9)), (1, (9, 9))):
        with pytest.raises(ValueError, match=r"after \(2, 6, 2\)"):
            writer.put(slot, [entry])
    writer.put(2, [(6, 3)])
    writer.put(3, [(0, 0)])


def test_a_span_beyond_32_bits_is_refused() -> None:
    RunWriter(shard=0, low=7, high=7 + SPAN_MAX - 1, count_expected=1)
    with pytest.raises(ValueError, match="offsets"):
        RunWriter(shard=0, low=7, high=7 + SPAN_MAX, count_expected=1)


def in_steps(entries: Sequence[Entry], sizes: Sequence[int]) -> Iterator[Sequence[Entry]]:
    at = 0
    for size in sizes:
        yield entries[at : at + size]
        at += size
    yield entries[at:]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 20), st.integers(0, 50)), max_size=30),
            st.lists(st.integers(0, 5), max_size=6),
        ),
        max_size=5,
    )
)
def test_a_merge_is_the_sorted_whole(streams: list[tuple[list[Entry], list[int]]]) -> None:
    parts = [in_steps(sorted(entries), sizes) for entries, sizes in streams]
    merged = [entry for step in merge_sorted(parts) for entry in step]
    assert merged == sorted(entry for entries, _ in streams for entry in entries)


def test_merging_keeps_the_number_of_runs_small() -> None:
    counts: list[int] = []
    most = 0
    for _ in range(2_000):
        counts.append(10)
        start, end = to_merge(counts, base=10, count_max=2_500)
        while end:
            assert end - start >= 2
            counts[start:end] = [sum(counts[start:end])]
            start, end = to_merge(counts, base=10, count_max=2_500)
        most = max(most, len(counts))
        assert max(counts) <= 2_500
    assert sum(counts) == 20_000
    # Nineteen of at least half the largest size, and a few on their way up.
    assert most <= 30


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([], (0, 0)),
        ([10, 10, 10], (0, 0)),
        ([10, 10, 10, 10], (0, 4)),
        ([160, 10, 10, 10, 10], (1, 5)),
        ([40, 10, 10, 10], (0, 0)),
        ([40, 39, 39, 39, 39], (1, 5)),
        ([300, 300, 300, 300], (0, 3)),
        ([600, 600, 600, 600], (0, 0)),
        ([3, 5, 2, 1], (0, 4)),
    ],
)
def test_which_runs_are_merged(counts: list[int], expected: tuple[int, int]) -> None:
    assert to_merge(counts, base=10, count_max=1_000) == expected
