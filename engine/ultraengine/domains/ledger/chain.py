"""Reading an account's history backwards, along the links of its events.

`Chain.last` finds the last change for which a question is answered yes, where the answer is
yes up to some change and no after it (recorded by an offset, by a time, ``effective_max`` up
to a moment).  Anchors (`events.py`) make that about 254 steps per power of 128 in the number
of changes at most, however long the account's life was.

A posting that is not late has the highest effective time up to then.  So the balance at a
business time is the balance at the last change whose ``effective_max`` is not above it, and
the late postings after that change, which have a chain of their own.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from ultraengine.domains.ledger.events import (
    INDEX_BITS,
    INDEX_MASK,
    NEVER,
    NO_POSITION,
    AccountClosed,
    AccountOpened,
    AccountReopened,
    Event,
    HoldPosted,
    Link,
    Posted,
    Reversed,
    Transferred,
)
from ultraengine.domains.ledger.links import resolved
from ultraengine.model.domain import History
from ultraengine.model.errors import EngineError, InvariantBroken
from ultraengine.model.ids import Offset

Posting = Transferred | Posted | HoldPosted | Reversed
"""Events that change balances: what an account's entries are made of."""

LATE_STEPS_MAX: Final = 1_000_000
"""Late postings that one read follows: some seconds of work."""
_COMMANDS_KEPT: Final = 8
"""Decoded commands that a reader keeps; chains mostly stay within one or go to the next."""


class Reader:
    """Events by position.  Not thread-safe: one per read."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._kept: dict[int, Sequence[Any]] = {}

    def event(self, position: int) -> Event:
        """The event at `position`.  Raises `InvariantBroken` when there is none."""
        offset, index = position >> INDEX_BITS, position & INDEX_MASK
        events = self._kept.get(offset)
        if events is None:
            events = self._history.events(Offset(offset)) or ()
            if len(self._kept) == _COMMANDS_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[offset] = events
        if index >= len(events):
            raise InvariantBroken("a linked event is in the history", offset=offset, index=index)
        event: Event = events[index]
        return event


class Step:
    """One change of an account: where it stands, the event, and what it did to the account."""

    __slots__ = ("event", "link", "position")

    def __init__(self, position: int, event: Event, link: Link) -> None:
        self.position = position
        self.event = event
        self.link = link

    @property
    def offset(self) -> int:
        """Offset of the command that made the change."""
        return self.position >> INDEX_BITS


def link_of(event: Event, account_id: str, position: int) -> Link | None:
    """What an event did to an account; None when it did nothing."""
    if type(event) is Transferred:
        return _plain_link(event, account_id)
    if isinstance(event, AccountOpened):
        if event.id != account_id:
            return None
        return Link(account_id, 1, NO_POSITION, 0, 0, 0, NEVER)
    if isinstance(event, AccountClosed | AccountReopened):
        sides: tuple[Link, ...] = (event.link,)
    else:
        assert not isinstance(event, Transferred)  # noqa: S101  (asked above, by type)
        sides = (event.source, event.target)
    for link in sides:
        if link.account == account_id:
            return resolved(link, position)
    return None


def _plain_link(event: Transferred, account_id: str) -> Link | None:
    moment = effective_time(event)
    if event.source == account_id:
        return Link(
            account_id,
            event.source_version,
            event.source_previous,
            event.source_balance,
            0,
            0,
            moment,
        )
    if event.target == account_id:
        return Link(
            account_id,
            event.target_version,
            event.target_previous,
            event.target_balance,
            0,
            0,
            moment,
        )
    return None


def effective_time(event: Posting) -> int:
    """Business time of a posting: as it says, else when it was recorded."""
    return event.time if event.effective_time is None else event.effective_time


def side_ids(event: Any) -> tuple[str, str]:
    """Ids of the accounts that an event with two sides takes from and gives to."""
    if type(event) is Transferred:
        return event.source, event.target
    return event.source.account, event.target.account


def paid_in(event: Posting, account_id: str) -> int:
    """What a posting added to an account's balance: negative when it was the source."""
    amount = int(event.amount)
    return -amount if side_ids(event)[0] == account_id else amount


class Chain:
    """The changes of one account, newest first."""

    def __init__(self, reader: Reader, book: int, account_id: str) -> None:
        self._reader = reader
        self._book = book
        self.account_id = account_id

    def at(self, position: int) -> Step:
        """The change at `position`.  Raises `InvariantBroken` when it is not the account's."""
        event = self._reader.event(position)
        link = link_of(event, self.account_id, position) if event.book == self._book else None
        if link is None:
            raise InvariantBroken(
                "a link leads to an event of its account",
                account=self.account_id,
                position=position,
            )
        return Step(position, event, link)

    def before(self, step: Step) -> Step | None:
        """The change before; None for the opening."""
        if step.link.previous == NO_POSITION:
            return None
        earlier = self.at(step.link.previous)
        if earlier.link.version + 1 != step.link.version:
            raise InvariantBroken(
                "an account's changes are numbered without gaps",
                account=self.account_id,
                position=step.position,
                version=step.link.version,
                before=earlier.link.version,
            )
        return earlier

    def last(self, head: int, wanted: Callable[[Step], bool]) -> Step | None:
        """The last change from `head` back that is `wanted`; None when not even the opening is.

        `wanted` must be true up to some change and false after it.
        """
        step: Step | None = self.at(head)
        while step is not None and not wanted(step):
            step = self._leap(step, wanted) or self.before(step)
        return step

    def _leap(self, step: Step, wanted: Callable[[Step], bool]) -> Step | None:
        """The farthest anchor before `step` that is not wanted either."""
        for anchor in reversed(step.link.anchors):
            earlier = self.at(anchor)
            if not wanted(earlier):
                return earlier
        return None

    def back(self, start: Step | None, *, above: int) -> Iterator[Step]:
        """Changes from `start` backwards whose version is above `above`."""
        step = start
        while step is not None and step.link.version > above:
            yield step
            step = self.before(step)

    def late(self, head: int | None, *, above: int) -> Iterator[tuple[Step, Posting]]:
        """Late postings from `head` backwards whose version is above `above`.

        Raises TOO_LARGE beyond `LATE_STEPS_MAX` of them.
        """
        position = NO_POSITION if head is None else head
        count = 0
        while position != NO_POSITION:
            step = self.at(position)
            if step.link.version <= above:
                return
            if step.link.late is None or not isinstance(step.event, Posting):
                raise InvariantBroken("late postings are linked", position=position)
            count += 1
            if count > LATE_STEPS_MAX:
                raise EngineError(
                    f"more than {LATE_STEPS_MAX} postings were recorded later than their business "
                    "time asks for; read by logged time",
                    code="TOO_LARGE",
                )
            yield step, step.event
            position = step.link.late
