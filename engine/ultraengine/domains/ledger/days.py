"""The ledger by time: how accounts stood, what moved, and what it did to the sums of each asset.

A trial balance as of a moment is a sum of changes up to it.  What an event does to debits and
credits follows from the event alone, as it says the balances that it reached; so the changes are
kept by asset and by days, minutes and moments (`Rollup`), in the transaction of the event's other
rows, and no answer looks at accounts or entries:

    logged time     asset_booked                 at the moment of the booking
    business time   asset_booked + asset_shift   what counts at another time is moved there

That holds while an account's postings come in the order of their business time.  A *late* one
changes what those behind it did: an account counts on the side on which it stands.  `late_account`
says for which accounts and between which times; their part is made from their own days.

Those sums balance as soon as each event does.  So they are made a second time, from the balances of
accounts by day (`day_close`), which no event says together: `asset_close` has double entry itself
as its CHECK, and balances of accounts that do not add up park the projection.

What is held has no business time, and an event that ends a hold does not say how much was held.
So it is kept by account and day (`day_held`) and summed up by the worker (`asset_held`).
"""

from typing import Final

from ultraengine.domains.ledger.account_table import ACCOUNT
from ultraengine.domains.ledger.columns import (
    ACCOUNT_ID,
    AMOUNT,
    ASSET,
    BOOK,
    INTEGER,
    TENANT,
    TIME,
    TOTAL,
    column,
)
from ultraengine.model.projection import (
    Aggregate,
    Check,
    ColumnType,
    Fold,
    Index,
    Rollup,
    Table,
    TableKind,
)

_DAY: Final = column("day", ColumnType.DATE, "UTC day of the business time.")
_BOOKED_DAY: Final = column("day", ColumnType.DATE, "UTC day of the booking.")
_BY_DAY: Final = (Index("day", ("day", "tenant", "book")),)

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
        column(
            "debits",
            TOTAL,
            "By how much they let it grow below 0, in the order in which they were booked.",
            fold=Fold.SUM,
        ),
    ),
    indexes=_BY_DAY,
    checks=(
        Check("paid", "{paid_in} >= 0 AND {paid_out} >= 0"),
        Check("entries", "{entries} >= 1"),
    ),
    led_by="account",
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
        column("version", INTEGER, "Number of the last change of that day."),
    ),
    indexes=_BY_DAY,
    checks=(Check("version", "{version} >= 1"),),
    led_by="account",
    summary="Accounts as they stood at the end of each day on which they were changed, by logged"
    " time.  At the end of any day an account stands as in its last row up to that day.",
)
DAY_HELD: Final = Table(
    name="day_held",
    kind=TableKind.CURRENT,
    key=("tenant", "book", "account", "day"),
    columns=(
        TENANT,
        BOOK,
        ACCOUNT_ID,
        _BOOKED_DAY,
        column("pending_in", AMOUNT, "Held on its receiving side at the end of that day."),
        column("pending_out", AMOUNT, "Held on its paying side then."),
    ),
    indexes=_BY_DAY,
    checks=(Check("held", "{pending_in} >= 0 AND {pending_out} >= 0"),),
    led_by="account",
    summary="What was held of accounts at the end of each day on which a hold of theirs began or"
    " ended.",
)
LATE_ACCOUNT: Final = Table(
    name="late_account",
    kind=TableKind.CURRENT,
    key=("tenant", "book", "account"),
    columns=(
        TENANT,
        BOOK,
        ACCOUNT_ID,
        column("since", TIME, "Business time of its earliest late posting.", fold=Fold.MIN),
        column("until", TIME, "Latest business time before which one was late.", fold=Fold.MAX),
    ),
    summary="Accounts with late postings: booked after others of a later business time.",
)

DAY_S: Final = 86_400
MINUTE_S: Final = 60
_SPAN: Final = column("span", INTEGER, "Seconds: 86400 a day, 60 a minute, 0 one moment.")
_SPAN_START: Final = column("start", TIME, "First moment of the span.")
_SIDES: Final = (
    column("debits", TOTAL, "By how much the sum of all balances below 0 grew.", fold=Fold.SUM),
    column("credits", TOTAL, "By how much that of those above 0 grew: the same.", fold=Fold.SUM),
)
_DOUBLE_ENTRY: Final = (Check("double_entry", "{debits} = {credits}"),)
_BY_ASSET: Final = Rollup(ACCOUNT, "asset", (DAY_S, MINUTE_S, 0))

ASSET_BOOKED: Final = Table(
    name="asset_booked",
    kind=TableKind.CURRENT,
    key=("tenant", "book", "span", "start", "asset"),
    columns=(
        TENANT,
        BOOK,
        _SPAN,
        _SPAN_START,
        ASSET,
        column("accounts", INTEGER, "Accounts opened.", fold=Fold.SUM),
        *_SIDES,
    ),
    checks=(*_DOUBLE_ENTRY, Check("accounts", "{accounts} >= 0")),
    rollup=_BY_ASSET,
    summary="Changes of assets by days, minutes and moments of booking; spans without any are"
    " absent.  A trial balance as recorded at a moment is the sum of the days before it, the"
    " minutes of its day before it and the moments of its minute up to it.",
)
ASSET_SHIFT: Final = Table(
    name="asset_shift",
    kind=TableKind.CURRENT,
    key=("tenant", "book", "span", "start", "asset"),
    columns=(TENANT, BOOK, _SPAN, _SPAN_START, ASSET, *_SIDES),
    checks=_DOUBLE_ENTRY,
    rollup=_BY_ASSET,
    summary="What to add to `asset_booked` for business time: postings of another business time"
    " count there, and not where they were booked.  Late ones change more (`late_account`).",
)


