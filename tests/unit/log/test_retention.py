"""Retention and its archives: what may go goes, and nothing else does."""

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.log.log_world import LIMITS, SECRETS, World, command, outcome

from ultraengine.log import frame as frames
from ultraengine.log import key_archive
from ultraengine.log.archive import key_object
from ultraengine.log.frame import Keys
from ultraengine.log.key_archive import ArchiveDamaged, Entry, decode_archive, encode_archive, merge
from ultraengine.log.retention import (
    SNAPSHOT,
    KeyCompaction,
    NoCompaction,
    SegmentSpan,
    TimeRetention,
    alarms_of,
    plan,
)
from ultraengine.log.segment import GENESIS, KeyRing, SegmentHeader, encode_header
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.testing.sim_clock import SimRandom
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_objects import SimObjectStore


def spans(count: int, size: int = 100) -> list[SegmentSpan]:
    """Segments of 10 frames and 20 offsets each."""
    return [
        SegmentSpan(f"s{n}", n * 10, n * 10 + 10, n * 20, n * 20 + 20, size, Instant(n))
        for n in range(count)
    ]


def planned(
    snapshot: int, consumers: Mapping[str, int], bytes_max: int = 10**9, count: int = 10
) -> tuple[int, list[str], str]:
    """Segments removed, consumers dropped, what limits; `snapshot` counts segments."""
    found = plan(
        spans(count),
        current_bytes=100,
        snapshot_sequence=snapshot * 10,
        snapshot_offset=snapshot * 20,
        consumers=consumers,
        bytes_max=bytes_max,
    )
    assert [span.path for span in found.remove] == [f"s{n}" for n in range(len(found.remove))]
    assert found.kept_bytes == 100 * (count - len(found.remove) + 1)
    return len(found.remove), list(found.dropped), found.limited_by


def test_retention_is_the_lower_of_snapshot_and_slowest_consumer() -> None:
    assert planned(7, {}) == (7, [], SNAPSHOT)
    assert planned(7, {"a": 180, "b": 61}) == (3, [], "b")
    assert planned(7, {"a": 180, "b": 200}) == (7, [], SNAPSHOT)
    assert planned(0, {}) == (0, [], SNAPSHOT)
    assert planned(10, {}) == (10, [], "")
    assert planned(10, {"a": 0}) == (0, [], "a")


def test_the_snapshot_holds_by_sequence_and_by_offset() -> None:
    for sequence, offset, removed in ((55, 1000, 5), (1000, 99, 4), (50, 100, 5), (49, 100, 4)):
        found = plan(
            spans(10),
            current_bytes=0,
            snapshot_sequence=sequence,
            snapshot_offset=offset,
            consumers={},
            bytes_max=10**9,
        )
        assert len(found.remove) == removed


def test_beyond_the_cap_the_slowest_consumers_are_dropped_one_by_one() -> None:
    consumers = {"slow": 5, "slower": 0, "fine": 150}
    assert planned(8, consumers, bytes_max=1100) == (0, [], "slower")
    assert planned(8, consumers, bytes_max=1099) == (7, ["slower", "slow"], "fine")
    assert planned(8, consumers, bytes_max=300) == (8, ["slower", "slow", "fine"], SNAPSHOT)


def test_a_consumer_that_the_snapshot_holds_back_anyway_is_never_dropped() -> None:
    assert planned(2, {"a": 50}, bytes_max=1) == (2, [], SNAPSHOT)


def test_consumers_at_the_same_offset_are_dropped_by_name() -> None:
    assert planned(8, {"b": 0, "a": 0}, bytes_max=1)[1] == ["a", "b"]


@given(
    st.integers(0, 10),
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 220)),
    st.integers(0, 1200),
)
def test_no_plan_touches_the_snapshot_or_a_consumer_that_was_kept(
    snapshot: int, consumers: dict[str, int], bytes_max: int
) -> None:
    removed, dropped, limited_by = planned(snapshot, consumers, bytes_max)
    assert removed <= snapshot
    for name, needed in consumers.items():
        if name not in dropped:
            assert removed * 20 <= needed
    kept_bytes = 100 * (10 - removed + 1)
    if kept_bytes > bytes_max:
        assert removed == snapshot, "the cap gives way to nothing but the snapshot"
    assert (limited_by == "") == (removed == 10)


