"""The events of one shard, from its stream to a front's: passed on as they came.

A shard that goes away is asked again from the offset behind the last event, so that a
subscriber sees every event once and in order, whatever happens to the shard's process.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

import aiohttp
import msgspec

from ultraengine.edge.codec import Codec
from ultraengine.gateway.envelope import DECODE_ERRORS
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import ShardId
from ultraengine.router.driver import Address

FIRST_DELAY_S: Final = 0.1
DELAY_MAX_S: Final = 2.0


class _Seen(msgspec.Struct):
    """As much of a frame as says what it is."""

    op: str = ""
    offset: int = -1
    code: str = ""
    detail: str = ""


_DECODE: Final = {
    "json": msgspec.json.Decoder(_Seen).decode,
    "msgpack": msgspec.msgpack.Decoder(_Seen).decode,
}


class Relay:
    """One subscription at one shard."""

    def __init__(
        self,
        shard: ShardId,
        where: Callable[[], Address],
        headers: Mapping[str, str],
        codec: Codec,
        subprotocol: str,
    ) -> None:
        """`where`: asked each time, because of several copies another one may lead by then;
        `headers` name the caller to the shard."""
        self._shard = shard
        self._where = where
        self._headers = headers
        self._codec = codec
        self._subprotocol = subprotocol

    async def frames(
        self, from_offset: int, domains: Sequence[str] | None = None
    ) -> AsyncIterator[bytes]:
        """Every event from an offset on, as it came, for ever; ``subscribed`` once before them, and
        ``position`` between them, with the shard's number.

        Raises `EngineError`: what the shard says of the subscription, as TOO_OLD.
        """
        at, delay_s, subscribed = from_offset, FIRST_DELAY_S, False
        while True:
            address = self._where()
            at_host = "shard" if address.path is not None else f"{address.host}:{address.port}"
            try:
                async with (
                    self._session(address) as session,
                    session.ws_connect(
                        f"http://{at_host}/v1/stream",
                        protocols=(self._subprotocol,),
                        max_msg_size=0,
                    ) as socket,
                ):
                    await self._ask(socket, at, domains)
                    async for message in socket:
                        if message.type not in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY}:
                            break
                        frame: bytes = message.data
                        if isinstance(frame, str):
                            frame = frame.encode()
                        seen = _DECODE[self._codec.name](frame)
                        if seen.op == "event":
                            delay_s = FIRST_DELAY_S
                            at = seen.offset + 1
                            yield frame
                        elif seen.op == "position":
                            at = seen.offset
                            yield self._own("position", offset=at)
                        elif seen.op == "subscribed" and not subscribed:
                            subscribed = True
                            yield self._own("subscribed", **{"from": from_offset})
                        elif seen.op == "error":
                            raise EngineError(seen.detail, code=seen.code)
            except (aiohttp.ClientError, OSError, *DECODE_ERRORS):
                pass  # It is away, or ends: asked again below.
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, DELAY_MAX_S)

    def _own(self, op: str, **members: int) -> bytes:
        return self._codec.encode({"op": op, "shard": self._shard, **members})

    def _session(self, address: Address) -> aiohttp.ClientSession:
        unix = None if address.path is None else aiohttp.UnixConnector(address.path)
        return aiohttp.ClientSession(connector=unix, headers=self._headers)

    async def _ask(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        from_offset: int,
        domains: Sequence[str] | None,
    ) -> None:
        more = {} if domains is None else {"domains": domains}
        asked = self._codec.encode({"op": "subscribe", "from": from_offset, **more})
        if self._codec.name == "json":
            await socket.send_str(asked.decode())
        else:
            await socket.send_bytes(asked)
