"""Objects of the API server as typed values, or every problem of a spec at once.

The CRDs refuse most of this already; a spec that was stored under an older CRD comes here too.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from ultraengine_operator.api.quantities import quantity, seconds
from ultraengine_operator.api.types import EngineSpec, Metadata, UltraEngine
from ultraengine_operator.reasons import Problem, Reason

SHARDS_MAX: Final = 256
REPLICAS_MAX: Final = 3
OURS: Final = frozenset(
    f"ULTRA_{name}"
    for name in ("SHARD", "HOST", "PORT", "ADMIN_PORT", "DATA", "HOP_KEY", "MAP", "ENGINE_UID",
                 "DOMAINS", "DURABILITY", "SOCKET", "API_KEYS", "SHARD_ADDRESS", "KEYLESS",
                 "REPLICAS", "REPLICA", "REPLICA_HOST", "CLUSTER", "RECORD", "RECORD_LEASE",
                 "REPLICA_TLS")
)  # fmt: skip
"""Settings that the operator makes from other fields."""


def metadata_of(content: Mapping[str, Any]) -> Metadata:
    """The metadata alone, which the API server guarantees even where a spec is wrong."""
    return msgspec.convert(content["metadata"], Metadata)


def engine_of(content: Mapping[str, Any]) -> UltraEngine:
    """Read an UltraEngine.  Raises `Problem` SpecInvalid with each field that is wrong."""
    try:
        engine = msgspec.convert(content, UltraEngine)
    except msgspec.ValidationError as error:
        raise Problem(Reason.SPEC_INVALID, str(error)) from error
    mistakes = list(_mistakes(engine.spec))
    if mistakes:
        raise Problem(Reason.SPEC_INVALID, "; ".join(mistakes))
    return engine


def _mistakes(spec: EngineSpec) -> Iterable[str]:
    if not 1 <= spec.shards <= SHARDS_MAX:
        yield f"spec.shards: {spec.shards} is not 1 to {SHARDS_MAX}"
    if not 1 <= spec.replicas_per_shard <= REPLICAS_MAX:
        yield f"spec.replicasPerShard: {spec.replicas_per_shard} is not 1 to {REPLICAS_MAX}"
    if spec.durability != "Sync" and spec.replicas_per_shard > 1:
        yield f"spec.durability: {spec.durability} is for replicasPerShard 1 alone"
    if not spec.domains:
        yield "spec.domains: at least one"
    yield from _unreadable("spec.storage.size", spec.storage.size, quantity)
    yield from _unreadable("spec.snapshots.interval", spec.snapshots.interval, seconds)
    yield from _unreadable("spec.snapshots.replayTime", spec.snapshots.replay_time, seconds)
    if spec.backup is not None:
        yield from _unreadable("spec.backup.interval", spec.backup.interval, seconds)
        if not spec.backup.location.startswith("s3://"):
            # A directory would be in the pod: on the very volume, or gone with it.
            yield f"spec.backup.location: {spec.backup.location} is not s3://bucket/prefix"
    scaling = spec.gateway.autoscaling
    if scaling is not None and scaling.max_replicas < spec.gateway.replicas:
        yield "spec.gateway.autoscaling.maxReplicas: below spec.gateway.replicas"
    for at, setting in enumerate(spec.settings):
        if not setting.name.startswith("ULTRA_") or setting.name in OURS:
            yield f"spec.settings[{at}]: {setting.name} is not a setting to give here"
        if any(earlier.name == setting.name for earlier in spec.settings[:at]):
            yield f"spec.settings[{at}]: {setting.name} is there twice"


def _unreadable(path: str, text: str | None, read: Callable[[str], object]) -> Iterable[str]:
    if text is None:
        return
    try:
        read(text)
    except ValueError as error:
        yield f"{path}: {error}"
