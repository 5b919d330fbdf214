"""Groups below the log's first offset, from archived segments: one history, or a clear no."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultraengine.log.archived import SEGMENTS_KEPT, check_owner
from ultraengine.log.damage import BelowRetention, LogDamaged, LogRefused
from ultraengine.log.retention import KeyCompaction, TimeRetention
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Instant, Offset, ShardId
from ultraengine.model.policy import CompactionPolicy
from ultraengine.testing.feed_sources import LIMITS, SHARD, StoredFeed, collect, commands_of
from ultraengine.testing.sim_objects import SimObjectStore


class Archive:
    """A log whose old segments are in a store."""

    def __init__(
        self,
        *,
        encrypted: bool = False,
        keep_s: float | None = None,
        segment_bytes: int = LIMITS.segment_bytes,
    ) -> None:
        self.store = SimObjectStore()
        self.stored = StoredFeed(
            encrypted=encrypted,
            compaction=TimeRetention(keep_s),
            store=self.store,
            segment_bytes=segment_bytes,
        )

    def grow(self, groups: int = 100) -> int:
        """Write groups and cut the log behind them; the first offset that it holds still."""
        self.stored.write(groups, count=3, size=60)
        return self.stored.cut()

    @property
    def names(self) -> Sequence[str]:
        return self.store.list(f"{SHARD}/segments/")

    def first_offsets(self) -> list[int]:
        """Where each group begins."""
        return [
            group.header.base_offset for group in self.stored.log.reader(archived=True).groups(0)
        ]


@pytest.mark.parametrize("encrypted", [False, True])
async def test_the_whole_history_comes_from_the_archive_and_the_log(*, encrypted: bool) -> None:
    world = Archive(encrypted=encrypted)
    stored = world.stored
    for _ in range(3):
        world.grow()
    assert len(world.names) > SEGMENTS_KEPT // 4
    first = stored.log.first_offset
    assert 0 < first < stored.end
    for offset in (0, 1, 2, first - 1, first, first + 1):
        groups = await collect(stored.feed, offset, stored.end)
        assert commands_of(groups) == stored.written[offset // 3 :]
    chains = [group.chain for group in await collect(stored.feed, 0, stored.end)]
    assert len(set(chains)) == len(stored.written)
    await stored.feed.close()


async def test_a_long_archive_is_read_with_few_segments_open() -> None:
    world = Archive()
    while len(world.names) <= SEGMENTS_KEPT + 2:
        world.grow()
    reader = world.stored.log.reader(archived=True)
    assert len(list(reader.groups(0))) == len(world.stored.written)
    assert reader._archived is not None
    assert len(reader._archived._kept) == SEGMENTS_KEPT
    await world.stored.feed.close()


async def test_after_a_restart_the_archive_is_read_as_before() -> None:
    world = Archive()
    world.grow()
    await world.stored.restart()
    world.grow()
    groups = await collect(world.stored.feed, 0, world.stored.end)
    assert commands_of(groups) == world.stored.written
    await world.stored.feed.close()


async def test_a_group_may_have_its_outcomes_in_the_next_segment() -> None:
    """Also where the next segment is the first one of the log."""
    for fill in range(20):
        world = Archive()
        stored = world.stored
        while stored.log._appender.rolls == 0:
            stored.commands(count=1, size=400 + 37 * fill)
            if stored.log._appender.rolls:
                break
            stored.outcomes()
        stored.outcomes()
        world.grow(30)
        groups = await collect(stored.feed, 0, stored.end)
        assert commands_of(groups) == stored.written
        await stored.feed.close()


async def test_what_the_archive_has_dropped_is_too_old_and_what_is_left_is_read() -> None:
    world = Archive(keep_s=3600.0)
    stored = world.stored
    world.grow()
    old = len(world.names)
    stored.clock.advance(3_000)
    world.grow()
    stored.clock.advance(1_000)
    world.grow()
    spans = [name.rpartition("/")[2].split("-") for name in world.names]
    first = min(int(span[2]) for span in spans)
    assert 0 < first < stored.log.first_offset
    assert old > 1
    with pytest.raises(EngineError) as caught:
        await collect(stored.feed, first - 1, stored.end)
    assert caught.value.code == "TOO_OLD"
    assert f"the first one is {first}" in caught.value.detail
    begin = -(-first // 3)
    assert commands_of(await collect(stored.feed, 3 * begin, stored.end)) == stored.written[begin:]
    await stored.feed.close()


async def test_a_gap_in_the_archive_ends_what_can_be_read() -> None:
    world = Archive()
    for _ in range(2):
        world.grow()
    names = list(world.names)
    lost = names[len(names) // 2]
    world.store.delete(lost)
    behind = int(names[len(names) // 2 + 1].rpartition("/")[2].split("-")[2])
    with pytest.raises(BelowRetention) as caught:
        list(world.stored.log.reader(archived=True).groups(0))
    assert caught.value.first_offset == behind
    groups = await collect(world.stored.feed, behind, world.stored.end)
    assert groups[0].base_offset <= behind < groups[0].offset_end
    await world.stored.feed.close()


async def test_an_object_that_goes_while_it_is_read_is_too_old_not_a_failure() -> None:
    world = Archive()
    world.grow()
    reader = world.stored.log.reader(archived=True)
    walk = reader.groups(0)
    next(walk)
    for name in world.names:
        world.store.delete(name)
    with pytest.raises(BelowRetention) as caught:
        list(walk)
    assert caught.value.first_offset == world.stored.log.first_offset
    with pytest.raises(EngineError) as refused:
        await collect(world.stored.feed, 0, world.stored.end)
    assert refused.value.code == "TOO_OLD"
    await world.stored.feed.close()


async def test_segments_that_are_archived_while_they_are_read_are_read_from_there() -> None:
    world = Archive()
    stored = world.stored
    stored.write(100, count=3, size=60)
    pages = stored.feed.pages(SHARD, Offset(0))
    found = list((await anext(pages)).groups)
    stored.cut()
    while not found or found[-1].offset_end < stored.end:
        found += (await anext(pages)).groups
    assert commands_of(found) == stored.written
    await pages.aclose()
    await stored.feed.close()


def test_without_asking_for_it_nobody_reads_the_archive() -> None:
    world = Archive()
    first = world.grow()
    with pytest.raises(BelowRetention) as caught:
        list(world.stored.log.reader().groups(0))
    assert caught.value.first_offset == first


def test_the_same_span_stored_twice_is_read_once() -> None:
    world = Archive()
    world.grow()
    name = world.names[0]
    other = name[: -len("00000000000000000000.log")] + f"{Instant(5):020d}.log"
    world.store.put(other, world.store.get(name))
    assert len(world.first_offsets()) == len(world.stored.written)


def test_other_names_in_the_archive_are_nobodys_business() -> None:
    world = Archive()
    world.grow()
    world.store.put(f"{SHARD}/segments/README", b"hello")
    world.store.put("30/segments/x", b"hello")
    assert len(world.first_offsets()) == len(world.stored.written)


@pytest.mark.parametrize("what", ["header", "other segment", "frame", "cut off"])
def test_an_archived_segment_that_was_changed_is_damage_with_its_name(what: str) -> None:
    world = Archive()
    world.grow()
    name = world.names[1]
    data = bytearray(world.store.get(name))
    if what == "header":
        data[40] ^= 1
    elif what == "other segment":
        data = bytearray(world.store.get(world.names[0]))
    elif what == "frame":
        data[5_000] ^= 1
    else:
        del data[-200:]
    world.store.put(name, bytes(data))
    with pytest.raises(LogDamaged) as caught:
        world.first_offsets()
    assert name in str(caught.value)


def test_an_archive_of_another_history_is_found_by_its_chain() -> None:
    """Same sequences, same offsets, other commands."""
    one, other = Archive(), Archive()
    one.grow()
    other.stored.clock.advance(5)
    other.grow()
    mine, theirs = one.names[1], other.names[1]
    assert mine.split("-")[:4] == theirs.split("-")[:4]
    one.store.delete(mine)
    one.store.put(theirs, other.store.get(theirs))
    with pytest.raises(LogDamaged, match="another chain"):
        one.first_offsets()


def covered(name: str) -> range:
    """The frames of an archived segment, as its name says them."""
    first, end = name.rpartition("/")[2].split("-")[:2]
    return range(int(first), int(end))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_what_any_copy_has_archived_leads_up_to_the_log(seed: int, encrypted: bool) -> None:
    """Copies hold the same frames in other segments: one that never had some of them, as it was
    filled later, reads what the others have archived, as far back as there is no gap."""
    chance = random.Random(seed)
    copies = [Archive(encrypted=encrypted, segment_bytes=kib * 1024) for kib in (16, 21, 33)]
    for _ in range(chance.randrange(20, 80)):
        count, size = chance.randrange(1, 6), chance.randrange(20, 900)
        for copy in copies:
            copy.stored.write(1, count, size)
    for copy in copies:
        copy.stored.cut()
    mine = copies[0]
    stored = mine.stored
    for copy in copies[1:]:
        for name in copy.names:
            mine.store.put(name, copy.store.get(name))
    for name in mine.names:
        if chance.random() < 0.3:
            mine.store.delete(name)
    left = {sequence for name in mine.names for sequence in covered(name)}
    reader = stored.log.reader(archived=True)
    first = int(reader.first.sequence)
    while first - 1 in left:
        first -= 1
    if first == 0:
        found = [command.id for group in reader.groups(0) for command in group.commands]
        assert found == [command.id for group in stored.written for command in group]
        return
    with pytest.raises(BelowRetention) as caught:
        list(reader.groups(0))
    assert caught.value.first_sequence == first
    begin = int(caught.value.first_offset)
    groups = list(reader.groups(begin))
    assert groups[0].header.base_offset == begin
    assert [command.id for group in groups for command in group.commands] == [
        f"id-{number}" for number in range(begin, stored.end)
    ]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_from_any_offset_archive_and_log_give_what_was_written(seed: int) -> None:
    chance = random.Random(seed)
    world = Archive(encrypted=chance.random() < 0.3)
    stored = world.stored
    for _ in range(chance.randrange(1, 4)):
        for _ in range(chance.randrange(10, 60)):
            stored.commands(chance.randrange(1, 6), chance.randrange(20, 900))
            if chance.random() < 0.7:
                stored.outcomes()
        stored.outcomes()
        stored.cut()
    reader = stored.log.reader(archived=True)
    for _ in range(5):
        offset = chance.randrange(stored.end)
        groups = list(reader.groups(offset))
        found = [command.id for group in groups for command in group.commands]
        assert found == [f"id-{n}" for n in range(groups[0].header.base_offset, stored.end)]
        assert groups[0].header.base_offset <= offset < groups[0].header.offset_end


@pytest.mark.parametrize("compaction", [TimeRetention(None), KeyCompaction()])
def test_an_archive_is_of_one_engine(compaction: CompactionPolicy) -> None:
    store = SimObjectStore()
    stored = StoredFeed(compaction=compaction, store=store)
    own, other = stored.log.identity.cluster_uid, bytes(16)
    check_owner(store, SHARD, other)  # Nothing is there yet.
    stored.write(100, count=3, size=60)
    stored.cut()
    assert store.list(f"{SHARD}/")
    check_owner(store, SHARD, own)
    with pytest.raises(LogRefused, match="of another engine"):
        check_owner(store, SHARD, other)
    check_owner(store, ShardId(SHARD + 1), other)


class _Away(SimObjectStore):
    """A store that cannot be reached."""

    def list(self, prefix: str) -> Sequence[str]:
        raise ConnectionError(prefix)


def test_an_archive_that_cannot_be_read_or_is_damaged_keeps_nobody_from_starting() -> None:
    check_owner(_Away(), SHARD, bytes(16))
    store = SimObjectStore()
    store.put(f"{SHARD}/segments/notes.txt", b"not ours")
    check_owner(store, SHARD, bytes(16))
