"""The stream protocol, over real WebSockets."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import WSMsgType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.gateway.conftest import CountingRandom, Served, Serving, add

from ultraengine.domains.counter import DOMAIN
from ultraengine.domains.ledger import DOMAIN as LEDGER
from ultraengine.edge.auth import ApiKeys, KeyTable, entry_text, issue_key
from ultraengine.edge.codec import JSON, MSGPACK, Codec
from ultraengine.gateway import stream
from ultraengine.gateway.frames import CommandFrame, Subscribe, read_frame
from ultraengine.gateway.stream import SUBPROTOCOLS
from ultraengine.model.errors import EngineError
from ultraengine.model.limits import DEFAULT_LIMITS, Limits

CODECS = pytest.mark.parametrize("name", list(SUBPROTOCOLS))


class Client:
    """One stream of a client."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, codec: Codec) -> None:
        self.socket = socket
        self.codec = codec
        self._objects: list[Any] = []

    async def say(self, message: Any) -> None:
        data = self.codec.encode(message)
        if self.codec is JSON:
            await self.socket.send_str(data.decode())
        else:
            await self.socket.send_bytes(data)

    async def frame(self) -> Any:
        """The next frame, decoded."""
        message = await self.socket.receive(5)
        assert message.type in {WSMsgType.TEXT, WSMsgType.BINARY}, message
        assert (message.type is WSMsgType.TEXT) is (self.codec is JSON)
        decode = msgspec.json.decode if self.codec is JSON else msgspec.msgpack.decode
        return decode(message.data)

    async def next(self) -> Any:
        """The next object, however grouped."""
        while not self._objects:
            frame = await self.frame()
            self._objects += frame if isinstance(frame, list) else [frame]
        return self._objects.pop(0)

    async def replies(self, count: int) -> list[Any]:
        """So many replies; credit in between is passed over."""
        found: list[Any] = []
        while len(found) < count:
            item = await self.next()
            if item.get("op") != "credit":
                found.append(item)
        return found

    async def subscribe(self, from_offset: int, **more: Any) -> None:
        """Ask for events, and read that they will come."""
        await self.say({"op": "subscribe", "from": from_offset, **more})
        shard = {"shard": more["shard"]} if "shard" in more else {}
        assert await self.next() == {"op": "subscribed", "from": from_offset, **shard}

    async def closed(self) -> int | None:
        """The code with which the engine closes, whatever comes before."""
        while True:
            message = await self.socket.receive(5)
            if message.type in {WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING}:
                return self.socket.close_code


async def connect(served: Served, name: str = "ultra.v1.json", **headers: str) -> Client:
    socket = await served.http.ws_connect("/v1/stream", protocols=(name,), headers=headers)
    assert socket.protocol == name
    return Client(socket, SUBPROTOCOLS[name])


async def opened(served: Served, name: str = "ultra.v1.json", **headers: str) -> Client:
    """A stream whose hello has been read."""
    client = await connect(served, name, **headers)
    hello = await client.next()
    assert hello["op"] == "hello"
    return client


@CODECS
async def test_a_stream_begins_with_what_the_client_must_know(served: Served, name: str) -> None:
    client = await connect(served, name)
    hello = await client.next()
    assert hello == {
        "op": "hello",
        "credit": 4_096,
        "limits": {
            "commands_per_batch_max": 1_000,
            "items_per_command_max": 1_000,
            "command_bytes_max": 1024**2,
            "batch_bytes_max": 8 * 1024**2,
            "stream_credit": 4_096,
            "stream_buffer_bytes_max": 4 * 1024**2,
        },
        "shard_map_version": 0,
        "capabilities": ["commands"],
    }


