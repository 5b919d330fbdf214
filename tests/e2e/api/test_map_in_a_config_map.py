"""The shard map in a ConfigMap of a real API server: a swap lands on what was read, or fails."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from tests.e2e.api.operators import connected
from tests.servers.kubernetes import ApiServer as Server
from tests.unit.contracts.test_maps_contract import FIRST, ONE, MapsContract, config_map

from ultraengine.rebalancing.driver import Maps
from ultraengine_operator.cluster import KINDS
from ultraengine_operator.drivers.kubernetes import KubernetesCluster
from ultraengine_operator.drivers.maps import ConfigMapMaps

MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
async def cluster(empty_api_server: Server) -> AsyncIterator[KubernetesCluster]:
    async with connected(empty_api_server) as cluster:
        yield cluster


@pytest.fixture
def engine(empty_api_server: Server) -> str:
    """The name of an engine whose map is there."""
    name = f"shop-{uuid.uuid4().hex[:8]}"
    made = empty_api_server.request("POST", MAPS, config_map(name=f"{name}-shardmap"))
    assert made.status == 201, made.message
    return name


class TestConfigMapOfARealApiServer(MapsContract):
    @pytest.fixture
    def two(self, tmp_path: Path, cluster: KubernetesCluster, engine: str) -> Sequence[Maps]:
        return [ConfigMapMaps(cluster, "default", engine) for _ in range(2)]

    async def test_a_map_of_another_uid_or_version_is_left_alone(
        self, empty_api_server: Server, two: Sequence[Maps], engine: str
    ) -> None:
        path = f"{MAPS}/{engine}-shardmap"
        await two[0].read()
        label = {"metadata": {"labels": {"a": "b"}}}
        patch = "application/merge-patch+json"
        labelled = await asyncio.to_thread(
            empty_api_server.request, "PATCH", path, label, content_type=patch
        )
        assert labelled.status == 200, labelled.message
        assert not await two[0].swap(FIRST.moved(0, ONE))
        await two[0].read()
        await asyncio.to_thread(empty_api_server.request, "DELETE", path)
        assert not await two[0].swap(FIRST.moved(0, ONE))
        with pytest.raises(FileNotFoundError):
            await two[0].read()

    async def test_a_uid_alone_tells_an_object_that_was_made_anew(
        self, cluster: KubernetesCluster, two: Sequence[Maps], engine: str
    ) -> None:
        name = f"{engine}-shardmap"
        kind = KINDS["ConfigMap"]
        first = await cluster.get(kind, "default", name)
        assert first is not None
        await cluster.delete(kind, "default", name, uid=None)
        again = await cluster.create(kind, config_map(name=name))
        two[0]._seen = {  # type: ignore[attr-defined]  # As if only the uid was another.
            **again, "metadata": {**again["metadata"], "uid": first["metadata"]["uid"]},
        }  # fmt: skip
        assert not await two[0].swap(FIRST.moved(0, ONE))
        assert await two[1].read() == FIRST
