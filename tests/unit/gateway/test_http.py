"""The HTTP contract, over real sockets."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec
import pytest
from tests.unit.gateway.conftest import CountingRandom, Served, Serving, StillClock, add

from ultraengine.edge.auth import ApiKeys, KeyTable, entry_text, issue_key
from ultraengine.gateway.driver import GatewayOptions
from ultraengine.model.errors import PROBLEMS, EngineError
from ultraengine.model.limits import Limits
from ultraengine.model.reply import Reply

PROBLEM = "application/problem+json"


@pytest.fixture(params=[True, False], ids=["quick", "general"])
async def served(serving: Serving, request: pytest.FixtureRequest) -> Served:
    """Plain command requests have a server of their own; both keep the same contract."""
    return await serving(options=GatewayOptions(port=0, quick=request.param))


async def raw(served: Served, data: bytes) -> bytes:
    """Send bytes on a connection of their own and read to its end."""
    reader, writer = await asyncio.open_connection(*served.gateway.addresses[0])
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


async def until(happened: Callable[[], bool]) -> None:
    """Wait for something that the event loop is about to do."""
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110  (it has no event of its own)
            await asyncio.sleep(0.01)


# --- one command ---------------------------------------------------------------------------


async def test_a_command_is_answered_with_the_whole_reply(served: Served) -> None:
    async with served.http.post("/v1/commands", json=add(delta=5)) as answer:
        assert answer.status == 200
        assert answer.content_type == "application/json"
        assert (answer.headers["Ultra-Epoch"], answer.headers["Ultra-Offset"]) == ("1", "0")
        body = await answer.json()
    assert body == {
        "id": "a-1",
        "outcome": "accepted",
        "result": {"value": 5},
        "error": None,
        "shard": 0,
        "epoch": 1,
        "offset": 0,
        "version": 1,
        "time": "2027-01-15T08:00:00.000000Z",
        "duplicate": False,
        "durable": {"policy": "sync", "local": True, "replicas": 1},
    }


async def test_the_same_command_again_is_a_duplicate_in_either_codec(served: Served) -> None:
    await served.send(add())
    status, body = await served.send(add())
    assert (status, body["duplicate"], body["offset"]) == (200, True, 0)
    async with served.http.post(
        "/v1/commands",
        data=msgspec.msgpack.encode(add()),
        headers={"Content-Type": "application/msgpack"},
    ) as answer:
        assert answer.headers["Idempotent-Replayed"] == "true"
        assert answer.content_type == "application/msgpack"
        reply = msgspec.msgpack.decode(await answer.read(), type=Reply)
    assert (reply.duplicate, reply.offset) == (True, 0)
    assert len(served.engine.outcomes) == 1


async def test_a_command_without_an_id_gets_one(served: Served) -> None:
    ids = {(await served.send(add(None)))[1]["id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}", name) for name in ids)


async def test_headers_name_the_command_and_the_version_it_needs(served: Served) -> None:
    status, body = await served.send(add(None), Idempotency_Key="h-1", If_Match='"0"')
    assert (status, body["id"], body["version"]) == (200, "h-1", 1)
    status, body = await served.send(add(None), Idempotency_Key="h-2", If_Match='"7"')
    assert (status, body["code"], body["current_version"]) == (412, "VERSION_MISMATCH", 1)
    assert (body["id"], body["outcome"], body["offset"]) == ("h-2", "rejected", 1)
    status, body = await served.send(add("b-1"), Idempotency_Key="other")
    assert (status, body["code"], body["pointer"]) == (400, "MALFORMED", "/header/idempotency-key")


async def test_a_rejection_is_a_problem_with_the_reply_beside_it(served: Served) -> None:
    async with served.http.post(
        "/v1/commands", json=add(data={"delta": 5, "maximum": 3})
    ) as answer:
        assert (answer.status, answer.content_type) == (422, PROBLEM)
        body = await answer.json(content_type=None)
    assert (body["code"], body["outcome"], body["offset"]) == ("above_maximum", "rejected", 0)
    assert body["pointer"] == "/data/maximum"
    assert body["durable"]["local"] is True


@pytest.mark.parametrize(
    ("command", "status", "code", "pointer"),
    [
        ({**add(), "tenant": "other"}, 400, "MALFORMED", ""),
        (add(key="not a key"), 400, "MALFORMED", "/key"),
        (add(id="n\u00f6"), 400, "MALFORMED", "/id"),
        (add(data={"delta": "5"}), 400, "MALFORMED", "/data/delta"),
        (add(data={"delta": 1, "more": 2}), 400, "MALFORMED", "/data"),
        (add(data={"delta": 1, "minimum": 2, "maximum": 1}), 400, "MALFORMED", "/data/minimum"),
        (add(data={"delta": 2**70}), 400, "MALFORMED", "/data/delta"),
        ({**add(), "type": "counter.multiply"}, 404, "UNKNOWN_TYPE", "/type"),
        ({**add(), "type": "nonsense"}, 404, "UNKNOWN_TYPE", "/type"),
        ({**add(), "type": "counter.add@7"}, 404, "UNKNOWN_TYPE", "/type"),
        ([], 400, "MALFORMED", ""),
        (5, 400, "MALFORMED", ""),
    ],
)
async def test_a_command_of_the_wrong_shape_is_refused_with_a_pointer(
    served: Served, command: Any, status: int, code: str, pointer: str
) -> None:
    found, body = await served.send(command)
    assert (found, body["code"], body["pointer"]) == (status, code, pointer)
    assert body["outcome"] == "refused"
    assert served.engine.submitted == 0


async def test_a_refused_command_says_its_id_as_far_as_it_is_known(served: Served) -> None:
    _, body = await served.send(add("mine", data={}))
    assert body["id"] == "mine"
    _, body = await served.send({"nonsense": 1}, Idempotency_Key="from-the-header")
    assert body["id"] == "from-the-header"


async def test_the_id_of_a_refused_command_may_be_used_again(served: Served) -> None:
    await served.send(add("again", data={}))
    status, body = await served.send(add("again"))
    assert (status, body["duplicate"]) == (200, False)


async def test_another_content_under_the_same_id_is_a_mismatch(served: Served) -> None:
    await served.send(add())
    status, body = await served.send(add(delta=6))
    assert (status, body["code"]) == (409, "IDEMPOTENCY_MISMATCH")


@pytest.mark.parametrize(
    "code", ["OVERLOADED", "READ_ONLY", "PAUSED", "DRAINING", "SHARD_UNAVAILABLE", "NOT_LEADER"]
)
async def test_an_engine_that_takes_nothing_says_why_and_when_to_come_back(
    served: Served, code: str
) -> None:
    served.engine.closed = EngineError("not now", code=code, retry_after_s=4.2)
    async with served.http.post("/v1/commands", json=add()) as answer:
        assert answer.status == PROBLEMS[code].status
        assert answer.headers["Retry-After"] == "5"
        body = await answer.json(content_type=None)
    assert (body["code"], body["retryable"]) == (code, True)


async def test_who_prefers_so_is_told_where_the_outcome_is(served: Served) -> None:
    async with served.http.post(
        "/v1/commands", json=add(), headers={"Prefer": "respond-async"}
    ) as answer:
        assert answer.status == 202
        assert answer.headers["Preference-Applied"] == "respond-async"
        where = answer.headers["Location"]
        body = await answer.json()
    assert (body["id"], body["offset"], body["durable"]["local"]) == ("a-1", 0, True)
    status, outcome = await served.get(where)
    assert (status, outcome["state"], outcome["reply"]["offset"]) == (200, "done", 0)
    served.engine.closed = EngineError("full", code="OVERLOADED")
    status, _ = await served.send(add("a-2"), Prefer="respond-async")
    assert status == 429, "nothing durable, so nothing accepted"


async def test_a_reply_that_does_not_come_in_time_is_unknown_and_not_refused(
    serving: Serving,
) -> None:
    served = await serving(limits=Limits(reply_wait_s=5.0))
    served.engine.held = []
    sending = asyncio.create_task(served.send(add()))
    await until(lambda: bool(served.engine.held))
    served.clock.advance(4.9)
    await asyncio.sleep(0.3)
    assert not sending.done()
    status, body = await served.get("/v1/commands/a-1?key=book-1")
    assert (status, body["state"]) == (200, "in_flight")
    served.clock.advance(0.2)
    status, body = await asyncio.wait_for(sending, 5)
    assert (status, body["code"], body["outcome"]) == (504, "OUTCOME_UNKNOWN", "unknown")
    served.engine.release()
    status, body = await served.get(body["location"])
    assert (body["state"], body["reply"]["outcome"]) == ("done", "accepted")


async def test_a_client_that_goes_away_does_not_stop_its_command(served: Served) -> None:
    served.engine.held = []
    sending = asyncio.create_task(served.send(add()))
    await until(lambda: bool(served.engine.held))
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert sending.cancelled()
    served.engine.release()
    _, body = await served.get("/v1/commands/a-1?key=book-1")
    assert body["state"] == "done"


# --- batches -------------------------------------------------------------------------------


async def batch(served: Served, commands: Any, **headers: str) -> tuple[int, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with served.http.post("/v1/commands:batch", json=commands, headers=named) as answer:
        return answer.status, await answer.json(content_type=None)


async def test_a_batch_is_answered_in_its_order_and_bad_elements_singly(served: Served) -> None:
    status, replies = await batch(
        served,
        [
            add("1"),
            {"id": "2", "type": 5},
            add("3", data={"delta": 9, "maximum": 1}),
            add("1"),
            {**add("5"), "type": "no.such"},
            add(None),
        ],
    )
    assert status == 200
    assert [reply["id"] for reply in replies[:5]] == ["1", "2", "3", "1", "5"]
    assert [reply["outcome"] for reply in replies] == [
        "accepted",
        "refused",
        "rejected",
        "accepted",
        "refused",
        "accepted",
    ]
    assert [reply["error"] and reply["error"]["code"] for reply in replies] == [
        None,
        "MALFORMED",
        "above_maximum",
        None,
        "UNKNOWN_TYPE",
        None,
    ]
    assert replies[3]["duplicate"] is True
    assert replies[5]["result"] == {"value": 10}


async def test_an_empty_batch_has_no_replies(served: Served) -> None:
    assert await batch(served, []) == (200, [])


async def test_a_batch_of_bad_elements_alone_is_answered_too(served: Served) -> None:
    status, replies = await batch(served, [1, {}])
    assert (status, [reply["outcome"] for reply in replies]) == (200, ["refused", "refused"])


async def test_a_batch_in_msgpack_is_answered_in_msgpack_unless_json_is_asked_for(
    served: Served,
) -> None:
    body = msgspec.msgpack.encode([add("1"), add("2")])
    kind = {"Content-Type": "application/msgpack"}
    async with served.http.post("/v1/commands:batch", data=body, headers=kind) as answer:
        replies = msgspec.msgpack.decode(await answer.read(), type=list[Reply])
    assert [reply.id for reply in replies] == ["1", "2"]
    kind["Accept"] = "application/json"
    async with served.http.post("/v1/commands:batch", data=body, headers=kind) as answer:
        assert [reply["duplicate"] for reply in await answer.json()] == [True, True]


async def test_replies_of_a_batch_that_do_not_come_in_time_are_unknown_singly(
    serving: Serving,
) -> None:
    served = await serving()
    served.engine.held = []
    sending = asyncio.create_task(batch(served, [add("1"), {}, add("2")]))
    await until(lambda: bool(served.engine.held))
    served.clock.advance(31)
    status, replies = await asyncio.wait_for(sending, 5)
    assert status == 200
    assert [reply["outcome"] for reply in replies] == ["unknown", "refused", "unknown"]
    assert replies[2]["error"]["location"] == "/v1/commands/2?key=book-1"


async def test_a_batch_has_no_id_or_version_of_its_own(served: Served) -> None:
    status, body = await batch(served, [add()], Idempotency_Key="a-1")
    assert (status, body["code"]) == (400, "MALFORMED")
    assert served.engine.submitted == 0


async def test_limits_of_count_and_size_refuse_the_whole_batch(serving: Serving) -> None:
    limits = Limits(commands_per_batch_max=3, batch_bytes_max=500, command_bytes_max=200)
    served = await serving(limits=limits)
    status, body = await batch(served, [add(str(n)) for n in range(4)])
    assert (status, body["code"]) == (413, "TOO_LARGE")
    status, body = await batch(served, [add(correlation_id="x" * 250)] * 3)
    assert (status, body["code"]) == (413, "TOO_LARGE")
    status, body = await served.send(add(correlation_id="x" * 250))
    assert (status, body["code"], body["outcome"]) == (413, "TOO_LARGE", "refused")
    assert served.engine.submitted == 0
    assert (await served.send(add()))[0] == 200


# --- bodies --------------------------------------------------------------------------------


async def test_a_body_that_is_too_long_is_refused_before_it_is_read(served: Served) -> None:
    start = (
        b"POST /v1/commands HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 99999999\r\n\r\n"
    )
    answer = await raw(served, start)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"Connection: close" in answer


async def test_a_chunked_body_is_bounded_while_it_is_read(serving: Serving) -> None:
    served = await serving(limits=Limits(command_bytes_max=1_000))

    async def chunks(count: int) -> Any:
        for _ in range(count):
            yield b" " * 100
        yield msgspec.json.encode(add())

    kind = {"Content-Type": "application/json"}
    async with served.http.post("/v1/commands", data=chunks(9), headers=kind) as answer:
        assert answer.status == 200
    async with served.http.post("/v1/commands", data=chunks(10), headers=kind) as answer:
        assert answer.status == 413


async def test_a_client_that_holds_its_body_back_is_told_to_send_it(served: Served) -> None:
    body = msgspec.json.encode(add())
    reader, writer = await asyncio.open_connection(*served.gateway.addresses[0])
    head = (
        "POST /v1/commands HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Expect: 100-continue\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode())
    async with asyncio.timeout(5):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()


@pytest.mark.parametrize("path", ["/v1/commands", "/v1/commands:batch"])
async def test_only_plain_json_and_msgpack_are_read(served: Served, path: str) -> None:
    for headers in (
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ):
        async with served.http.post(path, data=b"{}", headers=headers) as answer:
            assert (answer.status, answer.content_type) == (415, PROBLEM)
            assert (await answer.json(content_type=None))["code"] == "UNSUPPORTED_MEDIA_TYPE"
    async with served.http.post(path, json=[], headers={"Accept": "text/html"}) as answer:
        assert answer.status == 406


# --- reads ---------------------------------------------------------------------------------


async def test_a_read_says_its_version_and_position(served: Served) -> None:
    await served.send(add("1"))
    await served.send(add("2"))
    async with served.http.get("/v1/counter/book-1") as answer:
        assert await answer.json() == {"value": 10, "additions": 2}
        assert answer.headers["ETag"] == '"2"'
        assert (answer.headers["Ultra-Epoch"], answer.headers["Ultra-Offset"]) == ("1", "1")
    status, _ = await served.get("/v1/counter/book-1?min_offset=1&read=confirm")
    assert status == 200


async def test_a_read_of_what_is_known_already_is_not_sent_again(served: Served) -> None:
    await served.send(add())
    for known in ('"1"', 'W/"1"', '"0", "1"', "*"):
        async with served.http.get(
            "/v1/counter/book-1", headers={"If-None-Match": known}
        ) as answer:
            assert (answer.status, await answer.read()) == (304, b"")
            assert answer.headers["ETag"] == '"1"'
    status, _ = await served.get("/v1/counter/book-1", If_None_Match='"7"')
    assert status == 200


@pytest.mark.parametrize(
    ("path", "status", "code", "pointer"),
    [
        ("/v1/counter/other", 404, "NOT_FOUND", None),
        ("/v1/counter/book-1/more", 404, "NOT_FOUND", None),
        ("/v1/counter/", 404, "NOT_FOUND", None),
        ("/v1/counter", 404, "NOT_FOUND", None),
        ("/v1/no-such-domain/x", 404, "NOT_FOUND", None),
        ("/v1/counter/b%20k", 400, "MALFORMED", "/path/key"),
        ("/v1/counter/b%2Fk", 400, "MALFORMED", "/path/key"),
        ("/v1/counter/%FF", 400, "MALFORMED", "/path"),
        ("/v1/counter/book-1?x=%FF", 400, "MALFORMED", "/query"),
        ("/v1/counter/book-1?colour=red", 400, "MALFORMED", "/query"),
        ("/v1/counter/book-1?read=me", 400, "MALFORMED", "/query/read"),
        ("/v1/counter/book-1?read=leader&read=leader", 400, "MALFORMED", "/query/read"),
        ("/v1/counter/book-1?min_offset=-1", 400, "MALFORMED", "/query/min_offset"),
        ("/v1/counter/book-1?min_offset=1e3", 400, "MALFORMED", "/query/min_offset"),
        ("/v1/counter/book-1?min_offset=5", 504, "WAIT_TIMEOUT", None),
        ("/v1/commands/a/b", 404, "NOT_FOUND", None),
        ("/v1/commands/", 404, "NOT_FOUND", None),
        ("/v1/commands/a?key=b%20c", 400, "MALFORMED", "/query/key"),
        ("/v1/commands/a%20b", 400, "MALFORMED", "/path/id"),
        ("/v1/commands/a?kee=b", 400, "MALFORMED", "/query"),
        ("/nothing", 404, "NOT_FOUND", None),
        ("//", 404, "NOT_FOUND", None),
    ],
)
async def test_a_read_that_cannot_be_answered_is_a_problem(
    served: Served, path: str, status: int, code: str, pointer: str | None
) -> None:
    await served.send(add())
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    head, _, body = (await raw(served, request.encode())).partition(b"\r\n\r\n")
    assert f"Content-Type: {PROBLEM}".encode() in head
    problem = msgspec.json.decode(body)
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem.get("pointer") == pointer


async def test_the_outcome_of_a_command_can_be_asked_for_with_and_without_its_key(
    served: Served,
) -> None:
    await served.send(add())
    for path in ("/v1/commands/a-1?key=book-1", "/v1/commands/a-1"):
        status, body = await served.get(path)
        assert (status, body["state"], body["reply"]["duplicate"]) == (200, "done", True)
    status, body = await served.get("/v1/commands/never?key=book-1")
    assert (status, body["state"], body["reply"]) == (200, "unknown", None)


async def test_limits_are_served_by_name(served: Served) -> None:
    _, body = await served.get("/v1/limits")
    assert body["commands_per_batch_max"] == 1_000
    assert body["items_per_command_max"] == 1_000
    assert body["command_bytes_max"] == 1024**2
    assert body["batch_bytes_max"] == 8 * 1024**2
    assert body["dedup_window_s"] == 7 * 24 * 3600
    assert body["dedup_floor_time"] is None


# --- the frame around all ------------------------------------------------------------------


async def test_a_path_says_which_methods_it_has(served: Served) -> None:
    for method, path, allowed in (
        ("GET", "/v1/commands", "POST"),
        ("DELETE", "/v1/limits", "GET, HEAD"),
        ("PUT", "/v1/counter/book-1", "GET, HEAD"),
        ("HEAD", "/v1/stream", "GET"),
    ):
        async with served.http.request(method, path) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, allowed)
            assert answer.content_type == PROBLEM


async def test_head_answers_like_get_without_the_body(served: Served) -> None:
    async with served.http.head("/v1/limits") as answer:
        assert answer.status == 200
        assert int(answer.headers["Content-Length"]) > 100
        assert await answer.read() == b""


async def test_the_absolute_form_of_a_request_is_understood(served: Served) -> None:
    answer = await raw(
        served,
        b"GET http://localhost/v1/limits?x HTTP/1.1\r\nHost: localhost\r\n"
        b"Connection: close\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "noise",
    [b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\n\r\n"],
)
async def test_what_is_no_http_is_answered_with_a_problem_too(served: Served, noise: bytes) -> None:
    head, _, body = (await raw(served, noise)).partition(b"\r\n\r\n")
    assert b" 400 " in head.splitlines()[0]
    assert msgspec.json.decode(body)["code"] == "MALFORMED"


async def test_more_requests_than_can_be_answered_at_once_are_turned_away(
    serving: Serving,
) -> None:
    served = await serving(limits=Limits(requests_in_flight_max=2))
    served.engine.held = []
    waiting = [asyncio.create_task(served.send(add(str(n)))) for n in range(2)]
    await until(lambda: len(served.engine.held or ()) == 2)
    async with served.http.get("/v1/limits") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
    served.engine.release()
    assert [status for status, _ in await asyncio.gather(*waiting)] == [200, 200]
    assert (await served.get("/v1/limits"))[0] == 200


async def test_a_bug_in_a_handler_is_an_answer_that_says_no_more_than_its_kind(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(served.engine, "status", broken)
    status, body = await served.get("/v1/limits")
    assert (status, body["code"]) == (500, "INTERNAL")
    assert "ZeroDivisionError" in body["detail"]
    assert "secret" not in str(body)


async def test_quotas_are_per_tenant_and_every_answer_says_what_is_left(serving: Serving) -> None:
    served = await serving(limits=Limits(tenant_commands_per_s=10.0, tenant_burst=3))
    async with served.http.post("/v1/commands", json=add("1")) as answer:
        assert answer.headers["RateLimit"] == '"tenant";r=2;t=1'
        assert answer.headers["RateLimit-Policy"] == '"tenant";q=3;w=1'
    status, _ = await batch(served, [add("2"), add("3")])
    assert status == 200
    async with served.http.post("/v1/commands", json=add("4")) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        body = await answer.json(content_type=None)
    assert (body["code"], body["outcome"], body["retry_after_s"]) == ("QUOTA", "refused", 0.1)
    served.clock.advance(0.1)
    assert (await served.send(add("4")))[0] == 200


async def test_metrics_count_requests_and_commands(served: Served) -> None:
    await served.send(add("1"))
    await batch(served, [add("2"), {}, add("3")])
    async with served.http.get("/metrics") as answer:
        text = await answer.text()
    assert 'ultra_edge_http_requests_total{route="/v1/commands",status="200"} 1.0' in text
    assert 'ultra_edge_commands_total{code="",outcome="accepted"} 3.0' in text
    assert 'ultra_edge_commands_total{code="MALFORMED",outcome="refused"} 1.0' in text
    assert 'ultra_edge_batch_commands_bucket{le="5"} 1.0' in text
    assert "ultra_edge_http_requests_in_flight 1.0" in text


# --- who may do what -----------------------------------------------------------------------


class Keyed:
    """A gateway with one key per set of scopes."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}
        self._entries: list[str] = []

    def add(self, name: str, tenant: str, *scopes: str) -> None:
        key, entry = issue_key(
            CountingRandomOf(name), tenant=tenant, principal=name, scopes=list(scopes)
        )
        self.keys[name] = key
        self._entries.append(entry_text(entry))

    def identity(self, clock: StillClock) -> ApiKeys:
        return ApiKeys(KeyTable.parse("".join(self._entries).encode()), clock)

    def headers(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[name]}"} if name else {}


