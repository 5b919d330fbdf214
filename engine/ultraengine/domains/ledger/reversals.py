"""Deciding `reverse_transfers`: a posted transfer moves back, whole, and once.

The reversal is a transfer of its own, under an id of its own and under all rules: it fails
when the money is not there any more.  What is reversed is read from the history.
"""

from ultraengine.domains.ledger import moves
from ultraengine.domains.ledger.amounts import Number, wire
from ultraengine.domains.ledger.codes import CHAIN_OPEN
from ultraengine.domains.ledger.commands import OpenEnd, Reversal
from ultraengine.domains.ledger.events import Creation, Held, HoldPosted, Reversed, Transferred
from ultraengine.domains.ledger.holds import resolution
from ultraengine.domains.ledger.state import CONCERNS, Book
from ultraengine.domains.ledger.transfers import details_of, first_difference, posting_links
from ultraengine.model.domain import Context, Rejection
from ultraengine.model.errors import InvariantBroken


def decide_reversal(book: Book, item: Reversal | OpenEnd, context: Context) -> Reversed | Rejection:
    """Reverse one transfer: its event, or why not."""
    if isinstance(item, OpenEnd):
        return CHAIN_OPEN
    existing = moves.creation(book, item.id, context)
    if existing is not None:
        return _exists(item, existing[1])
    found = moves.creation(book, item.reverses, context)
    if found is None:
        return Rejection("transfer_not_found", f"no transfer {item.reverses}")
    position, original = found
    if isinstance(original, Reversed):
        return Rejection("transfer_is_reversal", f"{item.reverses} is a reversal itself")
    amount = _posted_amount(book, original, context)
    if amount is None:
        return Rejection("transfer_not_posted", f"hold {item.reverses} is not posted")
    reversal = reversal_of(book, item.reverses, context)
    if reversal is not None:
        return Rejection("already_reversed", f"{item.reverses} was reversed by {reversal.id}")
    return _reverse(book, item, context, position, original, amount)


def _reverse(
    book: Book,
    item: Reversal,
    context: Context,
    position: int,
    original: Creation,
    amount: int,
) -> Reversed | Rejection:
    payer, payee = sides(original)
    source, target = book.get(payee), book.get(payer)
    if source is None or target is None:
        raise InvariantBroken("the accounts of a transfer exist", transfer=original.id)
    refusal = moves.refuse_move(source, target, amount)
    if refusal is not None:
        return refusal
    effective_time = None if item.effective_time is None else int(item.effective_time)
    moment = context.time if effective_time is None else effective_time
    source_link, target_link = posting_links(source, target, amount, moment)
    return Reversed(
        book.number,
        item.id,
        item.reverses,
        position,
        wire(amount),
        context.time,
        source_link,
        target_link,
        effective_time,
        item.code,
        item.reference,
    )


def sides(event: Creation) -> tuple[str, str]:
    """Ids of the accounts that an event takes from and gives to."""
    if isinstance(event, Transferred):
        return event.source, event.target
    return event.source.account, event.target.account


def _posted_amount(book: Book, original: Creation, context: Context) -> int | None:
    """What moved in the end; None when nothing did."""
    if not isinstance(original, Held):
        return int(original.amount)
    if book.hold(original.id) is not None:
        return None
    event = resolution(book, original.id, context)
    return int(event.amount) if isinstance(event, HoldPosted) else None


def reversal_of(book: Book, transfer_id: str, context: Context) -> Reversed | None:
    """The event that reversed a transfer."""
    for found in book.candidates(book.hash_of(transfer_id)):
        if not found & CONCERNS:
            continue
        event = moves.recall(book, found >> 1, context)
        if (
            isinstance(event, Reversed)
            and event.book == book.number
            and event.reverses == transfer_id
        ):
            return event
    return None


def _exists(item: Reversal, event: Creation) -> Rejection:
    if not isinstance(event, Reversed):
        return Rejection("exists_as_transfer", f"{item.id} is a transfer, not a reversal")
    pairs: tuple[tuple[str, Number | None, Number | None], ...] = (
        ("reverses", item.reverses, event.reverses),
        *details_of(item.effective_time, item.code, item.reference, event),
    )
    return first_difference(f"reversal {item.id}", pairs)
