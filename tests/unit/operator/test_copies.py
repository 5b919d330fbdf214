"""Shards of several copies: what is made, what is never made again, who is disturbed when."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.operator.memory import MemoryCluster, SilentShards, engine
from tests.unit.operator.rounds import KEY, conditions, operator, settle
from tests.unit.operator.test_plan import GOLDEN, content
from tests.unit.rebalancing.logs import AskedLogs, Logs

from ultraengine.config import Config
from ultraengine.front.settings import GatewaySettings
from ultraengine.model.ids import ShardId
from ultraengine.rebalancing.driver import Mover
from ultraengine.router.shard_map import ShardMap
from ultraengine_operator import names
from ultraengine_operator.answers import seen_shard
from ultraengine_operator.api.decode import engine_of
from ultraengine_operator.cluster import KINDS, Content
from ultraengine_operator.drivers.loop import Loop
from ultraengine_operator.drivers.maps import ConfigMapMaps
from ultraengine_operator.drivers.rebalancer import Rebalancer
from ultraengine_operator.observed import Observed, SeenFailover, SeenShard
from ultraengine_operator.plan import Settings, view_of
from ultraengine_operator.records import ANNOTATION
from ultraengine_operator.rollout import timestamp_s
from ultraengine_operator.specs.render import render


def rendered(**spec: Any) -> dict[tuple[str, str], Content]:
    view, problems = view_of(engine_of(content(**spec)), Observed(), Settings())
    assert problems == ()
    return {(one["kind"], one["metadata"]["name"]): one for one in render(view)}


def test_children_of_three_copies_are_byte_for_byte_those_on_file() -> None:
    made = list(rendered(replicasPerShard=3).values())
    text = msgspec.json.format(msgspec.json.encode(made), indent=1)
    assert text == (GOLDEN / "copies.json").read_bytes()


def test_a_pod_is_told_all_that_a_copy_needs_and_nothing_that_it_refuses(tmp_path: Path) -> None:
    pod = rendered(shards=2, replicasPerShard=3)["StatefulSet", "shop-shard-1"]["spec"]["template"]
    told = {one["name"]: one.get("value") for one in pod["spec"]["containers"][0]["env"]}
    assert told.pop("ULTRA_REPLICA") is None
    config = Config.from_env({**told, "ULTRA_REPLICA": "2"})
    assert config.replicas[2] == ("shop-shard-1-2.shop-shard-1-peers.default.svc", 8082)
    assert (config.replica, config.replica_host) == (2, "0.0.0.0")  # noqa: S104
    assert (config.record_lease, config.cluster) == ("shop-shard-1", "u1")
    assert str(config.replica_tls) == "/etc/ultra/tls"


def test_the_token_of_a_copy_is_for_its_own_record_and_one_copy_has_none() -> None:
    def pod(copies: int) -> Content:
        found = rendered(replicasPerShard=copies)["StatefulSet", "shop-shard-0"]
        spec: Content = found["spec"]["template"]["spec"]
        return spec

    alone, several = pod(1), pod(2)
    assert (alone["serviceAccountName"], alone["automountServiceAccountToken"]) == (
        "shop-engine", False,
    )  # fmt: skip
    assert (several["serviceAccountName"], several["automountServiceAccountToken"]) == (
        "shop-shard-0", True,
    )  # fmt: skip
    role = rendered(replicasPerShard=2)["Role", "shop-shard-0"]
    assert role["rules"] == [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
         "resourceNames": ["shop-shard-0"], "verbs": ["get", "watch", "update"]}
    ]  # fmt: skip
    assert not any(kind == "Role" for kind, _ in rendered())


def test_gateways_are_given_all_copies_and_people_the_one_that_leads() -> None:
    made = rendered(replicasPerShard=3)
    gateway = made["Deployment", "shop-gateway"]["spec"]["template"]["spec"]["containers"][0]
    told = GatewaySettings.from_env({one["name"]: one["value"] for one in gateway["env"]})
    assert told.shard_address == "http://shop-shard-{shard}-peers.default.svc:8080"
    assert made["Service", "shop-shard-0-peers"]["spec"]["publishNotReadyAddresses"]
    assert made["Service", "shop-shard-0"]["spec"]["selector"][names.ROLE] == "leader"
    assert names.ROLE not in rendered()["Service", "shop-shard-0"]["spec"]["selector"]


COMPRESSED = [{"name": "ULTRA_COMPRESS", "value": "true"}]
"""Another template with the same image."""


class Copies:
    """An engine of three copies in memory; the copies keep their record as they would."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster()
        self.loop = operator(self.cluster)

    async def apply(self, **spec: Any) -> None:
        await engine(self.cluster, **{"shards": 1, "replicasPerShard": 3, **spec})

    async def settle(self) -> None:
        await settle(self.cluster, self.loop)

    def ask_logs(self, logs: Logs) -> None:
        """From now on an operator that asks the shards what they hold."""

        @asynccontextmanager
        async def reach(key: tuple[str, str], shards: Sequence[ShardId]) -> AsyncIterator[Mover]:
            yield Mover(AskedLogs(logs, shards), ConfigMapMaps(self.cluster, *key))

        self.answered = asyncio.Event()
        self.moves = Rebalancer(reach, lambda _key: self.answered.set())
        self.loop = operator(self.cluster, moves=self.moves)

    async def settle_moves(self) -> None:
        """Until the shards have answered, and the operator has acted on it."""
        await self.settle()
        await self.answered.wait()
        await self.settle()

    def record(
        self, leader: int, in_sync: list[int], *, epoch: int = 1, shard: int = 0, replicas: int = 3
    ) -> None:
        """What the copies write into their Lease."""
        lease = self.cluster.objects["Lease", "default", f"shop-shard-{shard}"]
        changed = msgspec.json.decode(msgspec.json.encode(lease))
        seats = [{"replica": one, "disk": "x"} for one in in_sync]
        holder = {"seat": {"replica": leader, "disk": "x"}, "start": 1}
        record = {"epoch": epoch, "holder": holder, "isr": seats, "replicas": replicas}
        changed["metadata"].setdefault("annotations", {})[ANNOTATION] = msgspec.json.encode(
            record
        ).decode()
        self.cluster._store(changed)

    def roles(self) -> dict[str, str]:
        return {
            key[2]: one["metadata"]["labels"].get(names.ROLE, "")
            for key, one in self.cluster.objects.items()
            if key[0] == "Pod"
        }

    def status(self) -> Content:
        found: Content = self.cluster.objects["Shard", "default", "shop-shard-0"]["status"]
        return found

    def ready(self, pod: str, *, is_ready: bool) -> None:
        changed = msgspec.json.decode(
            msgspec.json.encode(self.cluster.objects["Pod", "default", pod])
        )
        changed["status"] = {"conditions": [{"type": "Ready", "status": str(is_ready)}]}
        self.cluster._store(changed)


