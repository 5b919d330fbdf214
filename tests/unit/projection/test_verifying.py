"""Proving a target: the tables that serve against a second building from the log."""

import asyncio
from typing import Any

import msgspec
import pytest
from tests.unit.projection.shop import (
    T0,
    Poisoned,
    ShopTables,
    busy_log,
    command,
    decoder,
    members,
    moved_logs,
    sale,
)
from tests.unit.projection.workers import QUICK, holds, make_worker, run_until, until, working

from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Instant, Offset, ShardId
from ultraengine.model.projection import NAME_CHARS_MAX
from ultraengine.projection.projector import ProjectionHooks
from ultraengine.projection.target import Request, SetState
from ultraengine.projection.verifying.driver import Renamed, Verdict, Verifier, VerifyFailed
from ultraengine.testing.memory_feed import GroupLog, MemoryFeed
from ultraengine.testing.memory_target import MemoryDatabase, MemoryTarget
from ultraengine_adapters.local.clock import SystemClock

SMALL = msgspec.structs.replace(QUICK, slices_per_refresh_max=1)


def verifier(
    database: MemoryDatabase, feed: Any, tables: Any = None, seen: list[Any] | None = None
) -> Verifier:
    (declared,) = members(tables or ShopTables())
    return Verifier(
        MemoryTarget("person", database), feed, declared, decoder(),
        clock=SystemClock(), limits=SMALL, hooks=ProjectionHooks(),
        report=lambda done, total: None if seen is None else seen.append((done, total)),
    )  # fmt: skip


async def filled(*logs: GroupLog) -> tuple[MemoryDatabase, MemoryFeed]:
    database, feed = MemoryDatabase(), MemoryFeed(logs)
    await run_until(None, database, feed)
    return database, feed


async def test_tables_that_are_what_the_log_says_are_proved_and_nothing_is_left_behind() -> None:
    database, feed = await filled(busy_log(0, 20), busy_log(1, 5))
    before, seen = dict(database.sets), list[Any]()
    verdict = await verifier(database, feed, seen=seen).run()
    assert verdict.is_same
    assert [one.table for one in verdict.tables] == ["sale", "total", "day_total"]
    assert verdict.tables[0].serving.rows > 20
    assert verdict.commands == sum(log.end for log in feed.logs.values())
    assert seen[-1] == (verdict.commands, verdict.commands)
    assert database.sets == before


async def test_one_changed_value_is_found() -> None:
    database, feed = await filled(busy_log(0, 20))
    row = next(iter(database.tables["shop", 1].current["total"].values()))
    row[3] += 1
    verdict = await verifier(database, feed).run()
    assert {one.table: one.is_same for one in verdict.tables} == {
        "sale": True, "total": False, "day_total": True,
    }  # fmt: skip
    assert not verdict.is_same


async def test_tables_of_slots_that_went_there_and_back_are_proved() -> None:
    database, feed = await filled(*moved_logs(backwards=True))
    verdict = await verifier(database, feed).run()
    assert verdict.is_same
    assert verdict.commands == sum(log.end for log in feed.logs.values())


async def test_a_set_that_is_ahead_of_where_its_slots_came_from_is_not_proved() -> None:
    database, feed = await filled(*moved_logs())
    positions = database.positions["shop", 1]
    positions[ShardId(0)] = msgspec.structs.replace(positions[ShardId(0)], offset=Offset(4))
    with pytest.raises(VerifyFailed, match="shard 0 is read below offset 5 first"):
        await verifier(database, feed).run()


async def test_an_empty_set_is_proved_too() -> None:
    database, feed = await filled(GroupLog(ShardId(0)))
    verdict = await verifier(database, feed).run()
    assert (verdict.is_same, verdict.commands) == (True, 0)


