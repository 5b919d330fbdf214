"""The feeds of a front: each is that of one of its shards, asked for in the caller's name.

A shard whose process starts again is gone on with where it was; one that stays away ends the
feed with SHARD_UNAVAILABLE, and whoever follows it asks again.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, cast

from ultraengine.feed.remote.driver import HttpFeed
from ultraengine.feed.source import Consumer, FeedPage, FeedSource
from ultraengine.gateway.feeds import Feeds
from ultraengine.gateway.routed import RoutedEdge
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Offset, ShardId
from ultraengine.ports import Caller

ATTEMPTS_MAX: Final = 4
"""Attempts to reach a shard: below a second.  The feed's own client tries for longer."""


class RoutedSource:
    """`FeedSource` over all shards of a front, in one caller's name."""

    def __init__(self, edge: RoutedEdge, caller: Caller) -> None:
        self._edge = edge
        self._headers = dict(edge.hop_headers(caller))
        self._feeds: dict[ShardId, HttpFeed] = {}

    async def shards(self) -> Sequence[ShardId]:
        """Those of the newest shard map."""
        return self._edge.links.shard_map.shards

    def pages(self, shard: ShardId, from_offset: Offset) -> AsyncGenerator[FeedPage, None]:
        """See `FeedSource.pages`."""
        return self._at(shard).pages(shard, from_offset)

    async def consumers(self, shard: ShardId) -> Sequence[Consumer]:
        """See `FeedSource.consumers`."""
        return await self._at(shard).consumers(shard)

    async def confirm(self, shard: ShardId, consumer: str, offset: Offset) -> None:
        """See `FeedSource.confirm`."""
        await self._at(shard).confirm(shard, consumer, offset)

    async def forget(self, shard: ShardId, consumer: str) -> None:
        """See `FeedSource.forget`."""
        await self._at(shard).forget(shard, consumer)

    def _at(self, shard: ShardId) -> HttpFeed:
        """Raises `EngineError` NOT_FOUND."""
        feed = self._feeds.get(shard)
        if feed is None:
            if shard not in self._edge.links.shard_map.shards:
                raise EngineError(f"there is no shard {shard}", code="NOT_FOUND", pointer="/shard")
            address = self._edge.links.address_of(shard)
            at = "shard" if address.path is not None else f"{address.host}:{address.port}"
            feed = self._feeds[shard] = HttpFeed(
                f"http://{at}",
                headers=self._headers,
                socket=address.path,
                attempts_max=ATTEMPTS_MAX,
            )
        return feed

    async def close(self) -> None:
        """Close the connections.  Idempotent."""
        for feed in self._feeds.values():
            await feed.close()


class RoutedFeeds(Feeds):
    """The handlers of a front."""

    @property
    def offered(self) -> bool:
        """Every front has its shards' feeds."""
        return True

    def _source(self, caller: Caller) -> AbstractAsyncContextManager[FeedSource]:
        return _opened(RoutedSource(cast("RoutedEdge", self._edge), caller))


@contextlib.asynccontextmanager
async def _opened(source: RoutedSource) -> AsyncIterator[FeedSource]:
    try:
        yield source
    finally:
        await source.close()