@pytest.fixture
async def copies() -> Copies:
    """Three copies that serve; the second leads."""
    made = Copies()
    await made.apply()
    await made.settle()
    assert conditions(made.cluster)["Available"] == ("False", "ShardsNotReady")
    made.record(1, [0, 1, 2])
    await made.settle()
    return made


async def test_an_engine_of_three_copies_becomes_ready_and_says_who_leads(copies: Copies) -> None:
    assert conditions(copies.cluster) == {
        "Ready": ("True", "AsWished"), "Available": ("True", "Serving"),
    }  # fmt: skip
    follower = "follower"
    assert copies.roles() == {
        "shop-shard-0-0": follower, "shop-shard-0-1": "leader", "shop-shard-0-2": follower,
    }  # fmt: skip
    status = copies.status()
    assert (status["leader"], status["epoch"], status["replicas"]) == ("shop-shard-0-1", "1", 3)
    assert status["inSync"] == [f"shop-shard-0-{number}" for number in range(3)]
    assert status["volume"] == "data-shop-shard-0-1"
    claims = [key for key in copies.cluster.objects if key[0] == "PersistentVolumeClaim"]
    assert len(claims) == 3


async def test_the_record_is_never_written_after_it_was_made(copies: Copies) -> None:
    before = copies.cluster.objects["Lease", "default", "shop-shard-0"]
    await copies.apply(settings=COMPRESSED)
    for _ in range(3):
        await copies.settle()
    await settle(copies.cluster, operator(copies.cluster))
    assert copies.cluster.objects["Lease", "default", "shop-shard-0"] == before


