"""Files that are made of others are current, and dashboards and alerts ask for what exists."""

import json
import re
import runpy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from tests.servers.crds import ROOT
from tests.unit.replication.test_watching import report_of

from ultraengine.gateway.metrics import EdgeMetrics
from ultraengine.model.ids import ShardId
from ultraengine.projection import view
from ultraengine.projection.breaker import BreakerState
from ultraengine.replication.watching.metrics import ReplicaMetrics
from ultraengine.shard.metrics import ShardMetrics
from ultraengine_operator.cluster import KINDS, WATCHED

MANIFESTS = ROOT / "manifests"
NAME = re.compile(r"\bultra_[a-z_]+")
SAMPLES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
}


def samples() -> set[str]:
    """Names that a scrape of an engine, a gateway or a worker can hold."""
    registry = CollectorRegistry()
    families = [*EdgeMetrics().collect(), *ShardMetrics(registry, ShardId(0)).collect()]
    families += ReplicaMetrics(registry, 0, lambda: report_of(leads=True)).collect()
    families += view.metrics([])
    return {f"{one.name}{ending}" for one in families for ending in SAMPLES[one.type]}


def alerts() -> list[dict[str, Any]]:
    text = yaml.safe_load((MANIFESTS / "alerts" / "ultraengine.yaml").read_text())
    return [rule for group in text["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        (MANIFESTS / "dashboards" / "ultraengine.json").read_text()
    )["panels"]
    return found


def queries() -> Iterator[str]:
    yield from (one["expr"] for one in alerts())
    yield from (target["expr"] for panel in panels() for target in panel["targets"])


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_a_query_asks_for_metrics_that_exist(query: str) -> None:
    asked = set(NAME.findall(query))
    assert asked
    assert asked <= samples()


def test_every_alert_says_what_is_wrong_and_where_to_look() -> None:
    for one in alerts():
        assert one["labels"]["severity"] in {"critical", "warning"}
        for word in ("summary", "description"):
            assert re.match(r"[A-Z]", one["annotations"][word]), one
            assert one["annotations"][word].endswith("."), one
    assert len({one["alert"] for one in alerts()}) == len(alerts())


@pytest.mark.parametrize(
    "metric", ["ultra_projection_parked", "ultra_projection_breaker", "ultra_projection_lag_alert"]
)
def test_what_a_projection_lacks_is_alerted(metric: str) -> None:
    assert [one["alert"] for one in alerts() if metric in NAME.findall(one["expr"])]


def test_an_alert_of_a_breaker_is_about_states_that_there_are() -> None:
    (query,) = (one["expr"] for one in alerts() if "ultra_projection_breaker" in one["expr"])
    assert re.findall(r'state!?="(\w+)"', query) == [str(BreakerState.CLOSED)]


def test_panels_do_not_lie_on_each_other() -> None:
    places = {(one["gridPos"]["x"], one["gridPos"]["y"]) for one in panels()}
    assert len(places) == len(panels())


def test_metrics_that_no_alert_mentions_by_mistake_are_found() -> None:
    assert "ultra_serving" in samples()
    assert "ultra_commands" not in samples()


def test_the_one_file_install_is_what_the_base_makes() -> None:
    made = runpy.run_path(str(ROOT / "hack" / "manifests.py"))["install"]()
    assert (MANIFESTS / "install.yaml").read_text() == made, "run `make manifests`"


def test_the_page_of_fields_is_what_the_crds_make() -> None:
    made = runpy.run_path(str(ROOT / "hack" / "fields.py"))["page"]()
    assert (ROOT / "docs" / "kubernetes" / "fields.md").read_text() == made, "run `make docs`"


def test_both_roles_of_the_operator_allow_the_same() -> None:
    cluster, own = (
        next(yaml.safe_load_all((MANIFESTS / "rbac" / mode / "roles.yaml").read_text()))
        for mode in ("cluster", "namespaced")
    )
    assert (cluster["kind"], own["kind"]) == ("ClusterRole", "Role")
    assert cluster["rules"] == own["rules"]
    for rule in cluster["rules"]:
        assert "*" not in [*rule["resources"], *rule["verbs"], *rule["apiGroups"]]
        if "secrets" in rule["resources"]:
            assert rule["verbs"] == ["get", "create", "update"]


def test_the_operator_may_touch_in_all_namespaces_only_kinds_that_it_looks_at_or_makes() -> None:
    # Leases of replicated shards are among them: Kubernetes lets nobody give a permission that he
    # has not, and each shard's pods are given theirs. The namespaced installation bounds it.
    text = (MANIFESTS / "rbac" / "cluster" / "roles.yaml").read_text()
    rules = next(yaml.safe_load_all(text))["rules"]
    ours = {kind.plural for kind in (*WATCHED, KINDS["Secret"], KINDS["Event"])}
    ours |= {"ultraengines/status", "shards/status", "snapshots/status", "ultraengines/finalizers"}
    assert {one for rule in rules for one in rule["resources"]} == ours


def test_the_operator_runs_restricted() -> None:
    text = (MANIFESTS / "operator" / "deployment.yaml").read_text()
    deployment, budget = yaml.safe_load_all(text)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert deployment["spec"]["replicas"] == 2
    chosen = deployment["spec"]["template"]["metadata"]["labels"]
    assert budget["spec"]["selector"]["matchLabels"].items() <= chosen.items()


@pytest.mark.parametrize("file", ["operator", "engine-namespace"])
def test_every_namespace_that_we_make_is_restricted(file: str) -> None:
    found = yaml.safe_load((MANIFESTS / file / "namespace.yaml").read_text())
    labels = found["metadata"]["labels"]
    assert {
        labels[f"pod-security.kubernetes.io/{one}"] for one in ("enforce", "audit", "warn")
    } == {"restricted"}
