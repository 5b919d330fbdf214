"""The whole loop against an API server in memory: kills, refusals, restarts, deletion."""

from typing import Any

import pytest
from tests.unit.operator.memory import MemoryCluster, SilentShards, engine
from tests.unit.operator.rounds import KEY, conditions, operator, settle

from ultraengine_operator import names
from ultraengine_operator.cluster import KINDS, Content, Refused
from ultraengine_operator.drivers.loop import SILENT_S, Loop, NotLeading
from ultraengine_operator.plan import Settings
from ultraengine_operator.rollout import timestamp_s


class Killed(Exception):
    """The operator's process is gone."""


def shape(cluster: MemoryCluster) -> dict[Any, Content]:
    """What is wished and reported, without uids, versions and chance."""
    volatile = ("uid", "resourceVersion", "generation", "ownerReferences")
    kept = {}
    for key, one in cluster.objects.items():
        metadata = {k: v for k, v in one["metadata"].items() if k not in volatile}
        body = {k: v for k, v in one.items() if k not in ("metadata", "stringData", "status")}
        kept[key] = {"metadata": metadata, **body}
    return kept


async def test_an_engine_becomes_ready_and_then_nothing_is_written() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=2)
    loop = operator(cluster)
    await settle(cluster, loop)
    assert conditions(cluster) == {"Ready": ("True", "AsWished"), "Available": ("True", "Serving")}
    status = cluster.objects["UltraEngine", "default", "shop"]["status"]
    assert (status["shards"], status["observedGeneration"], status["phase"]) == (2, 1, "Ready")
    shard = cluster.objects["Shard", "default", "shop-shard-1"]
    assert (shard["status"]["epoch"], shard["status"]["offset"]) == ("7", "42")
    assert shard["status"]["slots"] == 2048
    before = cluster.writes
    for _ in range(3):
        await loop.relist()
        await loop.reconcile(KEY)
    assert cluster.writes == before


async def test_a_new_operator_reports_nothing_new_of_an_engine_that_is_as_wished() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=2)
    await settle(cluster, operator(cluster))
    before = cluster.objects["UltraEngine", "default", "shop"]
    successor = operator(cluster)
    await successor.relist()
    await successor.reconcile(KEY)
    assert cluster.objects["UltraEngine", "default", "shop"] == before


async def test_a_ready_shard_that_was_never_heard_is_asked_again_soon() -> None:
    class Hesitant(SilentShards):
        asked = 0

        async def ask(
            self, namespace: str, engine: str, shard: int, pod: str | None = None
        ) -> Content | None:
            self.asked += 1
            return None if self.asked == 1 else await super().ask(namespace, engine, shard, pod)

    cluster, shards = MemoryCluster(), Hesitant()
    await engine(cluster, shards=1)
    loop = Loop(cluster, shards, Settings(), clock=lambda: timestamp_s(cluster.now))
    await loop.relist()
    await loop.reconcile(KEY)
    assert shards.asked == 0, "a shard without a ready pod was asked"
    cluster.controllers()
    await loop.relist()
    assert await loop.reconcile(KEY) == SILENT_S
    assert "epoch" not in cluster.objects["Shard", "default", "shop-shard-0"]["status"]
    assert await loop.reconcile(KEY) is None
    assert cluster.objects["Shard", "default", "shop-shard-0"]["status"]["epoch"] == "7"


async def test_what_is_reported_is_what_is_seen_after_the_actions() -> None:
    # No event may follow: the answer to a write has told the cache already.
    cluster = MemoryCluster()
    await engine(cluster, shards=1)
    loop = operator(cluster)
    await settle(cluster, loop)
    cluster.objects.pop(("ServiceAccount", "default", "shop-engine"))
    await loop.relist()
    await loop.reconcile(KEY)
    assert ("ServiceAccount", "default", "shop-engine") in cluster.objects
    assert conditions(cluster)["Ready"] == ("True", "AsWished")


async def test_an_operator_killed_before_any_write_ends_where_an_undisturbed_one_does() -> None:
    undisturbed = MemoryCluster()
    await engine(undisturbed, shards=2)
    await settle(undisturbed, operator(undisturbed))
    wanted = shape(undisturbed)
    kills = 0
    for survived in range(100):
        cluster = MemoryCluster()
        await engine(cluster, shards=2)
        left = survived

        def die() -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1

        cluster.before_write = die
        try:
            await settle(cluster, operator(cluster))
        except Killed:
            kills += 1
        else:
            break
        cluster.before_write = lambda: None
        await settle(cluster, operator(cluster))
        assert shape(cluster) == wanted, f"killed after {survived} writes"
    assert kills > 15


