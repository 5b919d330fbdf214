"""The read side: workers that fill databases, and the API over them.

A worker is the only writer of its tables, so it has one pod, and the old one ends before the new
one begins. Neither has a key of a shard: a worker follows the gateway's feed with an API key.
"""

from typing import Final

from ultraengine_operator import names
from ultraengine_operator.api.types import EngineSpec, Projection, Resources
from ultraengine_operator.specs import pods
from ultraengine_operator.specs.pods import probes, variables
from ultraengine_operator.specs.view import EngineView, Manifest

STARTUP_FAILURES: Final = 60
GRACE_S: Final = 60
TARGET: Final = f"/etc/ultra/target/{names.URL_FILE}"


def wished(spec: EngineSpec, name: str) -> tuple[tuple[str, str], ...]:
    """Name and component of each Deployment of the read side of the engine `name`."""
    workers = tuple((_worker(name, one), "projection") for one in spec.projections)
    return (*workers, (f"{name}-query", "query")) if spec.query.replicas else workers


def _worker(name: str, one: Projection) -> str:
    return f"{name}-projection-{one.name}"


def _domains(view: EngineView) -> list[str]:
    return [text for domain in view.engine.spec.domains for text in ("--domain", domain)]


def _container(name: str, arguments: list[str], port: int, resources: Resources) -> Manifest:
    container: Manifest = {
        "name": name,
        "args": arguments,
        "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}],
        **probes(startup_failures=STARTUP_FAILURES),
    }
    if resources:
        container["resources"] = resources
    return container


def worker(view: EngineView, wish: Projection) -> Manifest:
    """`ultra project` of one target."""
    container = _container(
        "worker",
        [
            "project", "--target", f"{wish.name}=@{TARGET}",
            "--engine", f"http://{view.name}-gateway.{view.namespace}.svc",
            "--host", "0.0.0.0", "--port", str(names.ADMIN_PORT),  # noqa: S104 - the pod's own.
            *_domains(view),
        ],
        names.ADMIN_PORT,
        wish.resources,
    )  # fmt: skip
    key = {"name": wish.target_secret_name, "key": names.API_KEY, "optional": True}
    container["env"] = [{"name": "ULTRAENGINE_API_KEY", "valueFrom": {"secretKeyRef": key}}]
    mounts = [pods.temporary(), _target(wish.target_secret_name)]
    container["volumeMounts"] = [mount for _, mount in mounts]
    return pods.deployment(
        view, _worker(view.name, wish), "projection", container, mounts,
        labels={**names.labels(view.name, "projection"), names.PROJECTION: wish.name},
        grace_s=GRACE_S, alone=True,
    )  # fmt: skip


def _target(secret: str) -> tuple[Manifest, Manifest]:
    """The database's address alone: the API key of the same Secret is for the environment."""
    item = {"key": names.URL_FILE, "path": names.URL_FILE}
    return pods.mounted(
        "target", "/etc/ultra/target", secret={"secretName": secret, "items": [item]}
    )


def query(view: EngineView) -> Manifest:
    """`ultra query` over one database."""
    wish, spec = view.engine.spec.query, view.engine.spec
    keys = spec.gateway.api_keys_secret_name
    container = _container(
        "query",
        [
            "query", "--target", f"@{TARGET}",
            "--host", "0.0.0.0", "--port", str(names.HTTP_PORT),  # noqa: S104 - the pod's own.
            "--cursor-key", f"/etc/ultra/cursors/{names.KEY_FILE}",
            *(["--keyless"] if keys is None else ["--keys", "/etc/ultra/keys/keys"]),
            *_domains(view),
        ],
        names.HTTP_PORT,
        wish.resources,
    )  # fmt: skip
    limits = pods.limits(view)
    if limits:
        container["env"] = variables(limits)
    cursors = {"secretName": f"{view.name}-cursors"}
    mounts = [
        pods.temporary(),
        _target(wish.target_secret_name or ""),
        pods.mounted("cursors", "/etc/ultra/cursors", secret=cursors),
    ]
    if keys is not None:
        mounts.append(pods.api_keys(keys))
    container["volumeMounts"] = [mount for _, mount in mounts]
    return pods.deployment(
        view, f"{view.name}-query", "query", container, mounts,
        labels=names.labels(view.name, "query"), grace_s=GRACE_S,
    )  # fmt: skip


def children(view: EngineView) -> list[Manifest]:
    """All of the read side that is wished."""
    spec, found = view.engine.spec, []
    if spec.projections:
        found.append(pods.service_account(view, "projection"))
        found += [worker(view, one) for one in spec.projections]
    if spec.query.replicas:
        name = f"{view.name}-query"
        found += [
            pods.service_account(view, "query"),
            query(view),
            pods.service(view, name, "query"),
            pods.disruption_budget(view, name, "query"),
        ]
    return found
