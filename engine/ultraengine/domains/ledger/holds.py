"""Deciding `post_transfers` and `void_transfers`, and expiring holds.

A hold resolves at most once: posted (whole or in part), voided or expired.  It is over at
its ``expires_at`` exactly, whether or not its expiry is logged yet.  Open holds are in
memory; how another one ended is read from the history.
"""

import heapq
from collections.abc import Iterator, Sequence

from ultraengine.domains.ledger import moves
from ultraengine.domains.ledger.amounts import wire
from ultraengine.domains.ledger.codes import CHAIN_OPEN
from ultraengine.domains.ledger.commands import OpenEnd, Posting, Voiding
from ultraengine.domains.ledger.events import (
    Held,
    HoldExpired,
    HoldPosted,
    HoldVoided,
    Link,
    Resolution,
)
from ultraengine.domains.ledger.links import anchors_after, next_link
from ultraengine.domains.ledger.state import CONCERNS, Account, Book, Hold, LedgerSlot
from ultraengine.model.domain import Context, Rejection
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Instant

_BATCH: int = -(1 << 62)
"""Scratch positions of events of the batch being made: this plus their index in it."""


def decide_posting(book: Book, item: Posting | OpenEnd, context: Context) -> HoldPosted | Rejection:
    """Post one hold: its event, or why not."""
    if isinstance(item, OpenEnd):
        return CHAIN_OPEN
    hold = book.hold(item.id)
    wanted = None if item.amount is None else int(item.amount)
    if hold is None:
        return _resolved(book, item.id, context, posting=True, wanted=wanted)
    if hold.expires_at is not None and context.time >= hold.expires_at:
        return Rejection("hold_expired", f"hold {hold.id} is over")
    amount = hold.amount if wanted is None else wanted
    if amount <= 0:
        return Rejection("amount_not_positive", f"an amount of {amount} moves nothing")
    if amount > hold.amount:
        return Rejection("exceeds_hold", f"hold {hold.id} reserves {hold.amount}, not {amount}")
    source, target = accounts_of(book, hold)
    effective_time = hold.effective_time
    if item.effective_time is not None:
        effective_time = int(item.effective_time)
    moment = context.time if effective_time is None else effective_time
    return HoldPosted(
        book.number,
        hold.id,
        hold.position,
        wire(amount),
        context.time,
        next_link(source, paid_in=-amount, held_out=-hold.amount, moment=moment),
        next_link(target, paid_in=amount, held_in=-hold.amount, moment=moment),
        effective_time,
    )


def decide_voiding(book: Book, item: Voiding | OpenEnd, context: Context) -> HoldVoided | Rejection:
    """Release one hold: its event, or why not."""
    if isinstance(item, OpenEnd):
        return CHAIN_OPEN
    hold = book.hold(item.id)
    if hold is None:
        return _resolved(book, item.id, context, posting=False, wanted=None)
    if hold.expires_at is not None and context.time >= hold.expires_at:
        return Rejection("hold_expired", f"hold {hold.id} is over")
    source, target = accounts_of(book, hold)
    return HoldVoided(
        book.number,
        hold.id,
        hold.position,
        context.time,
        next_link(source, held_out=-hold.amount),
        next_link(target, held_in=-hold.amount),
    )


def accounts_of(book: Book, hold: Hold) -> tuple[Account, Account]:
    """Both accounts of a hold.  Raises `InvariantBroken` when one is missing."""
    source, target = book.get(hold.source), book.get(hold.target)
    if source is None or target is None:
        raise InvariantBroken("the accounts of a hold exist", hold=hold.id)
    return source, target


def resolution(book: Book, transfer_id: str, context: Context) -> Resolution | None:
    """The event that resolved a hold; None while it is open."""
    for found in book.candidates(book.hash_of(transfer_id)):
        if not found & CONCERNS:
            continue
        event = moves.recall(book, found >> 1, context)
        if isinstance(event, Resolution) and event.book == book.number and event.id == transfer_id:
            return event
    return None


