"""The part of the contract of projection targets that is for every target.

A target that says ``exactly_once = True`` is held to `projection_targets.TargetContract`, which
includes this; see there how a suite is written.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Final

import pytest

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import CHAIN_BYTES, Epoch, Instant, Offset, ShardId
from ultraengine.model.projection import Projection, Row, Table
from ultraengine.projection.fold import Batch
from ultraengine.projection.target import (
    START,
    Checkpoint,
    Fenced,
    Moved,
    Parked,
    ProjectionSet,
    Request,
    SetState,
    Target,
    TargetUnavailable,
    physical,
)
from ultraengine.testing.projection_tables import (
    DAY_TOTAL,
    EXTREME_FACTS,
    FACT,
    KNOWN,
    PROBE,
    ProbeTables,
    Step,
    fact,
)

NOW: Final = Instant(1_767_225_600_000_000)
"""2026-01-01T00:00:00Z."""
SHARD: Final = ShardId(0)


def batch_of(*steps: Step, projection: Projection = PROBE) -> Batch:
    """The rows of some events of `PROBE`."""
    batch = Batch(projection.tables)
    for step in steps:
        projection.project(step, None, batch)  # type: ignore[arg-type]  # Asks for no place.
    return batch


def facts(*rows: Row) -> Batch:
    """A batch of facts."""
    return batch_of(*(("append", "fact", row, None) for row in rows))


def at(offset: int) -> Checkpoint:
    """A position, all of whose parts differ from those of every other offset."""
    if not offset:
        return START
    chain = offset.to_bytes(CHAIN_BYTES, "big")
    return Checkpoint(Offset(offset), Epoch(offset + 1), Instant(NOW + offset), chain)


def moved(before: int, after: int, shard: ShardId = SHARD) -> list[Moved]:
    """One shard's move."""
    return [Moved(shard, at(before), at(after))]


