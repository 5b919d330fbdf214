"""From envelopes to admitted commands: who may send what, decided before the log.

The order is: quota of the tenant (whole request), then for each command what the registry
checks (type, scope, names, schema).  What fails is *refused*: never logged, so the same id
may be used again.  The tenant is the caller's, never the body's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import structlog

from ultraengine.execution.registry import Admitted, Registry
from ultraengine.gateway.codec import CodecName
from ultraengine.gateway.envelope import Envelope, Parsed, issued_micros
from ultraengine.model.errors import EngineError, Malformed
from ultraengine.model.reply import Reply
from ultraengine.ports import Caller
from ultraengine.reply import compose
from ultraengine.reply.waiters import Ticket

_log = structlog.get_logger("ultraengine.gateway")


class Intake(NamedTuple):
    """What became of the elements of one request."""

    admitted: list[Admitted]
    places: list[int] | None
    """Index in the request of each admitted command; None when all were admitted."""
    refusals: list[tuple[int, Reply]]


def admit(
    registry: Registry,
    caller: Caller,
    envelope: Envelope,
    codec: CodecName,
    traceparent: str | None = None,
) -> Admitted:
    """One command.  `traceparent` stands in for a command that has none of its own.

    Raises `EngineError`; a handler's schema code that fails in an unforeseen way is INTERNAL
    and logged, so that one command cannot take its batch along.
    """
    try:
        return registry.admit(
            id=envelope.id or "",
            type=envelope.type,
            key=envelope.key,
            data=envelope.data,
            codec=codec,
            tenant=caller.tenant,
            principal=caller.principal,
            scopes=caller.scopes,
            expected_version=envelope.expected_version,
            issued_at=None if envelope.issued_at is None else issued_micros(envelope),
            correlation_id=envelope.correlation_id,
            traceparent=envelope.traceparent or traceparent,
        )
    except EngineError:
        raise
    except (RecursionError, OverflowError) as error:
        # Numbers beyond 64 bits in free-form members, or nesting beyond the decoder's depth.
        raise Malformed(f"not representable: {error}", pointer="/data") from error
    except Exception as error:
        _log.exception("admission.failed", type=envelope.type, tenant=caller.tenant)
        raise EngineError(
            f"checking the command raised {type(error).__name__}; it was not logged"
        ) from error


def admit_all(
    registry: Registry,
    caller: Caller,
    parsed: Sequence[Parsed],
    codec: CodecName,
    traceparent: str | None = None,
) -> Intake:
    """The elements of a batch or frame, bad ones refused singly."""
    admitted: list[Admitted] = []
    places: list[int] = []
    refusals: list[tuple[int, Reply]] = []
    for index, item in enumerate(parsed):
        try:
            if isinstance(item, EngineError):
                raise item
            admitted.append(admit(registry, caller, item, codec, traceparent))
            places.append(index)
        except EngineError as error:
            name = item.id if isinstance(item, Envelope) else getattr(item, "id", "")
            refusals.append((index, compose.refused((name or "")[:128], error)))
    return Intake(admitted, None if not refusals else places, refusals)


def merge(count: int, intake: Intake, ticket: Ticket) -> list[Reply]:
    """Replies in the order of the request; what has no answer yet is OUTCOME_UNKNOWN."""
    answers = ticket.answers
    if intake.places is None and ticket.missing == 0:
        return answers  # type: ignore[return-value]  # None stands only where one is missing.
    replies: dict[int, Reply] = dict(intake.refusals)
    places = range(count) if intake.places is None else intake.places
    for place, answer, admitted in zip(places, answers, intake.admitted, strict=True):
        replies[place] = answer if answer is not None else unknown(admitted)
    return [replies[index] for index in range(count)]


def unknown(admitted: Admitted) -> Reply:
    """The reply when the outcome did not arrive in time: not a refusal, it may be logged."""
    command = admitted.command
    error = EngineError(
        "the reply did not arrive in time; the command may have been carried out",
        code="OUTCOME_UNKNOWN",
        location=compose.outcome_location(command),
    )
    return msgspec.structs.replace(compose.refused(command.id, error), outcome="unknown")
