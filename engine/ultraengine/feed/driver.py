"""Committed outcomes by offset, for whoever asks: streams, projections, exports.

A subscriber reads the log from any retained offset and then follows its end; it is woken
when outcomes became durable and never before (requirement 001 §3.3).  Every subscriber
pulls at its own pace: a slow one holds one page and slows nobody.

`Feed` is the `feed.source.FeedSource` of a shard, or of a copy of one, in this process;
`feed.remote` is that of an engine elsewhere.  One contract holds all (`testing.feed_sources`).
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from ultraengine.feed.pages import Groups, committed, take
from ultraengine.feed.source import Consumer, FeedPage, Slots
from ultraengine.log.damage import BelowRetention
from ultraengine.log.reader import RecordedGroup
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.model.limits import DEFAULT_LIMITS, Limits
from ultraengine.model.outcome import CommittedGroup, CommittedOutcome

IDLE_PAGE_S: Final = 1.0
"""An empty page is given after this long without anything new."""
READERS: Final = 2
"""Threads that read for all subscribers."""

DECODED_BYTES_MAX: Final = 128 * 1024
"""Payload that is decoded at a time for a subscriber, or one group: what a slow one holds."""
READS_MAX: Final = 3
"""Attempts to read what retention moves meanwhile."""

T = TypeVar("T")


class Feed:
    """The durable outcomes of one shard."""

    def __init__(
        self,
        reader: Groups,
        shard: ShardId,
        *,
        limits: Limits = DEFAULT_LIMITS,
        slots: Slots | None = None,
        idle_s: float = IDLE_PAGE_S,
        refusal: Callable[[], EngineError | None] = lambda: None,
        looks_again: bool = False,
    ) -> None:
        """`slots` keeps what consumers confirm; without it nobody can.

        `refusal` says before each page why there is none any more, as of a copy that is behind.
        `looks_again`: what could not be shown may be shown later though the end has not moved: a
        copy hears that what it has is committed.
        """
        self._looks_again = looks_again
        self._reader = reader
        self._refusal = refusal
        self._shard = shard
        self._limits = limits
        self._slots = slots
        self._idle_s = idle_s
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="feed")
        self._end = 0
        """First offset whose outcome is not known to be durable."""
        self._end_time = Instant(0)
        self._changed = asyncio.Event()
        self._closed = False

    @property
    def end(self) -> int:
        """First offset whose outcome is not known to be durable."""
        return self._end

    def publish(self, end: int, time: int) -> None:
        """Outcomes below `end` are durable; the log's time is `time`."""
        if end > self._end:
            self._end, self._end_time = end, Instant(time)
            self._changed.set()

    # --- what is committed -----------------------------------------------------------------

    async def pages(self, shard: ShardId, from_offset: Offset) -> AsyncGenerator[FeedPage, None]:
        """See `FeedSource.pages`.  The first page comes at once, even when it is empty.

        Raises `EngineError` when the feed refuses to go on.
        """
        self._require(shard, from_offset)
        position, wanted = int(from_offset), 0
        while not self._closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._idle_s):
                    await self._reached(wanted)
            refusal = self._refusal()
            if refusal is not None:
                raise refusal
            end, end_time = self._end, self._end_time
            groups: list[CommittedGroup] = []
            if (end >= wanted or self._looks_again) and position < end and not self._closed:
                groups = await self._read(self._read_page, position, end)
            if groups:
                position = groups[-1].offset_end
            yield FeedPage(tuple(groups), Offset(end), end_time)
            wanted = _next_wanted(position, end, found=bool(groups))

    async def outcomes(self, from_offset: int) -> AsyncGenerator[list[CommittedOutcome], None]:
        """Outcomes from exactly `from_offset` on, decoded, group by group; ends when the feed
        closes.  The first list comes at once, even when it is empty.  Raises as ``pages`` does.
        """
        self._require(self._shard, from_offset)
        position, wanted = from_offset, from_offset + 1
        if self._end < wanted and not self._closed:
            yield []
        while True:
            await self._reached(wanted)
            if self._closed:
                return
            end = self._end
            batch = await self._read(self._read_outcomes, position, end)
            for outcomes in batch:
                position = outcomes[-1].offset + 1
                yield [one for one in outcomes if one.offset >= from_offset]
            wanted = _next_wanted(position, end, found=bool(batch))

    async def _reached(self, wanted: int) -> None:
        """Wait until outcomes below `wanted` are durable, or the feed closes."""
        while self._end < wanted and not self._closed:
            self._changed.clear()
            await self._changed.wait()

    def _require(self, shard: ShardId, from_offset: int) -> None:
        if shard != self._shard:
            raise EngineError(
                f"there is no shard {shard} here, only {self._shard}",
                code="NOT_FOUND",
                pointer="/shard",
            )
        if from_offset < 0:
            raise EngineError("an offset is 0 or more", code="MALFORMED", pointer="/from")

    async def _read(self, read: Callable[[int, int], T], position: int, end: int) -> T:
        """Read on a thread.  Raises `EngineError` TOO_OLD."""
        loop = asyncio.get_running_loop()
        first = 0
        for _ in range(READS_MAX):
            try:
                return await loop.run_in_executor(self._threads, read, position, end)
            except BelowRetention as error:
                first = error.first_offset
                if position < first or self._closed:
                    break
                # It was archived, or removed there, while it was read: the next look knows.
        raise too_old(position, first)

    def _read_page(self, position: int, end: int) -> list[CommittedGroup]:
        limits = self._limits
        found = take(
            self._reader.groups(position, end),
            bytes_max=limits.feed_page_bytes_max,
            groups_max=limits.feed_page_groups_max,
        )
        return [committed(group) for group in found]

    def _read_outcomes(self, position: int, end: int) -> list[list[CommittedOutcome]]:
        found = take(
            self._reader.groups(position, end),
            bytes_max=DECODED_BYTES_MAX,
            groups_max=self._limits.feed_page_groups_max,
        )
        return [_outcomes(group) for group in found]

    # --- who has read it -------------------------------------------------------------------

    async def shards(self) -> Sequence[ShardId]:
        """The one shard."""
        return (self._shard,)

    async def consumers(self, shard: ShardId) -> Sequence[Consumer]:
        """See `FeedSource.consumers`."""
        self._require(shard, 0)
        return self._kept().consumers()

    async def confirm(self, shard: ShardId, consumer: str, offset: Offset) -> None:
        """See `FeedSource.confirm`."""
        self._require(shard, offset)
        if offset > self._end:
            raise EngineError(
                f"offset {offset} is beyond what is durable here: {self._end}",
                code="MALFORMED",
                pointer="/offset",
            )
        self._kept().confirm(consumer, offset)

    async def forget(self, shard: ShardId, consumer: str) -> None:
        """See `FeedSource.forget`."""
        self._require(shard, 0)
        self._kept().forget(consumer)

    def _kept(self) -> Slots:
        if self._slots is None:
            raise EngineError("this feed keeps no consumers", code="NOT_FOUND")
        return self._slots

    async def close(self) -> None:
        """End all pages and subscriptions.  Idempotent."""
        self._closed = True
        self._changed.set()
        self._threads.shutdown(wait=False)


def _next_wanted(position: int, end: int, *, found: bool) -> int:
    """The end to wait for: a group of which a part is recorded needs more than there was."""
    return position + 1 if found or position >= end else end + 1


def _outcomes(group: RecordedGroup) -> list[CommittedOutcome]:
    header = group.header
    return [
        CommittedOutcome(
            ShardId(header.shard),
            Epoch(header.epoch),
            Offset(outcome.offset),
            Instant(header.time),
            command,
            outcome,
        )
        for command, outcome in zip(group.commands, group.outcomes or (), strict=True)
    ]


def too_old(offset: int, first: int) -> EngineError:
    """The answer to a consumer whose offset is kept nowhere."""
    return EngineError(
        f"offset {offset} is no longer kept; the first one is {first}. What must not be missed "
        "needs a consumer slot, or an archive with the compaction 'time'",
        code="TOO_OLD",
        pointer="/from",
    )
