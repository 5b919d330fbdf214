"""The Protocol of a feed as its consumers see it: stored groups, in order, from an offset.

A consumer that must not miss anything has a *slot*: a name under which it confirms what it has
made durable itself; the log keeps what a slot has not confirmed, within a byte cap.  Groups
travel as they are stored, so a feed costs the shard no decoding (requirement 001 §2.1).
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

import msgspec

from ultraengine.model.ids import Instant, Offset, ShardId
from ultraengine.model.outcome import CommittedGroup


class FeedPage(msgspec.Struct, frozen=True):
    """Some consecutive groups of one shard and where its feed ended when they were read."""

    groups: tuple[CommittedGroup, ...]
    """The first may begin before the offset asked for; empty: nothing new for a while."""
    end: Offset
    """First offset whose outcome was not durable: `end` - position = lag in commands."""
    end_time: Instant
    """Stamped time of the newest durable group, 0 without one."""


class FeedSource(Protocol):
    """All shards of one engine.  Raises `EngineError`: TOO_OLD when an offset is no longer kept
    anywhere, SHARD_UNAVAILABLE (retryable) when a shard cannot be reached."""

    async def shards(self) -> Sequence[ShardId]:
        """The shards there are now, ascending."""

    def pages(self, shard: ShardId, from_offset: Offset) -> AsyncGenerator[FeedPage, None]:
        """Groups from the one that holds `from_offset` on, for ever; the consumer sets the pace.

        Gives an empty page at least once a second while nothing happens, for the lag.
        """

    async def confirm(self, shard: ShardId, consumer: str, offset: Offset) -> None:
        """All below `offset` is durable at `consumer`: its slot, made when it is new, moves on.

        Never moves it back.  May be called often; the shard logs it at most once a second.
        """

    async def forget(self, shard: ShardId, consumer: str) -> None:
        """Give the slot up.  Idempotent."""

    async def close(self) -> None:
        """End all pages and connections.  Idempotent."""
