"""`spec.shards` is changed under load: the operator's loop over shards that are processes.

The API server is in memory, and the file that the gateway's pod would mount is never written again:
the worst that a ConfigMap can do.  Clients see no failed command, and each transfer is found once.
"""

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from tests.e2e.pods.running import PORT, SECRET, Place
from tests.e2e.pods.test_slots_move_under_load import check, check_logs, loaded, started
from tests.unit.operator.memory import MemoryCluster, SilentShards, engine
from tests.unit.operator.rounds import KEY, conditions

from ultraengine.model.ids import ShardId
from ultraengine.router.driver import Address
from ultraengine.router.shard_map import ShardMap, SlotRange
from ultraengine_operator import names
from ultraengine_operator.cache import Key
from ultraengine_operator.cluster import KINDS
from ultraengine_operator.drivers.loop import Loop
from ultraengine_operator.drivers.reaching import ShardServices
from ultraengine_operator.drivers.rebalancer import Rebalancer
from ultraengine_operator.plan import Settings

MOVING_S = 600.0
ROUND_S = 0.5


class Operator:
    """An operator that looks at its one engine again and again, until it is killed."""

    def __init__(self, cluster: MemoryCluster, place: Place) -> None:
        self.cluster = cluster

        def address(_key: Key, shard: ShardId) -> Address:
            return Address(host=f"{place.net}.10{shard}", port=PORT + 1)

        self.moves = Rebalancer(ShardServices(cluster, address), lambda _key: None)
        self._loop = Loop(cluster, SilentShards(), Settings(), moves=self.moves)
        self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            await self._loop.relist()
            await self._loop.reconcile(KEY)
            self.cluster.controllers()
            await asyncio.sleep(ROUND_S)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(MOVING_S):
            while not holds():
                if self._running.done():
                    self._running.result()
                await asyncio.sleep(0.05)

    async def settled(self) -> None:
        """Until all is as wished, and nobody is at work."""

        def settled() -> bool:
            found = self.cluster.objects["UltraEngine", *KEY]
            status = found.get("status", {})
            is_new = status.get("observedGeneration") == found["metadata"]["generation"]
            ready = is_new and conditions(self.cluster)["Ready"] == ("True", "AsWished")
            return ready and not self.moves.is_moving(KEY)

        await asyncio.sleep(2 * ROUND_S)
        await self.until(settled)

    async def kill(self) -> None:
        """As its process would end: between any two steps."""
        self._running.cancel()
        self.moves.stop()
        await asyncio.gather(self._running, return_exceptions=True)


@asynccontextmanager
async def operating(cluster: MemoryCluster, place: Place) -> AsyncIterator[Operator]:
    operator = Operator(cluster, place)
    try:
        yield operator
    finally:
        await operator.kill()


async def first_cluster(place: Place, shards: int) -> MemoryCluster:
    """A cluster with the wish for some shards, and with the key and the map that the pods have."""
    cluster = MemoryCluster()
    wished = await engine(cluster, shards=shards)
    labels = {names.ENGINE: "shop", names.ENGINE_UID: wished["metadata"]["uid"]}
    key = base64.b64encode(SECRET.encode()).decode()
    for kind, name, data in (
        ("Secret", "shop-hop", {names.KEY_FILE: key}),
        ("ConfigMap", "shop-shardmap", {names.MAP_KEY: place.map.read_text()}),
    ):
        metadata = {"name": name, "namespace": "default", "labels": labels}
        content = {"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": data}
        await cluster.create(KINDS[kind], content)
    return cluster


def sizes(cluster: MemoryCluster) -> list[int]:
    content = cluster.objects["ConfigMap", "default", "shop-shardmap"]["data"][names.MAP_KEY]
    owners = ShardMap.decode(content.encode()).owners
    return [owners.count(ShardId(shard)) for shard in range(4)]


@pytest.mark.timeout(600)
async def test_an_operator_and_the_one_after_it_even_out_a_map_under_load(place: Place) -> None:
    ends = (0, 1048, 2096, 3096, 4096)
    ranges = tuple(
        SlotRange(start, end, ShardId(shard)) for shard, (start, end) in enumerate(pairwise(ends))
    )
    place.map.write_bytes(ShardMap(1, ranges).encode())
    shards, gateway = await started(place)
    cluster = await first_cluster(place, 4)
    async with loaded(gateway) as load:
        async with operating(cluster, place) as killed:
            await killed.until(lambda: sizes(cluster)[3] > 1000)
        async with operating(cluster, place) as second:
            await second.settled()
        assert sizes(cluster) == [1024] * 4
    await check(gateway, load)
    await check_logs(shards)


@pytest.mark.skipif("ULTRA_TORTURE" not in os.environ, reason="many minutes: make torture")
@pytest.mark.timeout(1800)
async def test_spec_shards_goes_from_two_to_four_and_back_under_load(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    shards, gateway = await started(place)
    published = place.map.read_bytes()
    cluster = await first_cluster(place, 2)
    async with operating(cluster, place) as first:
        await first.settled()
    async with loaded(gateway) as load:
        began_s = time.monotonic()
        async with operating(cluster, place) as killed:
            await engine(cluster, shards=4)
            await killed.until(lambda: sizes(cluster)[3] > 0)
        async with operating(cluster, place) as second:
            await second.settled()
            out_s = time.monotonic() - began_s
            assert sizes(cluster) == [1024] * 4
            await load.goes_on()
            last = {list(done.values())[-1].shard for done in load.acknowledged.values()}
            assert last == {0, 1, 2, 3}
            began_s = time.monotonic()
            await engine(cluster, shards=2)
            await second.settled()
            in_s = time.monotonic() - began_s
        assert sizes(cluster) == [2048, 2048, 0, 0]
        assert not [key for key in cluster.objects if key[2].startswith("shop-shard-2")]
        for pod in shards[2:]:
            await asyncio.to_thread(pod.stop)
        await load.goes_on()
    assert place.map.read_bytes() == published
    await check(gateway, load)
    await check_logs(shards[:2])
    with capsys.disabled():
        print(  # noqa: T201 (the figure is what a reader of the run wants)
            f"\n2048 slots to new shards in {out_s:.0f} s, with an operator killed; "
            f"back in {in_s:.0f} s"
        )
