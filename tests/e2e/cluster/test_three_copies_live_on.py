"""As an operator, I apply an engine of three copies and lose the one that leads, and clients go on
through the same Service with the same ids."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.cluster.cluster import Namespace, new_namespace, until
from tests.e2e.cluster.engines import Engine
from tests.e2e.cluster.faults import kill_container
from tests.e2e.cluster.traffic import Traffic

SHARD = "trio-shard-0"
PODS = [f"{SHARD}-{number}" for number in range(3)]


class Trio(Engine):
    """One shard of three copies, and its clients."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(namespace, "trio", shards=1, port=30083, replicasPerShard=3)
        self.apply()
        self.wait_ready()
        self.traffic = Traffic(self.address)
        self.traffic.open_accounts()

    def status(self) -> dict[str, Any]:
        """What the operator says of the shard."""
        found = self.namespace.get("shards.ultraengine.io", SHARD)
        assert found is not None
        status: dict[str, Any] = found.get("status", {})
        return status

    def leader(self) -> dict[str, Any]:
        """The pod that leads."""
        pod = self.namespace.get("pod", self.status()["leader"])
        assert pod is not None
        return pod

    def wait_whole(self) -> None:
        """Until every copy is in sync again, and all of it is said."""
        self.wait_ready()
        until("all copies are in sync", lambda: self.status().get("inSync") == PODS, self.status)

    def record(self) -> dict[str, Any]:
        """The Lease that holds the record."""
        lease = self.namespace.get("lease", SHARD)
        assert lease is not None
        return lease

    def roles(self) -> dict[str, str]:
        """Labels of the pods by name."""
        found = {}
        for name in PODS:
            pod = self.namespace.get("pod", name)
            found[name] = "" if pod is None else pod["metadata"]["labels"].get(ROLE, "")
        return found


ROLE = "ultraengine.io/role"


@pytest.fixture(scope="module")
def kept_namespace() -> Iterator[Namespace]:
    with new_namespace() as made:
        yield made


@pytest.fixture(scope="module")
def running(kept_namespace: Namespace) -> Iterator[Trio]:
    trio = Trio(kept_namespace)
    try:
        yield trio
    finally:
        trio.traffic.close()
        trio.close()


@pytest.fixture
def trio(kept_namespace: Namespace, kept_on_failure: list[Namespace], running: Trio) -> Trio:
    """The engine, whole, before anything is done to it."""
    kept_on_failure.append(kept_namespace)
    running.wait_whole()
    return running


def test_three_copies_come_up_and_the_shard_says_who_leads(trio: Trio) -> None:
    status = trio.status()
    assert status["leader"] in PODS
    assert status["epoch"] == str(trio.record()["spec"]["leaseTransitions"])
    until(
        "one pod is labelled as the leader",
        lambda: sorted(trio.roles().values()) == ["follower", "follower", "leader"],
        trio.roles,
    )
    assert trio.roles()[status["leader"]] == "leader"
    assert len(trio.volumes()) == 3
    with trio.traffic:
        trio.traffic.go_on(3)
    trio.traffic.check()


@pytest.mark.parametrize("loss", ["its pod is deleted", "its container is killed"])
def test_clients_lose_nothing_when_the_leader_is_lost(
    trio: Trio, loss: str, capsys: pytest.CaptureFixture[str]
) -> None:
    leader, epoch, volumes = trio.leader(), int(trio.status()["epoch"]), trio.volumes()
    name, made = leader["metadata"]["name"], trio.record()["metadata"]["uid"]
    with trio.traffic:
        trio.traffic.go_on(5)
        lost_s = time.monotonic()
        if loss == "its pod is deleted":
            trio.namespace.kubectl("delete", "pod", name, "--grace-period=0", "--force")
        else:
            kill_container(leader)
        trio.traffic.go_on(1)
        paid_s = time.monotonic() - lost_s
        trio.traffic.go_on(5)
    until("another epoch", lambda: int(trio.status()["epoch"]) > epoch, trio.status)
    trio.wait_whole()
    trio.traffic.check()
    assert trio.volumes() == volumes
    assert trio.record()["metadata"]["uid"] == made, "the record was made anew"
    with capsys.disabled():
        print(  # noqa: T201 (the figure is what a reader of the run wants)
            f"\n{loss}: every book was paid again within {paid_s:.1f} s, "
            f"{name} led before, {trio.status()['leader']} leads"
        )


def test_a_copy_whose_volume_is_lost_is_filled_on_a_new_one(
    trio: Trio, capsys: pytest.CaptureFixture[str]
) -> None:
    leader, volumes = trio.status()["leader"], trio.volumes()
    lost = next(name for name in PODS if name != leader)
    pod = trio.namespace.get("pod", lost)
    assert pod is not None
    with trio.traffic:
        trio.traffic.go_on(3)
        lost_s = time.monotonic()
        trio.namespace.kubectl("delete", "persistentvolumeclaim", f"data-{lost}", "--wait=false")
        trio.namespace.kubectl("delete", "pod", lost, "--grace-period=0", "--force")
        until("another pod has its place", trio.replaced(pod))
        trio.wait_whole()
        whole_s = time.monotonic() - lost_s
        trio.traffic.go_on(3)
    after = trio.volumes()
    assert after.keys() == volumes.keys()
    assert [name for name in after if after[name] != volumes[name]] == [f"data-{lost}"]
    trio.traffic.check()
    with capsys.disabled():
        print(  # noqa: T201 (the figure is what a reader of the run wants)
            f"\n{lost} is in sync on a new volume after {whole_s:.1f} s"
        )
