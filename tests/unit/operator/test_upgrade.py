"""Another image: gateways, reads, then shard by shard, each let through by its candidate."""

import random
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from tests.unit.operator.memory import MemoryCluster, engine, let_through
from tests.unit.operator.rounds import KEY, conditions, operator, settle

from ultraengine.model.candidate import Verdict
from ultraengine_operator import names
from ultraengine_operator.actions import Apply, Create, Delete, RestartPod
from ultraengine_operator.api.decode import engine_of
from ultraengine_operator.budget import Fleet, Standing
from ultraengine_operator.cluster import KINDS, Content, Refused
from ultraengine_operator.drivers.loop import Loop
from ultraengine_operator.observed import Observed, Ref, observed_of
from ultraengine_operator.plan import Plan, Settings, plan
from ultraengine_operator.specs.render import render
from ultraengine_operator.upgrade import Proof, question

OLD, NEW = "ultraengine:1", "ultraengine:2"
WHOLE: dict[str, Any] = {
    "shards": 3,
    "query": {"replicas": 1, "targetSecretName": "reader"},
    "projections": [{"name": "books", "targetSecretName": "writer"}],
}


def refusing(shard: int, *, offset: int = 17) -> Any:
    """A judge to whom one shard's log comes out differently."""

    def judge(pod: Content) -> Verdict | None:
        if int(pod["metadata"]["labels"][names.SHARD]) != shard:
            return let_through(pod)
        return Verdict(
            verdict="refused", shard=shard, offset=offset, command_type="ledger.post@1",
            may_return=True,
        )  # fmt: skip

    return judge


def images(cluster: MemoryCluster) -> dict[str, str]:
    """The image of every template and pod but candidates', by kind and name."""
    found = {}
    for key, one in cluster.objects.items():
        if key[0] in ("StatefulSet", "Deployment"):
            found[f"{key[0]} {key[2]}"] = one["spec"]["template"]["spec"]["containers"][0]["image"]
    return found


def candidates(cluster: MemoryCluster) -> list[str]:
    return sorted(key[2] for key in cluster.objects if key[0] == "Pod" and "candidate" in key[2])


def pods(cluster: MemoryCluster) -> dict[str, tuple[str, str]]:
    """Uid and revision of each shard's pod."""
    return {
        key[2]: (one["metadata"]["uid"], one["metadata"]["labels"]["controller-revision-hash"])
        for key, one in cluster.objects.items()
        if key[0] == "Pod" and "candidate" not in key[2]
    }


def status(cluster: MemoryCluster) -> Content:
    found: Content = cluster.objects["UltraEngine", "default", "shop"]["status"]
    return found


def message(cluster: MemoryCluster, kind: str) -> str:
    found = {one["type"]: one["message"] for one in status(cluster)["conditions"]}
    return str(found[kind])


async def made(spec: Mapping[str, Any] = WHOLE, **options: Any) -> tuple[MemoryCluster, Loop]:
    """An engine with the old image, and an operator."""
    cluster = MemoryCluster()
    loop = operator(cluster, **options)
    await engine(cluster, **spec)
    await settle(cluster, loop)
    assert conditions(cluster)["Ready"] == ("True", "AsWished")
    return cluster, loop


async def turn(cluster: MemoryCluster, loop: Loop) -> None:
    await loop.relist()
    await loop.reconcile(KEY)
    cluster.controllers()