def test_alarms_name_who_lost_what_and_a_snapshot_that_is_too_old() -> None:
    found = plan(
        spans(10),
        current_bytes=100,
        snapshot_sequence=20,
        snapshot_offset=40,
        consumers={"mail": 3},
        bytes_max=500,
    )
    dropped, old = alarms_of(found, 500)
    assert dropped.startswith("the consumer 'mail' still needed offset 3 and was dropped")
    assert "newest verified snapshot is too old" in old
    assert alarms_of(msgspec.structs.replace(found, dropped={}, kept_bytes=500), 500) == ()


def test_policies_say_what_is_archived() -> None:
    at, day = Instant(1_000_000), 86_400
    assert NoCompaction().name == "none"
    assert not NoCompaction().archive(sealed_at=at, now=at)
    assert KeyCompaction().name == "key"
    assert KeyCompaction().archive(sealed_at=at, now=at)
    assert TimeRetention().name == "time"
    assert TimeRetention().archive(sealed_at=at, now=Instant(10**18))
    limited = TimeRetention(keep_s=day)
    assert limited.archive(sealed_at=at, now=Instant(at + day * 1_000_000 - 1))
    assert not limited.archive(sealed_at=at, now=Instant(at + day * 1_000_000))
    with pytest.raises(InvariantBroken):
        TimeRetention(keep_s=0)


def test_a_log_removes_its_old_segments_and_starts_from_what_is_left() -> None:
    world = World()
    world.groups(60, count=3, size=200)
    before = world.segments()
    report = world.log.retain(150, 90, {"feed": 148})
    assert report.removed == tuple(before[: len(report.removed)])
    assert 0 < len(report.removed) < len(before)
    assert world.segments() == before[len(report.removed) :]
    assert report.first_offset <= 148
    assert report.limited_by in {"feed", SNAPSHOT}
    assert report.alarms == ()
    assert report.log_bytes == sum(len(world.read(path)) for path in world.segments())
    chain = world.written[-1].chain
    world.restart(world.disk.power_cut())
    recovered = world.log.recovered
    assert recovered.chain == chain
    assert (recovered.first_sequence, recovered.first_offset) == (
        report.first_sequence,
        report.first_offset,
    )
    assert len(list(world.log.reader().groups(150))) == 10


def test_a_dropped_consumer_is_reported_with_what_it_still_needed() -> None:
    world = World(limits=msgspec.structs.replace(LIMITS, retention_bytes_max=30_000))
    world.groups(60, count=3, size=200)
    report = world.log.retain(180, 119, {"dead": 7})
    assert report.dropped == {"dead": 7}
    assert "'dead' still needed offset 7" in report.alarms[0]
    assert report.removed


def test_nothing_is_removed_from_a_log_that_was_closed_or_has_failed() -> None:
    world = World()
    world.groups(60, count=3, size=200)
    world.log.close(clean=True)
    assert world.log.retain(180, 119, {}).removed == ()


def test_a_power_cut_during_removal_leaves_no_gap() -> None:
    for seed in range(20):
        world = World(SimDisk(seed))
        world.groups(60, count=3, size=200)
        world.log.retain(150, 90, {})
        world.restart(world.disk.power_cut())
        assert world.log.recovered.end_offset == 180


