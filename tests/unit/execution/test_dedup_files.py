"""`RunStore`: spills and merges that a crash, a full disk or bit rot cannot turn into a lie."""

import errno
import random
from collections.abc import Callable

import pytest
from tests.unit.execution.dedup_world import OPTIONS, SHARD, Group, Id, World

from ultraengine.execution.dedup import DedupIndex, DedupOptions
from ultraengine.execution.dedup_files import driver
from ultraengine.execution.dedup_files.driver import RunStore
from ultraengine.execution.dedup_runs import RunDamaged, RunWriter
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ShardId
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_faults import Call, Effect, FailedSync, Raises

LONG = DedupOptions(entries_max=64, bytes_max=16 * 40_000, window_us=10**12)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small constants, so that short runs take several writes and tasks."""
    monkeypatch.setattr(driver, "WRITE_BYTES", 1_000)
    monkeypatch.setattr(driver, "MERGE_ENTRIES", 100)
    monkeypatch.setattr(driver, "TURN_UNITS", 100)


def fresh(count: int, seed: int) -> tuple[Id, ...]:
    source = random.Random(seed)
    return tuple((source.randrange(3), source.randbytes(8)) for _ in range(count))


def run(world: World, groups: int, *, size: int = 40, settle: bool = True) -> None:
    for _ in range(groups):
        number = len(world.log)
        world.execute(Group(number, fresh(size, number)))
        if settle:
            world.settle()


def assert_remembers_all(world: World) -> None:
    offset = 0
    for group in world.log:
        for identity in group.ids:
            assert identity is not None
            expected = (offset,) if offset >= world.index.floor_offset else ()
            assert world.index.find(*identity) == expected
            offset += 1


def test_memory_stays_bounded_and_nothing_is_forgotten() -> None:
    world = World(LONG)
    for _ in range(60):
        run(world, 1)
        assert world.index.entries_in_memory <= LONG.entries_max + 40
    assert_remembers_all(world)
    status = world.store.status()
    assert status.entries + world.index.entries_in_memory == 60 * 40
    assert status.bytes == sum(world.disk.open(path).size() for path in world.run_files())
    assert status.memory_bytes > 0
    assert (status.failures, status.error, status.discarded) == (0, "", ())


def test_a_run_is_synced_while_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "WRITE_BYTES", 500)
    monkeypatch.setattr(driver, "SYNC_BYTES", 1_000)
    disk = SimDisk(1)
    writer = RunWriter(shard=0, low=0, high=2_000, count_expected=2_000)
    file, most = driver.RunFile(disk, "run.tmp", writer), 0
    for number in range(2_000):
        if file.put(0, [(number, number)]):
            file.flush()
        most = max(most, sum(step.length for step in disk.unsynced()))
    file.finish()
    assert disk.open("run.tmp").size() > 20_000
    assert 0 < most < 3_000


def test_runs_are_merged_so_that_few_remain() -> None:
    world = World(LONG)
    run(world, 300)
    assert len(world.run_files()) == world.store.status().runs <= 12
    assert_remembers_all(world)
    assert world.disk.list("dedup") == sorted(path[6:] for path in world.run_files())


def test_a_small_limit_bounds_the_disk() -> None:
    world = World(OPTIONS)
    run(world, 200)
    assert world.index.entries <= OPTIONS.entries_total_max
    # Of the expired, only those remain that share a run with others.
    assert world.store.status().entries <= OPTIONS.entries_total_max * 5 // 4
    assert {fact.reason for fact in world.index.take_facts()} <= {"window", "limit"}
    assert_remembers_all(world)


def test_every_step_of_the_upkeep_answers_the_same() -> None:
    world = World(LONG)
    run(world, 12, settle=False)
    steps = 0
    while world.store.turn(world.index):
        world.run_task()
        assert_remembers_all(world)
        steps += 1
    assert steps > 5


def test_one_turn_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "TURN_UNITS", 2_000)
    options = DedupOptions(entries_max=20_000, bytes_max=10**9, window_us=10**12)
    world = World(options)
    world.execute(Group(1, fresh(30_000, 1)))
    turns = 0
    while world.store.turn(world.index):
        turns += 1
        before = world.index.entries_in_memory
        world.run_task()
        assert before - world.index.entries_in_memory <= 2_500
    assert turns > 10


def test_runs_survive_a_restart_and_are_not_written_again() -> None:
    world = World(LONG)
    run(world, 30)
    world.full_snapshot()
    run(world, 5)
    before = {path: world.disk.open(path).size() for path in world.run_files()}
    world.crash(power=True)
    assert {path: world.disk.open(path).size() for path in world.run_files()} == before
    assert world.store.status().discarded == ()
    # Replay adds nothing to memory that a run has.
    assert world.index.entries_in_memory <= LONG.entries_max
    assert_remembers_all(world)


def test_runs_are_used_again_wherever_between_two_spills_the_snapshot_is() -> None:
    for groups in range(20, 26):
        world = World(LONG)
        run(world, groups)
        world.full_snapshot()
        files = world.run_files()
        world.crash(power=True)
        assert world.run_files() == files
        assert_remembers_all(world)


def test_runs_that_end_too_early_are_replaced_by_one() -> None:
    world = World(LONG)
    run(world, 12)
    run(world, 12, settle=False)
    world.full_snapshot()
    files = world.run_files()
    world.crash(power=True)
    assert len(world.run_files()) == 1
    assert not set(files) & set(world.run_files())
    assert world.index.entries_in_memory <= 64
    assert_remembers_all(world)


def test_without_a_snapshot_runs_from_the_first_offset_are_used_again() -> None:
    world = World(LONG)
    run(world, 20)
    files = world.run_files()
    world.crash(power=True)
    assert world.run_files() == files
    assert_remembers_all(world)


def test_lost_runs_are_rebuilt_from_the_snapshot_as_one() -> None:
    world = World(LONG)
    run(world, 20)
    world.full_snapshot()
    run(world, 6)
    world.increment()
    run(world, 4)
    for path in world.run_files():
        world.disk.remove(path)
    world.crash(power=False)
    assert len(world.run_files()) == 1
    assert world.index.entries_in_memory <= 64 + 10 * 40
    assert_remembers_all(world)
    world.settle()
    assert_remembers_all(world)


def test_a_load_that_is_given_up_leaves_nothing_behind() -> None:
    world = World(LONG)
    run(world, 20)
    world.full_snapshot()
    for path in world.run_files():
        world.disk.remove(path)
    disk = world.disk.kill()
    store = RunStore(disk, SHARD, log_end=world.end, spawn=world.tasks.append)
    index = DedupIndex(LONG, store)
    index.load_shard(world.snapshot.shard_chunks[0])
    for slot, chunk in world.snapshot.slot_chunks[0][:2]:
        index.load_slot(slot, chunk)
    assert disk.list("dedup") == ["load.tmp"]
    store.close()
    world.disk = disk
    world.crash(power=False)
    assert len(world.run_files()) == 1
    assert_remembers_all(world)


def test_a_lost_oldest_run_is_rebuilt_beside_the_others() -> None:
    world = World(LONG)
    run(world, 40)
    world.full_snapshot()
    names = world.run_files()
    assert len(names) > 1
    world.disk.remove(names[0])
    world.crash(power=False)
    assert world.run_files() == names
    assert_remembers_all(world)


def test_a_run_that_follows_a_gap_hides_nothing() -> None:
    world = World(LONG)
    run(world, 43)
    world.full_snapshot()
    names = world.run_files()
    assert len(names) > 2
    world.disk.remove(names[1])
    world.crash(power=False)
    assert any("does not touch" in reason for reason in world.store.status().discarded)
    assert_remembers_all(world)


def test_runs_that_begin_above_the_snapshot_hide_nothing() -> None:
    world = World(LONG)
    run(world, 4)
    world.full_snapshot()
    run(world, 40)
    for path in world.run_files()[:-1]:
        world.disk.remove(path)
    world.crash(power=False)
    assert any("does not fit" in reason for reason in world.store.status().discarded)
    assert_remembers_all(world)


def test_runs_beyond_the_end_of_the_log_are_discarded() -> None:
    world = World(LONG)
    run(world, 10)
    world.full_snapshot()
    run(world, 10)
    world.crash(power=False, lose_groups=10)
    assert all("beyond the log" in reason for reason in world.store.status().discarded)
    assert world.store.status().discarded
    # The offsets are given to other commands now.
    world.execute(Group(1_000, fresh(400, 99)))
    world.settle()
    assert_remembers_all(world)


def test_a_discarded_run_does_not_come_back_in_a_power_cut() -> None:
    for seed in range(20):
        world = World(LONG, disk=SimDisk(seed))
        run(world, 10)
        world.crash(power=False, lose_groups=10)
        world.execute(Group(1_000, fresh(400, 99)))
        world.crash(power=True)
        assert_remembers_all(world)


def test_a_damaged_file_is_set_aside_and_rebuilt() -> None:
    for position in (0, 30, 124):
        world = World(LONG)
        run(world, 25)
        world.full_snapshot()
        path = world.run_files()[0]
        world.disk.flip_bits(path, position)
        world.crash(power=False)
        assert world.disk.list("broken") == [path.replace("/", "-")]
        assert any(path in reason for reason in world.store.status().discarded)
        assert_remembers_all(world)


def test_a_run_under_another_name_or_shard_is_set_aside() -> None:
    world = World(LONG)
    run(world, 10)
    world.full_snapshot()
    path = world.run_files()[0]
    world.disk.rename(path, "dedup/run-00000000000000000000-00000000000000000009.run")
    world.crash(power=False)
    assert len(world.disk.list("broken")) == 1
    assert_remembers_all(world)
    count = len(world.run_files())
    other = RunStore(world.disk.kill(), ShardId(9), log_end=10**6, spawn=lambda task: task())
    assert other.status().runs == 0
    assert len(other.status().discarded) == count


def test_damage_under_a_look_up_is_an_error_and_not_an_answer() -> None:
    world = World(LONG)
    run(world, 10)
    world.full_snapshot()
    identity = world.log[0].ids[0]
    assert identity is not None
    path = world.run_files()[0]
    file = world.disk.open(path)
    info_end = 128 + 8
    for at in range(info_end, file.size() - 1, 97):
        world.disk.flip_bits(path, at)
    world.disk.drop_caches()
    for _ in range(2):
        with pytest.raises(RunDamaged, match=path):
            world.index.find(*identity)
    assert world.disk.list("broken") == [path.replace("/", "-")]
    with pytest.raises(RunDamaged):
        world.dump()
    world.crash(power=False)
    assert_remembers_all(world)


def test_damage_under_a_merge_stops_the_merge_alone() -> None:
    world = World(LONG)
    run(world, 3)
    while world.store.status().runs < 3:
        run(world, 1)
    world.full_snapshot()
    path = world.run_files()[0]
    world.disk.flip_bits(path, 128 + 20)
    world.disk.drop_caches()
    number = len(world.log)
    while world.store.status().failures == 0:
        run(world, 1)
        assert len(world.log) < number + 20
    assert world.store.status().error.startswith("merge: ")
    assert world.disk.list("broken") == [path.replace("/", "-")]
    world.crash(power=False)
    assert_remembers_all(world)
    run(world, 20)
    assert_remembers_all(world)


@pytest.mark.parametrize(
    ("effect", "call", "path"),
    [
        (Raises(errno.ENOSPC), "pwrite", "dedup/spill.tmp"),
        (Raises(errno.EIO), "pwrite", "dedup/merge.tmp"),
        (FailedSync(), "sync", "dedup/spill.tmp"),
        (FailedSync(), "sync", "dedup/merge.tmp"),
        (Raises(errno.EIO), "rename", "dedup/*"),
        (Raises(errno.EIO), "sync_directory", "dedup"),
        (Raises(errno.EMFILE), "open", "dedup/*"),
        (Raises(errno.EIO), "remove", "dedup/*"),
        (Raises(errno.EIO), "pread", "dedup/run-*"),
    ],
)
@pytest.mark.parametrize("after", [0, 3])
def test_a_failing_disk_costs_an_attempt_and_no_entry(
    effect: Effect, call: Call, path: str, after: int
) -> None:
    world = World(LONG)
    run(world, 4)
    world.disk.inject(effect, call, path, after=after)
    run(world, 60)
    status = world.store.status()
    assert status.failures == 1
    assert status.error
    assert_remembers_all(world)
    assert world.index.entries_in_memory <= 64 + 40
    world.full_snapshot()
    world.crash(power=True)
    assert_remembers_all(world)


def test_unfinished_files_are_removed_at_the_start_and_others_are_not() -> None:
    disk = SimDisk(1)
    disk.make_directory("dedup")
    for name in ("spill.tmp", "load.tmp", "NOTES"):
        disk.open(f"dedup/{name}", create=True, write=True).close()
    RunStore(disk, SHARD, log_end=0, spawn=lambda task: task())
    assert disk.list("dedup") == ["NOTES"]


def test_nothing_changes_while_it_is_held() -> None:
    world = World(LONG)
    run(world, 5, settle=False)
    assert world.store.turn(world.index)
    world.run_task()
    world.store.hold()
    files = world.run_files()
    for _ in range(20):
        world.store.turn(world.index)
        world.run_task()
    assert world.run_files() == files
    memory = world.index.entries_in_memory
    assert not world.store.turn(world.index)
    assert world.index.entries_in_memory == memory
    world.store.release()
    world.settle()
    assert world.index.entries_in_memory < memory


def test_upkeep_before_the_load_is_a_mistake() -> None:
    world = World()
    store = RunStore(SimDisk(1), SHARD, log_end=0, spawn=lambda task: task())
    with pytest.raises(InvariantBroken, match="loaded before"):
        store.turn(world.index)


def test_a_closed_store_leaves_a_disk_that_starts_again() -> None:
    world = World(LONG)
    run(world, 20)
    world.full_snapshot()
    run(world, 4, settle=False)
    for _ in range(3):
        world.store.turn(world.index)
    world.store.close()
    assert not world.store.turn(world.index)
    world.crash(power=True)
    assert_remembers_all(world)
    idle = World(LONG)
    idle.store.close()
    assert not idle.store.turn(idle.index)


def test_a_task_that_runs_at_the_close_keeps_its_files_to_its_end() -> None:
    world = World(LONG)
    run(world, 5)
    run(world, 10, settle=False)
    while not world.tasks:
        world.store.turn(world.index)
    world.store.close()
    assert world.index.find(9, b"reads on") == ()
    assert world.store.status().runs > 0
    world.run_task()
    assert world.store.status().runs == 0
    assert world.store.status().failures == 0


def test_tasks_run_one_at_a_time_on_the_other_thread() -> None:
    world = World(LONG)
    running: list[Callable[[], None]] = []
    for _ in range(40):
        run(world, 1, settle=False)
        world.store.turn(world.index)
        assert len(world.tasks) <= 1
        running += world.tasks
        world.run_task()
    assert running
    world.settle()
    assert_remembers_all(world)
