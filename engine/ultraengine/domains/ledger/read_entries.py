"""Reads of one account's history: entries and statements."""

import itertools
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, field

from ultraengine.domains.ledger.amounts import read_time
from ultraengine.domains.ledger.asof import (
    AsOf,
    Head,
    Instantaneous,
    head_of,
    last_change,
    last_effective,
    read_as_of,
)
from ultraengine.domains.ledger.chain import (
    Chain,
    Posting,
    Reader,
    Step,
    effective_time,
    paid_in,
    side_ids,
)
from ultraengine.domains.ledger.events import NEVER, Held, HoldPosted, Reversed
from ultraengine.domains.ledger.read_accounts import Cursor, Limit, account_of
from ultraengine.domains.ledger.state import LedgerSlot
from ultraengine.model.domain import History
from ultraengine.model.errors import EngineError, InvariantBroken, Malformed
from ultraengine.model.ids import Instant
from ultraengine.model.instant import format_instant

STATEMENT_ENTRIES_MAX: Final = 10_000
"""Postings that one statement reads; a longer one is refused: ask for a shorter period."""
_FOREVER: Final = 1 << 62


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One posting, seen from one account."""

    transfer: str
    kind: Literal["transfer", "hold", "reversal"]
    version: int
    """The account's version after it."""
    amount: str
    """What was added to the balance: negative when the account paid."""
    counterparty: str
    balance: str
    """The running balance after it."""
    time: str
    effective_time: str
    offset: int
    code: str | int | None
    reference: str | None
    reverses: str | None


class Details(msgspec.Struct, frozen=True, gc=False):
    """What a posting says about itself, wherever it is recorded."""

    kind: Literal["transfer", "hold", "reversal"]
    code: str | int | None
    reference: str | None
    reverses: str | None


def details_of(event: Posting, reader: Reader) -> Details:
    """A posted hold's code and reference stand in the event that opened it."""
    if isinstance(event, HoldPosted):
        held = reader.event(event.hold)
        if not isinstance(held, Held):
            raise InvariantBroken("a posted hold was opened", position=event.hold)
        return Details("hold", held.code, held.reference, None)
    if isinstance(event, Reversed):
        return Details("reversal", event.code, event.reference, event.reverses)
    return Details("transfer", event.code, event.reference, None)


def _entry(step: Step, event: Posting, account_id: str, balance: int, reader: Reader) -> Entry:
    details = details_of(event, reader)
    source, target = side_ids(event)
    return Entry(
        transfer=event.id,
        kind=details.kind,
        version=step.link.version,
        amount=str(paid_in(event, account_id)),
        counterparty=target if source == account_id else source,
        balance=str(balance),
        time=format_instant(Instant(event.time)),
        effective_time=format_instant(Instant(effective_time(event))),
        offset=step.offset,
        code=details.code,
        reference=details.reference,
        reverses=details.reverses,
    )


# --- entries -------------------------------------------------------------------------------


class EntriesParams(AsOf, frozen=True, kw_only=True):
    """A page of entries, newest first."""

    id: str
    limit: Limit = 100
    cursor: Cursor | None = None


class EntriesView(msgspec.Struct, frozen=True, kw_only=True):
    """A page of entries, newest first, each with the running balance."""

    account: str
    asset: str
    entries: list[Entry]
    next_cursor: str | None
    """Null when the page reaches the opening."""


class EntriesCapture(msgspec.Struct, frozen=True, gc=False):
    """Where to start."""

    head: Head
    at: Instantaneous


def capture_entries(
    slot: LedgerSlot, tenant: str, key: str, params: EntriesParams
) -> EntriesCapture:
    """Raises NOT_FOUND; MALFORMED, also for ``at_effective_time``: entries are in logged order."""
    at = read_as_of(params)
    if at.effective is not None:
        raise Malformed(
            "entries are in logged order; a statement can be by effective time",
            pointer="/at_effective_time",
        )
    book, account = account_of(slot, tenant, key, params.id)
    return EntriesCapture(head_of(book, account), at)


def render_entries(
    captured: EntriesCapture, params: EntriesParams, history: History
) -> EntriesView:
    """Up to ``limit`` postings before the cursor, which is an account version."""
    head = captured.head
    reader = Reader(history)
    chain = Chain(reader, head.book, head.id)
    step = last_change(chain, head, captured.at)
    if step is not None and params.cursor is not None:
        below = int(params.cursor)
        step = chain.last(step.position, lambda change: change.link.version < below)
    entries: list[Entry] = []
    next_cursor: str | None = None
    for change in chain.back(step, above=0):
        event = change.event
        if not isinstance(event, Posting):
            continue
        if len(entries) == params.limit:
            next_cursor = str(change.link.version + 1)
            break
        entries.append(_entry(change, event, head.id, int(change.link.balance), reader))
    return EntriesView(account=head.id, asset=head.asset, entries=entries, next_cursor=next_cursor)