async def test_a_record_that_is_gone_beside_volumes_is_told_and_not_made_anew(
    copies: Copies,
) -> None:
    del copies.cluster.objects["Lease", "default", "shop-shard-0"]
    await copies.apply(gateway={"replicas": 3})
    await copies.settle()
    assert ("Lease", "default", "shop-shard-0") not in copies.cluster.objects
    assert conditions(copies.cluster)["Stalled"] == ("True", "RecordMissing")
    gateway = copies.cluster.objects["Deployment", "default", "shop-gateway"]
    assert gateway["spec"]["replicas"] == 3, "the rest of the engine does not go on"


async def test_fewer_copies_in_sync_is_degraded_and_available(copies: Copies) -> None:
    copies.record(1, [0, 1])
    await copies.settle()
    assert conditions(copies.cluster) == {
        "Ready": ("False", "CopiesOutOfSync"), "Available": ("True", "Serving"),
        "Degraded": ("True", "CopiesOutOfSync"), "Reconciling": ("True", "CopiesOutOfSync"),
    }  # fmt: skip
    shard = {one["type"]: one["status"] for one in copies.status()["conditions"]}
    assert shard == {"Ready": "True", "Degraded": "True"}


async def test_a_leader_that_is_away_is_not_available_whoever_else_is_ready(
    copies: Copies,
) -> None:
    copies.ready("shop-shard-0-1", is_ready=False)
    await copies.settle()
    assert conditions(copies.cluster)["Available"] == ("False", "ShardsNotReady")
    copies.record(2, [0, 2], epoch=2)
    await copies.settle()
    assert conditions(copies.cluster)["Available"] == ("True", "Serving")
    assert copies.roles()["shop-shard-0-2"] == "leader"
    assert (copies.status()["leader"], copies.status()["epoch"]) == ("shop-shard-0-2", "2")


async def test_a_restart_takes_followers_first_and_one_copy_at_a_time(copies: Copies) -> None:
    cluster, loop = copies.cluster, copies.loop
    before = {key[2]: one["metadata"]["uid"] for key, one in cluster.objects.items()
              if key[0] == "Pod"}  # fmt: skip
    await copies.apply(settings=COMPRESSED)
    order: list[str] = []
    for _ in range(30):
        await loop.relist()
        await loop.reconcile(KEY)
        there = {key[2] for key in cluster.objects if key[0] == "Pod"}
        gone = sorted(set(before) - there)
        assert len(gone) <= 1
        if gone:
            (name,) = gone
            order.append(name)
            number = int(name[-1])
            leader = 1 if number != 1 else 0
            others = [one for one in range(3) if one != number]
            copies.record(leader, others, epoch=1 if number != 1 else 2)
            cluster.controllers()
            await loop.relist()
            await loop.reconcile(KEY)
            still = {key[2] for key in cluster.objects if key[0] == "Pod"}
            assert still == set(before), "another pod goes while a copy is not in sync"
            copies.record(leader, [0, 1, 2], epoch=1 if number != 1 else 2)
        cluster.controllers()
    assert order == ["shop-shard-0-0", "shop-shard-0-2", "shop-shard-0-1"]
    await copies.settle()
    assert conditions(cluster)["Ready"] == ("True", "AsWished")


async def test_a_pod_that_is_not_ready_stays_while_its_copy_is_needed(copies: Copies) -> None:
    copies.ready("shop-shard-0-0", is_ready=False)
    copies.record(1, [0, 1])
    await copies.apply(settings=COMPRESSED)
    await copies.settle()
    assert len(copies.roles()) == 3
    uid = copies.cluster.objects["Pod", "default", "shop-shard-0-0"]["metadata"]["uid"]
    copies.record(1, [1, 2])
    await copies.loop.relist()
    await copies.loop.reconcile(KEY)
    assert ("Pod", "default", "shop-shard-0-0") not in copies.cluster.objects
    copies.cluster.controllers()
    now = copies.cluster.objects["Pod", "default", "shop-shard-0-0"]["metadata"]["uid"]
    assert now != uid


def told(cluster: MemoryCluster) -> dict[str, str]:
    """The settings of the first shard's pods."""
    pod = cluster.objects["StatefulSet", "default", "shop-shard-0"]["spec"]["template"]
    return {one["name"]: one.get("value", "") for one in pod["spec"]["containers"][0]["env"]}


