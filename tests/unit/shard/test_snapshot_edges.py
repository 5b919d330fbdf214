"""Snapshots of a shard at odd moments, and images that were never loaded or remember nothing."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.shard.test_hunt_full_disk import until
from tests.unit.shard.test_shard import LIMITS, Rig

from ultraengine.log.retention import RetentionReport
from ultraengine.model.errors import EngineError, InvariantBroken
from ultraengine.ports import Disk, DiskFull, File
from ultraengine.shard.memory import ShardMemory
from ultraengine.shard.snapshotting import driver
from ultraengine.shard.validation import validate
from ultraengine.snapshot.errors import SnapshotBusy, SnapshotFailed
from ultraengine.snapshot.schedule import Progress
from ultraengine_adapters.local.disk import LocalDisk


class Never:
    """A policy that asks for none, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def due(self, progress: Progress) -> str | None:
        self.asked += 1
        return None


async def test_the_schedule_goes_on_asking_when_nothing_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    shard = await rig.start()
    monkeypatch.setattr(driver, "ASK_EVERY_S", 0.001)
    policy = rig.snapshots._policy = Never()
    running = asyncio.create_task(rig.snapshots.run())
    await until(lambda: policy.asked >= 3)
    assert rig.snapshot_driver.newest is None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await shard.stop()


async def test_a_snapshot_beside_another_of_the_shard_is_refused(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    shard = await rig.start()
    await rig.add()
    done = await asyncio.gather(rig.snapshots.take(), rig.snapshots.take(), return_exceptions=True)
    assert [isinstance(one, SnapshotBusy) for one in done] == [False, True]
    assert shard.status().alarms == 0
    await shard.stop()


async def test_a_merge_that_fails_alarms_and_leaves_the_snapshot_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    shard = await rig.start()
    await rig.send(*(rig.admit(f"many-{n}", 1, f"many-{n}") for n in range(500)))

    async def broken(mode: str) -> Any:
        raise SnapshotFailed("there is no room for the merged one")

    monkeypatch.setattr(rig.snapshot_driver, "compact", broken)
    for number in range(5):
        await rig.add(1, f"k{number}")
        taken = await rig.snapshots.take()
    assert rig.snapshot_driver.increments == 4
    assert rig.snapshot_driver.newest == taken.entry
    assert shard.status().alarms == 1
    await shard.stop()


async def test_without_a_snapshot_the_log_is_not_cut(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    shard = await rig.start()
    await rig.add()
    assert await rig.snapshots.cut_log() is None
    assert shard.log.first_offset == 0
    await shard.stop()


async def test_what_retention_complains_of_is_an_alarm_of_the_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    shard = await rig.start()
    await rig.add()
    said = ("segments stay in the log, archiving them failed: no route", "and another")
    monkeypatch.setattr(shard.log, "retain", lambda *_: RetentionReport(alarms=said))
    await rig.snapshots.take()
    assert shard.status().alarms == 2
    await shard.stop()


async def test_a_validation_begins_where_a_state_can_be_had_and_ends_within_a_group(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path)
    shard = await rig.start()
    await rig.send(*(rig.admit(f"a{n}") for n in range(4)))
    await shard.rest()
    reader = shard.log.reader()
    report = validate(rig.memory.scratch(sequence_max=0), reader, from_offset=2, to_offset=4)
    assert (report.equal, report.compared, report.to_offset) == (True, 2, 4)
    taken = await rig.snapshots.take()
    scratch = rig.memory.scratch(sequence_max=taken.entry.sequence_end)
    with pytest.raises(EngineError, match="from offset 5 on, not 4") as caught:
        validate(scratch, reader, from_offset=4, to_offset=None)
    assert caught.value.code == "NOT_FOUND"
    await shard.stop()


async def test_a_bare_image_gives_the_state_back_and_no_ids(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    shard = await rig.start()
    await rig.add(3)
    await rig.add(4, "other")
    await shard.rest()
    bare, whole = rig.memory.bare_image(), list(rig.memory.image.sections(full=True))
    for section in whole:
        bare.load(section)
    executor = bare.resume(rig.snapshots.position())
    copied = list(bare.sections(full=True))
    assert [one for one in copied if one.chunk and one.name != "dedup"] == [
        one for one in whole if one.name != "dedup"
    ]
    assert b"".join(one.chunk for one in copied if one.name == "dedup") == b""
    admitted = rig.admit("n-1", 3)
    assert shard.executor.dedupe.find(admitted.slot, admitted.identity) == (1,)
    assert executor.dedupe.find(admitted.slot, admitted.identity) == ()
    await shard.stop()


async def test_memory_that_was_never_loaded_has_no_image(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    shard = await rig.start()
    memory = ShardMemory(
        rig.disk,
        rig.registry,
        shard.executor.shard,
        rig.limits,
        history=rig.memory.history,
        snapshots=rig.snapshot_driver,
        spawn=lambda work: work(),
    )
    with pytest.raises(InvariantBroken, match="loaded before it is used"):
        _ = memory.image
    await shard.stop()


class NoRoomForIds:
    """A disk without room for another file of ids."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    def open(self, path: str, *, create: bool = False, write: bool = False) -> File:
        if create and path.startswith("dedup/"):
            raise DiskFull(28, "No space left on device", path)
        return self._disk.open(path, create=create, write=write)


async def test_ids_that_find_no_room_outside_of_memory_are_told_of(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(LIMITS, dedup_entries_max=200)
    rig = Rig(tmp_path, limits=limits, disk=NoRoomForIds(LocalDisk(tmp_path)))
    shard = await rig.start()
    for number in range(4):
        await rig.send(*(rig.admit(f"s{number}-{n}") for n in range(100)))
    for _ in range(200):
        rig.memory.upkeep()
    (told,) = rig.memory.troubles()
    assert told.startswith("ids cannot be spilled: ")
    assert "No space left on device" in told
    await shard.stop()
