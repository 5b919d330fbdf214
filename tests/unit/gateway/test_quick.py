"""The data path's own HTTP: it agrees with the general server, or leaves the request to it."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.gateway.conftest import Served, Serving, add

from ultraengine.gateway import quick
from ultraengine.gateway.driver import GatewayOptions
from ultraengine.gateway.quick import (
    HEAD_BYTES_MAX,
    HEADS_MAX,
    KNOWN_HEAD_BYTES_MAX,
    PIPELINED_BYTES_MAX,
    read_head,
)
from ultraengine.model.limits import Limits


def request(command: Any, *headers: str, path: str = "/v1/commands", close: bool = False) -> bytes:
    """A plain request."""
    body = msgspec.json.encode(command)
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
        *(["Connection: close"] if close else []),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class Line:
    """One connection to a gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> tuple[int, Any]:
        """The next answer: status and body."""
        async with asyncio.timeout(5):
            head = await self.reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"(?i)content-length: (\d+)", head)
            body = await self.reader.readexactly(int(found[1])) if found else b""
        return int(head.split(b" ", 2)[1]), msgspec.json.decode(body) if body else None

    async def ended(self) -> bool:
        async with asyncio.timeout(5):
            return await self.reader.read() == b""


_open: list[Line] = []


async def line(served: Served) -> Line:
    """A new connection, closed at the end of the test."""
    made = Line(*await asyncio.open_connection(*served.gateway.addresses[0]))
    _open.append(made)
    return made


@pytest.fixture(autouse=True)
async def hang_up() -> AsyncIterator[None]:
    yield
    while _open:
        _open.pop().writer.close()
    await asyncio.sleep(0)


def quick_connections(served: Served) -> int:
    return len(served.gateway._quick[0].connections)


async def until(happened: Callable[[], bool]) -> None:
    """Wait for something that the event loop is about to do."""
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110  (it has no event of its own)
            await asyncio.sleep(0.01)


# --- what is plain -------------------------------------------------------------------------


def test_header_lines_are_read_by_lower_case_name_without_blanks_around() -> None:
    head = read_head(b"Host: a\r\nCONTENT-length:  5 \t\r\nX-Empty:\r\nY: a b\tc\r\n")
    assert head is not None
    assert head.headers == {"host": "a", "content-length": "5", "x-empty": "", "y": "a b\tc"}
    assert (head.length, head.close) == (5, False)


async def test_a_head_is_read_once_and_only_if_it_says_nothing_of_a_single_command(
    served: Served,
) -> None:
    server = served.gateway._quick[0]
    plain = b"Host: a\r\nContent-Length: 5\r\n"
    assert server.read(plain) is server.read(plain)
    for name in ("Idempotency-Key", "If-Match", "traceparent", "Prefer"):
        own = plain + f"{name}: x\r\n".encode()
        assert server.read(own) is not server.read(own)
    long = plain + b"X: " + b"y" * KNOWN_HEAD_BYTES_MAX + b"\r\n"
    assert server.read(long) is not server.read(long)


async def test_remembered_heads_are_bounded(served: Served) -> None:
    server = served.gateway._quick[0]
    for number in range(2 * HEADS_MAX):
        server.read(f"Host: a\r\nContent-Length: {number}\r\n".encode())
        assert len(server._heads) <= HEADS_MAX


async def test_a_remembered_head_is_authenticated_and_counted_each_time(served: Served) -> None:
    one = await line(served)
    for number in range(3):
        one.writer.write(request(add(f"h{number}")))
        assert (await one.answer())[0] == 200
    served.gateway.edge.draining = True
    one.writer.write(request(add("h3")))
    assert (await one.answer())[0] == 503


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"Host: a\r\n",
        b"Content-Length: 5\r\n",
        b"Host: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
        b"Host: a\r\nhost: b\r\nContent-Length: 5\r\n",
        b"Host: a\r\nContent-Length: +5\r\n",
        b"Host: a\r\nContent-Length: 5, 5\r\n",
        b"Host: a\r\nContent-Length: 0x5\r\n",
        b"Host: a\r\nContent-Length: \r\n",
        b"Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Host: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n",
        b"Host: a\r\nContent-Length: 5\r\nConnection: Upgrade\r\n",
        b"Host: a\r\nContent-Length: 5\r\nUpgrade: h2c\r\n",
        b"Host: a\r\nContent-Length : 5\r\n",
        b"Host: a\r\nContent-Length: 5\r\n folded: x\r\n",
        b"Host: a\r\nContent-Length: 5\r\nX: \x00\r\n",
        b"Host: a\r\nContent-Length: 5\r\nX: \xe4\r\n",
        b"Host: a\r\nContent-Length: 5\r\nX: a\nY: b\r\n",
        b"Host: a\r\nContent-Length: 5\r\nX: a\rY: b\r\n",
        b"Host: a\r\nContent-Length: 5\r\nno colon\r\n",
        b"Host: a\r\nContent-Length: 5\r\n: no name\r\n",
        b"Host: a\r\nContent-Length: 5\r\nX\x7f: a\r\n",
        b"Host: a\r\nContent-Length: 5",
    ],
)
def test_what_is_not_plain_is_left_to_the_general_server(lines: bytes) -> None:
    assert read_head(lines) is None


