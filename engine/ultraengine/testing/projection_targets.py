"""The contract of projection targets, as tests to inherit (`docs/targets.md`).

    class TestMyTarget(TargetContract):
        async def make(self): return MyTarget("mine", self.url)
        async def unreachable(self): return MyTarget("mine", "mine://nobody.is.there")
        async def read(self, relation, table): ...

``make`` gives a target that is not open, on the database of this test: an empty one at the
first call, the same one at every later call.  Tests are ``async``: pytest-asyncio in its mode
``auto`` runs them.  A target without transactions is held to `projection_sets.AnyTargetContract`.
"""

import asyncio
from random import Random
from typing import Any, Final

import pytest

from ultraengine.model.ids import Instant, ShardId
from ultraengine.model.projection import Row
from ultraengine.projection.engine_tables import LEDGER
from ultraengine.projection.fold import Batch
from ultraengine.projection.target import ProjectionSet, RowRefused, Target, view
from ultraengine.testing.projection_rollups import RollupContract
from ultraengine.testing.projection_sets import (
    NOW,
    SHARD,
    at,
    batch_of,
    facts,
    moved,
    ordered,
    same,
)
from ultraengine.testing.projection_tables import (
    ALIKE,
    DAILY,
    DAY_TOTAL,
    DAY_US,
    EXTREME_FACTS,
    FACT,
    GROWTH,
    KEEP_DAYS,
    KNOWN,
    PROBE,
    STATE,
    UNHOLDABLE,
    VISIT,
    MemoryTables,
    ProbeTables,
    fact,
    random_step,
)

SEEDS: Final = range(4)
BATCHES: Final = 8
STEPS: Final = 25
READS: Final = 20
DAY: Final = 20_454


def _good() -> Batch:
    """Rows that no target refuses."""
    return batch_of(
        ("append", "fact", fact(1), None),
        ("append", "fact", fact(2), None),
        ("put", "state", ("t", "a", 1, None, 2, 1, 3, 4, 5, 6), None),
        ("put", "known", ("t", "old"), None),
        ("put", "daily", ("t", "a", DAY, 5, 5), None),
    )


def _paid(name: str, day: int, paid_in: int, paid_out: int, tenant: str = "t") -> Any:
    return "put", "daily", (tenant, name, day, paid_in, paid_out), None


