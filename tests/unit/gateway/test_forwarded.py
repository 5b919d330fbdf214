"""What a shard's answer to a batch comes to, whatever it is."""

from typing import Any

import msgspec
import pytest

from ultraengine.edge.codec import JSON, MSGPACK, Codec
from ultraengine.gateway.envelope import Envelope
from ultraengine.gateway.forwarded import (
    Heard,
    Routed,
    Way,
    batch_request,
    replies_of,
    single_replies_of,
)
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import ShardId
from ultraengine.model.reply import Reply, ReplyError
from ultraengine.reply import compose
from ultraengine.router.wire import Answered

CODECS = pytest.mark.parametrize("out", [JSON, MSGPACK], ids=["json", "msgpack"])


def routed(count: int, out: Codec = JSON) -> list[Routed]:
    way = Way((("Ultra-Caller", "x"),), JSON, out)
    envelopes = [
        Envelope(type="a.b", key="k", data=msgspec.Raw(b'{"n": 1}'), id=f"c-{n}")
        for n in range(count)
    ]
    return [Routed(one, ShardId(0), way, JSON.encode(one)) for one in envelopes]


def answered(replies: Any, out: Codec = JSON) -> Answered:
    return Answered(200, out.media_type, (), out.encode(replies))


def accepted(name: str) -> Reply:
    return Reply(id=name, outcome="accepted", result={"big": "1" * 40}, shard=0, offset=3)


def problem(status: int, **members: Any) -> Answered:
    return Answered(status, "application/problem+json", (), msgspec.json.encode(members))


def test_data_leaves_as_it_came_in_a_request_that_names_the_caller() -> None:
    sent = batch_request(routed(2, MSGPACK))
    head, _, body = sent.partition(b"\r\n\r\n")
    assert body == (
        b'[{"type":"a.b","key":"k","data":{"n": 1},"id":"c-0"},'
        b'{"type":"a.b","key":"k","data":{"n": 1},"id":"c-1"}]'
    )
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/commands:batch HTTP/1.1"
    assert b"Content-Type: application/json" in lines
    assert b"Accept: application/msgpack" in lines
    assert b"Ultra-Caller: x" in lines


@CODECS
def test_replies_are_passed_on_in_the_bytes_of_the_shard(out: Codec) -> None:
    made = [accepted("c-0"), accepted("c-1")]
    found = replies_of(routed(2, out), answered(made, out), was_lost=False)
    assert [bytes(one) for one in found] == [out.encode(one) for one in made]
    assert out.encode(found) == out.encode(made)
    values = single_replies_of(routed(2, out), answered(made, out), was_lost=False)
    assert all(one.__class__ is Heard for one in values)
    assert out.encode(values) == out.encode(made)


@CODECS
def test_after_a_lost_answer_only_what_is_decided_is_believed(out: Codec) -> None:
    later = compose.refused("c-1", EngineError("busy", code="OVERLOADED"))
    never = compose.refused("c-2", EngineError("no", code="FORBIDDEN"))
    odd = Reply(id="c-3", outcome="refused", error=ReplyError("of-a-domain", ""))
    made = [accepted("c-0"), later, never, odd]
    found = single_replies_of(routed(4, out), answered(made, out), was_lost=True)
    assert [one.outcome for one in found] == ["accepted", "unknown", "refused", "refused"]
    assert found[1].error is not None
    assert found[1].error.location == "/v1/commands/c-1?key=k"
    found = single_replies_of(routed(4, out), answered(made, out), was_lost=False)
    assert [one.outcome for one in found] == ["accepted", "refused", "refused", "refused"]


@pytest.mark.parametrize(
    "result",
    [
        answered([accepted("c-0")]),
        answered({"not": "an array"}),
        Answered(200, "", (), b"\xff"),
        problem(500, code="INTERNAL", detail="the edge raised"),
        problem(502, code="HTTP_502", detail="some proxy"),
        Answered(500, "text/html", (), b"<html>"),
        EngineError("lost", code="OUTCOME_UNKNOWN"),
    ],
)
def test_what_does_not_say_that_nothing_was_done_is_unknown(result: Answered | EngineError) -> None:
    for reply in replies_of(routed(2), result, was_lost=False):
        assert reply.outcome == "unknown"
        assert reply.error.code == "OUTCOME_UNKNOWN"


@pytest.mark.parametrize(
    ("result", "code", "wait_s"),
    [
        (problem(503, code="DRAINING", detail="bye", retry_after_s=2.0), "DRAINING", 2.0),
        (problem(413, code="TOO_LARGE", detail="big"), "TOO_LARGE", None),
        (
            EngineError("away", code="SHARD_UNAVAILABLE", retry_after_s=1.0),
            "SHARD_UNAVAILABLE",
            1.0,
        ),
    ],
)
def test_a_refusal_of_the_whole_is_one_of_each_command(
    result: Answered | EngineError, code: str, wait_s: float | None
) -> None:
    for n, reply in enumerate(replies_of(routed(2), result, was_lost=False)):
        assert (reply.id, reply.outcome) == (f"c-{n}", "refused")
        assert (reply.error.code, reply.error.retry_after_s) == (code, wait_s)


def test_a_reply_that_is_none_is_unknown() -> None:
    (found,) = single_replies_of(routed(1), answered([{"id": 7}]), was_lost=False)
    assert (found.id, found.outcome) == ("c-0", "unknown")