def pods_of(cluster: MemoryCluster) -> int:
    number = cluster.objects["StatefulSet", "default", "shop-shard-0"]["spec"]["replicas"]
    return int(number)


def claims_of(cluster: MemoryCluster) -> list[str]:
    return sorted(key[2] for key in cluster.objects if key[0] == "PersistentVolumeClaim")


async def alone() -> Copies:
    """A shard of one copy that serves, and keeps no record."""
    made = Copies()
    await made.apply(replicasPerShard=1)
    await made.settle()
    assert conditions(made.cluster)["Ready"] == ("True", "AsWished")
    assert not any(key[0] == "Lease" for key in made.cluster.objects)
    return made


async def test_one_copy_becomes_the_first_of_three() -> None:
    made = await alone()
    cluster = made.cluster
    before = cluster.objects["Pod", "default", "shop-shard-0-0"]["metadata"]["uid"]
    template = cluster.objects["StatefulSet", "default", "shop-shard-0"]["spec"][
        "volumeClaimTemplates"
    ]
    await made.apply(replicasPerShard=3)
    await made.settle()
    assert cluster.objects["Pod", "default", "shop-shard-0-0"]["metadata"]["uid"] != before
    assert pods_of(cluster) == 3
    assert told(cluster)["ULTRA_ADOPT"] == "true"
    assert len(told(cluster)["ULTRA_REPLICAS"].split(",")) == 3
    made_of = cluster.objects["StatefulSet", "default", "shop-shard-0"]["spec"]
    assert made_of["volumeClaimTemplates"] == template, "a set's claims cannot be changed"
    made.record(0, [0], replicas=1)
    await made.settle()
    assert conditions(cluster)["Ready"] == ("False", "CopiesChanging")
    assert conditions(cluster)["Available"] == ("True", "Serving")
    made.record(0, [0, 1, 2])
    await made.settle()
    assert conditions(cluster)["Ready"] == ("True", "AsWished")


async def test_the_record_of_a_shard_that_was_made_with_one_copy_is_made_once() -> None:
    made = await alone()
    await made.apply(replicasPerShard=2)
    await made.settle()
    made.record(0, [0, 1], replicas=2)
    await made.settle()
    del made.cluster.objects["Lease", "default", "shop-shard-0"]
    await made.settle()
    assert ("Lease", "default", "shop-shard-0") not in made.cluster.objects
    assert conditions(made.cluster)["Stalled"] == ("True", "RecordMissing")


async def test_a_copy_goes_when_the_record_has_let_it_go_and_its_volume_stays(
    copies: Copies,
) -> None:
    cluster = copies.cluster
    await copies.apply(replicasPerShard=2)
    await copies.settle()
    assert (pods_of(cluster), told(cluster)["ULTRA_COPIES"]) == (3, "2")
    copies.record(1, [0, 1, 2], replicas=2)  # All of them have to know it first.
    await copies.settle()
    assert pods_of(cluster) == 3
    assert conditions(cluster)["Available"] == ("True", "Serving")
    copies.record(1, [0, 1], replicas=2)
    await copies.settle()
    assert pods_of(cluster) == 2
    assert "ULTRA_COPIES" not in told(cluster)
    assert len(told(cluster)["ULTRA_REPLICAS"].split(",")) == 2
    assert claims_of(cluster) == [f"data-shop-shard-0-{number}" for number in range(3)]
    assert conditions(cluster)["Ready"] == ("True", "AsWished")
    assert cluster.objects["Shard", "default", "shop-shard-0"]["spec"]["replicas"] == 2


async def test_the_last_of_several_copies_keeps_its_record(copies: Copies) -> None:
    await copies.apply(replicasPerShard=1)
    await copies.settle()
    copies.record(0, [0], replicas=1, epoch=4)
    await copies.settle()
    cluster = copies.cluster
    assert (pods_of(cluster), "ULTRA_ADOPT" in told(cluster)) == (1, False)
    assert told(cluster)["ULTRA_REPLICAS"].count(":") == 1
    assert ("Lease", "default", "shop-shard-0") in cluster.objects
    assert conditions(cluster)["Ready"] == ("True", "AsWished")


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
async def test_volumes_and_record_stay_together_or_go_together(copies: Copies, policy: str) -> None:
    await copies.apply(deletionPolicy=policy, confirmDeletion="shop")
    await copies.settle()
    await copies.cluster.delete(KINDS["UltraEngine"], "default", "shop", uid=None)
    for _ in range(12):
        await copies.loop.relist()
        for key in copies.loop.engines():
            await copies.loop.reconcile(key)
    kinds = {key[0] for key in copies.cluster.objects}
    assert "UltraEngine" not in kinds
    kept = kinds & {"Lease", "PersistentVolumeClaim", "ConfigMap"}
    assert kept == (
        {"Lease", "PersistentVolumeClaim", "ConfigMap"} if policy == "Retain" else set()
    )
    assert "Secret" not in kinds


