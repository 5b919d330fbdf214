"""The feed's endpoints: who may, what is refused, how feeds end, and the front before shards."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import msgspec
import pytest
from tests.unit.gateway.conftest import Served, Serving, StillClock
from tests.unit.gateway.routed_world import SECRET, RoutedServed, RoutedServing

from ultraengine.edge.auth import ApiKeys, KeyTable, KnownCaller, issue_key
from ultraengine.feed.driver import Feed
from ultraengine.feed.remote.driver import HttpFeed
from ultraengine.feed.source import FeedPage, FeedRead
from ultraengine.feed.wire import MEDIA_TYPE, FeedReader
from ultraengine.gateway.hop import HopIdentity
from ultraengine.gateway.routed import RoutedEdge
from ultraengine.gateway.routed_feeds import RoutedSource, _url
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Offset, ShardId
from ultraengine.model.limits import DEFAULT_LIMITS
from ultraengine.router.driver import Address, Link
from ultraengine.starting.replicated.roles.copied import CopiedGroups
from ultraengine.testing.feed_sources import SHARD, StoredFeed, collect, commands_of
from ultraengine.testing.sim_clock import SimRandom


@pytest.fixture
async def stored() -> AsyncIterator[StoredFeed]:
    stored = StoredFeed()
    stored.write(5)
    yield stored
    await stored.feed.close()


async def refusal(served: Served, path: str, method: str = "GET", **more: Any) -> tuple[int, str]:
    async with served.http.request(method, path, **more) as answer:
        body = await answer.json(content_type="application/problem+json")
        return answer.status, body["code"]


async def exhaust(pages: AsyncIterator[FeedPage]) -> None:
    async with asyncio.timeout(60):
        async for _ in pages:
            pass


class Keys(ApiKeys):
    """Three callers with keys; the table may be changed."""

    def __init__(self, clock: StillClock) -> None:
        self.issued: dict[str, str] = {}
        self.entries = {}
        for number, scope in enumerate(("feed", "admin", "*:read")):
            key, entry = issue_key(
                SimRandom(number), tenant="acme", principal=f"p{number}", scopes=[scope]
            )
            self.issued[scope], self.entries[scope] = key, entry
        super().__init__(self.table_of(*self.entries), clock)

    def table_of(self, *names: str, scopes: str = "") -> KeyTable:
        content = "".join(
            f'[[keys]]\nprefix = "{one.prefix}"\nsha256 = "{one.sha256}"\ntenant = "acme"\n'
            f'principal = "{one.principal}"\nscopes = {scopes or one.scopes}\n'
            for one in (self.entries[name] for name in names)
        )
        return KeyTable.parse(content.encode())

    def headers(self, scope: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.issued[scope]}"}


async def test_a_feed_is_for_keys_with_the_scope_feed_or_admin(
    serving: Serving, stored: StoredFeed
) -> None:
    served = await serving(source=stored.feed, identity=Keys)
    keys = cast("Keys", served.gateway.edge.identity)
    for scope in ("feed", "admin"):
        headers = keys.headers(scope)
        async with served.http.get("/v1/feed?from=0", headers=headers) as answer:
            assert (answer.status, answer.content_type) == (200, MEDIA_TYPE)
        async with served.http.put(
            "/v1/feed/consumers/mail", json={"offset": 2}, headers=headers
        ) as answer:
            assert await answer.json() == {"shard": 3, "name": "mail", "offset": 2}
    other = keys.headers("*:read")
    for method, path in (
        ("GET", "/v1/feed?from=0"),
        ("GET", "/v1/feed/shards"),
        ("GET", "/v1/feed/consumers"),
        ("PUT", "/v1/feed/consumers/mail"),
        ("DELETE", "/v1/feed/consumers/mail"),
    ):
        assert await refusal(served, path, method, headers=other) == (403, "FORBIDDEN")
        assert await refusal(served, path, method) == (401, "UNAUTHENTICATED")


async def test_a_feed_whose_key_is_removed_ends(serving: Serving, stored: StoredFeed) -> None:
    served = await serving(source=stored.feed, identity=Keys)
    keys = cast("Keys", served.gateway.edge.identity)
    source = HttpFeed(served.url, keys.issued["feed"])
    async with aclosing(source.pages(SHARD, Offset(0))) as pages:
        await anext(pages)
        keys.table = keys.table_of("admin")
        with pytest.raises(EngineError) as caught:
            await exhaust(pages)
    assert caught.value.code == "UNAUTHENTICATED"
    await source.close()


async def test_a_feed_whose_key_becomes_another_callers_ends(
    serving: Serving, stored: StoredFeed
) -> None:
    served = await serving(source=stored.feed, identity=Keys)
    keys = cast("Keys", served.gateway.edge.identity)
    source = HttpFeed(served.url, keys.issued["feed"])
    async with aclosing(source.pages(SHARD, Offset(0))) as pages:
        await anext(pages)
        keys.table = keys.table_of("feed", scopes='["feed", "counter:read"]')
        with pytest.raises(EngineError) as caught:
            await exhaust(pages)
    assert caught.value.code == "FORBIDDEN"
    await source.close()


async def test_who_does_not_read_is_cut_off_and_holds_no_more_than_a_page(
    serving: Serving, stored: StoredFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ultraengine.gateway.feeds.STALL_S", 0.2)
    stored.write(400, count=1, size=20_000)
    reads: list[int] = []

    class Counted(Feed):
        def _read_page(self, position: int, end: int) -> Any:
            reads.append(position)
            return super()._read_page(position, end)

    feed = Counted(stored.log.reader(), SHARD)
    feed.publish(stored.end, 0)
    served = await serving(source=feed)
    reader, writer = await asyncio.open_connection(*served.gateway.addresses[0], limit=1)
    writer.write(b"GET /v1/feed HTTP/1.1\r\nHost: localhost\r\n\r\n")
    edge = served.gateway.edge
    for _ in range(1_000):
        await asyncio.sleep(0.01)
        if reads and not edge.metrics.feeds_open:
            break
    assert edge.metrics.feeds_open == 0
    assert len(reads) < 8, "the rest was left in the log"
    writer.close()
    del reader
    await feed.close()


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/feed?from=-1", 400, "MALFORMED"),
        ("/v1/feed?from=", 400, "MALFORMED"),
        ("/v1/feed?from=9223372036854775808", 400, "MALFORMED"),
        ("/v1/feed?from=1&from=2", 400, "MALFORMED"),
        ("/v1/feed?shard=x", 400, "MALFORMED"),
        ("/v1/feed?since=1", 400, "MALFORMED"),
        ("/v1/feed?shard=4", 404, "NOT_FOUND"),
        ("/v1/feed/consumers?shard=4", 404, "NOT_FOUND"),
        ("/v1/feed/nothing", 404, "NOT_FOUND"),
    ],
)
async def test_what_is_wrong_with_a_request_is_a_problem_document(
    serving: Serving, stored: StoredFeed, path: str, status: int, code: str
) -> None:
    served = await serving(source=stored.feed)
    assert await refusal(served, path) == (status, code)


@pytest.mark.parametrize(
    ("name", "body", "status", "code"),
    [
        ("mail", b"{}", 400, "MALFORMED"),
        ("mail", b'{"offset": -1}', 400, "MALFORMED"),
        ("mail", b'{"offset": "1"}', 400, "MALFORMED"),
        ("mail", b'{"offset": 1, "more": 2}', 400, "MALFORMED"),
        ("mail", b'{"offset": 11}', 400, "MALFORMED"),
        ("mail", b"[", 400, "MALFORMED"),
        ("mail", b" " * 5_000, 413, "TOO_LARGE"),
        ("a%20b", b'{"offset": 1}', 400, "MALFORMED"),
        ("a/b", b'{"offset": 1}', 404, "NOT_FOUND"),
        ("", b'{"offset": 1}', 404, "NOT_FOUND"),
    ],
)
async def test_a_confirmation_that_is_none_is_refused(
    serving: Serving, stored: StoredFeed, name: str, body: bytes, status: int, code: str
) -> None:
    served = await serving(source=stored.feed)
    headers = {"Content-Type": "application/json"}
    path = f"/v1/feed/consumers/{name}"
    assert await refusal(served, path, "PUT", data=body, headers=headers) == (status, code)
    assert list(await stored.feed.consumers(SHARD)) == []


async def test_confirmations_come_in_msgpack_too(serving: Serving, stored: StoredFeed) -> None:
    served = await serving(source=stored.feed)
    body = msgspec.msgpack.encode({"offset": 3})
    headers = {"Content-Type": "application/msgpack"}
    async with served.http.put("/v1/feed/consumers/mail", data=body, headers=headers) as answer:
        assert answer.status == 200
    listed = await served.get("/v1/feed/consumers")
    assert listed == (200, {"consumers": [{"shard": 3, "name": "mail", "offset": 3}]})
    assert await served.get("/v1/feed/consumers?shard=3") == listed


async def test_open_feeds_are_bounded_and_are_no_requests_in_flight(
    serving: Serving, stored: StoredFeed
) -> None:
    limits = msgspec.structs.replace(DEFAULT_LIMITS, feeds_max=2)
    served = await serving(source=stored.feed, limits=limits)
    edge = served.gateway.edge
    async with served.http.get("/v1/feed"), served.http.get("/v1/feed"):
        assert (edge.metrics.feeds_open, edge.metrics.requests_in_flight) == (2, 0)
        assert await refusal(served, "/v1/feed") == (429, "OVERLOADED")
        _, metrics = 0, (await (await served.http.get("/metrics")).text())
        assert "ultra_edge_feeds_open 2.0" in metrics
    for _ in range(100):
        await asyncio.sleep(0.01)
        if not edge.metrics.feeds_open:
            break
    assert (edge.metrics.feeds_open, edge.metrics.requests_in_flight) == (0, 0)


async def test_a_feed_goes_on_through_a_drain_and_ends_with_the_engine(
    serving: Serving, stored: StoredFeed
) -> None:
    served = await serving(source=stored.feed)
    reader = FeedReader(SHARD)
    found: list[FeedPage] = []
    async with served.http.get("/v1/feed?from=0") as answer:
        found += list(reader.feed(await answer.content.readany()))
        await served.gateway.drain()
        assert await refusal(served, "/v1/feed") == (503, "DRAINING")
        stored.write()
        while sum(len(page.groups) for page in found) < 6:
            found += list(reader.feed(await answer.content.readany()))
        await stored.feed.close()
        rest = await answer.content.read()
        with pytest.raises(EngineError) as caught:
            list(reader.feed(rest))
        assert caught.value.code == "DRAINING"


async def test_a_feed_that_has_ended_already_is_refused(
    serving: Serving, stored: StoredFeed
) -> None:
    served = await serving(source=stored.feed)
    await stored.feed.close()
    assert await refusal(served, "/v1/feed") == (503, "DRAINING")


async def test_a_log_that_cannot_be_read_ends_the_feed_with_a_reason(
    serving: Serving, stored: StoredFeed
) -> None:
    class Broken(Feed):
        def _read_page(self, position: int, end: int) -> Any:
            if position:
                raise OSError("the disk is gone")
            return super()._read_page(position, end)

    feed = Broken(stored.log.reader(), SHARD)
    feed.publish(10, 0)
    served = await serving(source=feed)
    source = HttpFeed(served.url)
    async with aclosing(source.pages(SHARD, Offset(0))) as pages:
        await anext(pages)
        feed.publish(12, 0)
        with pytest.raises(EngineError) as caught:
            await anext(pages)
    assert caught.value.code == "INTERNAL"
    assert "gone" not in caught.value.detail
    await source.close()
    await feed.close()


async def test_without_a_feed_there_are_no_such_paths(serving: Serving) -> None:
    served = await serving()
    for path in ("/v1/feed", "/v1/feed/shards", "/v1/feed/consumers"):
        assert await refusal(served, path) == (404, "NOT_FOUND")
    _, paper = await served.get("/openapi.json")
    assert not [path for path in paper["paths"] if "feed" in path]


async def test_the_document_describes_every_path_of_the_feed(
    serving: Serving, stored: StoredFeed
) -> None:
    served = await serving(source=stored.feed)
    _, paper = await served.get("/openapi.json")
    found = {
        (path, method) for path, methods in paper["paths"].items() if "feed" in path
        for method in methods
    }  # fmt: skip
    assert found == {
        ("/v1/feed", "get"),
        ("/v1/feed/shards", "get"),
        ("/v1/feed/consumers", "get"),
        ("/v1/feed/consumers/{name}", "put"),
        ("/v1/feed/consumers/{name}", "delete"),
    }
    follow = paper["paths"]["/v1/feed"]["get"]
    assert list(follow["responses"]["200"]["content"]) == [MEDIA_TYPE]
    assert {one["name"] for one in follow["parameters"]} == {"shard", "from", "read"}
    assert "Feed" in {tag["name"] for tag in paper["tags"]}


# --- a front -------------------------------------------------------------------------------------


@pytest.fixture
async def routed() -> AsyncIterator[tuple[RoutedServed, dict[int, StoredFeed]]]:
    """A front before shards 0 and 1, whose feeds are of logs of their own."""
    start = RoutedServing()
    served = await start(apart=True)
    feeds = {}
    for shard in (0, 1):
        stored = feeds[shard] = StoredFeed(shard=ShardId(shard))
        stored.write(4 + shard)
        await served.stop_shard(shard)
        served.sources[shard] = stored.feed
        await served.start_shard(shard)
    yield served, feeds
    await start.stop()
    for stored in feeds.values():
        await stored.feed.close()


async def test_a_front_relays_the_feed_of_each_shard(
    routed: tuple[RoutedServed, dict[int, StoredFeed]],
) -> None:
    served, feeds = routed
    source = HttpFeed(served.url)
    assert list(await source.shards()) == [0, 1]
    for shard, stored in feeds.items():
        groups = await collect(source, 0, stored.end, shard=ShardId(shard))
        assert commands_of(groups) == stored.written
        await source.confirm(ShardId(shard), "mail", Offset(shard + 1))
    for shard, stored in feeds.items():
        (slot,) = await stored.feed.consumers(ShardId(shard))
        assert (slot.name, slot.offset) == ("mail", shard + 1)
    _, listed = await served.get("/v1/feed/consumers")
    assert [(one["shard"], one["offset"]) for one in listed["consumers"]] == [(0, 1), (1, 2)]
    await source.forget(ShardId(0), "mail")
    assert list(await source.consumers(ShardId(0))) == []
    await source.close()


async def test_before_several_shards_a_request_names_one(
    routed: tuple[RoutedServed, dict[int, StoredFeed]],
) -> None:
    served, _ = routed
    assert await refusal(served, "/v1/feed") == (400, "MALFORMED")
    assert await refusal(served, "/v1/feed?shard=2") == (404, "NOT_FOUND")
    assert await refusal(served, "/v1/feed/consumers?shard=2") == (404, "NOT_FOUND")
    more: Any = {"json": {"offset": 1}}
    assert await refusal(served, "/v1/feed/consumers/a", "PUT", **more) == (400, "MALFORMED")


async def test_a_shard_that_starts_again_is_gone_on_with_behind_the_front(
    routed: tuple[RoutedServed, dict[int, StoredFeed]],
) -> None:
    served, feeds = routed
    stored = feeds[1]
    source = HttpFeed(served.url, first_delay_s=0.01)
    pages = source.pages(ShardId(1), Offset(0))
    assert commands_of(list((await anext(pages)).groups)) == stored.written
    await served.stop_shard(1)
    stored.write(3)
    await served.start_shard(1)
    found: list[Any] = []
    async with asyncio.timeout(60):
        while len(found) < 3:
            found += (await anext(pages)).groups
    assert commands_of(found) == stored.written[5:]
    await pages.aclose()
    await source.close()


async def test_the_source_of_a_front_knows_its_shards_and_no_others(
    routed: tuple[RoutedServed, dict[int, StoredFeed]],
) -> None:
    served, _ = routed
    edge = cast("RoutedEdge", served.gateway.edge)
    source = RoutedSource(edge, KnownCaller("acme", "p", frozenset({"feed"})))
    for _ in range(2):
        assert list(await source.consumers(ShardId(0))) == []
    with pytest.raises(EngineError) as caught:
        await source.consumers(ShardId(2))
    assert caught.value.code == "NOT_FOUND"
    await source.close()


async def test_a_shard_that_stays_away_is_unavailable_and_the_others_are_not(
    routed: tuple[RoutedServed, dict[int, StoredFeed]],
) -> None:
    served, feeds = routed
    await served.stop_shard(1)
    assert await refusal(served, "/v1/feed?shard=1") == (503, "SHARD_UNAVAILABLE")
    source = HttpFeed(served.url)
    assert len(await collect(source, 0, feeds[0].end, shard=ShardId(0))) == 4
    await source.close()


class Named:
    """A front whose first shard has a name with two addresses: of a leader and a follower."""

    def __init__(self, served: RoutedServed, serving: Serving, stored: StoredFeed) -> None:
        self._served, self._serving, self._stored = served, serving, stored
        self.refusal: EngineError | None = None

    async def start(self) -> None:
        never = EngineError("replica 0 leads", code="NOT_LEADER")
        end = int(self._stored.log.reader().durable_end)
        self.copy = Feed(
            CopiedGroups(lambda: self._stored.log, lambda: end),
            ShardId(0),
            refusal=lambda: self.refusal,
        )
        self.copy.publish(self._stored.recorded, 0)
        told: dict[str, Any] = {"identity": HopIdentity(SECRET)}
        self.follower = await self._serving(
            source=self.copy, role="follower", refusal=lambda: never, **told
        )
        self.leader = await self._serving(source=self._stored.feed, role="leader", **told)

        async def resolve(_host: str, _port: int) -> list[tuple[str, int]]:
            return [one.gateway.addresses[0] for one in (self.leader, self.follower)]

        links = self._served.links
        links._links[ShardId(0)] = Link(Address(host="shard-0", port=1), resolve=resolve)

    @property
    def feeds(self) -> tuple[int, int]:
        both = self.leader, self.follower
        leader, follower = (one.gateway.edge.metrics.feeds_open for one in both)
        return leader, follower


async def test_a_front_gives_the_pages_of_a_follower_to_who_may_read_them_and_slots_to_the_leader(
    routed: tuple[RoutedServed, dict[int, StoredFeed]], serving: Serving
) -> None:
    served, feeds = routed
    named = Named(served, serving, feeds[0])
    await named.start()
    for read, expected in (("leader", (1, 0)), ("follower", (0, 1))):
        source = HttpFeed(served.url, read=cast("FeedRead", read), first_delay_s=0.01)
        async with aclosing(source.pages(ShardId(0), Offset(0))) as pages:
            page = await anext(pages)
            assert commands_of(list(page.groups)) == feeds[0].written
            assert named.feeds == expected
        await source.confirm(ShardId(0), read, Offset(1))
        await source.close()
        async with asyncio.timeout(60):
            while named.feeds != (0, 0):  # noqa: ASYNC110  (the front notices in a moment)
                await asyncio.sleep(0.01)
    slots = await feeds[0].feed.consumers(ShardId(0))
    assert [one.name for one in slots] == ["follower", "leader"]
    named.refusal = EngineError("it is behind", code="NOT_LEADER")
    source = HttpFeed(served.url, read="follower", first_delay_s=0.01)
    async with aclosing(source.pages(ShardId(0), Offset(0))) as pages:
        await anext(pages)
        assert named.feeds == (1, 0)
    await source.close()
    await named.copy.close()


async def test_a_name_without_an_address_is_a_shard_that_is_away(
    routed: tuple[RoutedServed, dict[int, StoredFeed]],
) -> None:
    served, _ = routed

    async def resolve(host: str, _port: int) -> list[tuple[str, int]]:
        raise OSError(f"no such name: {host}")

    served.links._links[ShardId(0)] = Link(Address(host="shard-0", port=1), resolve=resolve)
    assert await refusal(served, "/v1/feed?shard=0") == (503, "SHARD_UNAVAILABLE")


def test_an_address_of_the_sixth_version_is_put_in_brackets() -> None:
    assert _url(Address(host="::1", port=80)) == "http://[::1]:80"
    assert _url(Address(host="a", port=80)) == "http://a:80"
    assert _url(Address(path="/run/0.sock")) == "http://shard"
