"""The NetworkPolicies allow what docs/kubernetes/network.md says, and nothing else."""

import re
from typing import Any, Final

import pytest
import yaml
from tests.servers.crds import ROOT
from tests.unit.manifests.reachability import Pod, Policy, reachable, selects

ENGINES: Final = "ultraengine"
SYSTEM: Final = "ultraengine-system"
PORTS: Final = (22, 53, 80, 443, 3306, 5432, 6443, 8080, 8081, 8082, 9090)


def pod(namespace: str, labels: dict[str, str], **of_namespace: str) -> Pod:
    names = {"kubernetes.io/metadata.name": namespace}
    return Pod(namespace, labels, {**names, **of_namespace})


def ours(component: str, namespace: str = ENGINES, **marks: str) -> Pod:
    more = {f"ultraengine.io/{name}": value for name, value in marks.items()}
    return pod(namespace, {"app.kubernetes.io/name": "ultraengine",
                           "app.kubernetes.io/component": component,
                           "ultraengine.io/engine": "whole", **more})  # fmt: skip


PODS: Final = {
    **{one: ours(one) for one in ("engine", "gateway", "query", "projection", "candidate")},
    "replica": ours("engine", replicated="true"),
    "keeper": ours("engine", **{"backed-up": "true"}),
    "operator": ours("operator", SYSTEM),
    # Calls itself an operator, and is not in the operator's namespace.
    "impostor": ours("operator", "elsewhere"),
    "client": pod(ENGINES, {"ultraengine.io/client": "allowed"}),
    "guest": Pod("ingress", {}, {"ultraengine.io/clients": "allowed"}),
    "monitoring": Pod("monitoring", {}, {"ultraengine.io/monitoring": "allowed"}),
    "stranger": pod(ENGINES, {}),
    "far-client": pod("elsewhere", {"ultraengine.io/client": "allowed"}),
    "dns": pod("kube-system", {"k8s-app": "kube-dns"}),
    "any": Pod(),
}
CLOSED: Final = {
    "engine", "replica", "keeper", "gateway", "query", "projection", "candidate", "operator",
}  # fmt: skip
"""Pods that policies select; what the others do among themselves is not ours."""


def policies() -> list[Policy]:
    found = []
    for file, namespace in (("network/engines.yaml", ENGINES), ("operator/network.yaml", SYSTEM)):
        for one in yaml.safe_load_all((ROOT / "manifests" / file).read_text()):
            one["metadata"].setdefault("namespace", namespace)
            found.append(one)
    return found


def wanted() -> set[tuple[str, str, int]]:
    text = (ROOT / "docs" / "kubernetes" / "network.md").read_text()
    table = text.split("<!-- reachable -->")[1].split("<!-- end -->")[0]
    rows = re.findall(r"^\| ([a-z-]+) \| ([a-z-]+) \| ([0-9, ]+) \|$", table, re.MULTILINE)
    return {(a, b, int(port)) for a, b, ports in rows for port in ports.split(",")}


def found(held: list[Policy]) -> set[tuple[str, str, int]]:
    return {
        (source, target, port)
        for source in PODS
        for target in PODS
        for port in PORTS
        if {source, target} & CLOSED and reachable(held, PODS[source], PODS[target], port)
    }


def opened_to_all(held: set[tuple[str, str, int]]) -> set[tuple[str, str, int]]:
    """Without what a port that is open to any address opens to pods outside as well."""
    to_any = {(source, port) for source, target, port in held if target == "any"}
    return {
        (source, target, port) for source, target, port in held
        if target == "any" or target in CLOSED or (source, port) not in to_any
    }  # fmt: skip


def test_what_passes_is_what_the_table_says() -> None:
    assert opened_to_all(found(policies())) == wanted()


@pytest.mark.parametrize("removed", range(len(policies())))
def test_without_any_one_of_the_policies_it_is_something_else(removed: int) -> None:
    held = policies()
    del held[removed]
    nothing_by_default = removed == 0
    # The first selects what the others select too, and whatever component comes later.
    assert (opened_to_all(found(held)) == wanted()) == nothing_by_default


def test_a_component_without_a_policy_of_its_own_is_closed() -> None:
    newcomer, given = ours("newcomer"), policies()
    assert not any(
        reachable(given, one, newcomer, port) or reachable(given, newcomer, one, port)
        for one in PODS.values() for port in PORTS
    )  # fmt: skip


@pytest.mark.parametrize(
    ("operator", "values", "held", "expected"),
    [
        ("In", ["a"], {"k": "a"}, True), ("In", ["a"], {}, False),
        ("NotIn", ["a"], {"k": "b"}, True), ("NotIn", ["a"], {"k": "a"}, False),
        ("Exists", [], {"k": ""}, True), ("Exists", [], {}, False),
        ("DoesNotExist", [], {}, True), ("DoesNotExist", [], {"k": "a"}, False),
    ],
)  # fmt: skip
def test_a_selector_chooses_as_kubernetes_does(
    operator: str, values: list[str], held: dict[str, str], expected: Any
) -> None:
    selector = {"matchExpressions": [{"key": "k", "operator": operator, "values": values}]}
    assert selects(selector, held) is expected