@CODECS
async def test_commands_alone_and_in_arrays_are_answered_in_their_order(
    served: Served, name: str
) -> None:
    client = await opened(served, name)
    await client.say(add("1"))
    await client.say([add("2"), {"id": "3", "type": 1}, add("4", data={"delta": 1, "maximum": 0})])
    await client.say([])
    await client.say(add("1"))
    await client.say(add(None))
    replies = await client.replies(6)
    assert [reply["id"] for reply in replies[:5]] == ["1", "2", "3", "4", "1"]
    assert [reply["outcome"] for reply in replies] == [
        "accepted",
        "accepted",
        "refused",
        "rejected",
        "accepted",
        "accepted",
    ]
    assert replies[4]["duplicate"] is True
    assert len(replies[5]["id"]) == 36


async def test_a_lone_reply_is_an_object_and_replies_of_one_turn_are_one_array(
    served: Served,
) -> None:
    client = await opened(served)
    await client.say(add("1"))
    assert (await client.frame())["id"] == "1"
    await client.say([add("2"), add("3")])
    assert [reply["id"] for reply in await client.frame()] == ["2", "3"]


async def test_replies_wait_for_those_of_earlier_frames(served: Served) -> None:
    client = await opened(served)
    served.engine.held = []
    await client.say(add("1"))
    await until(lambda: bool(served.engine.held))
    first, served.engine.held = served.engine.held, None
    await client.say(add("2"))
    await until(lambda: len(served.engine.outcomes) == 1)
    with pytest.raises(TimeoutError):
        await client.socket.receive(0.1)
    served.engine.submit(*first[0])
    assert [reply["id"] for reply in await client.replies(2)] == ["1", "2"]


async def until(happened: Callable[[], bool]) -> None:
    """Wait for something that the event loop is about to do."""
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110  (it has no event of its own)
            await asyncio.sleep(0.01)


async def test_credit_comes_back_with_the_replies(serving: Serving) -> None:
    served = await serving(limits=Limits(stream_credit=8))
    client = await opened(served)
    credit, answered = 8, 0
    for turn in range(20):
        count = min(credit, 3)
        await client.say([add(f"{turn}-{n}") for n in range(count)])
        credit -= count
        wanted = answered + count
        while answered < wanted or credit == 0:
            item = await client.next()
            if item.get("op") == "credit":
                credit += item["n"]
            else:
                answered += 1
    assert answered >= 40
    assert credit >= 8 - 2 - 3


async def test_who_spends_more_than_its_credit_is_closed_with_4008(serving: Serving) -> None:
    served = await serving(limits=Limits(stream_credit=5))
    client = await opened(served)
    served.engine.held = []
    await client.say([add(str(n)) for n in range(3)])
    await client.say([add(str(n)) for n in range(3, 6)])
    error = await client.next()
    assert (error["op"], error["code"]) == ("error", "OVERLOADED")
    assert await client.closed() == 4008
    assert served.engine.submitted == 3, "nothing of the frame that was too much is taken"


async def test_commands_that_were_answered_do_not_count(serving: Serving) -> None:
    served = await serving(limits=Limits(stream_credit=5))
    client = await opened(served)
    for turn in range(4):
        await client.say([add(f"{turn}-{n}") for n in range(5)])
        assert len(await client.replies(5)) == 5


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("ultra.v1.json", "{"),
        ("ultra.v1.json", "5"),
        ("ultra.v1.json", '{"op": 7}'),
        ("ultra.v1.json", '"text"'),
        ("ultra.v1.json", ""),
        ("ultra.v1.msgpack", b"\xc1"),
        ("ultra.v1.msgpack", b""),
        ("ultra.v1.msgpack", b"\x05"),
    ],
)
async def test_a_frame_that_is_none_ends_the_stream_with_4000(
    served: Served, name: str, frame: str | bytes
) -> None:
    client = await opened(served, name)
    if isinstance(frame, str):
        await client.socket.send_str(frame)
    else:
        await client.socket.send_bytes(frame)
    error = await client.next()
    assert (error["op"], error["code"]) == ("error", "MALFORMED")
    assert await client.closed() == 4000


