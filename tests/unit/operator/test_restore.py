"""An engine whose volumes are filled from backups before its first start."""

import argparse
from typing import Any

import pytest
from tests.unit.operator.memory import MemoryCluster, engine
from tests.unit.operator.rounds import conditions, operator, settle
from tests.unit.operator.test_copies import pods_of, rendered, told

from ultraengine.cli import restore_verb
from ultraengine.model.filled import Filled
from ultraengine.router.shard_map import ShardMap
from ultraengine_operator import names
from ultraengine_operator.cluster import Content

BEFORE: dict[str, Any] = {"location": "s3://bucket/before", "credentialsSecretName": "store"}


def pod(shard: int, **spec: Any) -> Content:
    found: Content = rendered(shards=2, **spec)["StatefulSet", f"shop-shard-{shard}"]
    template: Content = found["spec"]["template"]
    return template


def filler(shard: int, **wish: Any) -> Content:
    """The container that fills a shard's volume."""
    (found,) = pod(shard, restore={**BEFORE, **wish})["spec"]["initContainers"]
    content: Content = found
    return content


def options(shard: int, **wish: Any) -> Any:
    """What `ultra restore` understands of its arguments."""
    verb, *arguments = filler(shard, **wish)["args"]
    assert verb == "restore"
    parser = argparse.ArgumentParser()
    restore_verb.configure(parser)
    return parser.parse_args(arguments)


def test_a_volume_is_filled_before_the_engine_starts_and_by_nobody_where_nothing_is_said() -> None:
    assert "initContainers" not in pod(0)["spec"]
    found = filler(1)
    keys = {one["name"]: one["valueFrom"]["secretKeyRef"]["name"] for one in found["env"]
            if "valueFrom" in one}  # fmt: skip
    assert keys == dict.fromkeys(names.STORE_KEYS, "store")
    mounted = {one["name"] for one in found["volumeMounts"]}
    assert mounted == {"data", "tmp", "map"}
    assert found["securityContext"]["readOnlyRootFilesystem"]
    assert pod(1, restore=BEFORE)["metadata"]["labels"][names.BACKED_UP] == "true"
    assert names.BACKED_UP not in pod(1)["metadata"]["labels"]


def test_the_verb_is_told_what_the_spec_says() -> None:
    all_of_it = options(1)
    assert (all_of_it.store, all_of_it.shard, all_of_it.engine_uid) == (
        "s3://bucket/before", 1, "u1",
    )  # fmt: skip
    assert (str(all_of_it.data), str(all_of_it.first_start)) == ("/data", "/etc/ultra/map/map.json")
    assert (all_of_it.offset, all_of_it.at) == (None, None)
    assert all_of_it.domain == ["ultraengine.domains.ledger:DOMAIN"]
    moment = restore_verb.moment("2026-11-30T12:00:00Z")
    listed = {"time": "2026-11-30T12:00:00Z", "offsets": ["22"]}
    assert (options(0, **listed).offset, options(0, **listed).at) == (22, None)
    assert (options(1, **listed).offset, options(1, **listed).at) == (None, moment)


async def restored(**spec: Any) -> tuple[MemoryCluster, Any]:
    """An engine that is being restored, and its operator."""
    cluster = MemoryCluster()
    await engine(cluster, shards=1, restore=BEFORE, **spec)
    return cluster, operator(cluster)


FILLED = Filled(
    backup="0/backups/1.json", offset="22", state_hash="cafe", stamped_at="2026-01-01T00:00:00Z"
)


def seen(cluster: MemoryCluster, *, ready: bool = False, **container: Any) -> None:
    """What the kubelet says of the pod and of the container that fills its volume."""
    pod = cluster.objects["Pod", "default", "shop-shard-0-0"]
    status = {
        "conditions": [{"type": "Ready", "status": str(ready)}],
        "initContainerStatuses": [{"name": "other"}, {"name": names.FILLER, **container}],
    }
    cluster._store({**pod, "status": status})


def ended(code: int, message: str, reason: str = "") -> Content:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


