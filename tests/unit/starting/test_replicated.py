"""What a process makes of its settings as one of several copies."""

import asyncio
from pathlib import Path

import pytest

from ultraengine.config import Config, ConfigErrors
from ultraengine.domains.counter import DOMAIN
from ultraengine.execution.registry import Registry
from ultraengine.log.damage import LogRefused
from ultraengine.log.driver import Log, LogOptions
from ultraengine.log.space import write_file
from ultraengine.model.ids import Epoch, ShardId
from ultraengine.model.limits import Limits
from ultraengine.model.policy import FlushRule
from ultraengine.replication.belonging import Cluster, encode_cluster
from ultraengine.replication.sizing import Wish
from ultraengine.replication.stored import (
    STORED_PATH,
    STORED_TEMPORARY,
    Stored,
    encode_stored,
)
from ultraengine.shard.opening import ShardOptions, World
from ultraengine.starting.ends import ExitCode, exit_code_of
from ultraengine.starting.replicated.driver import cluster_uid, follow, replica_options
from ultraengine.testing.sim_record import SimRecordStore
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.disk import LocalDisk
from ultraengine_adapters.local.random import SystemRandom
from ultraengine_adapters.local.secrets import FileSecrets

UID = b"u" * 16
SMALL = Limits(
    segment_bytes=128 * 1024, frame_bytes_max=32 * 1024, reserve_bytes=0, segments_prepared=0
)
OPTIONS = ShardOptions(
    shard=ShardId(3),
    rule=FlushRule(name="sync", wait_s=0.0, group_bytes_max=65_536, reply_before_flush=False),
    limits=Limits(),
)


def config(count: int, **more: object) -> Config:
    addresses = tuple(("127.0.0.1", 9000 + number) for number in range(count))
    told = {"shard": 3, "replicas": addresses, "replica": 1, "cluster": "shop", **more}
    return Config(**told)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("copies", "told", "min_isr"), [(2, 0, 2), (3, 0, 2), (5, 0, 3), (3, 1, 1)]
)
def test_more_than_half_are_needed_unless_it_is_told(copies: int, told: int, min_isr: int) -> None:
    made = replica_options(config(copies, min_isr=told), OPTIONS, Registry((DOMAIN,)), UID)
    assert made.wish.fewest(made.wish.replicas) == min_isr
    assert (made.shard, made.replica, len(made.addresses)) == (3, 1, copies)


def test_silence_is_the_same_for_leaders_and_copies() -> None:
    made = replica_options(config(3, failover_s=2.5), OPTIONS, Registry((DOMAIN,)), UID)
    assert made.limits.silence_s == made.planner.silence_s == 2.5


def disk_of(place: Path, uid: bytes) -> LocalDisk:
    """A disk that a replica of this cluster has opened once."""
    disk = LocalDisk(place)
    told = LogOptions(
        shard=ShardId(3), epoch=Epoch(1), handlers=b"handlers", limits=SMALL, cluster_uid=uid
    )
    Log.open(disk, SystemClock(), SystemRandom(), FileSecrets(None, {}), told).close(clean=True)
    return disk


async def uid_of(disk: LocalDisk, records: SimRecordStore, name: str = "shop") -> bytes:
    async with asyncio.timeout(20):
        return await cluster_uid(disk, SystemRandom(), records, name)


async def test_new_disks_of_one_place_are_one_cluster_and_of_two_places_two(
    tmp_path: Path,
) -> None:
    here, there = SimRecordStore(), SimRecordStore()
    disks = [LocalDisk(tmp_path / str(number)) for number in range(4)]
    uids = [await uid_of(disk, here) for disk in disks[:3]]
    assert len(set(uids)) == 1
    assert len(uids[0]) == 16
    assert await uid_of(disks[3], there) != uids[0], "the same name, and another cluster"


async def test_a_disk_of_another_cluster_of_the_same_name_is_refused(tmp_path: Path) -> None:
    here, there = SimRecordStore(), SimRecordStore()
    uid = await uid_of(LocalDisk(tmp_path / "0"), here)
    disk = disk_of(tmp_path / "1", await uid_of(LocalDisk(tmp_path / "2"), there))
    with pytest.raises(LogRefused, match="both called 'shop'") as refused:
        await uid_of(disk, here)
    assert exit_code_of(refused.value) is ExitCode.REFUSED
    assert await uid_of(disk_of(tmp_path / "3", uid), here) == uid


