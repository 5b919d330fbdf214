"""PostgreSQL with TimescaleDB keeps the contract of targets: partitioned tables are hypertables.

Where the extension is installed; Debian has none (docs/targets.md says how it was run).
"""

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.servers.postgres import PostgresServer, connection, fresh_database, needed, program
from tests.servers.serving import serving
from tests.unit.projection.postgres import test_target

from ultraengine.projection.postgres.driver import PostgresTarget
from ultraengine.projection.target import Target, physical
from ultraengine.testing.projection_sets import NOW, batch_of, facts, moved, ordered, same
from ultraengine.testing.projection_tables import DAY_US, FACT, KEEP_DAYS, PROBE, VISIT, fact

OPTIONS = ("fsync=off", "shared_preload_libraries=timescaledb", "timescaledb.telemetry_level=off")


def is_installed() -> bool:
    """Whether this machine's PostgreSQL has the extension."""
    pg_config = program("pg_config")
    if pg_config is None:
        return False
    shared = subprocess.run([pg_config, "--sharedir"], capture_output=True, check=True, text=True)
    return (Path(shared.stdout.strip()) / "extension" / "timescaledb.control").exists()


@pytest.fixture(scope="module")
def hyper_server() -> Iterator[PostgresServer]:
    needed()
    if not is_installed():
        pytest.skip("TimescaleDB is not installed")
    with serving(PostgresServer(options=OPTIONS)) as server:
        yield server


@pytest.fixture
async def postgres_url(hyper_server: PostgresServer) -> AsyncIterator[str]:
    """A fresh database with the extension."""
    async with fresh_database(hyper_server) as url:
        async with connection(url) as database:
            await database.execute("CREATE EXTENSION timescaledb")
        yield url


class Hypertables(test_target.TestPostgresTarget):
    async def test_retention_drops_whole_partitions_and_no_more(self, target: Target) -> None:
        """A chunk of a month is 30 days and begins anywhere: what is beyond the keep and one such
        month goes, what is within the keep stays."""
        of = await target.create(PROBE, 1, NOW)
        await target.keep(of, PROBE, NOW)
        old, kept = KEEP_DAYS + 30 + 1, KEEP_DAYS
        times = [NOW - days * DAY_US for days in (3 * old, old, kept, 1, 0, -1)]
        rows = [("t", number, time, 0) for number, time in enumerate(times)]
        batch = batch_of(*(("append", "visit", row, None) for row in rows))
        await target.write(of, PROBE, batch, moved(0, 1))
        await target.write(of, PROBE, facts(fact(1, time=0)), moved(1, 2))
        for _ in range(2):
            await target.keep(of, PROBE, NOW)
            same(ordered(await self.held(of, VISIT)), rows[2:])
            same(len(await self.held(of, FACT)), 1)

    async def test_partitioned_tables_are_hypertables(self, target: Target) -> None:
        """Each of them, and no other."""
        of = await target.create(PROBE, 1, NOW)
        async with connection(self.url) as database:
            found = await database.fetch(
                "SELECT hypertable_name FROM timescaledb_information.hypertables"
            )
        wished = [
            physical(PROBE.name, one.name, of.suffix)
            for one in PROBE.tables
            if one.partition is not None
        ]
        assert wished
        assert sorted(row[0] for row in found) == sorted(wished)


class TestHypertables(Hypertables):
    """Uncompressed."""


class TestCompressedHypertables(Hypertables):
    async def make(self) -> PostgresTarget:
        return PostgresTarget("here", f"{self.url}&compress_after_days=90")

    async def test_tables_are_compressed(self, target: Target) -> None:
        """By a policy for each of them."""
        await target.create(PROBE, 1, NOW)
        async with connection(self.url) as database:
            jobs = await database.fetchval(
                "SELECT count(*) FROM timescaledb_information.jobs"
                " WHERE proc_name LIKE '%compression'"
            )
        assert jobs == sum(one.partition is not None for one in PROBE.tables)
