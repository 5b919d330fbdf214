"""`Front`: a gateway before shards in other processes; it serves the same API.

front = Front(parts, options, links=links, secret=secret, watch=watch, registry=...)
await front.start()
...
await front.drain()
await front.stop()
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Final, cast

import msgspec
from prometheus_client import CollectorRegistry

from ultraengine.delivery.driver import ENCODE, SCOPES, Delivery, submitted, wanted
from ultraengine.delivery.parcels import CONSUMER, Parcel
from ultraengine.edge.auth import KnownCaller
from ultraengine.edge.codec import JSON, MSGPACK
from ultraengine.edge.metrics import Exposition
from ultraengine.edge.server import KeyFile
from ultraengine.gateway.driver import Gateway, GatewayOptions
from ultraengine.gateway.edge import Parts
from ultraengine.gateway.envelope import Envelope
from ultraengine.gateway.http import Http
from ultraengine.gateway.routed import RoutedCommands, RoutedEdge
from ultraengine.gateway.routed_feeds import RoutedFeeds, RoutedSource
from ultraengine.gateway.routed_http import RoutedHttp
from ultraengine.gateway.routed_stream import RoutedStream
from ultraengine.gateway.watch import Watch
from ultraengine.log.serializer import serializers
from ultraengine.model.reply import Reply
from ultraengine.router.driver import Links

SWEEP_S: Final = 0.5
"""Seconds between two looks for idle and for late connections."""


class Front(Gateway):
    """The edge of a process that forwards.  Created and used on the event loop's thread."""

    def __init__(
        self,
        parts: Parts,
        options: GatewayOptions,
        *,
        links: Links,
        secret: str,
        watch: Watch,
        registry: CollectorRegistry,
        key_file: KeyFile | None = None,
    ) -> None:
        """`parts.engine` is a `RoutedEngine` over `links`; `secret` is the shards' hop key."""
        self._links = links
        self._secret = secret
        self._watch = watch
        links.on_wrong_shard = watch.refresh
        self._watching: list[asyncio.Task[None]] = []
        super().__init__(parts, options, registry=registry, key_file=key_file)

    _stream_kind = RoutedStream

    def _make_edge(self, parts: Parts) -> RoutedEdge:
        return RoutedEdge(parts, self._links, self._secret)

    def _make_commands(self) -> RoutedCommands:
        return RoutedCommands(cast("RoutedEdge", self.edge))

    def _make_feeds(self) -> RoutedFeeds:
        return RoutedFeeds(self.edge)

    def _make_http(self, exposition: Exposition) -> Http:
        commands = cast("RoutedCommands", self._commands)
        edge = cast("RoutedEdge", self.edge)
        return RoutedHttp(edge, self._heartbeat, exposition, commands, self._watch)

    async def start(self, listeners: Sequence[socket.socket] = ()) -> None:
        """Look at the shards, then serve.  Raises OSError when an address cannot be had."""
        await self._watch.look()
        await super().start(listeners)
        self._watching = [
            asyncio.create_task(self._watch.run()),
            asyncio.create_task(self._sweep()),
        ]
        if wanted(self.edge.engine.registry.domains):
            self._watching.append(asyncio.create_task(self._deliver()))

    async def _deliver(self) -> None:
        """Send what domains ask for, from each shard to that of the key it is for."""
        edge = cast("RoutedEdge", self.edge)
        source = RoutedSource(edge, KnownCaller("", CONSUMER, frozenset({"feed"})))

        async def post(parcel: Parcel) -> Reply:
            message = parcel.message
            envelope = Envelope(
                message.type,
                message.key,
                msgspec.Raw(ENCODE(message.data)),
                id=message.id,
                correlation_id=parcel.correlation_id,
                traceparent=parcel.traceparent,
            )
            caller = KnownCaller(message.tenant, parcel.sender, SCOPES)
            return await submitted(edge.engine.submit, edge.route(caller, envelope, MSGPACK, JSON))

        try:
            await Delivery(source, post, serializers()).run()
        finally:
            await source.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._links.sweep()

    async def stop(self) -> None:
        """Close all sockets, those to the shards too."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        self._watching = []
        await self._watch.stop()
        await super().stop()
        await self._links.close()
