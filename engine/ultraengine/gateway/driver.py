"""Sockets, threads, timers and files of the edge; `Gateway` is what `main` starts.

    gateway = Gateway(parts, options, registry=prometheus_registry)
    await gateway.start()        # listening; gateway.addresses says where
    ...
    await gateway.drain()        # nothing new is taken, what is in flight is answered
    await gateway.stop()

`main` drains the gateway first, then the engine, then stops the gateway, so that replies
always find their connections open.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from ultraengine.edge.documents import Documents
from ultraengine.edge.door import Door, Doorkeeper, listen, listen_at
from ultraengine.edge.health import BEAT_S, Heartbeat
from ultraengine.edge.metrics import Exposition
from ultraengine.edge.routes import Surface
from ultraengine.edge.server import KeyFile, Server
from ultraengine.gateway.admin import Admin
from ultraengine.gateway.commands import Commands
from ultraengine.gateway.edge import Edge, Parts
from ultraengine.gateway.feeds import Feeds
from ultraengine.gateway.handing import HandedSlots
from ultraengine.gateway.http import Http
from ultraengine.gateway.known_map import KnownMap
from ultraengine.gateway.lent import Lent
from ultraengine.gateway.openapi import document
from ultraengine.gateway.quick import QuickServer
from ultraengine.gateway.stream import Stream
from ultraengine.gateway.streams import RECHECK_S, Streams

_log = structlog.get_logger("ultraengine.gateway")


class GatewayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where the edge listens and what it serves there."""

    host: str = "127.0.0.1"
    port: int = 8080
    """0 chooses a free port."""
    admin_host: str | None = None
    admin_port: int | None = None
    """A listener of its own for ``/admin/v1`` and ``/metrics``; None: with the data."""
    admin_with_data: bool = False
    """Serve ``/admin/v1`` and ``/metrics`` with the data as well, for fronts, which know one
    address of a shard."""
    socket: Path | None = None
    """A Unix socket to listen at instead of `host` and `port`, for a front on this machine."""
    quick: bool = True
    """Whether plain command requests are served by `quick.py`, or all by the general server."""
    connections_max: int = 8_192
    """Open connections per listener; beyond it new ones wait in the kernel's queue."""


