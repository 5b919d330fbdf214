"""The statement of an account from SQL: opening, entries, closing, by either time."""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec
from msgspec import field

from ultraengine.domains.ledger.sql_shared import (
    ASSET,
    BOOK,
    TIME_FIRST,
    TIME_LAST,
    bounds,
    day_of,
    sum_column,
)
from ultraengine.domains.ledger.tables import (
    ENTRY,
    TRANSFER,
)
from ultraengine.model.errors import Malformed
from ultraengine.model.ids import Instant
from ultraengine.model.instant import format_instant
from ultraengine.model.projection import ColumnType, Value
from ultraengine.model.reads import (
    Computed,
    Parameter,
    Part,
    Record,
    Rowed,
    Values,
)


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


def prepare_statement(values: Values) -> Values:
    """A period, whose ends may be absent.  Raises `Malformed` when it ends before it begins."""
    start, end = values["from"], values["to"]
    if start is not None and end is not None and end < start:  # type: ignore[operator]  # Times.
        raise Malformed("'to' is before 'from'", pointer="/query/to")
    first, last = bounds(start, end, TIME_FIRST, TIME_LAST)
    day, day_start = day_of(first)
    return {
        **values, "first": first, "last": last, "day": day, "day_start": day_start,
        "last_day": day_of(last)[0],
    }  # fmt: skip


def finish_statement(rows: Rowed, values: Values) -> SqlStatement:
    """Running balances follow the statement's order."""
    recorded = values["by"] == "recorded"
    if recorded:
        earlier = (*rows["recorded_opening"], *rows["recorded_before"])
        opening = earlier[0]["balance"] if earlier else 0
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


def _close(column: str, days: str) -> str:
    """How the account stood at the end of the last of some days, as a subquery."""
    return (
        f"(SELECT c.{{{column}}} FROM {{table:day_close}} c WHERE c.{{book}} = {{:book}} "
        f"AND c.{{account}} = {{:account}} AND c.{{day}} {days} ORDER BY c.{{day}} DESC LIMIT 1)"
    )


_BY: Final = ("by", "effective")
_BY_RECORDED: Final = ("by", "recorded")
STATEMENT: Final = Computed(
    name="statement",
    path="{book}/accounts/{account}/statement",
    parameters=(
        BOOK,
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
        Parameter(name="last", type=ColumnType.TIME, derived=True),
        Parameter(name="day", type=ColumnType.DATE, derived=True),
        Parameter(name="day_start", type=ColumnType.TIME, derived=True),
        Parameter(name="last_day", type=ColumnType.DATE, derived=True),
    ),
    parts=(
        Part(
            name="account",
            select=(
                "SELECT a.{asset} FROM {table:account} a "
                "WHERE a.{book} = {:book} AND a.{account} = {:account}"
            ),
            columns=(ASSET,),
            required=True,
            rows_max=1,
        ),
        Part(
            name="days",
            select=(
                "SELECT TOTAL(d.{paid_in}), TOTAL(d.{paid_out}) FROM {table:daily_balance} d WHERE "
                "d.{book} = {:book} AND d.{account} = {:account} AND d.{day} < {:day}"
            ),
            columns=(sum_column("paid_in"), sum_column("paid_out")),
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
            columns=(sum_column("total"),),
            rows_max=1,
            when=_BY,
        ),
        Part(
            name="effective",
            select=_STATEMENT_SELECT
            + "AND e.{effective_at} >= {:first} AND e.{effective_at} <= {:last} "
            "ORDER BY e.{effective_at}, e.{version}",
            columns=_STATEMENT_COLUMNS,
            when=_BY,
        ),
        # By logged time, days say which versions of the account there were: entries are found by
        # their key, however many came before or after.
        Part(
            name="recorded_opening",
            select=(
                "SELECT o.{balance} FROM (SELECT e.{balance}, e.{version} FROM {table:entry} e "
                "WHERE e.{book} = {:book} AND e.{account} = {:account} "
                "AND e.{booked_at} >= {:day_start} AND e.{booked_at} < {:first} "
                f"AND e.{{version}} <= {_close('version', '= {:day}')} "
                "ORDER BY e.{version} DESC LIMIT 1) o"
            ),
            columns=(ENTRY.column("balance"),),
            rows_max=1,
            when=_BY_RECORDED,
        ),
        Part(
            name="recorded_before",
            select=f"SELECT o.{{balance}} FROM {_close('balance', '< {:day}')} o",
            columns=(ENTRY.column("balance"),),
            rows_max=1,
            when=_BY_RECORDED,
        ),
        Part(
            name="recorded",
            select=_STATEMENT_SELECT
            + f"AND e.{{version}} > COALESCE({_close('version', '< {:day}')}, 0) "
            + f"AND e.{{version}} <= {_close('version', '<= {:last_day}')} "
            + "AND e.{booked_at} >= {:first} AND e.{booked_at} <= {:last} ORDER BY e.{version}",
            columns=_STATEMENT_COLUMNS,
            when=_BY_RECORDED,
        ),
    ),
    result=SqlStatement,
    finish=finish_statement,
    prepare=prepare_statement,
    summary="A period of an account: opening balance, entries, closing balance.",
)
