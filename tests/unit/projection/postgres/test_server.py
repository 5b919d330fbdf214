"""What a real server does: it is killed, hangs, loses connections, and guards who may read."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import msgspec
import pytest
from tests.servers.cutting import Cut, CuttingProxy
from tests.servers.postgres import PostgresServer, connection

from ultraengine.model.ids import Instant, ShardId
from ultraengine.model.projection import Column, ColumnType, Interval, Partition, Projection
from ultraengine.projection.fold import Batch
from ultraengine.projection.postgres.dialect import Options
from ultraengine.projection.postgres.driver import PostgresTarget
from ultraengine.projection.postgres.statements import Verdict, verdict
from ultraengine.projection.target import Fenced, ProjectionSet, RowRefused, TargetUnavailable
from ultraengine.testing.projection_sets import NOW, SHARD, at, batch_of, facts, moved
from ultraengine.testing.projection_tables import (
    DAY_TOTAL,
    GROWTH,
    KNOWN,
    PROBE,
    VISIT,
    ProbeTables,
    fact,
)

ROWS = 3_000
COUNTED = msgspec.structs.replace(
    DAY_TOTAL, table=msgspec.structs.replace(DAY_TOTAL.table, name="counted", checks=())
)
"""A second aggregate, which balances nothing."""


@contextlib.asynccontextmanager
async def opened(url: str, name: str = "here", **more: Any) -> AsyncIterator[PostgresTarget]:
    target = PostgresTarget(name, url, **more)
    await target.open()
    try:
        yield target
    finally:
        await target.close()


def large(first: int, count: int = ROWS) -> Batch:
    """Facts and current rows."""
    batch = facts(*(fact(number) for number in range(first, first + count)))
    for number in range(first, first + count):
        name = f"name-{number % 50}"
        PROBE.project(("put", "daily", ("t", name, number % 3, 1, 1), None), None, batch)  # type: ignore[arg-type]
    return batch


async def written(target: PostgresTarget, of: ProjectionSet, first: int, last: int) -> None:
    for number in range(first, last):
        await target.write(of, PROBE, large(number * ROWS), moved(number, number + 1))


def daily(name: str, day: int, paid: int) -> Any:
    return "put", "daily", ("t", name, day, paid, 0), None


@contextlib.asynccontextmanager
async def held_back(url: str, table: str) -> AsyncIterator[None]:
    """Nobody else gets at the table meanwhile."""
    async with connection(url) as database, database.transaction():
        await database.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield


async def waiting(url: str, table: str) -> None:
    """Until somebody waits for the table."""
    async with connection(url) as database:
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = $1::regclass"
        while not await database.fetchval(waits, table):  # noqa: ASYNC110  (nobody is told)
            await asyncio.sleep(0.01)


async def queued(url: str, task: "asyncio.Task[None]") -> None:
    """Until the task is done, or two sessions wait for locks."""
    async with connection(url) as database:
        waits = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"
        while not task.done() and await database.fetchval(waits) < 2:  # noqa: ASYNC110  (likewise)
            await asyncio.sleep(0.01)


# --- sums that are refreshed by somebody else --------------------------------------------


async def test_a_late_row_touches_days_that_another_connection_is_summing_up(
    postgres_url: str,
) -> None:
    """As `ultra projection verify` does beside a worker."""
    tables = ProbeTables("carry", aggregates=(GROWTH, COUNTED))
    async with opened(postgres_url) as worker, opened(postgres_url) as other:
        of = await worker.create(tables, 1, NOW)
        await worker.write(of, tables, batch_of(daily("a", 9, 7)), moved(0, 1))
        async with held_back(postgres_url, "carry_counted__v1_b1"):
            refresh = asyncio.create_task(other.refresh(of, tables, 10))
            await waiting(postgres_url, "carry_counted__v1_b1")
            late = batch_of(daily("b", 5, 3))
            write = asyncio.create_task(worker.write(of, tables, late, moved(1, 2)))
            await queued(postgres_url, write)
        await asyncio.gather(refresh, write)
        assert await worker.refresh(of, tables, 10) == 0
    async with connection(postgres_url) as database:
        rows = await database.fetch("SELECT owned FROM carry_growth__v1_b1 ORDER BY day")
    assert [int(row["owned"]) for row in rows] == [3, 10]


# --- a server that goes away -------------------------------------------------------------


async def test_a_server_killed_in_mid_batch_holds_what_an_undisturbed_one_holds(
    own_postgres: PostgresServer,
) -> None:
    url = own_postgres.url()
    async with opened(url) as target:
        disturbed = await target.create(PROBE, 1, NOW)
        calm = await target.create(PROBE, 2, NOW)
        await written(target, calm, 0, 4)
        await written(target, disturbed, 0, 2)
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            async with held_back(url, "probe_daily__v1_b1"):
                write = asyncio.create_task(
                    target.write(disturbed, PROBE, large(2 * ROWS), moved(2, 3))
                )
                await waiting(url, "probe_daily__v1_b1")
                own_postgres.kill()
        with pytest.raises(TargetUnavailable):
            await write
        for _ in range(2):
            with pytest.raises(TargetUnavailable):
                await target.positions(disturbed)
        own_postgres.start()
        assert await target.positions(disturbed) == {SHARD: at(2)}
        await written(target, disturbed, 2, 4)
        sums = await target.checksums(disturbed, PROBE.tables)
        assert sums == await target.checksums(calm, PROBE.tables)
        assert sums["fact"].rows == 4 * ROWS


async def test_a_server_that_was_away_for_a_while_is_written_again(
    own_postgres: PostgresServer,
) -> None:
    async with opened(own_postgres.url()) as target:
        of = await target.create(PROBE, 1, NOW)
        await target.write(of, PROBE, facts(fact(1)), moved(0, 1))
        own_postgres.stop()
        for _ in range(3):
            with pytest.raises(TargetUnavailable):
                await target.write(of, PROBE, facts(fact(2)), moved(1, 2))
        own_postgres.start()
        await target.write(of, PROBE, facts(fact(2)), moved(1, 2))
        assert (await target.checksums(of, PROBE.tables))["fact"].rows == 2


@pytest.mark.parametrize("cut", Cut)
async def test_a_connection_lost_at_commit_leaves_no_doubt(
    postgres_url: str, postgres_server: PostgresServer, cut: Cut
) -> None:
    database = postgres_url.partition("?")[0].rpartition("/")[2]
    async with CuttingProxy(postgres_server.directory).listening() as proxy:
        url = postgres_server.url(database, proxy.directory)
        async with opened(url) as target:
            of = await target.create(PROBE, 1, NOW)
            await target.write(of, PROBE, facts(fact(1)), moved(0, 1))
            proxy.next = cut
            with pytest.raises(TargetUnavailable):
                await target.write(of, PROBE, facts(fact(2)), moved(1, 2))
            assert proxy.cuts == 1
            position = (await target.positions(of))[SHARD]
            assert position == at(2 if cut is Cut.AFTER else 1)
            if cut is not Cut.AFTER:
                # Whoever had it in hand is gone: nobody is fenced and nothing is there twice.
                await target.write(of, PROBE, facts(fact(2)), moved(1, 2))
            assert (await target.checksums(of, PROBE.tables))["fact"].rows == 2


async def test_a_cancelled_write_leaves_nothing_and_holds_nobody(postgres_url: str) -> None:
    async with opened(postgres_url) as target:
        of = await target.create(PROBE, 1, NOW)
        async with held_back(postgres_url, "probe_daily__v1_b1"):
            write = asyncio.create_task(target.write(of, PROBE, large(0), moved(0, 1)))
            await waiting(postgres_url, "probe_daily__v1_b1")
            write.cancel()
            with pytest.raises(asyncio.CancelledError):
                await write
        assert await target.positions(of) == {}
        await target.write(of, PROBE, large(0), moved(0, 1))


async def test_a_table_that_somebody_locks_is_tried_again_later(postgres_url: str) -> None:
    async with opened(postgres_url, lock_timeout_s=0.05) as target:
        of = await target.create(PROBE, 1, NOW)
        async with held_back(postgres_url, "probe_fact__v1_b1"):
            with pytest.raises(TargetUnavailable, match="55P03"):
                await target.write(of, PROBE, facts(fact(1)), moved(0, 1))
        await target.write(of, PROBE, facts(fact(1)), moved(0, 1))


async def test_two_that_open_at_once_find_one_set_of_engine_tables(postgres_url: str) -> None:
    targets = [PostgresTarget(f"t{number}", postgres_url) for number in range(4)]
    await asyncio.gather(*(target.open() for target in targets))
    assert [await target.sets() for target in targets] == [[]] * 4
    await asyncio.gather(*(target.close() for target in targets))


# --- a server that is not fit ------------------------------------------------------------


async def test_a_database_of_another_encoding_is_refused(postgres_server: PostgresServer) -> None:
    async with connection(postgres_server.url()) as admin:
        await admin.execute("CREATE DATABASE latin ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
    with pytest.raises(TargetUnavailable, match="LATIN1"):
        await PostgresTarget("latin", postgres_server.url("latin")).open()


async def test_a_user_who_may_not_make_the_reader_is_told_its_name(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    async with connection(postgres_url) as admin:
        await admin.execute("CREATE ROLE modest LOGIN")
        await admin.execute("GRANT ALL ON SCHEMA public TO modest")
    url = postgres_url.replace("//ultra@", "//modest@")
    target = PostgresTarget("modest", url, options=Options(reader="never_made"))
    with pytest.raises(TargetUnavailable, match="never_made"):
        await target.open()
    await target.close()
    async with opened(postgres_url), connection(postgres_url) as admin:
        await admin.execute("DROP OWNED BY modest")
        await admin.execute("DROP ROLE modest")


@pytest.mark.parametrize(
    ("state", "meaning"),
    [
        ("23505", Verdict.REFUSED), ("23514", Verdict.REFUSED), ("22003", Verdict.REFUSED),
        ("54000", Verdict.REFUSED), ("42P01", Verdict.GONE), ("08006", Verdict.AWAY),
        ("57P01", Verdict.AWAY), ("57014", Verdict.AWAY), ("53100", Verdict.AWAY),
        ("40P01", Verdict.AWAY), ("42501", Verdict.AWAY), ("XX000", Verdict.AWAY),
        ("", Verdict.AWAY),
    ],
)  # fmt: skip
def test_an_error_of_the_server_means_refused_gone_or_later(state: str, meaning: Verdict) -> None:
    assert verdict(state) is meaning


# --- who may read ------------------------------------------------------------------------


async def test_a_reader_sees_its_tenant_alone_and_changes_nothing(postgres_url: str) -> None:
    async with opened(postgres_url) as target:
        of = await target.create(PROBE, 1, NOW)
        rows = [fact(1), fact(2), ("u", *fact(3)[1:]), ("u", *fact(4)[1:]), ("u", *fact(5)[1:])]
        await target.write(of, PROBE, facts(*rows), moved(0, 1))
        await target.serve(of, PROBE, NOW)
    async with connection(postgres_url) as database:
        await database.execute("SET ROLE ultra_reader")

        async def seen(relation: str) -> list[str]:
            found = await database.fetch(f"SELECT tenant, n FROM {relation} ORDER BY n")
            return [row["tenant"] for row in found]

        for relation in ("probe_fact", "probe_fact__v1_b1"):
            await database.execute("RESET ultra.tenant")
            assert await seen(relation) == []
            await database.execute("SET ultra.tenant = 't'")
            assert await seen(relation) == ["t", "t"]
            await database.execute("SET ultra.tenant = 'u'")
            assert await seen(relation) == ["u", "u", "u"]
            await database.execute("SET ultra.tenant = ''")
            assert await seen(relation) == []
        assert await database.fetchval("SELECT log_offset FROM ultra_projection_position") == 1
        for statement in (
            "INSERT INTO probe_known VALUES ('t', 'mine')",
            "UPDATE probe_fact SET amount = 0",
            "DELETE FROM probe_fact__v1_b1",
            "TRUNCATE probe_fact__v1_b1",
            "UPDATE ultra_projection_position SET log_offset = 0",
            "SELECT * FROM ultra_projection_request",
            "CREATE TABLE mine (n int)",
            "ALTER TABLE probe_fact__v1_b1 DISABLE ROW LEVEL SECURITY",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await database.execute(statement)


async def test_the_url_names_the_reader_and_its_setting(postgres_url: str) -> None:
    async with opened(f"{postgres_url}&reader=pg_monitor&setting=my.tenant") as target:
        of = await target.create(PROBE, 1, NOW)
        await target.write(of, PROBE, facts(fact(1)), moved(0, 1))
    async with connection(postgres_url) as database:
        await database.execute("SET ROLE pg_monitor")
        assert await database.fetchval("SELECT count(*) FROM probe_fact__v1_b1") == 0
        await database.execute("SET my.tenant = 't'")
        assert await database.fetchval("SELECT count(*) FROM probe_fact__v1_b1") == 1


async def test_a_partition_shows_a_reader_nothing(postgres_url: str) -> None:
    async with opened(postgres_url) as target:
        of = await target.create(PROBE, 1, NOW)
        visit = batch_of(("append", "visit", ("t", 1, NOW, 0), None))
        await target.write(of, PROBE, visit, moved(0, 1))
    async with connection(postgres_url) as database:
        await database.execute("SET ROLE ultra_reader; SET ultra.tenant = 't'")
        assert len(await database.fetch("SELECT * FROM probe_visit__v1_b1")) == 1
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.fetch("SELECT * FROM probe_visit__v1_b1_p20260101")


# --- tables, views, plans ----------------------------------------------------------------


def one_table(version: int, *more: Column) -> Projection:
    table = msgspec.structs.replace(KNOWN, columns=(*KNOWN.columns, *more))
    return ProbeTables("probe", version, (table,), ())


async def test_a_view_of_the_same_columns_keeps_its_grants_and_one_of_others_is_made_anew(
    postgres_url: str,
) -> None:
    note = Column(name="note", type=ColumnType.TEXT, nullable=True)
    # The same name with another type: no view can be replaced by that.
    other = Column(name="note", type=ColumnType.INTEGER, nullable=True)
    granted = (
        "SELECT has_table_privilege('pg_monitor', 'probe_known', 'SELECT'),"
        " has_table_privilege('ultra_reader', 'probe_known', 'SELECT')"
    )
    async with opened(postgres_url) as target, connection(postgres_url) as database:
        for version, more, kept in ((1, (note,), None), (2, (note,), True), (3, (other,), False)):
            projection = one_table(version, *more)
            of = await target.create(projection, version, NOW)
            await target.serve(of, projection, Instant(NOW + version))
            if kept is None:
                await database.execute("GRANT SELECT ON probe_known TO pg_monitor")
            else:
                assert tuple(await database.fetchrow(granted)) == (kept, True)


async def test_a_view_that_others_build_on_is_not_taken_from_them(postgres_url: str) -> None:
    note = Column(name="note", type=ColumnType.TEXT, nullable=True)
    other = Column(name="note", type=ColumnType.INTEGER, nullable=True)
    first, second = one_table(1, note), one_table(2, other)
    async with opened(postgres_url) as target, connection(postgres_url) as database:
        await target.serve(await target.create(first, 1, NOW), first, NOW)
        await database.execute("CREATE VIEW mine AS SELECT note FROM probe_known")
        of = await target.create(second, 2, NOW)
        with pytest.raises(TargetUnavailable, match="mine"):
            await target.serve(of, second, NOW)
        assert [one.state for one in await target.sets()] == ["serving", "building"]
        await database.execute("DROP VIEW mine")
        await target.serve(of, second, NOW)


async def test_rows_fall_into_partitions_by_day_and_shard_and_old_days_go(
    postgres_url: str,
) -> None:
    partition = Partition("at", Interval.DAY, by_shard=True, keep_days=10)
    table = msgspec.structs.replace(VISIT, partition=partition)
    projection = ProbeTables("probe", 1, (table,), ())
    day = 86_400_000_000
    rows = [("t", number, NOW - number * day, number % 2) for number in range(13)]
    async with opened(postgres_url) as target, connection(postgres_url) as database:
        of = await target.create(projection, 1, NOW)
        steps = [("append", "visit", row, None) for row in rows]
        batch = batch_of(*steps, projection=projection)
        both = [*moved(0, 1), *moved(0, 1, ShardId(1))]
        await target.write(of, projection, batch, both)

        async def partitions() -> list[str]:
            found = await database.fetch(
                "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'"
                " AND relname LIKE 'probe_visit%' ORDER BY relname"
            )
            return [row["relname"].removeprefix("probe_visit__v1_b1_") for row in found]

        made = await partitions()
        assert len(made) == 13
        assert made[0] == "p20251220_s0"
        assert await database.fetchval("SELECT count(*) FROM ONLY probe_visit__v1_b1") == 0
        for _ in range(2):
            await target.keep(of, projection, NOW)
            kept = await partitions()
            assert kept[0] == "p20251222_s0"
            assert kept[-1] == "p20260103_s1"
        # A partition that is written again after its end was dropped is made again.
        old = batch_of(("append", "visit", ("t", 99, NOW - 12 * day, 0), None),
                       projection=projection)  # fmt: skip
        await target.write(of, projection, old, moved(1, 2))
        assert (await partitions())[0] == "p20251220_s0"


async def test_the_planner_knows_a_table_before_the_server_looks_at_it(postgres_url: str) -> None:
    async with opened(postgres_url) as target, connection(postgres_url) as database:
        of = await target.create(PROBE, 1, NOW)
        for number in range(3):
            rows = (("put", "known", ("t", f"{number}-{n}"), None) for n in range(300))
            await target.write(of, PROBE, batch_of(*rows), moved(number, number + 1))
        known = "SELECT reltuples FROM pg_class WHERE relname = $1"
        assert await database.fetchval(known, "probe_known__v1_b1") >= 300
        visits = (("append", "visit", ("t", n, NOW, 0), None) for n in range(50))
        await target.write(of, PROBE, batch_of(*visits), moved(3, 4))
        await target.keep(of, PROBE, NOW)
        assert await database.fetchval(known, "probe_visit__v1_b1") == 50


async def test_a_sparse_index_holds_what_a_filter_can_ask_for(postgres_url: str) -> None:
    """Statements are planned without their values, and find it all the same."""
    async with opened(postgres_url) as target:
        of = await target.create(PROBE, 1, NOW)
        rows = [fact(n, maybe_text="rare" if n == 7 else None) for n in range(1_000)]
        await target.write(of, PROBE, facts(*rows), moved(0, 1))
        async with connection(postgres_url) as database:
            await database.execute("SET plan_cache_mode = force_generic_plan")
            for condition in ("= $2", "= ANY(ARRAY[$2])"):
                text = f"FROM probe_fact__v1_b1 WHERE tenant = $1 AND maybe_text {condition}"
                asked = await database.prepare(f"SELECT n {text}")
                assert [row["n"] for row in await asked.fetch("t", "rare")] == [7]
                assert "probe_fact__v1_b1_by_text" in str(await asked.explain("t", "rare"))
            pages = "SELECT pg_relation_size('probe_fact__v1_b1_by_text')"
            assert await database.fetchval(pages) == 2 * 8_192


async def test_names_as_long_as_they_may_be_do_not_meet(postgres_url: str) -> None:
    name = "n" * 23
    tables = tuple(
        msgspec.structs.replace(
            VISIT,
            name=name + end,
            partition=Partition("at", Interval.DAY, by_shard=True),
            columns=(
                *VISIT.columns,
                Column(name="c" * 24, type=ColumnType.INTEGER, nullable=True),
            ),
        )
        for end in "ab"
    )
    projection = ProbeTables("p" * 24, 1, tables, ())
    async with opened(postgres_url) as target:
        of = await target.create(projection, 1, NOW)
        batch = Batch(tables)
        for table in tables:
            batch.append(table.name, ("t", 1, NOW, 0, None))
            batch.append(table.name, ("t", 2, NOW, 1, None))
        await target.write(of, projection, batch, moved(0, 1))
        await target.serve(of, projection, NOW)
        sums = await target.checksums(of, tables)
        assert [one.rows for one in sums.values()] == [2, 2]
        await target.keep(of, projection, NOW)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda batch: batch.append("fact", ("t",)),
        lambda batch: batch.append("fact", fact(1, amount="1")),
        lambda batch: batch.append("visit", ("t", 1, "now", 0)),
        lambda batch: batch.append("visit", ("t", 1, 10**18, 0)),
        lambda batch: batch.put("daily", ("t", "a", 10**10, 1, 1)),
    ],
)
async def test_a_row_that_is_none_is_refused_and_the_connection_stays_fit(
    postgres_url: str, spoil: Callable[[Batch], None]
) -> None:
    async with opened(postgres_url) as target:
        of = await target.create(PROBE, 1, NOW)
        batch = facts(fact(7), fact(8))
        spoil(batch)
        with pytest.raises(RowRefused):
            await target.write(of, PROBE, batch, moved(0, 1))
        await target.write(of, PROBE, facts(fact(7)), moved(0, 1))
        assert (await target.checksums(of, PROBE.tables))["fact"].rows == 1


async def test_a_set_whose_tables_were_taken_away_is_written_by_nobody(postgres_url: str) -> None:
    async with opened(postgres_url) as target, connection(postgres_url) as database:
        of = await target.create(PROBE, 1, NOW)
        await database.execute("DROP TABLE probe_fact__v1_b1")
        with pytest.raises(Fenced):
            await target.write(of, PROBE, facts(fact(1)), moved(0, 1))
        with pytest.raises(Fenced):
            await target.serve(msgspec.structs.replace(of, build=9), PROBE, NOW)
