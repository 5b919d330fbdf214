"""Tables of the MySQL target on a real MariaDB: partitions, unique indexes, large commands."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.servers.mariadb import MariadbServer, connection
from tests.unit.projection.mysql.test_mysql_target import read

from ultraengine.domains.ledger.tables import TABLES
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Instant
from ultraengine.model.projection import (
    Column,
    ColumnType,
    Fold,
    Index,
    Interval,
    Partition,
    Table,
    TableKind,
)
from ultraengine.projection.fold import Batch
from ultraengine.projection.mysql.driver import MysqlTarget
from ultraengine.projection.mysql.partitions import AHEAD
from ultraengine.projection.mysql.session.driver import PREPARED_MAX
from ultraengine.projection.target import (
    Fenced,
    RowRefused,
    TargetUnavailable,
    all_tables,
    physical,
)
from ultraengine.testing.projection_sets import NOW, SHARD, at, facts, moved
from ultraengine.testing.projection_tables import DAY_US, FACT, PROBE, VISIT, ProbeTables, fact

TENANT, NAME = (Column(name=name, type=ColumnType.TEXT, length=64) for name in ("tenant", "name"))


@pytest.fixture(params=["bulk command", "lists"])
async def target(
    request: pytest.FixtureRequest, mariadb_server: MariadbServer, mariadb_database: str
) -> AsyncIterator[MysqlTarget]:
    bulk = "1" if request.param == "bulk command" else "0"
    target = MysqlTarget("probe", mariadb_server.url(mariadb_database, bulk=bulk))
    await target.open()
    yield target
    await target.close()


async def partitions(server: MariadbServer, database: str, name: str) -> list[tuple[Any, ...]]:
    async with connection(server, database) as plain:
        found: list[tuple[Any, ...]] = await plain.run(
            "SELECT partition_name, subpartition_name, table_rows"
            " FROM information_schema.partitions"
            f" WHERE table_schema = '{database}' AND table_name = '{name}'"
            " ORDER BY partition_ordinal_position, subpartition_ordinal_position"
        )
    return found


def visits(table: Table, *times: int) -> Batch:
    batch = Batch([table])
    for number, time in enumerate(times):
        batch.append(table.name, ("t", number, time, number))
    return batch


async def test_rows_make_ranges_of_months_and_none_before_the_first(
    target: MysqlTarget, mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    projection = ProbeTables("cut", tables=(VISIT,), aggregates=())
    of = await target.create(projection, 1, NOW)
    name = physical("cut", "visit", of.suffix)

    async def names() -> list[str]:
        return [row[0] for row in await partitions(mariadb_server, mariadb_database, name)]

    assert await names() == ["p_rest"]
    # Nobody knows yet where the rows will begin.
    await target.keep(of, projection, NOW)
    assert await names() == ["p_rest"]
    batch = visits(VISIT, NOW - 40 * DAY_US, NOW - 90 * DAY_US)
    await target.write(of, projection, batch, moved(0, 1))
    assert await names() == ["p20251001", "p20251101", "p_rest"]
    earlier = Batch([VISIT])
    earlier.append("visit", ("t", 9, 0, 0))
    await target.write(of, projection, earlier, moved(1, 2))
    assert await names() == ["p20251001", "p20251101", "p_rest"]
    await target.keep(of, projection, Instant(NOW - 30 * DAY_US))
    ahead = ["p20260101", "p20260201"]
    assert len(ahead) == AHEAD
    # The first month is past its thirty days on December 2, and what is older lay in it.
    assert await names() == ["p20251101", "p20251201", *ahead, "p_rest"]
    rows = await read(mariadb_server, mariadb_database, name, VISIT)
    assert [row[1] for row in rows] == [0]


async def test_a_table_cut_by_day_and_shard_is_cut_by_both(
    target: MysqlTarget, mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    table = Table(
        name="sharded", kind=TableKind.APPEND, key=VISIT.key, columns=VISIT.columns,
        partition=Partition("at", Interval.DAY, by_shard=True, keep_days=1),
        indexes=(Index("once", ("tenant", "at"), unique=True),),
    )  # fmt: skip
    projection = ProbeTables("cut", tables=(table,), aggregates=())
    of = await target.create(projection, 1, NOW)
    await target.write(of, projection, visits(table, NOW, NOW + DAY_US), moved(0, 1))
    name = physical("cut", "sharded", of.suffix)
    made = await partitions(mariadb_server, mariadb_database, name)
    assert [row[0] for row in made[::8]] == ["p20260101", "p20260102", "p_rest"]
    assert len(made) == 3 * 8
    # Two shards may have a row of the same moment: that is what a cut by shard costs.
    again = Batch([table])
    again.append("sharded", ("t", 0, NOW, 5))
    await target.write(of, projection, again, moved(1, 2))
    assert len(await read(mariadb_server, mariadb_database, name, table)) == 3


async def test_rows_that_cannot_be_written_are_refused_before_any_range_is_made(
    target: MysqlTarget, mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    projection = ProbeTables("cut", tables=(VISIT,), aggregates=())
    of = await target.create(projection, 1, NOW)
    for time in (None, 2**62):
        batch = Batch([VISIT])
        batch.append("visit", ("t", 1, time, 0))
        with pytest.raises(RowRefused):
            await target.write(of, projection, batch, moved(0, 1))
    name = physical("cut", "visit", of.suffix)
    assert len(await partitions(mariadb_server, mariadb_database, name)) == 1


UNIQUE = Table(
    name="named",
    kind=TableKind.CURRENT,
    key=("tenant", "name"),
    columns=(
        TENANT,
        NAME,
        Column(name="code", type=ColumnType.INTEGER, nullable=True),
        Column(name="paid", type=ColumnType.TOTAL, fold=Fold.SUM),
    ),
    indexes=(Index("code", ("tenant", "code"), unique=True),),
)


async def test_a_row_that_another_unique_key_matches_is_refused_and_not_merged_into_it(
    target: MysqlTarget, mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    projection = ProbeTables("unique", tables=(UNIQUE,), aggregates=())
    of = await target.create(projection, 1, NOW)

    def batch(*rows: tuple[Any, ...]) -> Batch:
        made = Batch([UNIQUE])
        for row in rows:
            made.put("named", row)
        return made

    rows = [("t", "a", 1, 5), ("t", "b", None, 5), ("t", "c", None, 5)]
    await target.write(of, projection, batch(*rows), moved(0, 1))
    with pytest.raises(RowRefused):
        await target.write(of, projection, batch(("t", "d", 1, 9)), moved(1, 2))
    with pytest.raises(RowRefused):
        await target.write(of, projection, batch(("t", "b", 1, 9)), moved(1, 2))
    await target.write(of, projection, batch(("t", "a", 1, 9)), moved(1, 2))
    held = await read(
        mariadb_server, mariadb_database, physical("unique", "named", of.suffix), UNIQUE
    )
    assert sorted(held, key=repr) == [("t", "a", 1, 14), *rows[1:]]


async def test_a_batch_larger_than_a_packet_goes_in_several_commands(
    mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    small = 1 << 20
    async with connection(mariadb_server) as admin:
        ((usual,),) = await admin.run("SELECT @@GLOBAL.max_allowed_packet")
        await admin.run(f"SET GLOBAL max_allowed_packet = {small}")
        try:
            target = MysqlTarget("probe", mariadb_server.url(mariadb_database))
            await target.open()
            of = await target.create(PROBE, 1, NOW)
            json = f'"{"x" * (small // 4)}"'
            rows = [fact(number, json=json) for number in range(9)]
            await target.write(of, PROBE, facts(*rows), moved(0, 1))
            with pytest.raises(RowRefused, match="larger than"):
                await target.write(of, PROBE, facts(fact(99, json=f'"{"x" * small}"')), moved(1, 2))
            assert await target.positions(of) == {SHARD: at(1)}
            await target.close()
        finally:
            await admin.run(f"SET GLOBAL max_allowed_packet = {usual}")
    held = await read(mariadb_server, mariadb_database, physical("probe", "fact", of.suffix), FACT)
    assert sorted(held) == rows


async def test_the_tables_of_the_ledger_are_taken_by_the_server(
    target: MysqlTarget, mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    of = await target.create(TABLES, 1, NOW)
    await target.serve(of, TABLES, NOW)
    for table in all_tables(TABLES):
        assert await read(mariadb_server, mariadb_database, f"ledger_{table.name}", table) == []


async def test_a_table_that_the_server_could_not_hold_is_refused_with_the_numbers(
    target: MysqlTarget,
) -> None:
    texts = tuple(Column(name=f"c{n}", type=ColumnType.TEXT) for n in range(7))
    wide = Table(
        name="wide", kind=TableKind.CURRENT, columns=(TENANT, *texts),
        key=("tenant", *(one.name for one in texts)),
    )  # fmt: skip
    with pytest.raises(InvariantBroken, match="3072"):
        await target.create(ProbeTables("wide", tables=(wide,), aggregates=()), 1, NOW)
    assert await target.sets() == []


async def test_tables_that_somebody_has_removed_fence_the_writer(
    target: MysqlTarget, mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    of = await target.create(PROBE, 1, NOW)
    async with connection(mariadb_server, mariadb_database) as plain:
        await plain.run(f"DROP TABLE {physical('probe', 'fact', of.suffix)}")
    with pytest.raises(Fenced):
        await target.write(of, PROBE, facts(fact(1)), moved(0, 1))
    assert await target.positions(of) == {}


async def test_a_right_that_is_missing_is_told_and_tried_again(
    mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    async with connection(mariadb_server) as admin:
        await admin.run("CREATE USER IF NOT EXISTS reader@localhost")
        await admin.run(f"GRANT SELECT ON {mariadb_database}.* TO reader@localhost")
        url = f"mysql://reader@/{mariadb_database}?socket={mariadb_server.socket}"
        target = MysqlTarget("probe", url)
        with pytest.raises(TargetUnavailable, match="denied"):
            await target.open()
        await admin.run(f"GRANT ALL ON {mariadb_database}.* TO reader@localhost")
        await target.open()
        await target.close()
        await admin.run("DROP USER reader@localhost")


async def test_nothing_is_kept_open_by_a_connection_that_could_not_begin(
    mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    target = MysqlTarget("probe", mariadb_server.url(f"{mariadb_database}_none"))
    with contextlib.suppress(TargetUnavailable):
        await target.open()
    async with connection(mariadb_server) as plain:
        assert await plain.run(
            "SELECT COUNT(*) FROM information_schema.processlist"
            f" WHERE db = '{mariadb_database}_none'"
        ) == [(0,)]


async def test_statements_of_any_number_of_shapes_are_kept_by_the_server_within_a_bound(
    mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    target = MysqlTarget("probe", mariadb_server.url(mariadb_database, bulk="0"))
    await target.open()
    of = await target.create(PROBE, 1, NOW)
    sizes = range(1, PREPARED_MAX + 8)
    for size in sizes:
        rows = [fact(size * 1_000 + number) for number in range(size)]
        await target.write(of, PROBE, facts(*rows), moved(size - 1, size))
    held = await read(mariadb_server, mariadb_database, physical("probe", "fact", of.suffix), FACT)
    assert len(held) == sum(sizes)
    async with connection(mariadb_server) as plain:
        ((_, kept),) = await plain.run("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'")
    assert int(kept) <= PREPARED_MAX
    await target.close()