def test_time_retention_archives_segments_byte_for_byte_and_prunes_the_old() -> None:
    store = SimObjectStore()
    world = World(compaction=TimeRetention(keep_s=3600), store=store)
    world.groups(60, count=3, size=200)
    contents = {path: world.read(path) for path in world.segments()}
    report = world.log.retain(150, 90, {})
    assert len(report.archived) == len(report.removed) > 0
    for name, path in zip(report.archived, report.removed, strict=True):
        assert store.get(name) == contents[path]
        assert name.startswith(f"3/segments/{int(path[8:28]):020d}-")
    world.clock.advance(3600)
    world.time = world.clock.now()
    world.groups(20, count=3, size=200)
    later = world.log.retain(150, 90, {})
    assert later.pruned == report.archived
    assert list(store.list("3/segments/")) == []


def test_archived_segments_stay_as_long_as_the_policy_wants() -> None:
    store = SimObjectStore()
    world = World(compaction=TimeRetention(), store=store)
    world.groups(60, count=3, size=200)
    first = world.log.retain(90, 60, {})
    world.clock.advance(10**6)
    store.put("3/segments/notes.txt", b"not ours")
    second = world.log.retain(150, 90, {})
    assert second.pruned == ()
    assert [*first.archived, *second.archived, "3/segments/notes.txt"] == list(
        store.list("3/segments/")
    )


def test_segments_too_old_for_the_archive_are_removed_without_it() -> None:
    store = SimObjectStore()
    world = World(compaction=TimeRetention(keep_s=60), store=store)
    world.groups(60, count=3, size=200)
    world.clock.advance(61)
    world.time = world.clock.now()
    world.group()
    report = world.log.retain(150, 90, {})
    assert report.removed
    assert report.archived == ()


def test_a_wall_clock_that_leaps_ten_years_neither_empties_the_archive_nor_passes_it_by() -> None:
    store = SimObjectStore()
    world = World(compaction=TimeRetention(keep_s=30 * 86_400), store=store)
    world.groups(60, count=3, size=200)
    first = world.log.retain(90, 60, {})
    world.time = world.clock.now()
    world.clock.advance(10 * 365 * 86_400)
    world.groups(20, count=3, size=200)
    second = world.log.retain(200, 110, {})
    assert second.pruned == ()
    assert len(second.archived) == len(second.removed) > 0
    assert [*first.archived, *second.archived] == list(store.list("3/segments/"))


class Forgetful(SimObjectStore):
    """A store that cuts off the last byte."""

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        super().put(name, data[:-1], if_absent=if_absent)


class Broken(SimObjectStore):
    """A store that cannot be reached."""

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        raise OSError("unreachable")


@pytest.mark.parametrize("store", [Forgetful(), Broken()], ids=["forgetful", "broken"])
@pytest.mark.parametrize("policy", [TimeRetention(), KeyCompaction()], ids=["time", "key"])
def test_segments_stay_while_they_cannot_be_archived(
    store: SimObjectStore, policy: TimeRetention | KeyCompaction
) -> None:
    world = World(compaction=policy, store=store)
    world.groups(60, count=3, size=200)
    before = world.segments()
    report = world.log.retain(150, 90, {})
    assert report.removed == ()
    assert "segments stay in the log" in report.alarms[0]
    assert world.segments() == before
    assert world.group().error is None


def test_a_policy_needs_a_store_and_a_store_a_policy() -> None:
    for changes in ({"store": SimObjectStore()}, {"compaction": KeyCompaction()}):
        with pytest.raises(InvariantBroken):
            World(**changes)


def newest(end: int) -> list[Entry]:
    """What a key-compacted archive of `log_world` commands below `end` must hold."""
    wanted: dict[str, int] = {}
    for offset in range(end):
        if offset % 5 != 4:
            wanted[f"k{offset % 3}"] = offset
    return sorted(
        (
            Entry("acme", key, Offset(at), Epoch(1), Instant(0), command(at, size=200), outcome(at))
            for key, at in wanted.items()
        ),
        key=key_archive.sort_key,
    )


def without_time(entries: list[Entry]) -> list[Entry]:
    return [msgspec.structs.replace(entry, time=Instant(0)) for entry in entries]


