"""Trial balance and turnover of a book from SQL."""

from typing import Final

import msgspec

from ultraengine.domains.ledger.columns import DAY_US
from ultraengine.domains.ledger.days import ASSET_DAY, DAILY_BALANCE
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
from ultraengine.domains.ledger.tables import ACCOUNT
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
    day, day_start = day_of(min(moment + 1, TIME_LAST))
    partial = f"{mode}_hours" if day_start <= moment else ""
    return {
        **values, "mode": mode, "moment": moment, "day": day, "day_start": day_start,
        "partial": partial,
    }  # fmt: skip


def finish_trial(rows: Rowed, values: Values) -> TrialBalance:
    """Totals by the asset's name; what is held has no business time."""
    mode = str(values["mode"])
    pending = mode != "effective"
    found: dict[str, dict[str, int]] = {}
    for part in (mode, *_ADDED):
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
_ADDED: Final = ("effective_days", "effective_hours", "recorded_hours", "held", "released")
"""Parts whose rows are added to those of the mode."""
_ALL: Final = 10**18
"""Rows at most.  A limit makes the database compute a row's columns once, and not wherever the
statement around it names them."""
_SIDES: Final = "TOTAL(DEBIT(s.{balance})), TOTAL(CREDIT(s.{balance}))"
_GROWN: Final = (
    "TOTAL(MINUS(DEBIT(s.{balance}), DEBIT(s.{was}))), "
    "TOTAL(MINUS(CREDIT(s.{balance}), CREDIT(s.{was})))"
)
_TRIAL_COLUMNS: Final = (ASSET, COUNT, total_column("debits"), total_column("credits"))
_GROWN_COLUMNS: Final = (ASSET, total_column("debits"), total_column("credits"))
_PENDING_COLUMNS: Final = (total_column("pending_out"), total_column("pending_in"))
_CLOSED: Final = (
    "SELECT c.{asset}, SUM(c.{accounts}), TOTAL(c.{debits}), TOTAL(c.{credits}), "
    "TOTAL(c.{pending_debits}), TOTAL(c.{pending_credits}) "
    "FROM {table:asset_close} c WHERE c.{book} = {:book}"
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
        # Every account counts, whenever it was opened.
        Part(
            name="effective",
            select=(
                "SELECT a.{asset}, COUNT(*) FROM {table:account} a "
                "WHERE a.{book} = {:book} GROUP BY a.{asset}"
            ),
            columns=(ASSET, COUNT),
            when=("mode", "effective"),
        ),
        Part(
            name="effective_days",
            select=(
                "SELECT d.{asset}, TOTAL(d.{debits}), TOTAL(d.{credits}) "
                "FROM {table:asset_day} d WHERE d.{book} = {:book} AND d.{day} < {:day} "
                "GROUP BY d.{asset}"
            ),
            columns=_GROWN_COLUMNS,
            when=("mode", "effective"),
        ),
        # Accounts that moved on the day itself: what they were before it, which is what they are
        # now without all that came since, and what moved on it until then.
        Part(
            name="effective_hours",
            select=(
                f"SELECT s.{{asset}}, {_GROWN} FROM (SELECT m.{{asset}}, m.{{was}}, "
                "PLUS(m.{was}, m.{moved}) AS {balance} FROM (SELECT a.{asset}, "
                "MINUS(a.{balance}, (SELECT MINUS(TOTAL(l.{paid_in}), TOTAL(l.{paid_out})) "
                "FROM {table:daily_balance} l WHERE l.{book} = d.{book} "
                "AND l.{account} = d.{account} AND l.{day} >= {:day})) AS {was}, "
                "COALESCE((SELECT TOTAL(e.{amount}) FROM {table:entry} e "
                "WHERE e.{book} = d.{book} AND e.{account} = d.{account} "
                "AND e.{effective_at} >= {:day_start} AND e.{effective_at} <= {:moment}), 0) "
                "AS {moved} FROM {table:daily_balance} d JOIN {table:account} a "
                "ON a.{book} = d.{book} AND a.{account} = d.{account} "
                f"WHERE d.{{book}} = {{:book}} AND d.{{day}} = {{:day}} LIMIT {_ALL}) m) s "
                "GROUP BY s.{asset}"
            ),
            columns=_GROWN_COLUMNS,
            when=("partial", "effective_hours"),
        ),
        Part(
            name="recorded",
            select=f"{_CLOSED} AND c.{{day}} < {{:day}} GROUP BY c.{{asset}}",
            columns=(*_TRIAL_COLUMNS, *_PENDING_COLUMNS),
            when=("mode", "recorded"),
        ),
        # Accounts that were changed on the day itself: their last entry until then, looked for
        # from the end of the day on, and how they stood before it.
        Part(
            name="recorded_hours",
            select=(
                f"SELECT s.{{asset}}, SUM(s.{{opened}}), {_GROWN} FROM (SELECT m.{{asset}}, "
                "m.{opened}, COALESCE(m.{was}, 0) AS {was}, "
                "COALESCE(m.{balance}, m.{was}, 0) AS {balance} FROM (SELECT a.{asset}, "
                "CASE WHEN a.{opened_at} >= {:day_start} AND a.{opened_at} <= {:moment} "
                "THEN 1 ELSE 0 END AS {opened}, "
                "(SELECT p.{balance} FROM {table:day_close} p WHERE p.{book} = d.{book} "
                "AND p.{account} = d.{account} AND p.{day} < {:day} "
                "ORDER BY p.{day} DESC LIMIT 1) AS {was}, "
                "(SELECT e.{balance} FROM {table:entry} e WHERE e.{book} = d.{book} "
                "AND e.{account} = d.{account} AND e.{version} <= d.{version} "
                "AND e.{booked_at} >= {:day_start} AND e.{booked_at} <= {:moment} "
                "ORDER BY e.{version} DESC LIMIT 1) AS {balance} "
                "FROM {table:day_close} d JOIN {table:account} a "
                "ON a.{book} = d.{book} AND a.{account} = d.{account} "
                f"WHERE d.{{book}} = {{:book}} AND d.{{day}} = {{:day}} LIMIT {_ALL}) m) s "
                "GROUP BY s.{asset}"
            ),
            columns=_TRIAL_COLUMNS,
            when=("partial", "recorded_hours"),
        ),
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
