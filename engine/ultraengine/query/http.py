"""The HTTP of ``ultra query``: reads, health, metrics, documents, and what operators ask.

GET /v1/sql/{domain}/...                      the declared reads (`model.reads`)
GET /v1/limits  /healthz  /readyz  /metrics  /openapi.json  /docs
GET /admin/v1/status  /admin/v1/patterns      scope `admin`
GET /admin/v1/projections/{name}/ledger       scope `admin`
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from aiohttp.web import BaseRequest, StreamResponse
from prometheus_client import CollectorRegistry

from ultraengine.edge.auth import require_admin, require_scope
from ultraengine.edge.codec import JSON, answer_codec
from ultraengine.edge.documents import Documents
from ultraengine.edge.health import Heartbeat
from ultraengine.edge.metrics import Exposition
from ultraengine.edge.problems import Answer, Headers
from ultraengine.edge.quota import Quotas
from ultraengine.edge.routes import (
    NO_STORE,
    Endpoint,
    Route,
    Surface,
    framed,
    is_loopback,
    matches,
    query_pairs,
)
from ultraengine.model.errors import EngineError, Malformed
from ultraengine.ports import Caller, Clock, Identity
from ultraengine.query.answer import entity_tag
from ultraengine.query.driver import SqlReads, facts
from ultraengine.query.openapi import document
from ultraengine.query.plan import plan
from ultraengine.query.positions import HEADER, OFFSET_MAX, SHARDS_MAX
from ultraengine.query.reader import audit
from ultraengine.query.routes import PREFIX, SqlRoutes
from ultraengine.query.sql import Moment
from ultraengine.query.values import show

DRAIN_RETRY_AFTER_S: Final = 2.0
_NUMBER: Final = re.compile(r"[0-9]{1,19}")


class QueryHttp:
    """All handlers of one process."""

    def __init__(
        self,
        reads: SqlReads,
        routes: SqlRoutes,
        identity: Identity,
        quotas: Quotas,
        clock: Clock,
        heartbeat: Heartbeat,
        registry: CollectorRegistry,
    ) -> None:
        self.draining = False
        self._reads = reads
        self._routes = routes
        self._identity = identity
        self._quotas = quotas
        self._clock = clock
        self._heartbeat = heartbeat
        self._exposition = Exposition(registry, reads.metrics)

    def surface(self, version: str) -> Surface:
        """Everything, on one listener."""
        surface = Surface()
        for domain in sorted({route.domain for route in self._routes.routes}):
            name = f"{PREFIX}{domain}"
            surface.prefix(f"{name}/", Route(name, GET=self._read(domain)))
        surface["/v1/limits"] = Route("/v1/limits", GET=self._get_limits)
        surface["/healthz"] = Route("/healthz", GET=self._get_health)
        surface["/readyz"] = Route("/readyz", GET=self._get_ready)
        surface["/metrics"] = Route("/metrics", GET=self._get_metrics)
        surface["/admin/v1/status"] = Route("/admin/v1/status", GET=self._get_status)
        surface["/admin/v1/patterns"] = Route("/admin/v1/patterns", GET=self._get_patterns)
        surface.prefix(
            "/admin/v1/projections/",
            Route("/admin/v1/projections/{projection}/ledger", GET=self._get_ledger),
        )
        Documents(document(self._routes, self._reads.limits, version)).add_to(surface)
        return surface

    def handler(self, surface: Surface) -> Callable[[BaseRequest], Awaitable[StreamResponse]]:
        """What the listener calls for every request."""
        metrics, limits = self._reads.metrics, self._reads.limits

        def admit() -> None:
            if metrics.requests_in_flight > limits.requests_in_flight_max:
                raise EngineError(
                    f"more than {limits.requests_in_flight_max} requests are being answered",
                    code="OVERLOADED",
                )

        return framed(
            surface, metrics, self._clock.monotonic, admit, draining=lambda: self.draining
        )

    def _caller(self, request: BaseRequest) -> Caller:
        return self._identity.authenticate(request.headers, peer_is_loopback=is_loopback(request))

    def _admin(self, request: BaseRequest) -> Caller:
        caller = self._caller(request)
        require_admin(caller)
        return caller

    # --- reads ----------------------------------------------------------------------------

    def _charge(self, caller: Caller) -> None:
        """One read, from a cache or not.  Raises `EngineError` QUOTA."""
        try:
            self._quotas.take(caller.tenant, 1, self._clock.monotonic())
        except EngineError:
            self._reads.metrics.above_quota += 1
            raise

    def _read(self, domain: str) -> Endpoint:
        async def read(request: BaseRequest, segments: list[str]) -> Answer:
            headers = request.headers
            caller = self._caller(request)
            match = self._routes.find(domain, segments)
            if match is None:
                raise EngineError("there is no such path", code="NOT_FOUND")
            require_scope(caller, domain, "read")
            if self.draining:
                raise EngineError(
                    "this process is shutting down",
                    code="DRAINING",
                    retry_after_s=DRAIN_RETRY_AFTER_S,
                )
            self._charge(caller)
            out = answer_codec(headers.get("Accept"), "json")
            asked = plan(
                match,
                caller.tenant,
                query_pairs(request, None),
                headers.getall(HEADER, ()),
                cursors=self._reads.cursors,
                limits=self._reads.limits,
            )
            kept = await self._reads.answer(asked)
            body = out.encode(kept.value)
            tag = entity_tag(body)
            more: Headers = (
                ("ETag", tag),
                (HEADER, kept.moment.position.header),
                ("Vary", "Accept, Authorization"),
                ("Cache-Control", "private, no-cache"),
                *self._quotas.headers(caller.tenant, self._clock.monotonic()),
            )
            known = headers.get("If-None-Match")
            if known is not None and matches(known, tag):
                return Answer(304, b"", out.media_type, more)
            return Answer(200, body, out.media_type, more)

        return read

    # --- service --------------------------------------------------------------------------

    async def _get_limits(self, request: BaseRequest, _segments: list[str]) -> Answer:
        self._caller(request)
        return _json(msgspec.structs.asdict(self._reads.limits))

    async def _get_health(self, _request: BaseRequest, _segments: list[str]) -> Answer:
        return self._heartbeat.answer(self._clock.monotonic())

    async def _get_ready(self, _request: BaseRequest, _segments: list[str]) -> Answer:
        if self.draining:
            raise EngineError("this process is shutting down", code="DRAINING")
        return _json({"ready": True, "projections": facts(await self._moments())})

    async def _moments(self) -> Mapping[str, Moment]:
        return {one.name: await self._reads.look(one) for one in self._routes.projections}

    async def _get_metrics(self, _request: BaseRequest, _segments: list[str]) -> Answer:
        return Answer(200, self._exposition.text(), self._exposition.content_type, NO_STORE)

    # --- operators ------------------------------------------------------------------------

    async def _get_status(self, request: BaseRequest, _segments: list[str]) -> Answer:
        self._admin(request)
        reads = self._reads
        caches = {
            name: {**msgspec.structs.asdict(stats), "hit_rate": round(stats.hit_rate, 4)}
            for name, stats in reads.cache.stats().items()
        }
        return _json(
            {
                "dialect": reads.reader.dialect.name,
                "breaker": reads.breaker.state.value,
                "draining": self.draining,
                "reads_in_flight": reads.metrics.reads_in_flight,
                "waiting": reads.metrics.waiting,
                "projections": facts(
                    {
                        one.name: newest
                        for one in self._routes.projections
                        if (newest := reads.cache.newest(one.name)) is not None
                    }
                ),
                "caches": caches,
            }
        )

    async def _get_patterns(self, request: BaseRequest, _segments: list[str]) -> Answer:
        self._admin(request)
        return _json(self._reads.recorder.report(self._clock.now()))

    async def _get_ledger(self, request: BaseRequest, segments: list[str]) -> Answer:
        self._admin(request)
        found = [one for one in self._routes.projections if [one.name, "ledger"] == segments]
        if not found:
            raise EngineError("there is no such path", code="NOT_FOUND")
        query = dict(query_pairs(request, {"shard", "before", "limit"}))
        limit = _number(query, "limit", 100, 1, self._reads.limits.page_items_max)
        shard = _number(query, "shard", 0, 0, SHARDS_MAX - 1)
        before = _number(query, "before", OFFSET_MAX, 0, OFFSET_MAX)
        dialect = self._reads.reader.dialect
        talk = audit(found[0], dialect, shard=shard, before=before, limit=limit)
        moment, statement, rows = await self._reads.run("", talk)
        page = rows[:limit]
        columns = statement.columns
        return _json(
            {
                "projection": found[0].name,
                "version": moment.version,
                "build": moment.build,
                "shard": shard,
                "writes": [
                    {
                        one.name: show(value, one.type)
                        for one, value in zip(columns, row, strict=True)
                    }
                    for row in page
                ],
                "next": page[-1][0] if len(rows) > limit else None,
            }
        )


def _json(value: Any) -> Answer:
    return Answer(200, JSON.encode(value), JSON.media_type, NO_STORE)


def _number(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if _NUMBER.fullmatch(text) is None or not least <= int(text) <= most:
        raise Malformed(f"{name} is {least} to {most}", pointer=f"/query/{name}")
    return int(text)
