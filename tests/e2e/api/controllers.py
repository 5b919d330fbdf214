"""What the controllers of a cluster would do with an engine's children, on a server without any.

Pods are records here: nothing runs. `step` is one round: sets get their revision, pods and claims
are made where they are missing, and Deployments say that all of their pods are there.
"""

import hashlib
import json
from typing import Any

from tests.servers.kubernetes import ApiServer

STATUS = "application/merge-patch+json"
NAMESPACE = "default"
APPS = f"/apis/apps/v1/namespaces/{NAMESPACE}"
CORE = f"/api/v1/namespaces/{NAMESPACE}"


class Controllers:
    """Stands for the controllers of StatefulSets and Deployments."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    def step(self) -> None:
        """One round over everything there is."""
        for one in self._items(f"{APPS}/statefulsets"):
            self._set(one)
        for one in self._items(f"{APPS}/deployments"):
            count = one["spec"]["replicas"]
            self._status(
                f"{APPS}/deployments/{one['metadata']['name']}", one,
                replicas=count, updatedReplicas=count, readyReplicas=count,
                availableReplicas=count,
            )  # fmt: skip

    def _items(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._server.request("GET", path).body["items"]
        return found

    def _status(self, path: str, one: dict[str, Any], **status: Any) -> None:
        status["observedGeneration"] = one["metadata"]["generation"]
        known = one.get("status", {})
        if all(known.get(name) == value for name, value in status.items()):
            return
        answer = self._server.request(
            "PATCH", f"{path}/status", {"status": status}, content_type=STATUS
        )
        assert answer.status == 200, answer.message

    def _set(self, one: dict[str, Any]) -> None:
        name, spec = one["metadata"]["name"], one["spec"]
        text = json.dumps(spec["template"], sort_keys=True).encode()
        revision = f"{name}-{hashlib.blake2b(text, digest_size=5).hexdigest()}"
        self._status(f"{APPS}/statefulsets/{name}", one, replicas=1, updateRevision=revision)
        (claim,) = spec["volumeClaimTemplates"]
        self._make(
            f"{CORE}/persistentvolumeclaims",
            {"metadata": {"name": f"data-{name}-0", "labels": claim["metadata"]["labels"]},
             "spec": claim["spec"]},
        )  # fmt: skip
        pod = {
            "metadata": {
                "name": f"{name}-0",
                "labels": {
                    **spec["template"]["metadata"]["labels"],
                    "controller-revision-hash": revision,
                },
            },
            "spec": spec["template"]["spec"],
        }
        pod["spec"]["volumes"].append({"name": "data", "emptyDir": {}})
        if self._make(f"{CORE}/pods", pod):
            ready = {"conditions": [{"type": "Ready", "status": "True"}]}
            answer = self._server.request(
                "PATCH", f"{CORE}/pods/{name}-0/status", {"status": ready}, content_type=STATUS
            )
            assert answer.status == 200, answer.message

    def _make(self, path: str, content: dict[str, Any]) -> bool:
        answer = self._server.request("POST", path, content)
        assert answer.status in (201, 409), answer.message
        return answer.status == 201
