"""The feed over HTTP: stored groups for projections and exports (`feed/wire.py`, `docs/feed.md`).

    GET    /v1/feed?shard=0&from=0        pages without an end, application/vnd.ultra.feed;
                                          read=follower: of a copy, where there is one
    GET    /v1/feed/shards                which shards there are
    GET    /v1/feed/consumers?shard=0     the consumer slots
    PUT    /v1/feed/consumers/{name}      {"offset": n}: confirm
    DELETE /v1/feed/consumers/{name}      give the slot up

A feed carries the commands of all tenants, so it needs the scope ``feed``, or ``admin``.  It
holds one page at a time: a page is read when the one before was handed to the socket.  A copy that
follows gives pages to who says ``read=follower``; slots are its leader's.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any, Final, cast

import msgspec
import structlog
from aiohttp.web import BaseRequest, StreamResponse

from ultraengine.edge.auth import require_feed
from ultraengine.edge.codec import JSON, answer_codec, body_codec
from ultraengine.edge.problems import Answer
from ultraengine.edge.routes import Route, Surface, is_loopback, query_pairs, read_body
from ultraengine.feed.source import FeedPage, FeedRead, FeedSource
from ultraengine.feed.wire import MEDIA_TYPE, encode_end, encode_page
from ultraengine.gateway.edge import DRAIN_RETRY_AFTER_S, Edge
from ultraengine.gateway.envelope import DECODE_ERRORS, malformed
from ultraengine.model.errors import EngineError, Malformed
from ultraengine.model.ids import Offset, ShardId, is_name
from ultraengine.ports import Caller

STALL_S: Final = 300.0
"""A page that is not taken for so long ends the feed: whoever asked is gone, or may ask again."""
RECHECK_S: Final = 1.0
"""Seconds between two looks at the key of an open feed."""
BODY_BYTES_MAX: Final = 4 * 1024
OFFSET_MAX: Final = 2**63 - 1
_READS: Final[Mapping[str, FeedRead]] = {"leader": "leader", "follower": "follower"}
_log = structlog.get_logger("ultraengine.gateway")
_audit = structlog.get_logger("ultraengine.audit")


class Confirmation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything below ``offset`` is durable at the consumer."""

    offset: Annotated[int, msgspec.Meta(ge=0, le=OFFSET_MAX)]


class ConsumerView(msgspec.Struct, frozen=True):
    """A consumer slot, as shown."""

    shard: int
    name: str
    offset: int


_DECODE: Final = msgspec.json.Decoder(Confirmation).decode
_DECODE_MSGPACK: Final = msgspec.msgpack.Decoder(Confirmation).decode


