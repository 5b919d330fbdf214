"""Which snapshots make a chain, which are loaded, kept, merged: pure decisions."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultraengine.snapshot.compact import fold, merge_slots, rebuild
from ultraengine.snapshot.cut import Cut
from ultraengine.snapshot.errors import SnapshotDamaged, SnapshotRefused
from ultraengine.snapshot.format import crc32c
from ultraengine.snapshot.image import SHARD_WIDE, Section, state_hash
from ultraengine.snapshot.manifest import (
    BaseEntry,
    Manifest,
    SnapshotEntry,
    chain_at,
    decode_manifest,
    encode_manifest,
    number_of,
    oldest_full,
    plan_load,
    retained,
    stands_on,
)
from ultraengine.testing.snapshot_images import DictImage


def entry(
    number: int, at: int, base: int | None = None, *, state: str | None = None, size: int = 100
) -> SnapshotEntry:
    return SnapshotEntry(
        file=f"{at}-{number}",
        number=number,
        bytes=size,
        shard=0,
        epoch=1,
        offset_end=at * 10,
        sequence_end=at,
        chain=f"chain {at}",
        content_hash=f"content {number}",
        state_hash=state,
        base=None
        if base is None
        else BaseEntry(
            offset_end=base * 10, sequence_end=base, chain=f"chain {base}", state_hash=None
        ),
        created=0,
        sections=1,
        codec=1,
        encrypted=False,
    )


def files(chain: Sequence[SnapshotEntry] | None) -> list[int] | None:
    return None if chain is None else [each.number for each in chain]


class TestStandsOn:
    def test_the_same_place_of_the_same_history_is_a_base(self) -> None:
        assert stands_on(entry(2, 9, base=5), entry(1, 5))
        assert not stands_on(entry(2, 9), entry(1, 5))

    @pytest.mark.parametrize("field", ["offset_end", "sequence_end", "chain"])
    def test_another_place_or_history_is_none(self, field: str) -> None:
        base = entry(1, 5)
        other: Any = "other" if field == "chain" else getattr(base, field) - 1
        assert not stands_on(entry(2, 9, base=5), msgspec.structs.replace(base, **{field: other}))

    def test_state_hashes_are_compared_where_both_are_known(self) -> None:
        increment = entry(2, 9, base=5)
        assert increment.base is not None
        known = msgspec.structs.replace(
            increment, base=msgspec.structs.replace(increment.base, state_hash="a")
        )
        assert stands_on(known, entry(1, 5, state="a"))
        assert stands_on(known, entry(1, 5))
        assert stands_on(increment, entry(1, 5, state="a"))
        assert not stands_on(known, entry(1, 5, state="b"))

    def test_nothing_stands_on_its_own_place(self) -> None:
        """Or a chain could go round in circles."""
        looped = entry(2, 5, base=5)
        assert not stands_on(looped, looped)
        assert plan_load([looped, entry(3, 5, base=5)]) is None


class TestPlan:
    def test_the_newest_position_is_loaded_by_the_shortest_way(self) -> None:
        entries = [entry(1, 1), entry(2, 2, base=1), entry(3, 3, base=2), entry(4, 2)]
        assert files(plan_load(entries)) == [4, 3]
        assert files(plan_load(entries[:3])) == [1, 2, 3]
        assert files(plan_load(entries[:2])) == [1, 2]
        assert plan_load(entries[1:3]) is None
        assert plan_load([]) is None

    def test_a_merged_image_takes_the_place_of_its_chain(self) -> None:
        entries = [entry(1, 1), entry(2, 2, base=1), entry(3, 3, base=2), entry(5, 2)]
        assert files(plan_load(entries)) == [5, 3]
        assert files(chain_at(entries[1], entries)) == [5]
        assert chain_at(entry(9, 9), entries) is None

    def test_a_file_without_a_way_to_it_gives_way_to_another_of_the_same_state(self) -> None:
        entries = [entry(1, 1), entry(2, 3, base=1), entry(3, 3, base=2)]
        assert files(chain_at(entries[2], entries)) == [1, 2]
        assert chain_at(entries[2], entries[2:]) is None

    def test_what_is_unusable_is_gone_round(self) -> None:
        entries = [entry(1, 1), entry(2, 2, base=1), entry(3, 3, base=2), entry(5, 2)]
        assert files(plan_load(entries, unusable=["2-5"])) == [1, 2, 3]
        assert files(plan_load(entries, unusable=["2-2"])) == [5, 3]
        assert files(plan_load(entries, unusable=["3-3"])) == [5]
        assert files(plan_load(entries, unusable=["2-5", "2-2", "3-3"])) == [1]
        assert files(plan_load(entries, unusable=["1-1", "2-5"])) is None

    def test_a_bound_leaves_out_what_is_later(self) -> None:
        entries = [entry(1, 1), entry(2, 2, base=1), entry(3, 3)]
        assert files(plan_load(entries, sequence_max=2)) == [1, 2]
        assert files(plan_load(entries, sequence_max=3)) == [3]
        assert plan_load(entries, sequence_max=0) is None

    def test_of_two_at_one_position_the_full_and_then_the_newer_one_is_taken(self) -> None:
        entries = [entry(1, 1), entry(2, 2, base=1), entry(3, 2), entry(4, 2)]
        assert files(plan_load(entries)) == [4]


class TestRetention:
    def test_the_newest_positions_stay_with_all_that_stands_on_them(self) -> None:
        entries = [
            entry(1, 1),
            entry(2, 2, base=1),
            entry(3, 3),
            entry(4, 4, base=3),
            entry(5, 5, base=4),
            entry(6, 6),
        ]
        assert files(retained(entries, fulls=2)) == [3, 4, 5, 6]
        assert files(retained(entries, fulls=1)) == [6]
        assert files(retained(entries, fulls=9)) == [1, 2, 3, 4, 5, 6]
        assert files(retained([], fulls=2)) == []
        assert files(retained([entry(2, 2, base=1)], fulls=2)) == []

    def test_two_full_images_at_one_position_count_once_and_more_do_not_stay(self) -> None:
        entries = [entry(1, 1), entry(2, 2), entry(3, 2)]
        assert files(retained(entries, fulls=2)) == [1, 2, 3]
        assert files(retained([*entries, entry(4, 2)], fulls=2)) == [1, 3, 4]
        assert files(retained([*entries, entry(4, 2)], fulls=1)) == [3, 4]

    def test_increments_on_a_merged_image_outlive_the_chain_below(self) -> None:
        entries = [entry(1, 1), entry(2, 2, base=1), entry(3, 3, base=2), entry(4, 2)]
        assert files(retained(entries, fulls=1)) == [3, 4]

    def test_the_log_is_kept_from_the_oldest_full_image_on(self) -> None:
        entries = [entry(3, 3), entry(4, 4, base=3), entry(6, 6)]
        floor = oldest_full(entries)
        assert floor is not None
        assert floor.number == 3
        assert oldest_full([]) is None


class TestManifestBytes:
    def test_it_comes_back(self) -> None:
        manifest = Manifest(next_number=7, entries=(entry(1, 1), entry(2, 2, base=1, state="s")))
        data = encode_manifest(manifest)
        assert decode_manifest(data, "M") == manifest
        assert data.startswith(b'{"format":1,"next_number":7,"entries":[{"file":"1-1"')

    def test_every_changed_or_missing_byte_is_damage(self) -> None:
        data = encode_manifest(Manifest(next_number=7, entries=(entry(1, 1),)))
        for at in range(len(data)):
            broken = bytearray(data)
            broken[at] ^= 1
            with pytest.raises(SnapshotDamaged):
                decode_manifest(bytes(broken), "M")
            with pytest.raises(SnapshotDamaged):
                decode_manifest(data[:at], "M")

    def test_a_later_format_is_refused_and_another_shape_is_damage(self) -> None:
        def sealed(line: bytes) -> bytes:
            return line + f"\n{crc32c(line):08x}\n".encode()

        with pytest.raises(SnapshotRefused, match="manifest format 2; this release reads 1"):
            decode_manifest(sealed(b'{"format":2,"other":[]}'), "M")
        for line in (b"{}x", b"[]", b'{"format":"a"}', b'{"format":1,"more":1}', b""):
            with pytest.raises(SnapshotDamaged):
                decode_manifest(sealed(line), "M")

    def test_names_carry_numbers(self) -> None:
        assert number_of("00000000000000001042-0000000007.full") == 7
        assert number_of("00000000000000001042-0000000008.increment") == 8
        for other in ("MANIFEST", "1-2.full.tmp", "1-x.full", "x-1.full", "12.full", "1-2.snap"):
            assert number_of(other) is None


def test_a_merge_reads_streams_once_and_keeps_their_order_within_a_slot() -> None:
    def stream(age: int, *places: tuple[int, str]) -> Any:
        for slot, name in places:
            yield Section(slot, name, 1, bytes([age]))

    groups = list(
        merge_slots(
            [
                stream(0, (-1, "s"), (1, "a"), (1, "b"), (3, "a")),
                stream(1, (1, "b"), (2, "a")),
                stream(2, (-1, "s"), (1, "a")),
            ]
        )
    )
    assert [slot for slot, _ in groups] == [-1, 1, 2, 3]
    found = {slot: [(s.name, s.chunk[0]) for s in sections] for slot, sections in groups}
    assert found[1] == [("a", 0), ("b", 0), ("b", 1), ("a", 2)]
    folded = [(s.slot, s.name, s.chunk[0]) for s in fold(groups)]
    assert folded == [
        (-1, "s", 0),
        (-1, "s", 2),
        (1, "a", 0),
        (1, "a", 2),
        (1, "b", 0),
        (1, "b", 1),
        (2, "a", 1),
        (3, "a", 0),
    ]


_CHANGE = st.tuples(
    st.integers(0, 9), st.sampled_from("abcdef"), st.none() | st.binary(max_size=30)
)


@settings(max_examples=100, deadline=None)
@given(
    rounds=st.lists(st.lists(_CHANGE, max_size=15), min_size=1, max_size=5),
    batch_bytes=st.integers(1, 200),
)
def test_merging_gives_the_bytes_of_a_fresh_full_image(
    rounds: list[list[tuple[int, str, bytes | None]]], batch_bytes: int
) -> None:
    image = DictImage(pairs_per_chunk=2)
    chain: list[list[Section]] = []
    for number, changes in enumerate(rounds):
        for slot, name, value in changes:
            if value is None:
                image.remove(slot, name)
            else:
                image.put(slot, name, value)
        chain.append(list(image.sections(full=number == 0)))
        image.mark()
    made: list[DictImage] = []

    def new_image() -> DictImage:
        made.append(DictImage(pairs_per_chunk=2))
        return made[-1]

    fresh = list(image.sections(full=True))
    merged = list(rebuild(merge_slots(chain), new_image, batch_bytes=batch_bytes))
    assert merged == fresh
    assert state_hash(merged) == state_hash(fresh)
    # Memory is bounded: no scratch image holds more than a batch and one slot beyond it.
    largest = max((sum(len(s.chunk) for s in g) for _, g in merge_slots(chain)), default=0)
    for scratch in made:
        held = sum(len(each.chunk) for each in scratch.sections(full=True))
        assert held <= batch_bytes + largest + 20
    loaded = DictImage(pairs_per_chunk=2)
    for section in fold(merge_slots(chain)):
        loaded.load(section)
    assert list(loaded.sections(full=True)) == fresh


class Windowed(DictImage):
    """What a slot dumps depends on the shard-wide part: names below the count are gone."""

    def slot_sections(self, slot: int, *, full: bool) -> Any:
        if slot != SHARD_WIDE:
            for name in sorted(self._slots.get(slot, {})):
                if name < f"{self.changes:04d}":
                    self._slots[slot].pop(name)
        return super().slot_sections(slot, full=full)


def test_every_batch_knows_the_shard_wide_part() -> None:
    image = Windowed()
    for slot in range(6):
        image.put(slot, "0003", b"old")
        image.put(slot, "0900", b"new")
    fresh = list(image.sections(full=True))
    assert b"old" not in b"".join(section.chunk for section in fresh)
    stale = DictImage()
    for slot in range(6):
        stale.put(slot, "0003", b"old")
        stale.put(slot, "0900", b"new")
    groups = merge_slots([stale.sections(full=True)])
    assert list(rebuild(groups, Windowed, batch_bytes=1)) == fresh


@settings(max_examples=100, deadline=None)
@given(
    before=st.lists(_CHANGE, max_size=20),
    during=st.lists(st.lists(_CHANGE, max_size=4), max_size=12),
    full=st.booleans(),
)
def test_a_cut_is_what_was_there_and_the_next_increment_is_what_came_since(
    before: list[tuple[int, str, bytes | None]],
    during: list[list[tuple[int, str, bytes | None]]],
    full: bool,
) -> None:
    image = DictImage(pairs_per_chunk=3)
    cut: Cut | None = None

    def change(slot: int, name: str, value: bytes | None) -> None:
        if cut is not None:
            cut.before(slot)
        if value is None:
            image.remove(slot, name)
        else:
            image.put(slot, name, value)

    base = DictImage()
    if not full:
        for slot in range(5):
            image.put(slot, "base", b"")
        for section in image.sections(full=True):
            base.load(section)
        image.mark()
    for each in before:
        change(*each)
    expected = list(image.sections(full=full))
    at_cut = list(image.sections(full=True))
    cut = Cut(image, full=full, captured_bytes_max=1_000_000)
    found: list[Section] = []
    pauses = iter(during)
    for sections in cut.slots():
        found += sections
        for each in next(pauses, ()):
            change(*each)
    assert found == expected
    assert not cut.pending
    assert cut.captured_bytes == 0
    # Full image at the cut, then the next increment: now.
    loaded = DictImage(pairs_per_chunk=3)
    for section in [*at_cut, *image.sections(full=False)]:
        loaded.load(section)
    assert list(loaded.sections(full=True)) == list(image.sections(full=True))
