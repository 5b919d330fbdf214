"""The part of the contract of targets that is about rollups (`projection_targets`)."""

from typing import Final

import pytest

from ultraengine.projection.target import RowRefused, Target
from ultraengine.testing.projection_sets import (
    NOW,
    AnyTargetContract,
    batch_of,
    moved,
    ordered,
    same,
)
from ultraengine.testing.projection_tables import DAY_US, GROUPED, ROLLED, ProbeTables

DAY: Final = 20_454


class RollupContract(AnyTargetContract):
    """Sums by what another row says: for targets that can look it up."""

    async def test_sums_are_kept_by_what_another_row_says_and_by_spans(
        self, target: Target
    ) -> None:
        """Of rows in the batch and in the table, at every size, also after a new connection."""
        tables = ProbeTables("roll", tables=(GROUPED, ROLLED), aggregates=())
        of = await target.create(tables, 1, NOW)
        day, huge = DAY * DAY_US, 10**50
        named = [
            ("put", "grouped", (tenant, name, group, 0), None)
            for tenant, name, group in (("t", "a", "x"), ("t", "b", "x"), ("u", "a", "y"))
        ]
        first = [("put", "rolled", (tenant, name, at, 1, paid), None)
                 for tenant, name, at, paid in (("t", "a", day, 5), ("t", "b", day, huge),
                                                ("u", "a", -1, 7))]  # fmt: skip
        await target.write(of, tables, batch_of(*named, *first, projection=tables),
                           moved(0, 1))  # fmt: skip
        held = [("t", span, day, "x", 2, huge + 5) for span in (0, 60, 86_400)]
        held += [("u", span, start, "y", 1, 7)
                 for span, start in ((0, -1), (60, -60_000_000), (86_400, -DAY_US))]  # fmt: skip
        same(ordered(await self.held(of, ROLLED)), ordered(held))
        for _ in range(2):
            # What it looks up it may remember, whatever else of the row changes; or ask for.
            later = [
                ("change", "grouped", ("t", "a"), {"last": 1}),
                ("put", "grouped", ("t", "c\"\\ '", "x", 0), None),
                ("put", "rolled", ("t", "a", day + 61_000_000, 1, -5), None),
                ("put", "rolled", ("t", "b", day + 62_000_000, 0, -huge), None),
                ("put", "rolled", ("t", "c\"\\ '", day + 61_000_000, 0, 1), None),
            ]
            before = next(iter((await target.positions(of)).values())).offset
            await target.write(of, tables, batch_of(*later, projection=tables),
                               moved(before, before + 1))  # fmt: skip
            await target.close()
            await target.open()
        by_key = {row[:4]: row[4:] for row in await self.held(of, ROLLED)}
        same(by_key["t", 86_400, day, "x"], (4, huge + 5 + 2 * (1 - 5 - huge)))
        same(by_key["t", 60, day + 60_000_000, "x"], (2, 2 * (1 - 5 - huge)))
        same(by_key["t", 0, day + 61_000_000, "x"], (2, 2 * (1 - 5)))
        same(by_key["t", 0, day + 62_000_000, "x"], (0, 2 * -huge))

    async def test_a_sum_by_a_row_that_is_not_there_is_refused(self, target: Target) -> None:
        """Nothing is written, and what was looked up in vain is not remembered."""
        tables = ProbeTables("roll", tables=(GROUPED, ROLLED), aggregates=())
        of = await target.create(tables, 1, NOW)
        lone = ("put", "rolled", ("t", "a", 0, 1, 5), None)
        for _ in range(2):
            with pytest.raises(RowRefused):
                await target.write(of, tables, batch_of(lone, projection=tables), moved(0, 1))
        below = ("put", "rolled", ("t", "a", 0, -1, 5), None)
        known = ("put", "grouped", ("t", "a", "x", 0), None)
        with pytest.raises(RowRefused):
            await target.write(of, tables, batch_of(known, below, projection=tables), moved(0, 1))
        same(await self.held(of, ROLLED), [])
        await target.write(of, tables, batch_of(known, lone, projection=tables), moved(0, 1))
        same(len(await self.held(of, ROLLED)), 3)

    async def test_a_set_that_takes_the_number_of_another_looks_up_its_own_rows(
        self, target: Target
    ) -> None:
        """A target forgets what a set said that is gone."""
        tables = ProbeTables("roll", tables=(GROUPED, ROLLED), aggregates=())
        for group in ("x", "y"):
            of = await target.create(tables, 1, NOW)
            known = ("put", "grouped", ("t", "a", group, 0), None)
            await target.write(of, tables, batch_of(known, projection=tables), moved(0, 1))
            lone = ("put", "rolled", ("t", "a", 0, 1, 5), None)
            await target.write(of, tables, batch_of(lone, projection=tables), moved(1, 2))
            same({row[3] for row in await self.held(of, ROLLED)}, {group})
            await target.drop(of, [table.name for table in tables.tables], NOW)
