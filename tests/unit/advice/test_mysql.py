"""What is particular to MariaDB: errors, plans, copies, indexes that are half made, locks."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.servers.mariadb import MariadbServer, connection
from tests.unit.advice.worlds import NOW, PLAIN, World

from ultraengine.advice.database import Refused
from ultraengine.advice.driver import open_database
from ultraengine.advice.mysql import statements
from ultraengine.advice.mysql.driver import MysqlDatabase
from ultraengine.advice.mysql.statements import Copying
from ultraengine.advice.trial import TrialFailed
from ultraengine.domains.ledger.tables import ENTRY, TABLES, TRANSFER
from ultraengine.model.limits import AdviceLimits
from ultraengine.projection.added_indexes import AddedIndex
from ultraengine.projection.mysql.dialect import Flavor, MysqlDialect
from ultraengine.projection.target import TargetUnavailable

CODE = AddedIndex("ledger", "advised_code", "transfer", ("tenant", "book", "code"), NOW)
TABLE = "ledger_transfer__v3_b1"


@pytest.mark.parametrize(
    ("code", "kind"),
    [(1969, TrialFailed), (3024, TrialFailed), (1142, Refused), (1205, Refused), (1, TrialFailed)],
)
def test_an_error_of_the_server_means_one_thing(code: int, kind: type[Exception]) -> None:
    meant = statements.meaning(code, "so it is")
    assert isinstance(meant, kind)
    assert "so it is" in str(meant)


def test_a_connection_that_is_no_more_is_a_target_that_is_away() -> None:
    assert isinstance(statements.away(""), TargetUnavailable)


def test_each_server_is_bounded_in_its_own_words() -> None:
    assert statements.limit(Flavor.MARIADB, 2.5) == "SET SESSION max_statement_time = 2.500"
    assert statements.limit(Flavor.MYSQL, 2.5) == "SET SESSION max_execution_time = 2500"


@pytest.mark.parametrize(
    "document",
    [
        {"query_block": {"select_id": 1, "filesort": {"sort_key": "t.x", "table": {
            "table_name": "entry", "access_type": "ref", "key": "ultra_tried", "rows": 7}}}},
        {"query_block": {"filesort": {"nested_loop": [{"table": {
            "table_name": "entry", "access_type": "ref", "key": "ultra_tried",
            "rows_examined_per_scan": 7}}]}}},
    ],
)  # fmt: skip
def test_plans_of_both_servers_say_what_is_read_by_which_index(document: Any) -> None:
    plan, used = statements.plan_of(document)
    assert used == ("ultra_tried",)
    sort, read = plan.splitlines()
    assert sort.strip() == "filesort"
    assert read.strip() == "ref entry by ultra_tried (7 rows believed)"


def test_a_plan_without_an_index_uses_none() -> None:
    whole = {"query_block": {"table": {"table_name": "entry", "access_type": "ALL", "rows": 9}}}
    assert statements.plan_of(whole) == ("  ALL entry (9 rows believed)", ())


def test_a_copy_is_no_partitioned_table_and_has_checks_without_names() -> None:
    shown = (
        "CREATE TABLE `entry` (\n  `a` int,\n  CONSTRAINT `entry_x` CHECK (`a` > 0)\n"
        ") ENGINE=InnoDB\n PARTITION BY RANGE (`a`)\n(PARTITION p VALUES LESS THAN (5))"
    )
    copying = Copying(MysqlDialect(), "entry", ENTRY)
    assert copying.create(shown) == (
        "CREATE TEMPORARY TABLE ultra_copy (\n  `a` int,\n  CHECK (`a` > 0)\n) ENGINE=InnoDB"
    )
    assert copying.fill(1.0, 9) == "INSERT INTO ultra_copy SELECT * FROM `entry` LIMIT 9"
    assert " WHERE RAND(1) < 0.25" in copying.fill(0.25, 9)


@pytest.fixture
async def world(mariadb_server: MariadbServer, mariadb_database: str) -> AsyncIterator[World]:
    made = World(mariadb_server.url(mariadb_database))
    await made.fill(3_000)
    yield made
    await made.target.close()


@pytest.fixture
async def database(world: World) -> AsyncIterator[MysqlDatabase]:
    made = open_database(world.url)
    assert isinstance(made, MysqlDatabase)
    await made.open()
    yield made
    await made.close()


async def test_what_is_missing_is_seen_and_made_again(
    world: World, database: MysqlDatabase
) -> None:
    await database.add(CODE, TABLES, PLAIN)
    await world.execute(f"DROP INDEX `{TABLE}_advised_code` ON `{TABLE}`")
    (held,) = await database.held()
    assert (held.sets, held.missing) == ((), ("v3_b1",))
    await database.add(CODE, TABLES, PLAIN)
    (held,) = await database.held()
    assert (held.sets, held.missing) == (("v3_b1",), ())


async def test_a_table_that_somebody_holds_is_refused_and_forgotten(
    world: World, database: MysqlDatabase, mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    async with connection(mariadb_server, mariadb_database) as other:
        await other.run(f"LOCK TABLES `{TABLE}` WRITE")
        with pytest.raises(Refused, match="others use the table"):
            await database.add(CODE, TABLES, AdviceLimits(lock_s=1.0))
        await other.run("UNLOCK TABLES")
    assert await database.held() == []
    assert CODE.columns not in (await database.facts((await database.sets())[0], TRANSFER)).indexes


async def test_advice_that_is_stopped_leaves_no_work_in_the_server(
    world: World, database: MysqlDatabase, mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    """A server that waits, or builds, does not look whether its client is still there."""
    running = (
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST"
        " WHERE ID <> CONNECTION_ID() AND INFO LIKE '%advised_code%'"
    )
    async with connection(mariadb_server, mariadb_database) as other:
        await other.run("START TRANSACTION")
        await other.run(f"SELECT COUNT(*) FROM `{TABLE}`")
        task = asyncio.create_task(database.add(CODE, TABLES, AdviceLimits(lock_s=600.0)))
        async with asyncio.timeout(60):
            while await other.run(running) == [(0,)]:  # noqa: ASYNC110  (nobody is told)
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await other.run(running) == [(0,)]
        await other.run("ROLLBACK")
    assert await database.held() == []
    assert await database.add(CODE, TABLES, PLAIN)


async def test_a_worker_that_makes_a_set_is_waited_for(
    world: World, database: MysqlDatabase, mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    async with connection(mariadb_server, mariadb_database) as other:
        await other.run("SELECT GET_LOCK(MD5(CONCAT(DATABASE(), '.', 'sets')), 1)")
        database.lock_wait_s = 1
        with pytest.raises(Refused, match="a worker makes or shows a set"):
            await database.add(CODE, TABLES, PLAIN)
    assert await database.held() == []
    assert await database.add(CODE, TABLES, PLAIN)