async def test_a_new_engine_of_the_same_name_takes_volumes_and_record_over(
    copies: Copies,
) -> None:
    await copies.cluster.delete(KINDS["UltraEngine"], "default", "shop", uid=None)
    uid = copies.cluster.objects["UltraEngine", "default", "shop"]["metadata"]["uid"]
    await copies.loop.relist()
    await copies.loop.reconcile(KEY)
    await copies.apply()
    await copies.settle()
    assert conditions(copies.cluster)["Stalled"] == ("True", "VolumesOfAnotherEngine")
    await copies.cluster.merge(
        KINDS["UltraEngine"], "default", "shop", {"metadata": {"annotations": {names.ADOPT: uid}}}
    )
    await copies.settle()
    assert conditions(copies.cluster)["Ready"] == ("True", "AsWished")
    env = copies.cluster.objects["StatefulSet", "default", "shop-shard-0"]["spec"]["template"]
    told = {one["name"]: one.get("value") for one in env["spec"]["containers"][0]["env"]}
    assert told["ULTRA_CLUSTER"] == uid


async def test_keys_are_written_once_and_never_kept_in_the_operator(copies: Copies) -> None:
    secret = copies.cluster.objects["Secret", "default", "shop-shard-0-tls"]
    assert sorted(secret["data"]) == ["ca.crt", "tls.crt", "tls.key"]
    kept = [one for ref, one in copies.loop.cache.children(KEY).items() if ref.kind == "Secret"]
    assert {"ca.crt", "tls.crt"} == {name for one in kept for name in one.get("data", {})}
    await settle(copies.cluster, operator(copies.cluster))
    assert copies.cluster.objects["Secret", "default", "shop-shard-0-tls"] == secret


async def test_a_certificate_that_ends_soon_is_replaced_and_no_pod_is(copies: Copies) -> None:
    secret = copies.cluster.objects["Secret", "default", "shop-shard-0-tls"]
    pods = (
        copies.roles(),
        sorted(
            one["metadata"]["uid"] for key, one in copies.cluster.objects.items() if key[0] == "Pod"
        ),
    )
    copies.cluster.now = "2026-03-01T00:00:00Z"
    await copies.settle()
    assert copies.cluster.objects["Secret", "default", "shop-shard-0-tls"] != secret
    assert copies.cluster.objects["Secret", "default", "shop-ca"]
    assert pods == (copies.roles(), sorted(
        one["metadata"]["uid"] for key, one in copies.cluster.objects.items() if key[0] == "Pod"
    ))  # fmt: skip


async def test_a_secret_that_holds_no_authority_is_told_and_left_alone(copies: Copies) -> None:
    secret = copies.cluster.objects["Secret", "default", "shop-ca"]
    await copies.cluster.replace(KINDS["Secret"], {**secret, "data": {"a": "eA=="}})
    await copies.settle()
    assert conditions(copies.cluster)["Stalled"] == ("True", "AuthorityUnreadable")
    assert copies.cluster.objects["Secret", "default", "shop-ca"]["data"] == {"a": "eA=="}


async def test_the_copy_that_leads_is_asked_how_it_is() -> None:
    class Listening(SilentShards):
        def __init__(self) -> None:
            self.asked: list[str | None] = []

        async def ask(
            self, namespace: str, engine: str, shard: int, pod: str | None = None
        ) -> Content | None:
            self.asked.append(pod)
            return await super().ask(namespace, engine, shard, pod)

    copies, shards = Copies(), Listening()
    copies.loop = Loop(
        copies.cluster, shards, Settings(), clock=lambda: timestamp_s(copies.cluster.now)
    )
    await copies.apply()
    await copies.settle()
    assert shards.asked == []
    copies.record(2, [0, 1, 2])
    await copies.settle()
    assert set(shards.asked) == {"shop-shard-0-2"}
    assert copies.status()["offset"] == "42"


