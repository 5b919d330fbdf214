"""Contract of `PackedIndex`: a multimap in 24 bytes per entry that never stops to rehash."""

import random
import subprocess
import sys
import tracemalloc
from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ultraengine.execution.packed import (
    BUCKET_ENTRIES,
    CHUNK_ENTRIES_MAX,
    MIRROR_END,
    PackedIndex,
    PlainCore,
    mirror,
    unmirror,
)
from ultraengine.model.errors import InvariantBroken

MIB = 1 << 20


def hashes(count: int, seed: int = 1) -> list[bytes]:
    source = random.Random(seed)
    return [source.randbytes(8) for _ in range(count)]


def filled(identities: list[bytes], start: int = 0) -> PackedIndex:
    index = PackedIndex()
    for value, identity in enumerate(identities, start):
        index.add(identity, value)
    return index


def content(index: PackedIndex) -> list[tuple[bytes, int]]:
    return sorted(
        (unmirror(mirrored), value)
        for step in index.scan(0, MIRROR_END)
        for mirrored, value in step
    )


def loaded(chunks: list[bytes], onto: PackedIndex | None = None) -> PackedIndex:
    index = PackedIndex() if onto is None else onto
    for chunk in chunks:
        index.load(chunk)
    return index


def test_a_million_entries_take_at_most_24_bytes_each() -> None:
    source = random.Random(5)
    index = PackedIndex()
    for value in range(1_000_000):
        index.add(source.randbytes(8), value)
    parts = [index, index._keys, index._values, *index._keys, *index._values]
    assert sum(map(sys.getsizeof, parts)) / 1_000_000 <= 24


def test_the_allocator_agrees_with_the_size_of_the_objects() -> None:
    source = random.Random(5)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        index = PackedIndex()
        for value in range(50_000):
            index.add(source.randbytes(8), value)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / len(index) <= 24


def test_candidates_come_newest_first() -> None:
    identity, other = hashes(2)
    index = filled([identity, other, identity, identity], start=10)
    assert index.candidates(identity) == (13, 12, 10)
    assert index.candidates(other) == (11,)
    assert index.candidates(b"\0" * 8) == ()


def test_every_entry_is_found_whatever_the_number_of_buckets() -> None:
    identities = hashes(BUCKET_ENTRIES * 67)
    index = PackedIndex()
    for value, identity in enumerate(identities):
        assert index.candidates(identity) == ()
        index.add(identity, value)
        assert len(index) == value + 1
        if value % 97 == 0:
            assert all(
                index.candidates(known) == (at,) for at, known in enumerate(identities[: value + 1])
            )
    assert all(index.candidates(known) == (at,) for at, known in enumerate(identities))


def test_a_hit_across_two_neighbours_is_none() -> None:
    index = filled([b"abcdefgh", b"ijklmnop", b"qrstuvwx"])
    assert index.candidates(b"efghijkl") == ()
    assert index.candidates(b"hijklmno") == ()


def test_overlapping_hits_across_neighbours_hide_no_entry() -> None:
    same = b"aaaaaaaa"
    index = filled([same, b"aaaaaaab", same, b"baaaaaaa", b"aaaaaaaa"])
    assert index.candidates(same) == (4, 2, 0)
    assert index.candidates(b"aaaaaaab") == (1,)
    assert index.candidates(b"baaaaaaa") == (3,)


def test_a_hit_across_neighbours_hides_none_of_several_entries_before_it() -> None:
    same = b"aaaaaaaa"
    index = filled([same, same, b"baaaaaaa", b"aaaaaaab"])
    assert index.candidates(same) == (1, 0)


@pytest.mark.parametrize("buckets", range(1, 10))
def test_a_loaded_index_finds_every_entry_whatever_the_number_of_buckets(buckets: int) -> None:
    identities = hashes(BUCKET_ENTRIES * buckets)
    index = loaded(list(filled(identities).dump()))
    assert all(index.candidates(known) == (at,) for at, known in enumerate(identities))
    beside = loaded(list(filled(identities).dump()), filled(hashes(40, seed=9)))
    assert all(at in beside.candidates(known) for at, known in enumerate(identities))


def test_hashes_that_collide_in_full_cost_one_long_bucket_and_no_more() -> None:
    same = b"\x11" * 8
    index = filled([same] * 2_000)
    assert index.candidates(same) == tuple(reversed(range(2_000)))
    assert len(index._keys) <= 2_000 // BUCKET_ENTRIES + 1
    assert loaded(list(index.dump())).candidates(same) == index.candidates(same)


