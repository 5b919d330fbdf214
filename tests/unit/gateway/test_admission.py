"""Admission of whole requests, and what becomes of answers."""

from typing import Any

import msgspec
import pytest
import structlog
from tests.unit.gateway.conftest import add

from ultraengine.domains.counter import DOMAIN
from ultraengine.edge.auth import KnownCaller
from ultraengine.edge.codec import JSON
from ultraengine.execution.pipeline import Hooks
from ultraengine.execution.registry import Registry
from ultraengine.gateway.admission import Intake, admit, admit_all, merge, name_of, refuse_all
from ultraengine.gateway.envelope import Envelope, Parsed, Refusal, decode_batch
from ultraengine.gateway.samples import sample
from ultraengine.model.command import Command
from ultraengine.model.errors import EngineError, Malformed
from ultraengine.model.limits import DEFAULT_LIMITS
from ultraengine.model.reply import Reply
from ultraengine.reply.waiters import Ticket

CALLER = KnownCaller("acme", "till-7", frozenset({"counter:write"}))
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def failing(error: Exception) -> Registry:
    """A registry whose admission raises for the key 'bad'."""

    def hook(command: Command, _payload: Any) -> None:
        if command.key == "bad":
            raise error

    return Registry([DOMAIN], hooks=Hooks(admission=(hook,)))


def parsed(*commands: dict[str, Any]) -> list[Parsed]:
    return list(decode_batch(JSON.encode(list(commands)), "json", DEFAULT_LIMITS))


def test_the_tenant_and_principal_are_the_callers() -> None:
    (envelope,) = parsed(add(issued_at="2026-11-20T10:00:00Z", correlation_id="c"))
    assert isinstance(envelope, Envelope)
    command = admit(Registry([DOMAIN]), CALLER, envelope, "json").command
    assert (command.tenant, command.principal) == ("acme", "till-7")
    assert (command.issued_at, command.correlation_id) == (1_795_168_800_000_000, "c")


def test_the_trace_of_the_request_stands_in_for_commands_without_one() -> None:
    own = TRACE.replace("b7", "c7")
    items = parsed(add("1"), add("2", traceparent=own))
    intake = admit_all(Registry([DOMAIN]), CALLER, items, "json", TRACE)
    assert [item.command.traceparent for item in intake.admitted] == [TRACE, own]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OverflowError("int too big"), "MALFORMED"),
        (RecursionError("too deep"), "MALFORMED"),
        (ZeroDivisionError("a bug"), "INTERNAL"),
        (EngineError("no", code="QUOTA"), "QUOTA"),
    ],
)
def test_one_command_that_admission_fails_on_does_not_take_its_batch_along(
    error: Exception, code: str
) -> None:
    items = parsed(add("1"), add("2", key="bad"), add("3"))
    with structlog.testing.capture_logs() as lines:
        intake = admit_all(failing(error), CALLER, items, "json")
    assert [item.command.id for item in intake.admitted] == ["1", "3"]
    ((index, refusal),) = intake.errors
    assert (index, refusal.code) == (1, code)
    assert "a bug" not in refusal.detail
    assert len(lines) == (code == "INTERNAL")


def test_a_single_command_is_admitted_or_raises() -> None:
    (envelope,) = parsed(add(key="bad"))
    assert isinstance(envelope, Envelope)
    with pytest.raises(EngineError) as caught:
        admit(failing(Malformed("no", pointer="/data")), CALLER, envelope, "json")
    assert caught.value.pointer == "/data"


def test_replies_are_merged_in_the_order_of_the_request() -> None:
    items = parsed(add("1"), {"id": "2"}, add("3"), add("4"))
    intake = admit_all(Registry([DOMAIN]), CALLER, items, "json")
    ticket = Ticket(3, lambda _: None)
    ticket.put(2, Reply(id="4", outcome="accepted"))
    ticket.put(0, Reply(id="1", outcome="accepted"))
    replies = merge(items, intake, ticket)
    assert [(reply.id, reply.outcome) for reply in replies] == [
        ("1", "accepted"),
        ("2", "refused"),
        ("3", "unknown"),
        ("4", "accepted"),
    ]
    unknown = replies[2].error
    assert unknown is not None
    assert (unknown.code, unknown.location) == ("OUTCOME_UNKNOWN", "/v1/commands/3?key=book-1")


def test_complete_answers_are_handed_on_as_they_are() -> None:
    items = parsed(add("1"))
    intake = admit_all(Registry([DOMAIN]), CALLER, items, "json")
    ticket = Ticket(1, lambda _: None)
    ticket.put(0, Reply(id="1", outcome="accepted"))
    assert merge(items, intake, ticket) is ticket.answers


def test_a_frame_refused_for_one_reason_keeps_the_reasons_of_its_malformed_parts() -> None:
    items = parsed(add("1"), {"id": "2"})
    intake = refuse_all(items, EngineError("later", code="DRAINING"))
    assert isinstance(intake, Intake)
    assert [error.code for _, error in intake.errors] == ["DRAINING", "MALFORMED"]
    assert [name_of(item) for item in items] == ["1", "2"]
    assert name_of(Refusal("x", pointer="", id="")) == ""
    assert name_of(Malformed("x")) == ""


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"$ref": "#/components/schemas/Loop"}, None),
        ({"const": 3}, 3),
        ({"default": "d"}, "d"),
        ({"examples": ["e", "f"]}, "e"),
        ({"enum": ["x", "y"]}, "x"),
        ({"anyOf": [{"type": "integer", "minimum": 5}, {"type": "null"}]}, 5),
        ({"type": "string", "format": "date-time"}, "2026-11-20T10:00:00Z"),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [True, True]),
        ({"type": "array"}, []),
        ({"type": "null"}, None),
        (
            {"type": "object", "properties": {"a": {"type": "number"}, "b": {}}, "required": ["a"]},
            {"a": 1},
        ),
        ({"type": "object"}, {}),
    ],
)
def test_samples_follow_their_schema(schema: dict[str, Any], value: Any) -> None:
    assert sample(schema, {"Loop": {"$ref": "#/components/schemas/Loop"}}) == value
    assert msgspec.json.encode(value)
