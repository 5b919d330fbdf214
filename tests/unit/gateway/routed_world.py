"""A front before two shards that share one small engine: what `Serving` starts, one hop away."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import aiohttp
from prometheus_client import CollectorRegistry
from tests.unit.gateway.conftest import CountingRandom, Served, SmallEngine, StillClock

from ultraengine.domains.counter import DOMAIN
from ultraengine.execution.registry import Registry
from ultraengine.gateway.auth import Loopback
from ultraengine.gateway.driver import Gateway, GatewayOptions
from ultraengine.gateway.edge import Parts
from ultraengine.gateway.engine import Engine, Operations
from ultraengine.gateway.front.driver import Front
from ultraengine.gateway.hop import HopIdentity
from ultraengine.gateway.routed import RoutedEngine
from ultraengine.gateway.watch import Watch, WatchCollector
from ultraengine.model.domain import Domain
from ultraengine.model.ids import ShardId
from ultraengine.model.limits import DEFAULT_LIMITS, Limits
from ultraengine.router.driver import Address, Links
from ultraengine.router.shard_map import ShardMap

SECRET = "s" * 40


class RoutedServed(Served):
    """A front, its shards, and a session for the front."""

    def __init__(self, engine: SmallEngine, clock: StillClock) -> None:
        super().__init__(engine, clock)
        self.shards: list[Gateway] = []
        self.links: Links
        self.place = tempfile.TemporaryDirectory(prefix="u-")

    def socket(self, shard: int) -> Path:
        return Path(self.place.name) / f"{shard}"

    async def start_shard(
        self,
        shard: int,
        limits: Limits,
        operations: Operations = Operations(),  # noqa: B008
    ) -> Gateway:
        del limits
        parts = Parts(
            engine=self.engine,
            identity=HopIdentity(SECRET),
            clock=self.clock,
            random=CountingRandom(),
            operations=operations,
        )
        gateway = Gateway(
            parts, GatewayOptions(socket=self.socket(shard)), registry=CollectorRegistry()
        )
        await gateway.start()
        return gateway

    async def start_front(self, options: GatewayOptions, limits: Limits, **more: Any) -> None:
        self.shards = [await self.start_shard(shard, limits) for shard in range(2)]
        addresses = {ShardId(n): Address(path=str(self.socket(n))) for n in range(2)}
        self.links = Links(addresses, ShardMap.even(2, version=6))
        self.watch = Watch(self.links, SECRET)
        self.registry.register(WatchCollector(self.watch))
        registry = Registry(self.engine.registry.domains, limits=limits)
        engine = RoutedEngine(self.links, registry, limits, self.watch.status)
        key_file = more.pop("key_file", None)
        more.setdefault("operations", Operations())
        parts = Parts(
            engine=cast("Engine", engine),
            clock=self.clock,
            random=CountingRandom(),
            shard_map_version=lambda: self.links.shard_map.version,
            **more,
        )
        self.gateway = Front(
            parts,
            options,
            links=self.links,
            secret=SECRET,
            watch=self.watch,
            registry=self.registry,
            key_file=key_file,
        )
        await self.gateway.start()
        self.http = aiohttp.ClientSession(self.url)

    async def stop(self) -> None:
        await super().stop()
        for shard in self.shards:
            await shard.stop()
        self.place.cleanup()


class RoutedServing:
    """Starts fronts and stops them all at the end of a test; called as `Serving` is."""

    def __init__(self) -> None:
        self._started: list[RoutedServed] = []

    async def __call__(
        self,
        *,
        limits: Limits = DEFAULT_LIMITS,
        identity: Any = None,
        options: GatewayOptions | None = None,
        domains: Sequence[Domain] = (DOMAIN,),
        **more: Any,
    ) -> RoutedServed:
        clock = StillClock()
        served = RoutedServed(SmallEngine(domains, DEFAULT_LIMITS), clock)
        self._started.append(served)
        who = identity(clock) if callable(identity) else identity or Loopback()
        options = options or GatewayOptions(port=0)
        await served.start_front(options, limits, identity=who, **more)
        return served

    async def stop(self) -> None:
        for served in self._started:
            await served.stop()