def same(found: object, wanted: object) -> None:
    """Raises AssertionError with both, where they differ."""
    if found != wanted:
        raise AssertionError(f"found {found!r}\nwanted {wanted!r}")


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Rows in an order of their own: nulls make them incomparable."""
    return sorted(rows, key=repr)


class AnyTargetContract:
    """What every target keeps: give ``make``, ``unreachable`` and ``read``."""

    async def make(self) -> Target:
        """A target on the database of this test, not open."""
        raise NotImplementedError

    async def unreachable(self) -> Target:
        """A target, not open, whose database is not there."""
        raise NotImplementedError

    async def read(self, relation: str, table: Table) -> list[Row]:
        """All rows of a relation (`physical`, `view`, an engine table), in any order, read by a
        connection of its own; columns in the order of `table`, values as projections give them.

        Raises LookupError when there is no such relation.
        """
        raise NotImplementedError

    @pytest.fixture
    async def target(self) -> AsyncIterator[Target]:
        """An open one."""
        target = await self.make()
        await target.open()
        yield target
        await target.close()

    async def held(self, of: ProjectionSet, table: Table) -> list[Row]:
        """Rows of a table of a set."""
        return await self.read(physical(of.projection, table.name, of.suffix), table)

    # --- rows and positions --------------------------------------------------------------

    async def test_facts_come_back_as_they_were_given(self, target: Target) -> None:
        """Every type, from end to end."""
        of = await target.create(PROBE, 1, NOW)
        await target.write(of, PROBE, facts(*EXTREME_FACTS), moved(0, 1))
        same(ordered(await self.held(of, FACT)), ordered(EXTREME_FACTS))

    async def test_positions_are_those_of_the_last_write(self, target: Target) -> None:
        """By shard, and a shard that was not begun has none."""
        of = await target.create(PROBE, 1, NOW)
        same(await target.positions(of), {})
        await target.write(of, PROBE, facts(fact(1)), moved(0, 5))
        both = [*moved(5, 9), *moved(0, 3, ShardId(7))]
        await target.write(of, PROBE, facts(fact(2)), both)
        same(await target.positions(of), {SHARD: at(9), ShardId(7): at(3)})

    async def test_an_empty_batch_moves_the_position(self, target: Target) -> None:
        """Groups without events count too."""
        of = await target.create(PROBE, 1, NOW)
        await target.write(of, PROBE, batch_of(), moved(0, 4))
        same(await target.positions(of), {SHARD: at(4)})

    async def test_a_second_writer_is_fenced(self, target: Target) -> None:
        """Of two that believe in the same position one writes, and the other nothing at all."""
        of = await target.create(PROBE, 1, NOW)
        other = await self.make()
        await other.open()
        try:
            for start, end in ((0, 2), (2, 4)):
                await other.write(of, PROBE, facts(fact(end)), moved(start, end))
                with pytest.raises(Fenced):
                    await target.write(of, PROBE, facts(fact(end + 100)), moved(start, end + 1))
                both = [*moved(0, 1, ShardId(1)), *moved(start, end + 1)]
                with pytest.raises(Fenced):
                    await target.write(of, PROBE, facts(fact(end + 200)), both)
            same(await target.positions(of), {SHARD: at(4)})
        finally:
            await other.close()
        same(ordered(await self.held(of, FACT)), ordered([fact(2), fact(4)]))

    async def test_a_position_that_was_never_reached_is_no_place_to_go_on(
        self, target: Target
    ) -> None:
        """Neither ahead, nor of another history with the same offset."""
        of = await target.create(PROBE, 1, NOW)
        with pytest.raises(Fenced):
            await target.write(of, PROBE, facts(fact(1)), moved(3, 4))
        await target.write(of, PROBE, facts(fact(2)), moved(0, 3))
        forked = Checkpoint(at(3).offset, at(3).epoch, at(3).time, b"f" * CHAIN_BYTES)
        with pytest.raises(Fenced):
            await target.write(of, PROBE, facts(fact(3)), [Moved(SHARD, forked, at(4))])
        same(await self.held(of, FACT), [fact(2)])
        same(await target.positions(of), {SHARD: at(3)})

    async def test_a_set_that_is_gone_is_written_by_nobody(self, target: Target) -> None:
        """Its writer is fenced, wherever it stood."""
        of = await target.create(PROBE, 1, NOW)
        await target.write(of, PROBE, facts(fact(1)), moved(0, 1))
        await target.drop(of, [table.name for table in PROBE.tables], NOW)
        for before in (0, 1):
            with pytest.raises(Fenced):
                await target.write(of, PROBE, facts(fact(2)), moved(before, 2))
        same(await target.sets(), [])

    async def test_everything_is_there_after_reopening(self, target: Target) -> None:
        """Sets, positions, rows; closing twice is closing."""
        of = await target.create(PROBE, 1, NOW)
        await target.write(of, PROBE, facts(fact(1)), moved(0, 1))
        await target.close()
        await target.close()
        await target.open()
        again = await self.make()
        await again.open()
        for one in (target, again):
            same(await one.sets(), [of])
            same(await one.positions(of), {SHARD: at(1)})
        await again.close()
        await target.write(of, PROBE, facts(fact(2)), moved(1, 2))
        same(ordered(await self.held(of, FACT)), ordered([fact(1), fact(2)]))

    async def test_a_database_that_is_not_there_is_unavailable(self) -> None:
        """And may be asked again."""
        target = await self.unreachable()
        for _ in range(2):
            with pytest.raises(TargetUnavailable):
                await target.open()
        await target.close()

    # --- sets ----------------------------------------------------------------------------

    async def test_a_set_is_made_once(self, target: Target) -> None:
        """Making it again changes nothing; builds and projections stand side by side."""
        other = ProbeTables("aside", 3, (KNOWN,), ())
        second = await target.create(PROBE, 2, NOW)
        first = await target.create(PROBE, 1, Instant(NOW + 1))
        aside = await target.create(other, 1, Instant(NOW + 2))
        await target.write(first, PROBE, facts(fact(1)), moved(0, 1))
        same(await target.create(PROBE, 1, Instant(NOW + 9)), first)
        same(
            first,
            ProjectionSet("probe", 1, 1, SetState.BUILDING, Instant(NOW + 1), Instant(NOW + 1)),
        )
        same(aside.version, 3)
        same(await target.sets(), [aside, first, second])
        same(await target.positions(second), {})
        same(await self.held(first, FACT), [fact(1)])
        same(await self.held(second, FACT), [])

    async def test_serving_retires_the_set_that_served(self, target: Target) -> None:
        """States and their times; serving what serves changes nothing."""
        first = await target.create(PROBE, 1, NOW)
        second = await target.create(PROBE, 2, NOW)
        aside = await target.create(ProbeTables("aside"), 1, NOW)
        for moment, of in ((1, aside), (1, first), (2, first), (3, second)):
            projection = ProbeTables(of.projection)
            await target.serve(of, projection, Instant(NOW + moment))
        states = [(of.projection, of.build, of.state, of.changed_at) for of in await target.sets()]
        same(
            states,
            [
                ("aside", 1, SetState.SERVING, NOW + 1),
                ("probe", 1, SetState.RETIRED, NOW + 3),
                ("probe", 2, SetState.SERVING, NOW + 3),
            ],
        )
        await target.serve(first, PROBE, Instant(NOW + 4))
        same([of.state for of in await target.sets()][1:], [SetState.SERVING, SetState.RETIRED])

    async def test_dropping_a_set_leaves_nothing_of_it(self, target: Target) -> None:
        """Tables, positions, memory; twice is once, and its number may be used again."""
        names = [*(table.name for table in PROBE.tables), DAY_TOTAL.table.name]
        first = await target.create(PROBE, 1, NOW)
        second = await target.create(PROBE, 2, NOW)
        await target.write(first, PROBE, facts(fact(1)), moved(0, 1))
        await target.write(second, PROBE, facts(fact(2)), moved(0, 1))
        for _ in range(2):
            await target.drop(first, names, NOW)
            same(await target.sets(), [second])
            same(await target.positions(first), {})
            with pytest.raises(LookupError):
                await self.held(first, FACT)
        same(await self.held(second, FACT), [fact(2)])
        same(await target.create(PROBE, 1, NOW), first)
        same(await self.held(first, FACT), [])
        await target.write(first, PROBE, facts(fact(3)), moved(0, 1))

    async def test_a_set_that_serves_is_not_dropped(self, target: Target) -> None:
        """Whoever asks for it is mistaken."""
        of = await target.create(PROBE, 1, NOW)
        await target.write(of, PROBE, facts(fact(1)), moved(0, 1))
        await target.serve(of, PROBE, NOW)
        with pytest.raises(InvariantBroken):
            await target.drop(of, [FACT.name], NOW)
        same(await self.held(of, FACT), [fact(1)])
        same(len(await target.sets()), 1)

    async def test_a_park_and_a_pause_are_remembered(self, target: Target) -> None:
        """By the set they concern, until they are over, also for others."""
        of = await target.create(PROBE, 1, NOW)
        other = await target.create(PROBE, 2, NOW)
        parked = Parked(ShardId(3), Offset(2**40), -1, 'it\'s "wrong"; \n \U0001f600' * 300, NOW)
        await target.park(of, parked)
        await target.pause(of, paused=True)
        again = await self.make()
        await again.open()
        remembered, untouched = await again.sets()
        same((remembered.parked, remembered.paused), (parked, True))
        same(untouched, other)
        await again.park(of, None)
        remembered = (await target.sets())[0]
        same((remembered.parked, remembered.paused), (None, True))
        await again.pause(of, paused=False)
        await again.close()
        same(await target.sets(), [of, other])

    async def test_requests_are_given_once_and_in_their_order(self, target: Target) -> None:
        """To whoever asks first."""
        other = await self.make()
        await other.open()
        same(await target.requests(), [])
        asked = [("probe", Request.PAUSE), ("aside", Request.REBUILD), ("probe", Request.RESUME)]
        for projection, request in asked:
            await other.ask(projection, request, NOW)
        same(await target.requests(), asked)
        same(await target.requests(), [])
        await target.ask("probe", Request.PAUSE, NOW)
        same(await other.requests(), [("probe", Request.PAUSE)])
        await other.close()
