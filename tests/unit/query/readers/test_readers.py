"""SQLite, PostgreSQL and MariaDB are held to one contract, and each to what it alone can do."""

import asyncio
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.servers.mariadb import MariadbServer, connection
from tests.servers.postgres import PostgresServer
from tests.servers.postgres import connection as postgres_connection
from tests.unit.query.world import Tables, asked

from ultraengine.domains.ledger.tables import TABLES
from ultraengine.model.errors import Malformed
from ultraengine.query.reader import ReaderUnavailable, ask, look
from ultraengine.query.readers.factory import open_reader
from ultraengine.query.readers.mysql.driver import _limit
from ultraengine.query.readers.sqlite.driver import SqliteReader
from ultraengine.query.sql import Statement
from ultraengine.testing.projection_sets import same
from ultraengine.testing.projection_tables import FACT, PROBE, fact
from ultraengine.testing.sql_readers import PATIENCE_S, ReaderContract, _one


class TestSqlite(ReaderContract):
    """A file."""

    slow: str = (
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 3000000)"
        " SELECT MAX(n) FROM c"
    )
    unreachable: str = "sqlite:////nowhere/at/all.db"

    @pytest.fixture(autouse=True)
    def database(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path}/contract.db"

    async def test_a_closed_reader_is_unavailable(self) -> None:
        reader = open_reader(self.url, 1)
        with pytest.raises(ReaderUnavailable):
            await reader.run("t", look(PROBE, reader.dialect), 1.0)

    async def test_a_file_that_is_no_database_is_unavailable(self, tmp_path: Path) -> None:
        path = tmp_path / "text.db"
        path.write_text("this is no database, but long enough to be looked at" * 20)
        reader = SqliteReader(f"sqlite:///{path}", connections=1)
        await reader.open()
        for _ in range(2):
            with pytest.raises(ReaderUnavailable):
                await reader.run("t", look(PROBE, reader.dialect), 1.0)
        await reader.close()


class TestPostgres(ReaderContract):
    """A server of the test's own."""

    slow: str = "SELECT 1 FROM pg_sleep(0.5)"
    unreachable: str = "postgresql://nobody@/nothing?host=/nowhere"

    @pytest.fixture(autouse=True)
    def database(self, postgres_url: str) -> None:
        self.url = postgres_url

    async def test_row_level_security_narrows_what_a_statement_forgot(self) -> None:
        tables = [fact(1), ("other", *fact(2)[1:])]
        target = await self._target()
        of = await self.filled(target, tables)
        reader = open_reader(self.url, 1)
        table = f"probe_fact__{of.suffix}"
        text = f'SELECT "n" FROM {table}'
        everything = Statement("all", text, (), (FACT.columns[1],), 9)
        for tenant, wanted in (("t", [(1,)]), ("other", [(2,)]), ("", [])):
            same(list(await reader.run(tenant, _one(everything), PATIENCE_S)), wanted)
        await reader.close()
        await target.close()

    async def _target(self) -> Any:
        from ultraengine.projection.targets import open_target  # noqa: PLC0415

        target = open_target(self.url, "own")
        await target.open()
        return target

    async def test_a_login_that_may_do_everything_reads_as_the_reader(self) -> None:
        target = await self._target()
        await self.filled(target, [fact(1)])
        reader = open_reader(self.url, 1)
        who = Statement("who", "SELECT current_user::text", (), (FACT.column("text"),), 1)
        same(list(await reader.run("t", _one(who), PATIENCE_S)), [("ultra_reader",)])
        await reader.close()
        await target.close()


class TestMariadb(ReaderContract):
    """A server of the test's own."""

    slow: str = "SELECT SLEEP(0.5) + 1"
    unreachable: str = "mysql://nobody@/nothing?socket=/nowhere/at.all"

    @pytest.fixture(autouse=True)
    def database(self, mariadb_server: MariadbServer, mariadb_database: str) -> None:
        self.url = mariadb_server.url(mariadb_database)

    async def test_connections_beyond_those_that_are_kept_are_closed(
        self, mariadb_server: MariadbServer
    ) -> None:
        from ultraengine.projection.targets import open_target  # noqa: PLC0415

        target = open_target(self.url, "own")
        await target.open()
        await self.filled(target, [fact(1)])
        reader = open_reader(self.url, 1)
        talks = [reader.run("t", look(PROBE, reader.dialect), PATIENCE_S) for _ in range(3)]
        moments = await asyncio.gather(*talks)
        assert len(moments) == 3
        async with connection(mariadb_server) as admin:
            ours = "SELECT COUNT(*) FROM information_schema.processlist WHERE db IS NOT NULL"
            while (await admin.run(ours))[0][0] > 2:  # noqa: ASYNC110  (the target's and ours)
                await asyncio.sleep(0.01)
        await reader.close()
        await target.close()


class Flavors:
    """How each server is told what a statement may take."""

    mine: ClassVar[dict[str, str]] = {
        "MARIADB": "SET SESSION max_statement_time = 1.500",
        "MYSQL": "SET SESSION max_execution_time = 1500",
    }


@pytest.mark.parametrize("name", Flavors.mine)
def test_a_statement_is_bounded_in_the_words_of_the_server(name: str) -> None:
    from ultraengine.projection.mysql.dialect import Flavor  # noqa: PLC0415

    assert _limit(Flavor[name], 1.5) == Flavors.mine[name]


async def test_a_reader_comes_back_after_its_server(own_postgres: PostgresServer) -> None:
    tables = Tables(own_postgres.url())
    await tables.open()
    reader = open_reader(own_postgres.url(), 2)
    moment = await reader.run("t", look(TABLES, reader.dialect), PATIENCE_S)
    own_postgres.kill()
    with pytest.raises(ReaderUnavailable):
        await reader.run("t", look(TABLES, reader.dialect), PATIENCE_S)
    own_postgres.start()
    for _ in range(4):  # Connections of before are found dead one by one.
        try:
            again = await reader.run("t", look(TABLES, reader.dialect), PATIENCE_S)
        except ReaderUnavailable:
            continue
        break
    assert again == moment
    await reader.close()
    await tables.close()


async def test_a_reader_without_the_role_is_unavailable_and_not_more(
    postgres_url: str,
) -> None:
    tables = Tables(postgres_url)
    await tables.open()
    async with postgres_connection(postgres_url) as admin:
        await admin.execute("CREATE ROLE nobody_special LOGIN")
    try:
        url = postgres_url.replace("//ultra@", "//nobody_special@")
        reader = open_reader(url, 1)
        with pytest.raises(ReaderUnavailable, match="permission denied"):
            await reader.run("t", ask(asked("k/accounts"), reader.dialect), PATIENCE_S)
        await reader.close()
    finally:
        async with postgres_connection(postgres_url) as admin:
            await admin.execute("DROP ROLE nobody_special")
    await tables.close()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("oracle://x/y", "begins with one of sqlite://, postgresql://, mysql://"),
        ("file.db", "begins with one of"),
        ("sqlite://", "URL of sqlite cannot be read"),
        ("mysql://u:secret@h", "URL of mysql cannot be read"),
    ],
)
def test_a_url_that_is_none_is_refused_without_being_repeated(url: str, why: str) -> None:
    with pytest.raises(Malformed, match=why) as caught:
        open_reader(url, 1)
    assert "secret" not in str(caught.value)
