"""What shards and gateways share: service accounts and the shard map.

The hop key is not among them: it is random, so no builder can make it (`plan.MakeHopKey`).
"""

from ultraengine_operator import names
from ultraengine_operator.specs.view import EngineView, Manifest, child


def service_account(view: EngineView, component: str) -> Manifest:
    """An identity without a token: no pod of an engine talks to the API server."""
    return child(
        view, "ServiceAccount", "v1", f"{view.name}-{component}", component,
        automountServiceAccountToken=False,
    )  # fmt: skip


def shard_map(view: EngineView) -> Manifest:
    """The first map. It is created once and never applied again: slots move by another flow, and
    its version ends when all shards are ready (`plan.SealMap`).

    It has no owner: whoever adopts the volumes later needs to know whose slots are where.
    """
    return child(
        view, "ConfigMap", "v1", f"{view.name}-shardmap", "router", owned=False,
        data={names.MAP_KEY: view.shard_map.encode().decode()},
    )  # fmt: skip


def hop_secret(view: EngineView, key: str) -> Manifest:
    """The secret that gateways and shards share."""
    return child(
        view, "Secret", "v1", f"{view.name}-hop", "router",
        type="Opaque", stringData={names.HOP_FILE: key},
    )  # fmt: skip
