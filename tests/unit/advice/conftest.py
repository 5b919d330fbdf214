"""Each database with a ledger of enough rows to be slow."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.servers.mariadb import connection as mariadb_connection
from tests.servers.mariadb import make_database
from tests.servers.postgres import fresh_database
from tests.unit.advice.worlds import World

from ultraengine.advice.database import Database
from ultraengine.advice.driver import open_database


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/tables.db"
    elif request.param == "mysql":
        server = request.getfixturevalue("mariadb_server")
        name = await make_database(server)
        yield server.url(name)
        async with mariadb_connection(server) as admin:
            await admin.run(f"DROP DATABASE {name}")
    else:
        async with fresh_database(request.getfixturevalue("postgres_server")) as made:
            yield made


@pytest.fixture
async def world(url: str) -> AsyncIterator[World]:
    """Filled, serving."""
    made = World(url)
    await made.fill()
    yield made
    await made.target.close()


@pytest.fixture
async def database(world: World) -> AsyncIterator[Database]:
    """What advice sees of it."""
    made = open_database(world.url)
    await made.open()
    yield made
    await made.close()
