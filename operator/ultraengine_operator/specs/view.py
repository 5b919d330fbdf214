"""What builders look at: the wish, and the few facts of the world that rendering depends on."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ultraengine.router.shard_map import ShardMap
from ultraengine_operator import names
from ultraengine_operator.api.types import UltraEngine

Manifest = dict[str, Any]

NEVER_PRUNED: Final = {
    "argocd.argoproj.io/compare-options": "IgnoreExtraneous",
    "argocd.argoproj.io/sync-options": "Prune=false",
}
"""On what has no owner. Argo CD may take the label `app.kubernetes.io/instance` for its own, and
would remove whatever has it and neither an owner nor a place in the repository."""


class EngineView(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an engine's children are a function of."""

    engine: UltraEngine
    image: str
    engine_uid: str
    """Whose volumes these are: the engine's own uid, or that of the one it has adopted."""
    render_version: int
    shards: tuple[int, ...]
    """The shards that are to be: those wished, and those that still hold slots."""
    claim_sizes: Mapping[int, str]
    """The size in each existing StatefulSet's template, which cannot be changed."""
    shard_map: ShardMap
    copies: int = 1
    """Pods of each shard, its leader's included: as many as are wished, or as are still needed."""
    wished: int = 1
    """How many copies each shard is to have."""
    replicated: bool = False
    """Whether shards keep a record, as they do for ever once they have had several copies."""
    claim_copies: Mapping[int, str] = {}
    """The number of copies in each existing StatefulSet's template of claims, which cannot be
    changed; empty where the shard was made with one."""
    proofs: Mapping[int, str] = {}
    """By shard, what is kept of why its pods have their image (`upgrade.Proof`)."""

    @property
    def name(self) -> str:
        """Name of the engine."""
        return self.engine.metadata.name

    @property
    def namespace(self) -> str:
        """Namespace of the engine."""
        return self.engine.metadata.namespace


def child(
    view: EngineView,
    kind: str,
    api_version: str,
    name: str,
    component: str,
    *,
    shard: int | None = None,
    owned: bool = True,
    **content: Any,
) -> Manifest:
    """An object with the labels and the owner that every child has."""
    tag = view.image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    labels = names.labels(view.name, component, shard)
    labels["app.kubernetes.io/version"] = tag or "unknown"
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": view.namespace,
        "labels": labels,
        "annotations": {names.RENDER_VERSION: str(view.render_version)},
    }
    if owned:
        metadata["ownerReferences"] = [
            {
                "apiVersion": names.API_VERSION,
                "kind": "UltraEngine",
                "name": view.name,
                "uid": view.engine.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
    else:
        labels[names.ENGINE_UID] = view.engine_uid
        metadata["annotations"].update(NEVER_PRUNED)
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}
