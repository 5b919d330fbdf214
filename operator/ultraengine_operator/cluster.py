"""The port to Kubernetes: what the operator reads and writes, and how that may fail.

Implementations: `drivers/kubernetes.py` on the API server, `tests/unit/operator/memory.py` in
memory; one contract suite holds both.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from ultraengine_operator import names
from ultraengine_operator.backups import Image

Content = dict[str, Any]


class Kind(msgspec.Struct, frozen=True):
    """A kind, with the path that its objects have."""

    api_version: str
    name: str
    plural: str

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """Path of a collection or of one object."""
        root = "/api/" if "/" not in self.api_version else "/apis/"
        within = f"/namespaces/{namespace}" if namespace else ""
        own = f"/{name}" if name else ""
        return f"{root}{self.api_version}{within}/{self.plural}{own}"


KINDS: Final[dict[str, Kind]] = {
    one.name: one
    for one in (
        Kind(names.API_VERSION, "UltraEngine", "ultraengines"),
        Kind(names.API_VERSION, "Shard", "shards"),
        Kind(names.API_VERSION, "Snapshot", "snapshots"),
        Kind("apps/v1", "StatefulSet", "statefulsets"),
        Kind("apps/v1", "Deployment", "deployments"),
        Kind("v1", "Pod", "pods"),
        Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
        Kind("v1", "ConfigMap", "configmaps"),
        Kind("v1", "Secret", "secrets"),
        Kind("v1", "Service", "services"),
        Kind("v1", "ServiceAccount", "serviceaccounts"),
        Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
        Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
        Kind("networking.k8s.io/v1", "Ingress", "ingresses"),
        Kind("coordination.k8s.io/v1", "Lease", "leases"),
        Kind("rbac.authorization.k8s.io/v1", "Role", "roles"),
        Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
        Kind("events.k8s.io/v1", "Event", "events"),
    )
}
WATCHED: Final = tuple(
    KINDS[name]
    for name in ("UltraEngine", "Shard", "StatefulSet", "Deployment", "Pod",
                 "PersistentVolumeClaim", "ConfigMap", "Service", "ServiceAccount",
                 "PodDisruptionBudget", "HorizontalPodAutoscaler", "Ingress", "Lease", "Role",
                 "RoleBinding", "Snapshot")
)  # fmt: skip
"""Secrets are not among them: who may list them holds every secret of a cluster."""

MADE_BY_PEOPLE: Final = ("UltraEngine", "Snapshot")
"""Kinds whose objects need not carry the label of their engine."""


class Refused(Exception):
    """The API server said no. `status` is HTTP's; 0 when it was not reached."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message

    @property
    def permanent(self) -> bool:
        """Whether the same request would be refused again: trying is no help."""
        return 400 <= self.status < 500 and self.status not in (404, 408, 429)


class Cluster(Protocol):
    """An API server. Every call raises `Refused`."""

    async def list(self, kind: Kind, selector: str) -> Sequence[Content]:
        """Objects of all watched namespaces with these labels, without `managedFields`."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Content | None:
        """One object; None when there is none."""

    async def create(self, kind: Kind, content: Content) -> Content:
        """Make an object.  Refused 409 when there is one."""

    async def replace(self, kind: Kind, content: Content) -> Content:
        """Replace an object of exactly this resourceVersion.  Refused 409 otherwise."""

    async def apply(
        self, kind: Kind, content: Content, *, manager: str, subresource: str = ""
    ) -> Content:
        """Server-side apply, not forced.  Refused 409 when another manager owns a field."""

    async def merge(
        self, kind: Kind, namespace: str, name: str, content: Mapping[str, Any]
    ) -> Content:
        """Merge patch."""

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str | None) -> None:
        """Delete, in the background; only the object of this uid, if given.  Gone is fine."""


class Shards(Protocol):
    """The engine's pods, asked for their state."""

    async def ask(
        self, namespace: str, engine: str, shard: int, pod: str | None = None
    ) -> Content | None:
        """A shard's own status, from this pod of several; None when it does not answer."""


class BackedUp(Protocol):
    """The engine's shards, told to back themselves up."""

    async def back_up(self, namespace: str, engine: str, shard: int, *, last: bool) -> Image:
        """Have it done and wait for its end; `last`: no command is taken any more.

        Raises `NotTaken`.
        """
