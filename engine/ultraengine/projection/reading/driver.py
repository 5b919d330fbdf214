"""One task for each shard of a reading: takes pages from the feed, keeps them, stops when full.

While its inbox is full, nothing of the log is read; where the log ends is asked for all the same,
so that the lag in commands is true just when it is large.

An engine that is away is asked again, ever later; a log that no longer has the position is a
problem that the worker parks at.  So is another history: what the tables have followed last is read
once more whenever a feed begins, and its chain compared, since an engine may have been restored to
an earlier moment meanwhile.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import structlog

from ultraengine.feed.source import FeedPage, FeedSource
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import NO_CHAIN, Offset, ShardId
from ultraengine.projection.readings import Inbox
from ultraengine.projection.target import Checkpoint

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
        self._chain = NO_CHAIN
        """Of the group that ends at the position, where it is known."""
        self._ahead_bytes_max = ahead_bytes_max
        self._wait_s_max = wait_s_max
        self._chance = chance
        self._head_every_s = head_every_s

    def took(self) -> None:
        """The inbox has become smaller."""
        if self._inbox.bytes < self._ahead_bytes_max:
            self._room.set()

    async def run(self, known: Checkpoint) -> None:
        """Read behind what is `known`, until it is cancelled or the log no longer has it."""
        self._position, self._chain = known.offset, known.chain
        failures = 0
        while True:
            proves = self._chain != NO_CHAIN
            start = Offset(self._position - 1) if proves else self._position
            try:
                async with contextlib.aclosing(self._source.pages(self._shard, start)) as pages:
                    async for page in pages:
                        failures = 0
                        if proves and page.groups:
                            proves, page = False, self._proved(page)  # noqa: PLW2901
                        await self._receive(page)
            except EngineError as error:
                if proves and error.code == "TOO_OLD":
                    # Cut off exactly there, a log has what is needed and not what would prove it.
                    self._chain = NO_CHAIN
                    continue
                if error.code in LOST:
                    self._inbox.problem = f"{error.code}: {error.detail}"
                    self._arrived.set()
                    return
                if failures == 0:
                    _log.warning("feed.away", shard=self._shard, error=error.detail)
                failures += 1
            longest = min(FIRST_WAIT_S * 2.0 ** min(failures, 30), self._wait_s_max)
            await asyncio.sleep(longest * (0.5 + self._chance() / 2))

    def _proved(self, page: FeedPage) -> FeedPage:
        """The page without its first group, which must be the one that ends at the position.

        Raises `EngineError` INTERNAL.
        """
        first = page.groups[0]
        if (first.offset_end, first.chain) != (self._position, self._chain):
            raise EngineError(
                f"the feed of shard {self._shard} is another history: the chain below offset "
                f"{self._position} was {self._chain.hex()}, and is {first.chain.hex()} below "
                f"{first.offset_end} now; was the engine restored to an earlier moment? Rebuild"
            )
        return FeedPage(page.groups[1:], page.end, page.end_time)

    async def _receive(self, page: FeedPage) -> None:
        """Keep a page, and wait for room for the next one."""
        self._inbox.receive(page)
        if page.groups:
            last = page.groups[-1]
            self._position, self._chain = last.offset_end, last.chain
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
