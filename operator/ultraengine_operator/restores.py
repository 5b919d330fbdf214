"""How far an engine is whose volumes are filled from backups (`spec.restore`)."""

from ultraengine.router.shard_map import ShardMap
from ultraengine_operator.api.types import EngineSpec
from ultraengine_operator.observed import Observed
from ultraengine_operator.reasons import Problem, Reason


def restored_from(spec: EngineSpec, shard_map: ShardMap) -> str:
    """The place that volumes are being filled from; nothing once all shards have been ready, which
    is when the first version of the map ends."""
    if spec.restore is None or shard_map.version > 1:
        return ""
    return spec.restore.location


def failures(spec: EngineSpec, observed: Observed, shard_map: ShardMap) -> list[Problem]:
    """Shards whose filling has ended without a volume that is proved. Kubernetes tries again."""
    if not restored_from(spec, shard_map):
        return []
    return [
        Problem(
            Reason.RESTORE_FAILED, f"shard {pod.shard}: {pod.not_filled}", holds=False
        )
        for pod in observed.pods
        if pod.not_filled
    ]  # fmt: skip
