"""Trial balance and turnover of a book from SQL."""

from collections.abc import Sequence
from typing import Final

import msgspec

from ultraengine.domains.ledger.read_accounts import AssetTotals, TrialBalance
from ultraengine.domains.ledger.sql_shared import (
    ASSET,
    BOOK,
    COUNT,
    TIME_FIRST,
    TIME_LAST,
    bounds,
    day_of,
    total_column,
)
from ultraengine.domains.ledger.tables import (
    ACCOUNT,
    ASSET_DAY,
    DAILY_BALANCE,
    DAY_US,
)
from ultraengine.model.errors import Malformed
from ultraengine.model.projection import ColumnType
from ultraengine.model.reads import (
    Computed,
    Parameter,
    Part,
    Record,
    Rowed,
    Values,
)


def prepare_trial(values: Values) -> Values:
    """At most one point in time.  Raises `Malformed`."""
    at, effective = values["at_time"], values["at_effective_time"]
    if at is not None and effective is not None:
        raise Malformed(
            "ask for one of at_time and at_effective_time", pointer="/query/at_effective_time"
        )
    mode = "recorded" if at is not None else "effective" if effective is not None else "now"
    moment = next((one for one in (at, effective) if one is not None), 0)
    day, day_start = day_of(moment)
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
_TRIAL_COLUMNS: Final = (ASSET, COUNT, total_column("debits"), total_column("credits"))
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
        BOOK,
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
            columns=(*_TRIAL_COLUMNS, total_column("pending_out"), total_column("pending_in")),
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
            columns=(ASSET, total_column("total")),
            when=("mode", "recorded"),
        ),
        Part(
            name="held_in",
            select=_held("target"),
            columns=(ASSET, total_column("total")),
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
    first, last = bounds(values["from"], values["to"], TIME_FIRST // DAY_US, TIME_LAST // DAY_US)
    return {**values, "first": first, "last": last}


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
        BOOK,
        Parameter(name="from", type=ColumnType.DATE, optional=True, summary="First business day"),
        Parameter(name="to", type=ColumnType.DATE, optional=True, summary="Excluded"),
        Parameter(name="first", type=ColumnType.DATE, derived=True),
        Parameter(name="last", type=ColumnType.DATE, derived=True),
    ),
    parts=(
        Part(
            name="turnover",
            select=(
                "SELECT d.{asset}, TOTAL(d.{paid_in}), TOTAL(d.{paid_out}), SUM(d.{entries}) "
                "FROM {table:asset_day} d WHERE d.{book} = {:book} "
                "AND d.{day} >= {:first} AND d.{day} <= {:last} "
                "GROUP BY d.{asset} ORDER BY d.{asset}"
            ),
            columns=(
                ASSET,
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
