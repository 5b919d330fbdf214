"""Contract of `DedupIndex`: one answer wherever entries are, one floor on every replica."""

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.unit.execution.dedup_world import OPTIONS, Group, Id, World

from ultraengine.execution.dedup import (
    POINTS_PER_WINDOW,
    DedupIndex,
    DedupOptions,
    FloorRaised,
    NoRuns,
)
from ultraengine.execution.dedup_files import driver
from ultraengine.execution.packed import CHUNK_ENTRIES_MAX
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Instant, Offset
from ultraengine.model.limits import Limits
from ultraengine.testing.sim_disk import SimDisk

MEMORY_ONLY = DedupOptions(entries_max=1_000, bytes_max=0, window_us=10_000)


def fresh(count: int, *, seed: int = 1, slots: int = 3) -> list[Id]:
    source = random.Random(seed)
    return [(source.randrange(slots), source.randbytes(8)) for _ in range(count)]


def in_memory(options: DedupOptions = MEMORY_ONLY) -> DedupIndex:
    index = DedupIndex(options)
    index.load_done()
    return index


def add_all(index: DedupIndex, ids: list[Id], *, start: int = 0, time: int = 0) -> None:
    for offset, identity in enumerate(ids, start):
        index.add(*identity, offset)
    index.advance(Instant(time), Offset(start + len(ids)))


def test_an_id_is_found_in_its_slot_alone() -> None:
    index = in_memory()
    add_all(index, [(5, b"aaaaaaaa"), (6, b"bbbbbbbb"), (5, b"aaaaaaaa")])
    assert index.find(5, b"aaaaaaaa") == (2, 0)
    assert index.find(6, b"aaaaaaaa") == ()
    assert index.find(7, b"aaaaaaaa") == ()
    assert (index.entries, index.entries_in_memory) == (3, 3)


def test_options_come_from_the_named_limits() -> None:
    limits = Limits(dedup_entries_max=10, dedup_bytes_max=160, dedup_window_s=3)
    options = DedupOptions.of(limits)
    assert options == DedupOptions(entries_max=10, bytes_max=160, window_us=3_000_000)
    assert options.entries_total_max == 20


def test_an_id_is_remembered_for_the_whole_window_and_forgotten_soon_after() -> None:
    window = 1_000 * POINTS_PER_WINDOW
    index = in_memory(DedupOptions(entries_max=1_000, bytes_max=0, window_us=window))
    ids = fresh(3)
    for offset, (identity, time) in enumerate(zip(ids, (0, 400, 1_000), strict=True)):
        index.add(*identity, offset)
        index.advance(Instant(time), Offset(offset + 1))
    index.advance(Instant(window - 1), Offset(3))
    assert [index.find(*identity) for identity in ids] == [(0,), (1,), (2,)]
    assert index.take_facts() == []
    index.advance(Instant(window), Offset(3))
    assert [index.find(*identity) for identity in ids] == [(), (1,), (2,)]
    assert (index.floor_offset, index.floor_time, index.entries) == (1, 0, 2)
    index.advance(Instant(window + 1_000), Offset(3))
    assert [index.find(*identity) for identity in ids] == [(), (), ()]
    assert index.floor_time == 1_000
    assert index.take_facts() == [
        FloorRaised(Offset(1), Instant(0), 1, "window"),
        FloorRaised(Offset(3), Instant(1_000), 2, "window"),
    ]
    assert index.take_facts() == []


def test_too_many_entries_raise_the_floor_and_say_so() -> None:
    index = in_memory(DedupOptions(entries_max=100, bytes_max=0, window_us=10**12))
    ids = fresh(150)
    for start in range(0, 150, 10):
        add_all(index, ids[start : start + 10], start=start, time=start)
        assert index.entries <= 100
    assert index.floor_offset == 50
    assert index.floor_time == 40
    assert [fact.reason for fact in index.take_facts()] == ["limit"] * 5
    assert all(index.find(*identity) == () for identity in ids[:50])
    assert all(index.find(*identity) == (at,) for at, identity in enumerate(ids[50:], 50))


def test_a_group_larger_than_the_limit_is_not_forgotten_at_once() -> None:
    index = in_memory(DedupOptions(entries_max=10, bytes_max=0, window_us=10**12))
    ids = fresh(30)
    add_all(index, ids)
    assert index.floor_offset == 0
    add_all(index, fresh(30, seed=2), start=30, time=1)
    assert index.floor_offset == 30


