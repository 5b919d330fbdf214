"""One task for each shard of a reading: takes pages from the feed, keeps them, stops when full.

While its inbox is full, nothing of the log is read; where the log ends is asked for all the same,
so that the lag in commands is true just when it is large.

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
HEAD_EVERY_S: Final = 1.0
"""Between two looks at the end of a log that is not read meanwhile; and the longest of them."""
NOWHERE: Final = Offset(2**63 - 1)
"""No log comes so far: a feed from here says where it ends, and gives nothing."""
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
        head_every_s: float = HEAD_EVERY_S,
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
        self._head_every_s = head_every_s

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
            try:
                async with asyncio.timeout(self._head_every_s):
                    await self._room.wait()
            except TimeoutError:
                await self._look_at_the_end()

    async def _look_at_the_end(self) -> None:
        """An engine that is away, or slow, leaves it at what is known."""
        with contextlib.suppress(EngineError, TimeoutError):
            async with (
                asyncio.timeout(self._head_every_s),
                contextlib.aclosing(self._source.pages(self._shard, NOWHERE)) as pages,
            ):
                async for page in pages:
                    self._inbox.saw(page.end, page.end_time)
                    return
