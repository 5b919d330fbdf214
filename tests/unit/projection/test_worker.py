"""The worker of one target, beside a feed and a database that come and go."""

import asyncio
from typing import Any

import msgspec
import pytest
from tests.unit.projection.shop import (
    T0,
    AuditTables,
    Poisoned,
    ShopTables,
    Sold,
    busy_log,
    command,
    moved_logs,
    override,
    sale,
)
from tests.unit.projection.workers import (
    QUICK,
    holds,
    make_worker,
    run_until,
    shown,
    undisturbed,
    until,
    working,
)

from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Instant, ShardId
from ultraengine.model.limits import ProjectionLimits
from ultraengine.projection.breaker import BreakerState
from ultraengine.projection.projector import ProjectionHooks, Written
from ultraengine.projection.target import Fenced, Request, RowRefused, SetState
from ultraengine.testing.memory_feed import GroupLog, MemoryFeed
from ultraengine.testing.memory_target import MemoryDatabase, MemoryTarget

SLOT = "projection.memory"


def states(database: MemoryDatabase, name: str = "shop") -> dict[int, SetState]:
    return {build: of.state for (of_name, build), of in database.sets.items() if of_name == name}


def is_parked(database: MemoryDatabase) -> bool:
    return any(of.parked is not None for of in database.sets.values())


async def test_a_first_start_builds_and_serves() -> None:
    logs = [busy_log(0, 30), busy_log(1, 20)]
    database = MemoryDatabase()
    await run_until(None, database, MemoryFeed(logs))
    assert shown(database) == await undisturbed(logs)
    assert states(database) == {1: SetState.SERVING}
    assert len(database.rows("shop_sale")) > 40
    day_totals = {row[:2]: row[2] for row in database.rows("shop_day_total")}
    for day in {row[2] for row in database.rows("shop_total")}:
        assert day_totals["acme", day] == sum(
            row[3] for row in database.rows("shop_total") if row[2] == day
        )


async def test_an_empty_engine_is_served_too() -> None:
    database = MemoryDatabase()
    await run_until(None, database, MemoryFeed([GroupLog(ShardId(0))]))
    assert database.rows("shop_sale") == []


async def test_what_is_committed_later_arrives_and_is_confirmed() -> None:
    log, database = busy_log(0, 5), MemoryDatabase()
    feed = MemoryFeed([log])
    worker, _ = make_worker(database, feed)
    async with working(worker) as task:
        await until(lambda: holds(database, [log]), task)
        for number in range(5):
            log.add(T0, [sale(9_000 + number)])
            await until(lambda: holds(database, [log]), task)
        await until(lambda: feed.confirmed.get((ShardId(0), SLOT)) == log.end, task)
    assert shown(database) == await undisturbed([log])


async def test_the_slot_is_made_before_anything_is_read_into_it() -> None:
    database, feed = MemoryDatabase(), MemoryFeed([GroupLog(ShardId(0))])
    worker, _ = make_worker(database, feed)
    async with working(worker) as task:
        await until(lambda: (ShardId(0), SLOT) in feed.confirmed, task)
    assert feed.confirmed[ShardId(0), SLOT] == 0


async def test_batches_are_bounded_and_one_suffices_for_what_fits() -> None:
    log = busy_log(0, 40)
    small, large = MemoryDatabase(), MemoryDatabase()
    await run_until(None, small, MemoryFeed([log]))
    by_bytes = msgspec.structs.replace(QUICK, batch_rows_max=10**9, batch_bytes_max=1)
    await run_until(None, large, MemoryFeed([log]), limits=by_bytes)
    # A group has at most nine rows here, so seven and one group's more is the most.
    assert all(row.rows <= 7 + 9 for row in small.ledger)
    assert len(large.ledger) == len(log.groups)
    assert shown(small) == shown(large)


async def test_two_projections_are_fed_from_one_reading() -> None:
    log, database = busy_log(0, 20), MemoryDatabase()
    feed = MemoryFeed([log])
    worker, _ = make_worker(database, feed, ShopTables(), AuditTables())
    async with working(worker) as task:
        await until(lambda: holds(database, [log]) and holds(database, [log], "audit"), task)
        assert len(worker._readings) == 1
    assert shown(database) == await undisturbed([log], ShopTables(), AuditTables())


