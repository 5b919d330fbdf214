"""A shard: its StatefulSet, Services, PodDisruptionBudget and Shard object."""

from collections.abc import Sequence
from typing import Final

from ultraengine.model.ids import ShardId
from ultraengine_operator import names
from ultraengine_operator.api.quantities import seconds
from ultraengine_operator.api.types import Restore
from ultraengine_operator.specs import backups, replicas
from ultraengine_operator.specs.pods import (
    container_security,
    hop_and_map,
    pod_spec,
    ports,
    probes,
    temporary,
    variables,
)
from ultraengine_operator.specs.view import EngineView, Manifest, child

STARTUP_FAILURES: Final = 900
"""Half an hour, at one look in two seconds. A shard answers while its log replays, so only a node
that is very slow to start it comes near."""
GRACE_S: Final = 60
READY_COPY: Final = "/readyz?role=any"
"""A copy that follows is ready while it is in sync: a disruption budget of one counts it then."""


def selector(view: EngineView, shard: int) -> dict[str, str]:
    """Labels of one shard's pods."""
    return names.labels(view.name, "engine", shard)


def told(view: EngineView, shard: int) -> dict[str, str]:
    """What a process with the shard's state is told, with however many copies."""
    spec = view.engine.spec
    known = {
        "ULTRA_SHARD": str(shard),
        "ULTRA_HOST": "0.0.0.0",  # noqa: S104 - the pod's own network.
        "ULTRA_DATA": "/data",
        "ULTRA_HOP_KEY": f"/etc/ultra/hop/{names.KEY_FILE}",
        "ULTRA_MAP": f"/etc/ultra/map/{names.MAP_KEY}",
        "ULTRA_ENGINE_UID": view.engine_uid,
        "ULTRA_DOMAINS": ",".join(spec.domains),
        "ULTRA_DURABILITY": spec.durability.lower(),
    }
    shots = spec.snapshots
    if shots.commands is not None:
        known["ULTRA_SNAPSHOT_COMMANDS"] = str(shots.commands)
    if shots.interval is not None:
        known["ULTRA_SNAPSHOT_INTERVAL_S"] = seconds(shots.interval)
    if shots.replay_time is not None:
        known["ULTRA_SNAPSHOT_REPLAY_S"] = seconds(shots.replay_time)
    if shots.kept is not None:
        known["ULTRA_SNAPSHOTS_KEPT"] = str(shots.kept)
    if shots.mode is not None:
        known["ULTRA_SNAPSHOT_MODE"] = shots.mode.lower()
    known.update({setting.name: setting.value for setting in spec.settings})
    return known


def environment(view: EngineView, shard: int) -> list[Manifest]:
    """What an engine pod is told."""
    known = told(view, shard)
    known.update(backups.settings(view.engine.spec.backup))
    others = backups.credentials(view.engine.spec.backup)
    if view.replicated:
        known.update(replicas.settings(view, shard))
        others.append(replicas.number())
    return variables(known) + others


def _claim(view: EngineView, shard: int) -> Manifest:
    """What a copy asks for as its volume."""
    storage = view.engine.spec.storage
    size = view.claim_sizes.get(shard, storage.size)
    claim: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
    }
    if storage.storage_class_name is not None:
        claim["storageClassName"] = storage.storage_class_name
    return claim


def _restoring(
    view: EngineView, shard: int, wish: Restore, mounts: Sequence[tuple[Manifest, Manifest]]
) -> Manifest:
    """Fills an empty volume before the engine's container starts; once, as it sees by itself."""
    known = told(view, shard)
    container: Manifest = {
        "name": names.FILLER,
        "image": view.image,
        "args": backups.order(wish, shard, known),
        "env": variables(known) + backups.credentials(wish),
        "securityContext": container_security(),
        # Why it has failed is then said by the pod's status.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            *(mount for volume, mount in mounts if volume["name"] in {"tmp", "map"}),
        ],
    }
    if view.engine.spec.resources:
        container["resources"] = view.engine.spec.resources
    return container


