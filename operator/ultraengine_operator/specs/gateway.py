"""The gateway: Deployment, Service, PodDisruptionBudget and, where wished, an autoscaler."""

from typing import Final

from ultraengine_operator import names
from ultraengine_operator.specs.pods import (
    container_security,
    placement,
    pod_security,
    ports,
    probes,
    variable,
)
from ultraengine_operator.specs.view import EngineView, Manifest, child

STARTUP_FAILURES: Final = 60
GRACE_S: Final = 60
LIMIT: Final = "ULTRA_LIMIT_"


def _name(view: EngineView) -> str:
    return f"{view.name}-gateway"


def _environment(view: EngineView) -> list[Manifest]:
    told = {
        "ULTRA_HOST": "0.0.0.0",  # noqa: S104 - the pod's own network.
        "ULTRA_HOP_KEY": f"/etc/ultra/hop/{names.HOP_FILE}",
        "ULTRA_MAP": f"/etc/ultra/map/{names.MAP_KEY}",
        "ULTRA_DOMAINS": ",".join(view.engine.spec.domains),
        "ULTRA_SHARD_ADDRESS": (
            f"http://{view.name}-shard-{{shard}}.{view.namespace}.svc:{names.HTTP_PORT}"
        ),
    }
    # Quotas and sizes are the gateway's to check: shards count no quotas.
    told.update(
        {one.name: one.value for one in view.engine.spec.settings if one.name.startswith(LIMIT)}
    )
    if view.engine.spec.gateway.api_keys_secret_name is None:
        told["ULTRA_KEYLESS"] = "true"
    else:
        told["ULTRA_API_KEYS"] = "/etc/ultra/keys/keys"
    return [variable(name, told[name]) for name in sorted(told)]


def deployment(view: EngineView) -> Manifest:
    """Stateless fronts. With an autoscaler the number of replicas is its own."""
    wish = view.engine.spec.gateway
    chosen = names.labels(view.name, "gateway")
    mounts = [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own.
        {"name": "hop", "mountPath": "/etc/ultra/hop", "readOnly": True},
        {"name": "map", "mountPath": "/etc/ultra/map", "readOnly": True},
    ]
    volumes: list[Manifest] = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "hop", "secret": {"secretName": f"{view.name}-hop"}},
        {"name": "map", "configMap": {"name": f"{view.name}-shardmap"}},
    ]
    if wish.api_keys_secret_name is not None:
        mounts.append({"name": "keys", "mountPath": "/etc/ultra/keys", "readOnly": True})
        volumes.append({"name": "keys", "secret": {"secretName": wish.api_keys_secret_name}})
    container: Manifest = {
        "name": "gateway",
        "image": view.image,
        "args": ["gateway"],
        "env": _environment(view),
        "ports": ports(),
        "securityContext": container_security(),
        "volumeMounts": mounts,
        **probes(startup_failures=STARTUP_FAILURES),
    }
    if wish.resources:
        container["resources"] = wish.resources
    spec: Manifest = {
        "selector": {"matchLabels": chosen},
        "strategy": {
            "type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
        },
        "template": {
            "metadata": {"labels": chosen},
            "spec": {
                "serviceAccountName": _name(view),
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": GRACE_S,
                "securityContext": pod_security(),
                "containers": [container],
                "volumes": volumes,
                **placement(view, chosen),
            },
        },
    }  # fmt: skip
    if wish.autoscaling is None:
        spec["replicas"] = wish.replicas
    return child(view, "Deployment", "apps/v1", _name(view), "gateway", spec=spec)


def service(view: EngineView) -> Manifest:
    """The one address that a client needs."""
    return child(
        view, "Service", "v1", _name(view), "gateway",
        spec={
            "selector": names.labels(view.name, "gateway"),
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    )  # fmt: skip


def disruption_budget(view: EngineView) -> Manifest:
    """One gateway away at a time."""
    return child(
        view, "PodDisruptionBudget", "policy/v1", _name(view), "gateway",
        spec={
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": names.labels(view.name, "gateway")},
        },
    )  # fmt: skip


def autoscaler(view: EngineView) -> Manifest | None:
    """Replicas by use of CPU; None when none is wished."""
    wish = view.engine.spec.gateway
    if wish.autoscaling is None:
        return None
    return child(
        view, "HorizontalPodAutoscaler", "autoscaling/v2", _name(view), "gateway",
        spec={
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": _name(view)},
            "minReplicas": wish.replicas,
            "maxReplicas": wish.autoscaling.max_replicas,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {
                            "type": "Utilization",
                            "averageUtilization": wish.autoscaling.target_cpu,
                        },
                    },
                }
            ],
        },
    )  # fmt: skip
