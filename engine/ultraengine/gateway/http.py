"""HTTP: routes, body limits, answers (the contract's "Ways in").

Built on aiohttp's low-level server: the application framework above it costs a third of the
throughput and answers 404 and 405 in its own words, and here *every* answer outside 2xx is
a problem document.

    exact routes     /v1/commands, /v1/limits, /healthz, ...   one dict lookup on the raw path
    /v1/commands/ID  the outcome of a command
    /v1/DOMAIN/...   reads, by the domains' QuerySpecs
    more             whatever `mount` was given: admin, documents, the stream

A body is bounded before it is read; a compressed one is refused, because its size is not
known before it is unpacked.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import parse_qsl, unquote

import structlog
from aiohttp.web import BaseRequest, Response, StreamResponse

from ultraengine.gateway.auth import require_scope
from ultraengine.gateway.codec import JSON, answer_codec
from ultraengine.gateway.commands import Begun, Commands, Headers
from ultraengine.gateway.edge import Edge
from ultraengine.gateway.engine import NOT_READY
from ultraengine.gateway.health import Heartbeat
from ultraengine.gateway.metrics import Exposition
from ultraengine.gateway.problems import Answer, problem_answer
from ultraengine.gateway.quick import is_loopback_address
from ultraengine.gateway.reads import (
    ReadRoutes,
    entity_tag,
    limits_answer,
    matches,
    read_request,
)
from ultraengine.model.errors import EngineError, Malformed
from ultraengine.model.ids import is_name

BODY_READ_S: Final = 30.0
"""Longest time for a client to send its body; then 400 and the connection is closed."""
_log = structlog.get_logger("ultraengine.gateway")

Endpoint = Callable[[BaseRequest, list[str]], Awaitable[Answer | StreamResponse]]
"""Called with the request and the decoded segments of the path below its prefix."""


class Route:
    """The methods of one path, under the name that metrics use."""

    __slots__ = ("methods", "name")

    def __init__(self, name: str, **methods: Endpoint) -> None:
        self.name = name
        self.methods = methods
        if "GET" in methods:
            self.methods.setdefault("HEAD", methods["GET"])


class Surface(dict[str, Route]):
    """Exact paths of one listener, and the prefixes it serves."""

    def __init__(self) -> None:
        super().__init__()
        self.prefixes: list[tuple[str, Route]] = []
        """(path prefix ending in '/', route), the longest first."""

    def prefix(self, path: str, route: Route) -> None:
        """Serve everything below `path`."""
        self.prefixes.append((path, route))
        self.prefixes.sort(key=lambda item: -len(item[0]))


class Http:
    """The handlers of the data path, health and metrics, and the frame around all handlers."""

    def __init__(
        self, edge: Edge, heartbeat: Heartbeat, exposition: Exposition, commands: Commands
    ) -> None:
        self._edge = edge
        self._heartbeat = heartbeat
        self._exposition = exposition
        self._commands = commands
        self._reads = ReadRoutes(edge.engine.registry.domains)
        self._names = frozenset(domain.name for domain in edge.engine.registry.domains)

    def data_surface(self) -> Surface:
        """Commands, reads, limits and health."""
        surface = Surface()
        surface["/v1/commands"] = Route("/v1/commands", POST=self._post_command)
        surface["/v1/commands:batch"] = Route("/v1/commands:batch", POST=self._post_batch)
        surface["/v1/limits"] = Route("/v1/limits", GET=self._get_limits)
        surface.prefix("/v1/commands/", Route("/v1/commands/{id}", GET=self._get_outcome))
        for domain in self._names:
            surface.prefix(f"/v1/{domain}/", Route(f"/v1/{domain}", GET=self._read(domain)))
        self.add_health(surface)
        return surface

    def add_health(self, surface: Surface) -> None:
        """Health answers, on whichever listener."""
        surface["/healthz"] = Route("/healthz", GET=self._get_health)
        surface["/readyz"] = Route("/readyz", GET=self._get_ready)

    def add_metrics(self, surface: Surface) -> None:
        """Prometheus text."""
        surface["/metrics"] = Route("/metrics", GET=self._get_metrics)

    def handler(self, surface: Surface) -> Callable[[BaseRequest], Awaitable[StreamResponse]]:
        """The one function that a listener calls for every request."""
        edge, metrics, monotonic = self._edge, self._edge.metrics, self._edge.clock.monotonic

        async def handle(request: BaseRequest) -> StreamResponse:
            start = monotonic()
            name = "none"
            metrics.requests_in_flight += 1
            try:
                edge.require_room()
                route, segments = _find(surface, request)
                name = route.name
                endpoint = route.methods.get(request.method)
                if endpoint is None:
                    answer: Answer | StreamResponse = _not_allowed(request.method, route)
                else:
                    answer = await endpoint(request, segments)
            except EngineError as error:
                answer = problem_answer(error)
            except ConnectionError:
                raise
            except Exception as error:  # noqa: BLE001  (whatever it was, the client gets an answer)
                # The body of this answer must not say more than the kind of the failure.
                _log.exception("request.failed", route=name, method=request.method)
                answer = problem_answer(EngineError(f"the edge raised {type(error).__name__}"))
            finally:
                metrics.requests_in_flight -= 1
            if isinstance(answer, StreamResponse):
                metrics.request(name, answer.status, monotonic() - start)
                return answer
            metrics.request(name, answer.status, monotonic() - start)
            return to_response(request, answer, close=edge.draining)

        return handle

    # --- commands -------------------------------------------------------------------------

    async def _post_command(self, request: BaseRequest, _segments: list[str]) -> Answer:
        edge, headers = self._edge, request.headers
        caller = edge.caller(headers, peer_is_loopback=is_loopback(request))
        try:
            self._commands.check(headers)
            body = await read_body(request, edge.limits.command_bytes_max, "command_bytes_max")
        except EngineError as error:
            return self._commands.refuse(caller, headers, error)
        return await self._finish(self._commands.single(caller, headers, body))

    async def _post_batch(self, request: BaseRequest, _segments: list[str]) -> Answer:
        edge, headers = self._edge, request.headers
        caller = edge.caller(headers, peer_is_loopback=is_loopback(request))
        self._commands.check(headers)
        body = await read_body(request, edge.limits.batch_bytes_max, "batch_bytes_max")
        return await self._finish(self._commands.batch(caller, headers, body))

    async def _finish(self, begun: Answer | Begun) -> Answer:
        if isinstance(begun, Answer):
            return begun
        return begun.finish(await self._edge.answers(begun.admitted))

    async def _get_outcome(self, request: BaseRequest, segments: list[str]) -> Answer:
        edge = self._edge
        caller = edge.caller(request.headers, peer_is_loopback=is_loopback(request))
        out = answer_codec(request.headers.get("Accept"), "json")
        if len(segments) != 1 or not segments[0]:
            raise EngineError("there is no such path", code="NOT_FOUND")
        query = dict(query_pairs(request, {"key"}))
        key = query.get("key")
        for place, text in (("/path/id", segments[0]), ("/query/key", key)):
            if text is not None and not is_name(text):
                raise Malformed("a name is 1-128 characters of A-Z a-z 0-9 . _ : -", pointer=place)
        found = await edge.engine.outcome(caller.tenant, key, segments[0])
        body = {
            "id": segments[0],
            "key": key,
            "state": found.state,
            "reply": found.reply,
            "dedup_floor": found.dedup_floor,
        }
        more: Headers = (("Retry-After", "1"),) if found.state == "in_flight" else ()
        return Answer(200, out.encode(body), out.media_type, more)

    # --- reads ----------------------------------------------------------------------------

    def _read(self, domain: str) -> Endpoint:
        async def read(request: BaseRequest, segments: list[str]) -> Answer:
            edge, headers = self._edge, request.headers
            caller = edge.caller(headers, peer_is_loopback=is_loopback(request))
            match = self._reads.find(domain, segments)
            if match is None:
                raise EngineError("there is no such path", code="NOT_FOUND")
            require_scope(caller, domain, "read")
            edge.require_intake()
            out = answer_codec(headers.get("Accept"), "json")
            asked = read_request(match, query_pairs(request, None))
            spec = match.route.spec
            answer = await edge.engine.query(
                spec,
                domain,
                caller.tenant,
                asked.key,
                asked.params,
                min_offset=asked.min_offset,
                read=asked.read,
            )
            tag = entity_tag(spec, answer.value, answer.epoch, answer.offset)
            more: Headers = (
                ("ETag", tag),
                ("Ultra-Epoch", str(answer.epoch)),
                ("Ultra-Offset", str(answer.offset)),
                ("Vary", "Accept, Authorization"),
                ("Cache-Control", "private, no-cache"),
            )
            known = headers.get("If-None-Match")
            if known is not None and matches(known, tag):
                return Answer(304, b"", out.media_type, more)
            return Answer(200, out.encode(answer.value), out.media_type, more)

        return read

    async def _get_limits(self, request: BaseRequest, _segments: list[str]) -> Answer:
        edge = self._edge
        caller = edge.caller(request.headers, peer_is_loopback=is_loopback(request))
        out = answer_codec(request.headers.get("Accept"), "json")
        body = limits_answer(edge.limits, edge.engine.status())
        return Answer(
            200,
            out.encode(body),
            out.media_type,
            edge.quotas.headers(caller.tenant, edge.clock.monotonic()),
        )

    # --- health ---------------------------------------------------------------------------

    async def _get_health(self, _request: BaseRequest, _segments: list[str]) -> Answer:
        return self._heartbeat.answer(self._edge.clock.monotonic())

    async def _get_ready(self, _request: BaseRequest, _segments: list[str]) -> Answer:
        status = self._edge.engine.status()
        state = "draining" if self._edge.draining else status.state
        if state in {"serving", "paused", "read_only"}:
            # Paused and read-only engines still answer reads, and say why they take no
            # commands; taking them out of a load balancer would hide both.
            body = {"ready": True, "state": state, "role": status.role, "epoch": status.epoch}
            return Answer(200, JSON.encode(body), JSON.media_type, _NO_STORE)
        code = NOT_READY.get(state, "SHARD_UNAVAILABLE")
        return problem_answer(EngineError(f"the engine is {state}", code=code), _NO_STORE)

    async def _get_metrics(self, _request: BaseRequest, _segments: list[str]) -> Answer:
        return Answer(200, self._exposition.text(), self._exposition.content_type, _NO_STORE)


_NO_STORE: Final[Headers] = (("Cache-Control", "no-store"),)


def is_loopback(request: BaseRequest) -> bool:
    """Whether the peer is on this machine."""
    return is_loopback_address(request.remote or "")


async def read_body(request: BaseRequest, bytes_max: int, limit: str) -> bytes:
    """The body, bounded while it is read.

    Raises `EngineError` TOO_LARGE, or MALFORMED when it does not arrive.
    """
    length = request.content_length
    if length is not None and length > bytes_max:
        raise _too_large(f"{length} bytes are", limit, bytes_max)
    content = request.content
    if content.is_eof():
        # All of it is here already, in chunks of unknown sum.
        body = content.read_nowait()
        if len(body) > bytes_max:
            raise _too_large(f"{len(body)} bytes are", limit, bytes_max)
        return body
    if request.headers.get("Expect", "").lower() == "100-continue":
        # The client holds its body back until it is told that it will be read.
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_READ_S):
            while part := await content.readany():
                size += len(part)
                if size > bytes_max:
                    raise _too_large("the body is", limit, bytes_max)
                parts.append(part)
    except TimeoutError as error:
        raise Malformed(f"the body did not arrive within {BODY_READ_S:g} s") from error
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(what: str, limit: str, bytes_max: int) -> EngineError:
    return EngineError(f"{what} more than {limit} ({bytes_max})", code="TOO_LARGE")


def query_pairs(request: BaseRequest, known: set[str] | None) -> list[tuple[str, str]]:
    """The decoded query string.  Raises `Malformed` for unknown names when `known` is given."""
    query = request.raw_path.partition("?")[2].partition("#")[0]
    if not query:
        return []
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=False,
            errors="strict",
            max_num_fields=64,
        )
    except ValueError as error:
        raise Malformed("the query string is not decodable", pointer="/query") from error
    if known is not None:
        names = [name for name, _ in pairs]
        if not set(names) <= known or len(set(names)) != len(names):
            raise Malformed(
                f"known parameters are {', '.join(sorted(known))}, each once", pointer="/query"
            )
    return pairs


def _find(surface: Surface, request: BaseRequest) -> tuple[Route, list[str]]:
    """The route of a request.  Raises `EngineError` NOT_FOUND."""
    path = request.raw_path
    route = surface.get(path)
    if route is not None:
        return route, []
    if not path.startswith("/"):
        # The absolute form, as sent to proxies (RFC 9112 §3.2.2).
        path = request.rel_url.raw_path_qs
    path = path.partition("?")[0].partition("#")[0]
    route = surface.get(path)
    if route is not None:
        return route, []
    for prefix, route in surface.prefixes:
        if path.startswith(prefix):
            try:
                below = path[len(prefix) :].split("/")
                return route, [unquote(segment, errors="strict") for segment in below]
            except UnicodeDecodeError as error:
                raise Malformed("the path is not UTF-8", pointer="/path") from error
    raise EngineError("there is no such path", code="NOT_FOUND")


def _not_allowed(method: str, route: Route) -> Answer:
    allowed = ", ".join(sorted(route.methods))
    error = EngineError(f"the path takes {allowed}, not {method[:30]}", code="METHOD_NOT_ALLOWED")
    return problem_answer(error, (("Allow", allowed),))


def to_response(request: BaseRequest, answer: Answer, *, close: bool) -> Response:
    """An answer on the wire."""
    headers: dict[str, str] = {"Content-Type": answer.content_type, "Server": "ultraengine"}
    headers.update(answer.headers)
    response = Response(body=answer.body, status=answer.status, headers=headers)
    if close or (answer.status >= 400 and not request.content.is_eof()):
        # A refused body is not read to its end: the connection cannot be used again.
        response.force_close()
    return response
