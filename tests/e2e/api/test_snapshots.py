"""Snapshots on a real API server: what is reported is stored, answers stay, a stranger's do not."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.e2e.api.controllers import Controllers
from tests.e2e.api.operators import ENGINES, apply, connected
from tests.servers.kubernetes import ApiServer
from tests.unit.operator.backed import LOCATION, MemoryShards
from tests.unit.operator.memory import SilentShards

from ultraengine_operator.cluster import Refused
from ultraengine_operator.drivers.backups import Backups
from ultraengine_operator.drivers.kubernetes import KubernetesCluster
from ultraengine_operator.drivers.loop import Loop
from ultraengine_operator.plan import Settings

SNAPSHOTS = "/apis/ultraengine.io/v1alpha1/namespaces/default/snapshots"
ROUNDS_MAX = 60


class World:
    """A real API server, an operator in this process, and shards in memory."""

    def __init__(self, server: ApiServer, cluster: KubernetesCluster) -> None:
        self.server = server
        self.shards = MemoryShards()
        self.heard = asyncio.Event()
        """Set when there is news of a backup."""
        self.backups = Backups(self.shards, lambda _key: self.heard.set())
        self.loop = Loop(cluster, SilentShards(), Settings(), backups=self.backups)
        self.name = f"shop-{uuid.uuid4().hex[:8]}"

    async def until(self, name: str, kind: str, stands: tuple[str, str]) -> dict[str, Any]:
        """Rounds until a Snapshot has a condition; its status."""
        controllers = Controllers(self.server)
        for _ in range(ROUNDS_MAX):
            await self.loop.relist()
            await self.loop.reconcile(("default", self.name))
            await asyncio.to_thread(controllers.step)
            found = self.server.request("GET", f"{SNAPSHOTS}/{name}").body.get("status", {})
            held = {one["type"]: one for one in found.get("conditions", ())}
            if kind in held and (held[kind]["status"], held[kind]["reason"]) == stands:
                return dict(found)
        raise AssertionError(f"not within {ROUNDS_MAX} rounds: {found}")

    def ask(self, name: str) -> None:
        content = {"apiVersion": "ultraengine.io/v1alpha1", "kind": "Snapshot",
                   "metadata": {"name": name}, "spec": {"engine": self.name}}  # fmt: skip
        answer = self.server.request("POST", SNAPSHOTS, content)
        assert answer.status == 201, answer.message


@pytest.fixture
async def world(api_server: ApiServer) -> AsyncIterator[World]:
    async with connected(api_server) as cluster:
        world = World(api_server, cluster)
        yield world
        await world.backups.close()
        # What tests after this one find is theirs.
        api_server.request("DELETE", SNAPSHOTS)
        api_server.request("DELETE", f"{ENGINES}/{world.name}")
        await world.loop.relist()
        await world.loop.reconcile(("default", world.name))


async def test_a_request_waits_for_its_engine_is_answered_and_keeps_the_answer(
    world: World,
) -> None:
    name = f"{world.name}-now"
    world.ask(name)
    await world.until(name, "Stalled", ("True", "EngineNotFound"))
    apply(world.server, world.name, shards=1)
    await world.until(name, "Stalled", ("True", "BackupNotConfigured"))
    apply(world.server, world.name, shards=1, backup={"location": LOCATION})
    found = await world.until(name, "Ready", ("True", "BackedUp"))
    # A field that the schema does not have would have been dropped without a word.
    assert found["shards"] == [
        {"shard": 0, "offset": "1", "offsetEnd": "2", "stateHash": "cafe", "location": LOCATION,
         "manifest": "0/backups/1", "verifiedAt": "2026-01-01T00:00:00Z"}
    ]  # fmt: skip
    before = world.server.request("GET", f"{SNAPSHOTS}/{name}").body["metadata"]["resourceVersion"]
    again = await world.until(name, "Ready", ("True", "BackedUp"))
    after = world.server.request("GET", f"{SNAPSHOTS}/{name}").body["metadata"]["resourceVersion"]
    assert (after, again, world.shards.asked) == (before, found, {0: 1})


async def test_an_answer_is_not_written_to_another_request_of_the_same_name(world: World) -> None:
    apply(world.server, world.name, shards=1, backup={"location": LOCATION})
    name = f"{world.name}-now"
    world.ask(name)
    world.shards.open.clear()
    await world.until(name, "Reconciling", ("True", "BackingUp"))
    # Replaced behind the operator's back, when the answer is about to be written.
    world.shards.open.set()
    await world.heard.wait()
    world.server.request("DELETE", f"{SNAPSHOTS}/{name}")
    world.ask(name)
    with pytest.raises(Refused, match="has been modified"):
        await world.loop.reconcile(("default", world.name))
    found = world.server.request("GET", f"{SNAPSHOTS}/{name}").body
    assert found["status"] == {"observedGeneration": -1}
    answered = await world.until(name, "Ready", ("True", "BackedUp"))
    assert answered["shards"][0]["offset"] == "2"
