"""The feed of several copies: followers first, the leader's word last, one history in between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from tests.unit.gateway.conftest import Served, Serving

from ultraengine.feed.driver import Feed
from ultraengine.feed.remote.copies import in_turn, is_final
from ultraengine.feed.remote.driver import HttpFeed
from ultraengine.feed.source import FeedPage, FeedSource
from ultraengine.log.driver import Log
from ultraengine.log.reader import LogReader, RecordedGroup
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Offset
from ultraengine.starting.replicated.roles.copied import CopiedGroups
from ultraengine.testing.feed_sources import (
    IDLE_S,
    LIMITS,
    SHARD,
    FeedSourceSuite,
    StoredFeed,
    collect,
    commands_of,
)

NEVER = EngineError("replica 0 leads", code="NOT_LEADER", leader_url="http://leader")


class Copy:
    """A copy of a stored feed: its log is the leader's, what it knows of it is its own."""

    def __init__(self, stored: StoredFeed) -> None:
        self.stored = stored
        self.log: Log | None = stored.log
        self.committed_end = 0
        self.refusal: EngineError | None = None
        self.feed = Feed(
            CopiedGroups(lambda: self.log, lambda: self.committed_end),
            SHARD,
            limits=LIMITS,
            idle_s=IDLE_S,
            refusal=lambda: self.refusal,
            looks_again=True,
        )

    def hear(self) -> None:
        """Everything is committed, and executed here."""
        self.committed_end = int(self.stored.log.reader().durable_end)
        self.feed.publish(self.stored.recorded, self.stored.clock.now())


@pytest.fixture
async def stored() -> AsyncIterator[StoredFeed]:
    stored = StoredFeed()
    yield stored
    await stored.feed.close()


@pytest.fixture
async def copy(stored: StoredFeed) -> AsyncIterator[Copy]:
    copy = Copy(stored)
    yield copy
    await copy.feed.close()


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    start = Serving()
    yield start
    await start.stop()


class Shard:
    """A leader and a copy of it, served."""

    def __init__(self, serving: Serving, stored: StoredFeed, copy: Copy) -> None:
        self._serving = serving
        self.stored, self.copy = stored, copy
        self.leader: Served
        self.follower: Served

    async def start(self) -> None:
        self.leader = await self._serving(source=self.stored.feed, role="leader")
        self.follower = await self._serving(
            source=self.copy.feed, role="follower", refusal=lambda: NEVER
        )

    def source(self, **more: Any) -> HttpFeed:
        told: dict[str, Any] = {"read": "follower", "first_delay_s": 0.001, **more}
        return HttpFeed([self.leader.url, self.follower.url], **told)

    @property
    def feeds(self) -> tuple[int, int]:
        """How many feeds the leader and the follower serve."""
        both = self.leader, self.follower
        leader, follower = (one.gateway.edge.metrics.feeds_open for one in both)
        return leader, follower

    def write(self, count: int = 1) -> None:
        self.stored.write(count)
        self.copy.hear()


@pytest.fixture
async def shard(serving: Serving, stored: StoredFeed, copy: Copy) -> Shard:
    shard = Shard(serving, stored, copy)
    await shard.start()
    return shard


class TestTheFeedOfACopy(FeedSourceSuite):
    """All of the contract over its pages; slots are kept by the leader beside it."""

    @pytest.fixture
    async def source(self, shard: Shard) -> AsyncIterator[FeedSource]:
        stored, copy = shard.stored, shard.copy
        publish = stored.feed.publish

        def told(end: int, time: int) -> None:
            publish(end, time)
            copy.hear()

        stored.feed.publish = told  # type: ignore[method-assign]
        source = shard.source()
        yield source
        await source.close()


def test_followers_are_asked_before_strangers_and_these_before_leaders() -> None:
    roles = {"a": "leader", "b": "", "c": "follower", "d": "follower"}
    assert in_turn("abcd", roles, 0.0) == ["c", "d", "b", "a"]
    assert in_turn("abcd", roles, 0.8) == ["d", "c", "b", "a"]
    assert in_turn("abcd", roles, 1.0) == ["c", "d", "b", "a"]
    assert in_turn("a", {}, 0.5) == ["a"]


def test_only_a_leader_says_for_good_that_something_is_gone() -> None:
    assert is_final(["a", "b"], "leader")
    assert not is_final(["a", "b"], "follower")
    assert not is_final(["a", "b"], "")
    assert is_final(["a"], "")


async def next_groups(pages: Any) -> FeedPage:
    """The next page that has any."""
    async with asyncio.timeout(60):
        while True:
            page: FeedPage = await anext(pages)
            if page.groups:
                return page


