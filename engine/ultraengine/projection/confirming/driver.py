"""One slot per target: ``projection.<target>``, at the slowest set that still needs the log.

Confirming is apart from writing: an engine that is slow or away delays no batch, and a slot that
lags behind keeps a little more log than it must.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import structlog

from ultraengine.feed.source import FeedSource
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Offset, ShardId
from ultraengine.projection.target import START, Checkpoint

_log = structlog.get_logger("projection")


def slot_name(target: str) -> str:
    """Name of a target's slot in each shard."""
    return f"projection.{target}"


def lowest(
    shards: Sequence[ShardId], held: Iterable[Mapping[ShardId, Checkpoint]]
) -> dict[ShardId, Offset]:
    """By shard, what all of some sets have; empty without sets."""
    found: dict[ShardId, Offset] = {}
    for positions in held:
        for shard in shards:
            offset = positions.get(shard, START).offset
            found[shard] = min(offset, found.get(shard, offset))
    return found


class Slots:
    """The slots of one target."""

    def __init__(self, source: FeedSource, target: str, every_s: float) -> None:
        self._source = source
        self._name = slot_name(target)
        self._every_s = every_s
        self.wanted: dict[ShardId, Offset] = {}
        """What is durable in the target; the worker replaces it."""
        self.confirmed: dict[ShardId, Offset] = {}

    async def run(self) -> None:
        """Confirm what is new, again and again."""
        while True:
            await self.confirm()
            await asyncio.sleep(self._every_s)

    async def confirm(self) -> None:
        """Confirm what is new, once."""
        for shard, offset in tuple(self.wanted.items()):
            before = self.confirmed.get(shard)
            if before is not None and offset <= before:
                continue
            try:
                await self._source.confirm(shard, self._name, offset)
            except EngineError as error:
                # The slot stays where it is and the log keeps more: nothing is lost by it.
                _log.warning("slot.unconfirmed", slot=self._name, shard=shard, error=error.detail)
            else:
                self.confirmed[shard] = offset
