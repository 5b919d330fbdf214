"""The gateway: Deployment, Service, PodDisruptionBudget; where wished, autoscaler and Ingress."""

from typing import Final

from ultraengine_operator import names
from ultraengine_operator.api.types import RateLimit
from ultraengine_operator.specs import pods
from ultraengine_operator.specs.pods import ports, probes, variables
from ultraengine_operator.specs.view import EngineView, Manifest, child

STARTUP_FAILURES: Final = 60
GRACE_S: Final = 60


def _name(view: EngineView) -> str:
    return f"{view.name}-gateway"


def _shard_address(view: EngineView) -> str:
    """Where shards are: of several copies the addresses of all, for the gateway to find who leads
    among them."""
    peers = "-peers" if view.replicated else ""
    return f"http://{view.name}-shard-{{shard}}{peers}.{view.namespace}.svc:{names.HTTP_PORT}"


def _environment(view: EngineView) -> list[Manifest]:
    told = {
        "ULTRA_HOST": "0.0.0.0",  # noqa: S104 - the pod's own network.
        "ULTRA_HOP_KEY": f"/etc/ultra/hop/{names.KEY_FILE}",
        "ULTRA_MAP": f"/etc/ultra/map/{names.MAP_KEY}",
        "ULTRA_DOMAINS": ",".join(view.engine.spec.domains),
        "ULTRA_SHARD_ADDRESS": _shard_address(view),
    }
    # Quotas and sizes are the gateway's to check: shards count no quotas.
    told.update(pods.limits(view))
    if view.engine.spec.gateway.api_keys_secret_name is None:
        told["ULTRA_KEYLESS"] = "true"
    else:
        told["ULTRA_API_KEYS"] = "/etc/ultra/keys/keys"
    return variables(told)


def deployment(view: EngineView) -> Manifest:
    """Stateless fronts. Their number is `plan.Scale`'s or the autoscaler's."""
    wish = view.engine.spec.gateway
    mounts = [pods.temporary(), *pods.hop_and_map(view)]
    if wish.api_keys_secret_name is not None:
        mounts.append(pods.api_keys(wish.api_keys_secret_name))
    container: Manifest = {
        "name": "gateway",
        "args": ["gateway"],
        "env": _environment(view),
        "ports": ports(),
        "volumeMounts": [mount for _, mount in mounts],
        **probes(startup_failures=STARTUP_FAILURES),
    }
    if wish.resources:
        container["resources"] = wish.resources
    return pods.deployment(
        view, _name(view), "gateway", container, mounts,
        labels=names.labels(view.name, "gateway"), grace_s=GRACE_S,
    )  # fmt: skip


def service(view: EngineView) -> Manifest:
    """The one address that a client needs."""
    return pods.service(view, _name(view), "gateway")


def disruption_budget(view: EngineView) -> Manifest:
    """One gateway away at a time."""
    return pods.disruption_budget(view, _name(view), "gateway")


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


def _limited(limit: RateLimit | None) -> dict[str, str]:
    """A rate limit as annotations of ingress-nginx, which counts for each address and each of its
    own pods."""
    if limit is None:
        return {}
    told = {"limit-rps": limit.requests_per_second, "limit-connections": limit.connections}
    return {
        f"nginx.ingress.kubernetes.io/{name}": str(number)
        for name, number in told.items()
        if number is not None
    }


def ingress(view: EngineView) -> Manifest | None:
    """The way in from outside, to commands and reads alone; None when none is wished."""
    wish = view.engine.spec.gateway.ingress
    if wish is None:
        return None
    service = {"name": _name(view), "port": {"name": "http"}}
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": service}}
    spec: Manifest = {"rules": [{"host": wish.host, "http": {"paths": [path]}}]}
    if wish.class_name is not None:
        spec["ingressClassName"] = wish.class_name
    if wish.tls_secret_name is not None:
        spec["tls"] = [{"hosts": [wish.host], "secretName": wish.tls_secret_name}]
    made = child(view, "Ingress", "networking.k8s.io/v1", _name(view), "gateway", spec=spec)
    # Ours come last: nobody takes the render version's place.
    own = made["metadata"]["annotations"]
    made["metadata"]["annotations"] = {**wish.annotations, **_limited(wish.rate_limit), **own}
    return made
