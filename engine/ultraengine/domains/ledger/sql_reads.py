"""The ledger asked through SQL: lists, statements, trial balances (`docs/query.md`).

The tables hold what the engine's own reads (`queries.py`) say, so a statement or a trial balance
is the same from memory and from a database that has come as far; a test compares them.  What
only the tables can do: filters, any order that has an index, totals by day.

Business time: the balance at a moment is the sum of all days before its day (``daily_balance``)
and of the postings of that day up to it.  Logged time: the last entry up to it has the balance.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import field

from ultraengine.domains.ledger.read_accounts import AssetTotals, TrialBalance
from ultraengine.domains.ledger.tables import (
    ACCOUNT,
    ASSET_DAY,
    DAILY_BALANCE,
    DAY_US,
    ENTRY,
    TRANSFER,
)
from ultraengine.model.errors import Malformed
from ultraengine.model.ids import Instant
from ultraengine.model.instant import format_instant
from ultraengine.model.projection import Column, ColumnType, Value
from ultraengine.model.reads import (
    RANGE,
    Computed,
    Filter,
    Operator,
    Order,
    Parameter,
    Part,
    Read,
    Record,
    Rowed,
    Values,
)

_EQ_IN: Final = (Operator.EQ, Operator.IN)
_NAMED: Final = (Operator.EQ, Operator.IN, Operator.PREFIX)
TIME_FIRST: Final = -62_135_596_800_000_000
TIME_END: Final = 253_402_300_800_000_000
"""Years 0001 to 9999: what stands in for an end that is not given."""

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


# --- statement -----------------------------------------------------------------------------


class StatementEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One posting, seen from one account."""

    transfer: str
    kind: Literal["transfer", "hold", "reversal"]
    version: int
    amount: str
    counterparty: str
    balance: str
    """Running, in the statement's own order."""
    time: str
    effective_time: str
    offset: int
    code: str | None
    reference: str | None
    reverses: str | None


class SqlStatement(msgspec.Struct, frozen=True, kw_only=True):
    """All entries of a period, oldest first: opening + entries = closing."""

    account: str
    asset: str
    by: Literal["effective", "recorded"]
    start: str | None = field(name="from")
    end: str | None = field(name="to")
    opening_balance: str
    entries: list[StatementEntry]
    closing_balance: str


_KINDS: Final[Mapping[str, Literal["transfer", "hold", "reversal"]]] = {
    "posted": "transfer",
    "pending": "hold",
    "reversal": "reversal",
}
_BOOK: Final = Parameter(name="book", type=ColumnType.TEXT, summary="Partition key of its commands")
_ASSET: Final = ACCOUNT.column("asset")
_COUNT: Final = Column(name="count", type=ColumnType.INTEGER)


def _total(name: str) -> Column:
    return Column(name=name, type=ColumnType.TOTAL)


def _sum(name: str) -> Column:
    """A sum of nothing is null."""
    return Column(name=name, type=ColumnType.TOTAL, nullable=True)


_STATEMENT_COLUMNS: Final = (
    *(ENTRY.column(name) for name in ENTRY.names[3:]),
    *(TRANSFER.column(name) for name in ("status", "code", "reference", "reverses")),
)
_STATEMENT_SELECT: Final = (
    "SELECT e.{version}, e.{transfer}, e.{counterparty}, e.{amount}, e.{balance}, "
    "e.{effective_at}, e.{booked_at}, e.{shard}, e.{log_offset}, e.{event}, "
    "b.{status}, b.{code}, b.{reference}, b.{reverses} "
    "FROM {table:entry} e JOIN {table:transfer} b "
    "ON b.{book} = e.{book} AND b.{transfer} = e.{transfer} "
    "WHERE e.{book} = {:book} AND e.{account} = {:account} "
)


def _day_of(moment: Any) -> tuple[int, int]:
    """The UTC day of a moment, and that day's first microsecond."""
    day = moment // DAY_US
    return day, day * DAY_US


def prepare_statement(values: Values) -> Values:
    """A period, whose ends may be absent.  Raises `Malformed` when it ends before it begins."""
    start, end = values["from"], values["to"]
    first = TIME_FIRST if start is None else start
    last = TIME_END if end is None else end
    if last < first:  # type: ignore[operator]  # Both are times.
        raise Malformed("'to' is before 'from'", pointer="/query/to")
    day, day_start = _day_of(first)
    return {**values, "first": first, "end": last, "day": day, "day_start": day_start}