async def test_gateways_go_first_then_reads_then_shard_by_shard_behind_its_candidate() -> None:
    cluster, loop = await made()
    await engine(cluster, **WHOLE, image=NEW)
    order: list[str] = []
    for _ in range(40):
        before = images(cluster)
        await turn(cluster, loop)
        now = images(cluster)
        assert len(candidates(cluster)) <= 1
        order += sorted(name for name in now if now[name] != before[name])
    assert order == [
        "Deployment shop-gateway",
        "Deployment shop-projection-books", "Deployment shop-query",
        "StatefulSet shop-shard-0", "StatefulSet shop-shard-1", "StatefulSet shop-shard-2",
    ]  # fmt: skip
    assert conditions(cluster)["Ready"] == ("True", "AsWished")
    assert candidates(cluster) == []
    assert "upgrade" not in status(cluster)
    kept = cluster.objects["StatefulSet", "default", "shop-shard-1"]["metadata"]["annotations"]
    proof = msgspec.json.decode(kept[names.PROOF], type=Proof)
    assert proof == Proof(
        image=NEW, came_from=OLD, offset="41", compared="9", state_hash="cafe", may_return=True
    )


async def test_a_gateway_that_is_not_ready_holds_reads_and_shards() -> None:
    cluster, loop = await made()
    await engine(cluster, **WHOLE, image=NEW)
    for _ in range(6):
        await loop.relist()
        await loop.reconcile(KEY)
        cluster.controllers()
        gateway = cluster.objects["Deployment", "default", "shop-gateway"]
        gateway["status"].update(updatedReplicas=1, availableReplicas=2)
    assert {name for name, image in images(cluster).items() if image == NEW} == {
        "Deployment shop-gateway"
    }
    assert conditions(cluster)["Ready"] == ("False", "Upgrading")
    assert "gateways first: 1 of 2" in message(cluster, "Ready")
    assert status(cluster)["upgrade"] == {
        "image": NEW, "stage": "Gateways", "shardsDone": 0, "shardsTotal": 3, "progress": "0/3",
    }  # fmt: skip


async def test_the_first_candidate_that_differs_holds_everything_and_its_offset_is_told() -> None:
    cluster, loop = await made()
    cluster.judge = refusing(1)
    await engine(cluster, **WHOLE, image=NEW)
    await settle(cluster, loop)
    assert conditions(cluster)["Stalled"] == ("True", "CandidateDiffers")
    assert "shard 1" in message(cluster, "Stalled")
    assert "offset 17 (ledger.post@1)" in message(cluster, "Stalled")
    assert conditions(cluster)["Available"] == ("True", "Serving")
    now = images(cluster)
    assert [now[f"StatefulSet shop-shard-{one}"] for one in range(3)] == [NEW, OLD, OLD]
    assert candidates(cluster) == ["shop-candidate-1"], "it is kept to be read"
    found = status(cluster)["upgrade"]
    assert (found["progress"], found["shard"], found["firstDifference"]) == ("1/3", 1, "17")
    before = pods(cluster)
    await engine(cluster, **WHOLE)
    await settle(cluster, loop)
    assert conditions(cluster) == {
        "Ready": ("True", "AsWished"), "Available": ("True", "Serving")
    }  # fmt: skip
    assert set(images(cluster).values()) == {OLD}
    assert candidates(cluster) == []
    assert [name for name, pod in pods(cluster).items() if pod != before[name]] == [
        "shop-shard-0-0"
    ]


async def test_going_back_needs_no_candidate_and_going_there_again_needs_another() -> None:
    cluster, loop = await made()
    await engine(cluster, **WHOLE, image=NEW)
    await settle(cluster, loop)
    asked: list[str] = []
    cluster.judge = lambda pod: asked.append(pod["metadata"]["name"])
    await engine(cluster, **WHOLE)
    await settle(cluster, loop)
    assert conditions(cluster)["Ready"] == ("True", "AsWished")
    assert asked == []
    await engine(cluster, **WHOLE, image=NEW)
    await settle(cluster, loop)
    assert set(asked) == {"shop-candidate-0"}
    assert images(cluster)["StatefulSet shop-shard-0"] == OLD


