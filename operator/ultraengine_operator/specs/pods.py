"""What every pod of an engine has in common: restricted security, probes, placement."""

from collections.abc import Mapping, Sequence
from typing import Any

from ultraengine_operator import names
from ultraengine_operator.specs.view import EngineView, Manifest, child


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


def variables(told: Mapping[str, str]) -> list[Manifest]:
    """What a container is told, as environment variables in the order of their names."""
    return [{"name": name, "value": told[name]} for name in sorted(told)]


def ports() -> list[Manifest]:
    """The two ports of every pod."""
    return [
        {"name": "http", "containerPort": names.HTTP_PORT, "protocol": "TCP"},
        {"name": "admin", "containerPort": names.ADMIN_PORT, "protocol": "TCP"},
    ]


def probes(*, startup_failures: int, ready: str = "/readyz") -> Manifest:
    """Started and alive by /healthz, ready by `ready`; a start may replay for a long time."""
    alive = {"httpGet": {"path": "/healthz", "port": "http"}}
    return {
        "startupProbe": {
            **alive, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": startup_failures,
        },
        "livenessProbe": {**alive, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3},
        "readinessProbe": {
            "httpGet": {"path": ready, "port": "http"},
            "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2,
        },
    }  # fmt: skip


def mounted(name: str, path: str, **source: object) -> tuple[Manifest, Manifest]:
    """A volume and where it is mounted; read-only but for an empty directory."""
    mount: Manifest = {"name": name, "mountPath": path}
    if "emptyDir" not in source:
        mount["readOnly"] = True
    return {"name": name, **source}, mount


def temporary() -> tuple[Manifest, Manifest]:
    """The one directory that a read-only root leaves to write in."""
    return mounted("tmp", "/tmp", emptyDir={})  # noqa: S108 - a volume of the pod's own.


def hop_and_map(view: EngineView) -> list[tuple[Manifest, Manifest]]:
    """The secret that gateways and shards share, and the published map."""
    return [
        mounted("hop", "/etc/ultra/hop", secret={"secretName": f"{view.name}-hop"}),
        mounted("map", "/etc/ultra/map", configMap={"name": f"{view.name}-shardmap"}),
    ]


def api_keys(secret: str) -> tuple[Manifest, Manifest]:
    """The keys that callers are asked for."""
    return mounted("keys", "/etc/ultra/keys", secret={"secretName": secret})


def limits(view: EngineView) -> dict[str, str]:
    """Those of ``spec.settings`` that count for whoever answers clients, by name."""
    settings = view.engine.spec.settings
    return {one.name: one.value for one in settings if one.name.startswith("ULTRA_LIMIT_")}


def pod_spec(
    view: EngineView,
    component: str,
    container: Manifest,
    mounts: Sequence[tuple[Manifest, Manifest]],
    *,
    grace_s: int,
    labels: dict[str, str],
) -> Manifest:
    """A pod of one container; `labels` tell which pods are kept apart."""
    return {
        "serviceAccountName": f"{view.name}-{component}",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_s,
        "securityContext": pod_security(),
        "containers": [container],
        "volumes": [volume for volume, _ in mounts],
        **placement(view, labels),
    }


def service_account(view: EngineView, component: str) -> Manifest:
    """An identity without a token: no pod of an engine talks to the API server."""
    return child(
        view, "ServiceAccount", "v1", f"{view.name}-{component}", component,
        automountServiceAccountToken=False,
    )  # fmt: skip


def deployment(
    view: EngineView,
    name: str,
    component: str,
    container: Manifest,
    mounts: Sequence[tuple[Manifest, Manifest]],
    *,
    labels: dict[str, str],
    grace_s: int,
    alone: bool = False,
) -> Manifest:
    """A Deployment of stateless pods; its number of pods is `actions.Scale`'s or an autoscaler's.

    `alone`: the old pod ends before the new one begins.
    """
    strategy: Manifest = (
        {"type": "Recreate"}
        if alone
        else {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    )
    whole = {"image": view.image, "securityContext": container_security(), **container}
    spec: Manifest = {
        "selector": {"matchLabels": labels},
        "strategy": strategy,
        "template": {
            "metadata": {"labels": labels},
            "spec": pod_spec(view, component, whole, mounts, grace_s=grace_s, labels=labels),
        },
    }
    return child(view, "Deployment", "apps/v1", name, component, spec=spec)


def service(view: EngineView, name: str, component: str) -> Manifest:
    """One address before the pods of a component."""
    return child(
        view, "Service", "v1", name, component,
        spec={
            "selector": names.labels(view.name, component),
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    )  # fmt: skip


def disruption_budget(view: EngineView, name: str, component: str) -> Manifest:
    """One pod of a component away at a time."""
    return child(
        view, "PodDisruptionBudget", "policy/v1", name, component,
        spec={
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": names.labels(view.name, component)},
        },
    )  # fmt: skip


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