async def test_a_frame_of_the_other_kind_ends_the_stream_with_1003(served: Served) -> None:
    client = await opened(served)
    await client.socket.send_bytes(b"{}")
    assert await client.closed() == 1003
    client = await opened(served, "ultra.v1.msgpack")
    await client.socket.send_str("{}")
    assert await client.closed() == 1003


async def test_a_frame_that_is_too_large_ends_the_stream_with_1009(serving: Serving) -> None:
    served = await serving(limits=Limits(batch_bytes_max=1_000, commands_per_batch_max=3))
    client = await opened(served)
    await client.say([add(str(n)) for n in range(4)])
    assert (await client.next())["code"] == "TOO_LARGE"
    assert await client.closed() == 1009
    client = await opened(served)
    await client.say(add(correlation_id="x" * 1_000))
    assert await client.closed() == 1009
    assert served.engine.submitted == 0


async def test_odd_protocol_objects_are_answered_and_the_stream_goes_on(served: Served) -> None:
    client = await opened(served)
    for message, code in (
        ({"op": "hello"}, "MALFORMED"),
        ({"op": "dance"}, "MALFORMED"),
        ({"op": "subscribe"}, "MALFORMED"),
        ({"op": "subscribe", "from": -1}, "MALFORMED"),
        ({"op": "subscribe", "from": 0}, "NOT_FOUND"),
    ):
        await client.say(message)
        error = await client.next()
        assert (error["op"], error["code"]) == ("error", code)
    await client.say(add())
    assert (await client.next())["outcome"] == "accepted"


async def test_a_tenant_above_its_quota_is_refused_singly(serving: Serving) -> None:
    served = await serving(limits=Limits(tenant_commands_per_s=1.0, tenant_burst=2))
    client = await opened(served)
    await client.say([add("1"), add("2")])
    await client.say([add("3"), {"id": "4"}, add(None)])
    replies = (await client.replies(5))[2:]
    assert [reply["error"]["code"] for reply in replies] == ["QUOTA", "MALFORMED", "QUOTA"]
    assert [reply["id"] for reply in replies[:2]] == ["3", "4"]
    assert replies[0]["error"]["retry_after_s"] > 0


async def test_replies_that_do_not_come_in_time_are_unknown(served: Served) -> None:
    client = await opened(served)
    served.engine.held = []
    await client.say([add("1"), add("2")])
    await until(lambda: bool(served.engine.held))
    served.clock.advance(31)
    replies = await client.replies(2)
    assert [reply["outcome"] for reply in replies] == ["unknown", "unknown"]
    served.engine.release()
    await client.say(add("3"))
    assert (await client.replies(1))[0]["id"] == "3"


@pytest.mark.parametrize(
    ("headers", "status", "pointer"),
    [
        ({}, 400, "/header/sec-websocket-protocol"),
        ({"Sec-WebSocket-Protocol": "chat"}, 400, "/header/sec-websocket-protocol"),
        ({"Sec-WebSocket-Protocol": "ultra.v1.json"}, 400, None),
    ],
)
async def test_what_is_no_upgrade_of_ours_is_a_problem(
    served: Served, headers: dict[str, str], status: int, pointer: str | None
) -> None:
    async with served.http.get("/v1/stream", headers=headers) as answer:
        assert (answer.status, answer.content_type) == (status, "application/problem+json")
        body = await answer.json(content_type=None)
    assert body["code"] == "MALFORMED"
    assert body.get("pointer") == pointer


async def test_more_streams_than_may_be_open_are_turned_away(serving: Serving) -> None:
    served = await serving(limits=Limits(streams_max=1, requests_in_flight_max=1))
    client = await opened(served)
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await connect(served)
    assert caught.value.status == 429
    assert caught.value.headers is not None
    assert caught.value.headers["Retry-After"] == "5"
    await client.socket.close()
    await until(lambda: served.gateway.edge.metrics.streams_open == 0)
    await opened(served)


