"""Every rule in CEL with a spec that it lets through and one that it refuses.

A rule about changes has the spec `before`, from which both are reached.
"""

from typing import Any, Final

import msgspec
from tests.e2e.api.whole import ENGINE_SPEC, SHARD_SPEC, SNAPSHOT_SPEC, Content, put, with_spec

LEDGER: Final = "ultraengine.domains.ledger:DOMAIN"
SHOP: Final = "shop.orders:DOMAIN"
TOLERATION: Final = {"key": "dedicated", "operator": "Equal", "value": "oltp"}
SPREAD: Final = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}


class Case(msgspec.Struct, frozen=True):
    """One rule, known by the beginning of its message."""

    kind: str
    where: str
    message: str
    good: Content
    bad: Content
    before: Content | None = None

    @property
    def name(self) -> str:
        """For the test's name."""
        return f"{self.kind}: {self.where}: {self.message[:60]}"


def engine(*, named: str | None = None, **spec: Any) -> Content:
    """An UltraEngine with these fields alone."""
    return with_spec("UltraEngine", spec, name=named)


def _engine(message: str, good: Content, bad: Content, *, where: str = "spec") -> Case:
    return Case("UltraEngine", where, message, good, bad)


def _change(message: str, before: Content, good: Content, bad: Content, where: str) -> Case:
    return Case("UltraEngine", where, message, good, bad, before)


def _let_in(**ingress: Any) -> Content:
    ingress = {"host": "shop.example.com", **ingress}
    return engine(gateway={"apiKeysSecretName": "keys", "ingress": ingress})


def _tolerating(**changed: Any) -> Content:
    return engine(scheduling={"tolerations": [changed]})


def _spread(**changed: Any) -> Content:
    return engine(scheduling={"topologySpreadConstraints": [{**SPREAD, **changed}]})


def _backed_up(**changed: Any) -> Content:
    return engine(backup={"location": "s3://bucket/shop", **changed})


def _restored(*, backup: Content | None = None, **changed: Any) -> Content:
    spec: Content = {"restore": {"location": "s3://bucket/before", **changed}}
    return engine(**spec) if backup is None else engine(**spec, backup=backup)


def _resources(where: str) -> Case:
    path = tuple(where.replace("[]", ".[]").split("."))
    good, bad = (
        put(with_spec("UltraEngine", ENGINE_SPEC), path, {
            "requests": {"cpu": cpu, "memory": "1Gi"}, "limits": {"cpu": 2},
        })
        for cpu in ("2000m", "2001m")
    )  # fmt: skip
    return _engine(
        "resources.requests must not be more than resources.limits", good, bad, where=where
    )