def test_an_operator_raises_the_floor_to_a_point_at_or_below_the_offset() -> None:
    index = in_memory()
    ids = fresh(30)
    for start in range(0, 30, 10):
        add_all(index, ids[start : start + 10], start=start, time=start * 10)
    index.raise_floor(9)
    assert index.take_facts() == []
    index.raise_floor(25)
    assert index.take_facts() == [FloorRaised(Offset(20), Instant(100), 20, "operator")]
    assert index.find(*ids[19]) == ()
    assert index.find(*ids[20]) == (20,)


def test_points_do_not_grow_with_the_number_of_groups() -> None:
    index = in_memory(DedupOptions(entries_max=10**6, bytes_max=0, window_us=10**9))
    for group in range(50_000):
        index.advance(Instant(group * 10_000), Offset(group))
    assert len(index._offsets) <= POINTS_PER_WINDOW + 2


def test_forgotten_entries_leave_memory_when_trimmed() -> None:
    index = in_memory()
    add_all(index, fresh(500), time=1)
    assert not index.trim_wanted
    add_all(index, fresh(5, seed=2), start=500, time=20_000)
    assert index.floor_offset == 500
    assert index.trim_wanted
    assert index.entries_in_memory == 505
    assert sum(index.trim_steps()) == 500
    assert (index.entries_in_memory, index.entries, index.trim_wanted) == (5, 5, False)


def test_a_slot_without_entries_takes_no_memory_after_a_trim() -> None:
    index = in_memory()
    add_all(index, [(9, b"a" * 8)], time=1)
    add_all(index, [(8, b"b" * 8)], start=1, time=20_000)
    list(index.trim_steps())
    assert index.slots() == [8]
    add_all(index, [(9, b"a" * 8)], start=2, time=20_000)
    assert index.find(9, b"a" * 8) == (2,)


def test_without_runs_nothing_is_spilled() -> None:
    with pytest.raises(ValueError, match="bytes_max must be 0"):
        DedupIndex(OPTIONS)
    index = in_memory(DedupOptions(entries_max=10, bytes_max=0, window_us=10**9))
    add_all(index, fresh(30))
    assert index.spill_range is None
    assert NoRuns().slots() == ()
    assert NoRuns().find(1, 2) == ()
    assert NoRuns().blocks(1, 2) == ()
    NoRuns().load(1, [])
    with pytest.raises(InvariantBroken):
        NoRuns().load(1, [(1, 2)])


def test_a_dropped_slot_is_forgotten_alone_and_stays_forgotten() -> None:
    world = World()
    ids = fresh(40)
    world.execute(Group(1, tuple(ids)))
    world.index.drop_slot(1, world.end)
    world.execute(Group(2, ((1, b"new id !"),)))
    for _ in range(2):
        for offset, identity in enumerate(ids):
            assert world.index.find(*identity) == (() if identity[0] == 1 else (offset,))
        assert world.index.find(1, b"new id !") == (40,)
        world.full_snapshot()
        world.crash(power=True)
        world.settle()


def test_a_slot_larger_than_a_chunk_is_dumped_in_several() -> None:
    index = in_memory(DedupOptions(entries_max=10**6, bytes_max=0, window_us=10**9))
    ids = [(1, identity) for _, identity in fresh(CHUNK_ENTRIES_MAX + 10)]
    add_all(index, ids)
    chunks = list(index.dump_slot(1))
    assert len(chunks) == 2
    copy = DedupIndex(index.options)
    copy.load_shard(index.dump_shard())
    for chunk in chunks:
        copy.load_slot(1, chunk)
    copy.load_done()
    assert list(copy.dump_slot(1)) == chunks
    assert copy.entries == copy.entries_in_memory == len(ids)


def test_a_slot_without_ids_dumps_nothing() -> None:
    assert list(in_memory().dump_slot(1)) == []


def test_one_slot_can_be_marked_alone() -> None:
    index = in_memory()
    add_all(index, [(1, b"a" * 8), (2, b"b" * 8)])
    index.mark(1)
    assert list(index.dump_slot(1, full=False)) == []
    assert list(index.dump_slot(2, full=False)) == list(index.dump_slot(2))
    index.mark()
    assert list(index.dump_slot(2, full=False)) == []
    index.add(1, b"c" * 8, 2)
    index.mark()
    assert list(index.dump_slot(1, full=False)) == []


def test_increments_hold_every_entry_since_the_mark() -> None:
    world = World()
    groups = [Group(n, tuple(fresh(5, seed=n))) for n in range(6)]
    for number, group in enumerate(groups):
        world.execute(group)
        if number % 2:
            world.increment()
    world.crash(power=True)
    ids = [identity for group in groups for identity in group.ids if identity]
    assert [world.index.find(*identity) for identity in ids] == [(at,) for at in range(30)]


