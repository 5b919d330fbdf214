"""The worker and a real MariaDB that is killed under it: the tables come out the same."""

import asyncio
import random
from collections.abc import Sequence

from tests.servers.mariadb import MariadbServer, connection, make_database
from tests.unit.projection.shop import ShopTables, busy_log, decoder, members
from tests.unit.projection.workers import QUICK, working

from ultraengine.projection.driver import TargetWorker
from ultraengine.projection.mysql.driver import MysqlTarget
from ultraengine.projection.target import Checksum, SetState, TargetUnavailable, all_tables
from ultraengine.testing.memory_feed import GroupLog, MemoryFeed
from ultraengine_adapters.local.clock import SystemClock

PATIENCE_S = 120.0
TABLES = all_tables(ShopTables())


def worker_of(url: str, logs: Sequence[GroupLog]) -> TargetWorker:
    return TargetWorker(
        MysqlTarget("worker", url), MemoryFeed(logs), members(ShopTables()), decoder(),
        clock=SystemClock(), chance=random.Random(1).random, limits=QUICK,
    )  # fmt: skip


async def followed(target: MysqlTarget) -> int:
    """How many commands the newest set holds; 0 while nobody can say."""
    try:
        sets = await target.sets()
        held = await target.positions(sets[-1]) if sets else {}
    except TargetUnavailable:
        return 0
    return sum(checkpoint.offset for checkpoint in held.values())


async def until(target: MysqlTarget, commands: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await followed(target) < commands:  # noqa: ASYNC110  (nobody is told)
            await asyncio.sleep(0.005)


async def sums(target: MysqlTarget) -> dict[str, Checksum]:
    """Of the set that serves, once its aggregates are computed."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            of = (await target.sets())[-1]
            left = await target.refresh(of, ShopTables(), 1_000)
            if of.state is SetState.SERVING and not left:
                return dict(await target.checksums(of, TABLES))
            await asyncio.sleep(0.005)


async def test_tables_are_the_same_after_the_server_was_killed_again_and_again(
    own_mariadb: MariadbServer, mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    logs = [busy_log(0, 120)]
    total = sum(log.end for log in logs)
    calm_url = mariadb_server.url(mariadb_database)
    database = await make_database(own_mariadb)
    calm, shaken = MysqlTarget("calm", calm_url), MysqlTarget("shaken", own_mariadb.url(database))
    await calm.open()
    await shaken.open()
    async with working(worker_of(calm_url, logs)):
        await until(calm, total)
        wanted = await sums(calm)
    async with working(worker_of(own_mariadb.url(database), logs)):
        for part in (5, 2):
            await until(shaken, total // part)
            own_mariadb.kill()
            own_mariadb.start()
        await until(shaken, total)
        found = await sums(shaken)
    assert found == wanted
    assert wanted["sale"].rows > 100
    await calm.close()
    await shaken.close()
    async with connection(own_mariadb, database) as plain:
        assert await plain.run("SELECT COUNT(*) FROM shop_sale") == [(wanted["sale"].rows,)]
