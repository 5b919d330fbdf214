"""What is damaged, missing or refused on the way to a store and back is told, and never guessed."""

import asyncio
import errno
from pathlib import Path

import msgspec
import pytest
from tests.unit.backup.test_driver import backups_of
from tests.unit.backup.test_restoring import lived
from tests.unit.backup.world import SECRETS, World, names, restored
from tests.unit.shard.test_shard import LIMITS, Rig

from ultraengine.backup import reading
from ultraengine.backup.choosing import Target
from ultraengine.backup.errors import BackupDamaged, BackupError, BackupRefused
from ultraengine.backup.manifest import Backup, Position, Stored, encode_backup, piece_of
from ultraengine.backup.restoring import _serializer
from ultraengine.backup.taking import Source, _Copier, archive_sealed
from ultraengine.log.segment import HEADER_BYTES, KeyRing
from ultraengine.log.survey import segment_paths
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_faults import Raises
from ultraengine.testing.sim_objects import SimObjectStore

__all__ = ["lived"]


@pytest.fixture
def long() -> tuple[World, list[str]]:
    """A backup, and complete segments behind it that no manifest vouches for: their names."""
    world = World()
    world.send(3)
    world.shard.snapshot("full")
    backup = world.back_up().backup
    while len(world.disk.list("log")) < 7:
        world.send(16)
    sent = archive_sealed(Source(disk=world.disk, secrets=SECRETS), world.store)
    known = {piece.name for piece in backup.log}
    return world, [name for name in sent if name not in known]


@pytest.mark.parametrize("at", [0, 100, HEADER_BYTES + 40, -9])
def test_damage_in_a_segment_that_only_its_name_vouches_for_is_found(
    long: tuple[World, list[str]], at: int
) -> None:
    world, fresh = long
    bad = bytearray(world.store.get(fresh[0]))
    bad[at] ^= 0x10
    world.store.put(fresh[0], bytes(bad))
    with pytest.raises(BackupDamaged) as found:
        restored(world.store)
    assert found.value.name == fresh[0]


def test_a_good_segment_under_the_name_of_another_is_not_taken_for_it(
    long: tuple[World, list[str]],
) -> None:
    world, fresh = long
    world.store.put(fresh[1], world.store.get(fresh[2]))
    with pytest.raises(BackupDamaged, match="does not continue the history") as found:
        restored(world.store)
    assert found.value.name == fresh[1]
    first = names(world.store, "segments")[0]
    world.store.put(first, world.store.get(fresh[1]))
    without = _only(world, log=(), snapshots=(), at=Position(), history=())
    with pytest.raises(BackupDamaged, match="not what its name says") as found:
        restored(world.store, base=without)
    assert found.value.name == first


def _only(world: World, **changes: object) -> Backup:
    backup = reading.newest(world.store, 0)
    assert backup is not None
    return msgspec.structs.replace(backup, **changes)


def test_a_log_that_ends_before_its_snapshot_is_no_backup(long: tuple[World, list[str]]) -> None:
    world, _ = long
    world.shard.snapshot("full")
    backup = world.back_up().backup
    for name in (*names(world.store, "segments"), *names(world.store, "tails")):
        if name != backup.log[0].name:
            world.store.delete(name)
    short = msgspec.structs.replace(backup, log=backup.log[:1])
    with pytest.raises(BackupDamaged, match="ends before its snapshot"):
        restored(world.store, base=short)


def test_a_restore_ends_where_a_segment_begins_as_well_as_anywhere(
    long: tuple[World, list[str]],
) -> None:
    world, fresh = long
    world.shard.rest()
    starts = [piece.first_offset for piece in map(piece_of, fresh[1:]) if piece is not None]
    assert starts
    for start in starts:
        disk, found = restored(world.store, Target(offset=start))
        assert found.offset_end == found.recorded_end == start
        assert len(disk.list("log")) < len(world.disk.list("log"))


async def test_outcomes_behind_later_commands_are_found_when_a_restore_ends_between(
    tmp_path: Path,
) -> None:
    small = msgspec.structs.replace(
        LIMITS, segment_bytes=32 * 1024, frame_bytes_max=16 * 1024, group_bytes_max=4 * 1024
    )
    rig, store = Rig(tmp_path, limits=small), SimObjectStore()
    shard = await rig.start()
    await rig.add()
    backups = backups_of(rig, store)
    await backups.take()
    # Groups are handed over before those in front of them are executed.
    await asyncio.gather(*(rig.send(*(rig.admit(f"{n}-{m}") for m in range(50))) for n in range(9)))
    await shard.rest()
    await backups.take()
    first = min(one.at.offset_end for one in reading.backups(store, 0))
    for offset in range(first, int(shard.executor.applied_end) + 1, 3):
        _, found = restored(store, Target(offset=offset))
        assert found.offset_end == found.recorded_end == offset
    await shard.stop()


