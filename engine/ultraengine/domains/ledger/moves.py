"""The rules that any amount must keep when it moves or is held, and looking up ids."""

from ultraengine.domains.ledger.events import (
    INDEX_BITS,
    INDEX_MASK,
    Creation,
    Event,
)
from ultraengine.domains.ledger.state import CONCERNS, Account, Book
from ultraengine.model.domain import Context, Rejection
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Offset


def recall(book: Book, position: int, context: Context) -> Event:
    """The event at `position`, from history or from the command being decided.

    Raises `InvariantBroken` when there is none: the index and the history disagree.
    """
    offset, index = position >> INDEX_BITS, position & INDEX_MASK
    if offset == context.offset:
        events = book.recent
    else:
        events = list(context.history.events(Offset(offset)) or ())
    if index >= len(events):
        raise InvariantBroken("an indexed event is in the history", offset=offset, index=index)
    event: Event = events[index]
    return event


def creation(book: Book, transfer_id: str, context: Context) -> tuple[int, Creation] | None:
    """(position, event) that used up a transfer id in this book; None while it is free."""
    for found in book.candidates(book.hash_of(transfer_id)):
        if found & CONCERNS:
            continue
        event = recall(book, found >> 1, context)
        if not isinstance(event, Creation):
            raise InvariantBroken("an indexed event created a transfer", position=found >> 1)
        if event.book == book.number and event.id == transfer_id:
            return found >> 1, event
    return None


def refuse_move(source: Account, target: Account, amount: int) -> Rejection | None:
    """Why `amount` may not leave `source` for `target`, if so.  The assets are equal."""
    for account in (source, target):
        if account.closed:
            return Rejection("account_closed", f"account {account.id} is closed")
    after = source.balance - source.pending_out - amount
    if after < source.floor:
        if source.min_balance is None:
            return Rejection("overflows_balance", f"account {source.id} would reach -10^38")
        available = source.balance - source.pending_out - source.min_balance
        return Rejection(
            "exceeds_balance", f"account {source.id} has {available} available, not {amount}"
        )
    after = target.balance + target.pending_in + amount
    if after > target.ceiling:
        if target.max_balance is None:
            return Rejection("overflows_balance", f"account {target.id} would reach 10^38")
        return Rejection(
            "exceeds_max_balance",
            f"account {target.id} would reach {after}, above {target.max_balance}",
        )
    return None
