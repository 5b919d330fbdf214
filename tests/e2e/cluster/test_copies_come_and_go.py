"""As an operator, I give a shard of one copy two more, and take one away, while clients pay."""

import time
from typing import Any

import pytest
from tests.e2e.cluster.cluster import Namespace, new_namespace, until
from tests.e2e.cluster.engines import Engine
from tests.e2e.cluster.faults import kill_container
from tests.e2e.cluster.traffic import Traffic

SHARD = "few-shard-0"


def pods(count: int) -> list[str]:
    return [f"{SHARD}-{number}" for number in range(count)]


class Few(Engine):
    """One shard, whose number of copies changes."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(namespace, "few", shards=1, port=30083)
        self.change(1)

    def change(self, copies: int) -> None:
        """Wish so many, and wait until it is so."""
        self.spec["replicasPerShard"] = copies
        self.apply()
        self.wait_ready()

    def status(self) -> dict[str, Any]:
        """What the operator says of the shard."""
        found = self.namespace.get("shards.ultraengine.io", SHARD)
        assert found is not None
        status: dict[str, Any] = found.get("status", {})
        return status

    def in_sync(self, count: int) -> None:
        """Wait until these copies count, and no other."""
        until(
            f"{count} copies in sync",
            lambda: self.status().get("inSync") == pods(count),
            self.status,
        )


def test_a_shard_of_one_copy_gets_two_more_and_loses_one_while_clients_pay(
    kept_on_failure: list[Namespace], capsys: pytest.CaptureFixture[str]
) -> None:
    with new_namespace() as namespace:
        kept_on_failure.append(namespace)
        few = Few(namespace)
        traffic = Traffic(few.address)
        traffic.open_accounts()
        with traffic:
            traffic.go_on(3)
            began_s = time.monotonic()
            few.change(3)
            few.in_sync(3)
            more_s = time.monotonic() - began_s
            traffic.go_on(3)
            leader = namespace.get("pod", few.status()["leader"])
            assert leader is not None
            kill_container(leader)
            traffic.go_on(3)
            few.wait_ready()
            proof = few.status()["lastFailover"]
            assert proof["lossless"] == "True"
            assert int(proof["promotedOffset"]) >= int(proof["acknowledgedOffset"]) > 0

            began_s = time.monotonic()
            few.change(2)
            few.in_sync(2)
            fewer_s = time.monotonic() - began_s
            until("its pod goes", lambda: namespace.get("pod", pods(3)[2]) is None)
            traffic.go_on(3)
        traffic.check()
        assert sorted(few.volumes()) == [f"data-{name}" for name in pods(3)]
        traffic.close()
        few.close()
        with capsys.disabled():
            print(  # noqa: T201 (the figure is what a reader of the run wants)
                f"\none copy became three within {more_s:.0f} s, three two within {fewer_s:.0f} s; "
                f"the failover between took {proof.get('downtime')}"
            )
