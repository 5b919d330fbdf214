"""The ledger by days: how accounts and assets stood and what moved, by business and by logged time.

A trial balance as of a time is the sum of the days before it and of the rest of its day, so it is
answered from a row per asset and day, however many entries and accounts there are:

    business time   daily_balance (turnover of an account)   -> asset_day   (of an asset)
    logged time     day_close (an account at a day's end)    -> asset_close (of an asset)

Debits and credits are no sums of entries, since an account counts on the side on which it stands.
So the aggregates hold by how much each *changed* on a day: of an account, what it is at the end
of the day on which it moved without what it was before.

Logged time never goes back, so a day that is over never changes again.  Business time does: a
late posting changes all later days of its accounts, and `asset_day` is carried.
"""

from typing import Final

from ultraengine.domains.ledger.columns import (
    ACCOUNT_ID,
    AMOUNT,
    ASSET,
    BOOK,
    INTEGER,
    TENANT,
    TOTAL,
    column,
)
from ultraengine.model.projection import (
    Aggregate,
    Check,
    ColumnType,
    Fold,
    Index,
    Table,
    TableKind,
)

_DAY: Final = column("day", ColumnType.DATE, "UTC day of the business time.")
_BOOKED_DAY: Final = column("day", ColumnType.DATE, "UTC day of the booking.")
_BY_DAY: Final = (Index("day", ("day", "tenant", "book")),)
_SIDES: Final = (
    column("debits", TOTAL, "By how much the sum of all balances below 0 grew."),
    column("credits", TOTAL, "By how much the sum of those above 0 grew: the same."),
)

DAILY_BALANCE: Final = Table(
    name="daily_balance",
    kind=TableKind.CURRENT,
    key=("tenant", "book", "account", "day"),
    columns=(
        TENANT,
        BOOK,
        ACCOUNT_ID,
        _DAY,
        column("paid_in", TOTAL, "Sum of what came in on that day.", fold=Fold.SUM),
        column("paid_out", TOTAL, "Sum of what went out on that day.", fold=Fold.SUM),
        column("entries", INTEGER, "Postings on that day.", fold=Fold.SUM),
    ),
    indexes=_BY_DAY,
    checks=(
        Check("paid", "{paid_in} >= 0 AND {paid_out} >= 0"),
        Check("entries", "{entries} >= 1"),
    ),
    summary="Turnover of accounts by business day.  A balance at the end of a day is the sum of all"
    " days up to it, in without out.",
)
DAY_CLOSE: Final = Table(
    name="day_close",
    kind=TableKind.CURRENT,
    key=("tenant", "book", "account", "day"),
    columns=(
        TENANT,
        BOOK,
        ACCOUNT_ID,
        _BOOKED_DAY,
        column("balance", AMOUNT, "Balance after the last change of that day."),
        column("pending_in", AMOUNT, "Held on its receiving side then."),
        column("pending_out", AMOUNT, "Held on its paying side then."),
        column("version", INTEGER, "Number of the last change of that day."),
    ),
    indexes=_BY_DAY,
    checks=(
        Check("held", "{pending_in} >= 0 AND {pending_out} >= 0"),
        Check("version", "{version} >= 1"),
    ),
    summary="Accounts as they stood at the end of each day on which they were changed, by logged"
    " time.  At the end of any day an account stands as in its last row up to that day.",
)


def _same_account(alias: str) -> str:
    return (
        f"{alias}.{{tenant}} = d.{{tenant}} AND {alias}.{{book}} = d.{{book}}"
        f" AND {alias}.{{account}} = d.{{account}}"
    )


_JOINED: Final = f"JOIN {{table:account}} a ON {_same_account('a')}"


def _changes(*pairs: tuple[str, str]) -> str:
    """What the sides of balances were at the end of a day, without what they were before."""
    return ", ".join(
        f"TOTAL(MINUS({side}(s.{{{after}}}), {side}({before})))"
        for after, before in pairs
        for side in ("DEBIT", "CREDIT")
    )


