"""The upgrade to WebSocket, and all open streams of the process."""

import asyncio
from typing import Any, Final

import structlog
from aiohttp.web import BaseRequest, StreamResponse, WebSocketResponse
from aiohttp.web_exceptions import HTTPException

from ultraengine.edge.problems import Answer
from ultraengine.edge.routes import Route, Surface, is_loopback
from ultraengine.gateway.edge import DRAIN_RETRY_AFTER_S, Edge
from ultraengine.gateway.stream import CLOSE_WAIT_S, HEARTBEAT_S, KEY_REVOKED, SUBPROTOCOLS, Stream
from ultraengine.model.errors import EngineError, Malformed

RECHECK_S: Final = 1.0
"""Seconds between two looks at the keys of open streams."""
_log = structlog.get_logger("ultraengine.gateway")


class Streams:
    """Opens streams, checks their keys again, and sends them away at the end."""

    def __init__(self, edge: Edge, kind: type[Stream] = Stream) -> None:
        self._edge = edge
        self._kind = kind
        self._open: dict[Stream, None] = {}

    def add_to(self, surface: Surface) -> None:
        """Serve ``GET /v1/stream``."""
        route = Route("/v1/stream", GET=self._upgrade)
        del route.methods["HEAD"]  # There is nothing that a HEAD could describe.
        surface["/v1/stream"] = route

    async def _upgrade(self, request: BaseRequest, _segments: list[str]) -> Answer | StreamResponse:
        edge = self._edge
        local = is_loopback(request)
        caller = edge.caller(request.headers, peer_is_loopback=local)
        edge.require_intake()
        if len(self._open) >= edge.limits.streams_max:
            raise EngineError(
                f"{edge.limits.streams_max} streams are open", code="OVERLOADED", retry_after_s=5.0
            )
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        name = next(
            (item.strip() for item in offered.split(",") if item.strip() in SUBPROTOCOLS), None
        )
        if name is None:
            raise Malformed(
                f"a stream speaks one of {', '.join(SUBPROTOCOLS)}",
                pointer="/header/sec-websocket-protocol",
            )
        socket: WebSocketResponse[Any] = WebSocketResponse(
            protocols=(name,),
            heartbeat=HEARTBEAT_S,
            timeout=CLOSE_WAIT_S,
            compress=False,
            # One byte more than a frame may have, so that the limit itself is allowed.
            max_msg_size=edge.limits.batch_bytes_max + 1,
            decode_text=False,
        )
        try:
            await socket.prepare(request)
        except HTTPException as error:
            raise Malformed(f"not a WebSocket upgrade: {error.text}") from error
        stream = self._kind(
            edge, caller, socket, SUBPROTOCOLS[name], request, peer_is_loopback=local
        )
        self._open[stream] = None
        edge.metrics.streams_open = len(self._open)
        # A stream is no request in flight: it has a limit of its own.
        edge.metrics.requests_in_flight -= 1
        try:
            await stream.run()
        finally:
            edge.metrics.requests_in_flight += 1
            del self._open[stream]
            edge.metrics.streams_open = len(self._open)
        return socket

    async def recheck(self) -> None:
        """Close the streams whose key has expired or was removed."""
        revoked = [stream for stream in self._open if not self._still_valid(stream)]
        await asyncio.gather(*(stream.close(KEY_REVOKED, "the key is gone") for stream in revoked))

    def _still_valid(self, stream: Stream) -> bool:
        request = stream.request
        try:
            caller = self._edge.caller(request.headers, peer_is_loopback=stream.peer_is_loopback)
        except EngineError:
            return False
        return caller == stream.caller

    async def go_away(self, wait_s: float) -> None:
        """Send all streams away; returns when they are closed, after `wait_s` at the latest."""
        if self._open:
            _log.info("streams.leaving", streams=len(self._open))
        await asyncio.gather(
            *(stream.go_away(DRAIN_RETRY_AFTER_S, wait_s) for stream in self._open)
        )
