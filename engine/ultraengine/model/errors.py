"""Every problem code, once: its HTTP status, whether a retry can help, and advice.

Three families (`EngineError.family`): the caller's fault, retry later, our bug.
Handlers raise these or domains return `Rejection`; nobody reads messages to decide.
The table is the source of the OpenAPI document and of `docs/errors.md`.
"""

import enum
from typing import Final

import msgspec


class Family(enum.Enum):
    """Who has to act on a problem."""

    CALLER = "caller"
    RETRY = "retry"
    BUG = "bug"


class Problem(msgspec.Struct, frozen=True):
    """One row of the table of problem codes."""

    code: str
    status: int
    family: Family
    title: str
    advice: str

    @property
    def retryable(self) -> bool:
        """Whether the same command with the same id may be sent again as it is."""
        return self.family is Family.RETRY


_CALLER, _RETRY, _BUG = Family.CALLER, Family.RETRY, Family.BUG
_ROWS: Final = (
    Problem(
        "MALFORMED",
        400,
        _CALLER,
        "The request has the wrong shape",
        "Correct the member named by 'pointer' and send it again.",
    ),
    Problem(
        "UNKNOWN_FILTER",
        400,
        _CALLER,
        "The list has no such filter",
        "Use the filters and operators that 'detail' names; see /openapi.json.",
    ),
    Problem(
        "BAD_CURSOR",
        400,
        _CALLER,
        "The cursor does not belong to this list",
        "Send next_cursor with the same filters and order, or begin at the first page.",
    ),
    Problem(
        "UNAUTHENTICATED",
        401,
        _CALLER,
        "No valid credentials",
        "Send a valid API key as 'Authorization: Bearer <key>'.",
    ),
    Problem(
        "FORBIDDEN",
        403,
        _CALLER,
        "The credentials do not allow this",
        "Use a key with the scope named in 'detail'.",
    ),
    Problem(
        "UNKNOWN_TYPE",
        404,
        _CALLER,
        "No handler for this command type",
        "See /openapi.json for the command types of this engine.",
    ),
    Problem("NOT_FOUND", 404, _CALLER, "No such thing", "Check the path and its names."),
    Problem(
        "METHOD_NOT_ALLOWED",
        405,
        _CALLER,
        "The path has no such method",
        "See /openapi.json for the methods of this path.",
    ),
    Problem(
        "NOT_ACCEPTABLE",
        406,
        _CALLER,
        "No representation that the client accepts",
        "Accept application/json or application/msgpack.",
    ),
    Problem(
        "IDEMPOTENCY_MISMATCH",
        409,
        _CALLER,
        "This id was used for another content",
        "Use a new id for a new intent; resend the first content to get its reply.",
    ),
    Problem(
        "TOO_OLD",
        409,
        _CALLER,
        "Older than what the engine keeps",
        "An id: ask for the outcome; if it is unknown, decide anew with a new id. An offset: begin "
        "with the first one that is kept, which 'detail' names.",
    ),
    Problem(
        "CANNOT_PROMOTE",
        409,
        _CALLER,
        "The copy cannot lead now",
        "See /admin/v1/status of the leader for who is in sync; nothing has changed.",
    ),
    Problem(
        "VERSION_MISMATCH",
        412,
        _CALLER,
        "The aggregate has another version",
        "Read the current state, decide again and send a new id.",
    ),
    Problem("TOO_LARGE", 413, _CALLER, "Larger than the limit", "See /v1/limits; split it."),
    Problem(
        "UNSUPPORTED_MEDIA_TYPE",
        415,
        _CALLER,
        "Unknown Content-Type",
        "Send application/json or application/msgpack.",
    ),
    Problem(
        "WRONG_SHARD",
        421,
        _RETRY,
        "Another shard owns this key",
        "Refresh the shard map and send it there with the same id.",
    ),
    Problem("REJECTED", 422, _CALLER, "A domain rule said no", "See 'detail'."),
    Problem(
        "OVERLOADED",
        429,
        _RETRY,
        "The queue is full",
        "Wait for Retry-After and send the same id again.",
    ),
    Problem(
        "QUOTA",
        429,
        _RETRY,
        "The tenant's quota is used up",
        "Wait for Retry-After and send the same id again.",
    ),
    Problem(
        "INTERNAL",
        500,
        _BUG,
        "A handler failed",
        "The command changed nothing. Report the offset to the operator.",
    ),
    Problem(
        "NOT_LEADER",
        503,
        _RETRY,
        "This replica does not lead the shard",
        "Send the same id to another copy of the shard.",
    ),
    Problem(
        "SHARD_UNAVAILABLE",
        503,
        _RETRY,
        "The shard is not serving",
        "Wait for Retry-After and send the same id again.",
    ),
    Problem(
        "READ_ONLY",
        503,
        _RETRY,
        "The shard is read-only: its disk is full",
        "Free space on the volume; the same id may be sent again later.",
    ),
    Problem(
        "PROJECTION_UNAVAILABLE",
        503,
        _RETRY,
        "The tables cannot be read now",
        "Wait for Retry-After and read again; the engine answers meanwhile.",
    ),
    Problem(
        "PAUSED",
        503,
        _RETRY,
        "An operator has paused the shard",
        "Wait for Retry-After and send the same id again.",
    ),
    Problem(
        "DRAINING",
        503,
        _RETRY,
        "The shard is shutting down",
        "Wait for Retry-After and send the same id again.",
    ),
    Problem(
        "OUTCOME_UNKNOWN",
        504,
        _RETRY,
        "The outcome is not known yet",
        "Ask for it at 'location', or send the same id again.",
    ),
    Problem(
        "READ_TIMEOUT",
        504,
        _RETRY,
        "The read took longer than is allowed",
        "Ask for less: a shorter period, more filters, a smaller page.",
    ),
    Problem(
        "WAIT_TIMEOUT",
        504,
        _RETRY,
        "The offset was not reached in time",
        "Read again, or read without min_offset.",
    ),
)


PROBLEMS: Final[dict[str, Problem]] = {row.code: row for row in _ROWS}


class EngineError(Exception):
    """Base of all errors that reach a caller.  ``code`` names a row of `PROBLEMS`."""

    code = "INTERNAL"

    def __init__(
        self,
        detail: str,
        *,
        pointer: str = "",
        retry_after_s: float | None = None,
        current_version: int | None = None,
        location: str | None = None,
        code: str | None = None,
        shard_map_version: int | None = None,
        leader_url: str | None = None,
    ) -> None:
        super().__init__(detail)
        if code is not None:
            self.code = code
        self.detail = detail
        self.pointer = pointer
        self.retry_after_s = retry_after_s
        self.current_version = current_version
        self.location = location
        self.shard_map_version = shard_map_version
        self.leader_url = leader_url

    @property
    def problem(self) -> Problem:
        """The table row of this error."""
        return PROBLEMS[self.code]


class Malformed(EngineError):
    """The request has the wrong shape."""

    code = "MALFORMED"


class Overloaded(EngineError):
    """A bounded queue is full."""

    code = "OVERLOADED"


class Unavailable(EngineError):
    """The shard is not serving (subclasses and ``code=`` say why)."""

    code = "SHARD_UNAVAILABLE"


class InvariantBroken(Exception):
    """A rule of the engine itself does not hold: the shard halts and says the numbers.

    Never caught to go on.  Keyword arguments are the numbers that disagree.
    """

    def __init__(self, rule: str, **facts: object) -> None:
        self.rule = rule
        self.facts = facts
        listed = ", ".join(f"{name}={value!r}" for name, value in facts.items())
        super().__init__(f"{rule} ({listed})" if listed else rule)
