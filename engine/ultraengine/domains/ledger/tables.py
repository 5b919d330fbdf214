"""The ledger in SQL: its tables, and the rows of each event (`docs/ledger-tables.md`).

``transfer`` and ``entry`` are facts, written once; ``account``, ``hold`` and ``daily_balance`` say
how things stand; ``asset_day`` is computed from them, and its CHECK is double entry itself.

The checks are what commands guarantee (`moves.refuse_move`, `transfers`, `holds`, `accounts`), said
once more to the database: one that fails means that the engine, the projection or the database is
wrong, and parks the projection.  Closed accounts have none: no predicate on a boolean is the same
in all databases.

Rules: pure, and `_transferred` is the hot path: it asks nothing twice and makes its rows in place.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from ultraengine.domains.ledger.events import (
    AccountClosed,
    AccountOpened,
    AccountReopened,
    Held,
    HoldExpired,
    HoldPosted,
    HoldVoided,
    Link,
    Posted,
    Reversed,
    Transferred,
)
from ultraengine.model.projection import (
    Aggregate,
    Check,
    Column,
    ColumnType,
    Fold,
    Index,
    Partition,
    Rows,
    Source,
    Table,
    TableKind,
    storable,
)

DAY_US: Final = 86_400_000_000
_INTEGER, _AMOUNT, _TOTAL = ColumnType.INTEGER, ColumnType.AMOUNT, ColumnType.TOTAL
_TEXT, _TIME = ColumnType.TEXT, ColumnType.TIME


def _column(name: str, type: ColumnType, summary: str, **more: Any) -> Column:
    return Column(name=name, type=type, summary=summary, **more)


_TENANT: Final = _column("tenant", _TEXT, "Tenant that owns the book.")
_BOOK: Final = _column("book", _TEXT, "Book: the partition key of its commands.")
_ACCOUNT: Final = _column("account", _TEXT, "Id of the account.")
_TRANSFER: Final = _column("transfer", _TEXT, "Id of the transfer, hold or reversal.")
_SOURCE: Final = _column("source", _TEXT, "Account that pays.")
_TARGET: Final = _column("target", _TEXT, "Account that is paid.")
_EFFECTIVE: Final = _column(
    "effective_at", _TIME, "Business time: that of the command, else that of the booking."
)
_BOOKED: Final = _column("booked_at", _TIME, "Stamped time of the booking.")
_SHARD: Final = _column("shard", _INTEGER, "Shard whose log holds it.")
_EVENT: Final = _column("event", _INTEGER, "Index of the event among those of its command.")
_DAY: Final = _column("day", ColumnType.DATE, "UTC day of the business time.")
_OF_CHANGE: Final = _column("log_offset", _INTEGER, "Offset of the command that changed it last.")
_OF_FACT: Final = _column("log_offset", _INTEGER, "Offset of the command that booked it.")

ACCOUNT: Final = Table(
    name="account",
    kind=TableKind.CURRENT,
    key=("tenant", "book", "account"),
    columns=(
        _TENANT,
        _BOOK,
        _ACCOUNT,
        _column("asset", _TEXT, "CODE/scale, as in USD/2.", length=20),
        _column("min_balance", _AMOUNT, "Lowest balance allowed; null = none.", nullable=True),
        _column("max_balance", _AMOUNT, "Highest balance allowed; null = none.", nullable=True),
        _column("metadata", ColumnType.JSON, "What was said at the opening, by name."),
        _column("balance", _AMOUNT, "What was paid in without what was paid out."),
        _column("pending_in", _AMOUNT, "Held on its receiving side."),
        _column("pending_out", _AMOUNT, "Held on its paying side."),
        _column("version", _INTEGER, "Number of its last change; 1 = opened."),
        _column("closed", ColumnType.BOOLEAN, "Whether it takes no transfers."),
        _column("opened_at", _TIME, "Stamped time of the opening."),
        _column("changed_at", _TIME, "Stamped time of the last change."),
        _SHARD,
        _OF_CHANGE,
    ),
    indexes=(Index("asset", ("tenant", "book", "asset")),),
    checks=(
        Check("held", "{pending_in} >= 0 AND {pending_out} >= 0"),
        Check("available", "{min_balance} IS NULL OR {balance} - {pending_out} >= {min_balance}"),
        Check("room", "{max_balance} IS NULL OR {balance} + {pending_in} <= {max_balance}"),
        Check(
            "limits",
            "({min_balance} IS NULL OR {min_balance} <= 0)"
            " AND ({max_balance} IS NULL OR {max_balance} >= 0)",
        ),
        Check("version", "{version} >= 1"),
    ),
    summary="Accounts as they stand.",
)
TRANSFER: Final = Table(
    name="transfer",
    kind=TableKind.APPEND,
    key=("tenant", "book", "transfer"),
    columns=(
        _TENANT,
        _BOOK,
        _TRANSFER,
        _SOURCE,
        _TARGET,
        _column("amount", _AMOUNT, "What moved, or what is held; above 0."),
        _column("status", _TEXT, "As booked: posted, pending (a hold) or reversal.", length=8),
        _column("code", _TEXT, "The caller's code; numbers as text.", nullable=True),
        _column("reference", _TEXT, "The caller's reference.", nullable=True, length=512),
        _column("reverses", _TEXT, "Transfer that a reversal moves back.", nullable=True),
        _column("hold_timeout_s", _INTEGER, "Life of a hold; 0 = no end.", nullable=True),
        _EFFECTIVE,
        _BOOKED,
        _SHARD,
        _OF_FACT,
        _EVENT,
        _column("command_id", _TEXT, "Idempotency key of the command."),
        _column("principal", _TEXT, "Who sent the command."),
        _column("correlation_id", _TEXT, "The caller's, if any.", nullable=True, length=256),
    ),
    indexes=(
        Index("booked", ("tenant", "book", "booked_at")),
        Index("reference", ("tenant", "book", "reference")),
    ),
    checks=(
        Check("amount", "{amount} > 0"),
        Check("sides", "{source} <> {target}"),
        Check("status", "{status} IN ('posted', 'pending', 'reversal')"),
        Check(
            "reversal",
            "({status} = 'reversal' AND {reverses} IS NOT NULL)"
            " OR ({status} <> 'reversal' AND {reverses} IS NULL)",
        ),
        Check(
            "hold",
            "({status} = 'pending' AND {hold_timeout_s} IS NOT NULL AND {hold_timeout_s} >= 0)"
            " OR ({status} <> 'pending' AND {hold_timeout_s} IS NULL)",
        ),
    ),
    summary="Transfers, holds and reversals as booked; what became of a hold is in `hold`.",
)
ENTRY: Final = Table(
    name="entry",
    kind=TableKind.APPEND,
    key=("tenant", "book", "account", "version"),
    columns=(
        _TENANT,
        _BOOK,
        _ACCOUNT,
        _column("version", _INTEGER, "The account's version after it."),
        _TRANSFER,
        _column("counterparty", _TEXT, "The other account."),
        _column("amount", _AMOUNT, "Added to the balance: below 0 when the account paid."),
        _column("balance", _AMOUNT, "The running balance after it."),
        _EFFECTIVE,
        _BOOKED,
        _SHARD,
        _OF_FACT,
        _EVENT,
    ),
    indexes=(Index("effective", ("tenant", "book", "account", "effective_at")),),
    checks=(
        Check("amount", "{amount} <> 0"),
        Check("sides", "{account} <> {counterparty}"),
        Check("version", "{version} >= 2"),
    ),
    partition=Partition("booked_at"),
    summary="Postings, two for each amount that moved, with running balances.",
)
HOLD: Final = Table(
    name="hold",
    kind=TableKind.CURRENT,
    key=("tenant", "book", "transfer"),
    columns=(
        _TENANT,
        _BOOK,
        _TRANSFER,
        _SOURCE,
        _TARGET,
        _column("amount", _AMOUNT, "What it reserves, or reserved."),
        _column("posted_amount", _AMOUNT, "What moved in the end; 0 while nothing did."),
        _column("status", _TEXT, "pending, posted, voided or expired.", length=8),
        _column("expires_at", _TIME, "When it is over; null = it has no end.", nullable=True),
        _BOOKED,
        _column("resolved_at", _TIME, "When it ended; null while pending.", nullable=True),
        _SHARD,
        _OF_CHANGE,
    ),
    indexes=(Index("open", ("tenant", "book", "status", "expires_at")),),
    checks=(
        Check("amount", "{amount} > 0"),
        Check("sides", "{source} <> {target}"),
        Check("status", "{status} IN ('pending', 'posted', 'voided', 'expired')"),
        Check(
            "posted",
            "({status} = 'posted' AND {posted_amount} > 0 AND {posted_amount} <= {amount})"
            " OR ({status} <> 'posted' AND {posted_amount} = 0)",
        ),
        Check(
            "resolved",
            "({status} = 'pending' AND {resolved_at} IS NULL)"
            " OR ({status} <> 'pending' AND {resolved_at} IS NOT NULL)",
        ),
    ),
    summary="Holds and what became of them.",
)
DAILY_BALANCE: Final = Table(
    name="daily_balance",
    kind=TableKind.CURRENT,
    key=("tenant", "book", "account", "day"),
    columns=(
        _TENANT,
        _BOOK,
        _ACCOUNT,
        _DAY,
        _column("paid_in", _TOTAL, "Sum of what came in on that day.", fold=Fold.SUM),
        _column("paid_out", _TOTAL, "Sum of what went out on that day.", fold=Fold.SUM),
        _column("entries", _INTEGER, "Postings on that day.", fold=Fold.SUM),
    ),
    indexes=(Index("day", ("day",)),),
    checks=(
        Check("paid", "{paid_in} >= 0 AND {paid_out} >= 0"),
        Check("entries", "{entries} >= 1"),
    ),
    summary="Turnover of accounts by business day.  A balance at the end of a day is the sum of all"
    " days up to it, in without out.",
)
ASSET_DAY: Final = Aggregate(
    table=Table(
        name="asset_day",
        kind=TableKind.AGGREGATE,
        key=("tenant", "book", "asset", "day"),
        columns=(
            _TENANT,
            _BOOK,
            ACCOUNT.column("asset"),
            _DAY,
            _column("paid_in", _TOTAL, "Sum of what came in."),
            _column("paid_out", _TOTAL, "Sum of what went out: the same."),
            _column("entries", _INTEGER, "Postings."),
            _column("accounts", _INTEGER, "Accounts with postings."),
        ),
        indexes=(Index("day", ("day",)),),
        checks=(Check("double_entry", "{paid_in} = {paid_out}"),),
        summary="Turnover of assets by business day.",
    ),
    source="daily_balance",
    slice_column="day",
    select=(
        "SELECT d.{tenant}, d.{book}, a.{asset}, d.{day}, SUM(d.{paid_in}), SUM(d.{paid_out}),"
        " SUM(d.{entries}), COUNT(*)"
        " FROM {table:daily_balance} d JOIN {table:account} a ON a.{tenant} = d.{tenant}"
        " AND a.{book} = d.{book} AND a.{account} = d.{account}"
        " WHERE {slice} GROUP BY d.{tenant}, d.{book}, a.{asset}, d.{day}"
    ),
)


class LedgerTables:
    """Implements `model.projection.Projection`."""

    name: Final = "ledger"
    version: Final = 1
    tables: Final[Sequence[Table]] = (ACCOUNT, TRANSFER, ENTRY, HOLD, DAILY_BALANCE)
    aggregates: Final[Sequence[Aggregate]] = (ASSET_DAY,)

    def project(self, event: Any, at: Source, rows: Rows) -> None:
        """The rows of one event.  Raises KeyError for what is no event of the ledger."""
        _PROJECT[type(event)](event, at, rows)


_MOVED: Final = ("balance", "version", "changed_at", "shard", "log_offset")
"""What a `Transferred` says of an account: nothing is held on either side before or after it."""


def _transferred(event: Transferred, at: Source, rows: Rows) -> None:
    tenant, book, shard, offset, index = at.tenant, at.key, at.shard, at.offset, at.index
    transfer, source, target, amount = event.id, event.source, event.target, event.amount
    source_balance, target_balance = event.source_balance, event.target_balance
    source_version, target_version = event.source_version, event.target_version
    time, effective, code, reference = event.time, event.effective_time, event.code, event.reference
    if effective is None:
        effective = time
    rows.append(
        "transfer",
        (
            tenant,
            book,
            transfer,
            source,
            target,
            amount,
            "posted",
            None if code is None else storable(str(code)),
            None if reference is None else storable(reference),
            None,
            None,
            effective,
            time,
            shard,
            offset,
            index,
            at.id,
            at.principal,
            at.correlation_id,
        ),
    )
    entry = rows.appender("entry")
    entry(
        (tenant, book, source, source_version, transfer, target, -amount, source_balance,
         effective, time, shard, offset, index)
    )  # fmt: skip
    entry(
        (tenant, book, target, target_version, transfer, source, amount, target_balance,
         effective, time, shard, offset, index)
    )  # fmt: skip
    change = rows.changer("account", _MOVED)
    change((tenant, book, source), (source_balance, source_version, time, shard, offset))
    change((tenant, book, target), (target_balance, target_version, time, shard, offset))
    day = effective // DAY_US
    put = rows.putter("daily_balance")
    put((tenant, book, source, day, 0, amount, 1))
    put((tenant, book, target, day, amount, 0, 1))


def _change(link: Link, time: int, at: Source, rows: Rows, **more: bool) -> None:
    """What an event did to one account."""
    rows.change(
        "account",
        (at.tenant, at.key, link.account),
        {
            "balance": int(link.balance),
            "pending_in": int(link.pending_in),
            "pending_out": int(link.pending_out),
            "version": link.version,
            "changed_at": time,
            "shard": at.shard,
            "log_offset": at.offset,
            **more,
        },
    )


def _move(event: Posted | HoldPosted | Reversed, at: Source, rows: Rows) -> None:
    """Both sides of an amount that moved."""
    amount, time = int(event.amount), event.time
    effective = time if event.effective_time is None else event.effective_time
    source, target = event.source, event.target
    for own, other, paid in ((source, target, -amount), (target, source, amount)):
        rows.append(
            "entry",
            (at.tenant, at.key, own.account, own.version, event.id, other.account, paid,
             int(own.balance), effective, time, at.shard, at.offset, at.index),
        )  # fmt: skip
        _change(own, time, at, rows)
        rows.put(
            "daily_balance",
            (at.tenant, at.key, own.account, effective // DAY_US, max(paid, 0), max(-paid, 0), 1),
        )


def _create(
    event: Posted | Held | Reversed,
    at: Source,
    rows: Rows,
    status: str,
    *,
    reverses: str | None = None,
    hold_timeout_s: int | None = None,
) -> None:
    """A transfer id is used up."""
    rows.append(
        "transfer",
        (
            at.tenant,
            at.key,
            event.id,
            event.source.account,
            event.target.account,
            int(event.amount),
            status,
            None if event.code is None else storable(str(event.code)),
            None if event.reference is None else storable(event.reference),
            reverses,
            hold_timeout_s,
            event.time if event.effective_time is None else event.effective_time,
            event.time,
            at.shard,
            at.offset,
            at.index,
            at.id,
            at.principal,
            at.correlation_id,
        ),
    )


def _posted(event: Posted, at: Source, rows: Rows) -> None:
    _create(event, at, rows, "posted")
    _move(event, at, rows)


def _reversed(event: Reversed, at: Source, rows: Rows) -> None:
    _create(event, at, rows, "reversal", reverses=event.reverses)
    _move(event, at, rows)


def _held(event: Held, at: Source, rows: Rows) -> None:
    _create(event, at, rows, "pending", hold_timeout_s=event.timeout_s)
    _change(event.source, event.time, at, rows)
    _change(event.target, event.time, at, rows)
    rows.put(
        "hold",
        (at.tenant, at.key, event.id, event.source.account, event.target.account,
         int(event.amount), 0, "pending", event.expires_at, event.time, None, at.shard, at.offset),
    )  # fmt: skip


def _resolve(
    event: HoldPosted | HoldVoided | HoldExpired, at: Source, rows: Rows, status: str, posted: int
) -> None:
    rows.change(
        "hold",
        (at.tenant, at.key, event.id),
        {"posted_amount": posted, "status": status, "resolved_at": event.time,
         "shard": at.shard, "log_offset": at.offset},
    )  # fmt: skip


def _hold_posted(event: HoldPosted, at: Source, rows: Rows) -> None:
    _resolve(event, at, rows, "posted", int(event.amount))
    _move(event, at, rows)


def _hold_released(event: HoldVoided | HoldExpired, at: Source, rows: Rows) -> None:
    _resolve(event, at, rows, "voided" if isinstance(event, HoldVoided) else "expired", 0)
    _change(event.source, event.time, at, rows)
    _change(event.target, event.time, at, rows)


def _opened(event: AccountOpened, at: Source, rows: Rows) -> None:
    metadata = {storable(key): storable(value) for key, value in event.metadata.items()}
    rows.put(
        "account",
        (
            at.tenant,
            at.key,
            event.id,
            event.asset,
            None if event.min_balance is None else int(event.min_balance),
            None if event.max_balance is None else int(event.max_balance),
            msgspec.json.encode(metadata, order="deterministic").decode(),
            0,
            0,
            0,
            1,
            False,
            event.time,
            event.time,
            at.shard,
            at.offset,
        ),
    )


def _closed(event: AccountClosed, at: Source, rows: Rows) -> None:
    _change(event.link, event.time, at, rows, closed=True)


def _reopened(event: AccountReopened, at: Source, rows: Rows) -> None:
    _change(event.link, event.time, at, rows, closed=False)


_PROJECT: Final[dict[Any, Callable[[Any, Source, Rows], None]]] = {
    Transferred: _transferred,
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

TABLES: Final = LedgerTables()
