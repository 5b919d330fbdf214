"""A subscriber that the log runs away from, and other moments that are hard to meet."""

from collections.abc import Iterator
from typing import Any, cast

import pytest

from ultraengine.feed.driver import READS_MAX, Feed
from ultraengine.feed.pages import committed
from ultraengine.log.damage import BelowRetention
from ultraengine.log.frame import Frame, FrameHeader
from ultraengine.log.reader import LogReader, RecordedGroup
from ultraengine.log.serializer import MsgpackSerializer
from ultraengine.model.errors import EngineError, InvariantBroken
from ultraengine.model.ids import Offset, ShardId
from ultraengine.model.outcome import CommittedGroup
from ultraengine.testing.feed_sources import SHARD, StoredFeed, collect, commands_of


class CutLog:
    """A log whose old end is removed while somebody reads it."""

    def __init__(self, first_offset: int) -> None:
        self.first_offset = first_offset
        self.reads = 0

    def groups(self, _from_offset: int, _to_offset: int) -> Iterator[Any]:
        self.reads += 1
        raise BelowRetention(first_sequence=9, first_offset=self.first_offset)
        yield


@pytest.mark.parametrize(("first", "reads"), [(70, 1), (5, READS_MAX)])
async def test_a_subscriber_whose_offset_was_cut_meanwhile_is_told_so(
    first: int, reads: int
) -> None:
    """An offset that is said to be there still is looked for again, and not for ever."""
    log = CutLog(first)
    feed = Feed(cast("LogReader", log), ShardId(0))
    feed.publish(100, 0)
    with pytest.raises(EngineError) as caught:
        await anext(feed.outcomes(5))
    assert (caught.value.code, caught.value.pointer) == ("TOO_OLD", "/from")
    assert str(first) in caught.value.detail
    assert log.reads == reads
    await feed.close()


async def test_outcomes_begin_exactly_at_the_offset_and_wait_for_whole_groups() -> None:
    stored = StoredFeed()
    stored.write(2, count=3)
    stored.commands(count=4)
    stored.outcomes(count=2)
    found = stored.feed.outcomes(4)
    assert [one.offset for one in await anext(found)] == [4, 5]
    waiting = anext(found)
    stored.outcomes()
    assert [one.offset for one in await waiting] == [6, 7, 8, 9]
    await stored.feed.close()
    assert [batch async for batch in found] == []


class CountingFeed(Feed):
    """Counts how often the log is read."""

    reads = 0

    def _read_page(self, position: int, end: int) -> list[CommittedGroup]:
        self.reads += 1
        return super()._read_page(position, end)


async def test_a_group_that_is_recorded_in_part_is_looked_at_once_for_each_part() -> None:
    stored = StoredFeed()
    stored.commands(count=4)
    feed = CountingFeed(stored.log.reader(), SHARD, idle_s=0.001)
    pages = feed.pages(SHARD, Offset(0))
    for recorded in (1, 2, 3):
        stored.outcomes(count=1)
        feed.publish(recorded, 0)
        assert [(await anext(pages)).groups for _ in range(20)] == [()] * 20
        assert feed.reads == recorded
    stored.outcomes()
    feed.publish(4, 0)
    assert len((await anext(pages)).groups) == 1
    assert [(await anext(pages)).groups for _ in range(20)] == [()] * 20
    assert feed.reads == 4, "nothing is read while nothing happens"
    await feed.close()
    await stored.feed.close()


async def test_a_subscriber_at_the_end_is_told_at_once_that_it_may_wait() -> None:
    stored = StoredFeed()
    stored.write()
    found = stored.feed.outcomes(2)
    assert await anext(found) == []
    stored.write()
    assert [one.offset for one in await anext(found)] == [2, 3]
    await stored.feed.close()


async def test_a_feed_that_closes_while_it_reads_says_nothing_false() -> None:
    stored = StoredFeed()
    stored.write()
    await stored.feed.close()
    assert [page async for page in stored.feed.pages(SHARD, Offset(0))] == []
    assert [batch async for batch in stored.feed.outcomes(0)] == []


async def test_a_group_with_several_frames_of_outcomes_is_shipped_as_if_it_were_one() -> None:
    stored = StoredFeed()
    stored.commands(count=5)
    stored.outcomes(count=2)
    stored.outcomes(count=3)
    (group,) = await collect(stored.feed, 0, 5)
    assert commands_of([group]) == stored.written
    await stored.feed.close()


async def test_without_slots_nobody_can_confirm() -> None:
    feed = Feed(cast("LogReader", CutLog(0)), SHARD)
    for ask in (
        feed.consumers(SHARD),
        feed.confirm(SHARD, "a", Offset(0)),
        feed.forget(SHARD, "a"),
    ):
        with pytest.raises(EngineError) as caught:
            await ask
        assert caught.value.code == "NOT_FOUND"
    await feed.close()


def test_a_group_without_its_outcomes_is_never_shipped() -> None:
    stored = StoredFeed()
    stored.commands()
    (frame,) = stored.log.reader().frames(0)
    assert isinstance(frame, Frame)
    assert isinstance(frame.header, FrameHeader)
    with pytest.raises(InvariantBroken):
        committed(RecordedGroup(frame, MsgpackSerializer()))