def test_a_head_made_to_be_slow_is_read_in_linear_time() -> None:
    for attack in (b"X:" + b" " * 60_000 + b"\x80", b"a:b\r\n" * 12_000 + b"\x80", b"!" * 60_000):
        start = time.process_time()
        assert read_head(attack) is None
        # Not a measurement: a quadratic one would take minutes.
        assert time.process_time() - start < 5


# --- one connection ------------------------------------------------------------------------


async def test_requests_of_one_connection_are_answered_one_after_the_other(
    served: Served,
) -> None:
    client = await line(served)
    for turn in range(3):
        client.writer.write(request(add(str(turn))))
        status, body = await client.answer()
        assert (status, body["id"], body["offset"]) == (200, str(turn), turn)
    assert quick_connections(served) == 1
    client.writer.close()
    await until(lambda: quick_connections(served) == 0)


async def test_bytes_may_come_one_by_one(served: Served) -> None:
    client = await line(served)
    for byte in request(add("a")) + request([add("b")], path="/v1/commands:batch"):
        client.writer.write(bytes((byte,)))
        await client.writer.drain()
        await asyncio.sleep(0)
    assert (await client.answer())[1]["id"] == "a"
    assert (await client.answer())[1][0]["id"] == "b"
    assert quick_connections(served) == 1


async def test_pipelined_requests_are_answered_in_their_order(served: Served) -> None:
    client = await line(served)
    served.engine.held = []
    client.writer.write(
        request(add("1")) + request({"no": 1}) + request([add("2")], path="/v1/commands:batch")
    )
    await until(lambda: bool(served.engine.held))
    await asyncio.sleep(0.05)
    assert served.engine.submitted == 1, "one at a time"
    served.engine.release()
    assert (await client.answer())[1]["id"] == "1"
    assert (await client.answer())[0] == 400
    assert (await client.answer())[1][0]["id"] == "2"


async def test_a_long_pipeline_is_held_back_and_nothing_is_lost(served: Served) -> None:
    client = await line(served)
    served.engine.held = []
    count = 3 * PIPELINED_BYTES_MAX // len(request(add("00000")))

    async def send() -> None:
        for number in range(count):
            client.writer.write(request(add(f"{number:05}")))
            await client.writer.drain()

    sending = asyncio.create_task(send())
    await until(lambda: bool(served.engine.held))
    await asyncio.sleep(0.2)
    (connection,) = served.gateway._quick[0].connections
    assert connection._have < 2 * PIPELINED_BYTES_MAX + 65_536
    served.engine.release()
    for number in range(count):
        status, body = await client.answer()
        assert (status, body["id"]) == (200, f"{number:05}")
    await sending


