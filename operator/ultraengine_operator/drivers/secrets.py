"""The Secrets of an engine that are ours: neither listed nor watched, but asked for by name."""

import asyncio
from typing import Final

from ultraengine_operator import names
from ultraengine_operator.cache import Cache, Key
from ultraengine_operator.cluster import KINDS, Cluster, Content
from ultraengine_operator.observed import Ref
from ultraengine_operator.specs import shared

ASKED_MAX: Final = 16
"""At the same time, of one engine."""


async def look_for_secrets(cluster: Cluster, cache: Cache, key: Key, content: Content) -> None:
    """Bring those that the engine may have into the cache.  Raises `Refused`."""
    room = asyncio.Semaphore(ASKED_MAX)

    async def look(name: str) -> None:
        ref = Ref("Secret", name)
        async with room:
            found = await cluster.get(KINDS["Secret"], key[0], ref.name)
        if found is None:
            cache.forget(key, ref)
        else:
            cache.put(found)

    spec = content.get("spec", {})
    leases = [ref.name for ref in cache.children(key) if ref.kind == "Lease"]
    queried = spec.get("query", {}).get("replicas", 0)
    wanted = {f"{key[1]}-{name}" for name in shared.keys(queried)}
    if leases or spec.get("replicasPerShard", 1) != 1:
        wished = [names.leaf_name(key[1], shard) for shard in range(spec.get("shards", 1))]
        wanted |= {names.authority_name(key[1]), *wished, *(f"{one}-tls" for one in leases)}
    await asyncio.gather(*(look(name) for name in sorted(wanted)))