ENGINES: Final = (
    _engine(
        "metadata.name must be at most 40 lower-case letters",
        engine(named="a" * 40), engine(named="a" * 41), where="",
    ),
    _engine(
        "spec.confirmDeletion must equal metadata.name when spec.deletionPolicy is Delete",
        engine(deletionPolicy="Delete", confirmDeletion="whole"),
        engine(deletionPolicy="Delete", confirmDeletion="hole"), where="",
    ),
    _engine(
        "spec.durability: Group and Async are possible only with spec.replicasPerShard 1: "
        "copies answer for what they have synced",
        engine(durability="Async", replicasPerShard=1),
        engine(durability="Group", replicasPerShard=2),
    ),
    _engine(
        "spec.domains must not name a domain twice",
        engine(domains=[LEDGER, SHOP]), engine(domains=[LEDGER, SHOP, LEDGER]),
        where="spec.domains",
    ),
    _change(
        "spec.domains may only be appended to",
        engine(domains=[LEDGER]), engine(domains=[LEDGER, SHOP]), engine(domains=[SHOP, LEDGER]),
        "spec.domains",
    ),
    _engine(
        "spec.storage.size must be at least 256Mi",
        engine(storage={"size": "256Mi"}), engine(storage={"size": "255Mi"}),
        where="spec.storage",
    ),
    _change(
        "spec.storage.size may not shrink",
        engine(storage={"size": "10Gi"}), engine(storage={"size": "10240Mi"}),
        engine(storage={"size": "10G"}), "spec.storage",
    ),
    _change(
        "spec.storage.storageClassName cannot be changed",
        engine(storage={"storageClassName": "fast"}),
        engine(storage={"storageClassName": "fast", "size": "11Gi"}),
        engine(storage={"storageClassName": "slow"}), "spec.storage",
    ),
    _engine(
        "spec.snapshots.interval must be 0s, which is never, or 10s to 720h",
        engine(snapshots={"interval": "10s"}), engine(snapshots={"interval": "9s"}),
        where="spec.snapshots.interval",
    ),
    _engine(
        "spec.snapshots.replayTime must be 0s, which is never, or 1s to 24h",
        engine(snapshots={"replayTime": "0s"}), engine(snapshots={"replayTime": "24h1s"}),
        where="spec.snapshots.replayTime",
    ),
    _engine(
        "spec.backup.interval must be 0s, which is when a Snapshot asks for it alone, or 10s",
        _backed_up(interval="10s"), _backed_up(interval="9s"), where="spec.backup.interval",
    ),
    _change(
        "spec.restore cannot be changed",
        _restored(), _restored(), _restored(offsets=["1"]), "spec.restore",
    ),
    _change(
        "spec.restore can be given when the engine is created alone, and stays",
        engine(), engine(shards=2), _restored(), "spec",
    ),
    _engine(
        "spec.backup.location must not be spec.restore.location",
        _restored(backup={"location": "s3://bucket/shop"}),
        _restored(backup={"location": "s3://bucket/before"}),
    ),
    _engine(
        "spec.gateway.autoscaling.maxReplicas must be at least spec.gateway.replicas",
        engine(gateway={"replicas": 3, "autoscaling": {"maxReplicas": 3}}),
        engine(gateway={"autoscaling": {"maxReplicas": 1}}), where="spec.gateway",
    ),
    _engine(
        "spec.gateway.ingress.annotations must not begin with ultraengine.io/ or kubectl",
        _let_in(annotations={"cert-manager.io/issuer": "public"}),
        _let_in(annotations={"ultraengine.io/render-version": "1"}), where="spec.gateway.ingress",
    ),
    _engine(
        "spec.gateway.ingress needs spec.gateway.apiKeysSecretName",
        _let_in(), engine(gateway={"ingress": {"host": "shop.example.com"}}),
        where="spec.gateway",
    ),
    _engine(
        "spec.gateway.ingress.annotations must not end with -snippet",
        _let_in(annotations={"nginx.ingress.kubernetes.io/proxy-body-size": "8m"}),
        _let_in(annotations={"nginx.ingress.kubernetes.io/server-snippet": "deny all;"}),
        where="spec.gateway.ingress",
    ),
    _engine(
        "spec.gateway.ingress.annotations: a name has at most 63 letters",
        _let_in(annotations={"example.com/" + "A" * 63: "1"}),
        _let_in(annotations={"example.com/" + "A" * 64: "1"}), where="spec.gateway.ingress",
    ),
    _engine(
        "spec.gateway.ingress.annotations must not limit what spec.gateway.ingress.rateLimit",
        _let_in(annotations={"nginx.ingress.kubernetes.io/limit-rps": "9"}),
        _let_in(
            annotations={"nginx.ingress.kubernetes.io/limit-rps": "9"},
            rateLimit={"controller": "Nginx", "requestsPerSecond": 5},
        ), where="spec.gateway.ingress",
    ),
    _engine(
        "spec.query.targetSecretName is needed when spec.query.replicas is more than 0",
        engine(query={"replicas": 1, "targetSecretName": "database"}),
        engine(query={"replicas": 1}), where="spec.query",
    ),
    _engine(
        "spec.settings must not give a name that the operator sets itself",
        engine(settings=[{"name": "ULTRA_COMPRESS", "value": "true"}]),
        engine(settings=[{"name": "ULTRA_SHARD", "value": "1"}]), where="spec.settings[]",
    ),
    _engine(
        "spec.settings must not give a name that has a field of its own",
        engine(settings=[{"name": "ULTRA_LIMIT_SEGMENT_BYTES", "value": "67108864"}]),
        engine(settings=[{"name": "ULTRA_DURABILITY", "value": "async"}]),
        where="spec.settings[]",
    ),
    _engine(
        "spec.scheduling.tolerations: value must be left out when operator is Exists",
        _tolerating(**TOLERATION), _tolerating(**{**TOLERATION, "operator": "Exists"}),
        where="spec.scheduling.tolerations[]",
    ),
    _engine(
        "spec.scheduling.tolerations: operator must be Exists when key is left out",
        _tolerating(operator="Exists"), _tolerating(effect="NoSchedule"),
        where="spec.scheduling.tolerations[]",
    ),
    _engine(
        "spec.scheduling.tolerations: tolerationSeconds is possible only with effect NoExecute",
        _tolerating(**TOLERATION, effect="NoExecute", tolerationSeconds=60),
        _tolerating(**TOLERATION, tolerationSeconds=60),
        where="spec.scheduling.tolerations[]",
    ),
    _engine(
        "spec.scheduling.topologySpreadConstraints: minDomains is possible only with",
        _spread(minDomains=2), _spread(minDomains=2, whenUnsatisfiable="ScheduleAnyway"),
        where="spec.scheduling.topologySpreadConstraints[]",
    ),
    *map(_resources, ("spec.resources", "spec.gateway.resources", "spec.query.resources",
                      "spec.projections[].resources")),
)  # fmt: skip


def shard(*, named: str | None = None, **changed: Any) -> Content:
    """A Shard with some fields changed."""
    return with_spec("Shard", {**SHARD_SPEC, **changed}, name=named)


def snapshot(**changed: Any) -> Content:
    """A Snapshot with some fields changed."""
    return with_spec("Snapshot", {**SNAPSHOT_SPEC, **changed})


OTHERS: Final = (
    Case(
        "Shard", "", "metadata.name must be made of spec.engine, '-shard-' and spec.shard",
        shard(named="whole-shard-1"), shard(named="whole-shard-2"),
    ),
    Case(
        "Shard", "spec.engine", "spec.engine cannot be changed",
        shard(replicas=2), shard(engine="other", named="whole-shard-1"), shard(),
    ),
    Case(
        "Shard", "spec.shard", "spec.shard cannot be changed",
        shard(slots=["0-1"]), shard(shard=2, named="whole-shard-1"), shard(),
    ),
    Case(
        "Shard", "spec.slots[]", "spec.slots: a range must not start after its end",
        shard(slots=["7-7"]), shard(slots=["8-7"]),
    ),
    Case(
        "Shard", "spec.slots[]", "spec.slots: a slot is a number from 0 to 4095",
        shard(slots=["0-4095"]), shard(slots=["0-4096"]),
    ),
    Case(
        "Snapshot", "spec", "spec.engine and spec.shard cannot be changed",
        snapshot(), snapshot(shard=2), snapshot(),
    ),
)  # fmt: skip
CASES: Final = (*ENGINES, *OTHERS)