def test_spills_may_not_go_back() -> None:
    index = in_memory()
    index.spilled(10)
    with pytest.raises(InvariantBroken):
        index.spilled(9)


ids_drawn = st.one_of(
    st.none(),
    st.tuples(st.integers(0, 3), st.integers(0, 40).map(lambda n: n.to_bytes(8, "little"))),
)


class DedupMachine(RuleBasedStateMachine):
    """A replica that spills, merges and crashes, beside one that never does and a list."""

    @initialize()
    def start(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(driver, "TURN_UNITS", 60)
        self.world = World()
        self.other = World(disk=SimDisk(2))
        self.time = 0
        self.serial = 0

    def teardown(self) -> None:
        self.patch.undo()

    def _execute(self, ids: tuple[Id | None, ...], raise_floor: int = 0) -> None:
        group = Group(self.time, ids, raise_floor)
        self.world.execute(group)
        self.other.execute(group)

    @rule(ids=st.lists(ids_drawn, max_size=8), later=st.integers(0, 300))
    def group_with_repeated_ids(self, ids: list[Id | None], later: int) -> None:
        self.time += later
        self._execute(tuple(ids))

    @rule(count=st.integers(1, 90), later=st.integers(0, 40), slots=st.integers(1, 5))
    def group_of_fresh_ids(self, count: int, later: int, slots: int) -> None:
        self.time += later
        self.serial += 1
        self._execute(tuple(fresh(count, seed=self.serial, slots=slots)))

    @rule(groups=st.integers(4, 10), later=st.integers(0, 20))
    def busy_time(self, groups: int, later: int) -> None:
        for _ in range(groups):
            self.group_of_fresh_ids(20, later, 3)
            self.world.settle()

    @rule(count=st.integers(1, 12))
    def upkeep(self, count: int) -> None:
        for _ in range(count):
            self.world.store.turn(self.world.index)

    @rule()
    def background_task(self) -> None:
        self.world.run_task()

    @rule()
    def all_upkeep(self) -> None:
        self.world.settle()

    @rule(full=st.booleans())
    def snapshot(self, full: bool) -> None:
        if full:
            self.world.full_snapshot()
        else:
            self.world.increment()

    @rule(power=st.booleans(), lose_groups=st.integers(0, 3))
    def crash(self, power: bool, lose_groups: int) -> None:
        self.world.crash(power=power, lose_groups=lose_groups)
        lost = len(self.other.log) - len(self.world.log)
        if lost:
            # What was lost before it was durable never happened for anybody else either.
            self.other = World(disk=SimDisk(2))
            for group in self.world.log:
                self.other.execute(group)

    @rule(share=st.floats(0, 1))
    def operator_raises_the_floor(self, share: float) -> None:
        self._execute((), int(self.world.end * share))

    @invariant()
    def answers_are_those_of_a_list(self) -> None:
        index = self.world.index
        offsets: dict[Id, list[int]] = {}
        offset = 0
        for group in self.world.log:
            for identity in group.ids:
                if identity is not None and offset >= index.floor_offset:
                    offsets.setdefault(identity, []).append(offset)
                offset += 1
        for identity, found in offsets.items():
            assert index.find(*identity) == tuple(reversed(found))
        assert index.find(9, b"neverwas") == ()
        forgotten = {i for group in self.world.log for i in group.ids if i} - set(offsets)
        assert all(index.find(*identity) == () for identity in sorted(forgotten))
        assert index.entries == sum(map(len, offsets.values()))

    @invariant()
    def replicas_agree_whatever_is_where(self) -> None:
        assert self.world.dump() == self.other.dump()

    @invariant()
    def no_upkeep_fails(self) -> None:
        assert self.world.store.status().failures == 0


TestDedupIndexAgainstAModel = DedupMachine.TestCase
TestDedupIndexAgainstAModel.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None
)


def test_of_equal_hashes_the_one_at_the_floor_is_remembered_and_the_one_below_is_not() -> None:
    index = DedupIndex(DedupOptions(entries_max=64, bytes_max=0, window_us=1_000_000))
    index.load_done()
    same = b"12345678"
    for offset in range(4):
        index.add(7, same, offset)
        index.advance(Instant(100_000 * (offset + 1)), Offset(offset + 1))
    index.raise_floor(2)
    assert index.floor_offset == 2
    assert index.find(7, same) == (3, 2)
