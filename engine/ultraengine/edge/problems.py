"""Replies and errors as RFC 9457 problem documents.

Every answer outside 2xx of this engine has one body: ``type title status detail code
pointer advice``, and, when it answers a command, the members of its `Reply` beside them, so
that a client reads one structure either way.

``pointer`` is an RFC 6901 pointer into the request body; what is not in the body is
addressed as ``/header/<name>``, ``/query/<name>`` or ``/path/<name>`` (an envelope has no
members of these names).
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ultraengine.edge.codec import PROBLEM_TYPE
from ultraengine.model.errors import PROBLEMS, EngineError, Family, Problem
from ultraengine.model.reply import Durable, OutcomeName, Reply, ReplyError

RETRY_AFTER_DEFAULT_S: Final = 1.0
"""``Retry-After`` of retryable problems that name no time of their own."""
_STATUS_RETRY_AFTER: Final = frozenset({429, 503})


Headers = tuple[tuple[str, str], ...]


class ProblemDocument(msgspec.Struct, kw_only=True, omit_defaults=True):
    """RFC 9457 body of an answer outside 2xx."""

    type: str
    """``urn:ultraengine:problem:<CODE>``: a name, not an address."""
    title: str
    status: int
    code: str
    """Stable; the one member to branch on."""
    detail: str
    pointer: str = ""
    advice: str = ""
    retryable: bool = False
    """Whether the same request with the same id may be sent again as it is."""
    retry_after_s: float | None = None
    current_version: int | None = None
    location: str | None = None
    shard_map_version: int | None = None
    leader_url: str | None = None
    """Where the leader is, when a copy that follows was asked and knows it."""


class CommandProblem(ProblemDocument, kw_only=True, omit_defaults=False):
    """A problem that answers a command: the Reply's members beside those of the problem."""

    id: str
    outcome: OutcomeName
    result: Any
    error: ReplyError | None
    shard: int | None
    epoch: int | None
    offset: int | None
    version: int | None
    time: str | None
    duplicate: bool
    durable: Durable | None


class Answer(msgspec.Struct, frozen=True):
    """An HTTP answer as a value: what `http.py` writes."""

    status: int
    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()


_ENCODE: Final = msgspec.json.Encoder().encode
_REJECTED: Final = PROBLEMS["REJECTED"]


def row_of(code: str) -> Problem:
    """The row of a code; domains' own codes share the row REJECTED (status 422)."""
    return PROBLEMS.get(code, _REJECTED)


def retry_after(row: Problem, seconds: float | None) -> tuple[tuple[str, str], ...]:
    """The ``Retry-After`` header of a problem, in whole seconds, at least 1."""
    if row.status not in _STATUS_RETRY_AFTER and seconds is None:
        return ()
    wait = RETRY_AFTER_DEFAULT_S if seconds is None else seconds
    return (("Retry-After", str(max(1, math.ceil(wait)))),)


def problem_answer(error: EngineError, headers: Sequence[tuple[str, str]] = ()) -> Answer:
    """The answer for an error that belongs to no single command."""
    row = row_of(error.code)
    document = ProblemDocument(
        type=f"urn:ultraengine:problem:{row.code}",
        title=row.title,
        status=row.status,
        code=error.code,
        detail=error.detail,
        pointer=error.pointer,
        advice=row.advice,
        retryable=row.retryable,
        retry_after_s=error.retry_after_s,
        current_version=error.current_version,
        location=error.location,
        shard_map_version=error.shard_map_version,
        leader_url=error.leader_url,
    )
    more = (*retry_after(row, error.retry_after_s), *headers)
    if row.status == 401:
        more = (("WWW-Authenticate", 'Bearer realm="ultraengine"'), *more)
    if error.location is not None:
        more = (("Location", error.location), *more)
    return Answer(row.status, _ENCODE(document), PROBLEM_TYPE, more)


def reply_problem(reply: Reply, headers: Sequence[tuple[str, str]] = ()) -> Answer:
    """The answer for a command that was not accepted."""
    error = reply.error or ReplyError("INTERNAL", "the reply names no error")
    row = row_of(error.code)
    document = CommandProblem(
        type=f"urn:ultraengine:problem:{row.code}",
        title=row.title,
        status=row.status,
        code=error.code,
        detail=error.detail,
        pointer=error.pointer,
        advice=error.advice or row.advice,
        retryable=row.retryable,
        retry_after_s=error.retry_after_s,
        current_version=error.current_version,
        location=error.location,
        shard_map_version=error.shard_map_version,
        leader_url=error.leader_url,
        id=reply.id,
        outcome=reply.outcome,
        result=reply.result,
        error=error,
        shard=reply.shard,
        epoch=reply.epoch,
        offset=reply.offset,
        version=reply.version,
        time=reply.time,
        duplicate=reply.duplicate,
        durable=reply.durable,
    )
    more = (*retry_after(row, error.retry_after_s), *headers)
    if error.location is not None:
        more = (("Location", error.location), *more)
    return Answer(row.status, _ENCODE(document), PROBLEM_TYPE, more)


_FAMILIES: Final = (
    (Family.CALLER, "The caller's to correct", "Sending the same thing again cannot help."),
    (Family.RETRY, "Retry later", "The same command with the same id may be sent again."),
    (Family.BUG, "A bug of the engine or of a domain", "Nothing was changed; report it."),
)


def errors_page() -> str:
    """The text of `docs/errors.md`, generated from the table of codes."""
    lines = [
        "# Problem codes",
        "",
        "Generated from `ultraengine.model.errors`; a test keeps it current.",
        "",
        "Every answer outside 2xx is `application/problem+json` (RFC 9457). Branch on `code`,",
        "which is stable; `detail` is for people and may change. `pointer` (RFC 6901) says where",
        "in the request body the problem is; what is not in the body is addressed as",
        "`/header/NAME`, `/query/NAME` or `/path/NAME`. When the problem answers a command, the",
        "members of its Reply stand beside those of the problem. In a batch or on a stream the",
        "same code stands in `error.code` of that command's reply.",
        "",
        "Domains have codes of their own (the ledger: `exceeds_balance`, `account_not_found`,",
        "...). They are answered with status 422 and the type of `REJECTED`.",
    ]
    for family, heading, meaning in _FAMILIES:
        lines += ["", f"## {heading}", "", meaning, "", "| Code | Status | What | What to do |"]
        lines.append("|---|---|---|---|")
        lines += [
            f"| `{row.code}` | {row.status} | {row.title} | {row.advice} |"
            for row in PROBLEMS.values()
            if row.family is family
        ]
    return "\n".join(lines) + "\n"
