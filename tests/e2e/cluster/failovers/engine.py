"""An engine of three copies on three nodes, and clients that pay in a pod beside it.

Gateways and clients run on the node of the control plane, which no fault touches: what they see of
a lost node is the shard's failover alone. Nothing cuts the logs, so that the whole history can be
read at the end.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from tests.e2e.cluster.cluster import Namespace, until
from tests.e2e.cluster.engines import Engine
from tests.e2e.cluster.failovers.histories import Frame, Journal, read_frames, read_journal
from tests.e2e.cluster.faults import CONTROL_PLANE
from tests.e2e.cluster.one_shard import IMAGE

NAME: Final = "trio"
SHARD: Final = f"{NAME}-shard-0"
COPIES: Final = 3
PODS: Final = [f"{SHARD}-{number}" for number in range(COPIES)]
PORT: Final = 30081
CLIENTS: Final = 8
RECORD: Final = "ultraengine.io/record"
LOOK_S: Final = 0.5
"""Between two looks at the cluster: kubectl takes a tenth of a second of a processor."""
WHOLE_S: Final = 600.0
"""A copy that led and leads no more ends; Kubernetes starts what ends often ever later, after five
minutes at last."""
PAYER: Final = "payer"
HERE: Final = Path(__file__).parent
TOLERATION: Final = {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}


class Seen:
    """The pods and the record of the shard at one moment."""

    def __init__(self, items: Sequence[dict[str, Any]]) -> None:
        self.pods = {
            one["metadata"]["name"]: one
            for one in items
            if one["kind"] == "Pod" and one["metadata"]["name"] in PODS
        }
        leases = [one for one in items if one["kind"] == "Lease"]
        self.lease: dict[str, Any] | None = leases[0] if leases else None
        text = "{}" if self.lease is None else self.lease["metadata"]["annotations"][RECORD]
        self.record: dict[str, Any] = json.loads(text)

    @property
    def epoch(self) -> int:
        """0 without a record."""
        return int(self.record.get("epoch", 0))

    @property
    def leader(self) -> dict[str, Any]:
        """The pod that leads."""
        return self.pods[f"{SHARD}-{self.record['holder']['seat']['replica']}"]

    @property
    def followers(self) -> list[dict[str, Any]]:
        """The others."""
        return [pod for pod in self.pods.values() if pod is not self.leader]

    @property
    def is_whole(self) -> bool:
        """Whether all copies count, and all pods say that they are ready."""
        states = [
            state
            for pod in self.pods.values()
            for state in pod["status"].get("containerStatuses", ())
            if state["ready"] and "deletionTimestamp" not in pod["metadata"]
        ]
        return len(states) == COPIES and len(self.record.get("isr", ())) == COPIES

    def __str__(self) -> str:
        isr = [seat["replica"] for seat in self.record.get("isr", ())]
        pods = {
            name: [
                (state["ready"], state["restartCount"], state["state"])
                for state in pod["status"].get("containerStatuses", ())
            ]
            for name, pod in self.pods.items()
        }
        return f"epoch {self.epoch}, in sync {isr}, {pods}"


class Trio(Engine):
    """The engine and its clients."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(
            namespace, NAME, shards=1, port=PORT, replicasPerShard=COPIES,
            snapshots={"commands": 0, "interval": "0s", "replayTime": "0s"},
            scheduling={"tolerations": [TOLERATION]},
        )  # fmt: skip

    def begin(self) -> None:
        """Apply all of it, and wait until clients pay."""
        self.apply()
        self.wait_ready()
        self._gather_gateways()
        self.namespace.apply(*_payer(self.namespace.name))
        self.namespace.wait_ready(PAYER)
        self.wait_whole()

    def _gather_gateways(self) -> None:
        """All gateways to the node that nothing happens to."""
        system, others = (
            self.namespace,
            [one for one in nodes(self.namespace) if one != CONTROL_PLANE],
        )
        label = f"--selector=ultraengine.io/engine={NAME},app.kubernetes.io/component=gateway"
        system.kubectl("cordon", *others)
        try:
            system.kubectl("delete", "pods", label)
            self.wait_ready()
        finally:
            system.kubectl("uncordon", *others)

    def look(self) -> Seen:
        """The shard now."""
        label = f"--selector=ultraengine.io/engine={NAME}"
        text = self.namespace.kubectl("get", "pods,leases", label, "--output=json")
        return Seen(json.loads(text)["items"])

    def wait_for_shard(self, what: str, holds: Callable[[Seen], bool]) -> Seen:
        """The shard once it is so."""
        found: list[Seen] = []

        def so() -> bool:
            found[:] = [self.look()]
            return holds(found[0])

        until(what, so, lambda: str(found[0]), every_s=LOOK_S, wait_s=WHOLE_S)
        return found[0]

    def wait_whole(self, epoch_min: int = 0) -> Seen:
        """Until every copy is in sync and ready, in two looks: nothing is about to be noticed."""
        while True:
            self.wait_for_shard(
                f"all copies are in sync, epoch {epoch_min} or later",
                lambda seen: seen.is_whole and seen.epoch >= epoch_min,
            )
            time.sleep(1.0)
            seen = self.look()
            if seen.is_whole and seen.epoch >= epoch_min:
                return seen

    def end(self) -> tuple[Journal, dict[str, int]]:
        """Let clients end with what is under way; what they wrote down, and their balances."""
        at = ("exec", PAYER, "--")
        self.namespace.kubectl(*at, "touch", "/journal/stop")
        answer = ["python", "-c", "import pathlib; print(pathlib.Path('/journal/done').exists())"]
        until(
            "clients are answered",
            lambda: self.namespace.kubectl(*at, *answer).strip() == "True",
            every_s=LOOK_S,
            wait_s=WHOLE_S,
        )
        journal = read_journal(self.namespace.kubectl(*at, "cat", "/journal/journal").splitlines())
        return journal, json.loads(self.namespace.kubectl(*at, "cat", "/journal/done"))

    def journal(self) -> Journal:
        """What clients have written down so far."""
        text = self.namespace.kubectl("exec", PAYER, "--", "cat", "/journal/journal")
        return read_journal(text.splitlines())

    def logs(self) -> dict[str, list[Frame]]:
        """The log of each copy."""
        program = (HERE / "frames.py").read_text()
        return {
            pod: read_frames(
                self.namespace.kubectl(
                    "exec", "--stdin", pod, "--", "python", "-", stdin=program
                ).splitlines()
            )
            for pod in PODS
        }