async def test_pages_come_from_the_follower_and_slots_go_to_the_leader(shard: Shard) -> None:
    shard.write(3)
    source = shard.source()
    async with aclosing(source.pages(SHARD, Offset(0))) as pages:
        page = await next_groups(pages)
        assert commands_of(list(page.groups)) == shard.stored.written
        assert shard.feeds == (0, 1)
    await source.confirm(SHARD, "mail", Offset(2))
    assert [one.offset for one in await shard.stored.feed.consumers(SHARD)] == [2]
    assert [one.name for one in await source.consumers(SHARD)] == ["mail"]
    await source.forget(SHARD, "mail")
    assert list(await shard.stored.feed.consumers(SHARD)) == []
    await source.close()


@pytest.mark.parametrize("wanted", ["leader", None])
async def test_who_asks_for_the_leaders_feed_is_told_who_leads(
    shard: Shard, wanted: str | None
) -> None:
    query = "" if wanted is None else f"&read={wanted}"
    for method, path in (
        ("GET", f"/v1/feed?from=0{query}"),
        ("GET", "/v1/feed/consumers"),
        ("PUT", "/v1/feed/consumers/mail"),
        ("DELETE", "/v1/feed/consumers/mail"),
    ):
        async with shard.follower.http.request(method, path) as answer:
            body = await answer.json(content_type="application/problem+json")
        assert (answer.status, body["code"], body["leader_url"]) == (
            503, "NOT_LEADER", "http://leader",
        )  # fmt: skip


async def test_an_answer_says_whose_pages_it_has_and_another_reader_is_refused(
    shard: Shard,
) -> None:
    shard.write()
    for served, role in ((shard.leader, "leader"), (shard.follower, "follower")):
        async with served.http.get("/v1/feed?read=follower") as answer:
            assert (answer.status, answer.headers["Ultra-Role"]) == (200, role)
    async with shard.leader.http.get("/v1/feed?read=anybody") as answer:
        body = await answer.json(content_type="application/problem+json")
    assert (answer.status, body["code"], body["pointer"]) == (
        400, "MALFORMED", "/query/read",
    )  # fmt: skip


async def test_when_the_follower_is_lost_the_leader_goes_on_without_a_gap_or_a_repetition(
    shard: Shard,
) -> None:
    shard.write(4)
    source = shard.source()
    async with aclosing(source.pages(SHARD, Offset(0))) as pages:
        found = [*(await next_groups(pages)).groups]
        assert shard.feeds == (0, 1)
        await shard.copy.feed.close()
        await shard.follower.stop()
        shard.stored.write(4)
        while len(found) < 8:
            found += (await next_groups(pages)).groups
        assert shard.leader.gateway.edge.metrics.feeds_open == 1
    assert commands_of(found) == shard.stored.written
    await source.close()


async def test_a_follower_that_falls_behind_sends_its_consumers_to_the_leader_and_they_come_back(
    shard: Shard,
) -> None:
    shard.write(2)
    source = shard.source(back_s=0.05)
    async with aclosing(source.pages(SHARD, Offset(0))) as pages:
        found = [*(await next_groups(pages)).groups]
        shard.copy.refusal = EngineError("it is behind", code="NOT_LEADER")
        shard.stored.write(2)
        found += (await next_groups(pages)).groups
        assert commands_of(found) == shard.stored.written
        shard.copy.refusal = None
        shard.copy.hear()
        async with asyncio.timeout(60):
            while shard.feeds != (0, 1):
                assert not (await anext(pages)).groups
        shard.write()
        found += (await next_groups(pages)).groups
    assert commands_of(found) == shard.stored.written
    await source.close()


async def test_what_only_the_follower_has_cut_is_read_from_the_leader(shard: Shard) -> None:
    shard.write(3)

    class Cut(CopiedGroups):
        def groups(self, from_offset: int, to_offset: int | None = None) -> Any:
            raise EngineError(f"offset {from_offset} is gone", code="TOO_OLD")

    shard.copy.feed._reader = Cut(lambda: None, lambda: 0)
    source = shard.source()
    assert commands_of(await collect(source, 0, 6)) == shard.stored.written
    await source.close()


async def test_what_the_leader_has_cut_is_too_old(shard: Shard) -> None:
    shard.write(3)
    shard.copy.refusal = NEVER
    shard.stored.feed._reader = _Gone()
    source = shard.source()
    with pytest.raises(EngineError) as caught:
        await anext(source.pages(SHARD, Offset(0)))
    assert caught.value.code == "TOO_OLD"
    await source.close()