async def test_going_back_behind_another_format_is_decided_by_a_candidate() -> None:
    cluster, loop = await made()
    cluster.judge = lambda pod: msgspec.structs.replace(
        let_through(pod) or Verdict(verdict="ok", shard=0), may_return=False
    )
    await engine(cluster, **WHOLE, image=NEW)
    await settle(cluster, loop)
    assert set(images(cluster).values()) == {NEW}
    cluster.judge = refusing(0)
    await engine(cluster, **WHOLE)
    await settle(cluster, loop)
    assert conditions(cluster)["Stalled"] == ("True", "CandidateDiffers")
    assert images(cluster)["StatefulSet shop-shard-0"] == NEW


async def test_a_pod_that_restarts_for_another_reason_has_the_image_that_was_proved() -> None:
    cluster, loop = await made()
    cluster.judge = lambda _pod: None
    await engine(cluster, **WHOLE, image=NEW)
    await settle(cluster, loop)
    for number in range(3):
        await cluster.delete(KINDS["Pod"], "default", f"shop-shard-{number}-0", uid=None)
    await settle(cluster, loop)
    template = images(cluster)
    assert {template[f"StatefulSet shop-shard-{one}"] for one in range(3)} == {OLD}
    assert "its candidate is Pending" in message(cluster, "Ready")
    # A set that somebody has deleted is made as the others are.
    await cluster.delete(KINDS["StatefulSet"], "default", "shop-shard-2", uid=None)
    await settle(cluster, loop)
    assert images(cluster)["StatefulSet shop-shard-2"] == OLD


async def test_a_person_may_accept_that_an_image_decides_differently() -> None:
    cluster, loop = await made()
    cluster.judge = refusing(1)
    await engine(cluster, **WHOLE, image=NEW)
    await settle(cluster, loop)
    asked = {"metadata": {"annotations": {names.ACCEPT: "ultraengine:3"}}}
    await cluster.merge(KINDS["UltraEngine"], "default", "shop", asked)
    await settle(cluster, loop)
    assert conditions(cluster)["Stalled"] == ("True", "CandidateDiffers"), "it names another image"
    asked["metadata"]["annotations"][names.ACCEPT] = NEW
    await cluster.merge(KINDS["UltraEngine"], "default", "shop", asked)
    await settle(cluster, loop)
    assert set(images(cluster).values()) == {NEW}
    kept = cluster.objects["StatefulSet", "default", "shop-shard-1"]["metadata"]["annotations"]
    assert msgspec.json.decode(kept[names.PROOF], type=Proof).accepted


async def test_a_candidate_without_a_verdict_is_told_and_asked_again_after_a_minute() -> None:
    cluster, loop = await made()
    cluster.judge = lambda pod: Verdict(verdict="unproved", shard=0, detail="nobody answers")
    await engine(cluster, **WHOLE, image=NEW)
    await settle(cluster, loop)
    assert conditions(cluster)["Stalled"] == ("True", "CandidateFailed")
    assert "nobody answers" in message(cluster, "Stalled")
    first = cluster.objects["Pod", "default", "shop-candidate-0"]["metadata"]["uid"]
    await loop.relist()
    assert await loop.reconcile(KEY) == pytest.approx(61.0)
    cluster.now = "2026-01-01T00:02:00Z"
    cluster.judge = let_through
    await settle(cluster, loop)
    assert conditions(cluster)["Ready"] == ("True", "AsWished")
    assert ("Pod", "default", "shop-candidate-0") not in cluster.objects
    assert first


async def test_a_person_may_accept_an_image_of_which_nothing_is_known() -> None:
    cluster, loop = await made()
    cluster.judge = lambda pod: Verdict(verdict="unproved", shard=0, detail="404")
    await engine(cluster, **WHOLE, image=NEW)
    await settle(cluster, loop)
    assert images(cluster)["StatefulSet shop-shard-0"] == OLD
    asked = {"metadata": {"annotations": {names.ACCEPT: NEW}}}
    await cluster.merge(KINDS["UltraEngine"], "default", "shop", asked)
    await settle(cluster, loop)
    assert set(images(cluster).values()) == {NEW}


