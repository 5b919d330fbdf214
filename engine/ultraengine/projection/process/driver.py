"""Workers of several targets in one process, and a small HTTP server that tells about them.

    GET /healthz   200 while the process runs
    GET /readyz    200 when every database answers and nothing is parked, 503 otherwise
    GET /metrics   Prometheus text
    GET /status    JSON: breaker, sets, lags, progress

One target's trouble is not another's: each has its worker.  A worker that was fenced ends the whole
process, because another process does its work.
"""

import asyncio
import contextlib
import gc
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from ultraengine.feed.source import FeedSource
from ultraengine.projection.driver import TargetWorker
from ultraengine.projection.view import TargetView, metrics

FRESH_MAX: Final = 500_000
"""Objects made and not freed before the collector of cycles looks at them.  Those of two batches
are fewer, and rows have no cycles: by default it walks them again and again, for a tenth of all
time."""
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def collect_seldom() -> None:
    """For a process whose work is rows."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(FRESH_MAX)


class WorkersCollector:
    """Prometheus collector over all workers of a process."""

    def __init__(self, workers: Sequence[TargetWorker]) -> None:
        self._workers = workers

    def collect(self) -> Iterable[Metric]:
        """All families."""
        return metrics([worker.view() for worker in self._workers])


class ProjectionProcess:
    """Runs workers until they are cancelled or one of them fails."""

    def __init__(
        self,
        workers: Sequence[TargetWorker],
        source: FeedSource,
        registry: CollectorRegistry,
        *,
        host: str,
        port: int | None,
    ) -> None:
        """`port` None: no server; 0: any port that is free."""
        self._workers = tuple(workers)
        self._source = source
        self._registry = registry
        registry.register(WorkersCollector(self._workers))
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None
        self.address: tuple[str, int] | None = None
        """Where the server listens."""

    def views(self) -> tuple[TargetView, ...]:
        """What is known of each target."""
        return tuple(worker.view() for worker in self._workers)

    async def start(self) -> None:
        """Listen.  Raises OSError when the port cannot be had."""
        if self._port is None:
            return
        application = web.Application()
        application.add_routes(
            [
                web.get("/healthz", self._health),
                web.get("/readyz", self._ready),
                web.get("/metrics", self._metrics),
                web.get("/status", self._status),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.address = host, port

    async def run(self) -> None:
        """Run all workers.  Raises what the first one raises that fails, e.g. `Fenced`."""
        tasks = [asyncio.create_task(worker.run()) for worker in self._workers]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self) -> None:
        """Close the server and the feed.  Idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        with contextlib.suppress(OSError):
            await self._source.close()

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _ready(self, _request: web.Request) -> web.Response:
        troubled = [view.target for view in self.views() if not view.is_well]
        status = {"ready": not troubled, "troubled": troubled}
        return web.json_response(status, status=503 if troubled else 200)

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": METRICS_TYPE}
        )

    async def _status(self, _request: web.Request) -> web.Response:
        body = msgspec.json.encode({"targets": self.views()})
        return web.Response(body=body, content_type="application/json")