def test_one_addition_splits_at_most_one_bucket() -> None:
    index = PackedIndex()
    for value, identity in enumerate(hashes(5_000)):
        before = len(index._keys)
        index.add(identity, value)
        assert len(index._keys) - before in (0, 1)


def test_values_must_ascend() -> None:
    index = filled(hashes(3))
    with pytest.raises(InvariantBroken, match="value=2, last=2"):
        index.add(b"x" * 8, 2)
    assert len(index) == 3
    assert index.last == 2


def test_the_mirror_of_a_mirror_is_the_hash() -> None:
    assert mirror(b"\x01" + bytes(7)) == 1 << 63
    assert mirror(bytes(7) + b"\x80") == 1
    assert all(unmirror(mirror(identity)) == identity for identity in hashes(50))


def test_a_cut_removes_and_yields_exactly_the_older_entries() -> None:
    identities = hashes(1_000)
    index = filled(identities, start=100)
    removed = {(unmirror(mirrored), value) for mirrored, value in index.cut_below(700)}
    assert removed == {(identity, at) for at, identity in enumerate(identities[:600], 100)}
    assert len(index) == 400
    assert index.floor == 700
    assert all(index.candidates(identity) == () for identity in identities[:600])
    assert all(
        index.candidates(identity) == (at,) for at, identity in enumerate(identities[600:], 700)
    )


def test_a_lower_cut_after_a_higher_one_changes_nothing() -> None:
    index = filled(hashes(100))
    list(index.cut_below(50))
    assert list(index.cut_below(20)) == []
    assert index.floor == 50


def test_a_cut_beyond_the_end_is_refused() -> None:
    index = filled(hashes(3))
    with pytest.raises(InvariantBroken, match=r"a cut stays below the end .value=4, last=2"):
        list(index.cut_below(4))
    assert sorted(value for _, value in index.cut_below(3)) == [0, 1, 2]


def test_memory_comes_back_after_a_large_cut() -> None:
    index = filled(hashes(20_000))
    list(index.cut_below(19_990))
    assert len(index._keys) == 1
    assert len(index) == 10
    for value, identity in enumerate(hashes(20_000, seed=2), 20_000):
        index.add(identity, value)
    assert content(index) == content(filled(hashes(20_000)[19_990:] + hashes(20_000, 2), 19_990))


def test_additions_between_the_steps_of_a_cut_keep_both_correct() -> None:
    old, new = hashes(3_000), hashes(3_000, seed=2)
    index = filled(old)
    steps = index.cut_steps(2_500)
    removed: list[tuple[int, int]] = []
    for value, identity in enumerate(new, 3_000):
        index.add(identity, value)
        removed += next(steps, ())
    for step in steps:
        removed += step
    assert sorted(value for _, value in removed) == list(range(2_500))
    assert content(index) == content(filled(old[2_500:] + new, 2_500))


def test_a_step_of_a_cut_removes_one_bucket_at_most() -> None:
    index = filled(hashes(5_000))
    largest = max(len(values) for values in index._values)
    assert max(len(step) for step in index.cut_steps(5_000)) <= largest


def test_a_scan_is_sorted_and_yields_the_range_asked_for() -> None:
    identities = hashes(5_000)
    found = [entry for step in filled(identities).scan(1_000, 4_000) for entry in step]
    assert found == sorted(
        (mirror(identity), at) for at, identity in enumerate(identities) if 1_000 <= at < 4_000
    )


def test_a_scan_goes_in_short_steps() -> None:
    index = filled(hashes(50_000))
    assert max(len(step) for step in index.scan(0, MIRROR_END)) < 3_000


def test_a_scan_survives_additions_and_cuts_between_its_steps() -> None:
    identities = hashes(60_000)
    index = filled(identities[:40_000])
    scan = index.scan(38_000, 40_000)
    found = [*next(scan), *next(scan)]
    for value, identity in enumerate(identities[40_000:], 40_000):
        index.add(identity, value)
    found += next(scan)
    # Few entries are left, so the buckets are merged and a step of the scan is wider.
    list(index.cut_below(38_000))
    shrunk = index.scan(0, 0)
    found += next(scan)
    assert sum(1 for _ in shrunk) > 1
    for step in scan:
        found += step
    assert found == sorted(
        (mirror(identity), at) for at, identity in enumerate(identities[:40_000]) if at >= 38_000
    )


def test_merges_between_two_steps_of_a_scan_repeat_nothing() -> None:
    identities = hashes(40_000)
    index = filled(identities)
    scan = index.scan(39_900, 40_000)
    found = [entry for _ in range(3) for entry in next(scan)]
    list(index.cut_below(39_900))
    for step in scan:
        found += step
    assert found == sorted((mirror(identities[at]), at) for at in range(39_900, 40_000))


