"""The feed over HTTP: the contract, cuts at any byte, and answers that are no feed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Self

import msgspec
import pytest
from aiohttp import web
from tests.unit.gateway.conftest import Served, Serving

from ultraengine.feed.remote.driver import HttpFeed
from ultraengine.feed.source import FeedPage, FeedSource
from ultraengine.feed.wire import MEDIA_TYPE, encode_end, encode_page
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Instant, Offset, ShardId
from ultraengine.model.outcome import CommittedGroup
from ultraengine.testing.feed_sources import (
    SHARD,
    FeedSourceSuite,
    StoredFeed,
    collect,
    commands_of,
)


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    start = Serving()
    yield start
    await start.stop()


class TestHttpFeed(FeedSourceSuite):
    @pytest.fixture
    async def source(self, stored: StoredFeed, serving: Serving) -> AsyncIterator[FeedSource]:
        served = await serving(source=stored.feed)
        source = HttpFeed(served.url)
        yield source
        await source.close()
        await stored.feed.close()


class Cuts:
    """A proxy that passes so many bytes of each answer on, and cuts the connection."""

    def __init__(self, served: Served, lengths: Sequence[int]) -> None:
        self._target = served.gateway.addresses[0]
        self._lengths = list(lengths)
        self.connections = 0
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _pass_on(self, ours: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self.connections += 1
        left = self._lengths.pop(0) if self._lengths else 1 << 30
        theirs, out = await asyncio.open_connection(*self._target)
        try:
            out.write(await ours.readuntil(b"\r\n\r\n"))
            while left and (data := await theirs.read(min(left, 4096))):
                left -= len(data)
                back.write(data)
                await back.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            back.transport.abort()
            out.transport.abort()


async def test_a_feed_that_is_cut_at_any_byte_goes_on_without_a_gap_or_a_repetition(
    serving: Serving,
) -> None:
    stored = StoredFeed()
    stored.write(40, count=3)
    served = await serving(source=stored.feed)
    async with Cuts(served, [0, 1, 100, 400, 700, 1000, 2500, 3000, 4000, 5000]) as proxy:
        source = HttpFeed(proxy.url, attempts_max=8, first_delay_s=0.001)
        groups = await collect(source, 1, 120)
        assert commands_of(groups) == stored.written
        assert proxy.connections > 8
        await source.close()
    await stored.feed.close()


async def test_an_engine_that_starts_again_is_gone_on_with(serving: Serving) -> None:
    stored = StoredFeed()
    stored.write(3)
    served = await serving(source=stored.feed)
    source = HttpFeed(served.url, first_delay_s=0.01)
    async with aclosing(source.pages(SHARD, Offset(0))) as pages:
        assert len((await anext(pages)).groups) == 3
        await stored.restart()
        served.gateway.edge.source = stored.feed
        stored.write(2)
        found: list[CommittedGroup] = []
        async for page in pages:
            found += page.groups
            if found and found[-1].offset_end == 10:
                break
    assert commands_of(found) == stored.written[3:]
    await source.close()
    await stored.feed.close()


async def test_nobody_listening_is_said_after_the_attempts(unused_tcp_port: int) -> None:
    source = HttpFeed(f"http://127.0.0.1:{unused_tcp_port}", attempts_max=3, first_delay_s=0.001)
    for ask in (
        anext(source.pages(SHARD, Offset(0))),
        source.shards(),
        source.consumers(SHARD),
        source.confirm(SHARD, "a", Offset(0)),
        source.forget(SHARD, "a"),
    ):
        with pytest.raises(EngineError) as caught:
            await ask
        assert caught.value.code == "SHARD_UNAVAILABLE"
    await source.close()
    with pytest.raises(EngineError):
        await source.shards()


class Told:
    """A server that answers every request in its own way."""

    def __init__(self, answer: Callable[[], web.Response]) -> None:
        self._answer = answer
        self.asked: list[str] = []

    async def __aenter__(self) -> HttpFeed:
        async def handle(request: web.BaseRequest) -> web.Response:
            self.asked.append(request.path_qs)
            return self._answer()

        self._runner = web.ServerRunner(web.Server(handle))
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self._source = HttpFeed(f"http://127.0.0.1:{port}", attempts_max=3, first_delay_s=0.001)
        return self._source

    async def __aexit__(self, *exc: object) -> None:
        await self._source.close()
        await self._runner.cleanup()


def page_bytes(*groups: CommittedGroup) -> bytes:
    return b"".join(encode_page(SHARD, FeedPage(groups, Offset(100), Instant(5))))


async def stored_groups(count: int) -> list[CommittedGroup]:
    stored = StoredFeed()
    stored.write(count)
    groups = await collect(stored.feed, 0, 2 * count)
    await stored.feed.close()
    return groups


@pytest.mark.parametrize("second", ["gap", "repeated", "older frame", "older time"])
async def test_groups_that_do_not_follow_each_other_are_another_history(second: str) -> None:
    one, two, three = await stored_groups(3)
    follows: Any = {
        "gap": three,
        "repeated": one,
        "older frame": msgspec.structs.replace(two, sequence=one.sequence),
        "older time": msgspec.structs.replace(two, time=one.time - 1),
    }[second]
    body = page_bytes(one) + page_bytes(follows)
    told = Told(lambda: web.Response(body=body, content_type=MEDIA_TYPE))
    async with told as source, aclosing(source.pages(SHARD, Offset(0))) as pages:
        assert (await anext(pages)).groups == (one,)
        with pytest.raises(EngineError) as caught:
            await anext(pages)
        assert caught.value.code == "INTERNAL"
        assert "another history" in caught.value.detail


async def test_a_first_group_that_does_not_hold_the_offset_is_refused() -> None:
    groups = await stored_groups(2)
    told = Told(lambda: web.Response(body=page_bytes(*groups), content_type=MEDIA_TYPE))
    async with told as source:
        with pytest.raises(EngineError, match="another history"):
            await anext(source.pages(SHARD, Offset(3)))


@pytest.mark.parametrize(
    ("status", "body", "code", "asked"),
    [
        (200, b"not a feed at all" * 10, "SHARD_UNAVAILABLE", 3),
        (200, page_bytes()[:40], "SHARD_UNAVAILABLE", 3),
        (200, encode_end(SHARD, EngineError("no", code="DRAINING")), "SHARD_UNAVAILABLE", 3),
        (200, encode_end(SHARD, EngineError("no", code="UNAUTHENTICATED")), "UNAUTHENTICATED", 1),
        (409, b'{"code": "TOO_OLD", "detail": "gone", "pointer": "/from"}', "TOO_OLD", 1),
        (503, b'{"code": "SHARD_UNAVAILABLE", "detail": "soon"}', "SHARD_UNAVAILABLE", 3),
        (502, b"<html>", "SHARD_UNAVAILABLE", 3),
        (404, b"[]", "MALFORMED", 1),
    ],
)
async def test_what_can_be_tried_again_is_and_the_rest_is_said_at_once(
    status: int, body: bytes, code: str, asked: int
) -> None:
    told = Told(lambda: web.Response(status=status, body=body))
    async with told as source:
        with pytest.raises(EngineError) as caught:
            await anext(source.pages(SHARD, Offset(7)))
        assert caught.value.code == code
        assert told.asked == ["/v1/feed?shard=3&from=7"] * asked


async def test_a_feed_that_ends_between_two_messages_is_asked_for_again() -> None:
    told = Told(lambda: web.Response(body=page_bytes(), content_type=MEDIA_TYPE))
    async with told as source, aclosing(source.pages(SHARD, Offset(7))) as pages:
        assert [(await anext(pages)).groups for _ in range(5)] == [()] * 5
    assert told.asked == ["/v1/feed?shard=3&from=7"] * 5


async def test_the_key_is_sent_along(serving: Serving) -> None:
    seen: list[str | None] = []

    class Keys:
        def authenticate(self, headers: Any, *, peer_is_loopback: bool) -> Any:
            seen.append(headers.get("authorization"))
            raise EngineError("no", code="UNAUTHENTICATED")

    stored = StoredFeed()
    served = await serving(source=stored.feed, identity=Keys())
    source = HttpFeed(served.url, "ultra_abc")
    for ask in (source.shards(), anext(source.pages(ShardId(3), Offset(0)))):
        with pytest.raises(EngineError) as caught:
            await ask
        assert caught.value.code == "UNAUTHENTICATED"
    assert seen == ["Bearer ultra_abc"] * 2
    await source.close()
    await stored.feed.close()
