"""What is read ahead of the tables, and what is known of a log that is not read meanwhile."""

import asyncio
from collections.abc import Callable

from tests.unit.projection.shop import T0, busy_log, sale

from ultraengine.feed.source import FeedPage
from ultraengine.model.ids import Instant, Offset, ShardId
from ultraengine.projection.reading.driver import Reader
from ultraengine.projection.readings import Inbox
from ultraengine.testing.memory_feed import MemoryFeed

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
    task = asyncio.create_task(reader.run(Offset(0)))
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
