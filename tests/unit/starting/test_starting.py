"""What a process reads and opens before it serves, and how what is wrong with it is said."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from ultraengine.config import Config, ConfigErrors
from ultraengine.edge.auth import ApiKeys, Loopback
from ultraengine.edge.quota import Quotas
from ultraengine.gateway.hop import HopIdentity
from ultraengine.log.damage import LogRefused
from ultraengine.log.identity import IDENTITY_PATH
from ultraengine.model.ids import ShardId
from ultraengine.router.shard_map import ShardMap
from ultraengine.shard.ownership import PATH, read_ownership
from ultraengine.starting.driver import (
    has_record,
    identity_of,
    listen_for,
    others_beside,
    own_slots,
    read_map,
)
from ultraengine.testing.sim_record import SimRecordStore
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.disk import LocalDisk


def mistake_of(config: Config) -> str:
    with pytest.raises(ConfigErrors) as refused:
        identity_of(config, SystemClock(), Quotas(0.0, 1, {}))
    return str(refused.value)


def test_a_hop_key_that_is_missing_or_too_short_lets_nobody_in(tmp_path: Path) -> None:
    key = tmp_path / "hop"
    assert mistake_of(Config(hop_key=key)).startswith("ULTRA_HOP_KEY: [Errno 2]")
    key.write_text("short\n")
    assert mistake_of(Config(hop_key=key)).startswith("ULTRA_HOP_KEY: a hop key has at least 32")
    key.write_bytes(b"\xff" * 40)
    assert mistake_of(Config(hop_key=key)).startswith("ULTRA_HOP_KEY: ")
    key.write_text("x" * 40 + "\n")
    identity, file = identity_of(Config(hop_key=key), SystemClock(), Quotas(0.0, 1, {}))
    assert isinstance(identity, HopIdentity)
    assert file is None


def test_a_file_of_keys_that_cannot_be_used_is_a_wrong_setting(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    assert mistake_of(Config(api_keys=keys)).startswith("ULTRA_API_KEYS: [Errno 2]")
    keys.write_text("[[keys]]\n")
    assert mistake_of(Config(api_keys=keys)).startswith("ULTRA_API_KEYS: ")
    keys.write_text("[tenants.acme]\ncommands_per_s = 7\n")
    quotas = Quotas(0.0, 1, {})
    identity, file = identity_of(Config(api_keys=keys), SystemClock(), quotas)
    assert isinstance(identity, ApiKeys)
    assert file is not None
    assert file.reload() is None
    nobody = identity_of(Config(), SystemClock(), quotas)
    assert isinstance(nobody[0], Loopback)
    assert nobody[1] is None


def test_a_map_that_is_missing_or_half_written_is_a_wrong_setting(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    with pytest.raises(ConfigErrors, match=r"ULTRA_MAP: \[Errno 2\]"):
        read_map(path)
    whole = ShardMap.even(3, version=4).encode()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(ConfigErrors, match="ULTRA_MAP: "):
            read_map(path)
    path.write_bytes(whole)
    assert read_map(path) == ShardMap.even(3, version=4)


def test_data_and_admin_have_a_socket_each_unless_they_are_together() -> None:
    for together, count in ((True, 1), (False, 2)):
        listeners = listen_for(Config(port=0, admin_port=0), together=together)
        assert len({one.getsockname() for one in listeners}) == count
        for one in listeners:
            one.close()


def test_a_port_that_is_taken_is_a_wrong_setting_and_leaves_no_other_open() -> None:
    host = f"127.99.{os.getpid() % 250}.9"  # Nobody else's.
    with socket.create_server((host, 20_019)):
        with pytest.raises(ConfigErrors) as refused:
            listen_for(Config(host=host, port=20_018, admin_port=20_019), together=False)
        wanted = f"ULTRA_PORT: cannot listen on {host}, 20018 and 20019: "
        assert str(refused.value).startswith(wanted)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, 20_018))


def test_a_unix_socket_is_not_touched_before_the_directory_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("of another process")
    assert listen_for(Config(socket=path), together=True) == []
    assert path.read_text() == "of another process"


def test_other_shards_of_a_volume_are_those_with_something_in_their_directory(
    tmp_path: Path,
) -> None:
    assert others_beside(tmp_path / "not there", ShardId(0)) == []
    for name in ("shard-0000", "shard-0001", "shard-0012", "shard-0002", "shard-x", "shards"):
        (tmp_path / name).mkdir()
    (tmp_path / "shard-0007").write_text("a file")
    for name in ("shard-0000", "shard-0012", "shard-x", "shards"):
        (tmp_path / name / PATH).touch()
    (tmp_path / "shard-0002" / IDENTITY_PATH).touch()
    assert others_beside(tmp_path, ShardId(0)) == [2, 12]
    assert others_beside(tmp_path, ShardId(12)) == [0, 2]


async def test_whether_a_shard_has_a_record_is_asked_until_its_place_answers() -> None:
    async with asyncio.timeout(20):
        assert not await has_record(SimRecordStore(["lost", "late"]))
        records = SimRecordStore(["", "lost"])
        assert records.swap(None, b"one")
        assert await has_record(records)


def test_a_disk_is_told_what_it_owns_only_where_a_map_and_an_engine_are_named(
    tmp_path: Path,
) -> None:
    path = tmp_path / "map.json"
    path.write_bytes(ShardMap.even(2, version=2).encode())
    disk = LocalDisk(tmp_path / "shard-0001")
    for published, engine in ((None, "shop"), (path, None)):
        nameless = Config(data=tmp_path, shard=1, map=published, engine_uid=engine)
        own_slots(nameless, disk, joins=True)
        assert read_ownership(disk) is None
    pod = Config(data=tmp_path, shard=1, map=path, engine_uid="shop")
    with pytest.raises(LogRefused, match="restore its volume"):
        own_slots(pod, disk, joins=False)
    own_slots(pod, disk, joins=True)
    found = read_ownership(disk)
    assert found is not None
    assert (found.shard, found.slots) == (1, ((2048, 4096),))