def _resolved(
    book: Book, transfer_id: str, context: Context, *, posting: bool, wanted: int | None
) -> Rejection:
    """Why a hold that is not open cannot be resolved."""
    found = moves.creation(book, transfer_id, context)
    if found is None:
        return Rejection("transfer_not_found", f"no transfer {transfer_id}")
    created = found[1]
    if not isinstance(created, Held):
        return Rejection("transfer_not_pending", f"transfer {transfer_id} never was a hold")
    event = resolution(book, transfer_id, context)
    if event is None:
        raise InvariantBroken("a hold is open or resolved", hold=transfer_id)
    if isinstance(event, HoldVoided):
        return Rejection("already_voided", f"hold {transfer_id} was voided")
    if isinstance(event, HoldExpired):
        return Rejection("hold_expired", f"hold {transfer_id} is over")
    attempted = int(created.amount) if wanted is None else wanted
    detail = f"hold {transfer_id} was posted with {event.amount}"
    if posting and attempted != int(event.amount):
        return Rejection("already_posted_with_different_amount", f"{detail}, not {attempted}")
    return Rejection("already_posted", detail)


# --- expiry --------------------------------------------------------------------------------


def due(slot: LedgerSlot) -> Instant | None:
    """When the earliest hold of a slot is over."""
    return Instant(slot.timers[0][0]) if slot.timers else None


def expire(slot: LedgerSlot, now: int, count_max: int) -> Sequence[tuple[str, str, HoldExpired]]:
    """Events for up to `count_max` holds that are over at `now`, in due order; changes nothing.

    One account may expire many holds in one batch, so each event must see those before it:
    scratch copies of the accounts do.  Where an account's previous change is an event of the
    same batch, its position is given as a distance (`events.py`).
    """
    scratch: dict[tuple[int, str], Account] = {}
    batch: list[tuple[str, str, HoldExpired]] = []
    for hold, book in _over(slot, now, count_max):
        index = len(batch)
        links = [
            _release(scratch, book, account, hold, index, outgoing=account.id == hold.source)
            for account in accounts_of(book, hold)
        ]
        event = HoldExpired(book.number, hold.id, hold.position, now, links[0], links[1])
        batch.append((book.tenant, book.key, event))
    return batch


def _release(
    scratch: dict[tuple[int, str], Account],
    book: Book,
    account: Account,
    hold: Hold,
    index: int,
    *,
    outgoing: bool,
) -> Link:
    """The link of one side of an expiry, and the scratch account moved on."""
    name = (book.number, account.id)
    copy = scratch.get(name)
    if copy is None:
        copy = scratch[name] = account.copy()
    link = next_link(
        copy,
        held_out=-hold.amount if outgoing else 0,
        held_in=0 if outgoing else -hold.amount,
    )
    copy.version = link.version
    copy.pending_in, copy.pending_out = int(link.pending_in), int(link.pending_out)
    copy.head = _BATCH + index
    copy.anchors = anchors_after(copy.anchors, copy.version, copy.head)
    return Link(
        link.account,
        link.version,
        _distance(link.previous, index),
        link.balance,
        link.pending_in,
        link.pending_out,
        link.effective_max,
        tuple(_distance(anchor, index) for anchor in link.anchors),
    )


def _distance(position: int, index: int) -> int:
    """A scratch position as a negative distance from the event at `index`; others as they are."""
    return position - _BATCH - index if position < 0 else position


def _over(slot: LedgerSlot, now: int, count_max: int) -> Iterator[tuple[Hold, Book]]:
    """Open holds that are over at `now`, in due order, without touching the heap.

    Walks the heap from its root with a small heap of its own: O(k log k) for k steps.
    """
    timers = slot.timers
    if not timers or timers[0][0] > now:
        return
    frontier = [(timers[0][0], timers[0][1], 0)]
    found = 0
    while frontier and found < count_max:
        _, _, place = heapq.heappop(frontier)
        _, _, hold, book = timers[place]
        if hold.open:
            found += 1
            yield hold, book
        for child in (2 * place + 1, 2 * place + 2):
            if child < len(timers) and timers[child][0] <= now:
                heapq.heappush(frontier, (timers[child][0], timers[child][1], child))