class Feeds:
    """The handlers of the feed, and all open feeds of the process."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def add_to(self, surface: Surface) -> None:
        """Serve the feed, where the engine has one."""
        if not self.offered:
            return
        follow = Route("/v1/feed", GET=self._follow)
        del follow.methods["HEAD"]  # There is nothing that a HEAD could describe.
        surface["/v1/feed"] = follow
        surface["/v1/feed/shards"] = Route("/v1/feed/shards", GET=self._shards)
        surface["/v1/feed/consumers"] = Route("/v1/feed/consumers", GET=self._consumers)
        one = Route("/v1/feed/consumers/{name}", PUT=self._confirm, DELETE=self._forget)
        surface.prefix("/v1/feed/consumers/", one)

    # What a front has of another kind (`routed_feeds`).

    @property
    def offered(self) -> bool:
        """Whether there is a feed."""
        return self._edge.source is not None

    def _source(
        self, caller: Caller, read: FeedRead = "leader"
    ) -> AbstractAsyncContextManager[FeedSource]:
        """The engine's feed, for as long as a request lasts."""
        del caller, read  # A front names the caller to its shards, and chooses among copies.
        return contextlib.nullcontext(cast("FeedSource", self._edge.source))

    # --- requests --------------------------------------------------------------------------

    def _caller(self, request: BaseRequest) -> Caller:
        caller = self._edge.caller(request.headers, peer_is_loopback=is_loopback(request))
        require_feed(caller)
        return caller

    async def _shards(self, request: BaseRequest, _segments: list[str]) -> Answer:
        async with self._source(self._caller(request)) as source:
            return _answer(request, {"shards": await source.shards()})

    async def _consumers(self, request: BaseRequest, _segments: list[str]) -> Answer:
        caller = self._caller(request)
        self._edge.require_leading()
        query = dict(query_pairs(request, {"shard"}))
        found: list[ConsumerView] = []
        async with self._source(caller) as source:
            one = [await _one_shard(source, query)] if query else None
            for shard in one or await source.shards():
                slots = await source.consumers(shard)
                found += [ConsumerView(shard, slot.name, slot.offset) for slot in slots]
        return _answer(request, {"consumers": found})

    async def _confirm(self, request: BaseRequest, segments: list[str]) -> Answer:
        caller = self._caller(request)
        name = _name(segments)
        self._edge.require_leading()
        codec = body_codec(request.headers.get("Content-Type"))
        raw = await read_body(request, BODY_BYTES_MAX, "the limit of confirmations")
        try:
            body = (_DECODE if codec is JSON else _DECODE_MSGPACK)(raw)
        except DECODE_ERRORS as error:
            raise malformed(error) from error
        query = dict(query_pairs(request, {"shard"}))
        async with self._source(caller) as source:
            shard = await _one_shard(source, query)
            await source.confirm(shard, name, Offset(body.offset))
        return _answer(request, ConsumerView(shard, name, body.offset))

    async def _forget(self, request: BaseRequest, segments: list[str]) -> Answer:
        caller = self._caller(request)
        name = _name(segments)
        self._edge.require_leading()
        query = dict(query_pairs(request, {"shard"}))
        async with self._source(caller) as source:
            shard = await _one_shard(source, query)
            await source.forget(shard, name)
        _audit.info(
            "feed.consumer_forgotten",
            consumer=name,
            shard=shard,
            tenant=caller.tenant,
            principal=caller.principal,
        )
        return _answer(request, {"shard": shard, "name": name})

    # --- following -------------------------------------------------------------------------

    async def _follow(self, request: BaseRequest, _segments: list[str]) -> StreamResponse:
        edge = self._edge
        caller = self._caller(request)
        query = dict(query_pairs(request, {"shard", "from", "read"}))
        read = _READS.get(query.get("read", "leader"))
        if read is None:
            raise Malformed("read is leader or follower", pointer="/query/read")
        edge.require_open()
        if read == "leader":
            edge.require_leading()
        from_offset = Offset(_number(query, "from") if "from" in query else 0)
        if edge.metrics.feeds_open >= edge.limits.feeds_max:
            raise EngineError(
                f"{edge.limits.feeds_max} feeds are open", code="OVERLOADED", retry_after_s=5.0
            )
        edge.metrics.feeds_open += 1
        # A feed is no request in flight: it has a limit of its own, and a drain does not wait
        # for it; it goes on to the engine's last outcome.
        edge.metrics.requests_in_flight -= 1
        try:
            async with self._source(caller, read) as source:
                shard = await _one_shard(source, query)
                async with contextlib.aclosing(source.pages(shard, from_offset)) as pages:
                    # What is wrong with the request is answered with a problem document.
                    first = await anext(pages, None)
                    if first is None:
                        raise _leaving()
                    response = StreamResponse(headers=_headers(edge.role))
                    await response.prepare(request)
                    await self._send(request, response, caller, shard, first, pages)
        finally:
            edge.metrics.requests_in_flight += 1
            edge.metrics.feeds_open -= 1
        return response

    async def _send(
        self,
        request: BaseRequest,
        response: StreamResponse,
        caller: Caller,
        shard: ShardId,
        first: FeedPage,
        pages: AsyncIterator[FeedPage],
    ) -> None:
        """Send pages until the feed, the key or the connection ends."""
        ends = _leaving()
        loop = asyncio.get_running_loop()
        checked = loop.time()
        try:
            await _write(response, b"".join(encode_page(shard, first)))
            async for page in pages:
                if loop.time() - checked > RECHECK_S:
                    checked = loop.time()
                    if self._caller(request) != caller:
                        raise EngineError("the key is another one's now", code="FORBIDDEN")
                await _write(response, b"".join(encode_page(shard, page)))
        except EngineError as error:
            ends = error
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            return
        except ConnectionError:
            return  # Whoever asked is gone.
        except Exception as error:  # noqa: BLE001  (whatever it was, silence would look like rest)
            _log.exception("feed.failed", shard=shard)
            ends = EngineError(f"reading the feed raised {type(error).__name__}")
        with contextlib.suppress(ConnectionError, TimeoutError):
            await _write(response, encode_end(shard, ends))
            await response.write_eof()


def _leaving() -> EngineError:
    return EngineError(
        "this process is shutting down", code="DRAINING", retry_after_s=DRAIN_RETRY_AFTER_S
    )


async def _write(response: StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(STALL_S):
        await response.write(data)


def _headers(role: str) -> Mapping[str, str]:
    told = {"Ultra-Role": role} if role else {}
    return {
        "Content-Type": MEDIA_TYPE,
        "Cache-Control": "no-store",
        "Server": "ultraengine",
        **told,
    }


def _answer(request: BaseRequest, body: Any) -> Answer:
    out = answer_codec(request.headers.get("Accept"), "json")
    return Answer(200, out.encode(body), out.media_type, (("Cache-Control", "no-store"),))


def _name(segments: list[str]) -> str:
    if len(segments) != 1 or not segments[0]:
        raise EngineError("there is no such path", code="NOT_FOUND")
    if not is_name(segments[0]):
        raise Malformed("a name is 1-128 characters of A-Z a-z 0-9 . _ : -", pointer="/path/name")
    return segments[0]


def _number(query: Mapping[str, str], name: str) -> int:
    text = query[name]
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= OFFSET_MAX):
        raise Malformed(f"{name} is a number from 0 on", pointer=f"/query/{name}")
    return int(text)


async def _one_shard(source: FeedSource, query: Mapping[str, str]) -> ShardId:
    shards = await source.shards()
    if "shard" in query:
        shard = ShardId(_number(query, "shard"))
        if shard not in shards:
            listed = ", ".join(map(str, shards))
            raise EngineError(
                f"there is no shard {shard}; there are {listed}",
                code="NOT_FOUND",
                pointer="/query/shard",
            )
        return shard
    if len(shards) > 1:
        listed = ", ".join(map(str, shards))
        raise Malformed(f"name one of the shards {listed}", pointer="/query/shard")
    return shards[0]
