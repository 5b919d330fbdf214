"""A command on its way, and what is known about it at each moment."""

import asyncio
from typing import Any, Final

import msgspec

from ultraengine.client.errors import ClientError, OutcomeUnknown, Refused, Unreachable
from ultraengine.model.reply import Reply, ReplyError

CONTENT_CODES: Final = frozenset({"MALFORMED", "UNKNOWN_TYPE", "TOO_LARGE", "IDEMPOTENCY_MISMATCH"})
"""Refusals that depend on the content alone: an earlier attempt had no effect either."""


class NewCommand(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A command to be sent, in the shape in which it travels (`docs/api.md`, Command)."""

    type: str
    """``domain.verb_noun``, with ``@version`` where one handler version is meant."""
    key: str
    """Partition key: what must change together shares it."""
    data: Any
    """The command's own schema: a mapping or a msgspec struct."""
    id: str = ""
    """Idempotency key; the client makes a UUIDv7 where it is empty."""
    expected_version: int | None = None
    issued_at: int | str | None = None
    """Microseconds since the Unix epoch or RFC 3339, for ids that carry no time."""
    correlation_id: str | None = None
    traceparent: str | None = None


class Pending:
    """One command between ``send`` and its answer."""

    __slots__ = ("_doubt_before", "attempts", "deadline", "doubt", "encoded", "future", "id", "key",
                 "problem", "reply", "sequence")  # fmt: skip

    def __init__(
        self,
        *,
        sequence: int,
        id: str,
        key: str,
        encoded: bytes,
        future: asyncio.Future[Reply],
        deadline: float | None = None,
    ) -> None:
        self.sequence = sequence
        self.id = id
        self.key = key
        self.encoded = encoded
        self.future = future
        self.deadline = deadline
        """Loop time of its end; None = never."""
        self.attempts = 0
        self.doubt = False
        """Whether some attempt may have been logged without our knowing."""
        self._doubt_before = False
        self.reply: Reply | None = None
        """The last refusal, if one came."""
        self.problem: ReplyError | None = None
        """What stood in the way of the last attempt."""

    def sent(self) -> None:
        """An attempt leaves: from now on it may have been logged."""
        self._doubt_before, self.doubt = self.doubt, True

    def not_logged(self, problem: ReplyError, reply: Reply | None = None) -> None:
        """The last attempt was certainly not logged, for this reason."""
        self.doubt = self._doubt_before
        self.problem = problem
        self.reply = reply

    def lost(self, problem: ReplyError) -> None:
        """The last attempt has no answer, and no later one can tell what became of it."""
        self._doubt_before = True
        self.problem = problem

    def is_over_by(self, time: float) -> bool:
        """Whether there is no attempt left for a command that has to wait until `time`."""
        return self.deadline is not None and time >= self.deadline

    def finish(self, reply: Reply) -> None:
        """The answer is there."""
        if not self.future.done():
            self.future.set_result(reply)

    def give_up(self, code: str | None = None) -> None:
        """No further attempt: say as exactly as possible what is known.

        `code` overrides the code of the last problem (``CLOSED``).
        """
        if self.future.done():
            return
        problem = self.problem or ReplyError(
            "UNREACHABLE", "The command was not sent before its deadline."
        )
        reply = self.reply
        kind: type[ClientError]
        if problem.code in CONTENT_CODES:
            kind, name, advice = Refused, problem.code, problem.advice
            reply = reply or Reply(id=self.id, outcome="refused", error=problem)
        elif self.doubt:
            kind, name = OutcomeUnknown, "OUTCOME_UNKNOWN"
            advice = "Ask client.outcome() for this id, or send it again with the same id."
        elif reply is not None:
            kind, name, advice = Refused, problem.code, problem.advice
        else:
            kind, name = Unreachable, "UNREACHABLE"
            advice = "Check that the engine runs and that the address is right."
        self.future.set_exception(
            kind(
                code or name,
                problem.detail,
                advice=problem.advice or advice,
                reply=reply,
                id=self.id,
                key=self.key,
            )
        )
