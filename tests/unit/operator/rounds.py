"""An operator and a cluster in memory, in rounds."""

from typing import Any

from tests.unit.operator.memory import MemoryCluster, SilentShards

from ultraengine_operator.drivers.loop import Loop
from ultraengine_operator.plan import Settings
from ultraengine_operator.rollout import timestamp_s

KEY = ("default", "shop")
ROUNDS_MAX = 24


def operator(cluster: MemoryCluster, **options: Any) -> Loop:
    options.setdefault("clock", lambda: timestamp_s(cluster.now))
    return Loop(cluster, SilentShards(), Settings(), **options)


async def settle(cluster: MemoryCluster, loop: Loop, **world: Any) -> None:
    """Rounds of the operator and of the controllers until nothing is written any more."""
    for _ in range(ROUNDS_MAX):
        before = cluster.writes
        await loop.relist()
        for key in loop.engines():
            await loop.reconcile(key)
        cluster.controllers(**world)
        if cluster.writes == before:
            return
    raise AssertionError(f"still writing after {ROUNDS_MAX} rounds")


def conditions(cluster: MemoryCluster, name: str = "shop") -> dict[str, tuple[str, str]]:
    found = cluster.objects["UltraEngine", "default", name]["status"]["conditions"]
    return {one["type"]: (one["status"], one["reason"]) for one in found}
