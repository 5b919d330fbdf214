"""Deadlines of waiting requests, kept in the order in which they end.

All waits last equally long, so the oldest ends first: starting and ending one costs a dict
entry instead of a timer of the event loop, and a sweep looks only at the front.
"""

from collections.abc import Callable

from ultraengine.reply.waiters import Ticket


class Waits:
    """Tickets whose answers somebody waits for.  Times are seconds of a monotonic clock."""

    __slots__ = ("_waiting", "wait_s")

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s
        self._waiting: dict[Ticket, tuple[float, Callable[[Ticket], None]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, ticket: Ticket, now: float, expire: Callable[[Ticket], None]) -> None:
        """Call `expire` with the ticket when its answers are not in after ``wait_s``."""
        self._waiting[ticket] = (now + self.wait_s, expire)

    def done(self, ticket: Ticket) -> None:
        """The answers are in.  No error when the wait is over already."""
        self._waiting.pop(ticket, None)

    def sweep(self, now: float) -> int:
        """End all waits that are due; returns how many."""
        due: list[tuple[Ticket, Callable[[Ticket], None]]] = []
        for ticket, (deadline, expire) in self._waiting.items():
            if deadline > now:
                break
            due.append((ticket, expire))
        for ticket, expire in due:
            self.done(ticket)
            expire(ticket)
        return len(due)