async def test_a_raised_version_is_built_while_the_old_one_serves_and_takes_its_place() -> None:
    log, database = busy_log(0, 30), MemoryDatabase()
    feed = MemoryFeed([log])
    await run_until(None, database, feed)
    before = shown(database)
    worker, _ = make_worker(database, feed, ShopTables(version=2))
    async with working(worker) as task:
        await until(lambda: 2 in states(database), task)
        assert shown(database) == before
        await until(lambda: states(database) == {1: SetState.RETIRED, 2: SetState.SERVING}, task)
    assert shown(database) == before


async def test_a_replaced_set_is_dropped_after_its_grace() -> None:
    log, database = busy_log(0, 10), MemoryDatabase()
    feed = MemoryFeed([log])
    await run_until(None, database, feed)
    limits = msgspec.structs.replace(QUICK, grace_s=0.01)
    worker, _ = make_worker(database, feed, ShopTables(version=2), limits=limits)
    async with working(worker) as task:
        await until(lambda: states(database) == {2: SetState.SERVING}, task)


async def test_a_rebuild_goes_on_while_rows_arrive_and_comes_out_the_same() -> None:
    log, database = busy_log(0, 40), MemoryDatabase()
    feed = MemoryFeed([log])
    worker, _target = make_worker(database, feed)
    async with working(worker) as task:
        await until(lambda: holds(database, [log]), task)
        await MemoryTarget("person", database).ask("shop", Request.REBUILD, T0)
        for number in range(200):
            log.add(Instant(T0 + number), [sale(20_000 + number)])
            await asyncio.sleep(0.0005)
        await until(lambda: states(database).get(2) is SetState.SERVING, task)
        await until(lambda: holds(database, [log]), task)
    assert shown(database) == await undisturbed([log])


async def test_a_pause_of_the_build_leaves_what_serves_alone() -> None:
    log, database = busy_log(0, 10), MemoryDatabase()
    feed = MemoryFeed([log])
    person = MemoryTarget("person", database)
    await run_until(None, database, feed)
    await person.ask("shop", Request.REBUILD, T0)
    await person.ask("shop", Request.PAUSE_BUILD, T0)
    worker, _ = make_worker(database, feed)
    async with working(worker) as task:
        await until(lambda: 2 in states(database), task)
        await person.ask("shop", Request.PAUSE_BUILD, T0)
        await until(lambda: database.sets["shop", 2].paused, task)
        log.add(T0, [sale(777)])
        await until(lambda: holds(database, [log]), task)
        assert states(database) == {1: SetState.SERVING, 2: SetState.BUILDING}
        await until(
            lambda: any(one.build == 2 and not one.followed for one in worker.view().sets), task
        )
        # What is paused holds the log, so that it can go on.
        held = database.positions["shop", 2]
        assert (
            feed.confirmed[ShardId(0), SLOT]
            <= max([position.offset for position in held.values()], default=log.end)
            or feed.confirmed[ShardId(0), SLOT] < log.end
        )
        await person.ask("shop", Request.RESUME, T0)
        await until(lambda: states(database).get(2) is SetState.SERVING, task)


async def test_a_paused_set_stands_still_until_it_may_go_on() -> None:
    log, database = busy_log(0, 5), MemoryDatabase()
    feed = MemoryFeed([log])
    person = MemoryTarget("person", database)
    worker, _ = make_worker(database, feed)
    async with working(worker) as task:
        await until(lambda: holds(database, [log]), task)
        await person.ask("shop", Request.PAUSE, T0)
        await until(lambda: database.sets["shop", 1].paused, task)
        writes, end = database.writes, log.end
        log.add(T0, [sale(1)])
        await asyncio.sleep(0.03)
        assert database.writes == writes
        assert database.positions["shop", 1][ShardId(0)].offset == end
        await person.ask("shop", Request.RESUME, T0)
        await until(lambda: holds(database, [log]), task)


