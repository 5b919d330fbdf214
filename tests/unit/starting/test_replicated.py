"""What a process makes of its settings as one of several copies."""

from pathlib import Path

import pytest

from ultraengine.config import Config, ConfigErrors
from ultraengine.domains.counter import DOMAIN
from ultraengine.execution.registry import Registry
from ultraengine.model.ids import ShardId
from ultraengine.model.limits import Limits
from ultraengine.model.policy import FlushRule
from ultraengine.shard.opening import ShardOptions, World
from ultraengine.starting.replicated.driver import cluster_uid, follow, replica_options
from ultraengine.testing.sim_record import SimRecordStore
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.disk import LocalDisk
from ultraengine_adapters.local.random import SystemRandom
from ultraengine_adapters.local.secrets import FileSecrets

OPTIONS = ShardOptions(
    shard=ShardId(3),
    rule=FlushRule(name="sync", wait_s=0.0, group_bytes_max=65_536, reply_before_flush=False),
    limits=Limits(),
)


def config(copies: int, **more: object) -> Config:
    addresses = tuple(("127.0.0.1", 9000 + number) for number in range(copies))
    told = {"shard": 3, "replicas": addresses, "replica": 1, "cluster": "shop", **more}
    return Config(**told)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("copies", "told", "min_isr"), [(2, 0, 2), (3, 0, 2), (5, 0, 3), (3, 1, 1)]
)
def test_more_than_half_are_needed_unless_it_is_told(copies: int, told: int, min_isr: int) -> None:
    made = replica_options(config(copies, min_isr=told), OPTIONS, Registry((DOMAIN,)))
    assert made.min_isr == min_isr
    assert (made.shard, made.replica, len(made.addresses)) == (3, 1, copies)


def test_silence_is_the_same_for_leaders_and_copies() -> None:
    made = replica_options(config(3, failover_s=2.5), OPTIONS, Registry((DOMAIN,)))
    assert made.limits.silence_s == made.planner.silence_s == 2.5


def test_engines_of_other_names_are_other_clusters() -> None:
    assert cluster_uid("shop") == cluster_uid("shop") != cluster_uid("stop")
    assert len(cluster_uid("shop")) == 16


async def test_certificates_that_are_missing_are_a_wrong_setting(tmp_path: Path) -> None:
    world = World(LocalDisk(tmp_path / "d"), SystemClock(), SystemRandom(), FileSecrets(None, {}))
    wrong = config(3, replica_tls=tmp_path / "nowhere")
    with pytest.raises(ConfigErrors, match="ULTRA_REPLICA_TLS"):
        await follow(
            wrong, world, SimRecordStore(), Registry((DOMAIN,)), OPTIONS, on_end=lambda _error: None
        )
    assert not (tmp_path / "d" / "REPLICA").exists()
