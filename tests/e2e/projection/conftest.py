"""The real table, fetched once, stories that end their processes, and servers to project into."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tests.e2e.projection.databases import Server, mariadb, postgres
from tests.e2e.projection.running import ROOT, Story
from tests.servers.mariadb import MariadbServer, make_database
from tests.servers.postgres import PostgresServer


@pytest.fixture(scope="session")
def purchases() -> Path:
    """The real table; fetched once, checked by its hash."""
    fetched = subprocess.run(
        [ROOT / "hack" / "cdnow.sh"], capture_output=True, text=True, check=False
    )
    assert fetched.returncode == 0, fetched.stderr
    return Path(fetched.stdout.strip())


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Callable[..., Story]]:
    """Makes a story; its processes end with the test."""
    made: list[Story] = []

    def make(*engine: object, settings: Mapping[str, object] = {}) -> Story:
        made.append(Story(tmp_path, *engine, settings=settings))
        return made[-1]

    yield make
    for one in made:
        one.end()


def _postgres(request: pytest.FixtureRequest) -> Server:
    held: PostgresServer = request.getfixturevalue("own_postgres")
    return postgres(held.url())


def _mariadb(request: pytest.FixtureRequest) -> Server:
    held: MariadbServer = request.getfixturevalue("own_mariadb")
    return mariadb(held, asyncio.run(make_database(held)))


@pytest.fixture(params=[_postgres, _mariadb], ids=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Server:
    """An empty database of a real server with its usual durability; skipped without one."""
    make: Callable[[pytest.FixtureRequest], Server] = request.param
    return make(request)
