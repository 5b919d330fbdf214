"""A batch is formed in steps, between which others have their turns, and is the same batch."""

import asyncio
import random

from tests.unit.projection.shop import T0, Poisoned, ShopTables, Sold, command, decoder, members

from ultraengine.model.ids import Instant, ShardId
from ultraengine.model.limits import ProjectionLimits
from ultraengine.model.outcome import CommittedGroup
from ultraengine.projection.forming.driver import Forming
from ultraengine.projection.projector import STEP_EVENTS, Former, ProjectionHooks
from ultraengine.projection.reading.driver import Reader
from ultraengine.projection.readings import Member, Reading
from ultraengine.projection.target import START, ProjectionSet, SetState
from ultraengine.testing.memory_feed import GroupLog, MemoryFeed
from ultraengine_adapters.local.clock import SystemClock

SHARD = ShardId(0)
EVENTS = 5 * STEP_EVENTS + STEP_EVENTS // 2
"""Of one command: five stops."""


def big_log(groups: int, *, poisoned: bool = False) -> GroupLog:
    """Groups of one command with many events; the last one may end with poison."""
    log = GroupLog(SHARD)
    for group in range(groups):
        events: list[object] = [Sold(f"item-{n % 7}", 1 + n % 90) for n in range(EVENTS)]
        if poisoned and group == groups - 1:
            events.append(Poisoned("bag"))
        log.add(Instant(T0 + group), [(command(group), events)])
    return log


def forming(reading: Reading, limits: ProjectionLimits) -> Forming:
    reader = Reader(
        MemoryFeed([]), SHARD, reading.inboxes[SHARD], asyncio.Event(),
        ahead_bytes_max=1 << 20, wait_s_max=1.0, chance=random.Random(1).random,
    )  # fmt: skip
    return Forming(reading, {SHARD: reader}, decoder(), ProjectionHooks(), limits, SystemClock())


def reading_of(log: GroupLog, *, one_by_one: bool = False) -> Reading:
    (declared,) = members(ShopTables())
    building = ProjectionSet("shop", 1, 1, SetState.BUILDING, Instant(T0), Instant(T0))
    reading = Reading([Member(building, declared)], {}, [SHARD], one_by_one=one_by_one)
    for group in log.groups:
        reading.inboxes[SHARD].groups.append(group)
        reading.inboxes[SHARD].bytes += len(group.commands) + len(group.outcomes)
    return reading


def at_once(groups: list[CommittedGroup]) -> Former:
    former = Former(members(ShopTables()), decoder(), {}, ProjectionHooks())
    for group in groups:
        assert former.take(group, Instant(T0)) is None
    return former


async def test_whoever_writes_meanwhile_has_a_turn_after_each_step() -> None:
    turns, ended = 0, False

    async def writer() -> None:
        nonlocal turns
        while not ended:
            turns += 1
            await asyncio.sleep(0)

    log = big_log(3)
    writing = asyncio.create_task(writer())
    former, poison = await forming(reading_of(log), ProjectionLimits()).run()
    ended = True
    await writing
    assert poison is None
    assert former.groups == 3
    assert turns >= 3 * EVENTS // STEP_EVENTS


async def test_a_batch_that_was_formed_in_steps_is_the_one_formed_at_once() -> None:
    log = big_log(2)
    run = forming(reading_of(log), ProjectionLimits())
    former, poison = await run.run()
    assert poison is None
    stepwise, whole = former.finish(), at_once(log.groups).finish()
    assert stepwise.batches[0].appended == whole.batches[0].appended
    assert len(whole.batches[0].appended["sale"]) == 2 * EVENTS
    assert stepwise.batches[0].current["total"].put == whole.batches[0].current["total"].put
    assert stepwise.moved == whole.moved
    assert run.first_times == {SHARD: Instant(T0)}


async def test_poison_that_is_met_after_some_steps_leaves_nothing_of_its_group() -> None:
    log = big_log(2, poisoned=True)
    reading = reading_of(log)
    former, poison = await forming(reading, ProjectionLimits()).run()
    assert poison is not None
    assert (poison.projection, poison.parked.offset) == ("shop", log.groups[1].base_offset)
    assert poison.parked.index == EVENTS
    formed = former.finish()
    assert formed.batches[0].appended == at_once(log.groups[:1]).finish().batches[0].appended
    assert formed.moved[0].before == START
    assert formed.moved[0].after.offset == log.groups[0].offset_end
    assert list(reading.inboxes[SHARD].groups) == [log.groups[1]]


async def test_a_batch_ends_with_the_group_that_reaches_a_limit() -> None:
    by_rows = ProjectionLimits(batch_rows_max=EVENTS + STEP_EVENTS)
    former, _ = await forming(reading_of(big_log(4)), by_rows).run()
    assert (former.groups, former.position(SHARD).offset) == (2, 2)
    reading = reading_of(big_log(4))
    by_bytes = ProjectionLimits(batch_bytes_max=reading.inboxes[SHARD].bytes // 4)
    former, _ = await forming(reading, by_bytes).run()
    assert (former.groups, former.position(SHARD).offset) == (1, 1)


async def test_one_group_at_a_time_is_taken_where_one_was_refused() -> None:
    former, _ = await forming(reading_of(big_log(3), one_by_one=True), ProjectionLimits()).run()
    assert former.groups == 1
