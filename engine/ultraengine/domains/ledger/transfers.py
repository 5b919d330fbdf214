"""Deciding `create_transfers`: the fast path, and the careful one behind it.

The fast path takes what is ordinary: a whole number of one word moves between two open
accounts without holds, in time order, under an id that is higher than all before in its book
(as UUIDv7, ULID and padded numbers are) or whose hash was never seen.  It asks a handful of
questions and allocates one event.  Everything else, refusals included, goes to `_careful`,
which says precisely what is the matter.
"""

import xxhash

from ultraengine.domains.ledger import moves
from ultraengine.domains.ledger.amounts import Number, wire
from ultraengine.domains.ledger.codes import CHAIN_OPEN
from ultraengine.domains.ledger.commands import OpenEnd, Transfer
from ultraengine.domains.ledger.events import (
    ANCHOR_MASK,
    FAST_END,
    Creation,
    Held,
    Link,
    Posted,
    Reversed,
    Transferred,
)
from ultraengine.domains.ledger.links import next_link
from ultraengine.domains.ledger.state import Account, Book
from ultraengine.model.domain import Context, Rejection

_hash = xxhash.xxh3_64_digest


def decide_transfer(
    book: Book, item: Transfer, context: Context
) -> Transferred | Posted | Held | Rejection:
    """One transfer or hold: its event, or why not."""
    amount = item.amount
    if type(amount) is int and 0 < amount < FAST_END and item.pending_timeout_s is None:
        source = book.get(item.source)
        target = book.get(item.target)
        if (
            source is not None
            and target is not None
            and source.asset is target.asset
            and source is not target
        ):
            source_balance = source.balance - amount
            target_balance = target.balance + amount
            source_version = source.version + 1
            target_version = target.version + 1
            time = context.time
            effective_time: int | None = item.effective_time  # type: ignore[assignment]  # Canonical.
            moment = time if effective_time is None else effective_time
            if (
                source_balance >= source.low
                and target_balance <= target.high
                and source_version & ANCHOR_MASK
                and target_version & ANCHOR_MASK
                and moment >= source.effective_max
                and moment >= target.effective_max
                and (
                    item.id > book.highest
                    or not book.candidates(_hash(item.id.encode(), book.seed))
                )
            ):
                event = Transferred(
                    book.number,
                    item.id,
                    item.source,
                    item.target,
                    amount,
                    source_balance,
                    target_balance,
                    source_version,
                    target_version,
                    source.head,
                    target.head,
                    time,
                    effective_time,
                    item.code,
                    item.reference,
                )
                book.decided = event, source, target, moment
                return event
    return _careful(book, item, context)


def _careful(book: Book, item: Transfer, context: Context) -> Posted | Held | Rejection:
    if isinstance(item, OpenEnd):
        return CHAIN_OPEN
    found = moves.creation(book, item.id, context)
    if found is not None:
        return _exists(item, found[1])
    amount = int(item.amount)
    if amount <= 0:
        return Rejection("amount_not_positive", f"an amount of {amount} moves nothing")
    if item.source == item.target:
        return Rejection("accounts_are_same", f"both sides are account {item.source}")
    source, target = book.get(item.source), book.get(item.target)
    if source is None:
        return Rejection("account_not_found", f"no account {item.source} ('from')")
    if target is None:
        return Rejection("account_not_found", f"no account {item.target} ('to')")
    if source.asset != target.asset:
        return Rejection(
            "different_assets",
            f"account {source.id} is in {source.asset}, account {target.id} in {target.asset}",
        )
    refusal = moves.refuse_move(source, target, amount)
    if refusal is not None:
        return refusal
    if item.pending_timeout_s is not None:
        return _hold(book, item, context.time, source, target, amount)
    effective_time = None if item.effective_time is None else int(item.effective_time)
    moment = context.time if effective_time is None else effective_time
    source_link, target_link = posting_links(source, target, amount, moment)
    return Posted(
        book.number,
        item.id,
        wire(amount),
        context.time,
        source_link,
        target_link,
        effective_time,
        item.code,
        item.reference,
    )


def posting_links(source: Account, target: Account, amount: int, moment: int) -> tuple[Link, Link]:
    """What both accounts reach when `amount` moves with effective time `moment`."""
    return (
        next_link(source, paid_in=-amount, moment=moment),
        next_link(target, paid_in=amount, moment=moment),
    )


def _hold(
    book: Book, item: Transfer, time: int, source: Account, target: Account, amount: int
) -> Held:
    assert item.pending_timeout_s is not None  # noqa: S101  (the caller has asked)
    return Held(
        book.number,
        item.id,
        wire(amount),
        time,
        next_link(source, held_out=amount),
        next_link(target, held_in=amount),
        item.pending_timeout_s,
        None if item.effective_time is None else int(item.effective_time),
        item.code,
        item.reference,
    )


def _exists(item: Transfer, event: Creation) -> Rejection:
    """How an attempt compares with the event that used up its id."""
    if isinstance(event, Reversed):
        return Rejection("exists_as_reversal", f"{item.id} is the reversal of {event.reverses}")
    if isinstance(event, Transferred):
        source, target = event.source, event.target
    else:
        source, target = event.source.account, event.target.account
    timeout = event.timeout_s if isinstance(event, Held) else None
    pairs: tuple[tuple[str, Number | None, Number | None], ...] = (
        ("from", item.source, source),
        ("to", item.target, target),
        ("amount", item.amount, event.amount),
        ("pending_timeout_s", item.pending_timeout_s, timeout),
        *details_of(item.effective_time, item.code, item.reference, event),
    )
    return first_difference(f"transfer {item.id}", pairs)


def details_of(
    effective_time: Number | None,
    code: Number | None,
    reference: str | None,
    event: Creation,
) -> tuple[tuple[str, Number | None, Number | None], ...]:
    """(name, attempted, recorded) of what every creation carries beside its amount."""
    return (
        ("effective_time", effective_time, event.effective_time),
        ("code", code, event.code),
        ("reference", reference, event.reference),
    )


def first_difference(
    subject: str, pairs: tuple[tuple[str, Number | None, Number | None], ...]
) -> Rejection:
    """``exists``, or the code of the first part that differs."""
    for name, attempted, recorded in pairs:
        if attempted != recorded:
            return Rejection(
                f"exists_with_different_{name}",
                f"{subject} exists with {name} {_shown(recorded)}, not {_shown(attempted)}",
            )
    return Rejection("exists", f"{subject} exists with this content")


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