async def test_what_kubernetes_says_of_an_end_without_a_verdict_is_told() -> None:
    cluster, loop = await made()
    cluster.judge = lambda _pod: None
    await engine(cluster, **WHOLE, image=NEW)
    await settle(cluster, loop)
    pod = msgspec.json.decode(
        msgspec.json.encode(cluster.objects["Pod", "default", "shop-candidate-0"])
    )
    end = {"exitCode": 137, "reason": "OOMKilled", "finishedAt": cluster.now}
    pod["status"] = {"phase": "Failed", "containerStatuses": [{"state": {"terminated": end}}]}
    cluster._store(pod)
    await settle(cluster, loop)
    assert conditions(cluster)["Stalled"] == ("True", "CandidateFailed")
    assert "exit code 137, OOMKilled" in message(cluster, "Stalled")


async def test_another_wish_is_another_question() -> None:
    cluster, loop = await made()
    cluster.judge = lambda _pod: None
    await engine(cluster, **WHOLE, image=NEW)
    await settle(cluster, loop)
    first = cluster.objects["Pod", "default", "shop-candidate-0"]
    await engine(
        cluster, **WHOLE, image=NEW, settings=[{"name": "ULTRA_COMPRESS", "value": "true"}]
    )
    await settle(cluster, loop)
    second = cluster.objects["Pod", "default", "shop-candidate-0"]
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    told = {one["name"]: one["value"] for one in second["spec"]["containers"][0]["env"]}
    assert told["ULTRA_COMPRESS"] == "true"
    # The shards that run do not get the setting before the image that goes with it.
    env = cluster.objects["StatefulSet", "default", "shop-shard-0"]["spec"]["template"]["spec"]
    assert "ULTRA_COMPRESS" not in str(env)


async def test_a_shard_that_nobody_serves_is_waited_for() -> None:
    cluster, loop = await made()
    changed = msgspec.json.decode(
        msgspec.json.encode(cluster.objects["Pod", "default", "shop-shard-0-0"])
    )
    changed["status"]["conditions"][0]["status"] = "False"
    cluster._store(changed)
    await engine(cluster, **WHOLE, image=NEW)
    await settle(cluster, loop)
    assert "shop-candidate-0" not in candidates(cluster)
    assert images(cluster)["StatefulSet shop-shard-0"] == OLD


async def test_as_many_shards_as_are_allowed_are_under_way_at_once() -> None:
    cluster = MemoryCluster()
    loop = operator(cluster)
    loop._settings = Settings(shards_changing_max=2)
    await engine(cluster, **WHOLE)
    await settle(cluster, loop)
    before = set(pods(cluster))
    await engine(cluster, **WHOLE, image=NEW)
    most = away = 0
    for _ in range(30):
        await loop.relist()
        await loop.reconcile(KEY)
        most = max(most, len(candidates(cluster)))
        away = max(away, len(before - set(pods(cluster))))
        cluster.controllers()
    assert (most, away) == (2, 2)
    assert conditions(cluster)["Ready"] == ("True", "AsWished")


@pytest.mark.parametrize("refused", [None, 1])
async def test_an_operator_that_ends_at_any_write_is_followed_by_one_that_gets_there(
    refused: int | None,
) -> None:
    few: dict[str, Any] = {"shards": 2}

    async def upgraded(stop_at: int) -> tuple[dict[str, str], dict[str, tuple[str, str]], int]:
        cluster, loop = await made(few)
        if refused is not None:
            cluster.judge = refusing(refused)
        count = 0

        def stop() -> None:
            nonlocal count
            count += 1
            if count == stop_at:
                raise Refused(500, "the operator ended")

        cluster.before_write = stop
        await engine(cluster, **few, image=NEW)
        for _ in range(3):
            try:
                await settle(cluster, loop)
            except Refused:
                loop = operator(cluster)
        revisions = {name: pod[1] for name, pod in pods(cluster).items()}
        told = conditions(cluster)
        return images(cluster), {**told, "pods": (str(revisions), "")}, count

    whole, told, writes = await upgraded(0)
    assert writes > 12
    for number in range(2, writes):
        assert (await upgraded(number))[:2] == (whole, told), number