@pytest.mark.parametrize(
    ("call", "number"),
    [("pwrite", errno.EIO), ("sync", errno.EIO), ("open", errno.EIO), ("pwrite", errno.ENOSPC)],
)
def test_a_disk_that_fails_at_any_call_ends_a_restore(lived: World, call: str, number: int) -> None:
    lived.shard.rest()
    lived.back_up()
    target = Target(offset=lived.end - 3)
    failed = 0
    for after in range(1000):
        disk = SimDisk()
        disk.inject(Raises(number), call, after=after)  # type: ignore[arg-type]
        try:
            restored(lived.store, target, disk=disk)
        except (OSError, BackupRefused):
            failed += 1
        else:
            break
    assert 5 < failed < 999


def test_frames_of_an_unknown_serializer_are_not_split(lived: World) -> None:
    frame = next(lived.shard.log.reader().frames(0))
    header = msgspec.structs.replace(frame.header, codec=99)
    with pytest.raises(BackupRefused, match="no serializer for codec 99"):
        _serializer({}, header)


# --- on the way to the store -------------------------------------------------------------------


def test_a_log_that_was_cut_and_has_no_snapshot_is_not_backed_up(
    long: tuple[World, list[str]],
) -> None:
    world, _ = long
    for name in world.disk.list("snapshots"):
        world.disk.remove(f"snapshots/{name}")
    world.disk.remove(segment_paths(world.disk)[0][1])
    with pytest.raises(BackupError, match="does not begin at offset 0"):
        world.back_up()


def test_a_log_with_a_gap_is_not_backed_up(long: tuple[World, list[str]]) -> None:
    world, _ = long
    _, missing = segment_paths(world.disk)[2]
    world.disk.remove(missing)
    before = segment_paths(world.disk)[1][1]
    with pytest.raises(BackupDamaged) as found:
        world.back_up()
    assert found.value.name == before, "it ends before the next one begins"


def test_a_directory_without_a_log_is_not_backed_up(lived: World) -> None:
    for _, path in segment_paths(lived.disk):
        lived.disk.remove(path)
    with pytest.raises(BackupRefused, match="holds no log"):
        lived.back_up()


def test_other_files_beside_the_history_are_left_where_they_are(lived: World) -> None:
    lived.disk.open("history/README", create=True, write=True).close()
    backup = lived.back_up().backup
    assert backup.history
    assert not [one.path for one in backup.history if "README" in one.path]


def test_a_segment_that_retention_takes_meanwhile_is_passed_over(
    long: tuple[World, list[str]],
) -> None:
    world, _ = long
    paths = segment_paths(world.disk)
    world.disk.remove(paths[2][1])
    copier = _Copier(world.disk, SimObjectStore(), 0)
    sent = copier.sealed_only(KeyRing(SECRETS), paths)
    # Neither it nor the one before, whose end only its header tells.
    assert len(sent) == len(paths) - 1 - 2


def test_a_store_that_gives_back_another_manifest_fails_the_backup(lived: World) -> None:
    class Changing(SimObjectStore):
        def get(self, name: str) -> bytes:
            return super().get(name) + (b" " if "/backups/" in name else b"")

    lived.store = Changing()
    with pytest.raises(BackupDamaged, match="reads back with other bytes"):
        lived.back_up()


# --- reading -----------------------------------------------------------------------------------


def test_a_store_says_whose_places_it_has_and_an_owner_that_is_damaged_is_found(
    lived: World,
) -> None:
    assert reading.shards(lived.store) == [0]
    assert reading.owner(lived.store, 0).shard == 0
    lived.store.put("0/OWNER", b"{")
    with pytest.raises(BackupDamaged, match="0/OWNER"):
        reading.owner(lived.store, 0)


def test_an_object_that_ends_early_or_is_gone_is_damage_with_its_name(lived: World) -> None:
    class Shrinking(SimObjectStore):
        def size(self, name: str) -> int:
            return super().size(name) + 5

    store = Shrinking()
    store.put("one", b"12345")
    with pytest.raises(BackupDamaged, match="one: it ends at byte 5 of 10"):
        list(reading.content(store, Stored(name="one", bytes=10, sha256="")))
    name = names(lived.store, "tails")[0]
    piece = piece_of(name)
    assert piece is not None
    lived.store.delete(name)
    with pytest.raises(BackupDamaged, match="missing from the store"):
        reading.piece_bytes(lived.store, piece)


def test_a_check_tells_of_every_object_that_is_not_as_it_was_stored(lived: World) -> None:
    backup = reading.newest(lived.store, 0)
    assert backup is not None
    assert reading.check(lived.store, backup) == []
    bad, gone = backup.objects[0].name, backup.objects[-1].name
    lived.store.put(bad, bytes(lived.store.size(bad)))
    lived.store.delete(gone)
    problems = reading.check(lived.store, backup)
    assert [one.partition(":")[0] for one in problems] == [bad, gone]
    assert encode_backup(backup)