async def test_a_filling_that_fails_is_said_until_it_has_succeeded_and_its_result_stays() -> None:
    cluster, loop = await restored()
    away = {"broken": lambda _image: True}
    await settle(cluster, loop, **away)
    seen(cluster, state={"running": {}})
    await settle(cluster, loop, **away)
    assert "Stalled" not in conditions(cluster)
    assert conditions(cluster)["Ready"] == ("False", "Restoring")
    seen(cluster, state=ended(2, "", "OOMKilled"))
    await settle(cluster, loop, **away)
    assert conditions(cluster)["Stalled"] == ("True", "RestoreFailed")
    last: dict[str, Any] = {"lastState": ended(2, "ultra: the store holds no backup\n")}
    seen(cluster, state={"waiting": {"reason": "CrashLoopBackOff"}}, **last)
    await settle(cluster, loop, **away)
    found = cluster.objects["UltraEngine", "default", "shop"]["status"]["conditions"]
    (stalled,) = (one for one in found if one["type"] == "Stalled")
    assert "shard 0: exit code 2: ultra: the store holds no backup" in stalled["message"]

    seen(cluster, ready=True, state=ended(0, FILLED.encode().decode()), **last)
    await settle(cluster, loop)
    assert conditions(cluster)["Ready"] == ("True", "AsWished")
    assert "Stalled" not in conditions(cluster)
    shard = cluster.objects["Shard", "default", "shop-shard-0"]
    told = {"backup": "0/backups/1.json", "offset": "22", "stateHash": "cafe",
            "stampedAt": "2026-01-01T00:00:00Z"}  # fmt: skip
    assert shard["status"]["restored"] == told
    seen(cluster, ready=True, state=ended(0, ""))
    await settle(cluster, loop)
    assert cluster.objects["Shard", "default", "shop-shard-0"]["status"]["restored"] == told
    # A container that fails later, on a node that is ill, is no failure of the filling.
    seen(cluster, state=ended(2, "no such volume"))
    await settle(cluster, loop, **away)
    assert "Stalled" not in conditions(cluster)


async def test_a_filling_that_takes_long_halts_no_rollout() -> None:
    cluster, loop = await restored()
    away = {"broken": lambda _image: True}
    await settle(cluster, loop, **away)
    # The pod is replaced, so that whether it gets ready is the rollout's business.
    changed = [{"name": "ULTRA_COMPRESS", "value": "true"}]
    await engine(cluster, shards=1, restore=BEFORE, settings=changed)
    await settle(cluster, loop, **away)
    seen(cluster, state={"running": {}})
    await settle(cluster, loop)
    cluster.now = "2026-01-01T06:00:00Z"
    await settle(cluster, loop)
    assert conditions(cluster)["Ready"] == ("False", "Restoring")
    seen(cluster, state=ended(0, FILLED.encode().decode()))
    await settle(cluster, loop)
    assert conditions(cluster)["Ready"] == ("False", "RolloutHalted")


def version_of(cluster: MemoryCluster) -> int:
    published = cluster.objects["ConfigMap", "default", "shop-shardmap"]["data"][names.MAP_KEY]
    return ShardMap.decode(published.encode()).version


async def test_what_is_restored_is_one_copy_and_the_first_of_three_afterwards() -> None:
    cluster, loop = await restored(replicasPerShard=3)
    await settle(cluster, loop, broken=lambda _image: True)
    assert pods_of(cluster) == 1
    assert not any(key[0] == "Lease" and key[2] == "shop-shard-0" for key in cluster.objects)
    assert version_of(cluster) == 1
    assert conditions(cluster)["Ready"] == ("False", "Restoring")
    filled = cluster.objects["Pod", "default", "shop-shard-0-0"]
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    cluster._store({**filled, "status": ready})
    await settle(cluster, loop)
    assert version_of(cluster) == 2
    assert pods_of(cluster) == 3
    assert told(cluster)["ULTRA_ADOPT"] == "true"


async def test_a_map_that_is_set_back_makes_no_single_copy_of_three() -> None:
    """The runbook sets it back to let an empty volume in; copies that are there count."""
    cluster, loop = await restored(replicasPerShard=3)
    await settle(cluster, loop)
    assert pods_of(cluster) == 3
    published = cluster.objects["ConfigMap", "default", "shop-shardmap"]
    first = ShardMap.even(1).encode().decode()
    cluster._store({**published, "data": {**published["data"], names.MAP_KEY: first}})
    await settle(cluster, loop)
    assert pods_of(cluster) == 3
    assert told(cluster)["ULTRA_REPLICAS"].count(",") == 2


@pytest.mark.parametrize("copies", [1, 3])
async def test_without_a_restore_nothing_waits(copies: int) -> None:
    cluster = MemoryCluster()
    await engine(cluster, shards=1, replicasPerShard=copies)
    await settle(cluster, operator(cluster))
    assert pods_of(cluster) == copies