def test_a_plan_does_not_depend_on_the_order_in_which_objects_are_seen() -> None:
    told = engine_of(
        {
            "metadata": {"name": "shop", "namespace": "default", "uid": "u1"},
            "spec": {**WHOLE, "image": NEW},
        }
    )
    world = _world(told)
    expected = _planned(told, observed_of(world))
    creates = [one for one in expected.actions if isinstance(one, Create)]
    assert [one.manifest["metadata"]["name"] for one in creates if one.manifest["kind"] == "Pod"]
    for seed in range(20):
        items = list(world.items())
        random.Random(seed).shuffle(items)
        assert _planned(told, observed_of(dict(items))) == expected


def test_what_no_question_is_asked_of_any_more_is_removed_and_nothing_else() -> None:
    told = engine_of(
        {
            "metadata": {"name": "shop", "namespace": "default", "uid": "u1"},
            "spec": {**WHOLE, "image": OLD},
        }
    )
    world = _world(told)
    world[Ref("Pod", "shop-candidate-2")] = _candidate(told, 2)
    made = _planned(told, observed_of(world))
    deleted = [one.ref.name for one in made.actions if isinstance(one, Delete)]
    assert deleted == ["shop-candidate-2"]
    assert not any(isinstance(one, RestartPod) for one in made.actions)
    assert not made.upgrade.message


def _planned(told: Any, observed: Observed) -> Plan:
    return plan(
        told, observed, settled={}, fleet=Fleet({"default/shop": Standing.QUIET}),
        settings=Settings(), now_s=0.0,
    )  # fmt: skip


def _view(told: Any, image: str) -> Any:
    from ultraengine_operator.plan import view_of  # noqa: PLC0415

    view, _ = view_of(told, Observed(), Settings())
    return msgspec.structs.replace(view, image=image)


def _candidate(told: Any, shard: int) -> Content:
    made = question(_view(told, NEW), shard, 60.0)
    made["metadata"].update(uid=f"c{shard}", resourceVersion="1", creationTimestamp="t")
    made["status"] = {"phase": "Running"}
    return made


def _world(told: Any) -> dict[Ref, Content]:
    """Everything of an engine with the old image; gateways and reads have the new one."""
    new = {"Deployment": NEW if told.spec.image == NEW else OLD}
    world: dict[Ref, Content] = {}
    for image in (OLD, new["Deployment"]):
        for one in render(_view(told, image)):
            if image == OLD or one["kind"] == "Deployment":
                one["metadata"].update(
                    resourceVersion="1", generation=1, uid=one["metadata"]["name"]
                )
                world[Ref(one["kind"], one["metadata"]["name"])] = one
    for ref, one in list(world.items()):
        if ref.kind == "Deployment":
            one["status"] = {"observedGeneration": 1, "updatedReplicas": 9, "availableReplicas": 9}
        if ref.kind == "StatefulSet":
            one["status"] = {"observedGeneration": 1, "updateRevision": "r"}
            labels = {**one["spec"]["template"]["metadata"]["labels"],
                      "controller-revision-hash": "r"}  # fmt: skip
            world[Ref("Pod", f"{ref.name}-0")] = {
                "kind": "Pod",
                "metadata": {"name": f"{ref.name}-0", "uid": f"{ref.name}-0", "labels": labels},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            }
    return world


def test_a_held_child_is_not_applied() -> None:
    told = engine_of(
        {
            "metadata": {"name": "shop", "namespace": "default", "uid": "u1"},
            "spec": {**WHOLE, "image": NEW},
        }
    )
    made = _planned(told, observed_of(_world(told)))
    applied = {one.manifest["kind"] for one in made.actions if isinstance(one, Apply)}
    assert "StatefulSet" not in applied
    assert "Deployment" in applied
