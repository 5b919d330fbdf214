"""Committed outcomes by offset, for whoever asks: streams, projections, exports.

A subscriber reads the log from any retained offset and then follows its end; it is woken
when outcomes became durable and never before (requirement 001 §3.3).  Every subscriber
pulls at its own pace: a slow one holds nothing in memory and slows nobody.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final

from ultraengine.log.damage import BelowRetention
from ultraengine.log.reader import LogReader, RecordedGroup
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.model.outcome import CommittedOutcome

GROUPS_PER_READ: Final = 64


class Feed:
    """The durable outcomes of one shard."""

    def __init__(self, reader: LogReader, first_offset: Callable[[], int]) -> None:
        self._reader = reader
        self._first_offset = first_offset
        """First offset that is still retained."""
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._end = 0
        self._changed = asyncio.Event()
        self._closed = False

    @property
    def end(self) -> int:
        """First offset whose outcome is not known to be durable."""
        return self._end

    def publish(self, end: int) -> None:
        """Outcomes below `end` are durable."""
        if end > self._end:
            self._end = end
            self._changed.set()

    async def groups(self, from_offset: int) -> AsyncIterator[RecordedGroup]:
        """Recorded groups from the one that holds `from_offset` on; ends when the feed closes.

        The first group may begin before `from_offset`.  Raises `EngineError` TOO_OLD when the
        offset is no longer retained, MALFORMED when it is negative.
        """
        if from_offset < 0:
            raise EngineError("an offset is 0 or more", code="MALFORMED", pointer="/from")
        first = self._first_offset()
        if from_offset < first:
            raise _too_old(from_offset, first)
        loop = asyncio.get_running_loop()
        position = from_offset
        while True:
            while position >= self._end and not self._closed:
                self._changed.clear()
                await self._changed.wait()
            if self._closed:
                return
            try:
                batch = await loop.run_in_executor(self._threads, self._read, position, self._end)
            except BelowRetention as error:
                raise _too_old(position, error.first_offset) from error
            for group in batch:
                yield group
                position = group.header.base_offset + len(group.commands)

    async def outcomes(self, from_offset: int) -> AsyncIterator[list[CommittedOutcome]]:
        """Like `groups`, decoded, and beginning exactly at `from_offset`."""
        async for group in self.groups(from_offset):
            header = group.header
            pairs = zip(group.commands, group.outcomes or (), strict=False)
            yield [
                CommittedOutcome(
                    ShardId(header.shard),
                    Epoch(header.epoch),
                    Offset(outcome.offset),
                    Instant(header.time),
                    command,
                    outcome,
                )
                for command, outcome in pairs
                if outcome.offset >= from_offset
            ]

    def _read(self, position: int, end: int) -> list[RecordedGroup]:
        return list(islice(self._reader.groups(position, end), GROUPS_PER_READ))

    def close(self) -> None:
        """End all subscriptions."""
        self._closed = True
        self._changed.set()
        self._threads.shutdown(wait=False)


def _too_old(offset: int, first: int) -> EngineError:
    return EngineError(
        f"offset {offset} is no longer in the log; the first one is {first}",
        code="TOO_OLD",
        pointer="/from",
    )
