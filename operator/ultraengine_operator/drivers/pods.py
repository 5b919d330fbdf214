"""`Shards` and `BackedUp` over HTTP: by a shard's Service, with the engine's hop key."""

import base64
from collections.abc import Callable
from typing import Final

import aiohttp
import msgspec

from ultraengine.edge.auth import KnownCaller
from ultraengine.gateway.hop import hop_headers
from ultraengine.model.ids import ShardId
from ultraengine.router.driver import Address
from ultraengine_operator import names
from ultraengine_operator.backups import Image, NotTaken, Report, image_of
from ultraengine_operator.cache import Key
from ultraengine_operator.cluster import KINDS, Cluster, Content, Refused
from ultraengine_operator.drivers.reaching import by_service
from ultraengine_operator.reasons import Reason

ASK_S: Final = 2.0
CONNECT_S: Final = 5.0
BACK_UP_S: Final = 3_600.0
"""Longest wait for a backup. The shard ends one that takes longer, and the next begins from it."""
_CALLER: Final = KnownCaller("system", names.MANAGER, frozenset({"admin"}))


class _Done(msgspec.Struct):
    result: Report


class _Wrong(msgspec.Struct):
    """The part of a problem (RFC 9457) that is told on."""

    code: str = ""
    detail: str = ""


class PodShards:
    """Asks through the shard's Service, or the pod that leads; silence is an answer too."""

    def __init__(
        self,
        cluster: Cluster,
        session: aiohttp.ClientSession,
        address: Callable[[Key, ShardId], Address] = by_service,
    ) -> None:
        """`address`: where a shard of an engine listens."""
        self._cluster = cluster
        self._session = session
        self._address = address

    async def _headers(self, namespace: str, engine: str) -> dict[str, str] | None:
        secret = await self._cluster.get(KINDS["Secret"], namespace, f"{engine}-hop")
        if secret is None:
            return None
        key = base64.b64decode(secret["data"][names.KEY_FILE]).decode()
        return dict(hop_headers(key, _CALLER))

    async def ask(
        self, namespace: str, engine: str, shard: int, pod: str | None = None
    ) -> Content | None:
        """A shard's own status, from this pod of several; None when it does not answer."""
        service = names.shard_name(engine, shard)
        at = service if pod is None else f"{pod}.{names.peers_name(engine, shard)}"
        host = f"{at}.{namespace}.svc"
        url = f"http://{host}:{names.ADMIN_PORT}/admin/v1/status"
        try:
            headers = await self._headers(namespace, engine)
            if headers is None:
                return None
            timeout = aiohttp.ClientTimeout(total=ASK_S)
            async with self._session.get(url, headers=headers, timeout=timeout) as answer:
                if answer.status != 200:
                    return None
                found: Content = msgspec.json.decode(await answer.read())
                return found
        except (aiohttp.ClientError, TimeoutError, Refused, KeyError, ValueError):
            return None

    async def back_up(self, namespace: str, engine: str, shard: int, *, last: bool) -> Image:
        """See `BackedUp`."""
        where = self._address((namespace, engine), ShardId(shard))
        root = f"http://{where.host}:{where.port}/admin/v1"
        try:
            headers = await self._headers(namespace, engine)
            if headers is None:
                raise NotTaken(Reason.SHARD_UNREACHABLE, f"there is no Secret {engine}-hop")
            if last:
                await self._order(f"{root}/pause", headers, b'{"reason":"the engine is deleted"}')
            answer = await self._order(f"{root}/backup", headers, b"")
        except (aiohttp.ClientError, TimeoutError, OSError, Refused) as error:
            told = f"{type(error).__name__}: {error}"
            raise NotTaken(Reason.SHARD_UNREACHABLE, told) from error
        return image_of(shard, msgspec.json.decode(answer, type=_Done).result)

    async def _order(self, url: str, headers: dict[str, str], body: bytes) -> bytes:
        timeout = aiohttp.ClientTimeout(total=BACK_UP_S, sock_connect=CONNECT_S)
        typed = {**headers, "Content-Type": "application/json"}
        async with self._session.post(url, headers=typed, data=body, timeout=timeout) as answer:
            content = await answer.read()
            if answer.status == 200:
                return content
        if answer.status == 404:
            told = "the shard has no place for backups; it is to be restarted with spec.backup"
            raise NotTaken(Reason.BACKUP_NOT_CONFIGURED, told)
        raise NotTaken(Reason.BACKUP_FAILED, _told(answer.status, content))


def _told(status: int, content: bytes) -> str:
    try:
        found = msgspec.json.decode(content, type=_Wrong)
    except msgspec.MsgspecError:
        return f"HTTP {status}"
    return f"{found.code or status}: {found.detail}"
