"""What is done to one container or one node of the lab, and undone at the end of each block."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.e2e.cluster.cluster import Namespace, run, until
from tests.e2e.cluster.faults import SYSTEM, container_id, operator_leads


def in_node(node: str, *command: str) -> str:
    """Run something on a node."""
    return run("docker", "exec", node, *command)


def processes(pod: dict[str, Any]) -> list[str]:
    """The processes of the pod's first container, as its node numbers them."""
    listed = in_node(
        pod["spec"]["nodeName"], "ctr", "-n", "k8s.io", "tasks", "ps", container_id(pod)
    )
    return [line.split()[0] for line in listed.splitlines()[1:]]


@contextmanager
def stopped(pod: dict[str, Any]) -> Iterator[None]:
    """SIGSTOP: nothing answers, and all connections stay."""
    node, found = pod["spec"]["nodeName"], processes(pod)
    in_node(node, "kill", "-STOP", *found)
    try:
        yield
    finally:
        in_node(node, "kill", "-CONT", *found)


def slow(pod: dict[str, Any], seconds: float) -> None:
    """Let it run for a fifth of the time."""
    found = " ".join(processes(pod))
    rounds = round(seconds / 0.25)
    in_node(
        pod["spec"]["nodeName"], "sh", "-c",
        f"for i in $(seq {rounds}); do"
        f" kill -STOP {found}; sleep 0.2; kill -CONT {found}; sleep 0.05; done",
    )  # fmt: skip


@contextmanager
def frozen(node: str) -> Iterator[None]:
    """All processes of a node stand still, its kubelet's too."""
    run("docker", "pause", node)
    try:
        yield
    finally:
        run("docker", "unpause", node)


@contextmanager
def cut_off(node: str, *, sends: bool = False, hears: bool = False) -> Iterator[None]:
    """The node's processes and pods run on, and no packet leaves or reaches it, or one of both."""
    rules = [
        *([] if sends else [("OUTPUT", "-o"), ("FORWARD", "-o")]),
        *([] if hears else [("INPUT", "-i"), ("FORWARD", "-i")]),
    ]

    def change(how: str) -> None:
        lines = [f"iptables -w {how} {chain} {way} eth0 -j DROP" for chain, way in rules]
        in_node(node, "sh", "-ec", "; ".join(lines))

    change("-I")
    try:
        yield
    finally:
        change("-D")


@contextmanager
def no_operator() -> Iterator[None]:
    """No operator runs."""
    system = Namespace(SYSTEM)
    deployment = "deployment/ultraengine-operator"
    count = system.kubectl("get", deployment, "--output=jsonpath={.spec.replicas}")
    system.kubectl("scale", deployment, "--replicas=0")
    try:
        yield
    finally:
        system.kubectl("scale", deployment, f"--replicas={count}")
        until("an operator leads", operator_leads)


def corrupt(pod: dict[str, Any], volume: str) -> None:
    """Change bytes within the pod's log, on its volume."""
    place = Namespace("default").kubectl(
        "get",
        "persistentvolume",
        volume,
        "--output=jsonpath={.spec.hostPath.path}{.spec.local.path}",
    )
    # The oldest segment, behind its first frames.
    program = (
        'file=$(ls "$1"/shard-0000/log/seg-*.log | head -1);'
        " printf '\\252\\125' | dd of=\"$file\" bs=1 seek=20000 conv=notrunc status=none"
    )
    in_node(pod["spec"]["nodeName"], "sh", "-ec", program, "sh", place)


def has_refused(now: dict[str, Any] | None, before: dict[str, Any]) -> bool:
    """Whether a pod's process, killed once since, has ended by itself or says that it is not
    well: with code 137 it was killed."""
    if now is None or now["metadata"]["uid"] != before["metadata"]["uid"]:
        return False
    state = now["status"]["containerStatuses"][0]
    ended = state.get("lastState", {}).get("terminated", {}) or state["state"].get("terminated", {})
    return not state["ready"] and ended.get("exitCode", 137) != 137
