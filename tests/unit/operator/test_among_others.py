"""The loop among others: operators and people that write, shards that are silent, lost volumes."""

import asyncio

import pytest
from tests.unit.operator.memory import MemoryCluster, SilentShards, engine
from tests.unit.operator.rounds import KEY, conditions, operator, settle

from ultraengine.model.ids import ShardId
from ultraengine.router.shard_map import ShardMap
from ultraengine_operator import names
from ultraengine_operator.cluster import KINDS, Content
from ultraengine_operator.drivers.loop import ASKED_MAX, Loop
from ultraengine_operator.drivers.worker import Worker
from ultraengine_operator.plan import Settings
from ultraengine_operator.rollout import timestamp_s

LABELS = {names.ENGINE: "shop"}


@pytest.mark.parametrize(
    ("kind", "name"),
    [("PersistentVolumeClaim", "data-shop-shard-0-0"), ("ConfigMap", "shop-shardmap")],
)
async def test_a_late_deletion_spares_what_was_made_anew_under_the_same_name(
    kind: str, name: str
) -> None:
    # As when another operator has finished the deletion meanwhile, and a new engine was applied.
    cluster = MemoryCluster()
    await engine(cluster, shards=1, deletionPolicy="Delete", confirmDeletion="shop")
    loop = operator(cluster)
    await settle(cluster, loop)
    await cluster.delete(KINDS["UltraEngine"], "default", "shop", uid=None)
    await loop.relist()
    await loop.reconcile(KEY)
    await loop.relist()
    again = cluster.objects[kind, "default", name]
    await cluster.delete(KINDS[kind], "default", name, uid=None)
    await cluster.create(KINDS[kind], again)
    await loop.reconcile(KEY)
    assert (kind, "default", name) in cluster.objects


@pytest.mark.parametrize(("kind", "name"), [("Secret", "shop-hop"), ("ConfigMap", "shop-shardmap")])
async def test_a_foundation_that_is_somebody_elses_is_reported_and_not_asked_for_without_a_pause(
    kind: str, name: str
) -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1)
    theirs = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "default"}}
    await cluster.create(KINDS[kind], theirs)
    loop = operator(cluster)
    await loop.relist()
    again_s = await loop.reconcile(KEY)
    assert again_s is not None
    assert again_s > 1.0
    assert conditions(cluster)["Stalled"] == ("True", "ApplyRefused")
    assert ("StatefulSet", "default", "shop-shard-0") not in cluster.objects
    await cluster.merge(KINDS[kind], "default", name, {"metadata": {"labels": LABELS}})
    if kind == "Secret":
        await settle(cluster, loop)
        assert conditions(cluster)["Ready"] == ("True", "AsWished")


async def test_a_map_that_a_list_has_missed_is_looked_at_and_not_made_again() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1)
    loop = operator(cluster)
    await loop.relist()
    first = operator(cluster)
    await first.relist()
    await first.reconcile(KEY)
    assert await loop.reconcile(KEY) == 0.0
    assert await loop.reconcile(KEY) is None
    assert conditions(cluster)["Ready"] == ("False", "ShardsNotReady")


def published(cluster: MemoryCluster) -> ShardMap:
    content = cluster.objects["ConfigMap", "default", "shop-shardmap"]["data"]
    return ShardMap.decode(content[names.MAP_KEY].encode())


async def test_the_first_map_has_a_successor_once_every_shard_serves_from_its_volume() -> None:
    # A shard takes an empty volume for a new one under the first version, and refuses it later.
    cluster = MemoryCluster()
    await engine(cluster, shards=2)
    loop = operator(cluster)
    for shard in (0, 1):
        for _ in range(3):
            await loop.relist()
            await loop.reconcile(KEY)
            cluster.controllers(broken=lambda _image: True)
        assert published(cluster) == ShardMap.even(2)
        await cluster.delete(KINDS["Pod"], "default", f"shop-shard-{shard}-0", uid=None)
        cluster.controllers()
    await loop.relist()
    await loop.reconcile(KEY)
    assert published(cluster) == ShardMap.even(2, version=2)
    assert conditions(cluster)["Ready"] == ("True", "AsWished")
    await engine(cluster, shards=3)
    await settle(cluster, loop)
    assert published(cluster) == ShardMap.even(2, version=2)


async def test_the_successor_of_the_first_map_is_not_written_over_one_that_somebody_else_made() -> (
    None
):
    cluster = MemoryCluster()
    await engine(cluster, shards=2)
    loop = operator(cluster)
    await loop.relist()
    await loop.reconcile(KEY)
    cluster.controllers()
    await loop.relist()
    moved = ShardMap.even(2).moved(0, ShardId(1))
    await cluster.merge(
        KINDS["ConfigMap"], "default", "shop-shardmap",
        {"data": {names.MAP_KEY: moved.encode().decode()}},
    )  # fmt: skip
    await loop.reconcile(KEY)
    assert published(cluster) == moved
    await settle(cluster, loop)
    assert published(cluster) == moved
    assert conditions(cluster)["Ready"] == ("True", "AsWished")


async def test_an_engine_that_cannot_be_looked_at_is_tried_again_and_stops_no_other() -> None:
    cluster = MemoryCluster()
    await engine(cluster, name="bad", shards=1)
    await engine(cluster, shards=1)
    loop = operator(cluster)
    await settle(cluster, loop)
    odd = {"spec": {"resources": {"requests": {"storage": "1e9"}}}}
    claim = "data-bad-shard-0-0"
    await cluster.merge(KINDS["PersistentVolumeClaim"], "default", claim, odd)
    await engine(cluster, shards=2)
    await loop.relist()
    worker = Worker(loop)
    worker.enqueue(("default", "bad"))
    worker.enqueue(KEY, 0.001)
    running = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(20):
            while ("StatefulSet", "default", "shop-shard-1") not in cluster.objects:
                assert not running.done(), running.exception()
                await asyncio.sleep(0.001)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_many_silent_shards_are_asked_at_the_same_time() -> None:
    # One after the other they would take longer than the operator's own liveness allows.
    class Silent(SilentShards):
        asked = asked_max = 0

        async def ask(
            self, namespace: str, engine: str, shard: int, pod: str | None = None
        ) -> Content | None:
            self.asked += 1
            self.asked_max = max(self.asked_max, self.asked)
            await asyncio.sleep(0)
            self.asked -= 1
            return None

    cluster, shards = MemoryCluster(), Silent()
    await engine(cluster, shards=ASKED_MAX + 2)
    loop = Loop(cluster, shards, Settings(), clock=lambda: timestamp_s(cluster.now))
    await settle(cluster, loop)
    assert shards.asked_max == ASKED_MAX


async def test_an_engine_that_is_given_to_another_operator_is_let_alone_at_once() -> None:
    cluster = MemoryCluster()
    await engine(cluster, labels={"team": "a"})
    loop = operator(cluster, selector="team=a")
    await settle(cluster, loop)
    theirs = await engine(cluster, labels={"team": "b"}, image="ultraengine:2")
    assert loop.hear("MODIFIED", theirs) == KEY
    assert loop.engines() == ()
    before = cluster.writes
    await loop.reconcile(KEY)
    assert cluster.writes == before