# --- events --------------------------------------------------------------------------------


@CODECS
async def test_events_come_from_the_offset_asked_for_and_go_on(serving: Serving, name: str) -> None:
    served = await serving(feed=True)
    for n in range(3):
        await served.send(add(f"old-{n}", correlation_id="c-1"))
    client = await connect(served, name)
    assert (await client.next())["capabilities"] == ["commands", "subscribe"]
    await client.subscribe(1)
    event = await client.next()
    assert event == {
        "op": "event",
        "shard": 0,
        "epoch": 1,
        "offset": 1,
        "time": "2027-01-15T08:00:00.000000Z",
        "id": "old-1",
        "type": "counter.add@1",
        "key": "book-1",
        "principal": "loopback",
        "correlation_id": "c-1",
        "traceparent": None,
        "outcome": "accepted",
        "version": 2,
        "result": {"value": 10},
        "events": [["added", 5, 10]],
        "error": None,
    }
    assert (await client.next())["offset"] == 2
    await client.say(add("new"))
    seen = [await client.next() for _ in range(2)]
    assert {item.get("op") for item in seen} == {None, "event"}
    assert {item["id"] for item in seen} == {"new"}


async def test_a_stream_has_one_subscription(serving: Serving) -> None:
    served = await serving(feed=True)
    client = await opened(served)
    await client.subscribe(0)
    await client.say({"op": "subscribe", "from": 0})
    assert (await client.next())["code"] == "MALFORMED"


async def test_a_subscription_below_the_log_is_told_so_and_may_try_again(
    serving: Serving,
) -> None:
    served = await serving(feed=True)
    assert served.gateway.edge.feed is not None
    served.gateway.edge.feed.floor = 5  # type: ignore[attr-defined]
    client = await opened(served)
    await client.say({"op": "subscribe", "from": 0})
    assert (await client.next())["code"] == "TOO_OLD"
    served.gateway.edge.feed.floor = 0  # type: ignore[attr-defined]
    await served.send(add())
    await client.subscribe(0)
    assert (await client.next())["offset"] == 0


async def test_a_subscription_may_be_to_some_domains_alone(serving: Serving) -> None:
    served = await serving(feed=True, domains=(DOMAIN, LEDGER))
    opening = {"accounts": [{"id": "a", "asset": "USD/2"}]}
    await served.send(add("1"))
    await served.send(add("2", type="ledger.open_accounts", data=opening))
    await served.send(add("3"))
    client = await opened(served)
    await client.subscribe(0, domains=["ledger", "trading"])
    assert (await client.next())["id"] == "2"
    other = await opened(served)
    await other.subscribe(0, domains=["counter"])
    assert [(await other.next())["id"] for _ in range(2)] == ["1", "3"]
    nothing = await opened(served)
    await nothing.subscribe(0, domains=[])
    await served.send(add("4"))
    with pytest.raises(TimeoutError):
        await nothing.socket.receive(0.1)


@pytest.mark.parametrize("domains", ["ledger", ["Ledger"], [""], ["a"] * 65, [1], {"a": 1}])
async def test_domains_that_are_none_are_refused(serving: Serving, domains: Any) -> None:
    client = await opened(await serving(feed=True))
    await client.say({"op": "subscribe", "from": 0, "domains": domains})
    error = await client.next()
    assert (error["op"], error["code"]) == ("error", "MALFORMED")


