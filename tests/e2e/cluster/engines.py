"""One UltraEngine as a user applies it, and what a user looks at to know how it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml
from tests.e2e.cluster.cluster import Namespace, until

OUTSIDE: Final = {"e2e": "outside"}
EXAMPLE: Final = Path(__file__).parents[3] / "examples" / "shop.yaml"


def manifest(name: str, *, shards: int) -> dict[str, Any]:
    """The example that a new user applies, with another name and number of shards."""
    content: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    content["metadata"]["name"] = name
    content["spec"]["shards"] = shards
    return content


class Engine:
    """An UltraEngine of a namespace, reached by its gateway's pods through a port of a node."""

    def __init__(
        self, namespace: Namespace, name: str, *, shards: int, port: int, **spec: Any
    ) -> None:
        self.namespace, self.name, self.port = namespace, name, port
        self.spec = spec
        """What is applied beside the example's fields."""
        self._shards = shards
        self.address = f"http://127.0.0.1:{port}"

    def apply(self, **metadata: Any) -> None:
        """Apply the object, and a Service that this machine can reach."""
        content = manifest(self.name, shards=self._shards)
        content["metadata"].update(metadata)
        content["spec"].update(self.spec)
        self.namespace.apply(content)
        self.open_port("gateway", self.port)

    def open_port(self, component: str, port: int) -> None:
        """A Service that leads from a port of this machine to the pods of a component."""
        labels = {"ultraengine.io/engine": self.name, "app.kubernetes.io/component": component}
        ports = [{"name": "http", "port": 80, "targetPort": "http", "nodePort": port}]
        self.namespace.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": f"{self.name}-{component}-outside", "labels": OUTSIDE},
                "spec": {"type": "NodePort", "selector": labels, "ports": ports},
            }
        )

    def close(self) -> None:
        """Give the node's ports back before the namespace goes, which takes its time."""
        label = next(f"{key}={value}" for key, value in OUTSIDE.items())
        self.namespace.kubectl("delete", "services", f"--selector={label}")

    def conditions(self) -> dict[str, dict[str, Any]]:
        """Conditions of the newest generation by type; none while they are of an older one."""
        found = self.namespace.get("ultraengine", self.name)
        assert found is not None
        generation = found["metadata"]["generation"]
        return {
            one["type"]: one
            for one in found.get("status", {}).get("conditions", ())
            if one["observedGeneration"] == generation
        }

    def wait_for(self, kind: str, status: str, reason: str) -> dict[str, Any]:
        """The condition once it says so."""
        found: dict[str, Any] = {}

        def says_so() -> bool:
            found.clear()
            found.update(self.conditions().get(kind, {}))
            return (found.get("status"), found.get("reason")) == (status, reason)

        until(f"{kind} {status} {reason} of {self.name}, but", says_so, lambda: found)
        return found

    def wait_ready(self) -> None:
        """Until all is as wished, and says so of the newest generation."""
        self.wait_for("Ready", "True", "AsWished")

    def heard(self) -> list[bool]:
        """For each Shard, whether its pod's own words are in the status."""
        text = self.namespace.kubectl("get", "shards.ultraengine.io", "--output=json")
        return ["epoch" in one.get("status", {}) for one in json.loads(text)["items"]]

    def told(self, reason: str) -> list[str]:
        """Types of the Events about the engine for this reason."""
        text = self.namespace.kubectl(
            "get", "events", "--output=json",
            f"--field-selector=involvedObject.name={self.name},reason={reason}",
        )  # fmt: skip
        return [one["type"] for one in json.loads(text)["items"]]

    def pod_of(self, shard: int) -> dict[str, Any]:
        """The pod of a shard."""
        pod = self.namespace.get("pod", f"{self.name}-shard-{shard}-0")
        assert pod is not None
        return pod

    def volumes(self) -> dict[str, str]:
        """The volume behind each claim of the engine."""
        label = f"--selector=ultraengine.io/engine={self.name}"
        text = self.namespace.kubectl("get", "persistentvolumeclaims", label, "--output=json")
        return {
            one["metadata"]["name"]: one["spec"]["volumeName"] for one in json.loads(text)["items"]
        }

    def replaced(self, pod: dict[str, Any]) -> Callable[[], bool]:
        """Whether a pod of the same name has taken the place of this one."""

        def replaced() -> bool:
            now = self.namespace.get("pod", pod["metadata"]["name"])
            return now is not None and now["metadata"]["uid"] != pod["metadata"]["uid"]

        return replaced
