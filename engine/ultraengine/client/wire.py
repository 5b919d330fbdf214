"""The client's side of the wire: commands as msgpack, replies and problems back.

The formats are those of `docs/api.md`; nothing here waits.
"""

from typing import Final

import msgspec

from ultraengine.client.pending import NewCommand, Pending
from ultraengine.model.errors import PROBLEMS
from ultraengine.model.reply import Reply, ReplyError

MSGPACK: Final = "application/msgpack"
DECIDED: Final = frozenset({"accepted", "rejected"})
"""Outcomes that are logged and final.  Everything else is either no answer or a refusal."""
UNCERTAIN_CODES: Final = frozenset({"OUTCOME_UNKNOWN"})
"""Problems after which the command may be logged all the same."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_REPLIES: Final = msgspec.msgpack.Decoder(list[Reply])
_RETRYABLE_STATUS: Final = frozenset({408, 421, 425, 429, 502, 503, 504})
"""Statuses that ask for another attempt when no known code came with them (proxies)."""


class BadAnswer(Exception):
    """An answer that is not what the contract says; the outcome stays unknown."""


class Setback(msgspec.Struct, frozen=True):
    """A whole request that failed: why, and what is known about its commands."""

    error: ReplyError
    retryable: bool
    certain: bool
    """Whether it is certain that nothing of the request was logged."""
    status: int = 0
    """HTTP status; 0 without an answer."""


class _Problem(msgspec.Struct):
    """RFC 9457 body; members that are missing or odd do not matter."""

    code: str = ""
    detail: str = ""
    title: str = ""
    advice: str = ""
    pointer: str = ""
    retryable: bool = False
    retry_after_s: float | None = None


def encode_command(command: NewCommand) -> bytes:
    """One command as msgpack.

    Raises ValueError for data that msgpack cannot hold, such as integers beyond 64 bits.
    """
    try:
        return _ENCODER.encode(command)
    except (OverflowError, TypeError) as error:
        raise ValueError(
            f"The data of {command.type} cannot be sent: {error}. "
            "Send integers beyond 64 bits as decimal strings."
        ) from error


def encode_batch(batch: list[Pending]) -> bytes:
    """An array of commands from their encoded forms."""
    return _ENCODER.encode([msgspec.Raw(pending.encoded) for pending in batch])


def decode_replies(body: bytes, count: int) -> list[Reply]:
    """The replies to `count` commands.  Raises `BadAnswer`."""
    try:
        replies = _REPLIES.decode(body)
    except msgspec.MsgspecError as error:
        raise BadAnswer(f"not an array of replies: {error}") from error
    if len(replies) != count:
        raise BadAnswer(f"{len(replies)} replies to {count} commands")
    return replies


class Hello(msgspec.Struct, tag="hello", tag_field="op"):
    """The engine's first words on a stream."""

    credit: int
    """Commands that may be unanswered."""
    limits: dict[str, int] = {}


class Credit(msgspec.Struct, tag="credit", tag_field="op"):
    """So many more commands may be sent."""

    n: int


class GoAway(msgspec.Struct, tag="goaway", tag_field="op"):
    """The engine ends the stream once it has answered."""

    retry_after: float = 0.0


class Fault(msgspec.Struct, tag="error", tag_field="op"):
    """Something was wrong that belongs to no single command."""

    code: str
    detail: str = ""
    pointer: str = ""


class Event(msgspec.Struct, tag="event", tag_field="op"):
    """A committed outcome, for those who subscribe."""


Notice = Hello | Credit | GoAway | Fault | Event


def sort_frame(data: bytes | str) -> tuple[list[Reply], list[Notice]]:
    """The replies and the notices in one frame of a stream.  Raises `BadAnswer`."""
    try:
        decoded = (
            msgspec.json.decode(data) if isinstance(data, str) else msgspec.msgpack.decode(data)
        )
        replies: list[Reply] = []
        notices: list[Notice] = []
        for member in decoded if isinstance(decoded, list) else [decoded]:
            if isinstance(member, dict) and "op" in member:
                notices.append(msgspec.convert(member, Notice))
            else:
                replies.append(msgspec.convert(member, Reply))
    except msgspec.MsgspecError as error:
        raise BadAnswer(f"not a frame of a stream: {error}") from error
    return replies, notices


def read_problem(status: int, body: bytes, retry_after: str | None) -> Setback:
    """What a non-2xx answer means, whoever gave it (the engine or a proxy before it)."""
    try:
        found = msgspec.json.decode(body, type=_Problem)
    except msgspec.MsgspecError:
        found = _Problem()
    known = PROBLEMS.get(found.code)
    wait = found.retry_after_s if found.retry_after_s is not None else parse_seconds(retry_after)
    if known is None:
        error = ReplyError(
            code=found.code or f"HTTP_{status}",
            detail=found.detail or found.title or f"HTTP status {status}",
            advice=found.advice,
            retry_after_s=wait,
        )
        retryable = found.retryable or status in _RETRYABLE_STATUS
        return Setback(error, retryable, status < 500, status)
    error = ReplyError(
        code=known.code,
        detail=found.detail or known.title,
        pointer=found.pointer,
        advice=found.advice or known.advice,
        retry_after_s=wait,
    )
    certain = known.code not in UNCERTAIN_CODES and known.code != "INTERNAL"
    return Setback(error, known.retryable, certain, status)


def parse_seconds(text: str | None) -> float | None:
    """``Retry-After`` in seconds; None for its absence and for dates."""
    if text is None or not text.strip().isdecimal():
        return None
    return float(text)


def is_uncertain(reply: Reply) -> bool:
    """Whether a command may be logged although no outcome came."""
    if reply.outcome in DECIDED:
        return False
    code = reply.error.code if reply.error is not None else ""
    return reply.outcome != "refused" or code in UNCERTAIN_CODES


def is_retryable(reply: Reply) -> bool:
    """Whether a reply asks for another attempt with the same id."""
    if reply.outcome in DECIDED or reply.error is None:
        return False
    known = PROBLEMS.get(reply.error.code)
    return known is not None and known.retryable
