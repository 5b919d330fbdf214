"""Reads of transfers and holds."""

from bisect import bisect_left
from typing import Literal

import msgspec
from msgspec import field

from ultraengine.domains.ledger.asof import not_found
from ultraengine.domains.ledger.chain import Reader, side_ids
from ultraengine.domains.ledger.events import (
    INDEX_BITS,
    STATUS,
    Creation,
    Event,
    Held,
    HoldPosted,
    Resolution,
    Reversed,
)
from ultraengine.domains.ledger.read_accounts import Cursor, Limit, book_of
from ultraengine.domains.ledger.state import Hold, LedgerSlot
from ultraengine.model.domain import History
from ultraengine.model.ids import Instant
from ultraengine.model.instant import format_instant

# --- one transfer --------------------------------------------------------------------------


class TransferParams(msgspec.Struct, frozen=True, kw_only=True):
    """One transfer, hold or reversal by its id."""

    id: str


class TransferView(msgspec.Struct, frozen=True, kw_only=True):
    """A transfer and what became of it."""

    id: str
    status: Literal["posted", "pending", "voided", "expired", "reversed"]
    """``reversed``: it was posted, and moved back since."""
    source: str = field(name="from")
    target: str = field(name="to")
    amount: str
    """What was asked for; of a hold, what it reserved."""
    posted_amount: str
    """What moved: less than ``amount`` when a hold was posted in part."""
    time: str
    offset: int
    effective_time: str | None
    code: str | int | None
    reference: str | None
    pending_timeout_s: int | None
    expires_at: str | None
    resolved_time: str | None
    """When the hold was posted, voided or expired."""
    reverses: str | None
    reversed_by: str | None


class TransferCapture(msgspec.Struct, frozen=True, gc=False):
    """Positions of the events that may concern the transfer, newest first."""

    book: int
    positions: tuple[int, ...]


def capture_transfer(
    slot: LedgerSlot, tenant: str, key: str, params: TransferParams
) -> TransferCapture:
    """Raises NOT_FOUND when no event can concern the id."""
    book = book_of(slot, tenant, key)
    entries = book.candidates(book.hash_of(params.id))
    if not entries:
        raise not_found("transfer", params.id)
    return TransferCapture(book.number, tuple(entry >> 1 for entry in entries))


def render_transfer(
    captured: TransferCapture, params: TransferParams, history: History
) -> TransferView:
    """Raises NOT_FOUND when all events belong to other ids with the same hash."""
    reader = Reader(history)
    created: tuple[int, Creation] | None = None
    resolution: Resolution | None = None
    reversal: Reversed | None = None
    for position in captured.positions:
        event: Event = reader.event(position)
        if event.book != captured.book:
            continue
        if isinstance(event, Reversed) and event.reverses == params.id:
            reversal = event
        elif isinstance(event, Resolution) and event.id == params.id:
            resolution = event
        elif isinstance(event, Creation) and event.id == params.id:
            created = position, event
    if created is None:
        raise not_found("transfer", params.id)
    return _transfer(created[0], created[1], resolution, reversal)


def _transfer(
    position: int, created: Creation, resolution: Resolution | None, reversal: Reversed | None
) -> TransferView:
    status = "posted" if isinstance(created, Reversed) else STATUS[type(created)]
    posted = str(created.amount)
    hold = created if isinstance(created, Held) else None
    if resolution is not None:
        status = STATUS[type(resolution)]
    if hold is not None:
        posted = str(resolution.amount) if isinstance(resolution, HoldPosted) else "0"
    if reversal is not None:
        status = "reversed"
    source, target = side_ids(created)
    effective = created.effective_time
    if isinstance(resolution, HoldPosted):
        effective = resolution.effective_time
    return TransferView(
        id=created.id,
        status=status,  # type: ignore[arg-type]  # STATUS holds these for such events.
        source=source,
        target=target,
        amount=str(created.amount),
        posted_amount=posted,
        time=format_instant(Instant(created.time)),
        offset=position >> INDEX_BITS,
        effective_time=_time(effective),
        code=created.code,
        reference=created.reference,
        pending_timeout_s=None if hold is None else hold.timeout_s,
        expires_at=None if hold is None else _time(hold.expires_at),
        resolved_time=None if resolution is None else _time(resolution.time),
        reverses=created.reverses if isinstance(created, Reversed) else None,
        reversed_by=None if reversal is None else reversal.id,
    )


def _time(instant: int | None) -> str | None:
    return None if instant is None else format_instant(Instant(instant))


# --- holds ---------------------------------------------------------------------------------


class HoldsParams(msgspec.Struct, frozen=True, kw_only=True):
    """A page of open holds, oldest first."""

    limit: Limit = 100
    cursor: Cursor | None = None


class HoldView(msgspec.Struct, frozen=True, kw_only=True):
    """One open hold."""

    id: str
    source: str = field(name="from")
    target: str = field(name="to")
    amount: str
    expires_at: str | None
    effective_time: str | None
    offset: int


class HoldsView(msgspec.Struct, frozen=True, kw_only=True):
    """A page of open holds."""

    holds: list[HoldView]
    next_cursor: str | None
    """Null on the last page."""


def capture_holds(slot: LedgerSlot, tenant: str, key: str, params: HoldsParams) -> HoldsView:
    """The cursor is the position of the last hold of the page before.  Raises NOT_FOUND."""
    book = book_of(slot, tenant, key)
    roll = book.roll
    first = 0
    if params.cursor is not None:
        first = bisect_left(roll, int(params.cursor) + 1, key=lambda hold: hold.position)
    page: list[Hold] = []
    next_cursor: str | None = None
    for index in range(first, len(roll)):
        hold = roll[index]
        if not hold.open:
            continue
        if len(page) == params.limit:
            next_cursor = str(page[-1].position)
            break
        page.append(hold)
    return HoldsView(
        holds=[
            HoldView(
                id=hold.id,
                source=hold.source,
                target=hold.target,
                amount=str(hold.amount),
                expires_at=_time(hold.expires_at),
                effective_time=_time(hold.effective_time),
                offset=hold.position >> INDEX_BITS,
            )
            for hold in page
        ],
        next_cursor=next_cursor,
    )
