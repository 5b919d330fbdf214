"""Work that the pure machine asks the driver to do.

Durability order is in the types: answers of executed commands exist only in the effects of
a step that was told that their frame is durable (requirement 001 §1.1).
"""

from collections.abc import Callable
from typing import Final

import msgspec

from ultraengine.execution.pipeline import Verdict
from ultraengine.execution.registry import Admitted
from ultraengine.log.frame import FrameDraft
from ultraengine.model.command import Command
from ultraengine.model.ids import Instant, Offset
from ultraengine.model.outcome import Outcome
from ultraengine.model.reply import Reply
from ultraengine.reply.waiters import Ticket

_NOWHERE: Final = Offset(-1)


class Pending(msgspec.Struct, eq=False, gc=False):
    """A command between admission and its answer, with everybody who waits for it.

    Invisible to the cycle collector: who waits knows the ticket, never the pending command.
    """

    admitted: Admitted
    ticket: Ticket | None
    """None for the engine's own commands."""
    index: int
    joined: list[tuple[Ticket, int]] | None = None
    """Retries that arrived while the first attempt was in flight."""
    offset: Offset = _NOWHERE
    """Set when the command enters a group."""
    rivals: "list[Pending] | None" = None
    """While the log is asked for a first attempt: commands of the same name and another content,
    one of which may be the true retry."""

    def is_unlogged_of(self, slot: int) -> bool:
        """Whether it is of this slot and in no group: nobody will ever find it in the log."""
        return self.offset == _NOWHERE and self.admitted.slot == slot


class Answer(msgspec.Struct, frozen=True, gc=False):
    """One reply to put into one ticket."""

    ticket: Ticket
    index: int
    reply: Reply


def answers_of(pending: Pending, reply: Reply) -> list[Answer]:
    """The answers of everybody who waits for a command: who has joined it is told so."""
    if pending.ticket is None:
        return []
    answers = [Answer(pending.ticket, pending.index, reply)]
    if pending.joined is not None:
        logged = reply.outcome in {"accepted", "rejected"}
        repeat = msgspec.structs.replace(reply, duplicate=logged)
        answers.extend(Answer(ticket, index, repeat) for ticket, index in pending.joined)
    return answers


class Group:
    """Commands that share one frame: one flush, one stamped time."""

    __slots__ = (
        "base_offset",
        "began",
        "commands",
        "draft",
        "executed",
        "next_index",
        "pendings",
        "refused",
        "time",
    )

    def __init__(
        self,
        base_offset: Offset,
        time: Instant,
        pendings: list[Pending],
        commands: list[Command],
        draft: FrameDraft,
        refused: list[Answer],
    ) -> None:
        self.base_offset = base_offset
        self.time = time
        self.pendings = pendings
        self.commands = commands
        self.draft = draft
        self.refused = refused
        """Answers of those that may not wait any longer, because their slot leaves with it."""
        self.began: float | None = None
        """When the driver began to execute it, by its own clock."""
        self.next_index = 0
        """First pending that is not executed yet."""
        self.executed: list[Outcome] = []
        """Outcomes so far, in order."""

    @property
    def offset_end(self) -> Offset:
        """First offset after the group."""
        return Offset(self.base_offset + len(self.pendings))


class Accepting(msgspec.Struct):
    """What `Machine.accept` asks for."""

    answers: list[Answer] = []
    verify: list[tuple[Pending, tuple[int, ...]]] = []
    """Commands that may be retries of the logged commands at these offsets, newest first: the
    driver reads them and tells the machine what it found."""
    failed: Exception | None = None
    """The memory of ids is damaged: the shard halts."""


class Alarm(msgspec.Struct, frozen=True):
    """Something a person should look at; logged and counted by the driver."""

    name: str
    offset: int
    detail: str
    error: BaseException | None = None


def handler_alarm(command: Command, done: Verdict) -> Alarm:
    """A handler raised: the command is answered, somebody should look at the code."""
    return Alarm("handler.raised", done.outcome.offset, command.type, done.error)


class Executing(msgspec.Struct):
    """What a slice of execution produced."""

    answers: list[Answer] = []
    alarms: list[Alarm] = []
    done: bool = False
    """Whether the group is executed to its end; its outcomes are then waiting to be written."""
    failed: Exception | None = None
    """What the command raised that ended the slice: the shard halts, and nobody may answer it."""


Deliver = Callable[[Answer], None]
