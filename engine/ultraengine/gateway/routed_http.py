"""The HTTP of a front: reads and outcomes are forwarded as they came, metrics are gathered."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from aiohttp.web import BaseRequest

from ultraengine.edge.auth import require_scope
from ultraengine.edge.codec import answer_codec
from ultraengine.edge.health import Heartbeat
from ultraengine.edge.metrics import Exposition
from ultraengine.edge.problems import Answer, Headers
from ultraengine.edge.routes import Endpoint, is_loopback, query_pairs
from ultraengine.gateway.envelope import DECODE_ERRORS
from ultraengine.gateway.http import Http
from ultraengine.gateway.routed import RoutedCommands, RoutedEdge, notice
from ultraengine.gateway.watch import Watch, shard_name
from ultraengine.model.errors import EngineError, Malformed
from ultraengine.model.ids import ShardId, is_name
from ultraengine.ports import Caller
from ultraengine.router.exposition import join
from ultraengine.router.gather import FoundOutcome, newest
from ultraengine.router.wire import Answered, request

_PASSED_ON: Final = ("If-None-Match", "traceparent")
_NO_STORE: Final[Headers] = (("Cache-Control", "no-store"),)
_FOUND: Final = {
    "json": msgspec.json.Decoder(FoundOutcome).decode,
    "msgpack": msgspec.msgpack.Decoder(FoundOutcome).decode,
}


def as_answer(answered: Answered) -> Answer:
    """A shard's answer as the front's own."""
    return Answer(answered.status, answered.body, answered.content_type, answered.headers)


class RoutedHttp(Http):
    """The handlers of a front."""

    def __init__(
        self,
        edge: RoutedEdge,
        heartbeat: Heartbeat,
        exposition: Exposition,
        commands: RoutedCommands,
        watch: Watch,
    ) -> None:
        super().__init__(edge, heartbeat, exposition, commands)
        self._routed = edge
        self._watch = watch

    async def _forward(self, shard: ShardId, request_: BaseRequest, caller: Caller) -> Answered:
        """Send a GET to a shard as it came.  Raises `EngineError`."""
        edge = self._routed
        path = request_.raw_path
        if not path.startswith("/"):
            path = request_.rel_url.raw_path_qs  # The absolute form of proxies.
        headers = [("Accept", answer_codec(request_.headers.get("Accept"), "json").media_type)]
        for name in _PASSED_ON:
            value = request_.headers.get(name)
            if value is not None:
                headers.append((name, value))
        try:
            sent = request("GET", path, (*headers, *edge.hop_headers(caller)))
        except ValueError as error:
            raise Malformed(str(error), pointer="/path") from error
        answered = await edge.links.ask(shard, sent, deadline_s=edge.limits.reply_wait_s)
        notice(edge.links, answered)
        return answered

    def _read(self, domain: str) -> Endpoint:
        async def read(request: BaseRequest, segments: list[str]) -> Answer:
            edge = self._routed
            caller = edge.caller(request.headers, peer_is_loopback=is_loopback(request))
            if self._reads.find(domain, segments) is None:
                raise EngineError("there is no such path", code="NOT_FOUND")
            require_scope(caller, domain, "read")
            edge.require_intake()
            shard = edge.links.shard_map.shard_of(caller.tenant, segments[0])
            return as_answer(await self._forward(shard, request, caller))

        return read

    async def _get_outcome(self, request: BaseRequest, segments: list[str]) -> Answer:
        edge = self._routed
        caller = edge.caller(request.headers, peer_is_loopback=is_loopback(request))
        out = answer_codec(request.headers.get("Accept"), "json")
        if len(segments) != 1 or not segments[0]:
            raise EngineError("there is no such path", code="NOT_FOUND")
        key = dict(query_pairs(request, {"key"})).get("key")
        shard_map = edge.links.shard_map
        if key is not None or not is_name(segments[0]):
            # A name of the wrong shape is any shard's to refuse.
            shard = shard_map.shard_of(caller.tenant, key or "")
            return as_answer(await self._forward(shard, request, caller))
        answers = await asyncio.gather(
            *(self._forward(shard, request, caller) for shard in shard_map.shards),
            return_exceptions=True,
        )
        return _newest(answers, _FOUND[out.name])

    async def _get_metrics(self, _request: BaseRequest, _segments: list[str]) -> Answer:
        found = await self._watch.metrics()
        texts = {"router": self._exposition.text().decode()}
        texts |= {shard_name(shard): text for shard, text in found.items()}
        return Answer(200, join(texts).encode(), self._exposition.content_type, _NO_STORE)


def _newest(
    answers: Sequence[Answered | BaseException], decode: Callable[[bytes], FoundOutcome]
) -> Answer:
    """One answer of all shards'.  A shard that is silent may know what the others do not, so
    without it nothing but "found" can be said.  Raises what it failed with."""
    known: list[tuple[Answered, FoundOutcome]] = []
    failed: BaseException | None = None
    for one in answers:
        if isinstance(one, BaseException):
            failed = failed or one
        elif one.status != 200:
            return as_answer(one)
        else:
            try:
                known.append((one, decode(one.body)))
            except DECODE_ERRORS as error:
                failed = failed or error
    if known:
        answered, outcome = known[newest([outcome for _, outcome in known])]
        if outcome.is_found or failed is None:
            more = (("Retry-After", "1"),) if outcome.state == "in_flight" else ()
            return Answer(200, answered.body, answered.content_type, more)
    raise failed or EngineError("no shard answered", code="SHARD_UNAVAILABLE")
