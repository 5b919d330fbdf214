"""The ledger in SQL: its tables, and the rows of each event (`docs/ledger-tables.md`).

``transfer`` and ``entry`` are facts, written once; ``account`` and ``hold`` say how things stand.
The tables by time are in `days`.

The checks are what commands guarantee (`moves.refuse_move`, `transfers`, `holds`, `accounts`), said
once more to the database: one that fails means that the engine, the projection or the database is
wrong, and parks the projection.  Closed accounts have none: no predicate on a boolean is the same
in all databases.

Rules: pure, and `_transferred` is the hot path: it asks nothing twice and makes its rows in place.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from ultraengine.domains.ledger.account_table import ACCOUNT
from ultraengine.domains.ledger.columns import (
    ACCOUNT_ID,
    AMOUNT,
    BOOK,
    DAY_US,
    INTEGER,
    OF_CHANGE,
    SHARD,
    TENANT,
    TEXT,
    TIME,
    column,
)
from ultraengine.domains.ledger.days import (
    ASSET_BOOKED,
    ASSET_CLOSE,
    ASSET_DAY,
    ASSET_HELD,
    ASSET_SHIFT,
    DAILY_BALANCE,
    DAY_CLOSE,
    DAY_HELD,
    LATE_ACCOUNT,
)
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
    Index,
    Partition,
    Rows,
    Source,
    Table,
    TableKind,
    storable,
)

_TRANSFER: Final = column("transfer", TEXT, "Id of the transfer, hold or reversal.")
_SOURCE: Final = column("source", TEXT, "Account that pays.")
_TARGET: Final = column("target", TEXT, "Account that is paid.")
_EFFECTIVE: Final = column(
    "effective_at", TIME, "Business time: that of the command, else that of the booking."
)
_BOOKED: Final = column("booked_at", TIME, "Stamped time of the booking.")
_EVENT: Final = column("event", INTEGER, "Index of the event among those of its command.")
_OF_FACT: Final = column("log_offset", INTEGER, "Offset of the command that booked it.")

TRANSFER: Final = Table(
    name="transfer",
    kind=TableKind.APPEND,
    key=("tenant", "book", "transfer"),
    columns=(
        TENANT,
        BOOK,
        _TRANSFER,
        _SOURCE,
        _TARGET,
        column("amount", AMOUNT, "What moved, or what is held; above 0."),
        column("status", TEXT, "As booked: posted, pending (a hold) or reversal.", length=8),
        column("code", TEXT, "The caller's code; numbers as text.", nullable=True),
        column("reference", TEXT, "The caller's reference.", nullable=True, length=512),
        column("reverses", TEXT, "Transfer that a reversal moves back.", nullable=True),
        column("hold_timeout_s", INTEGER, "Life of a hold; 0 = no end.", nullable=True),
        _EFFECTIVE,
        _BOOKED,
        SHARD,
        _OF_FACT,
        _EVENT,
        column("command_id", TEXT, "Idempotency key of the command."),
        column("principal", TEXT, "Who sent the command."),
        column("correlation_id", TEXT, "The caller's, if any.", nullable=True, length=256),
    ),
    indexes=(
        Index("booked", ("tenant", "book", "booked_at")),
        Index("reference", ("tenant", "book", "reference"), sparse=True),
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
        TENANT,
        BOOK,
        ACCOUNT_ID,
        column("version", INTEGER, "The account's version after it."),
        _TRANSFER,
        column("counterparty", TEXT, "The other account."),
        column("amount", AMOUNT, "Added to the balance: below 0 when the account paid."),
        column("balance", AMOUNT, "The running balance after it."),
        _EFFECTIVE,
        _BOOKED,
        SHARD,
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
    led_by="account",
    summary="Postings, two for each amount that moved, with running balances.",
)
HOLD: Final = Table(
    name="hold",
    kind=TableKind.CURRENT,
    key=("tenant", "book", "transfer"),
    columns=(
        TENANT,
        BOOK,
        _TRANSFER,
        _SOURCE,
        _TARGET,
        column("amount", AMOUNT, "What it reserves, or reserved."),
        column("posted_amount", AMOUNT, "What moved in the end; 0 while nothing did."),
        column("status", TEXT, "pending, posted, voided or expired.", length=8),
        column("expires_at", TIME, "When it is over; null = it has no end.", nullable=True),
        _BOOKED,
        column("resolved_at", TIME, "When it ended; null while pending.", nullable=True),
        SHARD,
        OF_CHANGE,
    ),
    indexes=(
        Index("open", ("tenant", "book", "status", "expires_at")),
        Index("booked", ("tenant", "book", "booked_at")),
        Index("resolved", ("tenant", "book", "resolved_at")),
    ),
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


class LedgerTables:
    """Implements `model.projection.Projection`."""

    name: Final = "ledger"
    version: Final = 3
    tables: Final[Sequence[Table]] = (
        ACCOUNT, TRANSFER, ENTRY, HOLD, DAILY_BALANCE, DAY_CLOSE, DAY_HELD, LATE_ACCOUNT,
        ASSET_BOOKED, ASSET_SHIFT,
    )  # fmt: skip
    aggregates: Final[Sequence[Aggregate]] = (ASSET_DAY, ASSET_CLOSE, ASSET_HELD)

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
    # By how much each side grew below 0: the source did if it is there now, the target had been.
    owed = 0 if source_balance >= 0 else min(amount, -source_balance)
    repaid = 0 if target_balance >= amount else min(amount, amount - target_balance)
    day = effective // DAY_US
    put = rows.putter("daily_balance")
    put((tenant, book, source, day, 0, amount, 1, owed))
    put((tenant, book, target, day, amount, 0, 1, -repaid))
    day = time // DAY_US
    put = rows.putter("day_close")
    put((tenant, book, source, day, source_balance, source_version))
    put((tenant, book, target, day, target_balance, target_version))
    if owed != repaid:
        grown = owed - repaid
        rows.put("asset_booked", (tenant, book, source, time, 0, grown, grown))
        if effective != time:
            rows.put("asset_shift", (tenant, book, source, effective, grown, grown))
            rows.put("asset_shift", (tenant, book, source, time, -grown, -grown))


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
    rows.put(
        "day_close",
        (at.tenant, at.key, link.account, time // DAY_US, int(link.balance), link.version),
    )


def _hold_changed(
    event: Held | HoldPosted | HoldVoided | HoldExpired, at: Source, rows: Rows
) -> None:
    """What is held of both sides from now on."""
    for link in (event.source, event.target):
        rows.put(
            "day_held",
            (at.tenant, at.key, link.account, event.time // DAY_US, int(link.pending_in),
             int(link.pending_out)),
        )  # fmt: skip


def _move(event: Posted | HoldPosted | Reversed, at: Source, rows: Rows) -> None:
    """Both sides of an amount that moved."""
    amount, time = int(event.amount), event.time
    effective = time if event.effective_time is None else event.effective_time
    source, target = event.source, event.target
    grown = 0
    for own, other, paid in ((source, target, -amount), (target, source, amount)):
        rows.append(
            "entry",
            (at.tenant, at.key, own.account, own.version, event.id, other.account, paid,
             int(own.balance), effective, time, at.shard, at.offset, at.index),
        )  # fmt: skip
        _change(own, time, at, rows)
        debit = max(-int(own.balance), 0) - max(paid - int(own.balance), 0)
        grown += debit
        rows.put(
            "daily_balance",
            (at.tenant, at.key, own.account, effective // DAY_US, max(paid, 0), max(-paid, 0), 1,
             debit),
        )  # fmt: skip
        if own.late is not None:
            rows.put("late_account", (at.tenant, at.key, own.account, effective, own.effective_max))
    if grown:
        key = (at.tenant, at.key, source.account)
        rows.put("asset_booked", (*key, time, 0, grown, grown))
        if effective != time:
            rows.put("asset_shift", (*key, effective, grown, grown))
            rows.put("asset_shift", (*key, time, -grown, -grown))


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
    _hold_changed(event, at, rows)
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
    _hold_changed(event, at, rows)


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
    rows.put("day_close", (at.tenant, at.key, event.id, event.time // DAY_US, 0, 1))
    rows.put("asset_booked", (at.tenant, at.key, event.id, event.time, 1, 0, 0))


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
