"""One task for each shard of a reading: takes pages from the feed, keeps them, stops when full.

An engine that is away is asked again, ever later; a log that no longer has the position is a
problem that the worker parks at.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import structlog

from ultraengine.feed.source import FeedPage, FeedSource
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Offset, ShardId
from ultraengine.projection.readings import Inbox

FIRST_WAIT_S: Final = 0.1
LOST: Final = frozenset({"TOO_OLD", "INTERNAL"})
"""The log no longer has the position, or has another history there: waiting is no use.  All other
errors may end: a key can be replaced, a shard can come back."""
_log = structlog.get_logger("projection")


class Reader:
    """Reads one shard into its inbox."""

    def __init__(
        self,
        source: FeedSource,
        shard: ShardId,
        inbox: Inbox,
        arrived: asyncio.Event,
        *,
        ahead_bytes_max: int,
        wait_s_max: float,
        chance: Callable[[], float],
    ) -> None:
        self._source = source
        self._shard = shard
        self._inbox = inbox
        self._arrived = arrived
        """Set when something was read, or cannot be."""
        self._room = asyncio.Event()
        self._position = Offset(0)
        self._ahead_bytes_max = ahead_bytes_max
        self._wait_s_max = wait_s_max
        self._chance = chance

    def took(self) -> None:
        """The inbox has become smaller."""
        if self._inbox.bytes < self._ahead_bytes_max:
            self._room.set()

    async def run(self, position: Offset) -> None:
        """Read from `position` on, until it is cancelled or the log no longer has it."""
        self._position = position
        failures = 0
        while True:
            try:
                async with contextlib.aclosing(
                    self._source.pages(self._shard, self._position)
                ) as pages:
                    async for page in pages:
                        failures = 0
                        await self._receive(page)
            except EngineError as error:
                if error.code in LOST:
                    self._inbox.problem = f"{error.code}: {error.detail}"
                    self._arrived.set()
                    return
                if failures == 0:
                    _log.warning("feed.away", shard=self._shard, error=error.detail)
                failures += 1
            longest = min(FIRST_WAIT_S * 2.0 ** min(failures, 30), self._wait_s_max)
            await asyncio.sleep(longest * (0.5 + self._chance() / 2))

    async def _receive(self, page: FeedPage) -> None:
        """Keep a page, and wait for room for the next one."""
        self._inbox.receive(page)
        if page.groups:
            self._position = page.groups[-1].offset_end
        self._arrived.set()
        while self._inbox.bytes >= self._ahead_bytes_max:
            self._room.clear()
            await self._room.wait()
