"""What pods share: the shard map, and Secrets to be filled.

Keys are not among them: they are random, so no builder can make them (`actions.MakeKey`).
"""

from ultraengine_operator import names
from ultraengine_operator.specs.view import EngineView, Manifest, child


def shard_map(view: EngineView) -> Manifest:
    """The first map. It is created once and never applied again: slots move by another flow, and
    its version ends when all shards are ready (`plan.SealMap`).

    It has no owner: whoever adopts the volumes later needs to know whose slots are where.
    """
    return child(
        view, "ConfigMap", "v1", f"{view.name}-shardmap", "router", owned=False,
        data={names.MAP_KEY: view.shard_map.encode().decode()},
    )  # fmt: skip


def keys(query_replicas: int) -> dict[str, str]:
    """The Secrets with random keys that an engine needs: what follows its name, and whose."""
    return {"hop": "router", "cursors": "query"} if query_replicas else {"hop": "router"}


def key_secret(view: EngineView, name: str, component: str) -> Manifest:
    """A Secret that is to get a random key: `NAME-hop`, which gateways and shards share, and
    `NAME-cursors`, with which all query pods sign."""
    return child(view, "Secret", "v1", f"{view.name}-{name}", component, type="Opaque")
