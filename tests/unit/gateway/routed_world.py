"""A front before two shards that share one small engine: what `Serving` starts, one hop away."""

import tempfile
from collections.abc import Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any, cast

import aiohttp
from prometheus_client import CollectorRegistry
from tests.unit.gateway.conftest import CountingRandom, Served, SmallEngine, SmallFeed, StillClock

from ultraengine.domains.counter import DOMAIN
from ultraengine.edge.auth import Loopback
from ultraengine.execution.registry import Registry
from ultraengine.feed.source import FeedSource
from ultraengine.gateway.driver import Gateway, GatewayOptions
from ultraengine.gateway.edge import Parts
from ultraengine.gateway.engine import Engine, Operations
from ultraengine.gateway.front.driver import Front
from ultraengine.gateway.hop import HopIdentity
from ultraengine.gateway.routed import RoutedEngine
from ultraengine.gateway.watch import NewestMap, Watch, WatchCollector
from ultraengine.model.domain import Domain
from ultraengine.model.ids import ShardId
from ultraengine.model.limits import DEFAULT_LIMITS, Limits
from ultraengine.moving.plan import Seen
from ultraengine.moving.record import FIRST_OWNER, Attempt, Message
from ultraengine.moving.wire import Batch, Records, Told
from ultraengine.router.driver import Address, Links
from ultraengine.router.shard_map import ShardMap

SECRET = "s" * 40


class NoSlots:
    """Of a shard of which no slot ever moved."""

    def records(self) -> Records:
        return {}

    def look(self, slot: int) -> Told:
        return Told(ShardId(0), Seen(FIRST_OWNER, b"", 0))

    async def send(self, slot: int, message: Message) -> Told:
        return self.look(slot)

    async def read(self, slot: int, position: int) -> Batch:
        return Batch(position, position, 0, b"")

    async def feed(self, slot: int, attempt: Attempt, batch: Batch) -> Told:
        return self.look(slot)


class RoutedServed(Served):
    """A front, its shards, and a session for the front."""

    def __init__(self, engines: Sequence[SmallEngine], clock: StillClock) -> None:
        super().__init__(engines[0], clock)
        self.engines = engines
        self.feeds = [SmallFeed(engine) for engine in engines]
        self.sources: dict[int, FeedSource] = {}
        self.shards: dict[int, Gateway] = {}
        self.links: Links
        self.watch: Watch
        self.place = tempfile.TemporaryDirectory(prefix="u-")

    def socket(self, shard: int) -> Path:
        return Path(self.place.name) / f"{shard}"

    async def start_shard(self, shard: int, operations: Operations | None = None) -> None:
        parts = Parts(
            engine=self.engines[shard],
            identity=HopIdentity(SECRET),
            clock=self.clock,
            random=CountingRandom(),
            operations=operations or Operations(),
            feed=self.feeds[shard],
            source=self.sources.get(shard),
            slots=NoSlots(),
        )
        gateway = self.shards[shard] = Gateway(
            parts, GatewayOptions(socket=self.socket(shard)), registry=CollectorRegistry()
        )
        await gateway.start()

    async def stop_shard(self, shard: int) -> None:
        await self.shards.pop(shard).stop()

    async def start_front(self, options: GatewayOptions, limits: Limits, **more: Any) -> None:
        addresses = {ShardId(n): Address(path=str(self.socket(n))) for n in range(2)}
        self.links = Links(addresses, ShardMap.even(2, version=6))
        self.newest: NewestMap | None = None
        self.watch = Watch(
            self.links, SECRET, newest=lambda: self.newest, addresses=lambda _: addresses
        )
        self.registry.register(WatchCollector(self.watch))
        registry = Registry(self.engine.registry.domains, limits=limits)
        engine = RoutedEngine(self.links, registry, limits, self.watch.status)
        key_file = more.pop("key_file", None)
        parts = Parts(
            engine=cast("Engine", engine),
            clock=self.clock,
            random=CountingRandom(),
            operations=more.pop("operations", None) or self.watch.operations(),
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

    def key_of(self, shard: int, nth: int = 0) -> str:
        """A key of the loopback's tenant in a shard."""
        keys = (f"k{n}" for n in count())
        mine = (key for key in keys if self.links.shard_map.shard_of("default", key) == shard)
        return next(islice(mine, nth, None))

    async def stop(self) -> None:
        await super().stop()
        for shard in list(self.shards):
            await self.stop_shard(shard)
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
        apart: bool = False,
        shards: Sequence[int] = (0, 1),
        shard_operations: Operations | None = None,
        **more: Any,
    ) -> RoutedServed:
        """`apart`: each shard has an engine of its own; `shards`: those that run."""
        first = SmallEngine(domains, DEFAULT_LIMITS)
        second = SmallEngine(domains, DEFAULT_LIMITS) if apart else first
        served = RoutedServed([first, second], StillClock())
        self._started.append(served)
        for shard in shards:
            await served.start_shard(shard, shard_operations)
        who = identity(served.clock) if callable(identity) else identity or Loopback()
        options = options or GatewayOptions(port=0)
        await served.start_front(options, limits, identity=who, **more)
        return served

    async def stop(self) -> None:
        for served in self._started:
            await served.stop()