class TargetContract(RollupContract):
    """What a target keeps whose rows and positions are one transaction."""

    async def test_it_says_exactly_once(self, target: Target) -> None:
        """Else `AnyTargetContract` is its contract."""
        same(target.exactly_once, wanted=True)

    # --- refused rows --------------------------------------------------------------------

    async def refused(self, target: Target, of: ProjectionSet, batch: Batch) -> None:
        """A write after a good one is refused and leaves nothing behind."""
        await target.write(of, PROBE, _good(), moved(0, 1))
        before = await self.everything(of)
        for _ in range(2):
            with pytest.raises(RowRefused):
                await target.write(of, PROBE, batch, moved(1, 2))
            same(await self.everything(of), before)
            same(await target.positions(of), {SHARD: at(1)})
        await target.write(of, PROBE, facts(fact(900)), moved(1, 2))
        same(len(await self.held(of, FACT)), len(before["fact"]) + 1)

    async def everything(self, of: ProjectionSet) -> dict[str, list[Row]]:
        """All rows of a set and of the engine's ledger."""
        found = {table.name: ordered(await self.held(of, table)) for table in PROBE.tables}
        found["ledger"] = ordered(await self.read(LEDGER.name, LEDGER))
        return found

    @pytest.mark.parametrize("row", UNHOLDABLE.values(), ids=UNHOLDABLE)
    async def test_a_value_that_its_column_cannot_hold_is_refused(
        self, target: Target, row: Row
    ) -> None:
        """Never cut, rounded or turned into something else; nothing of the batch is written."""
        of = await target.create(PROBE, 1, NOW)
        batch = facts(fact(800), row)
        batch.put("known", ("t", "new"))
        await self.refused(target, of, batch)

    async def test_a_violated_check_is_refused(self, target: Target) -> None:
        """Of a fact, also where the numbers are larger than any machine's; of a merged row."""
        of = await target.create(PROBE, 1, NOW)
        await self.refused(target, of, facts(fact(800), fact(801, maybe_text="forbidden")))
        large = fact(802, amount=10**37, maybe_amount=10**37 + 1)
        small = fact(803, amount=5, maybe_amount=6)
        for number, batch in enumerate(
            (
                facts(large),
                facts(small),
                batch_of(("change", "state", ("t", "a"), {"count": -2})),
                batch_of(("put", "state", ("t", "z", 0, None, 0, -1, 0, 0, 0, 0), None)),
            )
        ):
            with pytest.raises(RowRefused):
                await target.write(of, PROBE, batch, moved(2, 3 + number))
        same(await target.positions(of), {SHARD: at(2)})

    async def test_a_fact_is_written_once(self, target: Target) -> None:
        """A duplicate is refused, in a later batch and in the same."""
        of = await target.create(PROBE, 1, NOW)
        await self.refused(target, of, facts(fact(801), fact(1)))
        with pytest.raises(RowRefused):
            await target.write(of, PROBE, facts(fact(802), fact(802)), moved(2, 3))

    async def test_a_change_of_a_row_that_is_not_there_is_refused(self, target: Target) -> None:
        """Also when other changes of the batch find theirs."""
        of = await target.create(PROBE, 1, NOW)
        found = ("change", "state", ("t", "a"), {"note": "changed"})
        missing = ("change", "state", ("t", "nobody"), {"note": "changed"})
        await self.refused(target, of, batch_of(found, missing))
        other = ("change", "state", ("t", "nobody"), {"count": 1, "note": "x"})
        with pytest.raises(RowRefused):
            await target.write(of, PROBE, batch_of(found, other), moved(2, 3))

    async def test_a_change_to_the_same_values_finds_its_row(self, target: Target) -> None:
        """A row that stays as it is was there."""
        of = await target.create(PROBE, 1, NOW)
        change = ("change", "state", ("t", "a"), {"note": None, "count": 0})
        await target.write(of, PROBE, _good(), moved(0, 1))
        before = await self.held(of, STATE)
        await target.write(of, PROBE, batch_of(change), moved(1, 2))
        same(await self.held(of, STATE), before)

    async def test_a_nul_is_kept_or_refused_and_never_cut(self, target: Target) -> None:
        """`model.projection.storable` is how a projection avoids to find out."""
        of = await target.create(PROBE, 1, NOW)
        row = fact(1, text="before\0after")
        try:
            await target.write(of, PROBE, facts(row), moved(0, 1))
        except RowRefused:
            row = fact(1, text="before\ufffdafter")
            await target.write(of, PROBE, facts(row), moved(0, 1))
        same(await self.held(of, FACT), [row])

    # --- folds ---------------------------------------------------------------------------

    @pytest.mark.parametrize("seed", SEEDS)
    async def test_batches_merge_as_their_folds_say(self, target: Target, seed: int) -> None:
        """Last, sum, lowest, highest; whole rows and changes; over many random batches."""
        random = Random(seed)  # noqa: S311  (steps, no secret)
        of = await target.create(PROBE, 1, NOW)
        expected = MemoryTables(PROBE.tables)
        known: set[Any] = set()
        for number in range(BATCHES):
            steps = [random_step(random, known) for _ in range(random.randrange(STEPS))]
            batch = batch_of(*steps)
            expected.write(batch)
            await target.write(of, PROBE, batch, moved(number, number + 1))
        for table in (STATE, DAILY):
            same(ordered(await self.held(of, table)), ordered(expected.rows(table.name)))

    async def test_sums_are_exact_at_every_size(self, target: Target) -> None:
        """Across the ends of machine words, of amounts, and back."""
        of = await target.create(PROBE, 1, NOW)
        steps = (1, 2**31, 2**63 - 1, 1, -(2**64), 10**37, 10**38 - 1, 10**56, -(10**56), -1)
        total = 0
        for number, step in enumerate(steps):
            row: Row = ("t", "a", 0, None, step, 1, 0, 0, 0, 0)
            whole = ("put", "state", row, None)
            part = ("change", "state", ("t", "a"), {"paid": step})
            await target.write(
                of, PROBE, batch_of(part if number % 2 else whole), moved(number, number + 1)
            )
            total += step
            same([row[4] for row in await self.held(of, STATE)], [total])

    async def test_texts_are_told_apart_by_their_code_points(self, target: Target) -> None:
        """Case, accents, width, spaces at the ends: all of it."""
        of = await target.create(PROBE, 1, NOW)
        for number in range(2):
            await target.write(
                of,
                PROBE,
                batch_of(*(("put", "known", ("t", name), None) for name in ALIKE)),
                moved(number, number + 1),
            )
        same(ordered(await self.held(of, KNOWN)), ordered([("t", name) for name in ALIKE]))

    # --- what auditors read --------------------------------------------------------------

    async def test_each_write_leaves_a_row_for_auditors(self, target: Target) -> None:
        """Per shard: where the log was, its chain, how many rows."""
        of = await target.create(PROBE, 1, NOW)
        await target.write(of, PROBE, facts(fact(1), fact(2)), moved(0, 5))
        await target.write(of, PROBE, facts(fact(3)), [*moved(5, 6), *moved(0, 2, ShardId(1))])
        rows = await self.read(LEDGER.name, LEDGER)
        same(
            ordered(rows),
            ordered(
                [
                    ("probe", 1, shard, end, 1, at(end).epoch, at(end).time, at(end).chain, count)
                    for shard, end, count in ((0, 5, 2), (0, 6, 1), (1, 2, 1))
                ]
            ),
        )

    # --- views ---------------------------------------------------------------------------

    async def test_views_show_the_set_that_serves(self, target: Target) -> None:
        """Not before it serves, all its tables, and none that it does not have."""
        wide, narrow = ProbeTables(), ProbeTables(version=2, tables=(KNOWN,), aggregates=())
        first = await target.create(wide, 1, NOW)
        await target.write(first, wide, facts(fact(1)), moved(0, 1))
        with pytest.raises(LookupError):
            await self.read(view("probe", "fact"), FACT)
        await target.serve(first, wide, NOW)
        same(await self.read(view("probe", "fact"), FACT), [fact(1)])
        same(await self.read(view("probe", "day_total"), DAY_TOTAL.table), [])
        second = await target.create(narrow, 2, NOW)
        row = ("put", "known", ("t", "a"), None)
        await target.write(second, narrow, batch_of(row, projection=narrow), moved(0, 1))
        same(await self.read(view("probe", "known"), KNOWN), [])
        await target.serve(second, narrow, NOW)
        same(await self.read(view("probe", "known"), KNOWN), [("t", "a")])
        with pytest.raises(LookupError):
            await self.read(view("probe", "fact"), FACT)
        await target.drop(first, [*(table.name for table in wide.tables), "day_total"], NOW)
        same(await self.read(view("probe", "known"), KNOWN), [("t", "a")])

    async def test_views_are_swapped_while_readers_read(self, target: Target) -> None:
        """Each read sees one set, whole."""
        sets = [await target.create(PROBE, build, NOW) for build in (1, 2)]
        shown = [sorted(("t", f"{build}-{name}") for name in range(50)) for build in (1, 2)]
        for of, rows in zip(sets, shown, strict=True):
            batch = batch_of(*(("put", "known", row, None) for row in rows))
            await target.write(of, PROBE, batch, moved(0, 1))
        await target.serve(sets[0], PROBE, NOW)
        seen: list[list[Row]] = []

        async def read() -> None:
            while len(seen) < READS:
                seen.append(sorted(await self.read(view("probe", "known"), KNOWN)))

        reader = asyncio.create_task(read())
        swaps = 0
        while not reader.done():
            swaps += 1
            await target.serve(sets[swaps % 2], PROBE, Instant(NOW + swaps))
            await asyncio.sleep(0)
        await reader
        same(len(seen), READS)
        same([rows for rows in seen if rows not in shown], [])
        same(sorted(await self.read(view("probe", "known"), KNOWN)), shown[swaps % 2])

    async def test_retention_drops_whole_partitions_and_no_more(self, target: Target) -> None:
        """A month whose end is within the keep stays whole; so does what has no retention."""
        of = await target.create(PROBE, 1, NOW)
        await target.keep(of, PROBE, NOW)
        day = DAY_US
        # Thirty days before 2026-01-01 is 2025-12-02: November goes, December stays.
        times = [NOW - 32 * day, NOW - 31 * day - 1, NOW - 31 * day, NOW - 1, NOW, NOW + day]
        rows = [("t", number, time, 0) for number, time in enumerate(times)]
        await target.write(
            of, PROBE, batch_of(*(("append", "visit", row, None) for row in rows)), moved(0, 1)
        )
        await target.write(of, PROBE, facts(fact(1, time=0)), moved(1, 2))
        same(KEEP_DAYS, 30)
        for _ in range(2):
            await target.keep(of, PROBE, NOW)
            same(ordered(await self.held(of, VISIT)), rows[2:])
        same(await self.held(of, FACT), [fact(1, time=0)])

    # --- aggregates ----------------------------------------------------------------------

    async def test_aggregates_are_computed_from_the_slices_that_were_touched(
        self, target: Target
    ) -> None:
        """Whole, so many at a time, and none twice; days before 1970 are days."""
        of = await target.create(PROBE, 1, NOW)
        table = DAY_TOTAL.table
        await target.write(
            of, PROBE, batch_of(*(_paid("a", day, 5, 5) for day in (-1, 0, DAY))), moved(0, 1)
        )
        same(await self.held(of, table), [])
        same(await target.refresh(of, PROBE, 2), 1)
        same(len(await self.held(of, table)), 2)
        same(await target.refresh(of, PROBE, 2), 0)
        days = [("t", day, 5, 5, 1) for day in (-1, 0, DAY)]
        same(ordered(await self.held(of, table)), ordered(days))
        change = ("change", "daily", ("t", "a", DAY), {"paid_in": 1, "paid_out": 1})
        other = [_paid("b", DAY, 2**63, 2**63), _paid("c", DAY, 10**40, 10**40, "u")]
        await target.write(of, PROBE, batch_of(change, *other), moved(1, 2))
        await target.write(of, PROBE, facts(fact(1)), moved(2, 3))
        same(ordered(await self.held(of, table)), ordered(days))
        same(await target.refresh(of, PROBE, 1), 0)
        total = 2**63 + 6
        days[2:] = [("t", DAY, total, total, 2), ("u", DAY, 10**40, 10**40, 1)]
        same(ordered(await self.held(of, table)), ordered(days))
        same(await target.refresh(of, PROBE, 1), 0)

    async def test_sums_of_aggregates_are_exact_at_every_size(self, target: Target) -> None:
        """Of many words, below zero, and of what fits no word."""
        of = await target.create(PROBE, 1, NOW)
        values = (2**63 - 1, 2**63 - 1, 1, -(2**63), -1, 10**56, 7, 2**53 + 1, -(10**20))
        rows = [_paid(f"n{number}", DAY, one, one) for number, one in enumerate(values)]
        await target.write(of, PROBE, batch_of(*rows), moved(0, 1))
        same(await target.refresh(of, PROBE, 10), 0)
        row = ("t", DAY, sum(values), sum(values), len(values))
        same(await self.held(of, DAY_TOTAL.table), [row])

    async def test_a_slice_that_is_touched_late_touches_those_after_it_where_they_follow_from_it(
        self, target: Target
    ) -> None:
        """A carried aggregate is right on all days, at every size, and touches none before."""
        tables = ProbeTables("carry", aggregates=(GROWTH,))
        of = await target.create(tables, 1, NOW)
        huge = 10**50
        paid = [_paid("a", DAY, 5, 0), _paid("b", DAY + 1, 0, huge), _paid("b", DAY + 9, 7, 0)]
        await target.write(of, tables, batch_of(*paid), moved(0, 1))
        same(await target.refresh(of, tables, 10), 0)
        days = [("t", DAY, 0, 5), ("t", DAY + 1, huge, 5), ("t", DAY + 9, huge - 7, 5)]
        same(ordered(await self.held(of, GROWTH.table)), ordered(days))
        late = [_paid("a", DAY + 1, 0, 11), _paid("a", DAY + 9, 0, 0)]
        await target.write(of, tables, batch_of(*late), moved(1, 2))
        same(await target.refresh(of, tables, 1), 1)
        same(await target.refresh(of, tables, 1), 0)
        days[1:] = [("t", DAY + 1, huge + 6, 0), ("t", DAY + 9, huge - 1, 0)]
        same(ordered(await self.held(of, GROWTH.table)), ordered(days))
        first = ("change", "daily", ("t", "a", DAY), {"paid_in": huge})
        await target.write(of, tables, batch_of(first), moved(2, 3))
        same(await target.refresh(of, tables, 0), 3)

    async def test_an_aggregate_that_breaks_its_check_is_refused(self, target: Target) -> None:
        """It stays as it was, and its slice is still to be computed."""
        of = await target.create(PROBE, 1, NOW)
        await target.write(of, PROBE, batch_of(_paid("a", DAY, 5, 5)), moved(0, 1))
        same(await target.refresh(of, PROBE, 10), 0)
        await target.write(of, PROBE, batch_of(_paid("b", DAY, 10**30, 0)), moved(1, 2))
        for _ in range(2):
            with pytest.raises(RowRefused):
                await target.refresh(of, PROBE, 10)
            same(await self.held(of, DAY_TOTAL.table), [("t", DAY, 5, 5, 1)])
        await target.write(of, PROBE, batch_of(_paid("b", DAY, 0, 10**30)), moved(2, 3))
        same(await target.refresh(of, PROBE, 10), 0)
        total = 10**30 + 5
        same(await self.held(of, DAY_TOTAL.table), [("t", DAY, total, total, 2)])

    async def test_a_refused_write_touches_no_slice(self, target: Target) -> None:
        """Nor does a set's touch another set."""
        of = await target.create(PROBE, 1, NOW)
        other = await target.create(PROBE, 2, NOW)
        batch = batch_of(_paid("a", DAY, 5, 5), ("change", "state", ("t", "no"), {"note": ""}))
        with pytest.raises(RowRefused):
            await target.write(of, PROBE, batch, moved(0, 1))
        same(await target.refresh(of, PROBE, 0), 0)
        await target.write(of, PROBE, batch_of(_paid("a", DAY, 5, 5)), moved(0, 1))
        same(await target.refresh(other, PROBE, 0), 0)
        same(await target.refresh(of, PROBE, 0), 1)

    async def test_dropping_a_set_forgets_its_slices(self, target: Target) -> None:
        """A set that takes its number later has none."""
        of = await target.create(PROBE, 1, NOW)
        await target.write(of, PROBE, batch_of(_paid("a", DAY, 5, 5)), moved(0, 1))
        names = [*(table.name for table in PROBE.tables), DAY_TOTAL.table.name]
        await target.drop(of, names, NOW)
        again = await target.create(PROBE, 1, NOW)
        same(await target.refresh(again, PROBE, 0), 0)

    # --- checksums -----------------------------------------------------------------------

    async def test_checksums_do_not_depend_on_the_order_of_the_rows(self, target: Target) -> None:
        """Nor on how they were cut into batches; they count rows."""
        rows = [*EXTREME_FACTS, *(fact(number) for number in range(100, 130))]
        whole = await target.create(PROBE, 1, NOW)
        pieces = await target.create(PROBE, 2, NOW)
        await target.write(whole, PROBE, facts(*rows), moved(0, 1))
        Random(1).shuffle(rows)  # noqa: S311  (an order, no secret)
        for number, row in enumerate(rows):
            await target.write(pieces, PROBE, facts(row), moved(number, number + 1))
        tables = [*PROBE.tables, DAY_TOTAL.table]
        one, other = [await target.checksums(of, tables) for of in (whole, pieces)]
        same(one, other)
        same(sorted(one), sorted(table.name for table in tables))
        same([one["fact"].rows, one["known"].rows], [len(rows), 0])
        same(one["fact"].digest == one["known"].digest, wanted=False)

    async def test_a_checksum_differs_when_one_value_does(self, target: Target) -> None:
        """In every column; nothing is not the empty text; values do not flow into others."""
        plain = fact(5, maybe_text="ab", text="c", maybe_integer=0, maybe_amount=-(10**30))
        others = {
            "tenant": "u", "n": 6, "amount": 10**38 - 1, "total": -(10**57) + 1, "text": "",
            "time": -1, "day": -1, "flag": True, "json": "{}", "blob": b"", "maybe_integer": None,
            "maybe_amount": 1 - 10**30, "maybe_text": "", "maybe_time": 0, "maybe_day": 0,
            "maybe_flag": False, "maybe_json": "null", "maybe_blob": b"",
        }  # fmt: skip
        same(tuple(others), FACT.names)
        variants = [
            plain,
            *(
                tuple(others[name] if name == changed else value
                      for name, value in zip(FACT.names, plain, strict=True))
                for changed in FACT.names
            ),
            fact(5, maybe_text="c", text="ab", maybe_integer=0, maybe_amount=-(10**30)),
            fact(5, maybe_text=None, text="c", maybe_integer=0, maybe_amount=-(10**30)),
        ]  # fmt: skip
        seen = set()
        for build, row in enumerate(variants, 1):
            of = await target.create(PROBE, build, NOW)
            await target.write(of, PROBE, facts(row), moved(0, 1))
            seen.add((await target.checksums(of, [FACT]))["fact"].digest)
        same(len(seen), len(variants))
