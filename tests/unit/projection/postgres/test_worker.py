"""The worker and a real PostgreSQL that is killed under it: the tables come out the same."""

import random
from collections.abc import Sequence

from tests.servers.postgres import PostgresServer, connection
from tests.unit.projection.shop import ShopTables, busy_log, decoder, members
from tests.unit.projection.workers import QUICK, shop_sums, until_followed, working

from ultraengine.projection.driver import TargetWorker
from ultraengine.projection.postgres.driver import PostgresTarget
from ultraengine.testing.memory_feed import GroupLog, MemoryFeed
from ultraengine_adapters.local.clock import SystemClock

PATIENCE_S = 60.0


def worker_of(url: str, logs: Sequence[GroupLog]) -> TargetWorker:
    return TargetWorker(
        PostgresTarget("worker", url), MemoryFeed(logs), members(ShopTables()), decoder(),
        clock=SystemClock(), chance=random.Random(1).random, limits=QUICK,
    )  # fmt: skip


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
        await until_followed(calm, total, PATIENCE_S)
        wanted = await shop_sums(calm, PATIENCE_S)
    async with working(worker_of(own_postgres.url(), logs)):
        for part in (5, 3, 2):
            await until_followed(shaken, total // part, PATIENCE_S)
            own_postgres.kill()
            own_postgres.start()
        await until_followed(shaken, total, PATIENCE_S)
        found = await shop_sums(shaken, PATIENCE_S)
    assert found == wanted
    assert wanted["sale"].rows > 100
    await calm.close()
    await shaken.close()
    async with connection(own_postgres.url()) as database:
        assert await database.fetchval("SELECT count(*) FROM shop_sale") == wanted["sale"].rows
