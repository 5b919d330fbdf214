"""A feed in memory: groups as a shard stores them, and an engine that can go away.

    log = GroupLog(ShardId(0))
    log.add(time, [(command, events), …])
    feed = MemoryFeed([log])

`MemoryFeed` is a `feed.source.FeedSource`.  ``away``, ``first_offset`` of a log and what is added
while somebody reads are what a test plays with.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import msgspec

from ultraengine.feed.source import Consumer, FeedPage
from ultraengine.log.serializer import MSGPACK, MsgpackSerializer
from ultraengine.model.command import Command
from ultraengine.model.errors import EngineError, Unavailable
from ultraengine.model.ids import (
    CHAIN_BYTES,
    NO_CHAIN,
    Epoch,
    FrameSequence,
    Instant,
    Offset,
    ShardId,
)
from ultraengine.model.outcome import EMPTY_ARRAY, NIL, CommittedGroup, Failure, Outcome, Status

GROUPS_PER_PAGE: Final = 4
IDLE_S: Final = 0.01
_encode: Final = msgspec.msgpack.Encoder().encode


class GroupLog:
    """The committed groups of one shard."""

    def __init__(self, shard: ShardId, epoch: int = 1) -> None:
        self.shard = shard
        self.epoch = Epoch(epoch)
        self.groups: list[CommittedGroup] = []
        self.first_offset = Offset(0)
        """What is below is no longer kept."""
        self._serializer = MsgpackSerializer()

    @property
    def end(self) -> Offset:
        """First offset that is not there yet."""
        return self.groups[-1].offset_end if self.groups else Offset(0)

    def add(
        self, time: Instant, commands: Sequence[tuple[Command, Sequence[Any] | None]]
    ) -> CommittedGroup:
        """Append a group of commands with their events; None = the command was rejected."""
        base, before = self.end, self.groups[-1].chain if self.groups else NO_CHAIN
        outcomes = [
            Outcome(base + n, Status.REJECTED, 0, NIL, EMPTY_ARRAY, Failure("REJECTED", "no"))
            if events is None
            else Outcome(base + n, Status.ACCEPTED, 1, NIL, msgspec.Raw(_encode(list(events))))
            for n, (_, events) in enumerate(commands)
        ]
        payload = self._serializer.encode_commands([command for command, _ in commands])
        group = CommittedGroup(
            self.shard,
            self.epoch,
            FrameSequence(2 * len(self.groups)),
            base,
            len(commands),
            time,
            MSGPACK,
            payload,
            self._serializer.encode_outcomes(outcomes),
            hashlib.blake2b(before + payload, digest_size=CHAIN_BYTES).digest(),
        )
        self.groups.append(group)
        return group


class MemoryFeed:
    """All shards of an engine that lives in memory."""

    def __init__(self, logs: Sequence[GroupLog]) -> None:
        self.logs = {log.shard: log for log in logs}
        self.away = False
        """Whether nobody can reach it."""
        self.refusal: EngineError | None = None
        """Raised instead of an answer."""
        self.confirmed: dict[tuple[ShardId, str], Offset] = {}
        self.pages_given = 0
        self.refused = 0
        """Calls that came to nothing."""

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        error = Unavailable("the engine is away") if self.away else self.refusal
        if error is not None:
            self.refused += 1
            raise error

    async def shards(self) -> Sequence[ShardId]:
        """The shards there are."""
        await self._reach()
        return sorted(self.logs)

    async def pages(self, shard: ShardId, from_offset: Offset) -> AsyncGenerator[FeedPage, None]:
        """Groups from an offset on, a few at a time."""
        log, position, told = self.logs[shard], from_offset, -1
        while True:
            await self._reach()
            if position < log.first_offset:
                raise EngineError(f"offset {position} is no longer kept", code="TOO_OLD")
            groups = tuple(group for group in log.groups if group.offset_end > position)
            groups = groups[:GROUPS_PER_PAGE]
            if not groups and told == log.end:
                await asyncio.sleep(IDLE_S)
                told = -1
                continue
            told = log.end
            end_time = log.groups[-1].time if log.groups else Instant(0)
            self.pages_given += 1
            yield FeedPage(groups, log.end, end_time)
            if groups:
                position = groups[-1].offset_end

    async def consumers(self, shard: ShardId) -> Sequence[Consumer]:
        """The slots of a shard."""
        await self._reach()
        found = sorted((name, at) for (of, name), at in self.confirmed.items() if of == shard)
        return [Consumer(name, at) for name, at in found]

    async def confirm(self, shard: ShardId, consumer: str, offset: Offset) -> None:
        """Move a slot, never back."""
        await self._reach()
        place = (shard, consumer)
        self.confirmed[place] = max(offset, self.confirmed.get(place, offset))

    async def forget(self, shard: ShardId, consumer: str) -> None:
        """Give a slot up."""
        await self._reach()
        self.confirmed.pop((shard, consumer), None)

    async def close(self) -> None:
        """Nothing is held."""