async def test_a_worker_that_writes_on_is_paused_for_the_comparison_and_then_goes_on() -> None:
    log, database = busy_log(0, 10), MemoryDatabase()
    feed = MemoryFeed([log])
    worker, _ = make_worker(database, feed)
    found: list[Verdict] = []

    async def prove() -> None:
        found.append(await verifier(database, feed).run())

    async with working(worker) as task:
        await until(lambda: holds(database, [log]), task)
        proving = asyncio.create_task(prove())
        number = 0
        while not proving.done():
            number += 1
            log.add(Instant(T0 + number), [sale(30_000 + number)])
            await asyncio.sleep(0.0002)
        await proving
        await until(lambda: holds(database, [log]), task)
        assert not database.sets["shop", 1].paused
    assert found[0].is_same


class Restless(MemoryTarget):
    """A database in which somebody writes whenever it is looked at."""

    async def checksums(self, of: Any, tables: Any) -> Any:
        position = self.database.positions["shop", 1][ShardId(0)]
        moved = msgspec.structs.replace(position, time=Instant(position.time + 1))
        self.database.positions["shop", 1][ShardId(0)] = moved
        return await super().checksums(of, tables)


@pytest.mark.parametrize("paused", [False, True])
async def test_a_set_that_never_stands_still_is_not_proved(paused: bool) -> None:
    database, feed = await filled(busy_log(0, 5))
    of = database.sets["shop", 1]
    database.sets["shop", 1] = msgspec.structs.replace(of, paused=paused)
    one = verifier(database, feed)
    one._target = Restless("restless", database)
    with pytest.raises(VerifyFailed, match="written all the same" if paused else "stand still"):
        await one.run()
    # It leaves no check set, and nothing that stays paused.
    assert list(database.sets) == [("shop", 1)]
    assert [request for _, request in database.asked] == (
        [] if paused else [Request.PAUSE, Request.RESUME]
    )


async def test_only_what_serves_in_this_version_can_be_proved() -> None:
    database, feed = await filled(busy_log(0, 5))
    with pytest.raises(VerifyFailed, match="version 1 serves, and this program declares 2"):
        await verifier(database, feed, ShopTables(version=2)).run()
    of = database.sets["shop", 1]
    database.sets["shop", 1] = msgspec.structs.replace(of, state=SetState.BUILDING)
    with pytest.raises(VerifyFailed, match="no set of shop serves"):
        await verifier(database, feed).run()


async def test_what_an_interrupted_proof_left_is_removed_first() -> None:
    database, feed = await filled(busy_log(0, 5))
    check = Renamed(ShopTables())
    await MemoryTarget("person", database).create(check, 1, T0)
    assert (await verifier(database, feed).run()).is_same
    assert list(database.sets) == [("shop", 1)]


async def test_poison_on_the_way_is_told() -> None:
    log = busy_log(0, 3)
    tables = ShopTables()
    tables.takes_poison = True
    log.add(T0, [(command(1), [Poisoned("apple")])])
    database, feed = MemoryDatabase(), MemoryFeed([log])
    await run_until(None, database, feed, tables)
    with pytest.raises(VerifyFailed, match=r"poison at offset .* nobody knows apple"):
        await verifier(database, feed).run()


async def test_a_position_inside_a_group_is_told() -> None:
    log = busy_log(0, 5)
    database, feed = await filled(log)
    positions = database.positions["shop", 1]
    inside = Offset(log.groups[3].base_offset + 1)
    assert inside < log.groups[3].offset_end
    positions[ShardId(0)] = msgspec.structs.replace(positions[ShardId(0)], offset=inside)
    with pytest.raises(VerifyFailed, match="ends no group"):
        await verifier(database, feed).run()


async def test_a_feed_that_ends_before_is_an_error() -> None:
    database, feed = await filled(busy_log(0, 5))

    class Ending(MemoryFeed):
        async def pages(self, shard: ShardId, from_offset: Offset) -> Any:
            return
            yield

    with pytest.raises(EngineError, match="ended"):
        await verifier(database, Ending(list(feed.logs.values()))).run()


def test_a_check_set_has_a_name_of_its_own_that_databases_take() -> None:
    class Long(ShopTables):
        name = "a" * NAME_CHARS_MAX

    assert Renamed(ShopTables()).name == "check_shop"
    assert len(Renamed(Long()).name) == NAME_CHARS_MAX
