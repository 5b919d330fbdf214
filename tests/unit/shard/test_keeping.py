"""A shard that follows keeps snapshots of its own, and what of its log goes behind them."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.unit.shard.test_shard import SHARD, Rig

from ultraengine.execution.history_files.driver import HistoryFile
from ultraengine.log.frame import FrameHeader
from ultraengine.model.limits import Limits
from ultraengine.shard.following.compare import follow_group
from ultraengine.shard.following.keeping import ASK_EVERY_S, Keeping
from ultraengine.shard.memory import ShardMemory
from ultraengine.snapshot.driver import SnapshotDriver
from ultraengine.snapshot.image import ImagePosition
from ultraengine.snapshot.schedule import EveryCommands
from ultraengine.snapshot.store import SnapshotOptions
from ultraengine.testing.sim_clock import SimClock
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.disk import LocalDisk
from ultraengine_adapters.local.random import SystemRandom
from ultraengine_adapters.local.secrets import FileSecrets

SMALL = Limits(
    segment_bytes=8 * 1024, frame_bytes_max=4 * 1024, reserve_bytes=0, segments_prepared=0,
    retention_bytes_max=8 * 1024, group_bytes_max=2 * 1024,
)  # fmt: skip


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path, limits=SMALL)
    await made.start()
    for delta in range(60):
        await made.add(delta)
    await made.shard.rest()
    yield made
    await made.shard.stop()


class Clock(SimClock):
    at = 0.0

    def monotonic(self) -> float:
        return self.at


class Follower:
    """Memory and snapshots beside the rig's log, as another disk has them."""

    def __init__(self, rig: Rig, place: Path, every: int) -> None:
        disk, clock = LocalDisk(place), SystemClock()
        self.snapshots = SnapshotDriver(
            disk,
            clock,
            SnapshotOptions(shard=SHARD),
            random=SystemRandom(),
            secrets=FileSecrets(None, {}),
        )
        self.memory = ShardMemory(
            disk,
            rig.registry,
            SHARD,
            SMALL,
            history=HistoryFile(disk, SHARD, rig.registry.decoders),
            snapshots=self.snapshots,
            spawn=lambda work: work(),
        )
        end = rig.shard.executor.applied_end
        self.executor, _ = self.memory.load(sequence_max=2**40, log_end=end)
        self.clock = Clock()
        self.keeping = Keeping(
            rig.registry, SHARD, self.memory, self.snapshots, EveryCommands(every), self.clock
        )


async def test_a_snapshot_between_two_groups_lets_the_log_behind_it_go(
    rig: Rig, tmp_path: Path
) -> None:
    follower, log = Follower(rig, tmp_path / "beside", 20), rig.shard.log
    executor = follower.executor
    cuts = []
    for group in log.reader().groups(0):
        if not group.recorded:
            break
        follower.clock.at += ASK_EVERY_S
        report = follower.keeping.before(executor, group.header, log)
        if report is not None:
            newest = follower.snapshots.newest
            assert newest is not None
            assert newest.offset_end == executor.applied_end == group.header.base_offset
            assert newest.chain == group.header.chain.hex()
            cuts.append(report)
        assert follow_group(executor, group) is None
    assert len(cuts) >= 2
    assert any("the memory of ids" in one.dropped for one in cuts), "ids hold it up to its cap"
    assert 0 < cuts[-1].first_offset <= executor.applied_end
    scratch = follower.memory.scratch(sequence_max=2**40)
    newest = follower.snapshots.newest
    assert newest is not None
    assert scratch.applied_end == newest.offset_end


async def test_nothing_is_kept_too_often_or_within_a_group(rig: Rig, tmp_path: Path) -> None:
    follower, log = Follower(rig, tmp_path / "beside", 0), rig.shard.log
    header = next(log.reader().groups(0)).header
    before = follower.keeping.before
    assert before(follower.executor, header, log) is None, "it was asked a moment ago"
    follower.clock.at = 2 * ASK_EVERY_S
    inside = msgspec.structs.replace(header, base_offset=header.base_offset + 7)
    assert before(follower.executor, inside, log) is None
    never = Follower(rig, tmp_path / "never", 10**9)
    never.clock.at = 2 * ASK_EVERY_S
    assert never.keeping.before(never.executor, header, log) is None
    assert follower.snapshots.newest is never.snapshots.newest is None


class NoRoom:
    def __init__(self) -> None:
        self.asked = 0

    def checkpoint(self, position: ImagePosition) -> bool:
        self.asked += 1
        return self.asked > 1


async def test_a_snapshot_that_fails_is_counted_and_one_that_is_not_listed_cuts_nothing(
    rig: Rig, tmp_path: Path
) -> None:
    follower, log, memory = Follower(rig, tmp_path / "beside", 0), rig.shard.log, NoRoom()
    executor, clock = follower.executor, follower.clock
    kept = Keeping(rig.registry, SHARD, memory, follower.snapshots, EveryCommands(0), clock)
    header: FrameHeader = next(log.reader().groups(0)).header
    for failures in (1, 0):
        clock.at += 2 * ASK_EVERY_S
        assert kept.before(executor, header, log) is None
        assert kept._progress(executor, clock.at).failures == failures
    assert memory.asked == 2
    assert log.first_offset == 0


async def test_a_slot_holds_a_copys_log_until_its_leader_has_given_it_up(
    rig: Rig, tmp_path: Path
) -> None:
    follower, log = Follower(rig, tmp_path / "beside", 20), rig.shard.log
    executor = follower.executor
    needed = 5
    for group in log.reader().groups(0):
        if not group.recorded:
            break
        executor.consumers["projection.books"] = needed
        follower.clock.at += ASK_EVERY_S
        report = follower.keeping.before(executor, group.header, log)
        if report is not None:
            assert report.first_offset <= needed, "beyond the cap too: only a leader drops a slot"
            assert "projection.books" not in report.dropped
        assert follow_group(executor, group) is None
    assert executor.applied_end > 50
    del executor.consumers["projection.books"]
    report = follower.keeping._cut(executor, log)
    assert report is not None
    assert report.first_offset > needed