@pytest.mark.parametrize("status", [500, 409, 429])
async def test_a_write_that_is_refused_once_is_made_later(status: int) -> None:
    for at in range(0, 18, 3):
        cluster = MemoryCluster()
        await engine(cluster, shards=1)
        left = at

        def refuse() -> None:
            nonlocal left
            left -= 1
            if left == -1:
                raise Refused(status, "once")

        cluster.before_write = refuse
        loop = operator(cluster)
        try:
            await settle(cluster, loop)
        except Refused:
            await settle(cluster, loop)
        assert conditions(cluster)["Ready"] == ("True", "AsWished")


async def test_a_new_setting_restarts_shard_after_shard_and_keeps_their_volumes() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=3)
    loop = operator(cluster)
    await settle(cluster, loop)
    await engine(cluster, shards=3, settings=[{"name": "ULTRA_COMPRESS", "value": "true"}])
    seen = []
    for _ in range(12):
        await loop.relist()
        await loop.reconcile(KEY)
        seen.append(sum(key[0] == "Pod" for key in cluster.objects))
        cluster.controllers()
    assert min(seen) == 2
    assert seen.count(2) == 3
    assert conditions(cluster)["Ready"] == ("True", "AsWished")
    assert sum(key[0] == "PersistentVolumeClaim" for key in cluster.objects) == 3


async def test_an_engine_whose_new_templates_no_controller_has_seen_is_not_ready() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=2)
    loop = operator(cluster)
    await settle(cluster, loop)
    await engine(cluster, shards=2, settings=[{"name": "ULTRA_COMPRESS", "value": "true"}])
    for _ in range(3):
        # Until then nothing shows that the pods are of the template before.
        await loop.relist()
        await loop.reconcile(KEY)
        assert conditions(cluster)["Ready"] == ("False", "Creating")
    await settle(cluster, loop)
    assert conditions(cluster)["Ready"] == ("True", "AsWished")


async def test_a_restart_that_does_not_come_back_halts_and_touches_no_other_shard() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=3)
    await engine(cluster, name="other", shards=1)
    loop = operator(cluster)
    await settle(cluster, loop)
    await engine(cluster, shards=3, image="bad")
    await engine(cluster, name="other", shards=1, image="ultraengine:2")
    for _ in range(6):
        await loop.relist()
        await loop.reconcile(("default", "shop"))
        cluster.controllers(broken=lambda image: image == "bad")
    cluster.now = "2026-01-01T01:00:00Z"
    for _ in range(6):
        await loop.relist()
        await loop.reconcile(("default", "shop"))
        await loop.reconcile(("default", "other"))
        cluster.controllers(broken=lambda image: image == "bad")
    assert conditions(cluster)["Stalled"] == ("True", "RolloutHalted")
    assert conditions(cluster, "other")["Ready"] == ("False", "WaitingForBudget")
    ready = [
        one["status"]["conditions"][0]["status"]
        for key, one in cluster.objects.items()
        if key[0] == "Pod" and key[2].startswith("shop-")
    ]
    assert sorted(ready) == ["False", "True", "True"]
    await engine(cluster, shards=3, image="ultraengine:1")
    await settle(cluster, loop)
    assert conditions(cluster)["Ready"] == ("True", "AsWished")
    assert conditions(cluster, "other")["Ready"] == ("True", "AsWished")


async def test_a_shard_is_kept_while_nobody_has_said_that_it_holds_no_slot() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=2)
    loop = operator(cluster)
    await settle(cluster, loop)
    await engine(cluster, shards=1)
    moved = '{"version":3,"ranges":[[0,4096,0]]}'
    await cluster.merge(
        KINDS["ConfigMap"], "default", "shop-shardmap", {"data": {names.MAP_KEY: moved}}
    )
    await settle(cluster, loop)
    assert conditions(cluster)["Available"] == ("True", "Serving")
    assert ("StatefulSet", "default", "shop-shard-1") in cluster.objects