def test_a_dump_depends_on_content_alone() -> None:
    identities = hashes(9_000)
    direct = filled(identities[8_000:], start=8_000)
    direct._floor = 8_000
    detour = filled(identities)
    list(detour.cut_below(8_000))
    assert list(detour.dump()) == list(direct.dump())
    again = loaded(list(detour.dump()))
    assert list(again.dump()) == list(direct.dump())


def test_a_dump_has_the_same_bytes_under_every_hash_seed_compiled_or_not() -> None:
    program = (
        "import random, hashlib; from ultraengine.execution.packed import PackedIndex\n"
        "source, index = random.Random(3), PackedIndex()\n"
        "for value in range(5000): index.add(source.randbytes(8), value)\n"
        "list(index.cut_below(1000))\n"
        "print(hashlib.sha256(b''.join(index.dump())).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path), "ULTRA_PURE": pure},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
        for pure in ("0", "1")
    }
    assert len(digests) == 1


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 999),
    count=st.integers(0, 900),
    first=st.integers(0, 12),
    stride=st.integers(1, 5),
    low=st.integers(0, 1000),
    high=st.one_of(st.integers(0, 1000), st.just(MIRROR_END)),
    cursor=st.integers(0, MIRROR_END - 1),
)
def test_compiled_and_plain_gather_the_same_bytes(
    seed: int, count: int, first: int, stride: int, low: int, high: int, cursor: int
) -> None:
    index = filled(hashes(count, seed))
    plain: Any = PlainCore.gather
    whole = (first, stride, low, high, cursor)
    assert index.gather(*whole) == plain(index, *whole)


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=120))
def test_compiled_and_plain_arrange_a_bucket_alike(entries: list[tuple[int, int]]) -> None:
    keys = b"".join(key.to_bytes(8, "little") for key, _ in entries)
    values = array("Q", [value for _, value in entries]).tobytes()
    plain: Any = PlainCore.arrange
    index = PackedIndex()
    assert index.arrange(keys, values) == plain(index, keys, values)
    with pytest.raises(ValueError, match=r".+"):
        index.arrange(keys, values + bytes(8))
    with pytest.raises((TypeError, ValueError)):
        index.arrange(keys, None)  # type: ignore[arg-type]


