"""The states of a shard, how they refuse commands, and the answers of its reads."""

import enum
from typing import Final, Literal

import msgspec

from ultraengine.model.errors import EngineError, Unavailable
from ultraengine.model.reply import Reply


class ShardState(enum.StrEnum):
    """What the shard does with new commands."""

    RECOVERING = "recovering"
    SERVING = "serving"
    PAUSED = "paused"
    DRAINING = "draining"
    HANDING_OVER = "handing_over"
    READ_ONLY = "read_only"
    HALTED = "halted"
    STOPPED = "stopped"


ENDED: Final = frozenset({ShardState.HALTED, ShardState.STOPPED})
"""No way leads out of these."""


class Closed(msgspec.Struct, frozen=True):
    """How a state that takes no commands refuses them."""

    code: str
    detail: str
    retry_after_s: float


CLOSED: dict[ShardState, Closed] = {
    ShardState.RECOVERING: Closed("SHARD_UNAVAILABLE", "the shard is recovering", 1.0),
    ShardState.PAUSED: Closed("PAUSED", "the shard is paused", 5.0),
    ShardState.DRAINING: Closed("DRAINING", "the shard is draining", 1.0),
    ShardState.HANDING_OVER: Closed("DRAINING", "another copy is about to lead", 0.1),
    ShardState.READ_ONLY: Closed("READ_ONLY", "the shard's volume is full", 5.0),
    ShardState.HALTED: Closed("SHARD_UNAVAILABLE", "the shard has halted", 30.0),
    ShardState.STOPPED: Closed("SHARD_UNAVAILABLE", "the shard has stopped", 1.0),
}
"""Absent states serve."""


def unavailable(state: ShardState, reason: str) -> EngineError:
    """The error for a new command in one of the states of `CLOSED`."""
    closed = CLOSED[state]
    detail = f"{closed.detail}: {reason}" if reason else closed.detail
    return Unavailable(detail, code=closed.code, retry_after_s=closed.retry_after_s)


def refusal(state: ShardState, reason: str) -> EngineError | None:
    """The error for a new command in `state`; None when it is taken."""
    return unavailable(state, reason) if state in CLOSED else None


class ReadAnswer(msgspec.Struct, frozen=True):
    """A read with the position that it reflects."""

    value: object
    epoch: int
    offset: int
    """Offset of the last command that it reflects; -1 before the first."""
    role: str = "leader"
    """Of the copy that has answered."""


OutcomeState = Literal["done", "in_flight", "unknown", "forgotten"]


class OutcomeAnswer(msgspec.Struct, frozen=True):
    """What became of a command."""

    state: OutcomeState
    reply: Reply | None
    """The first attempt's reply, when done."""
    dedup_floor: int
    """Offset below which ids may have been forgotten."""


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of deciding a range of the log again and comparing."""

    from_offset: int
    to_offset: int
    compared: int
    handlers: dict[str, int]
    equal: bool
    first_difference: int | None = None
    """Offset of the first command that this build decides differently."""
    command_type: str | None = None
    recorded: str | None = None
    decided: str | None = None
