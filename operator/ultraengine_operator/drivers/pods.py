"""`Shards` over HTTP: a shard's own status, by its Service, with the engine's hop key."""

import base64
from typing import Final

import aiohttp
import msgspec

from ultraengine.edge.auth import KnownCaller
from ultraengine.gateway.hop import hop_headers
from ultraengine_operator import names
from ultraengine_operator.cluster import KINDS, Cluster, Content, Refused

ASK_S: Final = 2.0
_CALLER: Final = KnownCaller("system", names.MANAGER, frozenset({"admin"}))


class PodShards:
    """Asks through the shard's Service, or the pod that leads; silence is an answer too."""

    def __init__(self, cluster: Cluster, session: aiohttp.ClientSession) -> None:
        self._cluster = cluster
        self._session = session

    async def ask(
        self, namespace: str, engine: str, shard: int, pod: str | None = None
    ) -> Content | None:
        """A shard's own status, from this pod of several; None when it does not answer."""
        service = names.shard_name(engine, shard)
        at = service if pod is None else f"{pod}.{names.peers_name(engine, shard)}"
        host = f"{at}.{namespace}.svc"
        url = f"http://{host}:{names.ADMIN_PORT}/admin/v1/status"
        try:
            secret = await self._cluster.get(KINDS["Secret"], namespace, f"{engine}-hop")
            if secret is None:
                return None
            key = base64.b64decode(secret["data"][names.KEY_FILE]).decode()
            timeout = aiohttp.ClientTimeout(total=ASK_S)
            headers = dict(hop_headers(key, _CALLER))
            async with self._session.get(url, headers=headers, timeout=timeout) as answer:
                if answer.status != 200:
                    return None
                found: Content = msgspec.json.decode(await answer.read())
                return found
        except (aiohttp.ClientError, TimeoutError, Refused, KeyError, ValueError):
            return None
