"""A coordinator of moves for one engine: its shards by their Services, its map by the ConfigMap."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from ultraengine.model.ids import ShardId
from ultraengine.rebalancing.driver import Mover, Shards
from ultraengine.router.driver import Address, Links
from ultraengine_operator import names
from ultraengine_operator.cache import Key
from ultraengine_operator.cluster import KINDS, Cluster
from ultraengine_operator.drivers.maps import ConfigMapMaps

SWEEP_S: Final = 5.0
"""Between two looks for answers that are late."""


def by_service(key: Key, shard: ShardId) -> Address:
    """The admin port of a shard's Service."""
    namespace, engine = key
    host = f"{names.shard_name(engine, shard)}.{namespace}.svc"
    return Address(host=host, port=names.ADMIN_PORT)


class ShardServices:
    """Reaches the shards of every engine; `Rebalancer`'s `Reach`."""

    def __init__(
        self, cluster: Cluster, address: Callable[[Key, ShardId], Address] = by_service
    ) -> None:
        """`address`: where a shard of an engine listens."""
        self._cluster = cluster
        self._address = address

    @asynccontextmanager
    async def __call__(self, key: Key, shards: Sequence[ShardId]) -> AsyncIterator[Mover]:
        """Raises `Refused`, KeyError without a hop key, and as `Maps.read`."""
        namespace, engine = key
        secret = await self._cluster.get(KINDS["Secret"], namespace, f"{engine}-hop")
        if secret is None:
            raise KeyError(f"there is no Secret {engine}-hop")
        hop_key = base64.b64decode(secret["data"][names.KEY_FILE]).decode()
        maps = ConfigMapMaps(self._cluster, namespace, engine)
        addresses = {shard: self._address(key, shard) for shard in shards}
        links = Links(addresses, await maps.read())
        sweeping = asyncio.create_task(_sweep(links))
        try:
            yield Mover(Shards(links, hop_key), maps)
        finally:
            sweeping.cancel()
            await links.close()


async def _sweep(links: Links) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        links.sweep()