async def test_a_subscriber_to_whom_nothing_is_sent_is_told_where_it_stands(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ultraengine.gateway.stream.POSITION_EVERY_S", 0.0)
    served = await serving(feed=True)
    await served.send(add("1"))
    client = await opened(served)
    await client.subscribe(0, domains=["ledger"])
    assert await client.next() == {"op": "position", "offset": 1}
    await served.send(add("2"))
    assert await client.next() == {"op": "position", "offset": 2}


def two_tenants() -> tuple[dict[str, str], bytes]:
    keys: dict[str, str] = {}
    text = ""
    random = CountingRandom()
    for tenant, scopes in (
        ("acme", ["*:write", "counter:read"]),
        ("rival", ["*:write", "*:read"]),
        ("blind", ["*:write"]),
    ):
        keys[tenant], entry = issue_key(random, tenant=tenant, principal="p", scopes=scopes)
        text += entry_text(entry)
    return keys, text.encode()


async def test_a_subscriber_sees_its_own_tenant_and_what_it_may_read(serving: Serving) -> None:
    keys, text = two_tenants()
    served = await serving(feed=True, identity=lambda clock: ApiKeys(KeyTable.parse(text), clock))
    clients = {
        tenant: await opened(served, Authorization=f"Bearer {key}") for tenant, key in keys.items()
    }
    for client in clients.values():
        await client.subscribe(0)
    for tenant, client in clients.items():
        await client.say(add(f"{tenant}-1"))
        await client.say(add(f"{tenant}-2"))
    for tenant in ("acme", "rival"):
        items = [await clients[tenant].next() for _ in range(4)]
        events = [item["id"] for item in items if item.get("op") == "event"]
        assert events == [f"{tenant}-1", f"{tenant}-2"]
    assert len(await clients["blind"].replies(2)) == 2
    with pytest.raises(TimeoutError):
        await clients["blind"].socket.receive(0.1)


async def test_a_stream_ends_with_4001_when_its_key_is_gone(serving: Serving) -> None:
    keys, text = two_tenants()
    served = await serving(identity=lambda clock: ApiKeys(KeyTable.parse(text), clock))
    doomed = await opened(served, Authorization=f"Bearer {keys['acme']}")
    other = await opened(served, Authorization=f"Bearer {keys['rival']}")
    identity = served.gateway.edge.identity
    assert isinstance(identity, ApiKeys)
    parts = text.decode().split("[[keys]]")
    identity.table = KeyTable.parse(("[[keys]]" + "[[keys]]".join(parts[2:])).encode())
    assert await doomed.closed() == 4001
    await other.say(add())
    assert (await other.next())["outcome"] == "accepted"


async def test_a_stream_ends_when_its_key_may_do_other_things_than_before(
    serving: Serving,
) -> None:
    keys, text = two_tenants()
    served = await serving(identity=lambda clock: ApiKeys(KeyTable.parse(text), clock))
    client = await opened(served, Authorization=f"Bearer {keys['blind']}")
    identity = served.gateway.edge.identity
    assert isinstance(identity, ApiKeys)
    identity.table = KeyTable.parse(text.replace(b'"*:write"', b'"counter:read"'))
    assert await client.closed() == 4001


# --- slow clients --------------------------------------------------------------------------


async def raw_stream(served: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket whose client side we write by hand, with small socket buffers."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, served.gateway.addresses[0])
    reader, writer = await asyncio.open_connection(sock=plain, limit=1_024)
    writer.write(
        b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Sec-WebSocket-Protocol: ultra.v1.json\r\n\r\n"
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101")
    return reader, writer


def masked(payload: bytes) -> bytes:
    """A text frame of a client, with a mask of zeros (RFC 6455 §5.2)."""
    return b"\x81\xfe" + len(payload).to_bytes(2, "big") + bytes(4) + payload


async def test_a_client_that_does_not_read_is_cut_off_and_costs_bounded_memory(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SEND_STALL_S", 0.5)
    monkeypatch.setattr(stream, "CLOSE_WAIT_S", 0.2)
    limits = Limits(stream_buffer_bytes_max=200_000, stream_credit=100_000)
    served = await serving(limits=limits)
    _reader, writer = await raw_stream(served)
    metrics = served.gateway.edge.metrics
    assert metrics.streams_open == 1
    sent = 0
    async with asyncio.timeout(20):
        while metrics.streams_open:
            commands = JSON.encode([add(str(sent * 500 + n)) for n in range(500)])
            writer.write(masked(commands))
            sent += 1
            await asyncio.sleep(0.01)
            if sent > 200:
                await asyncio.sleep(0.1)
    assert metrics.streams_closed == {4008: 1}
    assert served.engine.submitted < 60_000, "an engine that is not read stops reading itself"
    writer.close()


async def test_no_more_is_read_while_too_many_bytes_are_unanswered(serving: Serving) -> None:
    served = await serving(limits=Limits(stream_buffer_bytes_max=20_000, stream_credit=100_000))
    client = await opened(served)
    served.engine.held = []
    for start in range(0, 2_000, 50):
        await client.say([add(str(start + n)) for n in range(50)])
    await until(lambda: served.engine.submitted > 100)
    await asyncio.sleep(0.3)
    assert served.engine.submitted < 500
    served.engine.release()
    assert len(await client.replies(2_000)) == 2_000


async def test_a_client_that_reads_late_loses_nothing(serving: Serving) -> None:
    limits = Limits(stream_buffer_bytes_max=50_000, stream_credit=100_000)
    served = await serving(limits=limits)
    client = await opened(served)
    for start in range(0, 5_000, 500):
        await client.say([add(str(start + n)) for n in range(500)])
    await asyncio.sleep(0.2)
    replies = await client.replies(5_000)
    assert [reply["id"] for reply in replies] == [str(n) for n in range(5_000)]


# --- going away ----------------------------------------------------------------------------


async def test_a_draining_gateway_answers_what_it_took_then_says_goodbye(
    serving: Serving,
) -> None:
    served = await serving(feed=True)
    await served.send(add("0"))
    client = await opened(served)
    await client.subscribe(0)
    assert (await client.next())["offset"] == 0
    served.engine.held = []
    await client.say(add("1"))
    await until(lambda: bool(served.engine.held))
    draining = asyncio.create_task(served.gateway.drain())
    goodbye = await client.next()
    assert goodbye == {"op": "goaway", "retry_after": 2.0, "resume": 1}
    await client.say(add("too-late"))
    await asyncio.sleep(0.1)
    assert not draining.done()
    async with served.http.post("/v1/commands", json=add("2")) as answer:
        assert (answer.status, answer.headers["Connection"]) == (503, "close")
        assert (await answer.json(content_type=None))["code"] == "DRAINING"
        assert answer.headers["Retry-After"] == "2"
    async with served.http.post("/v1/commands:batch", json=[add("3")]) as answer:
        assert answer.status == 503
    async with served.http.get("/v1/counter/book-1") as answer:
        assert answer.status == 503
    async with served.http.get("/readyz") as answer:
        assert answer.status == 503
    async with served.http.get("/healthz") as answer:
        assert answer.status == 200
    served.engine.release()
    seen = {}
    for _ in range(3):
        item = await client.next()
        seen[item.get("op") or item["id"]] = item
    assert seen["1"]["outcome"] == "accepted"
    assert seen["too-late"]["error"]["code"] == "DRAINING"
    assert seen["event"]["offset"] == 1
    assert await client.closed() == 1001
    await asyncio.wait_for(draining, 5)


async def test_a_drain_does_not_wait_longer_than_its_limit(serving: Serving) -> None:
    served = await serving(limits=Limits(drain_s=0.3))
    client = await opened(served)
    served.engine.held = []
    await client.say(add("1"))
    waiting = asyncio.create_task(served.send(add("2")))
    await until(lambda: len(served.engine.held or ()) == 2)
    draining = asyncio.create_task(served.gateway.drain())
    assert await client.closed() == 1001
    await asyncio.wait_for(draining, 4)
    served.engine.release()
    assert (await waiting)[0] == 200


# --- frames, without sockets ---------------------------------------------------------------


def test_frames_are_told_apart_by_their_op() -> None:
    for codec in (JSON, MSGPACK):

        def read(value: Any, codec: Codec = codec) -> Any:
            return read_frame(codec.encode(value), codec.name, DEFAULT_LIMITS)

        assert isinstance(read(add()), CommandFrame)
        assert len(read([add("1"), add("2"), 3]).parsed) == 3
        assert read({"op": "subscribe", "from": 7}) == Subscribe("subscribe", 7)
        some = read({"op": "subscribe", "from": 7, "domains": ["a", "b"]})
        assert some == Subscribe("subscribe", 7, domains=("a", "b"))
        assert isinstance(read({"op": "goaway"}), EngineError)
        assert isinstance(read({"op": "subscribe", "from": 7, "more": 1}), EngineError)
    assert len(read_frame(b" \n[ ]", "json", DEFAULT_LIMITS).parsed) == 0  # type: ignore[union-attr]
    many = MSGPACK.encode([add(str(n)) for n in range(500)])
    assert len(read_frame(many, "msgpack", DEFAULT_LIMITS).parsed) == 500  # type: ignore[union-attr]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from(["op", "from", "id", "type", "key", "data"]), VALUES)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    frames=st.lists(st.binary() | OBJECTS | st.lists(OBJECTS), max_size=5),
    name=st.sampled_from(list(SUBPROTOCOLS)),
)
async def test_any_frames_are_answered_or_end_the_stream_with_a_code_of_the_contract(
    served: Served, frames: list[Any], name: str
) -> None:
    client = await opened(served, name)
    for frame in frames:
        data = frame if isinstance(frame, bytes) else client.codec.encode(frame)
        if client.codec is JSON and not isinstance(frame, bytes):
            await client.socket.send_str(data.decode())
        else:
            await client.socket.send_bytes(data)
        if client.socket.closed:
            break
    await client.socket.close()
    assert client.socket.close_code in {1000, 1003, 4000}
    assert served.gateway.edge.metrics.streams_closed.get(4011, 0) == 0
    assert (await served.get("/healthz"))[0] == 200


def test_every_close_code_is_in_the_documented_protocol() -> None:
    page = (Path(__file__).parents[3] / "docs" / "stream.md").read_text()
    table = page.partition("## Close codes")[2]
    codes = {value for name, value in vars(stream).items() if name.isupper() and type(value) is int}
    codes -= {stream.REPLIES_PER_FRAME, stream.DIRECT_BYTES_MAX}
    assert {1000, 1001, 1003, 1009, 4000, 4001, 4008, 4011} == codes
    assert all(f"\n| {code} |" in table for code in codes)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535])
def test_the_head_of_a_direct_frame_is_what_a_general_writer_makes(size: int) -> None:
    head = stream._head(2, size)
    assert head[0] == 0x82
    assert head[1] == min(size, 126)
    assert head[2:] == (b"" if size < 126 else size.to_bytes(2, "big"))


@CODECS
async def test_frames_for_the_writer_and_direct_ones_arrive_in_the_order_of_commands(
    served: Served, name: str
) -> None:
    client = await opened(served, name)
    expected = []
    for turn in range(12):
        # The replies of an array take more than a direct frame may, those of the others do not.
        many = [f"{turn}-{number}" for number in range(150)]
        expected += [*many, f"{turn}-after"]
        await client.say([add(one) for one in many])
        await client.say(add(f"{turn}-after"))
    replies = await client.replies(len(expected))
    assert [reply["id"] for reply in replies] == expected


async def test_one_shard_has_no_events_of_another(serving: Serving) -> None:
    client = await opened(await serving(feed=True))
    await client.say({"op": "subscribe", "from": 0, "shard": 1})
    error = await client.next()
    assert (error["code"], error["pointer"]) == ("MALFORMED", "/shard")