@pytest.mark.parametrize(
    "form",
    [{}, {"compress": True, "master_key": "disk", "chain_key": "chain"}],
    ids=["plain", "all"],
)
def test_key_compaction_keeps_the_newest_accepted_command_per_key(form: dict[str, str]) -> None:
    store = SimObjectStore()
    world = World(compaction=KeyCompaction(), store=store, **form)  # type: ignore[arg-type]
    for round_ in range(1, 5):
        world.groups(30, count=3, size=200)
        end = round_ * 90
        report = world.log.retain(end - 10, world.written[-1].end_sequence - 8, {})
        if not form:
            assert report.removed
        assert report.alarms == ()
        names = store.list("3/keys/")
        if not names:
            continue
        # Archives of like size merge: here into one, as all keys are in each.
        assert list(names) == [key_object(world.log._stamp.shard, 0, report.first_offset)]
        header, entries = decode_archive(store.get(names[0]), KeyRing(SECRETS))
        assert header.end_offset == report.first_offset
        assert header.end_sequence == report.first_sequence
        assert header.entries == len(entries) == 3
        assert without_time(entries) == newest(report.first_offset)
    assert store.list("3/keys/")


def test_archiving_again_after_a_crash_before_the_removal_changes_nothing() -> None:
    store = SimObjectStore()
    world = World(compaction=KeyCompaction(), store=store)
    world.groups(60, count=3, size=200)
    image = world.disk.image()
    first = world.log.retain(120, 70, {})
    kept = {name: store.get(name) for name in store.list("")}
    crashed = World(SimDisk(image=image), compaction=KeyCompaction(), store=store)
    again = crashed.log.retain(120, 70, {})
    assert again.removed == first.removed
    assert again.archived == ()
    assert {name: store.get(name) for name in store.list("")} == kept
    further = crashed.log.retain(170, 110, {})
    assert further.archived
    (name,) = store.list("3/keys/")
    entries = decode_archive(store.get(name), KeyRing(SECRETS))[1]
    assert without_time(entries) == newest(further.first_offset)


def test_archives_that_a_larger_one_covers_are_removed() -> None:
    store = SimObjectStore()
    world = World(compaction=KeyCompaction(), store=store)
    world.groups(60, count=3, size=200)
    report = world.log.retain(120, 70, {})
    (whole,) = store.list("3/keys/")
    store.put(key_object(world.log._stamp.shard, 0, 3), b"left by a crash")
    store.put("3/keys/notes.txt", b"not ours")
    again = world.log.retain(120, 70, {})
    assert report.removed
    assert again.pruned == (key_object(world.log._stamp.shard, 0, 3),)
    assert list(store.list("3/keys/")) == [whole, "3/keys/notes.txt"]


def test_archives_with_a_gap_between_them_are_not_merged() -> None:
    store = SimObjectStore()
    world = World(compaction=KeyCompaction(), store=store)
    world.groups(60, count=3, size=200)
    first = world.log.retain(60, 40, {})
    world.log._trimmer.archive = None
    second = world.log.retain(120, 80, {})
    world.restart(world.disk.kill())
    third = world.log.retain(175, 110, {})
    assert first.first_offset < second.first_offset < third.first_offset
    shard = world.log._stamp.shard
    assert list(store.list("3/keys/")) == [
        key_object(shard, 0, first.first_offset),
        key_object(shard, second.first_offset, third.first_offset),
    ]


def test_a_group_without_outcomes_does_not_leave_the_log() -> None:
    store = SimObjectStore()
    world = World(compaction=KeyCompaction(), store=store)
    for _ in range(30):
        world.write([world.commands(3, size=500)])
    report = world.log.retain(60, 20, {})
    assert report.removed == ()
    assert "have no outcomes" in report.alarms[0]


def entry(key: str, offset: int) -> Entry:
    return Entry(
        "t", key, Offset(offset), Epoch(1), Instant(offset), command(offset), outcome(offset)
    )


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9)),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(10, 19)),
)
def test_merging_is_the_same_as_archiving_both_ranges_at_once(
    older: dict[str, int], newer: dict[str, int]
) -> None:
    merged = list(
        merge(
            [entry(key, at) for key, at in sorted(older.items())],
            [entry(key, at) for key, at in sorted(newer.items())],
        )
    )
    assert merged == [entry(key, at) for key, at in sorted((older | newer).items())]


