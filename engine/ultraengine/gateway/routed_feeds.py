"""The feeds of a front: each is that of one of its shards, asked for in the caller's name.

A shard whose process starts again is gone on with where it was; one that stays away ends the
feed with SHARD_UNAVAILABLE, and whoever follows it asks again.  Where a shard has several copies,
who says ``read=follower`` is given the pages of one that follows, and those of the leader when none
keeps up; slots are the leader's.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, cast

from ultraengine.feed.remote.driver import HttpFeed
from ultraengine.feed.source import Consumer, FeedPage, FeedRead, FeedSource
from ultraengine.gateway.feeds import Feeds
from ultraengine.gateway.routed import RoutedEdge
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Offset, ShardId
from ultraengine.ports import Caller
from ultraengine.router.driver import Address

ATTEMPTS_MAX: Final = 4
"""Attempts to reach a shard: below a second.  The feed's own client tries for longer."""


class RoutedSource:
    """`FeedSource` over all shards of a front, in one caller's name."""

    def __init__(self, edge: RoutedEdge, caller: Caller, read: FeedRead = "leader") -> None:
        self._edge = edge
        self._read: FeedRead = read
        self._headers = dict(edge.hop_headers(caller))
        self._feeds: dict[ShardId, HttpFeed] = {}

    async def shards(self) -> Sequence[ShardId]:
        """Those of the newest shard map."""
        return self._edge.links.shard_map.shards

    async def pages(self, shard: ShardId, from_offset: Offset) -> AsyncGenerator[FeedPage, None]:
        """See `FeedSource.pages`."""
        feed = await self._at(shard)
        async with contextlib.aclosing(feed.pages(shard, from_offset)) as pages:
            async for page in pages:
                yield page

    async def consumers(self, shard: ShardId) -> Sequence[Consumer]:
        """See `FeedSource.consumers`."""
        return await (await self._at(shard)).consumers(shard)

    async def confirm(self, shard: ShardId, consumer: str, offset: Offset) -> None:
        """See `FeedSource.confirm`."""
        await (await self._at(shard)).confirm(shard, consumer, offset)

    async def forget(self, shard: ShardId, consumer: str) -> None:
        """See `FeedSource.forget`."""
        await (await self._at(shard)).forget(shard, consumer)

    async def _at(self, shard: ShardId) -> HttpFeed:
        """Raises `EngineError` NOT_FOUND, and SHARD_UNAVAILABLE of a name without an address."""
        feed = self._feeds.get(shard)
        if feed is None:
            if shard not in self._edge.links.shard_map.shards:
                raise EngineError(f"there is no shard {shard}", code="NOT_FOUND", pointer="/shard")
            try:
                copies = await self._edge.links.copies_of(shard)
            except (OSError, UnicodeError) as error:
                raise EngineError(
                    f"shard {shard} has no address: {error}", code="SHARD_UNAVAILABLE"
                ) from error
            feed = self._feeds[shard] = HttpFeed(
                [_url(address) for address in copies],
                read=self._read,
                headers=self._headers,
                socket=copies[0].path,
                attempts_max=ATTEMPTS_MAX,
            )
        return feed

    async def close(self) -> None:
        """Close the connections.  Idempotent."""
        for feed in self._feeds.values():
            await feed.close()


def _url(address: Address) -> str:
    if address.path is not None:
        return "http://shard"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"http://{host}:{address.port}"


class RoutedFeeds(Feeds):
    """The handlers of a front."""

    @property
    def offered(self) -> bool:
        """Every front has its shards' feeds."""
        return True

    def _source(
        self, caller: Caller, read: FeedRead = "leader"
    ) -> AbstractAsyncContextManager[FeedSource]:
        return _opened(RoutedSource(cast("RoutedEdge", self._edge), caller, read))


@contextlib.asynccontextmanager
async def _opened(source: RoutedSource) -> AsyncIterator[FeedSource]:
    try:
        yield source
    finally:
        await source.close()