ASSET_DAY: Final = Aggregate(
    table=Table(
        name="asset_day",
        kind=TableKind.AGGREGATE,
        key=("tenant", "book", "asset", "day"),
        columns=(
            TENANT,
            BOOK,
            ASSET,
            _DAY,
            column("paid_in", TOTAL, "Sum of what came in."),
            column("paid_out", TOTAL, "Sum of what went out: the same."),
            column("entries", INTEGER, "Postings."),
            column("accounts", INTEGER, "Accounts with postings."),
            *_SIDES,
        ),
        indexes=(Index("day", ("day",)),),
        checks=(Check("double_entry", "{paid_in} = {paid_out} AND {debits} = {credits}"),),
        summary="Turnover of assets by business day, and what it did to debits and credits: a trial"
        " balance at the end of a day is the sum of all days up to it.",
    ),
    source="daily_balance",
    slice_column="day",
    carried=True,
    select=(
        "SELECT s.{tenant}, s.{book}, s.{asset}, s.{day}, TOTAL(s.{paid_in}), TOTAL(s.{paid_out}),"  # noqa: S608  (declared SQL: no values)
        " SUM(s.{entries}), COUNT(*), "
        + _changes(("balance", "MINUS(s.{balance}, MINUS(s.{paid_in}, s.{paid_out}))"))
        # The balance now without what came later; DISTINCT, so that it is added up once and not
        # wherever it is named: rows of an account and a day are distinct anyway.
        + " FROM (SELECT DISTINCT d.{tenant}, d.{book}, a.{asset}, d.{account}, d.{day},"
        " d.{paid_in}, d.{paid_out}, d.{entries}, MINUS(a.{balance}, COALESCE((SELECT"
        " MINUS(TOTAL(l.{paid_in}), TOTAL(l.{paid_out})) FROM {table:daily_balance} l WHERE "
        + _same_account("l")
        + " AND l.{day} > d.{day}), 0)) AS {balance}"
        " FROM (SELECT c.{tenant}, c.{book}, c.{account}, c.{day}, c.{paid_in}, c.{paid_out},"
        " c.{entries} FROM {table:daily_balance} c WHERE {slice}) d "
        + _JOINED
        + ") s GROUP BY s.{tenant}, s.{book}, s.{asset}, s.{day}"
    ),
)
ASSET_CLOSE: Final = Aggregate(
    table=Table(
        name="asset_close",
        kind=TableKind.AGGREGATE,
        key=("tenant", "book", "asset", "day"),
        columns=(
            TENANT,
            BOOK,
            ASSET,
            _BOOKED_DAY,
            column("accounts", INTEGER, "Accounts opened."),
            *_SIDES,
            column("pending_debits", TOTAL, "By how much grew what is held on paying sides."),
            column("pending_credits", TOTAL, "And on receiving sides: the same."),
        ),
        indexes=(Index("day", ("day",)),),
        checks=(
            Check("double_entry", "{debits} = {credits} AND {pending_debits} = {pending_credits}"),
            Check("accounts", "{accounts} >= 0"),
        ),
        summary="Changes of assets by day of booking: a trial balance as recorded at the end of a"
        " day is the sum of all days up to it.",
    ),
    source="day_close",
    slice_column="day",
    select=(
        "SELECT s.{tenant}, s.{book}, s.{asset}, s.{day}, SUM(s.{opened}), "  # noqa: S608  (declared SQL: no values)
        + _changes(("balance", "s.{was}"))
        + ", TOTAL(MINUS(s.{pending_out}, s.{was_out})), TOTAL(MINUS(s.{pending_in}, s.{was_in}))"
        " FROM (SELECT d.{tenant}, d.{book}, a.{asset}, d.{day}, d.{balance}, d.{pending_out},"
        " d.{pending_in}, CASE WHEN p.{day} IS NULL THEN 1 ELSE 0 END AS {opened},"
        " COALESCE(p.{balance}, 0) AS {was}, COALESCE(p.{pending_out}, 0) AS {was_out},"
        " COALESCE(p.{pending_in}, 0) AS {was_in}"
        " FROM (SELECT c.{tenant}, c.{book}, c.{account}, c.{day}, c.{balance}, c.{pending_in},"
        " c.{pending_out} FROM {table:day_close} c WHERE {slice}) d "
        + _JOINED
        + " LEFT JOIN {table:day_close} p ON "
        + _same_account("p")
        + " AND p.{day} = (SELECT MAX(q.{day}) FROM {table:day_close} q WHERE "
        + _same_account("q")
        + " AND q.{day} < d.{day})"
        ") s GROUP BY s.{tenant}, s.{book}, s.{asset}, s.{day}"
    ),
)
