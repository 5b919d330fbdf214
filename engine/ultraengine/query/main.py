"""Joins the parts of one `ultra query` process, and runs it until it is told to end.

serve(options, domains)   until SIGTERM or SIGINT; then a drain: no new reads, the ones in
                          flight are answered
"""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
import uvloop
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry

from ultraengine.edge.auth import Anybody, Loopback
from ultraengine.edge.door import Door, Doorkeeper, listen
from ultraengine.edge.health import BEAT_S, Heartbeat
from ultraengine.edge.quota import READS, Quotas
from ultraengine.edge.server import KeyFile, Server, let_in
from ultraengine.model.domain import Domain
from ultraengine.model.limits import DEFAULT_LIMITS, Limits
from ultraengine.model.projection import Projecting
from ultraengine.model.reads import Readable
from ultraengine.ports import Clock, Identity, Random
from ultraengine.query.cursor import Cursors
from ultraengine.query.driver import SqlReads, positions_seen
from ultraengine.query.http import QueryHttp
from ultraengine.query.metrics import QueryMetrics
from ultraengine.query.readers.factory import open_reader
from ultraengine.query.routes import SqlRoutes

RECHECK_S: Final = 1.0
CONNECTIONS_MAX: Final = 8_192
CURSOR_KEY_BYTES: Final = 32
_log = structlog.get_logger("ultraengine.query")


class QueryOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What one process serves and where."""

    target: str
    """URL of the database that a worker fills."""
    host: str = "127.0.0.1"
    port: int = 8082
    """0 chooses a free port."""
    keys: Path | None = None
    """File of API keys; None = keyless, and then from loopback only."""
    keyless: bool = False
    """Without keys, answer whoever reaches the port."""
    cursor_key: Path | None = None
    """File with the secret of cursors, at least 16 bytes, shared by all that serve the same
    clients; None = one of its own, and cursors end with the process."""
    patterns: Path | None = None
    """File that keeps the report of query patterns for ``ultra advise``."""
    patterns_every_s: float = 60.0
    limits: Limits = DEFAULT_LIMITS


def routes_of(domains: Sequence[Domain]) -> SqlRoutes:
    """The reads of all domains that have any.  Raises `InvariantBroken`."""
    declared: list[Any] = [
        (domain.name, domain.projections[0], domain.sql_reads)
        for domain in domains
        if isinstance(domain, Readable) and isinstance(domain, Projecting)
    ]
    return SqlRoutes(declared)


class QueryProcess:
    """One listener over one database.  Created and used on the event loop's thread."""

    def __init__(
        self, options: QueryOptions, domains: Sequence[Domain], clock: Clock, random: Random
    ) -> None:
        """Raises `InvariantBroken`, `KeyFileError`, OSError, ValueError."""
        self.options = options
        self.addresses: list[tuple[str, int]] = []
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._heartbeat = Heartbeat(clock.monotonic())
        self.metrics = QueryMetrics()
        limits = options.limits
        self._quotas = Quotas(limits.tenant_reads_per_s, limits.tenant_reads_burst, {}, READS)
        self._identity, self._key_file = self._who(options, clock, self._quotas)
        secret = (
            random.bytes(CURSOR_KEY_BYTES)
            if options.cursor_key is None
            else options.cursor_key.read_bytes().strip()
        )
        routes = routes_of(domains)
        self.reads = SqlReads(
            open_reader(options.target, options.limits.sql_connections),
            limits=options.limits,
            cursors=Cursors(secret),
            clock=clock,
            random=random,
            metrics=self.metrics,
        )
        self.metrics.positions = lambda: positions_seen(self.reads.cache, routes.projections)
        registry = CollectorRegistry()
        for collector in (GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR):
            registry.register(collector)
        self.http = QueryHttp(
            self.reads, routes, self._identity, self._quotas, clock, self._heartbeat, registry
        )
        self._server: Server | None = None
        self._doorkeeper: Doorkeeper | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._connecting: set[asyncio.Task[None]] = set()

    @staticmethod
    def _who(
        options: QueryOptions, clock: Clock, quotas: Quotas
    ) -> tuple[Identity, KeyFile | None]:
        if options.keys is None:
            if options.keyless:
                _log.warning(
                    "query.keyless", meaning="whoever reaches the port may read everything"
                )
            return Anybody() if options.keyless else Loopback(), None
        return let_in(KeyFile.read(options.keys), options.keys, clock, quotas)

    async def start(self) -> None:
        """Listen and serve.  Raises OSError when the address cannot be had."""
        await self.reads.reader.open()
        surface = self.http.surface(metadata.version("ultraengine"))
        listener = listen(self.options.host, self.options.port)
        self.addresses.append(listener.getsockname()[:2])
        self._server = Server(self.http.handler(surface))
        self._doorkeeper = Doorkeeper(
            [self._door(listener, self._server)], self._heartbeat, self._clock.monotonic
        )
        self._doorkeeper.start()
        self._tasks = [self._loop.create_task(one) for one in (self._beat(), self._recheck())]
        if self.options.patterns is not None:
            self._tasks.append(self._loop.create_task(self._keep_patterns(self.options.patterns)))

    def _door(self, listener: socket.socket, server: Server) -> Door:
        async def connect(connection: socket.socket) -> None:
            try:
                await self._loop.connect_accepted_socket(server, connection)
            except OSError:
                connection.close()

        def begin(connection: socket.socket) -> None:
            task = self._loop.create_task(connect(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

        def take(connection: socket.socket) -> None:
            with contextlib.suppress(RuntimeError):  # The loop has ended; so has the connection.
                self._loop.call_soon_threadsafe(begin, connection)

        return Door(listener, take, lambda: server.open_count < CONNECTIONS_MAX)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            gap = self._heartbeat.beat(self._clock.monotonic()) - BEAT_S
            self.metrics.loop_gap_max_s = max(self.metrics.loop_gap_max_s, gap)

    async def _recheck(self) -> None:
        while self._key_file is not None:
            await asyncio.sleep(RECHECK_S)
            loaded = await self._loop.run_in_executor(None, self._key_file.reload)
            if loaded is not None:
                self.metrics.key_file_reloads["ok" if loaded else "failed"] += 1

    async def _keep_patterns(self, path: Path) -> None:
        while True:
            await asyncio.sleep(self.options.patterns_every_s)
            await self._loop.run_in_executor(None, self._write_patterns, path)

    def _write_patterns(self, path: Path) -> None:
        """Replace the file whole, so that nobody reads half a report."""
        report = self.reads.recorder.report(self._clock.now())
        text = msgspec.json.format(msgspec.json.encode(report), indent=2)
        beside = path.with_name(f"{path.name}.new")
        try:
            beside.write_bytes(text + b"\n")
            beside.replace(path)
        except OSError as error:
            _log.error("patterns.unwritten", path=str(path), error=str(error))

    async def drain(self) -> None:
        """Take no new reads (503 DRAINING) and wait until those in flight are answered,
        ``drain_s`` at most.  Health and metrics go on."""
        self.http.draining = True
        until = time.monotonic() + self.options.limits.drain_s
        while self.metrics.requests_in_flight and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Close everything.  Idempotent."""
        self.http.draining = True
        if self._doorkeeper is not None:
            await self._loop.run_in_executor(None, self._doorkeeper.close)
            self._doorkeeper = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._server is not None:
            self._server.pre_shutdown()
            await self._server.shutdown(timeout=1.0)
            self._server = None
        if self.options.patterns is not None:
            await self._loop.run_in_executor(None, self._write_patterns, self.options.patterns)
        await self.reads.close()


def serve(
    options: QueryOptions,
    domains: Sequence[Domain],
    clock: Clock,
    random: Random,
    announce: Callable[[QueryProcess], None],
) -> None:
    """Run one process until SIGTERM or SIGINT.  Raises what its parts raise at the start."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        process = QueryProcess(options, domains, clock, random)
        try:
            await process.start()
            announce(process)
            await ended.wait()
            await process.drain()
        finally:
            await process.stop()

    uvloop.run(run())
