"""Backups beside a shard that serves: on demand, by the clock, and each complete segment."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.unit.shard.test_hunt_full_disk import until
from tests.unit.shard.test_shard import LIMITS, Rig

from ultraengine.backup import driver, reading
from ultraengine.backup.driver import Backups
from ultraengine.backup.taking import Source
from ultraengine.log.survey import segment_paths
from ultraengine.model.errors import EngineError
from ultraengine.ports import StoreUnavailable
from ultraengine.testing.sim_clock import SimSecrets
from ultraengine.testing.sim_objects import SimObjectStore
from ultraengine_adapters.local.clock import SystemClock

NEVER, SOON = 0.0, 0.001


SMALL = msgspec.structs.replace(
    LIMITS, segment_bytes=32 * 1024, frame_bytes_max=16 * 1024, group_bytes_max=4 * 1024
)


class Away(SimObjectStore):
    """A store that cannot be reached while it is said so."""

    away = False

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        if self.away:
            raise StoreUnavailable("no route to it")
        super().put(name, data, if_absent=if_absent)


async def fill(rig: Rig) -> None:
    """Commands for some segments of `SMALL`."""
    for _ in range(60):
        rig.count += 1
        await rig.send(*(rig.admit(f"{rig.count}-{number}") for number in range(50)))


def backups_of(rig: Rig, store: SimObjectStore, interval_s: float = NEVER) -> Backups:
    source = Source(rig.disk, SimSecrets({}))
    return Backups(
        rig.shard, rig.snapshots, source, store, "sim://", SystemClock(), interval_s,
        look_every_s=SOON,
    )  # fmt: skip


async def test_a_backup_on_demand_says_what_is_where_and_commands_go_on(tmp_path: Path) -> None:
    rig, store = Rig(tmp_path), SimObjectStore()
    shard = await rig.start()
    await rig.add(3)
    backups = backups_of(rig, store)
    taking = asyncio.create_task(backups.take())
    await rig.add(4)
    report = await taking
    backup = reading.newest(store, 0)
    assert backup is not None
    assert (report.name, report.location) == (backup.name, "sim://")
    assert (report.state_hash, report.snapshot_offset) == (backup.state_hash, backup.at.offset_end)
    assert report.offset_end == backup.end.offset_end >= report.snapshot_offset > 0
    assert reading.check(store, backup) == []
    await backups.stop()
    await shard.stop()


async def test_the_log_is_cut_only_below_what_a_backup_has_where_that_is_asked_for(
    tmp_path: Path,
) -> None:
    forgetful = msgspec.structs.replace(SMALL, dedup_window_s=0)  # Ids do not hold the log.
    rig, store = Rig(tmp_path, limits=forgetful), Away()
    shard = await rig.start()
    backups = Backups(
        shard, rig.snapshots, Source(rig.disk, SimSecrets({})), store, "sim://", SystemClock(),
        NEVER, holds_log=True,
    )  # fmt: skip

    async def snapshots_and_segments() -> int:
        for _ in range(3):
            await fill(rig)
            await rig.snapshots.take()
        return int(shard.log.first_offset)

    store.away = True
    assert await snapshots_and_segments() == 0
    with pytest.raises(EngineError, match="no route to it"):
        await backups.take()
    assert shard.log.first_offset == 0
    store.away = False
    report = await backups.take()
    assert 0 < shard.log.first_offset <= report.snapshot_offset
    for _ in range(4):
        assert await snapshots_and_segments() <= report.snapshot_offset
    assert (rig.snapshots.newest()[0] or 0) > report.snapshot_offset + 9 * 3_000
    await backups.take()
    assert shard.log.first_offset > report.snapshot_offset
    await shard.stop()


async def test_a_backup_waits_for_a_snapshot_that_is_being_taken(tmp_path: Path) -> None:
    rig, store = Rig(tmp_path), SimObjectStore()
    shard = await rig.start()
    await rig.add(3)
    async with rig.snapshots.undisturbed():
        taking = asyncio.create_task(backups_of(rig, store).take())
        await asyncio.sleep(0.05)
        assert not taking.done()
    assert (await taking).snapshot_offset > 0
    await shard.stop()


async def test_a_store_that_is_away_is_an_alarm_and_the_shard_serves_on(tmp_path: Path) -> None:
    rig, store = Rig(tmp_path), Away()
    shard = await rig.start()
    await rig.add(3)
    store.away = True
    backups = backups_of(rig, store)
    with pytest.raises(EngineError, match="no route to it") as failed:
        await backups.take()
    assert failed.value.code == "SHARD_UNAVAILABLE"
    assert shard.status().alarms == 1
    await rig.add(4)
    store.away = False
    assert (await backups.take()).snapshot_offset > 0
    await shard.stop()


async def test_the_clock_asks_for_a_backup_when_something_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "RETRY_S", SOON)
    rig, store = Rig(tmp_path), Away()
    shard = await rig.start()
    await rig.add(3)
    store.away = True
    running = asyncio.create_task(backups_of(rig, store, SOON).run())
    await until(lambda: shard.status().alarms > 2)
    store.away = False
    await until(lambda: len(reading.backups(store, 0)) == 1)
    await rig.add(4)
    await until(lambda: len(reading.backups(store, 0)) == 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await shard.stop()


async def test_complete_segments_are_sent_without_a_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "RETRY_S", SOON)
    rig, store = Rig(tmp_path, limits=SMALL), Away()
    shard = await rig.start()
    store.away = True
    backups = backups_of(rig, store)
    running = asyncio.create_task(backups.run())
    await fill(rig)
    assert len(segment_paths(rig.disk)) > 3
    await until(lambda: shard.status().alarms > 0)
    store.away = False
    sealed = len(segment_paths(rig.disk)) - 1
    await until(lambda: len(backups._sealed) == sealed)
    assert len(store.list("0/segments/")) == sealed
    assert reading.newest(store, 0) is None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await shard.stop()


async def test_after_a_failure_the_store_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "RETRY_S", 3600.0)
    rig, store = Rig(tmp_path), Away()
    shard = await rig.start()
    await rig.add(3)
    store.away = True
    backups = backups_of(rig, store, SOON)
    running = asyncio.create_task(backups.run())
    await until(lambda: shard.status().alarms)
    await asyncio.sleep(50 * SOON)
    assert shard.status().alarms == 1
    store.away = False
    assert (await backups.take()).snapshot_offset > 0, "whoever asks is not kept waiting"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await shard.stop()
