"""What is true before the sync, under ``async``."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.shard.test_shard import SHARD, Rig

from ultraengine.feed.driver import Feed


@pytest.fixture
async def unsynced(tmp_path: Path) -> AsyncIterator[Rig]:
    """A shard under ``async`` whose next sync does not come by itself."""
    rig = Rig(tmp_path, policy="async")
    rig.wait_s = 3600.0
    await rig.start()
    yield rig
    await rig.shard.stop()


async def test_under_async_a_retry_before_the_sync_is_not_executed_again(unsynced: Rig) -> None:
    rig = unsynced
    (first,) = await rig.send(rig.admit("pay", 5))
    await rig.send(rig.admit("other", 0))  # Carries the outcome, without a sync.
    await asyncio.sleep(0.1)
    (again,) = await rig.send(rig.admit("pay", 5))
    assert (again.offset, again.duplicate) == (first.offset, True)
    assert await rig.value() == 5
    assert (await rig.shard.outcome("t", "k", "pay")).state == "done"


async def test_under_async_the_feed_gives_outcomes_once_they_are_durable(unsynced: Rig) -> None:
    rig = unsynced
    feed = Feed(rig.shard.log.reader(), SHARD)
    rig.shard.on_recorded = feed.publish
    seen: list[int] = []

    async def follow() -> None:
        async for batch in feed.outcomes(1):
            seen.extend(outcome.offset for outcome in batch)

    follower = asyncio.create_task(follow())
    await rig.send(rig.admit("a"))
    rig.shard._sync()  # Now the command is durable, and its outcome is not written yet.
    await asyncio.sleep(0.05)
    await rig.send(rig.admit("b"))
    await asyncio.sleep(0.05)
    await rig.shard.rest()
    for _ in range(100):
        await asyncio.sleep(0.01)
        if len(seen) == 2:
            break
    assert seen == [1, 2]
    await feed.close()
    await follower


async def test_under_async_a_snapshot_never_stands_beyond_the_durable_log(unsynced: Rig) -> None:
    rig = unsynced
    await rig.send(rig.admit("a"))
    taken = await rig.snapshots.take()
    durable = rig.shard.log.reader().durable_end
    assert taken.entry.sequence_end <= durable
