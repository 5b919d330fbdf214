"""Engines side by side: who waits for whom."""

import asyncio

from tests.unit.operator.memory import MemoryCluster, engine
from tests.unit.operator.rounds import conditions

from ultraengine_operator.cluster import Content
from ultraengine_operator.drivers.loop import Loop
from ultraengine_operator.drivers.worker import Worker
from ultraengine_operator.plan import Settings

ROUNDS_MAX = 50


class HungShards:
    """`Shards` of which those of one engine do not answer until they are let."""

    def __init__(self, hung: str) -> None:
        self._hung = hung
        self.open = asyncio.Event()
        self.waiting = 0
        self.most = 0

    async def ask(
        self, namespace: str, engine: str, shard: int, pod: str | None = None
    ) -> Content | None:
        if engine == self._hung:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            await self.open.wait()
            self.waiting -= 1
        return {"state": "serving", "epoch": 7, "applied_end": 42}


def since(worker: Worker) -> float | None:
    """When the oldest look under way began: asked anew each time."""
    return worker.busy_since


async def turns(cluster: MemoryCluster, loop: Loop, worker: Worker) -> None:
    """The world goes on, and everything is looked at again."""
    for _ in range(ROUNDS_MAX):
        await loop.relist()
        for key in loop.engines():
            worker.enqueue(key)
        for _ in range(ROUNDS_MAX):
            await asyncio.sleep(0)
        cluster.controllers()


async def test_a_shard_that_does_not_answer_holds_up_its_own_engine_alone() -> None:
    cluster, shards = MemoryCluster(), HungShards("hung")
    loop = Loop(cluster, shards, Settings())
    worker = Worker(loop)
    running = asyncio.create_task(worker.run())
    for name in ("hung", "shop"):
        await engine(cluster, name=name, shards=1)
    await turns(cluster, loop, worker)
    assert shards.waiting == 1
    assert conditions(cluster, "shop")["Ready"] == ("True", "AsWished")
    assert since(worker) is not None
    # However often it was queued meanwhile: one engine is never looked at twice at once.
    shards.open.set()
    await turns(cluster, loop, worker)
    assert conditions(cluster, "hung")["Ready"] == ("True", "AsWished")
    assert (shards.most, since(worker)) == (1, None)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
