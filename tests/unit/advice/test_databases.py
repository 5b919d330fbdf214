"""Advice on real databases: what is tried, made, kept and removed."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.servers.postgres import connection
from tests.unit.advice.worlds import (
    BY_CODE,
    BY_COUNTERPARTY,
    NOW,
    PLAIN,
    World,
    asker,
    report,
)

from ultraengine.advice.database import TRIED, Database, Refused
from ultraengine.advice.driver import (
    CLASSES,
    look,
    open_database,
    serving,
    try_all,
    try_specialised,
)
from ultraengine.advice.recorder import Usage
from ultraengine.advice.specialise import Specialised
from ultraengine.advice.suggest import Evidence, suggest
from ultraengine.advice.sums import Special
from ultraengine.advice.trial import Question, Trial, TrialFailed, Verdict
from ultraengine.domains.ledger.tables import ENTRY, HOLD, TABLES, TRANSFER
from ultraengine.model.errors import Malformed
from ultraengine.model.ids import Instant
from ultraengine.model.limits import AdviceLimits
from ultraengine.projection.added_indexes import AddedIndex
from ultraengine.projection.target import TargetUnavailable
from ultraengine.query.readers.factory import open_reader

CODE = AddedIndex("ledger", "advised_code", "transfer", ("tenant", "book", "code"), NOW)
COUNTERPARTY = AddedIndex(
    "ledger", "advised_cp", "entry", ("tenant", "book", "account", "counterparty"), NOW
)


EVIDENCE = Evidence(
    read="ledger.r", filters=(), order=(), calls=100, share=1.0, seconds=5.0, seconds_p50=0.05,
    seconds_p95=0.05, returned=1.0,
)  # fmt: skip


async def advise(
    world: World, database: Database, *usages: Usage, limits: AdviceLimits = PLAIN
) -> list[Trial]:
    sets = await serving(database, [TABLES])
    facts = await look(database, sets, [TABLES])
    found = suggest(report(*usages), facts, limits)
    told: list[str] = []
    trials = await try_all(
        database, sets, facts, found.candidates, asker(world.url), limits, told.append
    )
    assert {one.partition(" ")[0] for one in told} == ({"copying", "trying"} if trials else set())
    return list(trials)


async def test_an_index_for_a_slow_shape_comes_to_be_used_and_saves_work(
    world: World, database: Database
) -> None:
    trials = await advise(world, database, BY_CODE, BY_COUNTERPARTY)
    assert {(one.candidate.table, one.candidate.columns) for one in trials} == {
        ("transfer", ("tenant", "book", "code", "booked_at", "transfer")),
        ("entry", ("tenant", "book", "account", "counterparty", "version")),
    }
    for one in trials:
        (shape,) = one.shapes
        assert shape.used
        assert TRIED in shape.after.plan
        assert TRIED not in shape.before.plan
        assert shape.before.work > 2 * shape.after.work
        assert one.gain == pytest.approx(shape.before.work / shape.after.work, abs=0.01)
        assert (one.table_rows, one.copy_rows) == (12_000, 12_000)
        assert one.index_bytes > 100_000
        assert one.write is not None
        assert one.write.rows == PLAIN.write_rows


async def test_of_an_order_and_bounds_what_gains_more_is_kept(
    world: World, database: Database
) -> None:
    order = ("booked_at desc", "transfer desc")
    filters = (("amount", "gte"), ("amount", "lt"), ("code", "eq"))
    both = Usage("ledger", "ledger.transfers", "transfer", ("book",), filters, order)
    trials = await advise(world, database, both)
    assert {one.candidate.columns[3:] for one in trials} == {("booked_at", "transfer"), ("amount",)}
    assert [one.verdict for one in trials].count(Verdict.KEEP) <= 1
    (lesser,) = [one for one in trials if one.gain == min(other.gain for other in trials)]
    assert lesser.verdict is Verdict.NO_GAIN


async def test_a_trial_changes_nothing(world: World, database: Database) -> None:
    (of,) = await world.target.sets()
    tables = (TRANSFER, ENTRY)
    before = await world.target.checksums(of, tables)
    facts = await database.facts(of, TRANSFER)
    assert await advise(world, database, BY_CODE)
    assert await world.target.checksums(of, tables) == before
    assert await database.facts(of, TRANSFER) == facts
    assert await database.held() == []


async def test_large_tables_are_tried_on_a_sample(world: World, database: Database) -> None:
    (of,) = await database.sets()
    limits = AdviceLimits(copy_rows_max=2_000)
    async with database.copy(of, TRANSFER, limits) as copy:
        assert 500 < copy.rows <= 2_000
        rows = await copy.examples(("code", "transfer"), 10)
        assert 5 <= len(rows) <= 10
        assert len({row["transfer"] for row in rows}) == len(rows)
        assert await copy.examples(("reference",), 10) == []


async def test_rows_are_written_again_without_a_trace(world: World, database: Database) -> None:
    (of,) = await database.sets()
    async with database.copy(of, ENTRY, PLAIN) as copy:
        rows, seconds = await copy.write_seconds()
        assert (rows, seconds > 0) == (PLAIN.write_rows, True)
        assert await copy.write_seconds() != (0, 0.0)
        assert len(await copy.examples(("version",), 12_000)) == 12_000


async def test_facts_are_those_of_the_database(world: World, database: Database) -> None:
    (of,) = await database.sets()
    found = await database.facts(of, TRANSFER)
    assert found.rows == 12_000
    assert set(found.indexes) == {
        ("tenant", "book", "transfer"),
        ("tenant", "book", "booked_at"),
        ("tenant", "book", "reference"),
    }
    empty = await database.facts(of, TABLES.tables[0])
    assert empty.rows == 0


async def test_what_is_added_is_there_is_remembered_and_survives_a_rebuild(
    world: World, database: Database
) -> None:
    for index in (CODE, COUNTERPARTY):
        assert await database.add(index, TABLES, PLAIN)
        assert await database.add(index, TABLES, PLAIN)
    assert [(one.index, one.sets, one.missing) for one in await database.held()] == [
        (CODE, ("v3_b1",), ()),
        (COUNTERPARTY, ("v3_b1",), ()),
    ]
    (first,) = await database.sets()
    second = await world.build(2, rows=100)
    for of in (first, second):
        assert CODE.columns in (await database.facts(of, TRANSFER)).indexes
        # PostgreSQL begins with the account, which every reader names.
        indexed = map(set, (await database.facts(of, ENTRY)).indexes)
        assert set(COUNTERPARTY.columns) in list(indexed)
    await world.target.serve(second, TABLES, NOW)
    await world.target.drop(first, [table.name for table in TABLES.tables], NOW)
    assert [one.sets for one in await database.held()] == [("v3_b2",), ("v3_b2",)]
    usages = report(BY_COUNTERPARTY)
    sets = await serving(database, [TABLES])
    facts = await look(database, sets, [TABLES])
    assert suggest(usages, facts, AdviceLimits(table_rows_min=1)).candidates


async def test_what_is_removed_is_gone_and_comes_not_back(world: World, database: Database) -> None:
    (of,) = await database.sets()
    for index in (CODE, COUNTERPARTY):
        await database.add(index, TABLES, PLAIN)
        await database.remove(index, PLAIN)
        await database.remove(index, PLAIN)
    assert await database.held() == []
    second = await world.build(2)
    for one in (of, second):
        assert CODE.columns not in (await database.facts(one, TRANSFER)).indexes
        indexed = map(set, (await database.facts(one, ENTRY)).indexes)
        assert set(COUNTERPARTY.columns) not in list(indexed)


async def test_new_rows_and_new_partitions_are_indexed_too(
    world: World, database: Database
) -> None:
    await database.add(COUNTERPARTY, TABLES, PLAIN)
    (of,) = await database.sets()
    # A year on: a partition of its own where there are any.
    await world.target.keep(of, TABLES, Instant(NOW + 365 * 86_400_000_000))
    (held,) = await database.held()
    assert (held.sets, held.missing) == (("v3_b1",), ())


async def test_one_whose_columns_a_set_does_not_have_is_remembered_and_left_out(
    world: World, database: Database
) -> None:
    index = AddedIndex("ledger", "advised_old", "transfer", ("tenant", "colour"), NOW)
    await database.add(index, TABLES, PLAIN)
    gone = AddedIndex("ledger", "advised_gone", "auction", ("tenant",), NOW)
    await database.add(gone, TABLES, PLAIN)
    await world.build(2)
    assert [(one.index.name, one.sets, one.missing) for one in await database.held()] == [
        ("advised_gone", (), ()),
        ("advised_old", (), ()),
    ]


async def test_sets_on_their_way_out_are_left_alone(world: World, database: Database) -> None:
    second = await world.build(2)
    await world.target.serve(second, TABLES, NOW)
    await database.add(CODE, TABLES, PLAIN)
    assert [one.sets for one in await database.held()] == [("v3_b2",)]


async def test_a_statement_that_takes_too_long_is_ended(world: World, database: Database) -> None:
    (of,) = await database.sets()
    entries = open_reader(world.url, 1).dialect.quote("ledger_entry__v3_b1")
    product = f"FROM {entries} a, {entries} b, {entries} c"
    forever = f"SELECT count(*) {product} WHERE a.amount <> b.amount"
    async with database.copy(of, ENTRY, AdviceLimits(statement_s=2.0)) as copy:
        with pytest.raises(TrialFailed, match=r"too long|longer than"):
            await copy.ask(Question(forever, ()))


async def test_a_shape_that_no_row_answers_is_not_tried(world: World, database: Database) -> None:
    order = ("booked_at desc", "transfer desc")
    unset = Usage("ledger", "ledger.transfers", "transfer", ("book",), (("reverses", "eq"),), order)
    (one,) = await advise(world, database, unset)
    assert (one.verdict, one.reason) == (
        Verdict.FAILED,
        "no row has values in all of tenant, book, reverses",
    )
    gone = Usage("ledger", "ledger.auctions", "transfer", ("book",), (("code", "eq"),), ())
    (one,) = await advise(world, database, gone)
    assert one.verdict is Verdict.FAILED
    assert "not a list of transfer any more" in one.reason


def listed(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def killed_trial(url: str, directory: Path) -> None:
    """Another process gets as far as an index on its copy, and no further."""
    trial = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.advice.killed", url],
        stdout=subprocess.PIPE,
        env={**os.environ, "SQLITE_TMPDIR": str(directory)},
        cwd=Path(__file__).parents[3],
    )
    assert trial.stdout is not None
    assert trial.stdout.readline() == b"indexed\n"
    trial.kill()
    trial.communicate()


async def test_nothing_is_left_of_a_trial_that_was_killed(
    world: World, database: Database, tmp_path: Path
) -> None:
    before = listed(tmp_path)
    killed_trial(world.url, tmp_path)
    assert listed(tmp_path) == before
    (of,) = await database.sets()
    assert CODE.columns not in (await database.facts(of, TRANSFER)).indexes
    if world.url.startswith("postgresql"):
        left = "SELECT EXISTS (SELECT FROM pg_class WHERE relpersistence = 't')"
        async with connection(world.url) as held, asyncio.timeout(60):
            while await held.fetchval(left):  # noqa: ASYNC110  (the server tells nobody)
                await asyncio.sleep(0.05)


async def test_a_set_that_is_gone_is_said_of_each_candidate(
    world: World, database: Database
) -> None:
    sets = await serving(database, [TABLES])
    facts = await look(database, sets, [TABLES])
    found = suggest(report(BY_CODE, BY_COUNTERPARTY), facts, PLAIN)
    second = await world.build(2)
    await world.target.serve(second, TABLES, NOW)
    await world.target.drop(sets[0], [table.name for table in TABLES.tables], NOW)
    trials = await try_all(
        database, sets, facts, found.candidates, asker(world.url), PLAIN, lambda _: None
    )
    assert [one.verdict for one in trials] == [Verdict.FAILED] * 2


async def test_a_database_without_tables_of_a_projection_is_refused(url: str) -> None:
    database = open_database(url)
    with pytest.raises((Refused, TargetUnavailable)):
        await database.open()
    await database.close()
    with pytest.raises(TargetUnavailable):
        await database.sets()
    await database.close()


async def test_a_target_from_before_there_were_added_indexes_gets_the_table(world: World) -> None:
    await world.execute("DROP TABLE ultra_projection_index")
    database = open_database(world.url)
    await database.open()
    assert await database.held() == []
    await database.add(CODE, TABLES, PLAIN)
    assert len(await database.held()) == 1
    await database.close()


@pytest.mark.parametrize("url", ["lines:///here", "mysql://", "nothing", "sqlite://x"])
def test_a_url_that_no_advice_is_for_is_refused(url: str) -> None:
    with pytest.raises(Malformed):
        open_database(url)


def test_a_database_whose_driver_is_not_installed_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(CLASSES, "sqlite", "ultraengine.nowhere:Database")
    with pytest.raises(Malformed, match="no driver for sqlite"):
        open_database("sqlite:///here.db")


@pytest.mark.parametrize(
    ("special", "rows"),
    [
        # Two months of entries of one account; transfers of sixty codes.
        (Special(ENTRY, ("tenant", "book", "account"), ("tenant", "book", "account"), ("amount",),
                 "booked_at"), 60),
        (Special(TRANSFER, ("tenant", "book", "code"), ("tenant", "book"), ("amount",),
                 "effective_at"), 3_600),
    ],
    ids=["one", "grouped"],
)  # fmt: skip
async def test_a_specialised_table_is_tried_on_a_copy(
    world: World, database: Database, special: Special, rows: int
) -> None:
    """It says the same as what it is made of, with less work; writes with it are measured too."""
    (of,) = await serving(database, [TABLES])
    async with database.copy(of, special.source, PLAIN) as copy:
        words = copy.words(special)
        (example,) = await copy.examples(special.equal, 1)
        before, after = words.questions([example[name] for name in special.equal])
        whole = await copy.ask(before)
        seconds, made = await copy.build(words)
        summed = await copy.ask(after)
        assert made == rows
        assert summed.work < whole.work
        assert seconds > 0
        assert await copy.fold_seconds(words) > 0
        await copy.unbuild()
        with pytest.raises(TrialFailed):
            await copy.ask(after)
    proposed = Specialised("ledger", special.source.name, EVIDENCE, 12_000, "", "", special)
    told: list[str] = []
    (trial,) = await try_specialised(database, [of], [proposed], PLAIN, told.append)
    assert trial.before is not None
    assert trial.after is not None
    assert trial.write is not None
    assert trial.gain == pytest.approx(trial.before.work / trial.after.work, abs=0.01)
    assert trial.verdict is (Verdict.KEEP if trial.gain >= PLAIN.gain_min else Verdict.NO_GAIN)
    assert trial.write.seconds_after > trial.write.seconds_before
    assert (trial.copy_rows, trial.rows) == (12_000, rows)
    assert told == [f"trying sums of {special.source.name} by {', '.join(special.groups)} and day"]


async def test_a_specialised_table_of_no_rows_is_not_tried(
    world: World, database: Database
) -> None:
    special = Special(HOLD, ("tenant", "book"), ("tenant", "book"), ("amount",), "booked_at")
    proposed = Specialised("ledger", "hold", EVIDENCE, 0, "", "", special)
    (of,) = await serving(database, [TABLES])
    (trial,) = await try_specialised(database, [of], [proposed], PLAIN, lambda _: None)
    assert trial.verdict is Verdict.FAILED
    assert "no row has values in all of tenant, book" in trial.reason
