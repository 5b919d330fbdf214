"""What is particular to SQLite, and to PostgreSQL: errors, indexes that are half made, locks."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.servers.postgres import connection
from tests.unit.advice.worlds import NOW, PLAIN, World

from ultraengine.advice.database import Refused
from ultraengine.advice.driver import open_database
from ultraengine.advice.postgres import statements
from ultraengine.advice.postgres.driver import PostgresDatabase
from ultraengine.advice.postgres.statements import Maker, Piece
from ultraengine.advice.sqlite import driver as sqlite_driver
from ultraengine.advice.trial import TrialFailed
from ultraengine.domains.ledger.tables import ENTRY, TABLES, TRANSFER
from ultraengine.model.ids import Instant
from ultraengine.model.limits import AdviceLimits
from ultraengine.projection.added_indexes import AddedIndex
from ultraengine.projection.postgres.dialect import PostgresDialect
from ultraengine.projection.target import ProjectionSet, TargetUnavailable

SHORT = AdviceLimits(lock_s=0.2)
CODE = AddedIndex("ledger", "advised_code", "transfer", ("tenant", "book", "code"), NOW)
AMOUNT = AddedIndex("ledger", "advised_amount", "entry", ("tenant", "book", "amount"), NOW)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_INTERRUPT, TrialFailed),
        (sqlite3.SQLITE_READONLY_DBMOVED, Refused),
        (sqlite3.SQLITE_BUSY, TargetUnavailable),
        (sqlite3.SQLITE_ERROR, TrialFailed),
    ],
)
def test_an_error_of_sqlite_means_one_thing(code: int, kind: type[Exception]) -> None:
    error = sqlite3.OperationalError("so it is")
    error.sqlite_errorcode = code
    assert isinstance(sqlite_driver.meaning(error, "here.db"), kind)


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("57014", TrialFailed), ("42501", Refused), ("55P03", Refused),
        ("57P01", TargetUnavailable), ("08006", TargetUnavailable), ("42P01", TrialFailed),
    ],
)  # fmt: skip
def test_an_error_of_postgres_means_one_thing(state: str, kind: type[Exception]) -> None:
    meant = statements.meaning(state, "so it is")
    assert isinstance(meant, kind)
    assert f"so it is [{state}]" in str(meant)


def test_statements_for_pieces_of_a_tree() -> None:
    maker = Maker(PostgresDialect(), "entry", "advised", ("tenant", "day"))
    root, middle, leaf = (
        Piece("entry", None, is_leaf=False), Piece("entry_p1", "entry", is_leaf=False),
        Piece("entry_p1_s0", "entry_p1", is_leaf=True),
    )  # fmt: skip
    assert [maker.create(one) for one in (root, middle, leaf)] == [
        'CREATE INDEX "entry_advised" ON ONLY "entry" ("tenant", "day")',
        'CREATE INDEX "entry_p1_advised" ON ONLY "entry_p1" ("tenant", "day")',
        'CREATE INDEX CONCURRENTLY "entry_p1_s0_advised" ON "entry_p1_s0" ("tenant", "day")',
    ]
    assert [maker.attach(one, one.parent or "") for one in (middle, leaf)] == [
        'ALTER INDEX "entry_advised" ATTACH PARTITION "entry_p1_advised"',
        'ALTER INDEX "entry_p1_advised" ATTACH PARTITION "entry_p1_s0_advised"',
    ]
    assert maker.drop(concurrently=True) == 'DROP INDEX CONCURRENTLY IF EXISTS "entry_advised"'


async def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as held:
        held.execute("CREATE TABLE other (x)")
    database = open_database(f"sqlite:///{path}")
    with pytest.raises(Refused, match="holds no tables of a projection"):
        await database.open()
    await database.close()


async def test_a_server_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    database = open_database(f"postgresql://nobody@/nothing?host={tmp_path}")
    with pytest.raises(TargetUnavailable):
        await database.open()
    await database.close()


async def codes_are_indexed(url: str, of: ProjectionSet) -> bool:
    database = open_database(url)
    await database.open()
    facts = await database.facts(of, TRANSFER)
    await database.close()
    return ("tenant", "code") in facts.indexes


async def lacks_what_a_filter_finds(world: World, of: ProjectionSet) -> None:
    """An index counts when all it leaves out are rows without the last column's value."""
    made = 'CREATE INDEX "{}" ON "ledger_transfer__v3_b1" ("tenant", "code") WHERE {}'
    for name, condition in (("some", '"amount" > 5'), ("without", '"code" IS NULL'),
                            ("other", '"tenant" IS NOT NULL')):  # fmt: skip
        await world.execute(made.format(name, condition))
        assert not await codes_are_indexed(world.url, of)
    await world.execute(made.format("present", '"code" IS NOT NULL'))
    assert await codes_are_indexed(world.url, of)


async def test_an_index_of_a_file_counts_when_it_has_all_that_a_filter_finds(
    tmp_path: Path,
) -> None:
    world = World(f"sqlite:///{tmp_path}/tables.db")
    of = await world.fill(10)
    await lacks_what_a_filter_finds(world, of)
    await world.target.close()


# --- PostgreSQL -------------------------------------------------------------------------------


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    made = World(postgres_url)
    await made.fill(3_000)
    yield made
    await made.target.close()


@pytest.fixture
async def database(world: World) -> AsyncIterator[PostgresDatabase]:
    made = open_database(world.url)
    assert isinstance(made, PostgresDatabase)
    await made.open()
    yield made
    await made.close()


