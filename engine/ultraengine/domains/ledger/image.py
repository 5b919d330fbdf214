"""How a slot of the ledger is written to snapshots and read back.

A chunk (`execution/layouts/chunk.py`) has five lists, applied in this order:

    books      [number, tenant, key, highest transfer id]
    accounts   [book, number, id, asset, balance, …] as in `AccountRow`
    released   [book, hold id]: holds that are not open any more
    holds      [book, id, source, target, amount, …] as in `HoldRow`
    index      chunks of the packed index of transfer ids (`execution/packed.py`)

Accounts by (book, number), holds by (book, position): both are content, so equal states are
written equally.  Timers, windows and the list of the holds are made anew at load.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from ultraengine.domains.ledger.amounts import Number, wire
from ultraengine.domains.ledger.state import NO_NUMBER, Account, Book, Hold, LedgerSlot
from ultraengine.execution.layouts.chunk import write_chunks
from ultraengine.model.errors import InvariantBroken

SCHEMA: Final = 1


class AccountRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One account; fields appended at the end only."""

    book: int
    number: int
    id: str
    asset: str
    balance: Number
    pending_in: Number
    pending_out: Number
    min_balance: Number | None
    max_balance: Number | None
    closed: bool
    metadata: dict[str, str] | None
    version: int
    head: int
    anchors: tuple[int, ...]
    effective_max: int
    late: int | None


class HoldRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One open hold; fields appended at the end only."""

    book: int
    id: str
    source: str
    target: str
    amount: Number
    expires_at: int | None
    effective_time: int | None
    position: int


_Books = list[tuple[int, str, str, str]]
_Chunk = tuple[_Books, list[AccountRow], list[tuple[int, str]], list[HoldRow], list[bytes]]
_DECODER: Final = msgspec.msgpack.Decoder(_Chunk)


def dump(slot: LedgerSlot) -> Iterator[bytes]:
    """The whole slot as chunks, in an order that depends on content alone."""
    return write_chunks(
        (
            _book_rows(slot.by_number),
            (_account_row(book, account) for book in slot.by_number for account in book.order),
            (),
            (_hold_row(book, hold) for book in slot.by_number for hold in book.holds.values()),
            slot.index.dump(),
        )
    )


def changes(slot: LedgerSlot) -> Iterator[bytes]:
    """What changed since the last mark, as chunks to be loaded on top of the dump then."""
    # A book changes with its accounts: every event touches one.
    books = {book.number for book, _ in slot.changed}
    accounts = sorted(slot.changed, key=lambda pair: (pair[0].number, pair[1].number))
    holds = sorted(slot.reserved.items(), key=lambda pair: (pair[0][0], pair[1].position))
    return write_chunks(
        (
            _book_rows(slot.by_number[number] for number in sorted(books)),
            (_account_row(book, account) for book, account in accounts),
            sorted(slot.released),
            (_hold_row(slot.by_number[number], hold) for (number, _), hold in holds),
            slot.index.changes(),
        )
    )


def _book_rows(books: Iterable[Book]) -> Iterator[tuple[int, str, str, str]]:
    return ((book.number, book.tenant, book.key, book.highest) for book in books)


def _account_row(book: Book, account: Account) -> AccountRow:
    return AccountRow(
        book.number,
        account.number,
        account.id,
        account.asset,
        wire(account.balance),
        wire(account.pending_in),
        wire(account.pending_out),
        None if account.min_balance is None else wire(account.min_balance),
        None if account.max_balance is None else wire(account.max_balance),
        account.closed,
        account.metadata,
        account.version,
        account.head,
        account.anchors,
        account.effective_max,
        account.late,
    )


def _hold_row(book: Book, hold: Hold) -> HoldRow:
    return HoldRow(
        book.number,
        hold.id,
        hold.source,
        hold.target,
        wire(hold.amount),
        hold.expires_at,
        hold.effective_time,
        hold.position,
    )


def load(slot: LedgerSlot, chunk: bytes, schema: int) -> None:
    """Take one chunk of ``dump`` or ``changes``; what it holds does not count as changed.

    Raises `InvariantBroken` for a schema of a later version and for chunks out of order,
    `msgspec.DecodeError` for bytes that are no chunk.
    """
    if schema != SCHEMA:
        raise InvariantBroken("this build reads the snapshot's schema", found=schema, known=SCHEMA)
    books, accounts, released, holds, index = _DECODER.decode(chunk)
    for number, tenant, key, highest in books:
        book = slot.book(tenant, key)
        if book.number == NO_NUMBER:
            slot.register(book)
        if book.number != number:
            raise InvariantBroken("books are loaded in order", book=key, number=number)
        book.highest = highest
    for row in accounts:
        _load_account(slot.by_number[row.book], row)
    for number, hold_id in released:
        book = slot.by_number[number]
        book.remove_hold(book.holds[hold_id])
    for held in holds:
        _load_hold(slot.by_number[held.book], held)
    for part in index:
        slot.index.load(part)
    slot.index.mark()
    slot.changed.clear()
    slot.reserved.clear()
    slot.released.clear()


def _load_account(book: Book, row: AccountRow) -> None:
    if row.number > len(book.order):
        raise InvariantBroken("accounts are loaded in order", book=row.book, number=row.number)
    if row.number < len(book.order):
        account = book.order[row.number]
    else:
        account = Account(
            row.id,
            row.number,
            book.intern(row.asset),
            None if row.min_balance is None else int(row.min_balance),
            None if row.max_balance is None else int(row.max_balance),
            row.metadata,
            row.head,
        )
        book.insert_account(account)
    account.balance = int(row.balance)
    account.pending_in, account.pending_out = int(row.pending_in), int(row.pending_out)
    account.closed = row.closed
    account.version, account.head, account.anchors = row.version, row.head, row.anchors
    account.effective_max, account.late = row.effective_max, row.late
    account.set_window()
    account.dirty = False


def _load_hold(book: Book, row: HoldRow) -> None:
    source, target = book.accounts[row.source], book.accounts[row.target]
    book.insert_hold(
        Hold(
            row.id,
            source.id,
            target.id,
            int(row.amount),
            row.expires_at,
            row.effective_time,
            row.position,
        )
    )
