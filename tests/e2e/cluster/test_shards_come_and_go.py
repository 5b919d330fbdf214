"""As an operator, I change `spec.shards` under load, or think better of it, and clients notice
nothing."""

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.e2e.cluster.cluster import Namespace
from tests.e2e.cluster.engines import Engine
from tests.e2e.cluster.traffic import Traffic

from ultraengine.model.ids import SLOT_COUNT
from ultraengine.router.shard_map import ShardMap

MOVING_S = 900.0
"""Half of all slots move, on a machine that has other work."""
HALF = SLOT_COUNT // 2
BOOKS = ("kiel", "milan", "kobe", "berlin")
"""The slots of the first two are among the first fifty that move to a second shard."""


class Growing(Engine):
    """An engine whose number of shards changes, and its clients."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(namespace, "growing", shards=1, port=30082)
        self.apply()
        self.wait_ready()
        self.traffic = Traffic(self.address, BOOKS)
        self.traffic.open_accounts()

    def wish(self, shards: int) -> None:
        """As a person changes it."""
        body = json.dumps({"spec": {"shards": shards}})
        self.namespace.kubectl("patch", "ultraengine", self.name, "--type=merge", "--patch", body)

    def sizes(self) -> list[int]:
        """How many slots each shard has, by the map."""
        found = self.namespace.get("configmap", f"{self.name}-shardmap")
        assert found is not None
        shard_map = ShardMap.decode(found["data"]["map.json"].encode())
        return [shard_map.owners.count(shard) for shard in shard_map.shards]

    def status(self) -> dict[str, Any]:
        """What the operator says."""
        found = self.namespace.get("ultraengine", self.name)
        assert found is not None
        status: dict[str, Any] = found["status"]
        return status

    def watch(self, holds: Callable[[], bool]) -> tuple[float, list[dict[str, Any]]]:
        """Wait for something: the seconds that it took, and what `status.rebalance` said."""
        began_s, told = time.monotonic(), []
        while not holds():
            assert time.monotonic() < began_s + MOVING_S, (self.sizes(), self.status())
            progress = self.status().get("rebalance")
            if progress is not None and progress not in told:
                told.append(progress)
            time.sleep(1.0)
        return time.monotonic() - began_s, told

    def is_settled(self, wanted: list[int]) -> bool:
        """Whether all is as wished, and these shares are the newest."""
        found = self.conditions()
        is_ready = found.get("Ready", {}).get("status") == "True"
        return is_ready and "Rebalancing" not in found and self.sizes() == wanted


@pytest.fixture
def growing(namespace: Namespace) -> Iterator[Growing]:
    made = Growing(namespace)
    try:
        yield made
    finally:
        made.traffic.close()
        made.close()


def check(growing: Growing) -> None:
    """One shard is left, all is there once, and the volume of the other one stays."""
    assert growing.namespace.get("statefulset", f"{growing.name}-shard-1") is None
    assert len(growing.volumes()) == 2
    growing.traffic.check()


@pytest.mark.timeout(1200)
def test_clients_lose_nothing_when_a_new_shard_is_wished_away_while_slots_move_to_it(
    growing: Growing, capsys: pytest.CaptureFixture[str]
) -> None:
    traffic = growing.traffic
    with traffic:
        traffic.go_on(3)
        growing.wish(2)
        _, told = growing.watch(lambda: traffic.shards() == {0, 1})
        assert told, "status.rebalance was never seen"
        moved = growing.sizes()[-1]
        assert moved < HALF, "all has moved before anybody could think better of it"
        growing.wish(1)
        back_s, _ = growing.watch(lambda: growing.is_settled([SLOT_COUNT]))
        traffic.go_on(3)
    check(growing)
    with capsys.disabled():
        print(  # noqa: T201 (the figure is what a reader of the run wants)
            f"\n{told[-1]} when {moved} slots were turned round; back in {back_s:.0f} s"
        )


@pytest.mark.skipif("ULTRA_TORTURE" not in os.environ, reason="many minutes: make torture")
@pytest.mark.timeout(2400)
def test_clients_lose_nothing_while_half_of_all_slots_go_to_a_new_shard_and_back(
    growing: Growing, capsys: pytest.CaptureFixture[str]
) -> None:
    traffic = growing.traffic
    with traffic:
        traffic.go_on(3)
        growing.wish(2)
        out_s, told = growing.watch(lambda: growing.is_settled([HALF, HALF]))
        assert told, "status.rebalance was never seen"
        assert all(one["slotsTotal"] <= HALF for one in told)
        traffic.go_on(3)
        assert traffic.shards() == {0, 1}
        growing.wish(1)
        back_s, _ = growing.watch(lambda: growing.is_settled([SLOT_COUNT]))
        traffic.go_on(3)
    check(growing)
    with capsys.disabled():
        print(  # noqa: T201 (the figure is what a reader of the run wants)
            f"\n{HALF} slots to a new shard in {out_s:.0f} s, {HALF / out_s:.1f} a second; "
            f"back in {back_s:.0f} s"
        )
