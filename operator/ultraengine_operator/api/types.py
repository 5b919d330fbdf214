"""UltraEngine, Shard and Snapshot: specs as people write them, with the defaults of the CRDs."""

from typing import Any, Literal

import msgspec

Durability = Literal["Sync", "Group", "Async"]
SnapshotMode = Literal["Fork", "Cooperative", "Inline"]
DeletionPolicy = Literal["Retain", "Snapshot", "Delete"]
Reconciliation = Literal["Active", "Paused", "Plan"]
Resources = dict[str, Any]


class _Fields(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Fields in camelCase; unknown ones were refused or pruned by the API server."""


class Storage(_Fields, frozen=True, kw_only=True):
    """The volume of each replica."""

    size: str = "10Gi"
    storage_class_name: str | None = None


class Snapshots(_Fields, frozen=True, kw_only=True):
    """When shards take images; what is not set is the engine's default."""

    commands: int | None = None
    interval: str | None = None
    replay_time: str | None = None
    kept: int | None = None
    mode: SnapshotMode | None = None


class Backup(_Fields, frozen=True, kw_only=True):
    """Where and how often shards back themselves up."""

    location: str
    credentials_secret_name: str | None = None
    interval: str = "1h"


class Restore(_Fields, frozen=True, kw_only=True):
    """What new volumes are filled with, before the first start."""

    location: str
    credentials_secret_name: str | None = None
    time: str | None = None
    offsets: tuple[str, ...] = ()
    """By shard: the first offset that is not wanted; for others, `time` counts."""


class Autoscaling(_Fields, frozen=True, kw_only=True):
    """A HorizontalPodAutoscaler for the gateway."""

    max_replicas: int
    target_cpu: int = msgspec.field(default=70, name="targetCPUUtilizationPercentage")


class RateLimit(_Fields, frozen=True, kw_only=True):
    """How much one address may ask of an Ingress, in the words of its controller."""

    controller: Literal["Nginx"]
    requests_per_second: int
    connections: int | None = None


class Ingress(_Fields, frozen=True, kw_only=True):
    """A way in to the gateway from outside of the cluster."""

    host: str
    class_name: str | None = None
    tls_secret_name: str | None = None
    rate_limit: RateLimit | None = None
    annotations: dict[str, str] = {}


class Gateway(_Fields, frozen=True, kw_only=True):
    """The front that clients talk to."""

    replicas: int = 2
    resources: Resources = {}
    autoscaling: Autoscaling | None = None
    api_keys_secret_name: str | None = None
    ingress: Ingress | None = None


class Query(_Fields, frozen=True, kw_only=True):
    """Reads over SQL."""

    replicas: int = 0
    target_secret_name: str | None = None
    resources: Resources = {}


class Projection(_Fields, frozen=True, kw_only=True):
    """One worker that fills a database."""

    name: str
    target_secret_name: str
    resources: Resources = {}


class Setting(_Fields, frozen=True, kw_only=True):
    """One further setting of the engine."""

    name: str
    value: str


class Scheduling(_Fields, frozen=True, kw_only=True):
    """Where pods may run."""

    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    topology_spread_constraints: list[dict[str, Any]] | None = None
    priority_class_name: str | None = None


class EngineSpec(_Fields, frozen=True, kw_only=True):
    """What is wished of an engine."""

    image: str | None = None
    shards: int = 1
    replicas_per_shard: int = 3
    domains: tuple[str, ...] = ("ultraengine.domains.ledger:DOMAIN",)
    durability: Durability = "Sync"
    storage: Storage = Storage()
    snapshots: Snapshots = Snapshots()
    backup: Backup | None = None
    restore: Restore | None = None
    resources: Resources = {}
    gateway: Gateway = Gateway()
    query: Query = Query()
    projections: list[Projection] = []
    settings: list[Setting] = []
    scheduling: Scheduling = Scheduling()
    deletion_policy: DeletionPolicy = "Retain"
    confirm_deletion: str | None = None
    reconciliation: Reconciliation = "Active"


class Metadata(_Fields, frozen=True, kw_only=True):
    """The part of an object's metadata that decisions are made of."""

    name: str
    namespace: str
    uid: str
    generation: int = 1
    annotations: dict[str, str] = {}
    finalizers: list[str] = []
    deletion_timestamp: str | None = None


class UltraEngine(_Fields, frozen=True, kw_only=True):
    """An engine as it was applied."""

    metadata: Metadata
    spec: EngineSpec = EngineSpec()


class ShardSpec(_Fields, frozen=True, kw_only=True):
    """One shard of an engine; written by the operator, read by people."""

    engine: str
    shard: int
    slots: list[str] = []
    replicas: int = 1


class SnapshotSpec(_Fields, frozen=True, kw_only=True):
    """A request for images of one shard, or of all."""

    engine: str
    shard: int | None = None