def nodes(namespace: Namespace) -> list[str]:
    """Names of all nodes."""
    text = namespace.kubectl("get", "nodes", "--output=name")
    return [line.removeprefix("node/") for line in text.split()]


def _payer(namespace: str) -> list[dict[str, Any]]:
    """The pod of the clients, its program and its volume."""
    address = f"http://{NAME}-gateway.{namespace}.svc"
    mounts = [
        {"name": "program", "mountPath": "/program"},
        {"name": "journal", "mountPath": "/journal"},
    ]
    container = {
        "name": PAYER,
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["tini", "--", "python", "/program/payer.py", address, "/journal", str(CLIENTS)],
        "workingDir": "/journal",
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    spec = {
        "nodeSelector": {"kubernetes.io/hostname": CONTROL_PLANE},
        "tolerations": [TOLERATION],
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "program", "configMap": {"name": PAYER}},
            {"name": "journal", "persistentVolumeClaim": {"claimName": PAYER}},
        ],
    }  # fmt: skip
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    program = {"payer.py": (HERE / "payer.py").read_text()}
    named = {"metadata": {"name": PAYER}}
    return [
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **named, "spec": claim},
        {"apiVersion": "v1", "kind": "ConfigMap", **named, "data": program},
        {"apiVersion": "v1", "kind": "Pod", **named, "spec": spec},
    ]