def finish_statement(rows: Rowed, values: Values) -> SqlStatement:
    """Running balances follow the statement's order."""
    recorded = values["by"] == "recorded"
    if recorded:
        opening = next((row["balance"] for row in rows["recorded_opening"]), 0)
    else:
        before, partial = rows["days"][0], rows["partial_day"][0]
        opening = (before["paid_in"] or 0) - (before["paid_out"] or 0) + (partial["total"] or 0)
    balance = opening
    entries = []
    for row in rows["recorded" if recorded else "effective"]:
        balance += row["amount"]
        entries.append(_statement_entry(row, balance))
    return SqlStatement(
        account=str(values["account"]),
        asset=rows["account"][0]["asset"],
        by="recorded" if recorded else "effective",
        start=_time(values["from"]),
        end=_time(values["to"]),
        opening_balance=str(opening),
        entries=entries,
        closing_balance=str(balance),
    )


def _statement_entry(row: Record, balance: int) -> StatementEntry:
    return StatementEntry(
        transfer=row["transfer"],
        kind=_KINDS[row["status"]],
        version=row["version"],
        amount=str(row["amount"]),
        counterparty=row["counterparty"],
        balance=str(balance),
        time=format_instant(row["booked_at"]),
        effective_time=format_instant(row["effective_at"]),
        offset=row["log_offset"],
        code=row["code"],
        reference=row["reference"],
        reverses=row["reverses"],
    )


def _time(value: Value) -> str | None:
    return None if value is None else format_instant(Instant(int(value)))


_BY: Final = ("by", "effective")
_BY_RECORDED: Final = ("by", "recorded")
STATEMENT: Final = Computed(
    name="statement",
    path="{book}/accounts/{account}/statement",
    parameters=(
        _BOOK,
        Parameter(name="account", type=ColumnType.TEXT),
        Parameter(
            name="from", type=ColumnType.TIME, optional=True, summary="Counts; absent: ever since"
        ),
        Parameter(
            name="to", type=ColumnType.TIME, optional=True, summary="Excluded; absent: no end"
        ),
        Parameter(
            name="by",
            type=ColumnType.TEXT,
            default="effective",
            choices=("effective", "recorded"),
            summary="Which time decides: of the business, or of the log",
        ),
        Parameter(name="first", type=ColumnType.TIME, derived=True),
        Parameter(name="end", type=ColumnType.TIME, derived=True),
        Parameter(name="day", type=ColumnType.DATE, derived=True),
        Parameter(name="day_start", type=ColumnType.TIME, derived=True),
    ),
    parts=(
        Part(
            name="account",
            select=(
                "SELECT a.{asset} FROM {table:account} a "
                "WHERE a.{book} = {:book} AND a.{account} = {:account}"
            ),
            columns=(_ASSET,),
            required=True,
            rows_max=1,
        ),
        Part(
            name="days",
            select=(
                "SELECT TOTAL(d.{paid_in}), TOTAL(d.{paid_out}) FROM {table:daily_balance} d WHERE "
                "d.{book} = {:book} AND d.{account} = {:account} AND d.{day} < {:day}"
            ),
            columns=(_sum("paid_in"), _sum("paid_out")),
            rows_max=1,
            when=_BY,
        ),
        Part(
            name="partial_day",
            select=(
                "SELECT TOTAL(e.{amount}) FROM {table:entry} e WHERE "
                "e.{book} = {:book} AND e.{account} = {:account} "
                "AND e.{effective_at} >= {:day_start} AND e.{effective_at} < {:first}"
            ),
            columns=(_sum("total"),),
            rows_max=1,
            when=_BY,
        ),
        Part(
            name="effective",
            select=_STATEMENT_SELECT
            + "AND e.{effective_at} >= {:first} AND e.{effective_at} < {:end} "
            "ORDER BY e.{effective_at}, e.{version}",
            columns=_STATEMENT_COLUMNS,
            when=_BY,
        ),
        Part(
            name="recorded_opening",
            select=(
                "SELECT o.{balance} FROM (SELECT e.{balance}, e.{version} FROM {table:entry} e "
                "WHERE e.{book} = {:book} AND e.{account} = {:account} "
                "AND e.{booked_at} < {:first} ORDER BY e.{version} DESC LIMIT 1) o"
            ),
            columns=(ENTRY.column("balance"),),
            rows_max=1,
            when=_BY_RECORDED,
        ),
        Part(
            name="recorded",
            select=_STATEMENT_SELECT
            + "AND e.{booked_at} >= {:first} AND e.{booked_at} < {:end} ORDER BY e.{version}",
            columns=_STATEMENT_COLUMNS,
            when=_BY_RECORDED,
        ),
    ),
    result=SqlStatement,
    finish=finish_statement,
    prepare=prepare_statement,
    summary="A period of an account: opening balance, entries, closing balance.",
)


