"""What the tests of reads over SQL share: one ledger in every database there is."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.servers.mariadb import MariadbServer, connection, make_database
from tests.servers.postgres import fresh_database
from tests.unit.domains.ledger.conftest import LedgerBench
from tests.unit.query.serving import Served, serve
from tests.unit.query.world import Asking, FileTables, Tables, small

from ultraengine.query.readers.factory import open_reader


@pytest.fixture
def bench() -> LedgerBench:
    """An empty ledger."""
    return LedgerBench()


@pytest.fixture
async def tables(tmp_path: Path) -> AsyncIterator[FileTables]:
    """Empty tables in a file."""
    made = FileTables(tmp_path / "tables.db")
    await made.open()
    yield made
    await made.close()


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/every.db"
    elif request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        async with fresh_database(server) as made:
            yield made
    else:
        maria: MariadbServer = request.getfixturevalue("mariadb_server")
        name = await make_database(maria)
        yield maria.url(name)
        async with connection(maria) as admin:
            await admin.run(f"DROP DATABASE {name}")


@pytest.fixture
async def every(url: str) -> AsyncIterator[Tables]:
    """Empty tables in each database."""
    made = Tables(url)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def get(every: Tables) -> AsyncIterator[Asking]:
    """Asks them."""
    reader = open_reader(every.url, 2)
    await reader.open()
    yield Asking(reader)
    await reader.close()


@pytest.fixture
async def served(bench: LedgerBench, tables: FileTables) -> AsyncIterator[Served]:
    """A process over a small ledger of the tenant `default`, and the ledger's bench."""
    small(bench, "default")
    await tables.follow(bench)
    made = await serve(tables.path)
    yield made
    await made.end()