# --- statement -----------------------------------------------------------------------------

Basis = Literal["effective", "recorded"]


class StatementParams(msgspec.Struct, frozen=True, kw_only=True):
    """A period: ``from`` counts, ``to`` does not."""

    id: str
    start: Annotated[str, Meta(description="RFC 3339; absent: from the beginning")] | None = field(
        name="from", default=None
    )
    end: Annotated[str, Meta(description="RFC 3339, excluded; absent: to the end")] | None = field(
        name="to", default=None
    )
    by: Annotated[Basis, Meta(description="Which time decides: of the business, or of the log")] = (
        "effective"
    )


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """All entries of a period, oldest first: opening + entries = closing."""

    account: str
    asset: str
    by: Basis
    start: str | None = field(name="from")
    end: str | None = field(name="to")
    opening_balance: str
    entries: list[Entry]
    """Running balances follow the statement's own order."""
    closing_balance: str


class StatementCapture(msgspec.Struct, frozen=True, gc=False):
    """The account and the period."""

    head: Head
    start: int
    end: int


def capture_statement(
    slot: LedgerSlot, tenant: str, key: str, params: StatementParams
) -> StatementCapture:
    """Raises NOT_FOUND; MALFORMED for times that are none, or a period that ends too early."""
    start = NEVER + 1 if params.start is None else read_time(params.start, "/from")
    end = _FOREVER if params.end is None else read_time(params.end, "/to")
    if end < start:
        raise Malformed("'to' is before 'from'", pointer="/to")
    book, account = account_of(slot, tenant, key, params.id)
    return StatementCapture(head_of(book, account), start, end)


def render_statement(
    captured: StatementCapture, params: StatementParams, history: History
) -> Statement:
    """Raises TOO_LARGE beyond `STATEMENT_ENTRIES_MAX` postings."""
    head = captured.head
    reader = Reader(history)
    chain = Chain(reader, head.book, head.id)
    gather = _recorded if params.by == "recorded" else _effective
    opening, rows = gather(chain, captured)
    balance = opening
    entries = []
    for _, _, step, event in rows:
        balance += paid_in(event, head.id)
        entries.append(_entry(step, event, head.id, balance, reader))
    return Statement(
        account=head.id,
        asset=head.asset,
        by=params.by,
        start=None if params.start is None else format_instant(Instant(captured.start)),
        end=None if params.end is None else format_instant(Instant(captured.end)),
        opening_balance=str(opening),
        entries=entries,
        closing_balance=str(balance),
    )


_Row = tuple[int, int, Step, Posting]
"""(time in the statement's order, version, change, event)."""


def _recorded(chain: Chain, captured: StatementCapture) -> tuple[int, list[_Row]]:
    """(opening balance, rows in order) by logged time."""
    head, start, end = captured.head, captured.start, captured.end
    upper = chain.last(head.position, lambda step: step.event.time < end)
    if upper is None:
        return 0, []
    lower = chain.last(upper.position, lambda step: step.event.time < start)
    rows: list[_Row] = []
    for step in chain.back(upper, above=0 if lower is None else lower.link.version):
        if isinstance(step.event, Posting):
            _append(rows, (step.event.time, step.link.version, step, step.event))
    rows.reverse()
    return 0 if lower is None else int(lower.link.balance), rows


def _effective(chain: Chain, captured: StatementCapture) -> tuple[int, list[_Row]]:
    """(opening balance, rows in order) by business time."""
    head, start, end = captured.head, captured.start, captured.end
    upper = last_effective(chain, head, end - 1)
    lower = last_effective(chain, head, start - 1)
    opening = int(lower.link.balance)
    rows: list[_Row] = []
    # After `upper`, only late postings can lie in the period or before it.
    between = (
        (step, step.event)
        for step in chain.back(upper, above=lower.link.version)
        if isinstance(step.event, Posting)
    )
    for step, event in itertools.chain(chain.late(head.late, above=upper.link.version), between):
        moment = effective_time(event)
        if moment < start:
            opening += paid_in(event, head.id)
        elif moment < end:
            _append(rows, (moment, step.link.version, step, event))
    rows.sort(key=lambda row: row[:2])
    return opening, rows


def _append(rows: list[_Row], row: _Row) -> None:
    if len(rows) == STATEMENT_ENTRIES_MAX:
        raise _too_long()
    rows.append(row)


def _too_long() -> EngineError:
    return EngineError(
        f"the period has more than {STATEMENT_ENTRIES_MAX} entries; ask for a shorter one",
        code="TOO_LARGE",
    )
