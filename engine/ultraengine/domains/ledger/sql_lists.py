"""The ledger's lists and rows: which filters and orders its tables are read by."""

from typing import Final

from ultraengine.model.reads import (
    RANGE,
    Filter,
    Operator,
    Order,
    Read,
)

_EQ_IN: Final = (Operator.EQ, Operator.IN)
_NAMED: Final = (Operator.EQ, Operator.IN, Operator.PREFIX)
ACCOUNT_SHOWN: Final = (
    "account", "asset", "balance", "pending_in", "pending_out", "min_balance", "max_balance",
    "closed", "metadata", "version", "opened_at", "changed_at", "shard", "log_offset",
)  # fmt: skip
TRANSFER_SHOWN: Final = (
    "transfer", "source", "target", "amount", "status", "code", "reference", "reverses",
    "hold_timeout_s", "effective_at", "booked_at", "shard", "log_offset", "event", "command_id",
    "principal", "correlation_id",
)  # fmt: skip
ENTRY_SHOWN: Final = (
    "version", "transfer", "counterparty", "amount", "balance", "effective_at", "booked_at",
    "shard", "log_offset", "event",
)  # fmt: skip
HOLD_SHOWN: Final = (
    "transfer", "source", "target", "amount", "posted_amount", "status", "expires_at",
    "booked_at", "resolved_at", "shard", "log_offset",
)  # fmt: skip

LISTS: Final = (
    Read(
        name="accounts",
        path="{book}/accounts",
        table="account",
        shown=ACCOUNT_SHOWN,
        orders=(Order("account", ("account",)),),
        filters=(
            Filter("account", _NAMED),
            Filter("asset", _EQ_IN),
            Filter("closed"),
            Filter("balance", RANGE),
            Filter("changed_at", RANGE),
        ),
        summary="Accounts of a book.",
    ),
    Read(
        name="account",
        path="{book}/accounts/{account}",
        table="account",
        shown=ACCOUNT_SHOWN,
        summary="One account as it stands.",
    ),
    Read(
        name="account-terms",
        path="{book}/accounts/{account}/terms",
        table="account",
        shown=("account", "asset", "min_balance", "max_balance", "metadata", "opened_at"),
        settled=True,
        summary="What was said of an account at its opening, and never changes.",
    ),
    Read(
        name="entries",
        path="{book}/accounts/{account}/entries",
        table="entry",
        shown=ENTRY_SHOWN,
        orders=(
            Order("newest", ("version",), descending=True),
            Order("oldest", ("version",)),
            Order("effective", ("effective_at", "version")),
        ),
        filters=(
            Filter("version", RANGE),
            Filter("effective_at", RANGE),
            Filter("booked_at", RANGE),
            Filter("amount", RANGE),
            Filter("counterparty", _EQ_IN),
        ),
        summary="Postings of an account with running balances.",
    ),
    Read(
        name="transfers",
        path="{book}/transfers",
        table="transfer",
        shown=TRANSFER_SHOWN,
        orders=(
            Order("newest", ("booked_at", "transfer"), descending=True),
            Order("oldest", ("booked_at", "transfer")),
            Order("transfer", ("transfer",)),
        ),
        filters=(
            Filter("transfer", _NAMED),
            Filter("source", _EQ_IN),
            Filter("target", _EQ_IN),
            Filter("status", _EQ_IN),
            Filter("code", _EQ_IN),
            Filter("reference", _NAMED),
            Filter("effective_at", RANGE),
            Filter("booked_at", RANGE),
            Filter("amount", RANGE),
        ),
        summary="Transfers, holds and reversals of a book as they were booked.",
    ),
    Read(
        name="transfer",
        path="{book}/transfers/{transfer}",
        table="transfer",
        shown=TRANSFER_SHOWN,
        settled=True,
        summary="One transfer, hold or reversal as it was booked, and by which command.",
    ),
    Read(
        name="holds",
        path="{book}/holds",
        table="hold",
        shown=HOLD_SHOWN,
        orders=(Order("transfer", ("transfer",)),),
        filters=(
            Filter("status", _EQ_IN),
            Filter("source", _EQ_IN),
            Filter("target", _EQ_IN),
            Filter("expires_at", RANGE),
        ),
        summary="Holds of a book and what became of them.",
    ),
    Read(
        name="daily-balances",
        path="{book}/accounts/{account}/days",
        table="daily_balance",
        shown=("day", "paid_in", "paid_out", "entries"),
        orders=(Order("day", ("day",)), Order("newest", ("day",), descending=True)),
        filters=(Filter("day", RANGE),),
        summary="Turnover of an account by business day.",
    ),
)
