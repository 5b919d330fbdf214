"""Replies from what is known: a refusal, an execution, or a recorded outcome.

The word of a reply is kept: a retry gets what the first attempt was told, read back from
the log, marked as a duplicate and otherwise unchanged.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ultraengine.model.command import Command
from ultraengine.model.errors import PROBLEMS, EngineError
from ultraengine.model.ids import Epoch, Instant, ShardId
from ultraengine.model.instant import format_instant
from ultraengine.model.outcome import Failure, Outcome, Status
from ultraengine.model.reply import Durable, Reply, ReplyError

_RESULT: Final = msgspec.msgpack.Decoder()
_ACCEPTED: Final = int(Status.ACCEPTED)
_ADVICE: Final[Mapping[str, str]] = {code: row.advice for code, row in PROBLEMS.items()}


def refused(command_id: str, error: EngineError) -> Reply:
    """The command was never logged; the error says why and what to do.

    OUTCOME_UNKNOWN is no refusal: the command may be logged, and must keep its id.
    """
    return Reply(
        id=command_id,
        outcome="unknown" if error.code == "OUTCOME_UNKNOWN" else "refused",
        error=ReplyError(
            error.code,
            error.detail,
            error.pointer,
            error.problem.advice,
            error.retry_after_s,
            error.current_version,
            error.location,
            error.shard_map_version,
            error.leader_url,
        ),
    )


def failure_error(failure: Failure) -> ReplyError:
    """The ``error`` member for a logged failure; domain codes bring no advice of the engine."""
    return ReplyError(
        failure.code,
        failure.detail,
        failure.pointer,
        _ADVICE.get(failure.code, ""),
        None,
        failure.current_version,
    )


class Frame(msgspec.Struct, frozen=True, gc=False):
    """What all replies of one frame share."""

    shard: ShardId
    epoch: Epoch
    time: str
    durable: Durable


def reply_frame(*, shard: ShardId, epoch: Epoch, time: Instant, durable: Durable) -> Frame:
    """Format the shared parts once per frame."""
    return Frame(shard, epoch, format_instant(time), durable)


def executed(command_id: str, outcome: Outcome, result: Any, frame: Frame) -> Reply:
    """The first reply to a command, with the result as the handler returned it."""
    failure = outcome.failure
    # By position, in the order of the fields: names would double what a reply costs.
    return Reply(
        command_id,
        "accepted" if outcome.status == _ACCEPTED else "rejected",
        result,
        None if failure is None else failure_error(failure),
        frame.shard,
        frame.epoch,
        outcome.offset,
        outcome.version,
        frame.time,
        False,  # noqa: FBT003  (no duplicate)
        frame.durable,
    )


def repeated(command: Command, outcome: Outcome, frame: Frame) -> Reply:
    """The reply to a retry, from the recorded outcome."""
    result = _RESULT.decode(outcome.result)
    return msgspec.structs.replace(executed(command.id, outcome, result, frame), duplicate=True)


def outcome_location(command: Command) -> str:
    """Where the outcome of a command can be asked for."""
    return location_of(command.id, command.key)


def location_of(id: str, key: str) -> str:
    """Where the outcome of a command can be asked for, by its names."""
    return f"/v1/commands/{id}?key={key}"


def mismatch(command_id: str) -> Reply:
    """The refusal of an id that was used for another content."""
    return refused(
        command_id,
        EngineError(
            "the id was used with another type, key, data or expected_version",
            code="IDEMPOTENCY_MISMATCH",
            pointer="/id",
        ),
    )