FAILOVER = {
    "old_epoch": 3, "new_epoch": 4, "acknowledged_end": 70, "acknowledged_offset": 40,
    "promoted_end": 72, "promoted_offset": 41, "chain": "ab" * 32, "lossless": True,
    "silent_since": "2026-01-01T00:00:00Z", "elected_at": "2026-01-01T00:00:01Z",
    "serving_at": "2026-01-01T00:00:01.25Z", "took_s": 1.25,
}  # fmt: skip
TOLD = {
    "oldEpoch": "3", "newEpoch": "4", "acknowledgedOffset": "40", "promotedOffset": "41",
    "chain": "ab" * 32, "lossless": "True", "silentSince": "2026-01-01T00:00:00Z",
    "electedAt": "2026-01-01T00:00:01Z", "servingAt": "2026-01-01T00:00:01.25Z",
    "downtime": "1.250s",
}  # fmt: skip


async def test_the_last_failover_is_told_with_its_proof_and_stays_while_the_shard_is_silent() -> (
    None
):
    class Saying(SilentShards):
        failover: Content | None = None
        silent = False

        async def ask(
            self, namespace: str, engine: str, shard: int, pod: str | None = None
        ) -> Content | None:
            found = await super().ask(namespace, engine, shard, pod)
            return None if self.silent else {**(found or {}), "last_failover": self.failover}

    copies, shards = Copies(), Saying()
    copies.loop = Loop(
        copies.cluster, shards, Settings(), clock=lambda: timestamp_s(copies.cluster.now)
    )
    await copies.apply()
    await copies.settle()
    shards.failover = {**FAILOVER, "old_epoch": 0}
    copies.record(2, [0, 1, 2])
    await copies.settle()
    assert "lastFailover" not in copies.status(), "the first leader has replaced nobody"
    shards.failover = FAILOVER
    copies.record(1, [0, 1, 2], epoch=4)
    await copies.settle()
    assert copies.status()["lastFailover"] == TOLD
    shards.silent = True
    await copies.settle()
    assert copies.status()["lastFailover"] == TOLD
    adopted = {**FAILOVER, "took_s": None, "serving_at": None, "lossless": False}
    assert seen_shard(0, {"last_failover": adopted}) == (
        SeenShard(0, "", "0", "0", SeenFailover(
            old_epoch="3", new_epoch="4", acknowledged_offset="40", promoted_offset="41",
            chain="ab" * 32, lossless="Unknown", silent_since="2026-01-01T00:00:00Z",
            elected_at="2026-01-01T00:00:01Z",
        ))
    )  # fmt: skip


async def test_an_authority_is_changed_by_wish_and_no_shard_that_is_gone_holds_it_up(
    copies: Copies,
) -> None:
    await copies.apply(shards=2)
    await copies.settle()
    copies.record(0, [0, 1, 2], shard=1)
    await copies.settle()
    assert ("StatefulSet", "default", "shop-shard-1") in copies.cluster.objects
    copies.ask_logs(Logs(ShardMap.even(1)))  # No slot has moved to the second shard yet.
    await copies.apply(shards=1)
    await copies.settle_moves()
    assert ("StatefulSet", "default", "shop-shard-1") not in copies.cluster.objects
    before = copies.cluster.objects["Secret", "default", "shop-ca"]["data"]
    wish = {"metadata": {"annotations": {names.ROTATE: "today"}}}
    await copies.cluster.merge(KINDS["UltraEngine"], "default", "shop", wish)
    for hour in range(1, 6):
        copies.cluster.now = f"2026-01-02T0{hour}:00:00Z"
        await copies.settle()
    after = copies.cluster.objects["Secret", "default", "shop-ca"]
    assert after["metadata"]["annotations"][names.ROTATE] == "today"
    assert sorted(after["data"]) == ["ca.crt", "tls.crt", "tls.key"]
    assert after["data"]["ca.crt"] == after["data"]["tls.crt"] != before["tls.crt"]
    leaf = copies.cluster.objects["Secret", "default", "shop-shard-0-tls"]["data"]
    assert leaf["ca.crt"] == after["data"]["ca.crt"]
