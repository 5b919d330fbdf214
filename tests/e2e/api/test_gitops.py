"""What tools that apply from a repository say about our objects, by their own libraries.

`hack/lab/lab gitops` builds one program from the modules of Flux (kstatus) and of Argo CD (health
and diff); it is asked about objects as the API server has them. Without it these are skipped.
"""

import asyncio
import json
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.api.controllers import APPS, CORE, Controllers
from tests.e2e.api.operators import ENGINES, connected
from tests.e2e.api.whole import ENGINE_SPEC
from tests.servers.crds import ROOT
from tests.servers.kubernetes import APPLY, ApiServer, kubelab
from tests.unit.operator.backed import LOCATION, MemoryShards
from tests.unit.operator.memory import SilentShards

from ultraengine_operator import names
from ultraengine_operator.drivers.backups import Backups
from ultraengine_operator.drivers.kubernetes import KubernetesCluster
from ultraengine_operator.drivers.loop import Loop
from ultraengine_operator.plan import Settings

HEALTH = (ROOT / "manifests/argocd/health.lua").read_text()
ROUNDS_MAX = 60
ARGO, FLUX = "argocd-controller", "kustomize-controller"
ONE = {"image": "ultraengine:1", "shards": 1, "replicasPerShard": 1}
SNAPSHOTS = "/apis/ultraengine.io/v1alpha1/namespaces/default/snapshots"
MERGE = "application/merge-patch+json"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"


def program() -> Path:
    """The judge, beside the lab's Kubernetes."""
    return kubelab().with_name("gitops")


