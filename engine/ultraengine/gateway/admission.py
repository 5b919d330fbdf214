"""From envelopes to admitted commands: who may send what, decided before the log.

The order is: quota of the tenant (whole request), then for each command what the registry
checks (type, scope, names, schema).  What fails is *refused*: never logged, so the same id
may be used again.  The tenant is the caller's, never the body's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import structlog

from ultraengine.edge.codec import CodecName
from ultraengine.execution.registry import Admitted, Handler, Registry
from ultraengine.gateway.envelope import Envelope, Parsed, Refusal, issued_micros
from ultraengine.model.errors import EngineError, Malformed
from ultraengine.model.reply import Reply
from ultraengine.ports import Caller
from ultraengine.reply import compose
from ultraengine.reply.waiters import Ticket

_log = structlog.get_logger("ultraengine.gateway")


class Intake(NamedTuple):
    """What became of the elements of one request."""

    admitted: list[Admitted]
    errors: list[tuple[int, EngineError]]
    """(index in the request, why it was refused), ascending."""


def admit(registry: Registry, caller: Caller, envelope: Envelope, codec: CodecName) -> Admitted:
    """One command.  Raises `EngineError`."""
    intake = admit_all(registry, caller, (envelope,), codec)
    for _, error in intake.errors:
        raise error
    return intake.admitted[0]


def admit_all(
    registry: Registry,
    caller: Caller,
    parsed: Sequence[Parsed],
    codec: CodecName,
    traceparent: str | None = None,
) -> Intake:
    """The elements of a batch or frame, bad ones refused singly.

    `traceparent` stands in for a command that has none of its own.
    """
    take = registry.take
    tenant, principal, scopes = caller.tenant, caller.principal, caller.scopes
    handlers: dict[str, Handler] = {}
    admitted: list[Admitted] = []
    errors: list[tuple[int, EngineError]] = []
    for index, item in enumerate(parsed):
        if isinstance(item, EngineError):
            errors.append((index, item))
            continue
        try:
            handler = handlers.get(item.type)
            if handler is None:
                handler = handlers[item.type] = registry.permitted(item.type, tenant, scopes)
            command = take(
                handler,
                item.id or "",
                item.key,
                item.data,
                codec,
                tenant,
                principal,
                item.expected_version,
                None if item.issued_at is None else issued_micros(item),
                item.correlation_id,
                item.traceparent or traceparent,
            )
        except Exception as error:  # noqa: BLE001  (one command cannot take its batch along)
            errors.append((index, _translated(error, item, tenant)))
        else:
            admitted.append(command)
    return Intake(admitted, errors)


def _translated(error: Exception, envelope: Envelope, tenant: str) -> EngineError:
    """What admission raised, as a refusal.

    A handler's schema code that fails in an unforeseen way is INTERNAL, and logged here.
    """
    if isinstance(error, EngineError):
        return error
    if isinstance(error, RecursionError | OverflowError):
        # Numbers beyond 64 bits in free-form members, or nesting beyond the decoder's depth.
        return Malformed(f"not representable: {error}", pointer="/data")
    _log.error("admission.failed", type=envelope.type[:100], tenant=tenant, exc_info=error)
    return EngineError(f"checking the command raised {type(error).__name__}; it was not logged")


def merge(parsed: Sequence[Parsed], intake: Intake, ticket: Ticket) -> list[Reply]:
    """Replies in the order of the request; what has no answer yet is OUTCOME_UNKNOWN."""
    answers = ticket.answers
    if not intake.errors and ticket.missing == 0:
        return answers  # type: ignore[return-value]  # None stands only where one is missing.
    replies = {
        index: compose.refused(name_of(parsed[index]), error) for index, error in intake.errors
    }
    places = (index for index in range(len(parsed)) if index not in replies)
    executed = {
        place: answer if answer is not None else unknown(admitted)
        for place, answer, admitted in zip(places, answers, intake.admitted, strict=True)
    }
    replies |= executed
    return [replies[index] for index in range(len(parsed))]


def refuse_all(parsed: Sequence[Parsed], error: EngineError) -> Intake:
    """Refuse a whole frame for one reason, but what is malformed for its own."""
    return Intake(
        [],
        [
            (index, item if isinstance(item, EngineError) else error)
            for index, item in enumerate(parsed)
        ],
    )


def name_of(item: Parsed) -> str:
    """The id of an element as far as it is known, at most 128 characters; else empty."""
    name = item.id if isinstance(item, Envelope | Refusal) else None
    return (name or "")[:128]


def unknown(admitted: Admitted) -> Reply:
    """The reply when the outcome did not arrive in time: not a refusal, it may be logged."""
    command = admitted.command
    error = EngineError(
        "the reply did not arrive in time; the command may have been carried out",
        code="OUTCOME_UNKNOWN",
        location=compose.outcome_location(command),
    )
    return msgspec.structs.replace(compose.refused(command.id, error), outcome="unknown")
