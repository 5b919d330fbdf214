"""What a shard of several copies needs beside what one of one copy has.

    its pods       who the others are, a certificate, an account of their own, nodes of their own
    Lease          the record of who leads: made once, then the copies' alone, never applied again
    ServiceAccount, Role, RoleBinding   get, watch and update of this one Lease, and nothing else

The Lease has no owner, as the shard map has none: volumes that outlive their engine are of no use
without the record that belongs to them.
"""

from typing import Any, Final

from ultraengine_operator import names
from ultraengine_operator.specs.pods import mounted
from ultraengine_operator.specs.view import EngineView, Manifest, child

TLS: Final = "/etc/ultra/tls"
INDEX: Final = "metadata.labels['apps.kubernetes.io/pod-index']"
"""The number of a pod in its set, since Kubernetes 1.28."""
RBAC: Final = "rbac.authorization.k8s.io"


def settings(view: EngineView, shard: int) -> dict[str, str]:
    """What every copy of a shard is told alike."""
    hosts = names.replica_hosts(view.namespace, view.name, shard, view.copies)
    told = {
        "ULTRA_REPLICAS": ",".join(f"{host}:{names.REPLICA_PORT}" for host in hosts),
        # A pod's own name may not be known yet when it starts.
        "ULTRA_REPLICA_HOST": "0.0.0.0",  # noqa: S104 - the pod's own network.
        "ULTRA_CLUSTER": view.engine_uid,
        "ULTRA_RECORD_LEASE": names.shard_name(view.name, shard),
        "ULTRA_REPLICA_TLS": TLS,
    }
    if view.wished < view.copies:
        told["ULTRA_COPIES"] = str(view.wished)
    if view.claim_copies.get(shard) == "":
        # The set was made for one copy, whose log is the first of several now.
        told["ULTRA_ADOPT"] = "true"
    return told


def number() -> Manifest:
    """The variable with the number of a copy, from its pod."""
    field = {"fieldRef": {"apiVersion": "v1", "fieldPath": INDEX}}
    return {"name": "ULTRA_REPLICA", "valueFrom": field}


def port() -> Manifest:
    """The port between copies."""
    return {"name": "replica", "containerPort": names.REPLICA_PORT, "protocol": "TCP"}


def certificates(view: EngineView, shard: int) -> tuple[Manifest, Manifest]:
    """Certificate, key and authority; a changed Secret arrives in the running pod."""
    return mounted("tls", TLS, secret={"secretName": names.leaf_name(view.name, shard)})


def apart(view: EngineView, shard: int) -> Manifest:
    """Copies of a shard on nodes and zones of their own, where there are so many."""

    def rather(weight: int, key: str) -> Manifest:
        chosen = {"matchLabels": names.labels(view.name, "engine", shard)}
        return {"weight": weight, "podAffinityTerm": {"topologyKey": key, "labelSelector": chosen}}

    preferred = [rather(100, "kubernetes.io/hostname"), rather(50, "topology.kubernetes.io/zone")]
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


def account(view: EngineView, shard: int) -> list[Manifest]:
    """Who the pods of a shard are for the API server, and that they may change their own record."""
    name = names.shard_name(view.name, shard)
    lease = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [name],
        "verbs": ["get", "watch", "update"],
    }
    subject = {"kind": "ServiceAccount", "name": name, "namespace": view.namespace}

    def of_shard(kind: str, api_version: str, **content: Any) -> Manifest:
        return child(view, kind, api_version, name, "engine", shard=shard, **content)

    return [
        of_shard("ServiceAccount", "v1", automountServiceAccountToken=False),
        of_shard("Role", f"{RBAC}/v1", rules=[lease]),
        of_shard(
            "RoleBinding", f"{RBAC}/v1",
            roleRef={"apiGroup": RBAC, "kind": "Role", "name": name}, subjects=[subject],
        ),
    ]  # fmt: skip


def record(view: EngineView, shard: int) -> Manifest:
    """The Lease in which the copies keep their record; empty, as only a new one may be."""
    made = child(
        view, "Lease", "coordination.k8s.io/v1", names.shard_name(view.name, shard), "engine",
        shard=shard, owned=False,
    )  # fmt: skip
    made["metadata"]["labels"][names.COPIES] = str(view.copies)
    return made


def authority(view: EngineView) -> Manifest:
    """The Secret of the certificate authority, without its content."""
    return child(view, "Secret", "v1", names.authority_name(view.name), "engine", type="Opaque")


def certificate(view: EngineView, shard: int) -> Manifest:
    """The Secret of the certificate that the copies of a shard share, without its content."""
    return child(
        view, "Secret", "v1", names.leaf_name(view.name, shard), "engine", shard=shard,
        type="Opaque",
    )  # fmt: skip