def stateful_set(view: EngineView, shard: int) -> Manifest:
    """The set of one shard's replicas. Pods are replaced by the operator alone (OnDelete)."""
    spec = view.engine.spec
    name = names.shard_name(view.name, shard)
    chosen = selector(view, shard)
    several = view.replicated
    mounts = [temporary(), *hop_and_map(view)]
    if several:
        mounts.append(replicas.certificates(view, shard))
    container: Manifest = {
        "name": "engine",
        "image": view.image,
        "args": ["serve"],
        "env": environment(view, shard),
        "ports": [*ports(), replicas.port()] if several else ports(),
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            *(mount for _, mount in mounts),
        ],
        **probes(startup_failures=STARTUP_FAILURES, ready=READY_COPY if several else "/readyz"),
    }
    if spec.resources:
        container["resources"] = spec.resources
    claim = _claim(view, shard)
    pod = pod_spec(
        view, "engine", container, mounts,
        grace_s=GRACE_S, labels=names.labels(view.name, "engine"),
    )  # fmt: skip
    if spec.restore is not None:
        pod["initContainers"] = [_restoring(view, shard, spec.restore, mounts)]
    marks = backups.marks(spec.backup, spec.restore) | (
        {names.REPLICATED: "true"} if several else {}
    )
    copies = {names.COPIES: str(view.copies)} if several else {}
    made_with = view.claim_copies.get(shard, str(view.copies) if several else "")
    claimed = {names.COPIES: made_with} if made_with else {}
    if several:
        pod.update(
            serviceAccountName=name,
            automountServiceAccountToken=True,
            affinity=replicas.apart(view, shard),
        )
    made = child(
        view, "StatefulSet", "apps/v1", name, "engine", shard=shard,
        spec={
            "serviceName": f"{name}-peers",
            "replicas": view.copies,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "persistentVolumeClaimRetentionPolicy": {
                "whenDeleted": "Retain", "whenScaled": "Retain",
            },
            "selector": {"matchLabels": chosen},
            "template": {
                "metadata": {"labels": {**chosen, **marks}},
                "spec": pod,
            },
            "volumeClaimTemplates": [
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "metadata": {
                        "name": "data",
                        "labels": {**chosen, names.ENGINE_UID: view.engine_uid, **claimed},
                    },
                    "spec": claim,
                }
            ],
        },
    )  # fmt: skip
    proof = {names.PROOF: view.proofs[shard]} if shard in view.proofs else {}
    made["metadata"]["annotations"].update({**copies, **proof})
    return made


def _service_ports() -> list[Manifest]:
    return [
        {"name": "http", "port": names.HTTP_PORT, "targetPort": "http", "protocol": "TCP"},
        {"name": "admin", "port": names.ADMIN_PORT, "targetPort": "admin", "protocol": "TCP"},
    ]


def peers_service(view: EngineView, shard: int) -> Manifest:
    """Stable names of the replicas, ready or not: they must find each other to become ready."""
    between = {"name": "replica", "port": names.REPLICA_PORT, "targetPort": "replica",
               "protocol": "TCP"}  # fmt: skip
    return child(
        view, "Service", "v1", names.peers_name(view.name, shard), "engine",
        shard=shard,
        spec={
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector(view, shard),
            "ports": [*_service_ports(), between] if view.replicated else _service_ports(),
        },
    )  # fmt: skip


def leader_service(view: EngineView, shard: int) -> Manifest:
    """The address of a shard for people and tools: the pod that leads, by its label.

    Gateways ask the copies themselves: a failover needs no operator.
    """
    leads = {names.ROLE: "leader"} if view.replicated else {}
    return child(
        view, "Service", "v1", names.shard_name(view.name, shard), "engine", shard=shard,
        spec={"selector": {**selector(view, shard), **leads}, "ports": _service_ports()},
    )  # fmt: skip


def disruption_budget(view: EngineView, shard: int) -> Manifest:
    """At most one replica away; a pod that is not ready may always be evicted."""
    return child(
        view, "PodDisruptionBudget", "policy/v1", names.shard_name(view.name, shard), "engine",
        shard=shard,
        spec={
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(view, shard)},
        },
    )  # fmt: skip


def shard_object(view: EngineView, shard: int) -> Manifest:
    """What people see of a shard."""
    ranges = view.shard_map.slots_of(ShardId(shard))
    return child(
        view, "Shard", names.API_VERSION, names.shard_name(view.name, shard), "engine",
        shard=shard,
        spec={
            "engine": view.name,
            "shard": shard,
            "slots": [f"{start}-{end - 1}" for start, end in ranges],
            "replicas": view.wished,
        },
    )  # fmt: skip