class Gateway:
    """The edge of one process.  Created and used on the event loop's thread."""

    def __init__(
        self,
        parts: Parts,
        options: GatewayOptions,
        *,
        registry: CollectorRegistry,
        key_file: KeyFile | None = None,
    ) -> None:
        self.edge = self._make_edge(parts)
        self.addresses: list[tuple[str, int]] = []
        """(host, port) of the data listener, then of the admin listener if there is one."""
        self._options = options
        self._key_file = key_file
        self._loop = asyncio.get_running_loop()
        self._heartbeat = Heartbeat(parts.clock.monotonic(), parts.role)
        self._commands = self._make_commands()
        self._exposition = Exposition(registry, self.edge.metrics)
        self._http = self._make_http(self._exposition)
        self._streams = Streams(self.edge, self._stream_kind)
        self._feeds = self._make_feeds()
        self._admin = Admin(self.edge)
        self._slots = None if parts.slots is None else HandedSlots(self.edge, parts.slots)
        self._known_map = None if parts.slots is None else KnownMap(self.edge)
        self._servers: list[Server] = []
        self._quick: list[QuickServer] = []
        self._listeners: list[socket.socket] = []
        self._doorkeeper: Doorkeeper | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # What a front has of other kinds (`front.driver`).

    _stream_kind: type[Stream] = Stream

    def _make_edge(self, parts: Parts) -> Edge:
        return Edge(parts)

    def _make_commands(self) -> Commands:
        return Commands(self.edge)

    def _make_http(self, exposition: Exposition) -> Http:
        return Http(self.edge, self._heartbeat, exposition, self._commands)

    def _make_feeds(self) -> Feeds:
        return Feeds(self.edge)

    async def start(self, listeners: Sequence[socket.socket] = ()) -> None:
        """Listen and serve.  Raises OSError when an address cannot be had.

        `listeners`: those of the ports that are open already (`edge.early`), data first.
        """
        options, opened = self._options, list(listeners)
        data = self._http.data_surface()
        self._streams.add_to(data)
        self._feeds.add_to(data)
        if self.edge.operations.lend is not None:
            Lent(self.edge, self.edge.operations.lend).add_to(data)
        together = options.admin_port is None
        with_data = together or options.admin_with_data
        self._documents(data=True, admin=with_data).add_to(data)
        surfaces = [] if options.socket else [(options.host, options.port, data)]
        admin = data
        if options.admin_port is not None:
            admin = Surface()
            self._http.add_health(admin)
            self._documents(data=False, admin=True).add_to(admin)
            surfaces.append((options.admin_host or options.host, options.admin_port, admin))
        for surface in (data, admin) if with_data else (admin,):
            self._admin.add_to(surface)
            if self._slots is not None:
                self._slots.add_to(surface)
            if self._known_map is not None:
                self._known_map.add_to(surface)
            self._http.add_metrics(surface)
        doors: list[Door] = []
        with contextlib.ExitStack() as undo:
            for host, port, served in surfaces:
                listener = opened.pop(0) if opened else listen(host, port)
                undo.callback(listener.close)
                doors.append(self._door(listener, served))
                self._listeners.append(listener)
                self.addresses.append(listener.getsockname()[:2])
            if options.socket is not None:
                listener = listen_at(options.socket)
                undo.callback(listener.close)
                doors.append(self._door(listener, data))
            undo.pop_all()
        self._doorkeeper = Doorkeeper(doors, self._heartbeat, self.edge.clock.monotonic)
        self._doorkeeper.start()
        self._tasks = [
            self._loop.create_task(self._beat()),
            self._loop.create_task(self._recheck()),
        ]
        named = [f"{host}:{port}" for host, port in self.addresses]
        _log.info("gateway.listening", addresses=named, socket=str(options.socket or ""))

    def _documents(self, *, data: bool, admin: bool) -> Documents:
        registry = self.edge.engine.registry
        version = metadata.version("ultraengine")
        made = document(
            registry,
            self._admin.offered,
            version,
            data=data,
            admin=admin,
            feed=self._feeds.offered,
        )
        return Documents(made)

    def _door(self, listener: socket.socket, surface: Surface) -> Door:
        general = Server(self._http.handler(surface))
        self._servers.append(general)
        quick = QuickServer(self.edge, general, self._commands)
        self._quick.append(quick)
        data_path = self._options.quick and "/v1/commands" in surface
        factory = quick if data_path else general
        connections_max = self._options.connections_max

        async def connect(connection: socket.socket) -> None:
            try:
                await self._loop.connect_accepted_socket(factory, connection)
            except OSError:
                connection.close()

        def take(connection: socket.socket) -> None:
            self._in_loop(lambda: self.edge.background(self._loop.create_task(connect(connection))))

        def has_room() -> bool:
            return general.open_count + len(quick.connections) < connections_max

        return Door(listener, take, has_room)

    def _in_loop(self, call: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # The loop has ended; so has the connection.
            self._loop.call_soon_threadsafe(call)

    async def _beat(self) -> None:
        """Show that the loop runs, and end waits that are over."""
        metrics, waits, clock = self.edge.metrics, self.edge.waits, self.edge.clock
        while True:
            await asyncio.sleep(BEAT_S)
            gap = self._heartbeat.beat(clock.monotonic()) - BEAT_S
            metrics.loop_gap_max_s = max(metrics.loop_gap_max_s, gap)
            waits.sweep(clock.monotonic())

    async def _recheck(self) -> None:
        """Take a changed key file, and close the streams whose keys are gone."""
        while True:
            await asyncio.sleep(RECHECK_S)
            if self._key_file is not None:
                loaded = await self._loop.run_in_executor(None, self._key_file.reload)
                if loaded is not None:
                    self.edge.metrics.key_file_reloads["ok" if loaded else "failed"] += 1
            await self._streams.recheck()
            for quick in self._quick:
                quick.sweep(self._loop.time())

    async def hand_over(self) -> list[socket.socket]:
        """Let nobody in any more; the listeners of ports stay open and are the caller's.  Who was
        let in is answered once more, and the connection closed."""
        self.leave()
        self._exposition.leave()
        if self._doorkeeper is not None:
            keeper, self._doorkeeper = self._doorkeeper, None
            kept = self._options.socket is None
            await self._loop.run_in_executor(None, lambda: keeper.close(keep_listeners=kept))
        return self._listeners

    def leave(self) -> None:
        """Say that it is not ready any more, and go on serving: for the time in which load
        balancers hear of it.  Answers close their connections."""
        self.edge.leaving = True

    async def drain(self) -> None:
        """Take nothing new (503 DRAINING, goaway on streams) and wait until all that is in
        flight is answered, ``drain_s`` at most.  Health and metrics go on."""
        self.edge.draining = True
        until = time.monotonic() + self.edge.limits.drain_s
        await self._streams.go_away(self.edge.limits.drain_s)
        while self.edge.metrics.requests_in_flight and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Close all sockets and end the threads.  Idempotent."""
        self.edge.draining = True
        if self._doorkeeper is not None:
            await self._loop.run_in_executor(None, self._doorkeeper.close)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        for quick in self._quick:
            quick.close()
        for server in self._servers:
            server.pre_shutdown()
            await server.shutdown(timeout=1.0)
        self._servers, self._quick = [], []
