"""The number of copies changes while clients send: one never replicated, three, one, two."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.e2e.replicas.processes import DEPOSED, WAIT_S, Copy, Trio

CLIENTS = 3
REPLICATED = ("ULTRA_REPLICAS", "ULTRA_RECORD", "ULTRA_REPLICA")


class Growing(Trio):
    """Copies of which some run, and are told how many there are to be."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.history.copies_min = 1
        self.told_settings = [dict(copy.environment) for copy in self.copies]

    async def start_alone(self) -> None:
        """The first, as a shard of one copy that nobody has thought of copying."""
        first = self.copies[0]
        for name in REPLICATED:
            first.environment.pop(name)
        await first.start()

    async def tell(self, copy: Copy, **settings: str) -> None:
        """Start it, or start it anew, with these settings of a replica."""
        if copy.runs:
            assert await copy.end(signal.SIGTERM) in {0, DEPOSED}, copy.tail()
        copy.environment = self.told_settings[copy.number] | settings
        await copy.start()

    async def tell_in_turn(self, copies: int) -> None:
        """Those that run, followers first, each when all that were there are in sync again."""
        leader = await self.leader()
        others = [one for one in self.copies if one.runs and one is not leader]
        for copy in (*others, leader):
            await self.tell(copy, ULTRA_COPIES=str(copies))
            await self.answers(copy)

    async def answers(self, copy: Copy) -> None:
        """Wait until a copy says how it is."""
        async with asyncio.timeout(WAIT_S):
            while not await self.status(copy):  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.05)

    async def counts(self, copies: int) -> dict[str, Any]:
        """Wait until the shard has so many copies, all in sync: what its leader says."""
        async with asyncio.timeout(WAIT_S):
            while True:
                status = await self.status(await self.leader())
                in_sync = list(status.get("in_sync", ()))
                if status.get("replicas") == copies and in_sync == list(range(copies)):
                    return status
                await asyncio.sleep(0.05)

    async def more(self, count: int = 40) -> None:
        """Wait until so many further commands are answered."""
        await self.told(len(self.history.told) + count)


@asynccontextmanager
async def growing(place: Path) -> AsyncIterator[Growing]:
    """With clients that never stop; at the end every command was answered and counted once."""
    shard = Growing(place)
    clients: list[asyncio.Task[None]] = []
    try:
        await shard.start_alone()
        await shard.leader()
        clients = [asyncio.create_task(shard.client(seed)) for seed in range(CLIENTS)]
        yield shard
        shard.stopping = True
        await asyncio.gather(*clients)
        shard.history.check()
        assert await shard.counters() == shard.expected()
    finally:
        for client in clients:
            client.cancel()
        await shard.stop()


async def test_a_shard_of_one_copy_becomes_one_of_three_then_of_one_and_of_two(
    tmp_path: Path,
) -> None:
    async with growing(tmp_path) as shard:
        zero, one, two = shard.copies
        await shard.more()
        await shard.tell(zero, ULTRA_ADOPT="true")
        await shard.tell(one)
        await shard.tell(two)
        status = await shard.counts(3)
        assert (status["min_isr"], status["leader"]) == (2, 0)
        await shard.more()

        await zero.end(signal.SIGKILL)  # What was written before there were copies is on them too.
        await shard.more()
        await zero.start()
        await shard.counts(3)

        await shard.tell_in_turn(1)
        status = await shard.counts(1)
        assert (status["min_isr"], status["leader"]) == (1, 0)
        for gone in (one, two):
            await gone.end(signal.SIGKILL)
        await shard.more()

        await shard.tell(one, ULTRA_COPIES="2")  # With the disk that it had.
        await shard.tell(zero, ULTRA_COPIES="2")
        status = await shard.counts(2)
        assert status["min_isr"] == 2
        await shard.more()