def archive_bytes() -> bytes:
    store = SimObjectStore()
    world = World(compaction=KeyCompaction(), store=store)
    world.groups(60, count=3, size=200)
    world.log.retain(150, 90, {})
    return store.get(store.list("3/keys/")[0])


def test_every_flip_and_cut_of_a_key_archive_is_found() -> None:
    data = archive_bytes()
    ring = KeyRing(SECRETS)
    for position in [*range(400), *range(4080, len(data))]:
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        with pytest.raises(ArchiveDamaged):
            decode_archive(bytes(damaged), ring)
    for length in range(0, len(data), 7):
        with pytest.raises(ArchiveDamaged):
            decode_archive(data[:length], ring)
    with pytest.raises(ArchiveDamaged):
        decode_archive(data + bytes(8), ring)


def sealed_header() -> tuple[SegmentHeader, Keys]:
    """A header for an archive of offsets 0 to 9."""
    return KeyRing(SECRETS).create(
        SegmentHeader(
            shard=ShardId(3),
            cluster_uid=b"u" * 16,
            created=Instant(0),
            point=GENESIS,
            salt=b"",
            archive=True,
            end_offset=Offset(10),
        ),
        SimRandom(1),
    )


def test_an_archive_whose_counts_disagree_is_refused() -> None:
    header, keys = sealed_header()
    entries = [entry("a", 1), entry("b", 2)]
    data = encode_archive(header, keys, entries, compress=False)
    assert decode_archive(data, KeyRing(SECRETS))[1] == entries
    for wrong in (1, 3):
        other = encode_header(msgspec.structs.replace(header, entries=wrong))
        with pytest.raises(ArchiveDamaged, match=f"2 entries instead of {wrong}"):
            decode_archive(other + data[4096:], KeyRing(SECRETS))
    frame = frames.decode(data, 4096, keys)
    draft = msgspec.structs.replace(frames.draft_of(frame), count=3)
    parts = frames.encode(draft, frames.place_of(frame.header), keys)[0]
    with pytest.raises(ArchiveDamaged, match="2 entries instead of 3"):
        decode_archive(data[:4096] + b"".join(parts), KeyRing(SECRETS))


def test_the_frames_of_an_archive_stand_in_their_order() -> None:
    header, keys = sealed_header()
    data = encode_archive(header, keys, [entry("a", 1)], compress=False)
    again = data + data[4096:]
    with pytest.raises(ArchiveDamaged, match="does not continue the archive"):
        decode_archive(again, KeyRing(SECRETS))


def test_an_archive_of_nothing_is_an_archive() -> None:
    header, keys = sealed_header()
    data = encode_archive(header, keys, [], compress=False)
    assert decode_archive(data, KeyRing(SECRETS)) == (header, [])


def test_an_entry_beyond_a_frame_cannot_be_archived() -> None:
    header, keys = sealed_header()
    large = msgspec.structs.replace(outcome(7), result=msgspec.Raw(bytes(1 << 24)))
    huge = msgspec.structs.replace(entry("a", 7), outcome=large)
    with pytest.raises(ValueError, match="offset 7 is too large"):
        encode_archive(header, keys, [huge], compress=False)


def test_a_segment_is_not_taken_for_an_archive_or_the_other_way_round() -> None:
    world = World()
    world.groups(3)
    with pytest.raises(ArchiveDamaged, match="this is a segment"):
        decode_archive(world.read(world.segments()[0]), KeyRing(SECRETS))


def test_large_archives_are_split_into_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_archive, "CHUNK_BYTES", 300)
    data = archive_bytes()
    assert data.count(b"UEFR") > 1
    assert without_time(decode_archive(data, KeyRing(SECRETS))[1])