def _same_account(alias: str) -> str:
    return (
        f"{alias}.{{tenant}} = d.{{tenant}} AND {alias}.{{book}} = d.{{book}}"
        f" AND {alias}.{{account}} = d.{{account}}"
    )


_JOINED: Final = f"JOIN {{table:account}} a ON {_same_account('a')}"


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
        ),
        indexes=(Index("day", ("day",)),),
        checks=(Check("double_entry", "{paid_in} = {paid_out}"),),
        summary="Turnover of assets by business day.",
    ),
    source="daily_balance",
    slice_column="day",
    select=(
        "SELECT d.{tenant}, d.{book}, a.{asset}, d.{day}, TOTAL(d.{paid_in}), TOTAL(d.{paid_out}),"  # noqa: S608  (declared SQL: no values)
        " SUM(d.{entries}), COUNT(*) FROM (SELECT c.{tenant}, c.{book}, c.{account}, c.{day},"
        " c.{paid_in}, c.{paid_out}, c.{entries} FROM {table:daily_balance} c WHERE {slice}) d "
        + _JOINED
        + " GROUP BY d.{tenant}, d.{book}, a.{asset}, d.{day}"
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
            column("debits", TOTAL, "By how much the sum of all balances below 0 grew."),
            column("credits", TOTAL, "By how much that of those above 0 grew: the same."),
        ),
        indexes=(Index("day", ("day",)),),
        checks=(
            Check("double_entry", "{debits} = {credits}"),
            Check("accounts", "{accounts} >= 0"),
        ),
        summary="Changes of assets by day of booking, from the balances of accounts at its end:"
        " what `asset_booked` has by what events say.",
    ),
    source="day_close",
    slice_column="day",
    select=(
        "SELECT s.{tenant}, s.{book}, s.{asset}, s.{day}, SUM(s.{opened}),"  # noqa: S608  (declared SQL: no values)
        " TOTAL(MINUS(DEBIT(s.{balance}), DEBIT(s.{was}))),"
        " TOTAL(MINUS(CREDIT(s.{balance}), CREDIT(s.{was})))"
        " FROM (SELECT d.{tenant}, d.{book}, a.{asset}, d.{day}, d.{balance},"
        " CASE WHEN p.{day} IS NULL THEN 1 ELSE 0 END AS {opened},"
        " COALESCE(p.{balance}, 0) AS {was}"
        " FROM (SELECT c.{tenant}, c.{book}, c.{account}, c.{day}, c.{balance}"
        " FROM {table:day_close} c WHERE {slice}) d "
        + _JOINED
        + " LEFT JOIN {table:day_close} p ON "
        + _same_account("p")
        + " AND p.{day} = (SELECT MAX(q.{day}) FROM {table:day_close} q WHERE "
        + _same_account("q")
        + " AND q.{day} < d.{day})"
        ") s GROUP BY s.{tenant}, s.{book}, s.{asset}, s.{day}"
    ),
)
ASSET_HELD: Final = Aggregate(
    table=Table(
        name="asset_held",
        kind=TableKind.AGGREGATE,
        key=("tenant", "book", "asset", "day"),
        columns=(
            TENANT,
            BOOK,
            ASSET,
            _BOOKED_DAY,
            column("pending_debits", TOTAL, "By how much grew what is held on paying sides."),
            column("pending_credits", TOTAL, "And on receiving sides: the same."),
        ),
        indexes=(Index("day", ("day",)),),
        checks=(Check("double_entry", "{pending_debits} = {pending_credits}"),),
        summary="Changes of what is held, by day of booking: what was held at the end of a day is"
        " the sum of all days up to it.",
    ),
    source="day_held",
    slice_column="day",
    select=(
        "SELECT s.{tenant}, s.{book}, s.{asset}, s.{day}, TOTAL(MINUS(s.{pending_out},"  # noqa: S608  (declared SQL: no values)
        " s.{was_out})), TOTAL(MINUS(s.{pending_in}, s.{was_in}))"
        " FROM (SELECT d.{tenant}, d.{book}, a.{asset}, d.{day}, d.{pending_out}, d.{pending_in},"
        " COALESCE(p.{pending_out}, 0) AS {was_out}, COALESCE(p.{pending_in}, 0) AS {was_in}"
        " FROM (SELECT c.{tenant}, c.{book}, c.{account}, c.{day}, c.{pending_in},"
        " c.{pending_out} FROM {table:day_held} c WHERE {slice}) d "
        + _JOINED
        + " LEFT JOIN {table:day_held} p ON "
        + _same_account("p")
        + " AND p.{day} = (SELECT MAX(q.{day}) FROM {table:day_held} q WHERE "
        + _same_account("q")
        + " AND q.{day} < d.{day})"
        ") s GROUP BY s.{tenant}, s.{book}, s.{asset}, s.{day}"
    ),
)
