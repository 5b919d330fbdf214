"""HTTP: routes, body limits, answers (the contract's "Ways in").

Built on aiohttp's low-level server: the application framework above it costs a third of the
throughput and answers 404 and 405 in its own words, and here *every* answer outside 2xx is
a problem document.

    exact routes     /v1/commands, /v1/limits, /healthz, ...   one dict lookup on the raw path
    /v1/commands/ID  the outcome of a command
    /v1/DOMAIN/...   reads, by the domains' QuerySpecs
    more             whatever `mount` was given: admin, documents, the stream
"""

from collections.abc import Awaitable, Callable

from aiohttp.web import BaseRequest, StreamResponse

from ultraengine.edge.auth import require_scope
from ultraengine.edge.codec import JSON, answer_codec
from ultraengine.edge.health import Heartbeat
from ultraengine.edge.metrics import Exposition
from ultraengine.edge.problems import Answer, Headers, problem_answer
from ultraengine.edge.routes import (
    NO_STORE,
    Endpoint,
    Route,
    Surface,
    framed,
    is_loopback,
    matches,
    query_pairs,
    read_body,
)
from ultraengine.gateway.commands import Begun, Commands
from ultraengine.gateway.edge import Edge
from ultraengine.gateway.engine import NOT_READY
from ultraengine.gateway.reads import ReadRoutes, entity_tag, limits_answer, read_request
from ultraengine.model.errors import EngineError, Malformed
from ultraengine.model.ids import is_name


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
        edge = self._edge

        return framed(
            surface,
            edge.metrics,
            edge.clock.monotonic,
            edge.require_room,
            draining=lambda: edge.draining or edge.leaving,
        )

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
            edge.require_open()
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
                ("Ultra-Role", answer.role),
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

    async def _get_ready(self, request: BaseRequest, _segments: list[str]) -> Answer:
        role = dict(query_pairs(request, {"role"})).get("role", "leader")
        if role not in {"leader", "any"}:
            raise Malformed("role is one of leader, any", pointer="/query/role")
        status = self._edge.engine.status()
        leaves = self._edge.draining or self._edge.leaving
        state = "draining" if leaves else status.state
        if state in {"serving", "paused", "read_only"} or (role, state) == ("any", "following"):
            # Paused and read-only engines still answer reads, and say why they take no
            # commands; taking them out of a load balancer would hide both.
            body = {"ready": True, "state": state, "role": status.role, "epoch": status.epoch}
            return Answer(200, JSON.encode(body), JSON.media_type, NO_STORE)
        code = NOT_READY.get(state, "SHARD_UNAVAILABLE")
        error = EngineError(f"the {status.role} is {state}", code=code)
        return problem_answer(error, (*NO_STORE, ("Ultra-Role", status.role)))

    async def _get_metrics(self, _request: BaseRequest, _segments: list[str]) -> Answer:
        return Answer(200, self._exposition.text(), self._exposition.content_type, NO_STORE)
