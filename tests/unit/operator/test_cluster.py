"""What both implementations of the port to Kubernetes promise, and elections through them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubernetes.aio import client
from tests.unit.operator.memory import MemoryCluster, engine
from tests.unit.operator.served import served

from ultraengine_operator.cluster import KINDS, Cluster, Refused
from ultraengine_operator.drivers.elector import Elector
from ultraengine_operator.drivers.kubernetes import KubernetesCluster

ENGINES = KINDS["UltraEngine"]


@pytest.fixture(params=["memory", "http"])
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    memory = MemoryCluster()
    if request.param == "memory":
        yield memory
        return
    async with served(memory) as address:
        api = client.ApiClient(client.Configuration(host=address))
        yield KubernetesCluster(api)
        await api.close()  # type: ignore[no-untyped-call]


def config_map(name: str = "one", **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "labels": {"a": "b"}},
        "data": data,
    }


MAPS = KINDS["ConfigMap"]


async def test_an_object_is_created_once(cluster: Cluster) -> None:
    await cluster.create(MAPS, config_map(x="1"))
    with pytest.raises(Refused) as caught:
        await cluster.create(MAPS, config_map(x="2"))
    assert (caught.value.status, caught.value.permanent) == (409, True)
    found = await cluster.get(MAPS, "default", "one")
    assert found is not None
    assert found["data"] == {"x": "1"}
    assert await cluster.get(MAPS, "default", "two") is None


async def test_a_list_has_all_pages_and_each_object_its_kind(cluster: Cluster) -> None:
    for name in ("a", "b", "c", "d", "e"):
        await cluster.create(MAPS, config_map(name))
    found = await cluster.list(MAPS, "a=b")
    assert [one["metadata"]["name"] for one in found] == ["a", "b", "c", "d", "e"]
    assert {(one["kind"], one["apiVersion"]) for one in found} == {("ConfigMap", "v1")}
    assert not any("managedFields" in one["metadata"] for one in found)
    assert list(await cluster.list(MAPS, "a=c")) == []


async def test_only_the_newest_version_can_be_replaced(cluster: Cluster) -> None:
    first = await cluster.create(MAPS, config_map(x="1"))
    await cluster.replace(MAPS, {**first, "data": {"x": "2"}})
    with pytest.raises(Refused) as caught:
        await cluster.replace(MAPS, {**first, "data": {"x": "3"}})
    assert caught.value.status == 409


async def test_a_patch_that_names_a_version_is_for_that_version_alone(cluster: Cluster) -> None:
    first = await cluster.create(MAPS, config_map(x="1"))
    wish = {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}}
    await cluster.merge(MAPS, "default", "one", {**wish, "data": {"x": "2"}})
    with pytest.raises(Refused) as caught:
        await cluster.merge(MAPS, "default", "one", {**wish, "data": {"x": "3"}})
    assert caught.value.status == 409


async def test_an_apply_takes_no_field_of_another_manager_and_drops_its_own(
    cluster: Cluster,
) -> None:
    await cluster.apply(MAPS, config_map(x="1", y="1"), manager="one")
    with pytest.raises(Refused) as caught:
        await cluster.apply(MAPS, config_map(x="2"), manager="two")
    assert caught.value.status == 409
    after = await cluster.apply(MAPS, config_map(x="1"), manager="one")
    assert after["data"] == {"x": "1"}
    again = await cluster.apply(MAPS, config_map(x="1"), manager="one")
    assert again["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]


async def test_only_the_object_of_the_given_uid_is_deleted(cluster: Cluster) -> None:
    first = await cluster.create(MAPS, config_map())
    await cluster.delete(MAPS, "default", "one", uid="another")
    assert await cluster.get(MAPS, "default", "one") is not None
    await cluster.delete(MAPS, "default", "one", uid=first["metadata"]["uid"])
    await cluster.delete(MAPS, "default", "one", uid=None)
    assert await cluster.get(MAPS, "default", "one") is None


async def test_an_api_server_that_is_away_is_asked_again() -> None:
    api = client.ApiClient(client.Configuration(host="http://127.0.0.1:1"))
    with pytest.raises(Refused) as caught:
        await KubernetesCluster(api).get(MAPS, "default", "one")
    await api.close()  # type: ignore[no-untyped-call]
    assert (caught.value.status, caught.value.permanent) == (0, False)


async def test_one_operator_leads_and_a_released_lease_is_taken_at_once(cluster: Cluster) -> None:
    now_s = 0.0
    one, two = (
        Elector(cluster, namespace="default", name="lease", identity=name, monotonic=lambda: now_s)
        for name in ("one", "two")
    )
    await one.step()
    await two.step()
    assert (one.leading(), two.leading()) == (True, False)
    now_s = 9.0
    await one.step()
    now_s = 16.0
    await two.step()
    assert (one.leading(), two.leading()) == (True, False)
    await one.release()
    await two.step()
    assert (one.leading(), two.leading()) == (False, True)


async def test_a_silent_leader_stops_before_another_begins() -> None:
    cluster = MemoryCluster()
    now_s = 0.0
    one, two = (
        Elector(cluster, namespace="default", name="lease", identity=name, monotonic=lambda: now_s)
        for name in ("one", "two")
    )
    await one.step()
    both, ended, began = False, None, None
    for tick in range(40):
        now_s = tick / 2
        await two.step()
        both = both or (one.leading() and two.leading())
        if not one.leading() and ended is None:
            ended = now_s
        if two.leading() and began is None:
            began = now_s
    assert not both
    assert (ended, began) == (10.0, 15.5)
    assert (await engine(cluster))["metadata"]["uid"]