async def test_a_larger_engine_leaves_the_map_alone() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1)
    loop = operator(cluster)
    await settle(cluster, loop)
    before = cluster.objects["ConfigMap", "default", "shop-shardmap"]["data"]
    await engine(cluster, shards=4)
    await settle(cluster, loop)
    assert cluster.objects["ConfigMap", "default", "shop-shardmap"]["data"] == before
    assert conditions(cluster)["Ready"] == ("True", "AsWished")
    assert sum(key[0] == "Pod" for key in cluster.objects) == 4


@pytest.mark.parametrize(
    ("policy", "left"),
    [({}, 1), ({"deletionPolicy": "Delete", "confirmDeletion": "shop"}, 0)],
)
async def test_deleting_keeps_volumes_unless_their_deletion_is_confirmed(
    policy: dict[str, Any], left: int
) -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1, **policy)
    loop = operator(cluster)
    await settle(cluster, loop)
    await cluster.delete(KINDS["UltraEngine"], "default", "shop", uid=None)
    await settle(cluster, loop)
    kinds = sorted(key[0] for key in cluster.objects)
    assert kinds == ["ConfigMap", "PersistentVolumeClaim"] * left


async def test_an_unconfirmed_deletion_waits_and_then_lets_go_with_all_volumes() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1, deletionPolicy="Delete")
    loop = operator(cluster)
    await settle(cluster, loop)
    await cluster.delete(KINDS["UltraEngine"], "default", "shop", uid=None)
    await settle(cluster, loop)
    assert conditions(cluster)["Stalled"] == ("True", "DeletionNotConfirmed")
    cluster.now = "2026-01-01T01:00:00Z"
    await settle(cluster, loop)
    assert ("UltraEngine", "default", "shop") not in cluster.objects
    assert ("PersistentVolumeClaim", "default", "data-shop-shard-0-0") in cluster.objects


async def test_an_engine_of_the_same_name_takes_over_volumes_only_when_told() -> None:
    cluster = MemoryCluster()
    first = await engine(cluster, shards=1)
    loop = operator(cluster)
    await settle(cluster, loop)
    await cluster.delete(KINDS["UltraEngine"], "default", "shop", uid=None)
    await settle(cluster, loop)
    await engine(cluster, shards=1)
    await settle(cluster, loop)
    assert conditions(cluster)["Stalled"] == ("True", "VolumesOfAnotherEngine")
    annotation = {"metadata": {"annotations": {names.ADOPT: first["metadata"]["uid"]}}}
    await cluster.merge(KINDS["UltraEngine"], "default", "shop", annotation)
    await settle(cluster, loop)
    assert conditions(cluster)["Ready"] == ("True", "AsWished")


async def test_a_paused_engine_is_reported_and_not_written_to() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1)
    loop = operator(cluster)
    await settle(cluster, loop)
    before = shape(cluster)
    await engine(cluster, shards=2, image="ultraengine:2", reconciliation="Paused")
    await settle(cluster, loop)
    assert conditions(cluster)["Paused"] == ("True", "PausedBySpec")
    after = shape(cluster)
    assert {k: v for k, v in after.items() if k[0] != "UltraEngine"} == {
        k: v for k, v in before.items() if k[0] != "UltraEngine"
    }


async def test_plan_mode_lists_what_would_be_done_and_does_none_of_it() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1, reconciliation="Plan")
    await settle(cluster, operator(cluster))
    assert list(cluster.objects) == [("UltraEngine", "default", "shop")]
    lines = cluster.objects["UltraEngine", "default", "shop"]["status"]["plan"]
    assert "apply StatefulSet shop-shard-0" in lines
    assert conditions(cluster)["Ready"] == ("False", "PlanOnly")


async def test_two_operators_by_label_do_not_touch_each_others_engines() -> None:
    cluster = MemoryCluster()
    await engine(cluster, name="one", labels={"team": "a"})
    await engine(cluster, name="two", labels={"team": "b"})
    first, second = operator(cluster, selector="team=a"), operator(cluster, selector="team=b")
    await settle(cluster, first)
    assert {key[2].partition("-")[0] for key in cluster.objects if key[0] == "Pod"} == {"one"}
    await settle(cluster, second)
    before = cluster.writes
    await settle(cluster, first)
    await settle(cluster, second)
    assert cluster.writes == before


