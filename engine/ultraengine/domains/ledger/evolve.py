"""The only mutation of the ledger: applying one event.

Values are computed from memory and compared with the event's: a difference means that this
replica is not what the log says, and raises `InvariantBroken`.
"""

from collections.abc import Callable
from typing import Any, Final

import xxhash

from ultraengine.domains.ledger.events import (
    INDEX_BITS,
    AccountClosed,
    AccountOpened,
    AccountReopened,
    Event,
    Held,
    HoldExpired,
    HoldPosted,
    HoldVoided,
    Link,
    Posted,
    Reversed,
    Transferred,
)
from ultraengine.domains.ledger.links import next_link, settle
from ultraengine.domains.ledger.state import (
    CONCERNS,
    CREATED,
    NO_NUMBER,
    Account,
    Book,
    Hold,
)
from ultraengine.model.domain import At
from ultraengine.model.errors import InvariantBroken

_hash = xxhash.xxh3_64_digest


def evolve(book: Book, event: Event, at: At) -> None:
    """Apply `event` to `book`.  Raises `InvariantBroken` when it does not fit."""
    offset = at.offset
    if offset != book.offset:
        # The first event of a command: what the one before left is history now.
        book.offset = offset
        book.base = offset << INDEX_BITS
        book.recent.clear()
    position = book.base + at.index
    book.recent.append(event)
    if type(event) is not Transferred:
        book.decided = None
        _GENERAL[type(event)](book, event, position)
        return
    decided = book.decided
    if decided is not None and decided[0] is event:
        # Computed from this very state, a moment ago: nothing to look up or to compare.
        _, source, target, moment = decided
    else:
        source, target, moment = _recomputed(book, event)
    book.decided = None
    source.balance = event.source_balance
    source.version = event.source_version
    target.balance = event.target_balance
    target.version = event.target_version
    source.head = target.head = position
    source.effective_max = target.effective_max = moment
    if not source.dirty:
        book.touch(source)
    if not target.dirty:
        book.touch(target)
    transfer_id = event.id
    if transfer_id > book.highest:  # noqa: PLR1730  (max() would cost three times as much)
        book.highest = transfer_id
    # An index entry is `position << 1 | CREATED`; a sum costs less than a shift.
    book.add(_hash(transfer_id.encode(), book.seed), position + position)


def _recomputed(book: Book, event: Transferred) -> tuple[Account, Account, int]:
    """(source, target, effective time) of an event that memory agrees with."""
    source = book.get(event.source)
    target = book.get(event.target)
    amount = event.amount
    if (
        source is None
        or target is None
        or source.balance - amount != event.source_balance
        or target.balance + amount != event.target_balance
        or source.version + 1 != event.source_version
        or target.version + 1 != event.target_version
        or source.head != event.source_previous
        or target.head != event.target_previous
    ):
        raise _differs(event, source, target)
    moment = event.time if event.effective_time is None else event.effective_time
    return source, target, moment


def _differs(event: Transferred, source: Account | None, target: Account | None) -> InvariantBroken:
    return InvariantBroken(
        "accounts reach the values of their event",
        event=event,
        source=None if source is None else next_link(source, paid_in=-event.amount),
        target=None if target is None else next_link(target, paid_in=event.amount),
    )


def _account(book: Book, link: Link) -> Account:
    account = book.get(link.account)
    if account is None:
        raise InvariantBroken("an event's account exists", account=link.account)
    if not account.dirty:
        book.touch(account)
    return account


def _move(
    book: Book, event: Posted | Reversed | HoldPosted, position: int, *, held: int = 0
) -> None:
    """Both sides of a posting; `held` is what it releases."""
    amount = int(event.amount)
    moment = event.time if event.effective_time is None else event.effective_time
    source, target = _account(book, event.source), _account(book, event.target)
    paid_out = next_link(source, paid_in=-amount, held_out=-held, moment=moment)
    paid_in = next_link(target, paid_in=amount, held_in=-held, moment=moment)
    settle(source, event.source, paid_out, position)
    settle(target, event.target, paid_in, position)


def _create(book: Book, transfer_id: str, position: int) -> None:
    """Use up a transfer id."""
    book.highest = max(book.highest, transfer_id)
    book.add(book.hash_of(transfer_id), position << 1 | CREATED)


def _posted(book: Book, event: Posted, position: int) -> None:
    _move(book, event, position)
    _create(book, event.id, position)


def _reversed(book: Book, event: Reversed, position: int) -> None:
    _move(book, event, position)
    _create(book, event.id, position)
    book.add(book.hash_of(event.reverses), position << 1 | CONCERNS)


def _held(book: Book, event: Held, position: int) -> None:
    amount = int(event.amount)
    source, target = _account(book, event.source), _account(book, event.target)
    settle(source, event.source, next_link(source, held_out=amount), position)
    settle(target, event.target, next_link(target, held_in=amount), position)
    book.insert_hold(
        Hold(
            event.id,
            source.id,
            target.id,
            amount,
            event.expires_at,
            event.effective_time,
            position,
        )
    )
    _create(book, event.id, position)


def _open_hold(book: Book, event: HoldPosted | HoldVoided | HoldExpired) -> Hold:
    hold = book.hold(event.id)
    if hold is None or hold.position != event.hold:
        raise InvariantBroken("a hold resolves at most once", hold=event.id, position=event.hold)
    return hold


def _hold_posted(book: Book, event: HoldPosted, position: int) -> None:
    hold = _open_hold(book, event)
    _move(book, event, position, held=hold.amount)
    book.remove_hold(hold)
    book.add(book.hash_of(event.id), position << 1 | CONCERNS)


def _hold_released(book: Book, event: HoldVoided | HoldExpired, position: int) -> None:
    hold = _open_hold(book, event)
    source, target = _account(book, event.source), _account(book, event.target)
    settle(source, event.source, next_link(source, held_out=-hold.amount), position)
    settle(target, event.target, next_link(target, held_in=-hold.amount), position)
    book.remove_hold(hold)
    book.add(book.hash_of(event.id), position << 1 | CONCERNS)


def _opened(book: Book, event: AccountOpened, position: int) -> None:
    if book.number == NO_NUMBER:
        book.register()
    if book.number != event.book or book.account_count() != event.number:
        raise InvariantBroken(
            "books and accounts are numbered in order",
            event=event,
            book=book.number,
            accounts=book.account_count(),
        )
    if book.get(event.id) is not None:
        raise InvariantBroken("an account opens once", account=event.id)
    book.insert_account(
        Account(
            event.id,
            event.number,
            book.intern(event.asset),
            None if event.min_balance is None else int(event.min_balance),
            None if event.max_balance is None else int(event.max_balance),
            event.metadata or None,
            position,
        )
    )


def _closed(book: Book, event: AccountClosed, position: int) -> None:
    account = _account(book, event.link)
    account.closed = True
    settle(account, event.link, next_link(account), position)


def _reopened(book: Book, event: AccountReopened, position: int) -> None:
    account = _account(book, event.link)
    account.closed = False
    settle(account, event.link, next_link(account), position)


_GENERAL: Final[dict[Any, Callable[[Book, Any, int], None]]] = {
    Posted: _posted,
    Held: _held,
    HoldPosted: _hold_posted,
    HoldVoided: _hold_released,
    HoldExpired: _hold_released,
    Reversed: _reversed,
    AccountOpened: _opened,
    AccountClosed: _closed,
    AccountReopened: _reopened,
}
