"""The ``event`` objects of a subscription, from the feed's records.

A subscriber sees the commands of its own tenant, and of those only the domains that it may
read.  What is recorded as msgpack goes into a msgpack stream as it is.
"""

from collections.abc import Container, Iterator, Sequence
from typing import Any, Final

import msgspec

from ultraengine.edge.codec import CodecName
from ultraengine.model.instant import format_instant
from ultraengine.model.outcome import CommittedOutcome, Status
from ultraengine.ports import Caller

_DECODE: Final = msgspec.msgpack.Decoder().decode


def _as_is(recorded: msgspec.Raw) -> Any:
    return recorded


def may_see(
    caller: Caller, outcome: CommittedOutcome, domains: Container[str] | None = None
) -> bool:
    """Whether the caller may read this command's domain, in its own tenant, and asked for it."""
    command = outcome.command
    if command.tenant != caller.tenant:
        return False
    domain = command.type.partition(".")[0]
    if domains is not None and domain not in domains:
        return False
    return f"{domain}:read" in caller.scopes or "*:read" in caller.scopes


def event_objects(
    outcomes: Sequence[CommittedOutcome],
    caller: Caller,
    codec: CodecName,
    domains: Container[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """One object per command that the caller may see and asked for, in order."""
    raw = _as_is if codec == "msgpack" else _DECODE
    for item in outcomes:
        if not may_see(caller, item, domains):
            continue
        command, outcome = item.command, item.outcome
        yield {
            "op": "event",
            "shard": item.shard,
            "epoch": item.epoch,
            "offset": item.offset,
            "time": format_instant(item.time),
            "id": command.id,
            "type": command.type,
            "key": command.key,
            "principal": command.principal,
            "correlation_id": command.correlation_id,
            "traceparent": command.traceparent,
            "outcome": "accepted" if outcome.status == Status.ACCEPTED else "rejected",
            "version": outcome.version,
            "result": raw(outcome.result),
            "events": raw(outcome.events),
            "error": None
            if outcome.failure is None
            else {"code": outcome.failure.code, "detail": outcome.failure.detail},
        }