class World:
    """A real API server, an operator in this process, and what others say about its engine."""

    def __init__(self, server: ApiServer, cluster: KubernetesCluster) -> None:
        self.server = server
        self.shards = MemoryShards()
        self.backups = Backups(self.shards, lambda _key: None)
        self.loop = Loop(cluster, SilentShards(), Settings(), backups=self.backups)
        self.name = f"git-{uuid.uuid4().hex[:8]}"

    @property
    def live(self) -> dict[str, Any]:
        """The object as it is stored."""
        return self.server.request("GET", f"{ENGINES}/{self.name}").body

    def wanted(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The object as a repository has it."""
        return {
            "apiVersion": "ultraengine.io/v1alpha1", "kind": "UltraEngine",
            "metadata": {"name": self.name, "namespace": "default"}, "spec": spec,
        }  # fmt: skip

    def apply(self, spec: dict[str, Any], manager: str = ARGO, **query: str) -> dict[str, Any]:
        """Server-side apply as these tools do it, forced."""
        answer = self.server.request(
            "PATCH", f"{ENGINES}/{self.name}", self.wanted(spec), content_type=APPLY,
            fieldManager=manager, force="true", **query,
        )  # fmt: skip
        assert answer.status in (200, 201), answer.message
        return answer.body

    def told(self, **question: Any) -> dict[str, Any]:
        """What the libraries say."""
        asked = {"live": self.live, "health": HEALTH, **question}
        done = subprocess.run(
            [program()], input=json.dumps(asked), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def stands(self, live: dict[str, Any] | None = None) -> tuple[str, str]:
        """Flux's word and Argo CD's: about the engine, or about another object."""
        found = self.told() if live is None else self.told(live=live)
        return found["kstatus"], found["health"]["status"]

    def merge(self, path: str, content: dict[str, Any]) -> None:
        """What a person or a controller writes into an object."""
        answer = self.server.request("PATCH", path, content, content_type=MERGE)
        assert answer.status == 200, answer.message

    @property
    def snapshot(self) -> dict[str, Any]:
        """The Snapshot that was asked for, as it is stored."""
        return self.server.request("GET", f"{SNAPSHOTS}/{self.name}").body

    def ask(self) -> None:
        """Ask for a Snapshot of the engine."""
        content = {"apiVersion": "ultraengine.io/v1alpha1", "kind": "Snapshot",
                   "metadata": {"name": self.name}, "spec": {"engine": self.name}}  # fmt: skip
        answer = self.server.request("POST", SNAPSHOTS, content)
        assert answer.status == 201, answer.message

    async def round(self) -> None:
        """The operator looks, then the controllers of the cluster."""
        await self.loop.relist()
        await self.loop.reconcile(("default", self.name))
        await asyncio.to_thread(Controllers(self.server).step)

    async def until(self, kind: str, stands: tuple[str, str]) -> None:
        """Rounds until the newest generation has a condition."""
        await self._until(lambda: self.live, kind, stands)

    async def until_answered(self, kind: str, stands: tuple[str, str]) -> None:
        """The same of the Snapshot."""
        await self._until(lambda: self.snapshot, kind, stands)

    async def _until(
        self, look: Callable[[], dict[str, Any]], kind: str, stands: tuple[str, str]
    ) -> None:
        for _ in range(ROUNDS_MAX):
            await self.round()
            live = look()
            held = {one["type"]: one for one in live["status"].get("conditions", ())}
            said = (held[kind]["status"], held[kind]["reason"]) if kind in held else None
            is_new = live["status"]["observedGeneration"] == live["metadata"]["generation"]
            if is_new and said == stands:
                return
        raise AssertionError(f"not within {ROUNDS_MAX} rounds: {held}")

    async def until_ready(self) -> None:
        await self.until("Ready", ("True", "AsWished"))


@pytest.fixture
async def world(api_server: ApiServer) -> AsyncIterator[World]:
    if not program().exists():
        pytest.skip(f"{program()} is missing: hack/lab/lab gitops builds it")
    async with connected(api_server) as cluster:
        world = World(api_server, cluster)
        yield world
        await world.backups.close()
        api_server.request("DELETE", f"{SNAPSHOTS}/{world.name}")
        api_server.request("DELETE", f"{ENGINES}/{world.name}")
        await world.loop.relist()
        await world.loop.reconcile(("default", world.name))
        api_server.kubectl("delete", "all,pvc,ingress", "-l", f"{names.ENGINE}={world.name}",
                           "--force", "--grace-period=0", "--wait=false")  # fmt: skip


async def test_line_18_19_flux_and_argo_say_what_is_promised_from_apply_to_delete(
    world: World,
) -> None:
    world.apply(ONE)
    # Before any operator has seen it: without a status kstatus would call it Current.
    assert world.stands() == ("InProgress", "Progressing")
    await world.round()
    assert world.stands() == ("InProgress", "Progressing")
    await world.until_ready()
    assert world.stands() == ("Current", "Healthy")

    world.apply({**ONE, "gateway": {"replicas": 3}})
    assert world.stands() == ("InProgress", "Progressing")
    await world.until_ready()
    assert world.stands() == ("Current", "Healthy")

    paused = {**ONE, "gateway": {"replicas": 3}, "reconciliation": "Paused"}
    world.apply(paused)
    await world.until("Paused", ("True", "PausedBySpec"))
    assert world.stands() == ("Current", "Suspended")
    world.apply({**ONE, "gateway": {"replicas": 4}, "reconciliation": "Plan"})
    await world.until("Ready", ("False", "PlanOnly"))
    assert world.stands() == ("InProgress", "Suspended")

    assert world.server.request("DELETE", f"{ENGINES}/{world.name}").status == 200
    assert world.stands() == ("Terminating", "Progressing")


async def test_line_18_19_an_engine_that_needs_somebody_is_failed_and_degraded(
    world: World,
) -> None:
    without_image = {key: value for key, value in ONE.items() if key != "image"}
    world.apply(without_image)
    await world.until("Stalled", ("True", "ImageMissing"))
    assert world.stands() == ("Failed", "Degraded")
    world.apply(ONE)
    await world.until_ready()
    assert world.stands() == ("Current", "Healthy")


async def test_line_18_19_a_pod_that_is_away_is_in_progress_also_while_the_engine_is_paused(
    world: World,
) -> None:
    def pod_is(ready: str) -> None:
        status = {"status": {"conditions": [{"type": "Ready", "status": ready}]}}
        world.merge(f"{CORE}/pods/{world.name}-shard-0-0/status", status)

    world.apply(ONE)
    await world.until_ready()
    pod_is("False")
    await world.until("Ready", ("False", "ShardsNotReady"))
    assert world.stands() == ("InProgress", "Progressing")
    world.apply({**ONE, "reconciliation": "Paused"})
    await world.until("Ready", ("False", "ShardsNotReady"))
    assert world.stands() == ("InProgress", "Suspended")
    pod_is("True")
    await world.until("Ready", ("True", "AsWished"))
    assert world.stands() == ("Current", "Suspended")


async def test_line_18_19_a_snapshot_is_current_once_it_is_answered_and_failed_while_it_cannot_be(
    world: World,
) -> None:
    world.ask()
    assert world.stands(world.snapshot) == ("InProgress", "Progressing")
    await world.until_answered("Stalled", ("True", "EngineNotFound"))
    assert world.stands(world.snapshot) == ("Failed", "Degraded")
    world.shards.open.clear()
    world.apply({**ONE, "backup": {"location": LOCATION}})
    await world.until_answered("Reconciling", ("True", "BackingUp"))
    assert world.stands(world.snapshot) == ("InProgress", "Progressing")
    world.shards.open.set()
    await world.until_answered("Ready", ("True", "BackedUp"))
    assert world.stands(world.snapshot) == ("Current", "Healthy")


async def test_line_23_drift_of_children_is_repaired_or_told_and_labels_of_others_stay(
    world: World,
) -> None:
    world.apply(ONE)
    await world.until_ready()
    gateway = f"{APPS}/deployments/{world.name}-gateway"
    service = f"{CORE}/services/{world.name}-gateway"
    world.merge(gateway, {"metadata": {"labels": {"team": "till"}}})
    assert world.server.request("DELETE", service).status == 200
    await world.until_ready()
    assert world.server.request("GET", service).status == 200
    assert world.server.request("GET", gateway).body["metadata"]["labels"]["team"] == "till"

    # Who writes another value owns the field: it is told, and nobody fights for it.
    world.merge(gateway, {"spec": {"strategy": {"rollingUpdate": {"maxSurge": 5}}}})
    await world.until("Stalled", ("True", "ApplyRefused"))
    assert world.stands() == ("Failed", "Degraded")
    surge = world.server.request("GET", gateway).body["spec"]["strategy"]["rollingUpdate"]
    assert surge["maxSurge"] == 5
    world.merge(gateway, {"spec": {"strategy": {"rollingUpdate": {"maxSurge": 1}}}})
    await world.until_ready()
    assert world.stands() == ("Current", "Healthy")


# No pod is taken for a PriorityClass that does not exist, and nobody answers for databases.
WHOLE = {
    **{key: value for key, value in ENGINE_SPEC.items() if key not in ("projections", "query")},
    "shards": 1, "replicasPerShard": 1,
    "scheduling": {
        key: value
        for key, value in ENGINE_SPEC["scheduling"].items() if key != "priorityClassName"
    },
}  # fmt: skip


@pytest.mark.parametrize("spec", [ONE, WHOLE], ids=["smallest", "whole"])
async def test_line_10_a_ready_engine_differs_from_its_repository_for_no_tool(
    world: World, spec: dict[str, Any]
) -> None:
    world.apply(spec)
    world.apply(spec, FLUX)
    await world.until_ready()
    before = world.live["metadata"]["generation"]
    wanted = world.wanted(spec)
    assert world.told(wanted=wanted)["diff"] is False
    for manager in (ARGO, FLUX):
        predicted = world.apply(spec, manager, dryRun="All")
        assert world.told(wanted=wanted, predicted=predicted)["diff"] is False
        assert predicted["metadata"]["generation"] == before
    other = {**spec, "gateway": {**spec.get("gateway", {}), "replicas": 9}}
    predicted = world.apply(other, dryRun="All")
    assert world.told(wanted=world.wanted(other))["diff"] is True
    assert world.told(wanted=world.wanted(other), predicted=predicted)["diff"] is True


async def test_line_10_three_way_apply_shows_drift_prunes_a_field_and_settles(
    world: World,
) -> None:
    def kubectl(spec: dict[str, Any]) -> str:
        text = json.dumps(world.wanted(spec))
        return world.server.kubectl("apply", "--server-side=false", "-f", "-", stdin=text)

    full = {**ONE, "snapshots": {"kept": 3}, "scheduling": {"nodeSelector": {"disk": "nvme"}}}
    kubectl(full)
    await world.until_ready()
    assert world.told(wanted=world.wanted(full))["diff"] is False
    assert "unchanged" in kubectl(full)

    drift = {"spec": {"snapshots": {"kept": 9}}}
    world.merge(f"{ENGINES}/{world.name}", drift)
    assert world.told(wanted=world.wanted(full))["diff"] is True
    kubectl(full)
    assert world.told(wanted=world.wanted(full))["diff"] is False

    less = {key: value for key, value in full.items() if key != "scheduling"}
    assert world.told(wanted=world.wanted(less))["diff"] is True
    kubectl(less)
    assert "scheduling" not in world.live["spec"]
    await world.until_ready()
    assert world.told(wanted=world.wanted(less))["diff"] is False
    assert "unchanged" in kubectl(less)


async def test_line_28_what_outlives_an_engine_is_not_pruned_by_an_application_of_its_name(
    world: World,
) -> None:
    # Argo CD may track by the label app.kubernetes.io/instance: what has it, and no owner, is
    # taken for a root of the application of that name, and is in no repository.
    world.apply({**ONE, "replicasPerShard": 3})
    await world.round()
    await world.round()
    own = f"{names.ENGINE}={world.name}"
    roots = [
        one
        for path in (f"{CORE}/configmaps", f"{CORE}/secrets", LEASES)
        for one in world.server.request("GET", path, labelSelector=own).body["items"]
        if not one["metadata"].get("ownerReferences")
    ]
    assert {one["metadata"]["name"] for one in roots} >= {
        f"{world.name}-shardmap", f"{world.name}-shard-0",
    }  # fmt: skip
    for one in roots:
        told = one["metadata"]["annotations"]
        assert told["argocd.argoproj.io/sync-options"] == "Prune=false"
        assert told["argocd.argoproj.io/compare-options"] == "IgnoreExtraneous"