@pytest.mark.skipif(PlainCore in PackedIndex.__mro__, reason="there is no compiled part to compare")
def test_what_is_gathered_is_in_buckets_of_the_right_kind() -> None:
    index = filled(hashes(5))
    whole = (0, 1, 0, MIRROR_END, 0)
    good = index._values[0]
    for bad in (array("B", bytes(40)), [0, 1, 2, 3, 4], array("q", good)):
        index._values[0] = bad  # type: ignore[assignment]  # What the check is there for.
        with pytest.raises(TypeError, match="an array of values"):
            index.gather(*whole)
    index._values[0] = good[:4]
    with pytest.raises(ValueError, match="as many hashes as values"):
        index.gather(*whole)
    index._values = []
    with pytest.raises(ValueError, match="two lists of the same buckets"):
        index.gather(*whole)
    with pytest.raises(TypeError):
        index.gather(0, 1, 0, "all", 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two lists"):
        index.gather(0, 0, 0, 1, 0)


def test_chunks_stay_below_a_mebibyte_and_load_to_the_same_content() -> None:
    index = filled(hashes(CHUNK_ENTRIES_MAX + 5_000), start=7)
    chunks = list(index.dump())
    assert len(chunks) == 2
    assert max(map(len, chunks)) <= MIB
    for order in (chunks, chunks[::-1]):
        copy = loaded(order)
        assert len(copy) == len(index)
        assert copy.last == index.last
        assert content(copy) == content(index)
        assert list(copy.dump()) == chunks


def test_a_loaded_index_takes_additions_like_the_original() -> None:
    identities = hashes(3_000)
    copy = loaded(list(filled(identities[:2_000]).dump()))
    with pytest.raises(InvariantBroken):
        copy.add(b"x" * 8, 1_999)
    for value, identity in enumerate(identities[2_000:], 2_000):
        copy.add(identity, value)
    assert content(copy) == content(filled(identities))
    assert all(list(values) == sorted(values) for values in copy._values), (
        "a bucket must be in insertion order"
    )


def test_sorted_entries_load_beside_what_is_there() -> None:
    identities = hashes(3_000)
    index = filled(identities[:1_000])
    later = sorted((mirror(identity), at) for at, identity in enumerate(identities[1_000:], 1_000))
    packed = b"".join(mirrored.to_bytes(8, "big") for mirrored, _ in later)
    index.load_sorted(packed, array("Q", [value for _, value in later]))
    assert list(index.dump()) == list(filled(identities).dump())
    assert index.last == 2_999


def test_changes_bring_a_dump_up_to_date() -> None:
    identities = hashes(4_000)
    index = filled(identities[:3_000])
    base = list(index.dump())
    index.mark()
    assert list(index.changes()) == []
    for value, identity in enumerate(identities[3_000:], 3_000):
        index.add(identity, value)
    list(index.cut_below(500))
    changes = list(index.changes())
    assert sum(map(len, changes)) < 17 * 1_000 + 100
    copy = loaded(changes, onto=loaded(base))
    assert list(copy.dump()) == list(index.dump())
    assert copy.floor == 500


def test_a_cut_without_additions_is_a_change() -> None:
    index = filled(hashes(100))
    base = list(index.dump())
    index.mark()
    list(index.cut_below(60))
    copy = loaded(list(index.changes()), onto=loaded(base))
    assert list(copy.dump()) == list(index.dump())
    index.mark()
    assert list(index.changes()) == []


def test_an_empty_index_remembers_its_floor_in_a_dump() -> None:
    index = filled(hashes(10))
    assert list(PackedIndex().dump()) == []
    list(index.cut_below(10))
    copy = loaded(list(index.dump()))
    assert (len(copy), copy.floor, copy.last) == (0, 10, 9)
    copy.add(b"x" * 8, 10)


@pytest.mark.parametrize("damage", ["short", "long", "many", "total", "order", "header"])
def test_a_chunk_with_another_shape_is_refused(damage: str) -> None:
    (chunk,) = filled(hashes(4)).dump()
    head, block = chunk[:16], chunk[16:]
    many = CHUNK_ENTRIES_MAX + 1
    damaged = {
        "short": chunk[:-1],
        "long": chunk + b"\0",
        "many": head + many.to_bytes(4, "little") + bytes(16 * many),
        "total": (3).to_bytes(8, "little") + chunk[8:],
        "order": head + block[:4] + block[12:20] + block[4:12] + block[20:],
        "header": chunk[:15],
    }[damage]
    index = PackedIndex()
    with pytest.raises(ValueError, match="packed index chunk"):
        index.load(damaged)
    assert len(index) == 0


class PackedIndexMachine(RuleBasedStateMachine):
    """The index against a list of pairs, with dumps, increments and cuts in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.index = PackedIndex()
        self.model: list[tuple[bytes, int]] = []
        self.next_value = 0
        self.base: list[bytes] = []

    def _add(self, identity: bytes, gap: int) -> None:
        self.next_value += gap
        self.index.add(identity, self.next_value)
        self.model.append((identity, self.next_value))
        self.next_value += 1

    @rule(identity=st.integers(0, 12), gap=st.integers(0, 3))
    def add_one_of_few(self, identity: int, gap: int) -> None:
        self._add(bytes([identity % 4]) * 7 + bytes([identity // 4]), gap)

    @rule(seed=st.integers(0, 1 << 30), count=st.integers(1, 300))
    def add_many(self, seed: int, count: int) -> None:
        for identity in hashes(count, seed):
            self._add(identity, 0)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def look_up(self, data: st.DataObject) -> None:
        identity, _ = data.draw(st.sampled_from(self.model))
        expected = tuple(value for known, value in reversed(self.model) if known == identity)
        assert self.index.candidates(identity) == expected

    @rule(share=st.floats(0, 1))
    def cut(self, share: float) -> None:
        below = int(self.next_value * share)
        removed = sorted(
            (unmirror(mirrored), value) for mirrored, value in self.index.cut_below(below)
        )
        assert removed == sorted(pair for pair in self.model if pair[1] < below)
        self.model = [pair for pair in self.model if pair[1] >= below]

    @rule()
    def snapshot(self) -> None:
        self.base = list(self.index.dump())
        self.index.mark()

    @rule()
    def crash_and_load_the_snapshot_with_its_increment(self) -> None:
        copy = loaded([*self.base, *self.index.changes()])
        assert list(copy.dump()) == list(self.index.dump())
        self.index = copy
        self.snapshot()

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert len(self.index) == len(self.model)
        assert content(self.index) == sorted(self.model)


TestPackedIndexAgainstAModel = PackedIndexMachine.TestCase
TestPackedIndexAgainstAModel.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None
)