async def test_a_field_that_somebody_else_owns_is_reported_and_not_taken() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1)
    loop = operator(cluster)
    await settle(cluster, loop)
    mine = {"spec": {"strategy": {"type": "Recreate"}}}
    await cluster.merge(KINDS["Deployment"], "default", "shop-gateway", mine)
    await settle(cluster, loop)
    assert conditions(cluster)["Stalled"] == ("True", "ApplyRefused")
    held = cluster.objects["Deployment", "default", "shop-gateway"]["spec"]["strategy"]
    assert held["type"] == "Recreate"


async def test_an_operator_that_does_not_lead_writes_nothing() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1)
    loop = operator(cluster, leading=lambda: False)
    await loop.relist()
    with pytest.raises(NotLeading):
        await loop.reconcile(KEY)
    assert list(cluster.objects) == [("UltraEngine", "default", "shop")]


async def test_a_spec_that_cannot_be_read_is_stalled_and_can_still_be_deleted() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1)
    loop = operator(cluster)
    await settle(cluster, loop)
    await engine(cluster, shards=1, storage={"size": "much"})
    await settle(cluster, loop)
    assert conditions(cluster)["Stalled"] == ("True", "SpecInvalid")
    assert ("StatefulSet", "default", "shop-shard-0") in cluster.objects
    await cluster.delete(KINDS["UltraEngine"], "default", "shop", uid=None)
    await settle(cluster, loop)
    assert ("UltraEngine", "default", "shop") not in cluster.objects


async def test_a_lost_or_broken_map_beside_volumes_is_never_made_by_guess() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=2)
    loop = operator(cluster)
    await settle(cluster, loop)
    broken = {"data": {names.MAP_KEY: '{"version":1,"ranges":[]}'}}
    await cluster.merge(KINDS["ConfigMap"], "default", "shop-shardmap", broken)
    await settle(cluster, loop)
    assert conditions(cluster)["Stalled"] == ("True", "ShardMapUnreadable")
    await cluster.delete(KINDS["ConfigMap"], "default", "shop-shardmap", uid=None)
    await settle(cluster, loop)
    assert conditions(cluster)["Stalled"] == ("True", "ShardMapMissing")
    assert ("ConfigMap", "default", "shop-shardmap") not in cluster.objects


async def test_volumes_grow_and_never_shrink() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1, storage={"size": "10Gi"})
    loop = operator(cluster)
    await settle(cluster, loop)
    await engine(cluster, shards=1, storage={"size": "20Gi"})
    await settle(cluster, loop)
    claim = cluster.objects["PersistentVolumeClaim", "default", "data-shop-shard-0-0"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"
    assert conditions(cluster)["Ready"] == ("True", "AsWished")
    await engine(cluster, shards=1, storage={"size": "5Gi"})
    await settle(cluster, loop)
    assert conditions(cluster)["Stalled"] == ("True", "StorageShrinkRefused")
    claim = cluster.objects["PersistentVolumeClaim", "default", "data-shop-shard-0-0"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"


async def test_rules_that_this_operator_does_not_have_leave_everything_as_it_is() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1)
    loop = operator(cluster)
    await settle(cluster, loop)
    asked = {"metadata": {"annotations": {names.RENDER_VERSION: "99"}}}
    await cluster.merge(KINDS["UltraEngine"], "default", "shop", asked)
    await engine(cluster, shards=1, image="ultraengine:2")
    await settle(cluster, loop)
    assert conditions(cluster)["Stalled"] == ("True", "RenderVersionUnknown")
    pod = cluster.objects["StatefulSet", "default", "shop-shard-0"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "ultraengine:1"


async def test_a_deletion_that_waits_is_let_go_at_once_when_told() -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1, deletionPolicy="Snapshot")
    loop = operator(cluster)
    await settle(cluster, loop)
    await cluster.delete(KINDS["UltraEngine"], "default", "shop", uid=None)
    await settle(cluster, loop)
    assert conditions(cluster)["Stalled"] == ("True", "BackupNotConfigured")
    told = {"metadata": {"annotations": {names.FORCE_FINALIZE: "true"}}}
    await cluster.merge(KINDS["UltraEngine"], "default", "shop", told)
    await settle(cluster, loop)
    assert ("UltraEngine", "default", "shop") not in cluster.objects
    assert ("PersistentVolumeClaim", "default", "data-shop-shard-0-0") in cluster.objects
