"""What a new disk of a pod owns, for every disk and every map; and after every power cut."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.shard.test_shard import Rig, code_of

from ultraengine.log.damage import LogInUse, LogRefused
from ultraengine.log.driver import Log, LogOptions
from ultraengine.log.identity import IDENTITY_PATH
from ultraengine.log.segment import LOCK_FILE
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, ShardId
from ultraengine.model.limits import KIB, Limits
from ultraengine.ports import Disk
from ultraengine.router.first_ownership import OnDisk, decide, engine_uid_of, look, settle
from ultraengine.router.shard_map import ShardMap, SlotRange
from ultraengine.shard.ownership import PATH, Ownership, read_ownership
from ultraengine.shard.promise import read_promise, write_promise
from ultraengine.testing.crash_states import crash_states
from ultraengine.testing.sim_disk import SimDisk
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.disk import LocalDisk
from ultraengine_adapters.local.random import SystemRandom
from ultraengine_adapters.local.secrets import FileSecrets

ENGINE = "6d0f1bd2-8d2c-4b5e-9a55-0123456789ab"
MAP = ShardMap.even(3)
LATER = ShardMap.even(3, version=2)
LIMITS = Limits(segment_bytes=64 * KIB, frame_bytes_max=16 * KIB, reserve_bytes=16 * KIB)


def given(shard_map: ShardMap) -> Callable[[], ShardMap]:
    return lambda: shard_map


def never() -> ShardMap:
    raise AssertionError("the map is not read")


def first(shard: int, shard_map: ShardMap, found: OnDisk | None = None) -> Ownership:
    made = decide(found or OnDisk(), ShardId(shard), ENGINE, given(shard_map))
    assert made is not None
    return made


def open_log(disk: Disk, shard: int = 1) -> Log:
    options = LogOptions(shard=ShardId(shard), epoch=Epoch(1), handlers=b"h" * 8, limits=LIMITS)
    return Log.open(disk, SystemClock(), SystemRandom(), FileSecrets(None, {}), options)


def test_a_uid_is_taken_as_it_is_and_any_other_name_is_hashed() -> None:
    assert engine_uid_of(ENGINE) == bytes.fromhex(ENGINE.replace("-", ""))
    assert engine_uid_of("0f" * 16) == b"\x0f" * 16
    names = ["shop", "shop-2", "z" * 32, ""]
    hashed = [engine_uid_of(name) for name in names]
    assert len(set(hashed)) == len(names)
    assert all(len(one) == 16 for one in hashed)


def test_a_new_disk_owns_what_the_first_map_names() -> None:
    made = first(1, MAP)
    assert made.slots == MAP.slots_of(ShardId(1))
    assert (made.engine_uid, made.shard) == (engine_uid_of(ENGINE), 1)
    assert (made.shard_count, made.map_version) == (3, 1)


@pytest.mark.parametrize("shard_map", [MAP, LATER])
def test_a_shard_that_no_map_names_yet_owns_nothing(shard_map: ShardMap) -> None:
    assert first(7, shard_map).slots == ()


def test_an_empty_disk_in_place_of_a_lost_one_is_refused() -> None:
    with pytest.raises(LogRefused, match="version 2 of the map names slots of shard 1"):
        first(1, LATER)


def test_an_empty_disk_of_a_copy_joins_those_that_have_a_record_and_says_what_they_say() -> None:
    for shard_map in (MAP, LATER):
        made = decide(OnDisk(), ShardId(1), ENGINE, given(shard_map), joins=True)
        assert made is not None
        assert (made.slots, made.map_version) == (MAP.slots_of(ShardId(1)), shard_map.version)


def test_a_copy_that_joins_is_refused_what_everybody_is_refused() -> None:
    for found in (OnDisk(others=(ShardId(0),)), OnDisk(None, True, ShardId(1))):
        with pytest.raises(LogRefused):
            decide(found, ShardId(1), ENGINE, given(LATER), joins=True)
    with pytest.raises(LogRefused, match="belongs to engine"):
        decide(OnDisk(first(1, MAP)), ShardId(1), "other", never, joins=True)


def test_what_the_disk_says_outranks_the_map() -> None:
    kept = first(1, MAP)
    for has_log in (False, True):
        assert decide(OnDisk(kept, has_log), ShardId(1), ENGINE, never) is None


def test_the_directory_of_another_engine_is_refused_with_both_names() -> None:
    with pytest.raises(LogRefused) as refused:
        decide(OnDisk(first(1, MAP)), ShardId(1), "other", never)
    assert str(refused.value) == (
        f"SLOTS: this directory belongs to engine {engine_uid_of(ENGINE).hex()}, not to "
        f"{engine_uid_of('other').hex()} ('other'): the wrong volume is mounted"
    )


def test_a_log_without_slots_is_taken_by_an_engine_of_this_shard_alone() -> None:
    alone = ShardMap(4, (SlotRange(0, 4096, ShardId(1)),))
    assert first(1, alone, OnDisk(None, True, ShardId(1))).slots == ((0, 4096),)
    for log_shard in (ShardId(0), None):
        found = OnDisk(None, True, log_shard)
        assert decide(found, ShardId(1), ENGINE, given(alone)) is None
    for shard_map in (MAP, ShardMap.even(1)):
        with pytest.raises(LogRefused, match="holds a log and no SLOTS, and the map names"):
            first(1, shard_map, OnDisk(None, True, ShardId(1)))


def test_a_disk_says_which_log_it_holds(tmp_path: Path) -> None:
    disk = LocalDisk(tmp_path)
    assert look(disk) == OnDisk()
    open_log(disk).close(clean=True)
    assert look(disk) == OnDisk(None, True, ShardId(1))
    assert settle(disk, ShardId(1), ENGINE, given(ShardMap(1, (SlotRange(0, 4096, ShardId(1)),))))
    assert look(disk).ownership == read_ownership(disk)
    (tmp_path / IDENTITY_PATH).write_bytes(b"damaged")
    assert look(disk).log_shard is None
    (tmp_path / PATH).write_bytes(b"damaged")
    with pytest.raises(InvariantBroken):
        settle(disk, ShardId(1), ENGINE, never)


def test_two_processes_do_not_settle_one_directory(tmp_path: Path) -> None:
    disk = LocalDisk(tmp_path)
    lock = disk.lock(LOCK_FILE)
    with pytest.raises(LogInUse):
        settle(disk, ShardId(1), ENGINE, given(MAP))
    lock.release()
    assert settle(disk, ShardId(1), ENGINE, given(MAP))
    assert not settle(disk, ShardId(1), ENGINE, never)


async def test_a_shard_without_slots_starts_and_refuses_every_key(tmp_path: Path) -> None:
    shard_map = ShardMap(1, (SlotRange(0, 4096, ShardId(5)),))
    assert settle(LocalDisk(tmp_path), ShardId(0), ENGINE, given(shard_map))
    for _ in range(2):
        rig = Rig(tmp_path)
        await rig.start()
        replies = await rig.send(rig.admit("a"), rig.admit("b", key="other"))
        assert [code_of(reply) for reply in replies] == ["WRONG_SHARD"] * 2
        await rig.shard.stop()


def start(disk: Disk) -> Ownership:
    """The start of a pod, as far as its disk goes: SLOTS, promise, IDENTITY, log."""
    settle(disk, ShardId(1), ENGINE, given(MAP))
    write_promise(disk, Epoch(read_promise(disk) + 1))
    open_log(disk).close(clean=True)
    kept = read_ownership(disk)
    assert kept is not None
    return kept


def test_a_first_start_that_a_power_cut_ends_anywhere_is_made_again() -> None:
    disk = SimDisk(record=True)
    wanted = start(disk)
    seen: set[tuple[bool, bool]] = set()
    for state in crash_states(disk.trace, random.Random(20261130), samples=12):
        after = SimDisk(image=state.image)
        seen.add((after.exists(PATH), after.exists(IDENTITY_PATH)))
        assert start(after) == wanted
    # Never a log without SLOTS: a shard that starts so would take every key.
    assert seen == {(False, False), (True, False), (True, True)}


def test_the_volume_of_another_shard_is_refused_while_it_says_nothing_of_this_one(
    tmp_path: Path,
) -> None:
    def others() -> list[ShardId]:
        return [ShardId(0), ShardId(4)]

    for shard_map in (MAP, LATER):
        disk = LocalDisk(tmp_path / str(shard_map.version))
        with pytest.raises(LogRefused, match="holds shard 0, 4 and nothing of shard 1: the wrong"):
            settle(disk, ShardId(1), ENGINE, given(shard_map), others=others)
        assert not disk.exists(PATH)
    # What the disk says of this shard counts, whatever stands beside it.
    disk = LocalDisk(tmp_path / "mine")
    assert settle(disk, ShardId(1), ENGINE, given(MAP))
    assert not settle(disk, ShardId(1), ENGINE, never, others=others)