async def test_any_other_request_moves_the_connection_to_the_general_server(
    served: Served,
) -> None:
    client = await line(served)
    client.writer.write(request(add("1")))
    assert (await client.answer())[0] == 200
    client.writer.write(b"GET /v1/counter/book-1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await client.answer())[1] == {"value": 5, "additions": 1}
    assert quick_connections(served) == 0
    client.writer.write(request(add("2")) + request(add("3")))
    assert (await client.answer())[1]["id"] == "2"
    assert (await client.answer())[1]["id"] == "3"


async def test_a_pipelined_request_of_another_kind_waits_for_its_turn(served: Served) -> None:
    client = await line(served)
    served.engine.held = []
    client.writer.write(
        request(add("1")) + b"GET /v1/counter/book-1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    )
    await until(lambda: bool(served.engine.held))
    served.engine.release()
    assert (await client.answer())[1]["id"] == "1"
    assert (await client.answer())[1] == {"value": 5, "additions": 1}


async def test_a_client_that_says_close_is_closed(served: Served) -> None:
    client = await line(served)
    client.writer.write(request(add("1"), close=True) + request(add("2")))
    assert (await client.answer())[1]["id"] == "1"
    assert await client.ended()
    assert served.engine.submitted == 1


async def test_a_client_that_ends_its_side_gets_its_answers(served: Served) -> None:
    client = await line(served)
    served.engine.held = []
    client.writer.write(request(add("1")) + request(add("2")))
    client.writer.write_eof()
    await until(lambda: bool(served.engine.held))
    await asyncio.sleep(0.05)
    served.engine.release()
    assert (await client.answer())[1]["id"] == "1"
    assert (await client.answer())[1]["id"] == "2"
    assert await client.ended()


async def test_a_client_that_goes_away_leaves_nothing_behind(served: Served) -> None:
    client = await line(served)
    served.engine.held = []
    client.writer.write(request(add("1")))
    await until(lambda: bool(served.engine.held))
    client.writer.transport.abort()
    await asyncio.sleep(0.05)
    assert served.gateway.edge.metrics.requests_in_flight == 1
    served.engine.release()
    await until(lambda: quick_connections(served) == 0)
    assert served.gateway.edge.metrics.requests_in_flight == 0
    assert len(served.gateway.edge.waits) == 0
    assert len(served.engine.outcomes) == 1


async def test_an_answer_that_comes_too_late_is_not_given_to_the_next_request(
    serving: Serving,
) -> None:
    served = await serving(limits=Limits(reply_wait_s=5.0))
    client = await line(served)
    served.engine.held = []
    client.writer.write(request(add("late")))
    await until(lambda: bool(served.engine.held))
    late, served.engine.held = served.engine.held, []
    served.clock.advance(6)
    status, body = await client.answer()
    assert (status, body["id"], body["outcome"]) == (504, "late", "unknown")
    client.writer.write(request(add("next")))
    await until(lambda: bool(served.engine.held))
    waiting, served.engine.held = served.engine.held, None
    served.engine.submit(*late[0])
    await asyncio.sleep(0.05)
    served.engine.submit(*waiting[0])
    assert (await client.answer())[1]["id"] == "next"


async def test_idle_and_slow_clients_are_closed(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick, "READ_S", 0.0)
    slow, patient = await line(served), await line(served)
    patient.writer.write(request(add("1")))
    assert (await patient.answer())[0] == 200
    slow.writer.write(request(add("2"))[:-5])
    assert await slow.ended()
    assert quick_connections(served) == 1
    monkeypatch.setattr(quick, "IDLE_S", 0.0)
    assert await patient.ended()


async def test_a_client_that_does_not_read_its_answers_stops_being_read(served: Served) -> None:
    client = await line(served)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    long = "x" * 250
    commands = [add(f"{n}", correlation_id=long) for n in range(1_000)]
    client.writer.write(request(commands, path="/v1/commands:batch") * 60)
    await until(lambda: served.engine.submitted > 0)
    await asyncio.sleep(0.5)
    assert served.engine.submitted < 60_000
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    for _ in range(60):
        status, replies = await client.answer()
        assert (status, len(replies)) == (200, 1_000)


async def test_limits_of_size_are_the_general_servers_to_explain(serving: Serving) -> None:
    served = await serving(limits=Limits(command_bytes_max=100, batch_bytes_max=300))
    for data in (
        request(add(correlation_id="x" * 100)),
        request([add(correlation_id="x" * 300)], path="/v1/commands:batch"),
    ):
        client = await line(served)
        client.writer.write(data)
        status, body = await client.answer()
        assert (status, body["code"]) == (413, "TOO_LARGE")


async def test_a_request_without_any_header_is_the_general_servers_to_refuse(
    served: Served,
) -> None:
    client = await line(served)
    client.writer.write(b"POST /v1/commands HTTP/1.1\r\n\r\n")
    status, body = await client.answer()
    assert (status, body["code"]) == (400, "MALFORMED")


async def test_a_head_that_is_too_long_is_refused(served: Served) -> None:
    client = await line(served)
    client.writer.write(b"POST /v1/commands HTTP/1.1\r\nX: " + b"x" * HEAD_BYTES_MAX)
    assert (await client.answer())[0] == 400


async def test_a_failure_of_ours_is_an_answer_and_the_connection_goes_on(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    client = await line(served)
    edge = served.gateway.edge
    for victim, name in ((edge, "charge"), (edge, "count")):
        with monkeypatch.context() as patch:
            patch.setattr(victim, name, broken)
            client.writer.write(request(add("x")))
            status, body = await client.answer()
        assert (status, body["code"]) == (500, "INTERNAL")
        assert "secret" not in str(body)
    client.writer.write(request(add("y")))
    assert (await client.answer())[0] == 200


async def test_a_draining_gateway_closes_after_each_answer(served: Served) -> None:
    client = await line(served)
    served.engine.held = []
    client.writer.write(request(add("1")))
    await until(lambda: bool(served.engine.held))
    draining = asyncio.create_task(served.gateway.drain())
    await asyncio.sleep(0.05)
    assert not draining.done()
    served.engine.release()
    assert (await client.answer())[0] == 200
    assert await client.ended()
    await asyncio.wait_for(draining, 5)


# --- agreement -----------------------------------------------------------------------------


@pytest.fixture
async def pair(serving: Serving) -> tuple[Served, Served]:
    """The same gateway twice, with and without the data path's own server."""
    return (
        await serving(options=GatewayOptions(port=0)),
        await serving(options=GatewayOptions(port=0, quick=False)),
    )


TURNS_MAX = 40
"""Turns of the loop without an answer, a hundredth of a second each at least."""


async def everything_now(reader: asyncio.StreamReader) -> bytes:
    """What arrives next; empty at the end, and where both wait for more of an unfinished body.

    Turns of the loop are counted and not seconds: the server takes its turns in them, however
    slow the machine is.
    """
    reading = asyncio.create_task(reader.read(65_536))
    for _ in range(TURNS_MAX):
        await asyncio.wait([reading], timeout=0.01)
        if reading.done():
            break
    else:
        reading.cancel()
    (found,) = await asyncio.gather(reading, return_exceptions=True)
    return found if isinstance(found, bytes) else b""


async def exchange(served: Served, pieces: list[bytes]) -> list[tuple[int, Any]]:
    """Everything that is answered to some bytes, until the connection is closed."""
    reader, writer = await asyncio.open_connection(*served.gateway.addresses[0])
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0)
    writer.write(b"GET /v1/end HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    data = b""
    while part := await everything_now(reader):
        data += part
    writer.close()
    answers = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        found = re.search(rb"(?i)content-length: (\d+)", head)
        length = int(found[1]) if found else 0
        body = msgspec.json.decode(rest[:length]) if length else None
        answers.append((int(head.split(b" ", 2)[1]), scrubbed(body)))
        data = rest[length:]
    return answers


def scrubbed(body: Any) -> Any:
    """A body without what differs between two engines: made ids, and how often one was asked."""
    if isinstance(body, list):
        return [scrubbed(item) for item in body]
    if isinstance(body, dict):
        return {name: body[name] for name in ("code", "outcome", "status") if name in body}
    return body


NO_HTTP = (400, {"code": "MALFORMED", "status": 400})

ODDITIES = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b" ",
        b"\t",
        b"\x00",
        b"\xff",
        b":",
        b"Content-Length: 3\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Connection: keep-alive, x\r\n",
        b"Expect: 100-continue\r\n",
        b"Host: elsewhere\r\n",
        b"Idempotency-Key: other\r\n",
        b'If-Match: "0"\r\n',
        b"Accept: text/html\r\n",
        b"GET /v1/limits HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v1/commands HTTP/1.0\r\n",
    ]
)
PLAIN = st.sampled_from(
    [
        request(add("p")),
        request([add("q"), {}], path="/v1/commands:batch"),
        request({"bad": 1}),
        request(add(None), "Idempotency-Key: h-1"),
        request(add("r"), "X-Other: 1", "accept: */*"),
    ]
)


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """Requests, some with an oddity put in or a piece cut out, sent in pieces."""
    data = b"".join(draw(st.lists(PLAIN, min_size=1, max_size=3)))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        cut = draw(st.integers(0, 3))
        data = data[:at] + draw(ODDITIES) + data[at + cut :]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pieces=conversations())
async def test_both_servers_answer_any_bytes_alike(
    pair: tuple[Served, Served], pieces: list[bytes]
) -> None:
    ours, general = await asyncio.gather(*(exchange(served, pieces) for served in pair))
    if general and general[-1] == NO_HTTP:
        # The general server drops the requests that came in one segment with what is no HTTP;
        # ours has answered them by then.  What both answered must agree, and both must stop; to
        # bytes behind a request that said it is the last one, ours does not answer at all.
        assert ours[-1] == NO_HTTP or b"Connection: close" in b"".join(pieces)
        general.pop()
        ours = ours[: len(general)]
    assert ours == general
