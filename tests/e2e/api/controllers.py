"""What the controllers of a cluster would do with an engine's children, on a server without any.

Pods are records here: nothing runs. `step` is one round: sets get their revision, pods and claims
are made where they are missing, and Deployments say that all of their pods are there.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from tests.servers.kubernetes import ApiServer

from ultraengine.model.candidate import Verdict
from ultraengine_operator import names

STATUS = "application/merge-patch+json"
NAMESPACE = "default"
APPS = f"/apis/apps/v1/namespaces/{NAMESPACE}"
CORE = f"/api/v1/namespaces/{NAMESPACE}"


def let_through(shard: int) -> Verdict:
    """A build that decides alike and writes the same formats."""
    return Verdict(verdict="ok", shard=shard, offset=7, compared=7, may_return=True)


class Controllers:
    """Stands for the controllers of StatefulSets and Deployments."""

    def __init__(
        self, server: ApiServer, judge: Callable[[int], Verdict | None] = let_through
    ) -> None:
        """`judge`: what the candidate of a shard says; None while it runs."""
        self._server = server
        self._judge = judge

    def step(self) -> None:
        """One round over everything there is."""
        for one in self._items(f"{APPS}/statefulsets"):
            self._set(one)
        for one in self._items(f"{CORE}/pods"):
            if one["metadata"]["labels"][names.COMPONENT] == "candidate":
                self._candidate(one)
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
        count = spec["replicas"]
        self._status(f"{APPS}/statefulsets/{name}", one, replicas=count, updateRevision=revision)
        for number in range(count):
            self._pod(one, f"{name}-{number}", revision)
        for pod in self._items(f"{CORE}/pods"):
            owner, _, number = pod["metadata"]["name"].rpartition("-")
            if owner == name and int(number) >= count:
                self._server.request("DELETE", f"{CORE}/pods/{owner}-{number}")

    def _pod(self, owner: dict[str, Any], name: str, revision: str) -> None:
        spec = owner["spec"]
        (claim,) = spec["volumeClaimTemplates"]
        self._make(
            f"{CORE}/persistentvolumeclaims",
            {"metadata": {"name": f"data-{name}", "labels": claim["metadata"]["labels"]},
             "spec": claim["spec"]},
        )  # fmt: skip
        pod = {
            "metadata": {
                "name": name,
                "labels": {
                    **spec["template"]["metadata"]["labels"],
                    "controller-revision-hash": revision,
                },
            },
            "spec": json.loads(json.dumps(spec["template"]["spec"])),
        }
        pod["spec"]["volumes"].append({"name": "data", "emptyDir": {}})
        if self._make(f"{CORE}/pods", pod):
            ready = {"conditions": [{"type": "Ready", "status": "True"}]}
            answer = self._server.request(
                "PATCH", f"{CORE}/pods/{name}/status", {"status": ready}, content_type=STATUS
            )
            assert answer.status == 200, answer.message

    def _candidate(self, one: dict[str, Any]) -> None:
        verdict = self._judge(int(one["metadata"]["labels"][names.SHARD]))
        if verdict is None or one["status"]["phase"] in ("Succeeded", "Failed"):
            return
        end = {
            "exitCode": verdict.exit_code, "message": verdict.encode().decode(),
            "startedAt": one["metadata"]["creationTimestamp"],
            "finishedAt": one["metadata"]["creationTimestamp"],
        }  # fmt: skip
        container = {
            "name": "candidate", "image": "x", "imageID": "x", "ready": False, "restartCount": 0,
            "state": {"terminated": end},
        }  # fmt: skip
        status = {
            "phase": "Failed" if verdict.exit_code else "Succeeded",
            "containerStatuses": [container],
        }
        path = f"{CORE}/pods/{one['metadata']['name']}/status"
        answer = self._server.request("PATCH", path, {"status": status}, content_type=STATUS)
        assert answer.status in (200, 404), answer.message

    def _make(self, path: str, content: dict[str, Any]) -> bool:
        answer = self._server.request("POST", path, content)
        assert answer.status in (201, 409), answer.message
        return answer.status == 201
