"""`ultra-operator`: joins the parts, and ends them.

ULTRA_ENGINE_IMAGE   image of engines that name none
WATCH_NAMESPACES     comma-separated; empty means all
SELECTOR             labels of the UltraEngines that are ours; empty means all
LEASE_NAME, POD_NAMESPACE, POD_NAME   the election; two operators by label have two Leases
ENGINES_CHANGING_MAX, SHARDS_CHANGING_MAX   engines, and shards of one, that are disturbed at once
CANDIDATE_S          how long a candidate may take (docs/kubernetes/upgrades.md)
LIVENESS_PORT
"""

import asyncio
import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Mapping
from typing import Final

import aiohttp
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from ultraengine_operator.cache import Key
from ultraengine_operator.cluster import Refused
from ultraengine_operator.drivers.backups import Backups
from ultraengine_operator.drivers.elector import Elector
from ultraengine_operator.drivers.events import Teller
from ultraengine_operator.drivers.kubernetes import KubernetesCluster, connect
from ultraengine_operator.drivers.loop import Loop
from ultraengine_operator.drivers.pods import PodShards
from ultraengine_operator.drivers.reaching import ShardServices
from ultraengine_operator.drivers.rebalancer import Rebalancer
from ultraengine_operator.drivers.watches import Event, watch
from ultraengine_operator.drivers.worker import Worker
from ultraengine_operator.election import RETRY_S
from ultraengine_operator.plan import Settings

RESYNC_S: Final = 120.0
RECONCILE_STUCK_S: Final = 300.0
LOOK_STUCK_S: Final = 60.0
_log = structlog.get_logger("ultraengine.operator")


class Operator:
    """One process: watches, queue, election, liveness."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._namespaces = [
            one for one in environ.get("WATCH_NAMESPACES", "").replace(" ", "").split(",") if one
        ]
        self._stop = asyncio.Event()
        self._worker: Worker | None = None
        self._resynced_s = time.monotonic()
        registry = CollectorRegistry()
        self._registry = registry
        self._events = Counter("ultra_operator_events", "Events of watches", registry=registry)
        self._leads = Gauge("ultra_operator_leading", "1 while this one acts", registry=registry)

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, self._stop.set)
        environ = self._environ
        async with aiohttp.ClientSession() as session, await connect() as api:
            cluster = KubernetesCluster(api, self._namespaces)
            identity = environ.get("POD_NAME", f"{socket.gethostname()}-{os.getpid()}")
            teller = Teller(cluster, identity)
            elector = Elector(
                cluster,
                namespace=environ.get("POD_NAMESPACE", "ultraengine-system"),
                name=environ.get("LEASE_NAME", "ultraengine-operator"),
                identity=identity,
            )
            moves = Rebalancer(ShardServices(cluster), self._changed)
            shards = PodShards(cluster, session)
            backups = Backups(shards, self._changed)
            engines = Loop(
                cluster,
                shards,
                Settings(
                    default_image=environ.get("ULTRA_ENGINE_IMAGE") or None,
                    shards_changing_max=int(environ.get("SHARDS_CHANGING_MAX", "1")),
                    candidate_s=float(environ.get("CANDIDATE_S", "3600")),
                ),
                selector=environ.get("SELECTOR", ""),
                changing_max=int(environ.get("ENGINES_CHANGING_MAX", "1")),
                leading=elector.leading,
                told=teller.tell,
                moves=moves,
                backups=backups,
            )
            self._worker = Worker(engines)
            await self._serve(engines, self._worker, elector, teller, moves, backups)

    def _changed(self, key: Key) -> None:
        """An engine is to be reported anew: who moves its slots or backs it up says so."""
        if self._worker is not None:
            self._worker.enqueue(key)

    async def _serve(
        self,
        engines: Loop,
        worker: Worker,
        elector: Elector,
        teller: Teller,
        moves: Rebalancer,
        backups: Backups,
    ) -> None:
        def told(event: Event) -> None:
            self._events.inc()
            key = engines.hear(event["type"], event["object"])
            # Each slot that moves is a new map; while slots move, reports come from there.
            is_map = event["object"]["kind"] == "ConfigMap"
            if key is not None and not (is_map and moves.is_moving(key)):
                worker.enqueue(key)

        def changed(leads: bool) -> None:  # noqa: FBT001 - called by position alone.
            self._leads.set(leads)
            if not leads:
                moves.stop()
                backups.stop()
            for key in engines.concerned():
                worker.enqueue(key)

        site = await self._liveness(worker, elector)
        await self._first_look(engines, worker)
        tasks = [
            asyncio.create_task(watch(told, self._namespaces, self._stop)),
            asyncio.create_task(elector.run(changed)),
            asyncio.create_task(worker.run()),
            asyncio.create_task(teller.run()),
            asyncio.create_task(self._resyncs(engines, worker)),
            asyncio.create_task(self._stop.wait()),
        ]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        self._stop.set()
        await moves.close()
        await backups.close()
        for task in tasks[1:]:
            task.cancel()
        await asyncio.wait(tasks, timeout=5.0)
        await elector.release()
        await site.cleanup()
        for task in done:
            # kopf ends itself by a cancellation when it is told to stop.
            if not task.cancelled():
                task.result()

    async def _resync(self, engines: Loop, worker: Worker) -> None:
        await engines.relist()
        self._resynced_s = time.monotonic()
        for key in engines.concerned():
            worker.enqueue(key)

    async def _first_look(self, engines: Loop, worker: Worker) -> None:
        # New CRDs answer 429 for a while, and an API server may be away when a node starts.
        while True:
            try:
                return await self._resync(engines, worker)
            except Refused as refused:
                if refused.permanent:
                    raise
                _log.warning("first_look.refused", error=str(refused))
                await asyncio.sleep(RETRY_S)

    async def _resyncs(self, engines: Loop, worker: Worker) -> None:
        while True:
            await asyncio.sleep(RESYNC_S * random.uniform(0.8, 1.2))  # noqa: S311 - jitter.
            try:
                await self._resync(engines, worker)
            except Exception as error:  # noqa: BLE001 - the next one tries again; liveness sees it.
                _log.warning("resync.failed", error=str(error))

    async def _liveness(self, worker: Worker, elector: Elector) -> web.AppRunner:
        """`/healthz` says whether work is being done, not whether this server runs."""

        async def healthz(_request: web.Request) -> web.Response:
            now_s = time.monotonic()
            ages = {
                "resync": (now_s - self._resynced_s, 4 * RESYNC_S),
                "lease": (now_s - elector.looked_s, LOOK_STUCK_S),
                "reconcile": (now_s - (worker.busy_since or now_s), RECONCILE_STUCK_S),
            }
            stuck = [name for name, (age_s, most_s) in ages.items() if age_s > most_s]
            return web.json_response(
                {"leading": elector.leading(), "stuck": stuck}, status=503 if stuck else 200
            )

        async def metrics(_request: web.Request) -> web.Response:
            return web.Response(body=generate_latest(self._registry), content_type="text/plain")

        app = web.Application()
        app.router.add_get("/healthz", healthz)
        app.router.add_get("/metrics", metrics)
        runner = web.AppRunner(app)
        await runner.setup()
        port = int(self._environ.get("LIVENESS_PORT", "8081"))
        await web.TCPSite(runner, "0.0.0.0", port).start()  # noqa: S104 - the pod's own network.
        return runner


def main() -> None:
    """Run until told to stop."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Operator(os.environ).run())
