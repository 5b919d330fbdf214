"""What is done to a cluster, as its machines and people do it."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from tests.e2e.cluster.cluster import Namespace, run, until

CONTROL_PLANE: Final = "ultraengine-control-plane"
SYSTEM: Final = "ultraengine-system"
_MANIFEST: Final = "/etc/kubernetes/manifests/kube-apiserver.yaml"
_AWAY: Final = "/etc/kubernetes/kube-apiserver.yaml"


def kill_container(pod: dict[str, Any]) -> None:
    """SIGKILL to the first container's process."""
    node, name = pod["spec"]["nodeName"], container_id(pod)
    run("docker", "exec", node, "ctr", "-n", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", name)


def container_id(pod: dict[str, Any]) -> str:
    """The first container, as its node names it."""
    named: str = pod["status"]["containerStatuses"][0]["containerID"]
    return named.removeprefix("containerd://")


def restart_node(node: str) -> None:
    """The node's kubelet and all containers end at once, then start again from their disks."""
    run("docker", "kill", node)
    run("docker", "start", node)

    def back() -> bool:
        done = subprocess.run(
            ["docker", "exec", node, "systemctl", "is-active", "kubelet"],
            capture_output=True,
            check=False,
        )
        return done.returncode == 0

    until(f"kubelet of {node} active", back)


@contextmanager
def drained(namespace: Namespace, node: str, engine: str) -> Iterator[None]:
    """The node takes no pods, and the engine's are evicted from it, as a drain does it."""
    try:
        namespace.kubectl(
            "drain", node, f"--pod-selector=ultraengine.io/engine={engine}",
            "--delete-emptydir-data", "--ignore-daemonsets", "--timeout=180s",
        )  # fmt: skip
        yield
    finally:
        namespace.kubectl("uncordon", node)


@contextmanager
def no_api_server(namespace: Namespace) -> Iterator[None]:
    """The API server's process ends, and starts again afterwards."""

    def answers() -> bool:
        try:
            namespace.kubectl("get", "--raw", "/readyz", "--request-timeout=5s")
        except AssertionError:
            return False
        return True

    run("docker", "exec", CONTROL_PLANE, "mv", _MANIFEST, _AWAY)
    try:
        until("the API server is gone", lambda: not answers())
        yield
    finally:
        run("docker", "exec", CONTROL_PLANE, "mv", _AWAY, _MANIFEST)
        until("the API server answers", answers)
        _until_controllers_work()


def _until_controllers_work() -> None:
    """Kubernetes' own controllers have ended meanwhile, several times, and start ever later;
    a new kubelet knows nothing of that."""

    def renewals() -> dict[str, str]:
        text = Namespace("kube-system").kubectl("get", "leases", "--output=json")
        return {
            one["metadata"]["name"]: one["spec"]["renewTime"]
            for one in json.loads(text)["items"]
            if one["metadata"]["name"] in ("kube-controller-manager", "kube-scheduler")
        }

    before = renewals()
    run("docker", "exec", CONTROL_PLANE, "systemctl", "restart", "kubelet")
    until("controllers work", lambda: all(renewals()[one] != before[one] for one in before))


def operators() -> list[dict[str, Any]]:
    """The operator's pods."""
    system = Namespace(SYSTEM)
    label = "--selector=app.kubernetes.io/component=operator"
    found: list[dict[str, Any]] = json.loads(system.kubectl("get", "pods", label, "--output=json"))[
        "items"
    ]
    return found


def operator_leads(besides: frozenset[str] = frozenset()) -> bool:
    """Whether an operator other than those (names of pods) holds the election's Lease."""
    lease = Namespace(SYSTEM).get("lease", "ultraengine-operator")
    holder = lease["spec"].get("holderIdentity") if lease is not None else ""
    there = {one["metadata"]["name"] for one in operators()}
    return bool(holder) and holder in there and holder not in besides
