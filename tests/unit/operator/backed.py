"""Shards in memory that back themselves up: `cluster.BackedUp`, held to its contract."""

import asyncio
from collections import Counter

from ultraengine_operator.backups import Image, NotTaken
from ultraengine_operator.reasons import Reason

LOCATION = "s3://bucket/shop"


class MemoryShards:
    """Each backup is one command further than the one before it."""

    def __init__(self) -> None:
        self.asked: Counter[int] = Counter()
        self.paused: set[int] = set()
        self.away: set[int] = set()
        self.placeless: set[int] = set()
        self.broken: dict[int, str] = {}
        self.open = asyncio.Event()
        """While it is clear, a backup takes longer."""
        self.open.set()
        self.running = self.running_max = 0

    async def back_up(self, namespace: str, engine: str, shard: int, *, last: bool) -> Image:
        if shard in self.away:
            raise NotTaken(Reason.SHARD_UNREACHABLE, "nobody listens")
        if last:
            self.paused.add(shard)
        if shard in self.placeless:
            raise NotTaken(Reason.BACKUP_NOT_CONFIGURED, "the shard has no place for backups")
        self.asked[shard] += 1
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        try:
            await self.open.wait()
        finally:
            self.running -= 1
        if shard in self.broken:
            raise NotTaken(Reason.BACKUP_FAILED, self.broken[shard])
        return Image(
            shard=shard, offset=str(self.asked[shard]), offset_end=str(self.asked[shard] + 1),
            state_hash="cafe", location=LOCATION, manifest=f"{shard}/backups/{self.asked[shard]}",
            verified_at="2026-01-01T00:00:00Z",
        )  # fmt: skip
