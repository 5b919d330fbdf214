"""The table of accounts: what the ledger's other tables look up of an account is here."""

from typing import Final

from ultraengine.domains.ledger.columns import (
    ACCOUNT_ID,
    AMOUNT,
    ASSET,
    BOOK,
    INTEGER,
    OF_CHANGE,
    SHARD,
    TENANT,
    TIME,
    column,
)
from ultraengine.model.projection import Check, ColumnType, Index, Table, TableKind

ACCOUNT: Final = Table(
    name="account",
    kind=TableKind.CURRENT,
    key=("tenant", "book", "account"),
    columns=(
        TENANT,
        BOOK,
        ACCOUNT_ID,
        ASSET,
        column("min_balance", AMOUNT, "Lowest balance allowed; null = none.", nullable=True),
        column("max_balance", AMOUNT, "Highest balance allowed; null = none.", nullable=True),
        column("metadata", ColumnType.JSON, "What was said at the opening, by name."),
        column("balance", AMOUNT, "What was paid in without what was paid out."),
        column("pending_in", AMOUNT, "Held on its receiving side."),
        column("pending_out", AMOUNT, "Held on its paying side."),
        column("version", INTEGER, "Number of its last change; 1 = opened."),
        column("closed", ColumnType.BOOLEAN, "Whether it takes no transfers."),
        column("opened_at", TIME, "Stamped time of the opening."),
        column("changed_at", TIME, "Stamped time of the last change."),
        SHARD,
        OF_CHANGE,
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