async def test_a_poison_event_parks_and_nothing_is_left_out() -> None:
    log, database = busy_log(0, 6), MemoryDatabase()
    other = busy_log(1, 3)
    at = log.end
    log.add(T0, [sale(1), (command(2), [Sold("a", 1), Poisoned("apple")]), sale(3)])
    feed, tables = MemoryFeed([log, other]), ShopTables()
    person = MemoryTarget("person", database)
    worker, _ = make_worker(database, feed, tables)
    async with working(worker) as task:
        await until(lambda: is_parked(database), task)
        parked = database.sets["shop", 1].parked
        assert parked is not None
        assert (parked.shard, parked.offset, parked.index) == (0, at + 1, 1)
        assert "apple" in parked.reason
        # Everything before the group is there, nothing of it, and the log is held for it.
        assert database.positions["shop", 1][ShardId(0)].offset == at
        await until(lambda: feed.confirmed.get((ShardId(0), SLOT), 0) == at, task)
        log.add(T0, [sale(4)])
        await asyncio.sleep(0.02)
        assert database.positions["shop", 1][ShardId(0)].offset == at
        # Trying again without mending it parks again.
        await person.ask("shop", Request.RESUME, T0)
        await until(lambda: database.asked == [] and is_parked(database), task)
        tables.takes_poison = True
        await person.ask("shop", Request.RESUME, T0)
        await until(lambda: holds(database, [log, other]), task)
    assert shown(database) == await undisturbed([log, other], tables)


async def test_poison_of_one_projection_does_not_stop_another() -> None:
    log, database = busy_log(0, 6), MemoryDatabase()
    log.add(T0, [(command(2), [Poisoned("apple")])])
    log.add(T0, [sale(3)])
    feed = MemoryFeed([log])
    worker, _ = make_worker(database, feed, ShopTables(), AuditTables())
    async with working(worker) as task:
        await until(lambda: holds(database, [log], "audit"), task)
        assert database.sets["shop", 1].parked is not None
    assert ("acme", "Poisoned", 1) in database.rows("audit_seen")


async def test_poison_on_one_shard_parks_although_another_shard_goes_on() -> None:
    log, other, database = GroupLog(ShardId(0)), busy_log(1, 60), MemoryDatabase()
    log.add(T0, [(command(2), [Poisoned("apple")])])
    await_parked = MemoryFeed([log, other])
    worker, _ = make_worker(database, await_parked)
    async with working(worker) as task:
        await until(lambda: is_parked(database), task)
        assert len(database.ledger) < 60


async def test_a_refused_row_parks_at_its_group_and_what_is_before_is_written() -> None:
    log, database = busy_log(0, 6), MemoryDatabase()
    at = log.end
    bad = log.add(T0, [sale(1), (command(2), [Sold("gold", 5_000)])])
    log.add(T0, [sale(3)])
    limits = msgspec.structs.replace(QUICK, batch_rows_max=1_000)
    worker, _ = make_worker(database, MemoryFeed([log]), limits=limits)
    async with working(worker) as task:
        await until(lambda: is_parked(database), task)
    parked = database.sets["shop", 1].parked
    assert parked is not None
    assert (parked.shard, parked.offset, parked.index) == (0, at, -1)
    assert "bounded" in parked.reason
    assert database.positions["shop", 1][ShardId(0)].offset == at == bad.base_offset


async def test_a_refused_batch_that_passes_in_parts_goes_on() -> None:
    class Once(MemoryTarget):
        refused = False

        async def write(self, of: Any, projection: Any, batch: Any, moved: Any) -> None:
            if sum(one.groups for one in moved) > 1 and not self.refused:
                type(self).refused = True
                raise RowRefused("a batch of several groups")
            await super().write(of, projection, batch, moved)

    log, database = busy_log(0, 20), MemoryDatabase()
    worker, _target = make_worker(database, MemoryFeed([log]))
    worker._target = worker._keeper._target = Once("memory", database)
    async with working(worker) as task:
        await until(lambda: holds(database, [log]), task)
        await until(lambda: not worker._apart, task)
    assert Once.refused
    assert shown(database) == await undisturbed([log])


@pytest.mark.parametrize("next_event", [Poisoned("apple"), Sold("a", 1)])
async def test_what_is_behind_a_refused_row_waits_for_its_turn(next_event: Any) -> None:
    log, database = busy_log(0, 3), MemoryDatabase()
    at = log.end
    log.add(T0, [(command(2), [Sold("gold", 5_000)])])
    log.add(T0, [(command(3), [next_event])])
    # Neither a look nor a refresh comes between the two groups.
    limits = msgspec.structs.replace(QUICK, batch_rows_max=1, poll_s=0.3, refresh_s=60.0)
    worker, _ = make_worker(database, MemoryFeed([log]), limits=limits)
    async with working(worker) as task:
        await until(lambda: is_parked(database), task)
    parked = database.sets["shop", 1].parked
    assert parked is not None
    assert (parked.offset, "bounded" in parked.reason) == (at, True)


