"""Commands on their way to a shard, and its answers on their way back, as bytes.

``data`` stays as the client wrote it, and a reply stays as the shard wrote it: only the
envelope is decoded and put together again, and only the answer to a repeated request is
looked into.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ultraengine.edge.codec import Codec
from ultraengine.gateway.envelope import DECODE_ERRORS, Envelope
from ultraengine.model.errors import PROBLEMS, EngineError
from ultraengine.model.ids import ShardId
from ultraengine.model.reply import Reply
from ultraengine.reply import compose
from ultraengine.router.wire import Answered, request

Headers = tuple[tuple[str, str], ...]
_REPLIES: Final = {
    "json": msgspec.json.Decoder(list[msgspec.Raw]).decode,
    "msgpack": msgspec.msgpack.Decoder(list[msgspec.Raw]).decode,
}


class Way(msgspec.Struct, frozen=True, gc=False):
    """What the commands of one request or frame share."""

    caller: Headers
    """Headers that name the caller to the shard."""
    codec: Codec
    out: Codec


class Routed(msgspec.Struct, gc=False, eq=False):
    """One command for one shard."""

    command: Envelope
    """With its id."""
    shard: ShardId
    way: Way
    raw: bytes
    """The envelope in the way's codec."""


class Alone(Routed, gc=False, eq=False):
    """A command that came as a request of its own: its reply is looked into."""


class Heard(Reply, frozen=True, gc=False):
    """A reply that a shard made, and counted."""


_HEARD: Final = {
    "json": msgspec.json.Decoder(Heard).decode,
    "msgpack": msgspec.msgpack.Decoder(Heard).decode,
}


def heard(raw: msgspec.Raw, out: Codec) -> Reply:
    """A reply from its bytes.  Raises `DECODE_ERRORS`."""
    return _HEARD[out.name](raw)


def batch_request(batch: Sequence[Routed]) -> bytes:
    """The request for commands of one way."""
    way = batch[0].way
    headers = (("Content-Type", way.codec.media_type), ("Accept", way.out.media_type), *way.caller)
    body = way.codec.encode([msgspec.Raw(one.raw) for one in batch])
    return request("POST", "/v1/commands:batch", headers, body)


class _Code(msgspec.Struct):
    code: str = ""


class _Seen(msgspec.Struct):
    outcome: str
    error: _Code | None = None


_SEEN: Final = {
    "json": msgspec.json.Decoder(_Seen).decode,
    "msgpack": msgspec.msgpack.Decoder(_Seen).decode,
}


class _Problem(msgspec.Struct):
    code: str = ""
    detail: str = ""
    retry_after_s: float | None = None


_PROBLEM: Final = msgspec.json.Decoder(_Problem).decode


def problem_of(answered: Answered) -> EngineError:
    """A shard's problem document as an error.

    One that does not say for sure that nothing was done is OUTCOME_UNKNOWN.
    """
    try:
        found = _PROBLEM(answered.body)
    except DECODE_ERRORS:
        found = _Problem()
    if found.code not in PROBLEMS or found.code == "INTERNAL":
        detail = f"the shard answered with status {answered.status}: {found.detail}"
        return EngineError(detail, code="OUTCOME_UNKNOWN")
    return EngineError(found.detail, code=found.code, retry_after_s=found.retry_after_s)


def replies_of(
    batch: Sequence[Routed], result: Answered | EngineError, *, was_lost: bool
) -> list[Any]:
    """The replies to a batch, as the shard wrote them or made here: one for each command.

    After a lost answer, a command that the shard does not take now may have been carried out
    by the attempt before: its reply is OUTCOME_UNKNOWN.
    """
    if isinstance(result, Answered):
        if result.status == 200:
            out = batch[0].way.out
            try:
                replies = _REPLIES[out.name](result.body)
                if len(replies) == len(batch):
                    if not was_lost:
                        return list(replies)
                    return [
                        unknown_reply(one.command) if _is_open(raw, out) else raw
                        for one, raw in zip(batch, replies, strict=True)
                    ]
            except DECODE_ERRORS:
                pass  # Said below: whatever was done, these are no replies to it.
            result = EngineError("no replies to these commands", code="OUTCOME_UNKNOWN")
        else:
            result = problem_of(result)
    return [made_reply(one.command, result) for one in batch]


def single_replies_of(
    batch: Sequence[Routed], result: Answered | EngineError, *, was_lost: bool
) -> list[Reply]:
    """`replies_of` for commands that came alone: as values, because the answer to a request of
    one command says in its status and headers what the reply says."""
    out = batch[0].way.out
    found: list[Reply] = []
    for one, reply in zip(batch, replies_of(batch, result, was_lost=was_lost), strict=True):
        try:
            found.append(heard(reply, out) if isinstance(reply, msgspec.Raw) else reply)
        except DECODE_ERRORS:
            found.append(unknown_reply(one.command))
    return found


def _is_open(raw: msgspec.Raw, out: Codec) -> bool:
    """Whether a reply leaves open what an earlier attempt came to."""
    seen = _SEEN[out.name](raw)
    if seen.outcome != "refused" or seen.error is None:
        return False
    row = PROBLEMS.get(seen.error.code)
    return row is not None and row.retryable


def unknown_reply(command: Envelope) -> Reply:
    """The reply for a command whose outcome is not known: not a refusal, it may be logged."""
    name = command.id or ""
    error = EngineError(
        "the reply did not arrive in time; the command may have been carried out",
        code="OUTCOME_UNKNOWN",
        location=compose.location_of(name, command.key),
    )
    return compose.refused(name, error)


def made_reply(command: Envelope, error: EngineError) -> Reply:
    """The reply for a command that no shard answered."""
    if error.code == "OUTCOME_UNKNOWN":
        return unknown_reply(command)
    return compose.refused(command.id or "", error)
