"""Snapshots that fail, and ids whose outcomes are gone."""

import asyncio
from pathlib import Path

import pytest
from tests.unit.shard.test_shard import Rig

from ultraengine.ports import DiskFull
from ultraengine.shard.snapshotting import driver
from ultraengine.snapshot.errors import SnapshotFailed
from ultraengine.snapshot.schedule import EveryCommands


async def test_a_history_that_cannot_be_synced_fails_the_snapshot_and_not_the_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    await rig.start()
    monkeypatch.setattr(driver, "ASK_EVERY_S", 0.01)
    snapshots = rig.snapshots
    snapshots._policy = EveryCommands(1)
    sync, failing = rig.memory.history.sync, [True]

    def broken() -> None:
        if failing:
            raise DiskFull(28, "No space left on device")
        sync()

    monkeypatch.setattr(rig.memory.history, "sync", broken)
    await rig.add()
    with pytest.raises(SnapshotFailed):
        await snapshots.take()
    assert rig.shard.status().alarms == 1
    running = asyncio.create_task(snapshots.run())
    await asyncio.sleep(0.1)
    assert not running.done()
    failing.clear()
    snapshots._failures = 0
    for _ in range(300):
        await asyncio.sleep(0.01)
        if rig.snapshot_driver.newest is not None:
            break
    assert rig.snapshot_driver.newest is not None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await snapshots.stop()
    await rig.shard.stop()


async def test_a_floor_that_was_lost_between_the_cut_and_its_record_is_raised_at_the_next_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    shard = await rig.start()
    await rig.add()
    taken = await rig.snapshots.take()
    # As after a kill between the two: the log begins above what the memory of ids believes.
    retain = shard.log.retain

    def cut(*args: object) -> object:
        report = retain(*args)  # type: ignore[arg-type]
        return type(report)(first_offset=taken.entry.offset_end)

    monkeypatch.setattr(shard.log, "retain", cut)
    await rig.snapshots.cut_log()
    await rig.add()
    assert 0 < shard.executor.dedupe.floor_offset <= taken.entry.offset_end
    await shard.stop()
