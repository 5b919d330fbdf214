"""What every pod of an engine has in common: restricted security, probes, placement."""

from typing import Any

from ultraengine_operator import names
from ultraengine_operator.specs.view import EngineView, Manifest


def pod_security() -> Manifest:
    """The restricted Pod Security Standard, for the pod."""
    return {
        "runAsNonRoot": True,
        "runAsUser": names.USER,
        "runAsGroup": names.USER,
        "fsGroup": names.USER,
        # A large volume is not walked at each start when its root has the right owner already.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """The restricted Pod Security Standard, for a container."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def variable(name: str, value: str) -> Manifest:
    """One environment variable."""
    return {"name": name, "value": value}


def ports() -> list[Manifest]:
    """The two ports of every pod."""
    return [
        {"name": "http", "containerPort": names.HTTP_PORT, "protocol": "TCP"},
        {"name": "admin", "containerPort": names.ADMIN_PORT, "protocol": "TCP"},
    ]


def probes(*, startup_failures: int) -> Manifest:
    """Started and alive by /healthz, ready by /readyz; a start may replay for a long time."""
    alive = {"httpGet": {"path": "/healthz", "port": "http"}}
    return {
        "startupProbe": {
            **alive, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": startup_failures,
        },
        "livenessProbe": {**alive, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3},
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "http"},
            "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2,
        },
    }  # fmt: skip


def placement(view: EngineView, labels: dict[str, str]) -> Manifest:
    """Where the pods of one component run: apart by host and by zone, unless said otherwise.

    Both are preferences: a cluster with fewer nodes than shards still gets all of them.
    """
    wish = view.engine.spec.scheduling
    constraints: list[dict[str, Any]] | None = wish.topology_spread_constraints
    if constraints is None:
        constraints = [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels},
            }
            for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
        ]
    found: Manifest = {"topologySpreadConstraints": constraints} if constraints else {}
    if wish.node_selector:
        found["nodeSelector"] = wish.node_selector
    if wish.tolerations:
        found["tolerations"] = wish.tolerations
    if wish.priority_class_name:
        found["priorityClassName"] = wish.priority_class_name
    return found
