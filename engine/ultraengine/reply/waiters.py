"""Where answers are collected for commands that were submitted together.

A ticket belongs to one request (a single command, a batch, one stream frame).  The shard
puts answers in as groups commit; the edge is told once all are in.  Only the thread of
the event loop touches tickets.
"""

from collections.abc import Callable

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.reply import Reply


class Ticket:
    """Answers for ``count`` commands, in the order in which they were submitted."""

    __slots__ = ("answers", "missing", "notify")

    def __init__(self, count: int, notify: "Callable[[Ticket], None]") -> None:
        self.answers: list[Reply | None] = [None] * count
        self.missing = count
        """How many answers are not in yet."""
        self.notify = notify
        """Called once, with this ticket, when the last answer is in."""

    def put(self, index: int, reply: Reply) -> None:
        """Set one answer.  An index is answered exactly once: a second answer is our bug."""
        if self.answers[index] is not None:
            raise InvariantBroken("a command is answered once", index=index, id=reply.id)
        self.answers[index] = reply
        self.missing -= 1
        if self.missing == 0:
            self.notify(self)
