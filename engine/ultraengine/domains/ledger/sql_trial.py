"""Trial balance and turnover of a book from SQL."""

from collections.abc import Sequence
from typing import Final

import msgspec

from ultraengine.domains.ledger.account_table import ACCOUNT
from ultraengine.domains.ledger.columns import DAY_US
from ultraengine.domains.ledger.days import ASSET_DAY, DAILY_BALANCE, DAY_S, MINUTE_S
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
from ultraengine.model.errors import Malformed
from ultraengine.model.projection import ColumnType
from ultraengine.model.reads import (
    Computed,
    Parameter,
    Part,
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
    moment = int(next((one for one in (at, effective) if one is not None), 0))
    # What is asked for ends a microsecond later: the end of a day is the start of the next one, and
    # the days before it say it all.  Behind the last moment no database has a day.
    end = min(moment + 1, TIME_LAST)
    day, day_start = day_of(end)
    partial = f"{mode}_hours" if day_start <= moment else ""
    return {
        **values, "mode": mode, "moment": moment, "day": day, "day_start": day_start,
        "minute_start": end - end % _MINUTE_US, "partial": partial,
    }  # fmt: skip


def finish_trial(rows: Rowed, values: Values) -> TrialBalance:
    """Totals by the asset's name; what is held has no business time."""
    mode = str(values["mode"])
    pending = mode != "effective"
    found: dict[str, dict[str, int]] = {}
    for part in _ADDED:
        for row in rows.get(part, ()):
            sums = found.setdefault(row["asset"], dict.fromkeys(_SUMS, 0))
            for name in _SUMS:
                sums[name] += row.get(name) or 0
    totals = [(asset, sums) for asset, sums in sorted(found.items()) if sums["count"]]
    return TrialBalance(
        assets=[
            AssetTotals(
                asset=asset,
                accounts=sums["count"],
                debits=str(sums["debits"]),
                credits=str(sums["credits"]),
                pending_debits=str(sums["pending_out"]) if pending else None,
                pending_credits=str(sums["pending_in"]) if pending else None,
            )
            for asset, sums in totals
        ],
        balanced=all(
            sums["debits"] == sums["credits"] and sums["pending_out"] == sums["pending_in"]
            for _, sums in totals
        ),
    )


_SUMS: Final = ("count", "debits", "credits", "pending_out", "pending_in")
_ADDED: Final = (
    "now", "now_held", "booked", "recorded_held", "held", "released", "effective",
    "opened", "late",
)  # fmt: skip
"""Parts whose rows are added up."""
_ALL: Final = 10**18
"""Rows at most.  A limit makes the database compute a row's columns once, and not wherever the
statement around it names them."""
_MINUTE_US: Final = MINUTE_S * 1_000_000
_GROWN_COLUMNS: Final = (ASSET, total_column("debits"), total_column("credits"))
_TRIAL_COLUMNS: Final = (ASSET, COUNT, *_GROWN_COLUMNS[1:])
_PENDING_COLUMNS: Final = (total_column("pending_out"), total_column("pending_in"))
_TIMES: Final = (
    (DAY_S, "AND c.{start} < {:day_start}"),
    (MINUTE_S, "AND c.{start} >= {:day_start} AND c.{start} < {:minute_start}"),
    (0, "AND c.{start} >= {:minute_start} AND c.{start} <= {:moment}"),
)
"""Spans up to a moment: whole days, of its day whole minutes, of its minute the moments."""


def _up_to(tables: Sequence[str], sums: Sequence[str], total: str) -> str:
    """Changes of assets up to a moment."""
    columns = ", ".join(f"c.{{{name}}}" for name in ("asset", *sums))
    spans = " UNION ALL ".join(
        f"SELECT {columns} FROM {{table:{table}}} c WHERE c.{{book}} = {{:book}} "
        f"AND c.{{span}} = {span} {within}"
        for table in tables
        for span, within in _TIMES
    )
    return f"SELECT s.{{asset}}, {total} FROM ({spans}) s GROUP BY s.{{asset}}"


_OF_DAYS: Final = (
    f"SELECT c.{{asset}}, SUM(c.{{accounts}}), TOTAL(c.{{debits}}), TOTAL(c.{{credits}}) "
    f"FROM {{table:asset_booked}} c WHERE c.{{book}} = {{:book}} AND c.{{span}} = {DAY_S} "
    "GROUP BY c.{asset}"
)
_OPENED: Final = (
    f"SELECT c.{{asset}}, SUM(c.{{accounts}}) FROM {{table:asset_booked}} c "
    f"WHERE c.{{book}} = {{:book}} AND c.{{span}} = {DAY_S} GROUP BY c.{{asset}}"
)
_BOTH_SIDES: Final = "TOTAL(s.{debits}), TOTAL(s.{credits})"
_BOOKED: Final = _up_to(
    ("asset_booked",), ("accounts", "debits", "credits"), f"SUM(s.{{accounts}}), {_BOTH_SIDES}"
)
_EFFECTIVE: Final = _up_to(("asset_booked", "asset_shift"), ("debits", "credits"), _BOTH_SIDES)
_HELD: Final = (
    "SELECT c.{asset}, TOTAL(c.{pending_debits}), TOTAL(c.{pending_credits}) "
    "FROM {table:asset_held} c WHERE c.{book} = {:book}"
)


def _of_days(column: str) -> str:
    """A sum of an account's business days before, as a subquery."""
    return (
        f"(SELECT {column} FROM {{table:daily_balance}} d WHERE d.{{book}} = l.{{book}} "
        "AND d.{account} = l.{account} AND d.{day} < {:day})"
    )


def _of_hours(column: str) -> str:
    """A sum of an account's entries of the business day, up to the moment."""
    return (
        f"(SELECT {column} FROM {{table:entry}} e WHERE e.{{book}} = l.{{book}} "
        "AND e.{account} = l.{account} AND e.{effective_at} >= {:day_start} "
        "AND e.{effective_at} <= {:moment})"
    )


def _whole(*sums: str) -> str:
    """Sums of nothing are null."""
    first, second = (f"COALESCE({one}, 0)" for one in sums)
    return f"PLUS({first}, {second})"


_LATE: Final = (
    # How far below zero the account really was, without what its postings said when they were
    # booked.  It is the same above zero, as both see the same balance.
    "SELECT s.{asset}, TOTAL(MINUS(DEBIT(s.{balance}), s.{grown})), "
    "TOTAL(MINUS(DEBIT(s.{balance}), s.{grown})) FROM (SELECT a.{asset}, "
    + _whole(
        _of_days("MINUS(TOTAL(d.{paid_in}), TOTAL(d.{paid_out}))"),
        _of_hours("TOTAL(e.{amount})"),
    )
    + " AS {balance}, "
    + _whole(
        _of_days("TOTAL(d.{debits})"),
        _of_hours("TOTAL(MINUS(DEBIT(e.{balance}), DEBIT(MINUS(e.{balance}, e.{amount}))))"),
    )
    + " AS {grown} FROM {table:late_account} l JOIN {table:account} a "
    "ON a.{book} = l.{book} AND a.{account} = l.{account} "
    "WHERE l.{book} = {:book} AND l.{since} <= {:moment} AND l.{until} > {:moment} "
    f"LIMIT {_ALL}) s GROUP BY s.{{asset}}"
)


def _held(verb: str, time: str, signed: str) -> Part:
    """What holds that began or ended on the day do to what is held; both sides of one asset."""
    return Part(
        name=verb,
        select=(
            "SELECT s.{asset}, TOTAL(s.{amount}), TOTAL(s.{amount}) FROM (SELECT a.{asset}, "
            f"{signed} AS {{amount}} FROM {{table:hold}} h JOIN {{table:account}} a "
            "ON a.{book} = h.{book} AND a.{account} = h.{source} "
            f"WHERE h.{{book}} = {{:book}} AND h.{{{time}}} >= {{:day_start}} "
            f"AND h.{{{time}}} <= {{:moment}}) s GROUP BY s.{{asset}}"
        ),
        columns=(ASSET, *_PENDING_COLUMNS),
        when=("partial", "recorded_hours"),
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
        Parameter(name="minute_start", type=ColumnType.TIME, derived=True),
        Parameter(name="partial", type=ColumnType.TEXT, derived=True),
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
        Part(name="now", select=_OF_DAYS, columns=_TRIAL_COLUMNS, when=("mode", "now")),
        Part(
            name="now_held",
            select=f"{_HELD} GROUP BY c.{{asset}}",
            columns=(ASSET, *_PENDING_COLUMNS),
            when=("mode", "now"),
        ),
        Part(name="booked", select=_BOOKED, columns=_TRIAL_COLUMNS, when=("mode", "recorded")),
        Part(
            name="recorded_held",
            select=f"{_HELD} AND c.{{day}} < {{:day}} GROUP BY c.{{asset}}",
            columns=(ASSET, *_PENDING_COLUMNS),
            when=("mode", "recorded"),
        ),
        # Every account counts, whenever it was opened.
        Part(
            name="opened",
            select=_OPENED,
            columns=(ASSET, COUNT),
            when=("mode", "effective"),
        ),
        Part(
            name="effective",
            select=_EFFECTIVE,
            columns=_GROWN_COLUMNS,
            when=("mode", "effective"),
        ),
        Part(name="late", select=_LATE, columns=_GROWN_COLUMNS, when=("mode", "effective")),
        _held("held", "booked_at", "h.{amount}"),
        _held("released", "resolved_at", "MINUS(0, h.{amount})"),
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