class CountingRandomOf(CountingRandom):
    """Its own sequence per name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.calls = sum(name.encode()) * 1_000


@pytest.fixture
async def keyed(serving: Serving) -> tuple[Served, Keyed]:
    keys = Keyed()
    keys.add("reader", "acme", "counter:read")
    keys.add("writer", "acme", "counter:write")
    keys.add("other", "rival", "*:read", "*:write")
    keys.add("admin", "acme", "admin")
    served = await serving(identity=keys.identity)
    return served, keys


@pytest.mark.parametrize(
    ("method", "path", "body", "allowed"),
    [
        ("POST", "/v1/commands", add("m-1"), {"writer", "other"}),
        ("GET", "/v1/counter/book-1", None, {"reader"}),
        ("GET", "/v1/limits", None, {"reader", "writer", "other", "admin"}),
        ("GET", "/v1/commands/a-1?key=book-1", None, {"reader", "writer", "other", "admin"}),
        ("GET", "/admin/v1/status", None, {"admin"}),
        ("GET", "/admin/v1/limits", None, {"admin"}),
        ("GET", "/healthz", None, {"", "reader", "writer", "other", "admin"}),
        ("GET", "/readyz", None, {"", "reader", "writer", "other", "admin"}),
        ("GET", "/metrics", None, {"", "reader", "writer", "other", "admin"}),
        ("GET", "/openapi.json", None, {"", "reader", "writer", "other", "admin"}),
        ("GET", "/docs", None, {"", "reader", "writer", "other", "admin"}),
    ],
)
async def test_every_route_is_open_to_exactly_the_keys_that_may(
    keyed: tuple[Served, Keyed], method: str, path: str, body: Any, allowed: set[str]
) -> None:
    served, keys = keyed
    async with served.http.post(
        "/v1/commands", json=add("a-1"), headers=keys.headers("writer")
    ) as answer:
        assert answer.status == 200
    for name in ("", "reader", "writer", "other", "admin"):
        async with served.http.request(
            method, path, json=body, headers=keys.headers(name)
        ) as answer:
            if name in allowed:
                assert answer.status == 200, name
            elif name == "":
                assert answer.status == 401
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            else:
                # Another tenant's thing is not there; it is not forbidden.
                expected = 404 if name == "other" and "counter/" in path else 403
                assert answer.status == expected, name


async def test_a_batch_is_decided_command_by_command_with_the_callers_scopes(
    keyed: tuple[Served, Keyed],
) -> None:
    served, keys = keyed
    async with served.http.post(
        "/v1/commands:batch", json=[add()], headers=keys.headers("reader")
    ) as answer:
        (reply,) = await answer.json()
    assert (reply["outcome"], reply["error"]["code"]) == ("refused", "FORBIDDEN")


async def test_tenants_do_not_see_each_others_commands_or_ids(keyed: tuple[Served, Keyed]) -> None:
    served, keys = keyed
    for name in ("writer", "other"):
        async with served.http.post(
            "/v1/commands", json=add("same"), headers=keys.headers(name)
        ) as answer:
            body = await answer.json()
        assert (body["duplicate"], body["result"]) == (False, {"value": 5})
    assert [outcome.command.tenant for outcome in served.engine.outcomes] == ["acme", "rival"]
    async with served.http.post(
        "/v1/commands", json=add("only-acme"), headers=keys.headers("writer")
    ) as answer:
        assert answer.status == 200
    async with served.http.get(
        "/v1/commands/only-acme?key=book-1", headers=keys.headers("other")
    ) as answer:
        assert (await answer.json())["state"] == "unknown"


async def test_pages_of_other_origins_cannot_use_the_keyless_loopback(served: Served) -> None:
    status, _ = await served.send(add(), Origin="http://evil.example")
    assert status == 403
    status, _ = await served.send(add(), Host="evil.example")
    assert status == 403
    assert served.engine.submitted == 0
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await served.http.ws_connect(
            "/v1/stream", protocols=("ultra.v1.json",), origin="http://evil.example"
        )
    assert caught.value.status == 403
