"""The contract of targets finds what it is for: each wrong target fails the sentence it breaks."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ultraengine.model.ids import Instant
from ultraengine.model.projection import Fold, Projection, Row, Table
from ultraengine.projection.fold import Batch
from ultraengine.projection.sqlite.driver import SqliteTarget
from ultraengine.projection.target import (
    Checksum,
    Moved,
    Parked,
    ProjectionSet,
    Request,
    RowRefused,
    SetState,
    TargetUnavailable,
)
from ultraengine.testing.projection_tables import UNHOLDABLE, ProbeTables
from ultraengine.testing.projection_targets import TargetContract
from ultraengine.testing.sqlite_rows import read_rows


class ForgetsPositions(SqliteTarget):
    """Writes rows alone."""

    async def write(
        self, of: ProjectionSet, projection: Projection, batch: Batch, moved: Sequence[Moved]
    ) -> None:
        await super().write(of, projection, batch, [])


class BelievesItself(SqliteTarget):
    """Moves the position from wherever it is."""

    async def write(
        self, of: ProjectionSet, projection: Projection, batch: Batch, moved: Sequence[Moved]
    ) -> None:
        held = await self.positions(of)
        moved = [
            msgspec.structs.replace(one, before=held.get(one.shard, one.before)) for one in moved
        ]
        await super().write(of, projection, batch, moved)


class MovesFirst(SqliteTarget):
    """Two transactions: the position, then the rows."""

    async def write(
        self, of: ProjectionSet, projection: Projection, batch: Batch, moved: Sequence[Moved]
    ) -> None:
        await super().write(of, projection, Batch(projection.tables), moved)
        await super().write(of, projection, batch, [])


class SkipsRefusedRows(SqliteTarget):
    """Goes on without what the database refuses."""

    async def write(
        self, of: ProjectionSet, projection: Projection, batch: Batch, moved: Sequence[Moved]
    ) -> None:
        try:
            await super().write(of, projection, batch, moved)
        except RowRefused:
            await super().write(of, projection, Batch(projection.tables), moved)


class TakesTheLast(SqliteTarget):
    """Knows no folds."""

    async def write(
        self, of: ProjectionSet, projection: Projection, batch: Batch, moved: Sequence[Moved]
    ) -> None:
        plain = ProbeTables(tables=[_unfolded(table) for table in projection.tables])
        await super().write(of, plain, batch, moved)


class TakesEmptyForNothing(SqliteTarget):
    """As Oracle does."""

    async def write(
        self, of: ProjectionSet, projection: Projection, batch: Batch, moved: Sequence[Moved]
    ) -> None:
        for rows in batch.appended.values():
            rows[:] = [tuple(None if value == "" else value for value in row) for row in rows]
        await super().write(of, projection, batch, moved)


class CountsInFloats(SqliteTarget):
    """As JavaScript does."""

    async def write(
        self, of: ProjectionSet, projection: Projection, batch: Batch, moved: Sequence[Moved]
    ) -> None:
        for current in batch.current.values():
            for row in current.put.values():
                row[:] = [int(float(v)) if type(v) is int and v > 2**53 else v for v in row]
        await super().write(of, projection, batch, moved)


class ComputesNothing(SqliteTarget):
    """Says that no slice is left."""

    async def refresh(self, of: ProjectionSet, projection: Projection, slices_max: int) -> int:
        return 0


class AddsInOrder(SqliteTarget):
    """A checksum that counts rows alone."""

    async def checksums(self, of: ProjectionSet, tables: Sequence[Table]) -> Mapping[str, Checksum]:
        found = await super().checksums(of, tables)
        return {name: Checksum(one.rows, str(one.rows)) for name, one in found.items()}


class ForgetsParks(SqliteTarget):
    """Remembers no reason."""

    async def park(self, of: ProjectionSet, parked: Parked | None) -> None:
        return None


class RepeatsRequests(SqliteTarget):
    """Gives what it gave before."""

    async def requests(self) -> Sequence[tuple[str, Request]]:
        found = await super().requests()
        for projection, request in found:
            await self.ask(projection, request, Instant(0))
        return found


class ServesByDropping(SqliteTarget):
    """Retires nobody."""

    async def sets(self) -> Sequence[ProjectionSet]:
        found = await super().sets()
        return [msgspec.structs.replace(one, state=SetState.SERVING) for one in found]


class ShowsNothingForAWhile(SqliteTarget):
    """Swaps views with a moment between."""

    async def serve(self, of: ProjectionSet, projection: Projection, now: Instant) -> None:
        narrow = ProbeTables(tables=(), aggregates=())
        await super().serve(of, narrow, now)
        aside = await super().create(projection, 99, now)
        await super().serve(aside, projection, now)
        await super().serve(of, projection, now)


class KeepsAll(SqliteTarget):
    """Has no retention."""

    async def keep(self, of: ProjectionSet, projection: Projection, now: Instant) -> None:
        return None


class OpensAnything(SqliteTarget):
    """Says it is open."""

    async def open(self) -> None:
        try:
            await super().open()
        except TargetUnavailable:
            return


def _unfolded(table: Table) -> Table:
    columns = tuple(msgspec.structs.replace(column, fold=Fold.LAST) for column in table.columns)
    return msgspec.structs.replace(table, columns=columns)


class Suite(TargetContract):
    def __init__(self, kind: type[SqliteTarget], path: Path) -> None:
        self.kind, self.path = kind, path

    async def make(self) -> SqliteTarget:
        return self.kind("wrong", f"sqlite:///{self.path}")

    async def unreachable(self) -> SqliteTarget:
        return self.kind("nowhere", f"sqlite:///{self.path}/no/such/file.db")

    async def read(self, relation: str, table: Table) -> list[Row]:
        return read_rows(self.path, relation, table)


REFUSED = {"row": UNHOLDABLE["an amount of 10^38"]}
WRONG: list[tuple[type[SqliteTarget], str, dict[str, Any]]] = [
    (ForgetsPositions, "test_positions_are_those_of_the_last_write", {}),
    (ForgetsPositions, "test_each_write_leaves_a_row_for_auditors", {}),
    (BelievesItself, "test_a_second_writer_is_fenced", {}),
    (BelievesItself, "test_a_position_that_was_never_reached_is_no_place_to_go_on", {}),
    (MovesFirst, "test_a_violated_check_is_refused", {}),
    (MovesFirst, "test_a_fact_is_written_once", {}),
    (SkipsRefusedRows, "test_a_value_that_its_column_cannot_hold_is_refused", REFUSED),
    (SkipsRefusedRows, "test_a_change_of_a_row_that_is_not_there_is_refused", {}),
    (TakesTheLast, "test_batches_merge_as_their_folds_say", {"seed": 0}),
    (TakesTheLast, "test_sums_are_exact_at_every_size", {}),
    (TakesEmptyForNothing, "test_a_checksum_differs_when_one_value_does", {}),
    (CountsInFloats, "test_sums_are_exact_at_every_size", {}),
    (CountsInFloats, "test_sums_of_aggregates_are_exact_at_every_size", {}),
    (ComputesNothing, "test_aggregates_are_computed_from_the_slices_that_were_touched", {}),
    (ComputesNothing, "test_an_aggregate_that_breaks_its_check_is_refused", {}),
    (AddsInOrder, "test_a_checksum_differs_when_one_value_does", {}),
    (ForgetsParks, "test_a_park_and_a_pause_are_remembered", {}),
    (RepeatsRequests, "test_requests_are_given_once_and_in_their_order", {}),
    (ServesByDropping, "test_serving_retires_the_set_that_served", {}),
    (ServesByDropping, "test_a_set_is_made_once", {}),
    (ShowsNothingForAWhile, "test_views_are_swapped_while_readers_read", {}),
    (KeepsAll, "test_retention_drops_whole_partitions_and_no_more", {}),
    (OpensAnything, "test_a_database_that_is_not_there_is_unavailable", {}),
]


@pytest.mark.parametrize(
    ("kind", "sentence", "arguments"),
    WRONG,
    ids=[f"{kind.__name__} {sentence}" for kind, sentence, _ in WRONG],
)
def test_a_wrong_target_fails_its_sentence(
    kind: type[SqliteTarget], sentence: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    async def judge(chosen: type[SqliteTarget], path: Path) -> None:
        suite = Suite(chosen, path)
        test = getattr(suite, sentence)
        if sentence == "test_a_database_that_is_not_there_is_unavailable":
            await test()
            return
        target = await suite.make()
        await target.open()
        try:
            await test(target, **arguments)
        finally:
            await target.close()

    asyncio.run(judge(SqliteTarget, tmp_path / "right.db"))
    with pytest.raises((AssertionError, pytest.fail.Exception, LookupError, RowRefused)):
        asyncio.run(judge(kind, tmp_path / "wrong.db"))
