"""Exactly once: a worker may be killed between any two calls of its target.

`MemoryTarget.dies_at` kills it at a call: before its effect, or, for a write, between the commit
and its answer.  Every such moment of a run is tried, and then runs with many kills, chosen by a
seed.  The tables must equal those of a worker to which nothing happened, and the ledger must
be a chain without gaps or repeats.
"""

import asyncio
import contextlib
import random
from collections.abc import Sequence

import pytest
from tests.unit.projection.shop import T0, AuditTables, ShopTables, busy_log
from tests.unit.projection.workers import (
    holds,
    make_worker,
    run_until,
    shown,
    undisturbed,
    until,
)

from ultraengine.projection.target import Request, SetState
from ultraengine.testing.memory_feed import GroupLog, MemoryFeed
from ultraengine.testing.memory_target import MemoryDatabase, MemoryTarget

PROJECTIONS = (ShopTables(), AuditTables())


def logs() -> list[GroupLog]:
    return [busy_log(0, 9), busy_log(1, 4)]


def all_hold(database: MemoryDatabase, of: Sequence[GroupLog]) -> bool:
    return holds(database, of) and holds(database, of, "audit")


def assert_ledger_is_a_chain(database: MemoryDatabase) -> None:
    ends: dict[tuple[str, int, int], int] = {}
    for row in database.ledger:
        place = (row.of.projection, row.of.build, row.moved.shard)
        if row.moved.before.offset == 0:
            ends.pop(place, None)  # A dropped build's number is used again.
        assert row.moved.before.offset == ends.get(place, 0) < row.moved.after.offset
        ends[place] = row.moved.after.offset


async def killed_at(database: MemoryDatabase, feed: MemoryFeed, call: int, seed: int = 0) -> bool:
    """Run a worker until it is killed at a call; False when it was done before."""
    worker, target = make_worker(database, feed, *PROJECTIONS, seed=seed)
    target.dies_at = call
    task = asyncio.create_task(worker.run())
    every = list(feed.logs.values())
    await until(lambda: target.dead or (all_hold(database, every) and not database.asked), task)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return target.dead


async def test_the_tables_are_the_same_whenever_the_worker_is_killed() -> None:
    expected = await undisturbed(logs(), *PROJECTIONS)
    call = 0
    while True:
        call += 1
        database, feed = MemoryDatabase(), MemoryFeed(logs())
        was_killed = await killed_at(database, feed, call)
        await run_until(None, database, feed, *PROJECTIONS)
        assert shown(database) == expected, f"killed at call {call}"
        assert_ledger_is_a_chain(database)
        if not was_killed:
            break
    assert call > 20


async def finished(database: MemoryDatabase, feed: MemoryFeed) -> bool:
    """Let a worker bring everything to its end."""
    return not await killed_at(database, feed, 1_000_000)


@pytest.mark.parametrize("seed", range(25))
async def test_the_tables_are_the_same_after_many_kills_and_rebuilds(seed: int) -> None:
    chance = random.Random(seed)
    database, feed = MemoryDatabase(), MemoryFeed(logs())
    person = MemoryTarget("person", database)
    for turn in range(chance.randint(3, 12)):
        await killed_at(database, feed, chance.randint(1, 40), seed=turn)
        if chance.random() < 0.3:
            await person.ask("shop", Request.REBUILD, T0)
        database.away = chance.random() < 0.2
        if database.away:
            worker, _ = make_worker(database, feed, *PROJECTIONS, seed=turn)
            task = asyncio.create_task(worker.run())
            await asyncio.sleep(chance.random() / 100)
            database.away = False
            await asyncio.sleep(chance.random() / 100)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    assert await finished(database, feed)
    assert shown(database) == await undisturbed(logs(), *PROJECTIONS)
    assert_ledger_is_a_chain(database)
    assert [of.state for of in database.sets.values()].count(SetState.SERVING) == 2
