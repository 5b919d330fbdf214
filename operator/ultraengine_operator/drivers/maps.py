"""The published shard map for coordinators of moves: `rebalancing.driver.Maps` on a ConfigMap.

A swap is a patch that names the uid and the resourceVersion that were read last: it lands on that
very object in that very state or not at all.  One that meets a map that was only labelled is
refused, too, and then the map is read again.
"""

import errno
from collections.abc import Mapping
from typing import Any, Final

from ultraengine.ports import OutcomeUnknown
from ultraengine.router.shard_map import MapRefused, ShardMap
from ultraengine_operator import names
from ultraengine_operator.cluster import KINDS, Cluster, Refused

_KIND: Final = KINDS["ConfigMap"]
_BUSY: Final = (408, 429)


class ConfigMapMaps:
    """The map of one engine."""

    def __init__(self, cluster: Cluster, namespace: str, engine: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = f"{engine}-shardmap"
        self._seen: Mapping[str, Any] | None = None
        """The object as it was read last, or as a swap has left it."""

    async def read(self) -> ShardMap:
        """The newest one.

        Raises ConnectionError when that may pass, FileNotFoundError, PermissionError, `MapRefused`.
        """
        try:
            found = await self._cluster.get(_KIND, self._namespace, self._name)
        except Refused as refused:
            if refused.permanent:
                raise PermissionError(errno.EACCES, str(refused)) from refused
            raise ConnectionError(errno.EIO, str(refused)) from refused
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such ConfigMap", self._name)
        self._seen = found
        return _map_of(found)

    async def swap(self, shard_map: ShardMap) -> bool:
        """Publish the version after the one that was read last, onto it alone; False when it is
        another by now.

        Raises `OutcomeUnknown` when it may have been published, other OSErrors when it was not.
        """
        if self._seen is None:
            await self.read()
        seen, self._seen = self._seen, None
        if seen is None or _map_of(seen).version != shard_map.version - 1:
            return False
        metadata = seen["metadata"]
        wish = {
            "metadata": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
            "data": {names.MAP_KEY: shard_map.encode().decode()},
        }
        try:
            self._seen = await self._cluster.merge(_KIND, self._namespace, self._name, wish)
        except Refused as refused:
            if refused.status in (404, 409) or await self._is_another(refused, metadata["uid"]):
                return False
            if refused.status in _BUSY:
                raise ConnectionError(errno.EAGAIN, str(refused)) from refused
            if refused.permanent:
                raise PermissionError(errno.EACCES, str(refused)) from refused
            raise OutcomeUnknown(errno.EIO, str(refused)) from refused
        return True

    async def _is_another(self, refused: Refused, uid: str) -> bool:
        """Whether a patch was invalid because it named the uid of an object that is gone."""
        if refused.status != 422:
            return False
        found = await self._cluster.get(_KIND, self._namespace, self._name)
        return found is None or found["metadata"]["uid"] != uid


def _map_of(content: Mapping[str, Any]) -> ShardMap:
    try:
        return ShardMap.decode(content["data"][names.MAP_KEY].encode())
    except KeyError as error:
        raise MapRefused(f"the ConfigMap has no {names.MAP_KEY}") from error
