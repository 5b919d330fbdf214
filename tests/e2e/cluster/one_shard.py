"""One shard as a person would write it without an operator, and a client that remembers."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

IMAGE = "ultraengine/engine:lab"
POD = "one-shard-0"
LABELS = {"app.kubernetes.io/name": "one-shard"}


def service() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "one-shard"},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": LABELS,
            "ports": [{"name": "http", "port": 8080}],
        },
    }


def probe(path: str, **times: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": 8080}, "periodSeconds": 1, **times}


def container() -> dict[str, Any]:
    return {
        "name": "engine",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "args": ["serve"],
        "startupProbe": probe("/healthz", failureThreshold=60),
        "livenessProbe": probe("/healthz", failureThreshold=30),
        "readinessProbe": probe("/readyz"),
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 (a path in the container)
        ],
    }


def stateful_set() -> dict[str, Any]:
    pod = {
        "terminationGracePeriodSeconds": 60,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container()],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    claim = {
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "one-shard"},
        "spec": {
            "serviceName": "one-shard",
            "replicas": 1,
            "selector": {"matchLabels": LABELS},
            "template": {"metadata": {"labels": LABELS}, "spec": pod},
            "volumeClaimTemplates": [claim],
        },
    }


class Bank:
    """A client with a history: what was sent, and the first reply to each."""

    def __init__(self) -> None:
        self.sent: dict[str, dict[str, Any]] = {}
        self.told: dict[str, dict[str, Any]] = {}

    def open_accounts(self, address: str) -> None:
        accounts = [
            {"id": "alice", "asset": "USD/2", "min_balance": None},
            {"id": "shop", "asset": "USD/2"},
        ]
        self._send(address, "open", "ledger.open_accounts", {"accounts": accounts})

    def pay(self, address: str, count: int) -> None:
        for _ in range(count):
            name = f"pay-{len(self.sent)}"
            transfer = {"id": name, "from": "alice", "to": "shop", "amount": "1"}
            self._send(address, name, "ledger.create_transfers", {"transfers": [transfer]})

    def _send(self, address: str, name: str, kind: str, data: dict[str, Any]) -> None:
        self.sent[name] = {"id": name, "type": kind, "key": "book", "data": data}
        self.told[name] = self._accepted(address, name)

    def _accepted(self, address: str, name: str) -> dict[str, Any]:
        reply = request(address, "/v1/commands", self.sent[name])
        assert reply["outcome"] == "accepted", reply
        return reply

    def check(self, address: str) -> None:
        """Every acknowledged command is there, once, with the reply that was given first."""
        paid = sum(name.startswith("pay-") for name in self.told)
        self._check_balance(address, paid)
        for name, first in self.told.items():
            again = self._accepted(address, name)
            assert again["duplicate"], again
            assert (again["offset"], again["result"]) == (first["offset"], first["result"])
        self._check_balance(address, paid)
        offsets = [first["offset"] for first in self.told.values()]
        assert offsets == sorted(set(offsets)), offsets

    def _check_balance(self, address: str, paid: int) -> None:
        shop = request(address, "/v1/ledger/book/accounts/shop")
        assert shop["balance"] == str(paid), (shop, paid)


def request(address: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    try:
        if body is None:
            connection.request("GET", path)
        else:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        content: dict[str, Any] = json.loads(answer.read())
        assert answer.status == 200, content
        return content
    finally:
        connection.close()