async def test_an_aggregate_that_is_refused_while_it_serves_parks() -> None:
    class Growing(ShopTables):
        def project(self, event: Any, at: Any, rows: Any) -> None:
            rows.put("total", (at.tenant, event.item, 1, event.amount, 1, at.offset))

    log, database = busy_log(0, 3), MemoryDatabase()
    feed = MemoryFeed([log])
    worker, _ = make_worker(database, feed, Growing())
    async with working(worker) as task:
        await until(lambda: holds(database, [log]), task)
        log.add(T0, [(command(1), [Sold("gold", 2_000_000)])])
        await until(lambda: is_parked(database), task)
        # Its other sets and readers see what was there before; nothing is refreshed any more.
        log.add(T0, [sale(1)])
        await asyncio.sleep(0.02)
        assert database.positions["shop", 1][ShardId(0)].offset == log.end - 1
    assert states(database) == {1: SetState.SERVING}


async def test_an_aggregate_that_is_refused_parks() -> None:
    class Heavy(ShopTables):
        def project(self, event: Any, at: Any, rows: Any) -> None:
            rows.put("total", (at.tenant, event.item, 1, 2_000_000, 1, at.offset))

    database = MemoryDatabase()
    worker, _ = make_worker(database, MemoryFeed([busy_log(0, 3)]), Heavy())
    async with working(worker) as task:
        await until(lambda: is_parked(database), task)
    parked = database.sets["shop", 1].parked
    assert parked is not None
    assert "an aggregate was refused" in parked.reason
    assert states(database) == {1: SetState.BUILDING}


async def test_a_log_that_no_longer_has_the_position_parks() -> None:
    log, database = busy_log(0, 6), MemoryDatabase()
    log.first_offset = log.groups[2].base_offset
    worker, _ = make_worker(database, MemoryFeed([log]))
    async with working(worker) as task:
        await until(lambda: is_parked(database), task)
    parked = database.sets["shop", 1].parked
    assert parked is not None
    assert parked.reason.startswith("TOO_OLD")


async def test_a_database_that_goes_away_is_waited_for_and_holds_the_log() -> None:
    log, database = busy_log(0, 5), MemoryDatabase()
    feed = MemoryFeed([log])
    worker, _ = make_worker(database, feed)
    async with working(worker) as task:
        await until(lambda: holds(database, [log]), task)
        await until(lambda: feed.confirmed.get((ShardId(0), SLOT)) == log.end, task)
        confirmed = log.end
        database.away = True
        for number in range(20):
            log.add(Instant(T0 + number), [sale(number)])
        await until(lambda: worker.view().breaker is not BreakerState.CLOSED, task)
        await until(
            lambda: any(lag.seconds > 0 for one in worker.view().sets for lag in one.lags.values()),
            task,
        )
        assert worker.view().last_error == "the database is away"
        await until(lambda: worker.breaker.failures >= 3, task)
        assert feed.confirmed[ShardId(0), SLOT] == confirmed
        database.away = False
        await until(lambda: holds(database, [log]), task)
        await until(lambda: worker.view().breaker is BreakerState.CLOSED, task)
        assert worker.view().breaker_opened >= 1
        assert worker.view().last_error is None
    assert shown(database) == await undisturbed([log])


async def test_reading_stops_when_enough_waits_for_a_database_that_is_away() -> None:
    log, database = busy_log(0, 200), MemoryDatabase()
    feed = MemoryFeed([log])
    database.away = True
    limits = msgspec.structs.replace(QUICK, ahead_bytes_max=1_000)
    worker, _ = make_worker(database, feed, limits=limits)
    async with working(worker) as task:
        database.away = False
        await until(lambda: bool(database.ledger), task)
        database.away = True
        await until(lambda: worker.view().breaker is not BreakerState.CLOSED, task)
        await asyncio.sleep(0.02)
        given = feed.pages_given
        await asyncio.sleep(0.02)
        assert feed.pages_given == given
        database.away = False
        await until(lambda: holds(database, [log]), task)


