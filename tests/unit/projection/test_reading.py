"""What is read ahead of the tables, and what is known of a log that is not read meanwhile."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec
from tests.unit.projection.shop import T0, ShopTables, busy_log, members, sale

from ultraengine.feed.source import FeedPage
from ultraengine.model.ids import Instant, Offset, ShardId
from ultraengine.model.outcome import CommittedGroup
from ultraengine.projection.reading.driver import Reader
from ultraengine.projection.readings import Inbox, Member, Reading
from ultraengine.projection.target import START, Checkpoint, ProjectionSet, SetState
from ultraengine.testing.memory_feed import GroupLog, MemoryFeed

WAIT_S = 10.0


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110  (nobody is told)
            await asyncio.sleep(0.001)


async def test_a_full_inbox_still_learns_where_the_log_ends() -> None:
    log, inbox = busy_log(0, 50), Inbox()
    feed = MemoryFeed([log])
    reader = Reader(
        feed, ShardId(0), inbox, asyncio.Event(),
        ahead_bytes_max=1, wait_s_max=0.01, chance=lambda: 0.5, head_every_s=0.005,
    )  # fmt: skip
    task = asyncio.create_task(reader.run(START))
    try:
        await until(lambda: inbox.end == log.end)
        held = len(inbox.groups)
        for number in range(20):
            log.add(Instant(T0 + 10**9 + number), [sale(90_000 + number)])
        await until(lambda: inbox.end == log.end)
        assert inbox.end_time == log.groups[-1].time
        # An engine that is away says nothing, and what it said stands.
        feed.away, known = True, feed.refused
        end = log.end
        log.add(Instant(T0 + 2 * 10**9), [sale(95_000)])
        await until(lambda: feed.refused > known + 1)
        assert (len(inbox.groups), inbox.end) == (held, end)
        feed.away = False
        await until(lambda: inbox.end == log.end)
        # With room again it reads on where it stopped.
        while inbox.groups:
            inbox.take()
        reader.took()
        await until(lambda: bool(inbox.groups))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_page_that_was_sent_before_a_later_look_takes_nothing_back() -> None:
    inbox = Inbox()
    inbox.saw(Offset(10), Instant(5))
    inbox.receive(FeedPage((), Offset(7), Instant(3)))
    assert (inbox.end, inbox.end_time) == (10, 5)
    inbox.receive(FeedPage((), Offset(11), Instant(6)))
    assert (inbox.end, inbox.end_time) == (11, 6)


SHARD = ShardId(0)


def reading_of(state: SetState) -> Reading:
    (declared,) = members(ShopTables())
    of = ProjectionSet("shop", 1, 1, state, Instant(T0), Instant(T0))
    return Reading([Member(of, declared)], {}, [SHARD])


def test_the_lag_of_a_database_that_is_away_is_not_forgotten_with_each_attempt() -> None:
    log, before = busy_log(0, 3), reading_of(SetState.SERVING)
    before.inboxes[SHARD].receive(FeedPage(tuple(log.groups), log.end, log.groups[-1].time))
    now = Instant(log.groups[-1].time + 10**7)
    after = reading_of(SetState.SERVING)
    assert after.lags(now) == {}
    after.follow_on(before)
    assert after.lags(now) == before.lags(now)
    again = reading_of(SetState.SERVING)
    again.follow_on(after)
    assert again.lags(now)[SHARD].commands == log.end
    assert again.oldest(SHARD) == log.groups[0].time
    again.follow_on(reading_of(SetState.SERVING))
    assert again.lags(now) == before.lags(now), "who knows nothing tells nothing"


def test_a_reading_that_had_nothing_waiting_says_where_the_log_ends_and_no_age() -> None:
    before, after = reading_of(SetState.SERVING), reading_of(SetState.SERVING)
    before.inboxes[SHARD].saw(Offset(0), Instant(T0))
    after.follow_on(before)
    assert after.inboxes[SHARD].end == 0
    assert after.oldest(SHARD) is None


def test_a_build_learns_anew_where_the_log_ends_before_it_serves() -> None:
    before, after = reading_of(SetState.BUILDING), reading_of(SetState.BUILDING)
    before.inboxes[SHARD].saw(Offset(0), Instant(T0))
    after.follow_on(before)
    assert before.is_caught_up
    assert not after.is_caught_up


@contextlib.asynccontextmanager
async def read_behind(log: GroupLog, known: Checkpoint) -> AsyncIterator[Inbox]:
    """What a reader finds that goes on behind what is known."""
    inbox = Inbox()
    reader = Reader(
        MemoryFeed([log]), SHARD, inbox, asyncio.Event(),
        ahead_bytes_max=1 << 20, wait_s_max=0.01, chance=lambda: 0.5,
    )  # fmt: skip
    task = asyncio.create_task(reader.run(known))
    try:
        yield inbox
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def checkpoint(group: CommittedGroup) -> Checkpoint:
    return Checkpoint(group.offset_end, group.epoch, group.time, group.chain)


async def test_who_goes_on_reads_what_follows_and_not_the_group_that_proves_it() -> None:
    log = busy_log(0, 10)
    async with read_behind(log, checkpoint(log.groups[3])) as inbox:
        await until(lambda: len(inbox.groups) == len(log.groups) - 4)
        assert list(inbox.groups) == log.groups[4:]
        assert inbox.problem is None


async def test_an_engine_with_another_history_at_the_position_is_not_followed() -> None:
    log = busy_log(0, 10)
    known = checkpoint(log.groups[3])
    other = msgspec.structs.replace(known, chain=bytes(reversed(known.chain)))
    async with read_behind(log, other) as inbox:
        await until(lambda: inbox.problem is not None)
        assert "another history" in str(inbox.problem)
        assert not inbox.groups
    inside = msgspec.structs.replace(known, offset=Offset(known.offset - 1))
    async with read_behind(log, inside) as inbox:
        await until(lambda: inbox.problem is not None)


async def test_a_log_that_was_cut_right_at_the_position_is_gone_on_with() -> None:
    log = busy_log(0, 10)
    known = checkpoint(log.groups[3])
    log.first_offset = known.offset
    async with read_behind(log, known) as inbox:
        await until(lambda: len(inbox.groups) == len(log.groups) - 4)
