"""The Protocol of a feed as its consumers see it: stored groups, in order, from an offset.

A consumer that must not miss anything has a *slot*: a name under which it confirms what it has
made durable itself; the log keeps what a slot has not confirmed, within a byte cap.  Groups
travel as they are stored, so a feed costs the shard no decoding (requirement 001 §2.1).
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Literal, Protocol

import msgspec

from ultraengine.model.ids import Instant, Offset, ShardId
from ultraengine.model.outcome import CommittedGroup

FeedRead = Literal["leader", "follower"]
"""Who gives the pages: whoever leads, or a copy that follows where there is one.  Both have the
same groups; a copy may have them a little later."""


class FeedPage(msgspec.Struct, frozen=True):
    """Some consecutive groups of one shard and where its feed ended when they were read."""

    groups: tuple[CommittedGroup, ...]
    """The first may begin before the offset asked for; empty: nothing new for a while."""
    end: Offset
    """First offset whose outcome was not durable: `end` - position = lag in commands."""
    end_time: Instant
    """Stamped time of the newest durable group, 0 without one."""


class Consumer(msgspec.Struct, frozen=True):
    """A consumer slot: who reads the feed, and what it has made durable itself."""

    name: str
    offset: Offset
    """Everything below is confirmed."""


class Slots(Protocol):
    """Where a shard keeps its consumer slots: in replicated state, through its own log."""

    def consumers(self) -> Sequence[Consumer]:
        """All slots, by name."""

    def confirm(self, name: str, offset: Offset) -> None:
        """Move a slot, or make it; never back.  Logged soon: at most once a second per slot.

        Raises `EngineError` MALFORMED for a bad name, OVERLOADED for one slot too many.
        """

    def forget(self, name: str) -> None:
        """Drop a slot: at once, and logged with the next group.  Idempotent."""


class FeedSource(Protocol):
    """All shards of one engine.  Raises `EngineError`: TOO_OLD when an offset is no longer kept
    anywhere, NOT_FOUND for another shard, SHARD_UNAVAILABLE (retryable) when a shard cannot be
    reached."""

    async def shards(self) -> Sequence[ShardId]:
        """The shards there are now, ascending."""

    def pages(self, shard: ShardId, from_offset: Offset) -> AsyncGenerator[FeedPage, None]:
        """Groups from the one that holds `from_offset` on, for ever; the consumer sets the pace.

        The first page comes at once; then, while nothing happens, an empty one every second,
        for the lag.  An offset beyond the end is waited for: compare it with `FeedPage.end`.
        Ends when the source closes; who stops before closes the generator.
        """

    async def consumers(self, shard: ShardId) -> Sequence[Consumer]:
        """The consumer slots of a shard, by name."""

    async def confirm(self, shard: ShardId, consumer: str, offset: Offset) -> None:
        """All below `offset` is durable at `consumer`: its slot, made when it is new, moves on.

        Never moves it back.  May be called often; the shard logs it at most once a second.
        Raises `EngineError` MALFORMED for a name that is none, or an offset beyond what is
        durable; OVERLOADED when there are too many slots.
        """

    async def forget(self, shard: ShardId, consumer: str) -> None:
        """Give the slot up.  Idempotent."""

    async def close(self) -> None:
        """End all pages and connections.  Idempotent."""