# --- trial balance -------------------------------------------------------------------------


def prepare_trial(values: Values) -> Values:
    """At most one point in time.  Raises `Malformed`."""
    at, effective = values["at_time"], values["at_effective_time"]
    if at is not None and effective is not None:
        raise Malformed(
            "ask for one of at_time and at_effective_time", pointer="/query/at_effective_time"
        )
    mode = "recorded" if at is not None else "effective" if effective is not None else "now"
    moment = next((one for one in (at, effective) if one is not None), 0)
    day, day_start = _day_of(moment)
    return {**values, "mode": mode, "moment": moment, "day": day, "day_start": day_start}


def finish_trial(rows: Rowed, values: Values) -> TrialBalance:
    """Totals by the asset's name; what is held has no business time."""
    mode = str(values["mode"])
    held_out = _by_asset(rows.get("held_out", ()))
    held_in = _by_asset(rows.get("held_in", ()))
    pending = mode != "effective"
    totals = []
    for row in rows[mode]:
        asset = row["asset"]
        out = row.get("pending_out", held_out.get(asset, 0)) if pending else None
        into = row.get("pending_in", held_in.get(asset, 0)) if pending else None
        totals.append((row, out, into))
    return TrialBalance(
        assets=[
            AssetTotals(
                asset=row["asset"],
                accounts=row["count"],
                debits=str(row["debits"]),
                credits=str(row["credits"]),
                pending_debits=None if out is None else str(out),
                pending_credits=None if into is None else str(into),
            )
            for row, out, into in totals
        ],
        balanced=all(row["debits"] == row["credits"] and out == into for row, out, into in totals),
    )


def _by_asset(rows: Sequence[Record]) -> dict[str, int]:
    return {row["asset"]: row["total"] for row in rows}


_SIDES: Final = "TOTAL(DEBIT(s.{balance})), TOTAL(CREDIT(s.{balance}))"
_TRIAL_COLUMNS: Final = (_ASSET, _COUNT, _total("debits"), _total("credits"))
_HELD_THEN: Final = (
    "WHERE h.{{book}} = {{:book}} AND h.{{booked_at}} <= {{:moment}} "
    "AND (h.{{resolved_at}} IS NULL OR h.{{resolved_at}} > {{:moment}}) "
    "GROUP BY a.{{asset}}"
)


def _held(side: str) -> str:
    return (
        "SELECT a.{asset}, TOTAL(h.{amount}) FROM {table:hold} h JOIN {table:account} a "
        f"ON a.{{book}} = h.{{book}} AND a.{{account}} = h.{{{side}}} " + _HELD_THEN.format()
    )


