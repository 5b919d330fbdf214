"""Workers, query pods and numbers of pods: made, scaled, handed to an autoscaler, taken away."""

from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from tests.unit.operator.memory import MemoryCluster, engine
from tests.unit.operator.rounds import conditions, operator, settle

from ultraengine.cli.main import main
from ultraengine_operator.cluster import KINDS


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A verb configures the logging of its process, which here is that of all tests."""
    yield
    structlog.reset_defaults()


BOOKS = {"name": "books", "targetSecretName": "writer"}
AUDIT = {"name": "audit", "targetSecretName": "archive"}
QUERY = {"replicas": 3, "targetSecretName": "reader"}


def replicas(cluster: MemoryCluster, name: str) -> int:
    found: int = cluster.objects["Deployment", "default", name]["spec"].get("replicas", 1)
    return found


def named(cluster: MemoryCluster, part: str) -> set[tuple[str, str]]:
    return {(kind, name) for kind, _, name in cluster.objects if part in name}


async def no_pod_is_available(cluster: MemoryCluster, name: str) -> None:
    found = cluster.objects["Deployment", "default", name]
    status = {**found["status"], "availableReplicas": 0}
    await cluster.replace(KINDS["Deployment"], {**found, "status": status})


async def test_workers_and_query_pods_are_made_and_the_engine_is_ready_with_them() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1, projections=[BOOKS, AUDIT], query=QUERY)
    await settle(cluster, operator(cluster))
    assert conditions(cluster)["Ready"] == ("True", "AsWished")
    assert named(cluster, "-projection") == {
        ("ServiceAccount", "shop-projection"),
        ("Deployment", "shop-projection-books"), ("Deployment", "shop-projection-audit"),
    }  # fmt: skip
    assert named(cluster, "-query") == {
        ("ServiceAccount", "shop-query"), ("Deployment", "shop-query"),
        ("Service", "shop-query"), ("PodDisruptionBudget", "shop-query"),
    }  # fmt: skip
    assert replicas(cluster, "shop-query") == 3
    assert replicas(cluster, "shop-projection-books") == 1
    held = cluster.objects["Secret", "default", "shop-cursors"]["stringData"]["key"]
    assert len(held) >= 32


async def test_what_is_no_longer_wished_of_the_read_side_is_taken_away_alone() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1, projections=[BOOKS, AUDIT], query=QUERY)
    loop = operator(cluster)
    await settle(cluster, loop)
    await engine(cluster, shards=1, projections=[AUDIT])
    await settle(cluster, loop)
    assert named(cluster, "-query") == set()
    assert named(cluster, "-projection") == {
        ("ServiceAccount", "shop-projection"), ("Deployment", "shop-projection-audit"),
    }  # fmt: skip
    await engine(cluster, shards=1)
    await settle(cluster, loop)
    assert named(cluster, "-projection") == set()
    assert conditions(cluster)["Ready"] == ("True", "AsWished")
    assert named(cluster, "-gateway") == {
        ("ServiceAccount", "shop-gateway"), ("Deployment", "shop-gateway"),
        ("Service", "shop-gateway"), ("PodDisruptionBudget", "shop-gateway"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("away", "reason"),
    [("shop-projection-books", "ProjectionNotReady"), ("shop-query", "QueryNotReady")],
)
async def test_a_read_side_that_is_away_is_said_and_commands_are_taken(
    away: str, reason: str
) -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1, projections=[BOOKS], query=QUERY)
    loop = operator(cluster)
    await settle(cluster, loop)
    await no_pod_is_available(cluster, away)
    await loop.relist()
    await loop.reconcile(("default", "shop"))
    said = conditions(cluster)
    assert said["Ready"] == ("False", reason)
    assert said["Reconciling"] == ("True", reason)
    assert said["Available"] == ("True", "Serving")


async def test_a_projection_whose_name_ends_as_the_gateways_is_none() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1, projections=[{**BOOKS, "name": "a-gateway"}])
    loop = operator(cluster)
    await settle(cluster, loop)
    await no_pod_is_available(cluster, "shop-gateway")
    await loop.relist()
    await loop.reconcile(("default", "shop"))
    assert conditions(cluster)["Available"] == ("False", "GatewayNotReady")


async def scaler_sets(cluster: MemoryCluster, number: int) -> None:
    """What an autoscaler does through the scale subresource."""
    wish = {"spec": {"replicas": number}}
    await cluster.merge(KINDS["Deployment"], "default", "shop-gateway", wish)


async def test_an_autoscaler_takes_the_number_over_as_it_is_and_gives_it_back() -> None:
    cluster = MemoryCluster()
    gateway: dict[str, Any] = {"replicas": 3}
    await engine(cluster, shards=1, gateway=gateway)
    loop = operator(cluster)
    await settle(cluster, loop)
    assert replicas(cluster, "shop-gateway") == 3

    await engine(cluster, shards=1, gateway={**gateway, "autoscaling": {"maxReplicas": 9}})
    seen = []
    cluster.before_write = lambda: seen.append(replicas(cluster, "shop-gateway"))
    await settle(cluster, loop)
    assert set(seen) == {3}
    await scaler_sets(cluster, 7)
    await settle(cluster, loop)
    assert replicas(cluster, "shop-gateway") == 7
    assert "Stalled" not in conditions(cluster)

    await engine(cluster, shards=1, gateway=gateway)
    await settle(cluster, loop)
    assert replicas(cluster, "shop-gateway") == 3
    assert ("HorizontalPodAutoscaler", "default", "shop-gateway") not in cluster.objects
    assert conditions(cluster)["Ready"] == ("True", "AsWished")


async def test_a_number_that_an_autoscaler_has_set_causes_no_write_of_ours() -> None:
    cluster = MemoryCluster()
    gateway = {"replicas": 2, "autoscaling": {"maxReplicas": 9}}
    await engine(cluster, shards=1, gateway=gateway)
    loop = operator(cluster)
    await settle(cluster, loop)
    await scaler_sets(cluster, 8)
    cluster.controllers()
    before = cluster.writes
    await settle(cluster, loop)
    assert cluster.writes == before


async def test_a_new_gateway_has_its_least_number_of_pods_before_an_autoscaler_looks() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1, gateway={"replicas": 3, "autoscaling": {"maxReplicas": 9}})
    loop = operator(cluster)
    await settle(cluster, loop)
    assert replicas(cluster, "shop-gateway") == 3
    # Zero turns an autoscaler off, and leaves the engine without a gateway.
    await scaler_sets(cluster, 0)
    await settle(cluster, loop)
    assert replicas(cluster, "shop-gateway") == 3


async def test_an_ingress_is_made_changed_and_taken_away_with_its_field() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1, gateway={"ingress": {"host": "shop.example.com"}})
    loop = operator(cluster)
    await settle(cluster, loop)
    place = ("Ingress", "default", "shop-gateway")
    assert cluster.objects[place]["spec"]["rules"][0]["host"] == "shop.example.com"
    assert conditions(cluster)["Ready"] == ("True", "AsWished")
    await engine(cluster, shards=1, gateway={"ingress": {"host": "till.example.com"}})
    await settle(cluster, loop)
    assert cluster.objects[place]["spec"]["rules"][0]["host"] == "till.example.com"
    await engine(cluster, shards=1)
    await settle(cluster, loop)
    assert place not in cluster.objects


async def test_a_number_that_a_person_has_set_beside_the_spec_is_set_back() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1, projections=[BOOKS])
    loop = operator(cluster)
    await settle(cluster, loop)
    # A second worker of the same tables would be fenced, and end, again and again.
    wish = {"spec": {"replicas": 2}}
    await cluster.merge(KINDS["Deployment"], "default", "shop-projection-books", wish)
    await settle(cluster, loop)
    assert replicas(cluster, "shop-projection-books") == 1


async def arguments(cluster: MemoryCluster, name: str) -> list[str]:
    template = cluster.objects["Deployment", "default", name]["spec"]["template"]
    found: list[str] = template["spec"]["containers"][0]["args"]
    return found


@pytest.mark.parametrize("name", ["shop-projection-books", "shop-query"])
async def test_the_programs_know_the_arguments_that_their_pods_are_given(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1, projections=[BOOKS], query=QUERY)
    await settle(cluster, operator(cluster))
    # Nothing is mounted here, so both get as far as reading the file of their database.
    assert main(await arguments(cluster, name)) == 2
    assert "/etc/ultra/target/url" in capsys.readouterr().err
