"""What a SQLite file does beyond the contract: locks, damage, other programs that open it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Instant, ShardId
from ultraengine.model.projection import Column, ColumnType, Index, Partition, Table, TableKind
from ultraengine.projection.sqlite.driver import SqliteTarget, path_of
from ultraengine.projection.sqlite.store import driver as store
from ultraengine.projection.target import Fenced, RowRefused, SetState, TargetUnavailable
from ultraengine.testing.projection_sets import NOW, at, batch_of, facts, moved
from ultraengine.testing.projection_tables import DAY_TOTAL, FACT, PROBE, ProbeTables, fact

DAY = 20_454


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "target.db"


@pytest.fixture
async def target(path: Path) -> AsyncIterator[SqliteTarget]:
    target = SqliteTarget("here", f"sqlite:///{path}")
    await target.open()
    yield target
    await target.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BUSY_TIMEOUT_S", 0.0)


@pytest.fixture
def other(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


@pytest.mark.parametrize("url", ["sqlite:///", "sqlite://host/x", "postgresql://x", "x.db"])
def test_a_url_names_a_path(url: str) -> None:
    with pytest.raises(InvariantBroken, match=r"sqlite:///path"):
        SqliteTarget("x", url)
    assert path_of("sqlite:///x.db") == "x.db"
    assert path_of("sqlite:////var/x.db") == "/var/x.db"


async def test_what_is_not_open_is_unavailable(path: Path) -> None:
    target = SqliteTarget("here", f"sqlite:///{path}")
    with pytest.raises(TargetUnavailable, match="not open"):
        await target.sets()
    await target.close()


async def test_a_commit_is_synced(target: SqliteTarget, path: Path) -> None:
    assert target._store is not None
    db = target._store.db
    settings = await target._run(
        lambda _: [db.execute(f"PRAGMA {name}").fetchone()[0]
                   for name in ("journal_mode", "synchronous", "page_size", "cache_size")]
    )  # fmt: skip
    assert settings == ["wal", 2, store.PAGE_BYTES, -store.CACHE_KIB]


async def test_a_file_that_another_program_writes_is_unavailable_for_a_while(
    impatient: None, target: SqliteTarget, other: sqlite3.Connection
) -> None:
    del impatient
    of = await target.create(PROBE, 1, NOW)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TargetUnavailable, match="locked"):
        await target.write(of, PROBE, facts(fact(1)), moved(0, 1))
    assert await target.positions(of) == {}
    other.execute("ROLLBACK")
    await target.write(of, PROBE, facts(fact(1)), moved(0, 1))
    assert await target.positions(of) == {ShardId(0): at(1)}


@pytest.fixture
def scribbled(path: Path) -> None:
    path.write_bytes(b"no database " * 1_000)


async def test_a_file_that_is_no_database_is_unavailable(scribbled: None, path: Path) -> None:
    del scribbled
    target = SqliteTarget("here", f"sqlite:///{path}")
    with pytest.raises(TargetUnavailable, match="not a database"):
        await target.open()
    await target.close()


async def test_a_mistake_in_a_statement_is_no_outage_and_no_bad_row(
    target: SqliteTarget, other: sqlite3.Connection
) -> None:
    of = await target.create(PROBE, 1, NOW)
    other.execute('DROP TABLE "probe_fact__v1_b1"')
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await target.write(of, PROBE, facts(fact(1)), moved(0, 1))
    assert await target.positions(of) == {}


async def test_a_lone_surrogate_is_refused(target: SqliteTarget) -> None:
    of = await target.create(PROBE, 1, NOW)
    with pytest.raises(RowRefused, match=r"table fact: .*surrogate"):
        await target.write(of, PROBE, facts(fact(1, text="\ud800")), moved(0, 1))


@pytest.mark.parametrize("amount", ["5", "-9", "1e30", "1" * 39, 1.5])
async def test_a_number_has_no_other_form(target: SqliteTarget, amount: object) -> None:
    of = await target.create(PROBE, 1, NOW)
    with pytest.raises(RowRefused, match="CHECK constraint failed"):
        await target.write(of, PROBE, facts(fact(1, amount=amount)), moved(0, 1))


async def test_a_refusal_names_the_table_and_what_it_breaks(target: SqliteTarget) -> None:
    of = await target.create(PROBE, 1, NOW)
    with pytest.raises(RowRefused, match=r"table fact: CHECK constraint failed: .*_word"):
        await target.write(of, PROBE, facts(fact(1, maybe_text="forbidden")), moved(0, 1))
    lost = ("change", "state", ("t", "lost"), {"note": "x"})
    with pytest.raises(RowRefused, match=r"1 of 1 rows .* not there, \('t', 'lost'\) the first"):
        await target.write(of, PROBE, batch_of(lost), moved(0, 1))


async def test_large_numbers_go_on_after_the_first(target: SqliteTarget) -> None:
    of = await target.create(PROBE, 1, NOW)
    for number in range(3):
        rows = [fact(10 * number + step, amount=10**30 * (step % 2)) for step in range(4)]
        await target.write(of, PROBE, facts(*rows), moved(number, number + 1))
    assert (await target.checksums(of, [FACT]))["fact"].rows == 12
    too_large = fact(99, maybe_integer=2**63)
    with pytest.raises(RowRefused, match="too large"):
        await target.write(of, PROBE, facts(too_large), moved(3, 4))


async def test_a_cancelled_write_is_whole_or_nothing(target: SqliteTarget) -> None:
    of = await target.create(PROBE, 1, NOW)
    rows = [fact(number) for number in range(5_000)]
    writing = asyncio.create_task(target.write(of, PROBE, facts(*rows), moved(0, 1)))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    positions = await target.positions(of)
    assert positions in ({}, {ShardId(0): at(1)})
    assert (await target.checksums(of, [FACT]))["fact"].rows == (5_000 if positions else 0)


async def test_a_set_that_is_gone_is_served_by_nobody(target: SqliteTarget) -> None:
    of = await target.create(PROBE, 1, NOW)
    await target.drop(of, [], NOW)
    with pytest.raises(Fenced, match="gone"):
        await target.serve(of, PROBE, NOW)
    # All its tables went, although nobody named them.
    assert await target.create(PROBE, 1, NOW) == of


async def test_any_program_reads_the_views(target: SqliteTarget, other: sqlite3.Connection) -> None:
    of = await target.create(PROBE, 1, NOW)
    rows = [fact(number, amount=number) for number in (1, 2)]
    await target.write(of, PROBE, facts(*rows), moved(0, 1))
    await target.serve(of, PROBE, NOW)
    query = "SELECT sum(amount), max(datetime(time / 1000000, 'unixepoch')) FROM probe_fact"
    assert other.execute(query).fetchone() == (3, "2026-01-01 00:00:00")
    with pytest.raises(sqlite3.OperationalError, match="unknown function"):
        other.execute("UPDATE probe_fact__v1_b1 SET amount = 5")
    assert [one.state for one in await target.sets()] == [SetState.SERVING]


async def test_slices_are_computed_so_many_at_a_time(
    target: SqliteTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SLICES_MAX", 2)
    of = await target.create(PROBE, 1, NOW)
    days = [("put", "daily", ("t", "a", DAY + day, 1, 1), None) for day in range(5)]
    await target.write(of, PROBE, batch_of(*days), moved(0, 1))
    assert [await target.refresh(of, PROBE, 9) for _ in range(3)] == [3, 1, 0]
    assert (await target.checksums(of, [DAY_TOTAL.table]))["day_total"].rows == 5


async def test_aggregates_share_what_may_be_computed_at_once(target: SqliteTarget) -> None:
    other = msgspec.structs.replace(
        DAY_TOTAL, table=msgspec.structs.replace(DAY_TOTAL.table, name="again")
    )
    projection = ProbeTables("two", 1, PROBE.tables, (DAY_TOTAL, other))
    of = await target.create(projection, 1, NOW)
    days = [("put", "daily", ("t", "a", DAY + day, 1, 1), None) for day in range(3)]
    await target.write(of, projection, batch_of(*days), moved(0, 1))
    assert [await target.refresh(of, projection, 4) for _ in range(2)] == [2, 0]


async def test_days_are_kept_as_days(target: SqliteTarget) -> None:
    log = Table(
        name="log",
        kind=TableKind.APPEND,
        key=("tenant", "day"),
        columns=(
            Column(name="tenant", type=ColumnType.TEXT),
            Column(name="day", type=ColumnType.DATE),
        ),
        indexes=(Index("day", ("day",)),),
        partition=Partition("day", keep_days=10),
    )
    projection = ProbeTables("days", 1, (log,), ())
    of = await target.create(projection, 1, NOW)
    rows = [("append", "log", ("t", day), None) for day in (DAY - 40, DAY - 31, DAY)]
    await target.write(of, projection, batch_of(*rows, projection=projection), moved(0, 1))
    await target.keep(of, projection, Instant(NOW + 9 * 86_400_000_000))
    # Ten days before 2026-01-10 is 2025-12-31: all of December stays, November goes.
    assert (await target.checksums(of, [log]))["log"].rows == 2


def test_a_transaction_that_sqlite_has_undone_is_not_undone_again() -> None:
    one = store.Store(":memory:")
    with closing(one.db):
        one.prepare()
        with pytest.raises(ValueError, match="after it"):
            fail_after_rollback(one)
        assert one.sets() == []


def fail_after_rollback(one: store.Store) -> None:
    with one.transaction():
        one.db.execute("ROLLBACK")
        raise ValueError("after it")