async def test_a_stale_aggregate_is_computed_bit_by_bit() -> None:
    log, database = busy_log(0, 60), MemoryDatabase()
    limits = msgspec.structs.replace(QUICK, slices_per_refresh_max=1, batch_rows_max=1_000)
    feed = MemoryFeed([log])
    await run_until(None, database, feed, limits=limits)
    # Rows of many days come at once to a set that serves.
    for number in range(30):
        log.add(Instant(T0 + number * 86_400_000_000), [sale(50_000 + number)])
    await run_until(None, database, feed, limits=limits)
    assert shown(database) == await undisturbed([log])


async def test_a_forced_breaker_keeps_away_from_the_database() -> None:
    log, database = busy_log(0, 5), MemoryDatabase()
    worker, target = make_worker(database, MemoryFeed([log]))
    worker.breaker.force(is_open=True)
    async with working(worker) as task:
        await asyncio.sleep(0.02)
        assert target.calls == 0
        worker.breaker.force(is_open=False)
        await until(lambda: holds(database, [log]), task)


async def test_an_engine_that_is_away_is_waited_for() -> None:
    log, database = busy_log(0, 5), MemoryDatabase()
    feed = MemoryFeed([log])
    feed.away = True
    worker, _ = make_worker(database, feed)

    async def refuses(task: "asyncio.Task[None]", times: int = 20) -> None:
        refused = feed.refused
        await until(lambda: feed.refused >= refused + times, task)

    async with working(worker) as task:
        await until(lambda: 1 in states(database), task)
        await refuses(task)
        feed.away = False
        await until(lambda: holds(database, [log]), task)
        feed.away = True
        log.add(T0, [sale(1)])
        await refuses(task)
        feed.away = False
        await until(lambda: holds(database, [log]), task)
        # A key that was revoked may be replaced: nothing parks for that.
        feed.refusal = EngineError("no such key", code="UNAUTHENTICATED")
        log.add(T0, [sale(2)])
        await refuses(task)
        feed.refusal = None
        await until(lambda: holds(database, [log]), task)
    assert database.sets["shop", 1].parked is None


async def test_of_two_workers_one_is_fenced_and_nothing_is_written_twice() -> None:
    log, database = busy_log(0, 60), MemoryDatabase()
    feed = MemoryFeed([log])
    first, _ = make_worker(database, feed, seed=1)
    second, _ = make_worker(database, feed, seed=2)
    tasks = [asyncio.create_task(worker.run()) for worker in (first, second)]
    number = 0
    while not any(task.done() for task in tasks):
        number += 1
        log.add(Instant(T0 + number), [sale(number)])
        await asyncio.sleep(0.001)
    done = next(task for task in tasks if task.done())
    with pytest.raises(Fenced, match="positions"):
        done.result()
    left = next(task for task in tasks if task is not done)
    await until(lambda: holds(database, [log]) or left.done())
    left.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if not holds(database, [log]):
        await run_until(None, database, feed)
    assert shown(database) == await undisturbed([log])


async def test_an_override_builds_anew_without_what_it_leaves_out() -> None:
    log, database = busy_log(0, 8), MemoryDatabase()
    log.add(T0, [(command(1), [Sold("wrong", 1)])])
    wrong = log.end - 1
    feed = MemoryFeed([log])
    worker, _ = make_worker(database, feed)
    async with working(worker) as task:
        await until(lambda: holds(database, [log]), task)
        assert any(row[5] == "wrong" for row in database.rows("shop_sale"))
        log.add(T0, [override(wrong)])
        log.add(T0, [sale(2)])
        await until(lambda: states(database).get(2) is SetState.SERVING, task)
        await until(lambda: holds(database, [log]), task)
        assert not any(row[5] == "wrong" for row in database.rows("shop_sale"))
        assert worker.view().sets[-1].build == 2


async def test_a_first_build_that_meets_an_override_leaves_out_what_it_says() -> None:
    log, database = GroupLog(ShardId(0)), MemoryDatabase()
    log.add(T0, [(command(1), [Sold("wrong", 1)]), sale(2)])
    log.add(T0, [override(0)])
    await run_until(None, database, MemoryFeed([log]))
    assert not any(row[5] == "wrong" for row in database.rows("shop_sale"))


