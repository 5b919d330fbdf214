"""As an operator, I apply one engine and lose any part of it, and no client loses a command."""

import time
from collections.abc import Iterator

import pytest
from tests.e2e.cluster.cluster import Namespace, new_namespace, until
from tests.e2e.cluster.engines import Engine
from tests.e2e.cluster.faults import (
    SYSTEM,
    drained,
    kill_container,
    no_api_server,
    operator_leads,
    operators,
    restart_node,
)
from tests.e2e.cluster.traffic import BOOKS, Traffic

AWAY_S = 60.0
"""How long the API server is away: longer than any lease or timeout of the operator."""


class Shop(Engine):
    """The engine of this module, its clients, and how long its first command took."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(namespace, "shop", shards=2, port=30080)
        applied_s = time.monotonic()
        self.apply()
        self.wait_ready()
        self.ready_after_s = time.monotonic() - applied_s
        self.traffic = Traffic(self.address)
        self.traffic.open_accounts()
        self.traffic.pay(BOOKS[0])
        self.served_after_s = time.monotonic() - applied_s


@pytest.fixture(scope="module")
def kept_namespace() -> Iterator[Namespace]:
    with new_namespace() as made:
        yield made


@pytest.fixture(scope="module")
def running(kept_namespace: Namespace) -> Iterator[Shop]:
    shop = Shop(kept_namespace)
    try:
        yield shop
    finally:
        shop.traffic.close()
        shop.close()


@pytest.fixture
def shop(running: Shop, kept_on_failure: list[Namespace]) -> Shop:
    """The engine, as wished, before anything is done to it."""
    kept_on_failure.append(running.namespace)
    running.wait_ready()
    return running


def test_an_applied_engine_becomes_ready_and_books_a_first_transfer(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.traffic.check()
    assert shop.traffic.shards() == {0, 1}
    assert shop.wait_for("Available", "True", "Serving")
    until("every shard's own words are reported", lambda: shop.heard() == [True, True])
    until("the engine's rise is told", lambda: "Normal" in shop.told("AsWished"))
    with capsys.disabled():
        print(  # noqa: T201 (the figure is what a reader of the run wants)
            f"\napplied to Ready {shop.ready_after_s:.1f} s, "
            f"to the first transfers acknowledged {shop.served_after_s:.1f} s"
        )


def test_clients_lose_nothing_when_an_engine_pod_is_deleted(shop: Shop) -> None:
    volumes = shop.volumes()
    for arguments in ([], ["--grace-period=0", "--force"]):
        pod = shop.pod_of(0)
        with shop.traffic:
            shop.traffic.go_on(5)
            shop.namespace.kubectl("delete", "pod", pod["metadata"]["name"], *arguments)
            until("another pod has its place", shop.replaced(pod))
            shop.traffic.go_on(5)
        shop.wait_ready()
        shop.traffic.check()
    assert shop.volumes() == volumes
    assert len(volumes) == 2


def test_clients_lose_nothing_when_an_engine_is_killed(shop: Shop) -> None:
    pod = shop.pod_of(1)
    restarts = pod["status"]["containerStatuses"][0]["restartCount"]
    with shop.traffic:
        shop.traffic.go_on(5)
        kill_container(pod)
        shop.namespace.wait_ready(pod["metadata"]["name"], restarts_min=restarts + 1)
        shop.traffic.go_on(5)
    shop.wait_ready()
    shop.traffic.check()


def test_clients_lose_nothing_when_gateways_are_deleted(shop: Shop) -> None:
    label = "--selector=ultraengine.io/engine=shop,app.kubernetes.io/component=gateway"
    for arguments in ([], ["--grace-period=0", "--force"]):
        gateway = shop.namespace.kubectl("get", "pods", label, "--output=name").split()[0]
        with shop.traffic:
            shop.traffic.go_on(5)
            shop.namespace.kubectl("delete", gateway, *arguments)
            shop.traffic.go_on(5)
        shop.wait_ready()
        shop.traffic.check()


def test_clients_notice_nothing_when_all_operators_are_deleted(shop: Shop) -> None:
    before = frozenset(one["metadata"]["name"] for one in operators())
    pods = {shop.pod_of(shard)["metadata"]["uid"] for shard in (0, 1)}
    with shop.traffic:
        shop.traffic.go_on(5)
        Namespace(SYSTEM).kubectl("delete", "pod", *sorted(before), "--grace-period=0", "--force")
        until("another operator leads", lambda: operator_leads(before))
        shop.traffic.go_on(5)
    shop.wait_ready()
    shop.traffic.check()
    assert {shop.pod_of(shard)["metadata"]["uid"] for shard in (0, 1)} == pods


def test_a_drained_node_makes_its_shard_unavailable_and_the_status_says_so(shop: Shop) -> None:
    # A lab's volumes cannot move, so the shard waits for its node.
    with shop.traffic:
        shop.traffic.go_on(5)
        with drained(shop.namespace, shop.pod_of(0)["spec"]["nodeName"], "shop"):
            told = shop.wait_for("Available", "False", "ShardsNotReady")
            assert "0" in told["message"]
            until("a warning is told", lambda: "Warning" in shop.told("ShardsNotReady"))
        shop.traffic.go_on(5)
    shop.wait_ready()
    shop.traffic.check()


def test_clients_lose_nothing_when_a_node_is_restarted(shop: Shop) -> None:
    pod = shop.pod_of(0)
    restarts = pod["status"]["containerStatuses"][0]["restartCount"]
    with shop.traffic:
        shop.traffic.go_on(5)
        restart_node(pod["spec"]["nodeName"])
        shop.namespace.wait_ready(pod["metadata"]["name"], restarts_min=restarts + 1)
        shop.traffic.go_on(5)
    shop.wait_ready()
    shop.traffic.check()


def test_clients_notice_nothing_while_the_api_server_is_away(shop: Shop) -> None:
    with shop.traffic:
        shop.traffic.go_on(5)
        with no_api_server(shop.namespace):
            end_s = time.monotonic() + AWAY_S
            while time.monotonic() < end_s:
                shop.traffic.go_on(5)
        until("an operator leads", operator_leads)
        shop.traffic.go_on(5)
    shop.wait_ready()
    shop.traffic.check()