class _Gone:
    def groups(self, from_offset: int, to_offset: int | None = None) -> Any:
        raise EngineError(f"offset {from_offset} is gone", code="TOO_OLD")


async def test_a_copy_of_another_history_is_not_gone_on_with(serving: Serving) -> None:
    one, other = StoredFeed(), StoredFeed()
    one.write(3)
    other.write(2)
    other.commands(size=21)
    other.outcomes()
    first = await serving(source=one.feed, role="follower")
    second = await serving(source=other.feed, role="leader")
    assert (await collect(one.feed, 0, 6))[-1].chain != (await collect(other.feed, 0, 6))[-1].chain
    source = HttpFeed([first.url, second.url], read="follower", first_delay_s=0.001)
    async with aclosing(source.pages(SHARD, Offset(0))) as pages:
        assert len((await next_groups(pages)).groups) == 3
        await one.feed.close()
        await first.stop()
        with pytest.raises(EngineError, match="another history") as caught:
            await next_groups(pages)
    assert caught.value.code == "INTERNAL"
    await source.close()
    await other.feed.close()


async def test_a_log_that_was_cut_right_there_is_gone_on_with_unproved(shard: Shard) -> None:
    shard.write(3)
    source = shard.source()
    async with aclosing(source.pages(SHARD, Offset(0))) as pages:
        found = [*(await next_groups(pages)).groups]
        end = found[-1].offset_end
        whole = shard.stored.feed._reader

        class CutAt:
            def groups(self, from_offset: int, to_offset: int | None = None) -> Any:
                if from_offset < end:
                    raise EngineError("gone", code="TOO_OLD")
                return whole.groups(from_offset, to_offset)

        shard.stored.feed._reader = CutAt()
        shard.copy.refusal = NEVER
        shard.stored.write(2)
        found += (await next_groups(pages)).groups
    assert commands_of(found) == shard.stored.written
    await source.close()


async def test_nobody_among_the_copies_is_said_after_the_attempts(
    unused_tcp_port_factory: Any,
) -> None:
    urls = [f"http://127.0.0.1:{unused_tcp_port_factory()}" for _ in range(2)]
    source = HttpFeed(urls, read="follower", attempts_max=2, first_delay_s=0.001)
    for ask in (anext(source.pages(SHARD, Offset(0))), source.shards()):
        with pytest.raises(EngineError) as caught:
            await ask
        assert caught.value.code == "SHARD_UNAVAILABLE"
    await source.close()


# --- what a copy may show ------------------------------------------------------------------------


async def test_what_is_durable_and_not_known_committed_is_not_shown(
    stored: StoredFeed, copy: Copy
) -> None:
    stored.write(2)
    copy.feed.publish(stored.recorded, 0)
    async with aclosing(copy.feed.pages(SHARD, Offset(0))) as pages:
        assert [(await anext(pages)).groups for _ in range(3)] == [()] * 3
        copy.committed_end = 3
        assert [one.offset_end for one in (await next_groups(pages)).groups] == [2]
        copy.committed_end = 4
        assert [one.offset_end for one in (await next_groups(pages)).groups] == [4]


async def test_while_the_end_of_a_log_is_cut_off_its_feed_is_away(
    stored: StoredFeed, copy: Copy
) -> None:
    stored.write(2)
    copy.hear()
    copy.log = None
    with pytest.raises(EngineError) as caught:
        await anext(copy.feed.pages(SHARD, Offset(0)))
    assert caught.value.code == "SHARD_UNAVAILABLE"
    assert caught.value.problem.retryable


class Failing:
    """A log whose reader fails, perhaps because it was closed meanwhile."""

    def __init__(self, fails: Any) -> None:
        self._fails = fails

    def reader(self, *, archived: bool = False) -> LogReader:
        assert archived, "what was cut is wanted too"
        self._fails()
        raise OSError("it was closed")


@pytest.mark.parametrize("reopened", [True, False])
def test_a_read_that_fails_because_the_log_was_opened_anew_is_tried_again(
    stored: StoredFeed, reopened: bool
) -> None:
    opened: list[Any] = []

    def swap() -> None:
        if reopened:
            opened[:] = [stored.log]

    opened.append(Failing(swap))
    groups = CopiedGroups(lambda: opened[0], lambda: 100)

    def read() -> list[RecordedGroup]:
        return list(groups.groups(0))

    with pytest.raises(EngineError if reopened else OSError) as caught:
        read()
    if isinstance(caught.value, EngineError):
        assert caught.value.problem.retryable