async def test_a_place_that_was_lost_is_not_marked_anew_for_a_disk_with_a_history(
    tmp_path: Path,
) -> None:
    disk, lost = disk_of(tmp_path / "0", UID), SimRecordStore()
    with pytest.raises(LogRefused, match="was lost"):
        await uid_of(disk, lost)
    assert lost.mark(None) is None


async def test_a_place_of_another_name_is_refused_before_the_disk_is_written(
    tmp_path: Path,
) -> None:
    records = SimRecordStore()
    await uid_of(LocalDisk(tmp_path / "0"), records)
    world = World(LocalDisk(tmp_path / "1"), SystemClock(), SystemRandom(), FileSecrets(None, {}))
    with pytest.raises(LogRefused, match="of the cluster 'shop', not of 'stop'"):
        await follow(
            config(3, cluster="stop"),
            world,
            records,
            Registry((DOMAIN,)),
            OPTIONS,
            on_end=lambda _error: None,
        )
    assert not (tmp_path / "1" / "IDENTITY").exists()


async def test_the_place_of_a_log_that_is_adopted_gets_its_uid_and_others_wait_for_it(
    tmp_path: Path,
) -> None:
    records, disk = SimRecordStore(), disk_of(tmp_path / "0", UID)
    other = asyncio.create_task(
        cluster_uid(
            LocalDisk(tmp_path / "1"), SystemRandom(), records, "shop", replica=1, adopts=True
        )
    )
    await asyncio.sleep(0)
    assert await cluster_uid(disk, SystemRandom(), records, "shop", adopts=True) == UID
    async with asyncio.timeout(20):
        assert await other == UID
    assert records.mark(None) == encode_cluster(Cluster("shop", UID))
    assert await cluster_uid(disk, SystemRandom(), records, "shop", adopts=True) == UID


async def test_a_disk_that_has_been_a_copy_is_not_adopted(tmp_path: Path) -> None:
    disk, lost = disk_of(tmp_path / "0", UID), SimRecordStore()
    write_file(disk, STORED_PATH, STORED_TEMPORARY, encode_stored(Stored()))
    with pytest.raises(LogRefused, match="was lost"):
        await cluster_uid(disk, SystemRandom(), lost, "shop", adopts=True)
    with pytest.raises(LogRefused, match="was lost"):
        await cluster_uid(
            disk_of(tmp_path / "1", UID), SystemRandom(), lost, "shop", replica=1, adopts=True
        )


def test_how_many_copies_there_are_to_be_is_what_is_told_or_all() -> None:
    def wish(**told: object) -> Wish:
        return replica_options(config(3, **told), OPTIONS, Registry((DOMAIN,)), UID).wish

    assert (wish(), wish(copies=2)) == (Wish(3), Wish(2))
    assert wish(copies=2, min_isr=3).fewest(2) == 2
    adopting = replica_options(config(3, adopt=True), OPTIONS, Registry((DOMAIN,)), UID)
    assert not adopting.adopts, "replica 1 adopts nothing"
    with pytest.raises(ConfigErrors, match="ULTRA_COPIES"):
        config(3, copies=4, record=Path("there")).check()


async def test_a_damaged_identity_is_refused(tmp_path: Path) -> None:
    disk = disk_of(tmp_path / "0", UID)
    (tmp_path / "0" / "IDENTITY").write_bytes(b"not one")
    with pytest.raises(LogRefused, match="IDENTITY"):
        await uid_of(disk, SimRecordStore())


async def test_a_place_that_does_not_answer_is_asked_again(tmp_path: Path) -> None:
    records = SimRecordStore(iter(["lost", "late"]))
    uid = await uid_of(LocalDisk(tmp_path / "0"), records)
    assert records.mark(None) == encode_cluster(Cluster("shop", uid))


async def test_certificates_that_are_missing_are_a_wrong_setting(tmp_path: Path) -> None:
    world = World(LocalDisk(tmp_path / "d"), SystemClock(), SystemRandom(), FileSecrets(None, {}))
    wrong = config(3, replica_tls=tmp_path / "nowhere")
    with pytest.raises(ConfigErrors, match="ULTRA_REPLICA_TLS"):
        await follow(
            wrong, world, SimRecordStore(), Registry((DOMAIN,)), OPTIONS, on_end=lambda _error: None
        )
    assert not (tmp_path / "d" / "REPLICA").exists()