async def test_an_index_counts_when_it_has_all_that_a_filter_finds(world: World) -> None:
    (of,) = await world.target.sets()
    await lacks_what_a_filter_finds(world, of)


async def test_what_was_left_half_made_is_seen_and_finished(
    world: World, database: PostgresDatabase
) -> None:
    await database.add(AMOUNT, TABLES, PLAIN)
    table = "ledger_entry__v3_b1"
    async with connection(world.url) as held:
        await held.execute(f'DROP INDEX "{table}_advised_amount"')
        # As an attempt leaves it that ended after the parent, and one within a partition.
        made = f'CREATE INDEX "{table}_advised_amount" ON ONLY "{table}"'
        await held.execute(f"{made} (tenant, book, amount)")
        part = f"{table}_p20260101"
        with pytest.raises(Exception, match="unique"):
            await held.execute(
                f'CREATE UNIQUE INDEX CONCURRENTLY "{part}_advised_amount" ON "{part}" (tenant)'
            )
    # The server itself indexes the partitions that come meanwhile.
    (of,) = await database.sets()
    await world.target.keep(of, TABLES, Instant(NOW + 365 * 86_400_000_000))
    (before,) = await database.held()
    assert (before.sets, before.missing) == ((), ("v3_b1",))
    await database.add(AMOUNT, TABLES, PLAIN)
    (after,) = await database.held()
    assert (after.sets, after.missing) == (("v3_b1",), ())
    assert after.bytes is not None
    assert after.bytes > 0


async def test_partitions_that_are_cut_by_shard_are_indexed_one_by_one(
    world: World, database: PostgresDatabase
) -> None:
    table = "ledger_entry__v3_b9"
    async with connection(world.url) as held:
        await held.execute(f"""
            CREATE TABLE "{table}" (tenant text, book text, amount int, day int, shard int)
                PARTITION BY RANGE (day);
            CREATE TABLE "{table}_p1" PARTITION OF "{table}" FOR VALUES FROM (0) TO (9)
                PARTITION BY LIST (shard);
            CREATE TABLE "{table}_p1_s0" PARTITION OF "{table}_p1" FOR VALUES IN (0);
            CREATE TABLE "{table}_p1_s1" PARTITION OF "{table}_p1" FOR VALUES IN (1);
            INSERT INTO ultra_projection_set SELECT projection, 9, version, 'building',
                created_at, changed_at, paused, parked, tables FROM ultra_projection_set
        """)
    how = await database.add(AMOUNT, TABLES, PLAIN)
    assert how.startswith("in 4 pieces")
    (one,) = await database.held()
    assert (one.sets, one.missing) == (("v3_b1", "v3_b9"), ())
    await database.remove(AMOUNT, PLAIN)
    async with connection(world.url) as held:
        left = "SELECT count(*) FROM pg_indexes WHERE indexname LIKE '%advised%'"
        assert await held.fetchval(left) == 0


async def test_a_table_that_others_hold_is_left_as_it_is(
    world: World, database: PostgresDatabase
) -> None:
    async with connection(world.url) as other, other.transaction():
        await other.execute('LOCK TABLE "ledger_transfer__v3_b1" IN ACCESS EXCLUSIVE MODE')
        with pytest.raises(Refused, match="others use the table"):
            await database.add(CODE, TABLES, SHORT)
    assert await database.held() == []
    (of,) = await database.sets()
    assert CODE.columns not in (await database.facts(of, TRANSFER)).indexes


async def test_one_that_cannot_be_made_anew_stays_remembered(
    world: World, database: PostgresDatabase
) -> None:
    await database.add(AMOUNT, TABLES, PLAIN)
    async with connection(world.url) as other:
        await other.execute('DROP INDEX "ledger_entry__v3_b1_advised_amount"')
        async with other.transaction():
            await other.execute('LOCK TABLE "ledger_entry__v3_b1" IN ACCESS EXCLUSIVE MODE')
            with pytest.raises(Refused):
                await database.add(AMOUNT, TABLES, SHORT)
    assert [one.missing for one in await database.held()] == [("v3_b1",)]


async def test_rows_go_on_being_written_while_an_index_is_made(
    world: World, database: PostgresDatabase
) -> None:
    ended = asyncio.Event()

    async def write() -> int:
        count = 0
        async with connection(world.url) as other:
            while not ended.is_set() or not count:
                await other.execute(
                    'UPDATE "ledger_transfer__v3_b1" SET amount = amount + 1 WHERE log_offset < 10'
                )
                count += 1
        return count

    writing = asyncio.create_task(write())
    how = await database.add(CODE, TABLES, PLAIN)
    ended.set()
    assert await writing
    assert how == "concurrently: nobody waited"


async def test_a_user_who_may_not_is_refused(world: World, database: PostgresDatabase) -> None:
    async with connection(world.url) as admin:
        await admin.execute("CREATE ROLE looker LOGIN")
        await admin.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO looker")
        await admin.execute("GRANT pg_read_all_data TO looker")
    mere = PostgresDatabase(world.url.replace("//ultra@", "//looker@"))
    await mere.open()
    try:
        (of,) = await mere.sets()
        with pytest.raises(Refused, match="row-level security"):
            async with mere.copy(of, ENTRY, PLAIN):
                pass
        with pytest.raises(Refused, match="does not let this user"):
            await mere.add(CODE, TABLES, PLAIN)
    finally:
        await mere.close()
        async with connection(world.url) as admin:
            await admin.execute("DROP OWNED BY looker")
            await admin.execute("DROP ROLE looker")
