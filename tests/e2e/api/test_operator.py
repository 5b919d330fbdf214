"""`ultra-operator` as a process against a real API server: watches, election, apply, status."""

import json
from collections.abc import Callable
from typing import Any

from tests.e2e.api.controllers import APPS, CORE, let_through
from tests.e2e.api.operators import ENGINES, Operators, apply, ready, seen, until
from tests.servers.kubernetes import ApiServer

from ultraengine.model.candidate import Verdict

INSTANCE = "app.kubernetes.io/instance"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/default/leases/few-shard-0"


def agree(server: ApiServer, leader: int, in_sync: list[int], replicas: int) -> None:
    """What the copies of a shard write into their Lease."""
    lease = server.request("GET", LEASE).body
    seats = [{"replica": one, "disk": "x"} for one in in_sync]
    holder = {"seat": {"replica": leader, "disk": "x"}, "start": 1}
    record = {"epoch": 2, "holder": holder, "isr": seats, "replicas": replicas}
    lease["metadata"].setdefault("annotations", {})["ultraengine.io/record"] = json.dumps(record)
    answer = server.request("PUT", LEASE, lease)
    assert answer.status == 200, answer.message


def test_a_shard_of_one_copy_gets_two_more_and_loses_one(
    api_server: ApiServer, operators: Operators
) -> None:
    operators("third")
    apply(api_server, "few", shards=1)
    until(api_server, ready(api_server, "few", 1))
    stateful = f"{APPS}/statefulsets/few-shard-0"

    def shows(pods: int, **told: str) -> Callable[[], bool]:
        """The API server has taken the set, and its pods are of its newest template."""

        def look() -> bool:
            found = api_server.request("GET", stateful).body
            env = found["spec"]["template"]["spec"]["containers"][0]["env"]
            values = {one["name"]: one.get("value") for one in env}
            return bool(found["spec"]["replicas"] == pods) and told.items() <= values.items()

        return look

    apply(api_server, "few", shards=1, replicasPerShard=3)
    until(api_server, shows(3, ULTRA_ADOPT="true"))
    until(api_server, lambda: api_server.request("GET", LEASE).status == 200)
    agree(api_server, 0, [0], 1)
    until(api_server, lambda: seen(api_server, "few").get("Ready") == ("False", "CopiesChanging"))
    agree(api_server, 0, [0, 1, 2], 3)
    until(api_server, ready(api_server, "few", 2))

    apply(api_server, "few", shards=1, replicasPerShard=2)
    until(api_server, shows(3, ULTRA_COPIES="2"))
    agree(api_server, 0, [0, 1], 2)
    until(api_server, shows(2))
    until(api_server, ready(api_server, "few", 3))
    claims = api_server.request("GET", f"{CORE}/persistentvolumeclaims").body["items"]
    names = [one["metadata"]["name"] for one in claims]
    assert [one for one in names if "few" in one] == [
        f"data-few-shard-0-{number}" for number in range(3)
    ]
    api_server.request("DELETE", f"{ENGINES}/few")
    until(api_server, lambda: api_server.request("GET", f"{ENGINES}/few").status == 404)
    for number in range(2):  # Nobody collects garbage here.
        assert api_server.request("DELETE", f"{CORE}/pods/few-shard-0-{number}").status == 200


def pods_of(server: ApiServer, name: str) -> list[dict[str, Any]]:
    """An engine's pods: nobody collects here what other stories leave."""
    found: list[dict[str, Any]] = server.request("GET", f"{CORE}/pods").body["items"]
    return [one for one in found if one["metadata"]["labels"][INSTANCE] == name]


def test_an_engine_becomes_ready_survives_a_killed_operator_and_is_let_go(
    api_server: ApiServer, operators: Operators
) -> None:
    first = operators("first")
    apply(api_server, "shop")
    until(api_server, ready(api_server, "shop", 1))
    versions = {
        one["metadata"]["name"]: one["metadata"]["resourceVersion"]
        for one in api_server.request("GET", f"{APPS}/statefulsets").body["items"]
    }
    pods = {one["metadata"]["uid"] for one in pods_of(api_server, "shop")}

    first.kill()
    first.wait(30)
    operators("second")
    apply(api_server, "shop", gateway={"replicas": 3})
    until(api_server, ready(api_server, "shop", 2))
    found = api_server.request("GET", f"{APPS}/statefulsets").body["items"]
    assert {
        one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in found
    } == versions, "a new operator wrote to sets that were as wished"
    now = {one["metadata"]["uid"] for one in pods_of(api_server, "shop")}
    assert now == pods, "a new operator restarted engine pods"

    apply(api_server, "shop", image="ultraengine:2")
    until(api_server, ready(api_server, "shop", 3))
    images = {one["spec"]["containers"][0]["image"] for one in pods_of(api_server, "shop")}
    assert images == {"ultraengine:2"}

    assert api_server.request("DELETE", f"{ENGINES}/shop").status == 200
    until(api_server, lambda: api_server.request("GET", f"{ENGINES}/shop").status == 404)
    claims = api_server.request("GET", f"{CORE}/persistentvolumeclaims").body["items"]
    names = [one["metadata"]["name"] for one in claims]
    assert [one for one in names if "shop" in one] == [
        "data-shop-shard-0-0", "data-shop-shard-1-0",
    ]  # fmt: skip


def test_an_image_that_decides_differently_is_refused_and_the_old_one_comes_back(
    api_server: ApiServer, operators: Operators
) -> None:
    operators("upgrader")
    apply(api_server, "till")
    until(api_server, ready(api_server, "till", 1))

    def judge(shard: int) -> Verdict | None:
        if shard == 0:
            return let_through(0)
        return Verdict(
            verdict="refused", shard=1, offset=41, command_type="counter.add@1", may_return=True
        )

    apply(api_server, "till", image="ultraengine:2")
    refused = ("True", "CandidateDiffers")
    until(api_server, lambda: seen(api_server, "till").get("Stalled") == refused, judge)
    status = api_server.request("GET", f"{ENGINES}/till").body["status"]
    stalled = next(one for one in status["conditions"] if one["type"] == "Stalled")
    assert "offset 41" in stalled["message"]
    assert status["upgrade"]["firstDifference"] == "41"
    sets = api_server.request("GET", f"{APPS}/statefulsets").body["items"]
    assert [
        one["spec"]["template"]["spec"]["containers"][0]["image"]
        for one in sets if one["metadata"]["name"].startswith("till-")
    ] == ["ultraengine:2", "ultraengine:1"]  # fmt: skip

    apply(api_server, "till")
    until(api_server, ready(api_server, "till", 3))
    pods = api_server.request("GET", f"{CORE}/pods").body["items"]
    assert {
        (one["metadata"]["name"], one["spec"]["containers"][0]["image"])
        for one in pods if one["metadata"]["name"].startswith("till-")
    } == {("till-shard-0-0", "ultraengine:1"), ("till-shard-1-0", "ultraengine:1")}  # fmt: skip
    assert api_server.request("DELETE", f"{ENGINES}/till").status == 200
    until(api_server, lambda: api_server.request("GET", f"{ENGINES}/till").status == 404)
    for number in (0, 1):
        claim = f"{CORE}/persistentvolumeclaims/data-till-shard-{number}-0"
        assert api_server.request("DELETE", claim).status == 200