TRIAL_BALANCE: Final = Computed(
    name="trial-balance",
    path="{book}/trial-balance",
    parameters=(
        _BOOK,
        Parameter(
            name="at_time", type=ColumnType.TIME, optional=True, summary="Logged time, included"
        ),
        Parameter(
            name="at_effective_time",
            type=ColumnType.TIME,
            optional=True,
            summary="Business time, included",
        ),
        Parameter(name="mode", type=ColumnType.TEXT, derived=True),
        Parameter(name="moment", type=ColumnType.TIME, derived=True),
        Parameter(name="day", type=ColumnType.DATE, derived=True),
        Parameter(name="day_start", type=ColumnType.TIME, derived=True),
    ),
    parts=(
        Part(
            name="book",
            select=(
                "SELECT o.{book} FROM (SELECT a.{book} FROM {table:account} a "
                "WHERE a.{book} = {:book} LIMIT 1) o"
            ),
            columns=(ACCOUNT.column("book"),),
            required=True,
            rows_max=1,
        ),
        Part(
            name="now",
            select=(
                f"SELECT s.{{asset}}, COUNT(*), {_SIDES}, TOTAL(s.{{pending_out}}), "
                "TOTAL(s.{pending_in}) FROM {table:account} s WHERE s.{book} = {:book} "
                "GROUP BY s.{asset} ORDER BY s.{asset}"
            ),
            columns=(*_TRIAL_COLUMNS, _total("pending_out"), _total("pending_in")),
            when=("mode", "now"),
        ),
        Part(
            name="effective",
            select=(
                f"SELECT s.{{asset}}, COUNT(*), {_SIDES} FROM (SELECT a.{{asset}}, "
                "PLUS(COALESCE((SELECT MINUS(TOTAL(d.{paid_in}), TOTAL(d.{paid_out})) "
                "FROM {table:daily_balance} d WHERE d.{book} = a.{book} "
                "AND d.{account} = a.{account} AND d.{day} < {:day}), 0), "
                "COALESCE((SELECT TOTAL(e.{amount}) FROM {table:entry} e "
                "WHERE e.{book} = a.{book} AND e.{account} = a.{account} "
                "AND e.{effective_at} >= {:day_start} AND e.{effective_at} <= {:moment}), 0)) "
                "AS {balance} FROM {table:account} a WHERE a.{book} = {:book}) s "
                "GROUP BY s.{asset} ORDER BY s.{asset}"
            ),
            columns=_TRIAL_COLUMNS,
            when=("mode", "effective"),
        ),
        Part(
            name="recorded",
            select=(
                f"SELECT s.{{asset}}, COUNT(*), {_SIDES} FROM (SELECT a.{{asset}}, "
                "COALESCE((SELECT e.{balance} FROM {table:entry} e "
                "WHERE e.{book} = a.{book} AND e.{account} = a.{account} "
                "AND e.{booked_at} <= {:moment} ORDER BY e.{version} DESC LIMIT 1), 0) "
                "AS {balance} FROM {table:account} a "
                "WHERE a.{book} = {:book} AND a.{opened_at} <= {:moment}) s "
                "GROUP BY s.{asset} ORDER BY s.{asset}"
            ),
            columns=_TRIAL_COLUMNS,
            when=("mode", "recorded"),
        ),
        Part(
            name="held_out",
            select=_held("source"),
            columns=(_ASSET, _total("total")),
            when=("mode", "recorded"),
        ),
        Part(
            name="held_in",
            select=_held("target"),
            columns=(_ASSET, _total("total")),
            when=("mode", "recorded"),
        ),
    ),
    result=TrialBalance,
    finish=finish_trial,
    prepare=prepare_trial,
    summary="Debits and credits per asset, posted and pending; now or as of a point.",
)


# --- turnover ------------------------------------------------------------------------------


class AssetTurnover(msgspec.Struct, frozen=True, kw_only=True):
    """What moved in one asset."""

    asset: str
    paid_in: str
    paid_out: str
    """The same, or the books do not balance."""
    entries: int


class Turnover(msgspec.Struct, frozen=True, kw_only=True):
    """What moved in a book, by asset."""

    assets: list[AssetTurnover]
    balanced: bool


def prepare_turnover(values: Values) -> Values:
    """Days, whose ends may be absent."""
    first, end = values["from"], values["to"]
    return {
        **values,
        "first": TIME_FIRST // DAY_US if first is None else first,
        "end": TIME_END // DAY_US if end is None else end,
    }


def finish_turnover(rows: Rowed, _values: Values) -> Turnover:
    """By the asset's name."""
    found = rows["turnover"]
    return Turnover(
        assets=[
            AssetTurnover(
                asset=row["asset"],
                paid_in=str(row["paid_in"]),
                paid_out=str(row["paid_out"]),
                entries=row["entries"],
            )
            for row in found
        ],
        balanced=all(row["paid_in"] == row["paid_out"] for row in found),
    )


TURNOVER: Final = Computed(
    name="turnover",
    path="{book}/turnover",
    parameters=(
        _BOOK,
        Parameter(name="from", type=ColumnType.DATE, optional=True, summary="First business day"),
        Parameter(name="to", type=ColumnType.DATE, optional=True, summary="Excluded"),
        Parameter(name="first", type=ColumnType.DATE, derived=True),
        Parameter(name="end", type=ColumnType.DATE, derived=True),
    ),
    parts=(
        Part(
            name="turnover",
            select=(
                "SELECT d.{asset}, TOTAL(d.{paid_in}), TOTAL(d.{paid_out}), SUM(d.{entries}) "
                "FROM {table:asset_day} d WHERE d.{book} = {:book} "
                "AND d.{day} >= {:first} AND d.{day} < {:end} "
                "GROUP BY d.{asset} ORDER BY d.{asset}"
            ),
            columns=(
                _ASSET,
                DAILY_BALANCE.column("paid_in"),
                DAILY_BALANCE.column("paid_out"),
                ASSET_DAY.table.column("entries"),
            ),
        ),
    ),
    result=Turnover,
    finish=finish_turnover,
    prepare=prepare_turnover,
    summary="What moved per asset in a range of business days: totals of whatever many entries.",
)

SQL_READS: Final[tuple[Read | Computed, ...]] = (*LISTS, STATEMENT, TRIAL_BALANCE, TURNOVER)