async def test_hooks_after_see_each_batch_and_may_fail() -> None:
    seen: list[Written] = []

    def observe(written: Written) -> None:
        seen.append(written)
        raise RuntimeError("an observer's own trouble")

    log, database = busy_log(0, 10), MemoryDatabase()
    worker, _ = make_worker(database, MemoryFeed([log]), hooks=ProjectionHooks(after=(observe,)))
    async with working(worker) as task:
        await until(lambda: holds(database, [log]), task)
    assert len(seen) == database.writes == worker.view().hook_failures
    assert seen[-1].moved[0].after.offset == log.end
    assert sum(written.rows for written in seen) == worker.view().rows["shop"]


async def test_newer_and_unknown_sets_are_left_alone() -> None:
    log, database = busy_log(0, 10), MemoryDatabase()
    feed = MemoryFeed([log])
    await run_until(None, database, feed, ShopTables(version=5), AuditTables())
    before, writes = shown(database), database.writes
    log.add(T0, [sale(1)])
    worker, _ = make_worker(database, feed, ShopTables(version=4))
    async with working(worker) as task:
        await until(lambda: len(worker.view().sets) == 2, task)
        await asyncio.sleep(0.02)
    assert database.writes == writes
    assert shown(database) == before
    assert feed.confirmed.get((ShardId(0), SLOT), 0) < log.end


def last_of_x(database: MemoryDatabase) -> list[int]:
    """Offset of the last sale of ``x``, by what the rows say."""
    return [row[5] for row in database.rows("shop_total") if row[1] == "x"]


@pytest.mark.parametrize("rows_max", [1, 100])
async def test_a_slot_that_has_moved_shows_what_its_last_owner_did(rows_max: int) -> None:
    logs, limits = moved_logs(), msgspec.structs.replace(QUICK, batch_rows_max=rows_max)
    database = MemoryDatabase()
    await run_until(None, database, MemoryFeed(logs), limits=limits)
    assert last_of_x(database) == [1]
    there_and_back, database = moved_logs(backwards=True), MemoryDatabase()
    await run_until(None, database, MemoryFeed(there_and_back), limits=limits)
    assert last_of_x(database) == [7]


async def test_a_shard_waits_for_what_had_its_slots_before_and_the_others_go_on() -> None:
    source, there = moved_logs()
    late, source.groups[:] = source.groups[-1], source.groups[:-1]
    other, database = busy_log(2, 5), MemoryDatabase()
    feed = MemoryFeed([source, there, other])
    worker, _ = make_worker(database, feed)

    def reached() -> dict[int, int]:
        positions = database.positions.get(("shop", 1), {})
        return {shard: one.offset for shard, one in positions.items()}

    async with working(worker) as task:
        await until(lambda: reached() == {0: source.end, 2: other.end}, task)
        pages = feed.pages_given
        await until(lambda: feed.pages_given > pages + 10, task)
        assert reached() == {0: source.end, 2: other.end}
        lags = worker.view().sets[0].lags
        assert lags[ShardId(1)].commands == there.end
        source.groups.append(late)
        await until(lambda: holds(database, [source, there, other]), task)
    assert last_of_x(database) == [1]


async def test_a_worker_that_waits_does_nothing_meanwhile() -> None:
    source, there = moved_logs()
    source.groups.pop()
    limits = msgspec.structs.replace(QUICK, poll_s=60.0, refresh_s=60.0)
    worker, _ = make_worker(MemoryDatabase(), MemoryFeed([source, there]), limits=limits)
    turns = 0
    turn = worker._turn

    async def counted() -> None:
        nonlocal turns
        turns += 1
        await turn()

    worker._turn = counted  # type: ignore[method-assign]
    async with working(worker):
        for _ in range(300):
            await asyncio.sleep(0.001)
    assert turns < 100


async def test_a_new_shard_is_followed_once_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ultraengine.projection.driver.SHARDS_EVERY_S", 0.005)
    log, database = busy_log(0, 5), MemoryDatabase()
    feed = MemoryFeed([log])
    worker, _ = make_worker(database, feed)
    async with working(worker) as task:
        await until(lambda: holds(database, [log]), task)
        feed.logs[ShardId(1)] = other = busy_log(1, 5)
        await until(lambda: holds(database, [log, other]), task)


async def test_a_stop_waits_for_the_batch_under_way() -> None:
    log, database = busy_log(0, 30), MemoryDatabase()
    worker, target = make_worker(database, MemoryFeed([log]), limits=ProjectionLimits())
    task = asyncio.create_task(worker.run())
    await until(lambda: worker._writing is not None, task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert database.writes == 1
    assert not target.is_open
