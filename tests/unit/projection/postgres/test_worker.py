"""The worker and a real PostgreSQL that is killed under it: the tables come out the same."""

import asyncio
import random
from collections.abc import Sequence

from tests.servers.postgres import PostgresServer, connection
from tests.unit.projection.shop import ShopTables, busy_log, decoder, members
from tests.unit.projection.workers import QUICK, working

from ultraengine.projection.driver import TargetWorker
from ultraengine.projection.postgres.driver import PostgresTarget
from ultraengine.projection.target import Checksum, SetState, TargetUnavailable, all_tables
from ultraengine.testing.memory_feed import GroupLog, MemoryFeed
from ultraengine_adapters.local.clock import SystemClock

PATIENCE_S = 60.0
TABLES = all_tables(ShopTables())


def worker_of(url: str, logs: Sequence[GroupLog]) -> TargetWorker:
    return TargetWorker(
        PostgresTarget("worker", url), MemoryFeed(logs), members(ShopTables()), decoder(),
        clock=SystemClock(), chance=random.Random(1).random, limits=QUICK,
    )  # fmt: skip


async def followed(target: PostgresTarget) -> int:
    """How many commands the newest set holds; 0 while nobody can say."""
    try:
        sets = await target.sets()
        held = await target.positions(sets[-1]) if sets else {}
    except TargetUnavailable:
        return 0
    return sum(checkpoint.offset for checkpoint in held.values())


async def until(target: PostgresTarget, commands: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await followed(target) < commands:  # noqa: ASYNC110  (nobody is told)
            await asyncio.sleep(0.005)


async def sums(target: PostgresTarget) -> dict[str, Checksum]:
    """Of the set that serves, once its aggregates are computed."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            of = (await target.sets())[-1]
            left = await target.refresh(of, ShopTables(), 1_000)
            if of.state is SetState.SERVING and not left:
                return dict(await target.checksums(of, TABLES))
            await asyncio.sleep(0.005)


async def test_tables_are_the_same_after_the_server_was_killed_again_and_again(
    own_postgres: PostgresServer, postgres_url: str
) -> None:
    logs = [busy_log(0, 120)]
    total = sum(log.end for log in logs)
    calm = PostgresTarget("calm", postgres_url)
    shaken = PostgresTarget("shaken", own_postgres.url())
    await calm.open()
    await shaken.open()
    async with working(worker_of(postgres_url, logs)):
        await until(calm, total)
        wanted = await sums(calm)
    async with working(worker_of(own_postgres.url(), logs)):
        for part in (5, 3, 2):
            await until(shaken, total // part)
            own_postgres.kill()
            own_postgres.start()
        await until(shaken, total)
        found = await sums(shaken)
    assert found == wanted
    assert wanted["sale"].rows > 100
    await calm.close()
    await shaken.close()
    async with connection(own_postgres.url()) as database:
        assert await database.fetchval("SELECT count(*) FROM shop_sale") == wanted["sale"].rows
