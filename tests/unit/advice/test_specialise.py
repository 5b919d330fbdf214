"""Tables that computed reads ask for, as declarations."""

from typing import Any

import msgspec
from tests.unit.advice.worlds import report
from tests.unit.projection.shop import DAY, SALE, TOTAL, ShopTables

from ultraengine.advice.recorder import Usage
from ultraengine.advice.specialise import Sums, specialise, sums_of
from ultraengine.advice.suggest import Facts
from ultraengine.domains.ledger.sql_reads import SQL_READS
from ultraengine.domains.ledger.tables import TABLES
from ultraengine.model import projection as words
from ultraengine.model.limits import DEFAULT_ADVICE_LIMITS
from ultraengine.model.projection import Table, check_projection
from ultraengine.model.reads import Computed, Part, tables_of

SHOP = {("shop", one.name): Facts(one, 500_000, ()) for one in (SALE, TOTAL, DAY.table)}
LEDGER = {("ledger", name): Facts(one, 500_000, ()) for name, one in tables_of(TABLES).items()}


def read(select: str) -> dict[str, Computed]:
    part = Part(name="p", select=select, columns=())
    return {
        "shop.r": Computed(
            name="r", path="r", parameters=(), parts=(part,), result=int, finish=lambda *_: 0
        )
    }


def only(table: Table, rows: int = 1_000_000) -> dict[tuple[str, str], Facts]:
    return {("shop", table.name): Facts(table, rows, ())}


def made(select: str, facts: Any = SHOP, **more: Any) -> Any:
    found = report(Usage("shop", "shop.r", ""), **more)
    return specialise(found, read(select), facts, DEFAULT_ADVICE_LIMITS)


def declared(text: str) -> Any:
    """What the pasted text makes."""
    space: dict[str, Any] = {**vars(words), "TOTAL": TOTAL, "SALE": SALE}
    exec(text, space)  # noqa: S102  (it is our own text, and it has to run)
    (name,) = {line.partition(" = ")[0] for line in text.splitlines() if " = " in line[:40]}
    return space[name]


def test_sums_of_a_current_table_by_day_become_an_aggregate_that_passes_the_checks() -> None:
    ((one,), left) = made(
        "SELECT TOTAL(t.{amount}), SUM(t.{last}) FROM {table:total} t WHERE t.{day} >= {:first}"
    )
    assert left == ()
    assert (one.projection, one.table, one.rows) == ("shop", "total", 500_000)
    aggregate = declared(one.declaration)
    assert aggregate.table.key == ("tenant", "day")
    assert aggregate.table.names == ("tenant", "day", "amount", "last")
    projection: Any = ShopTables()
    projection.aggregates = (aggregate,)
    check_projection(projection)
    assert "aggregates" in one.instruction


def test_sums_of_facts_become_a_table_that_events_fill() -> None:
    ((one,), _) = made(
        "SELECT s.{item}, SUM(s.{amount}) FROM {table:sale} AS s WHERE s.{shop} = {:shop} "
        "GROUP BY s.{item} ORDER BY s.{item}"
    )
    table = declared(one.declaration)
    assert table.key == ("tenant", "shop", "item", "day")
    assert table.names == ("tenant", "shop", "item", "day", "amount", "entries")
    projection: Any = ShopTables()
    projection.tables = (SALE, TOTAL, table)
    check_projection(projection)
    assert (
        "rows.put('shop_item_day', (tenant, shop, item, booked_at // DAY_US, amount, 1))"
        in one.instruction
    )


def test_a_table_that_is_as_coarse_already_or_has_no_day_is_not_proposed() -> None:
    untimed = msgspec.structs.replace(SALE, columns=SALE.columns[:-1])
    keyed = msgspec.structs.replace(TOTAL, key=("tenant", "item"))
    for select, facts in (
        ("SELECT SUM(t.{amount}) FROM {table:total} t WHERE t.{item} = {:item}", SHOP),
        ("SELECT SUM(t.{amount}) FROM {table:total} t WHERE t.{last} = {:last}", SHOP),
        ("SELECT SUM(d.{amount}) FROM {table:day_total} d", SHOP),
        ("SELECT COUNT(*) FROM {table:total} t", SHOP),
        ("SELECT SUM(t.{gone}) FROM {table:total} t", SHOP),
        ("SELECT SUM(t.{amount}) FROM {table:total} t", {}),
        ("SELECT SUM(t.{amount}) FROM {table:sale} t", only(untimed)),
        ("SELECT SUM(t.{amount}) FROM {table:total} t", only(keyed)),
        ("SELECT SUM(t.{amount}) FROM {table:total} t", only(TOTAL, 99)),
    ):  # fmt: skip
        found, left = made(select, facts)
        assert found == (), select
        assert [one.reason for one in left] == [
            "no table by group and day follows from what it sums up"
        ]


def test_rare_fast_and_unknown_reads_are_left_out_and_lists_are_no_matter_of_it() -> None:
    select = "SELECT SUM(t.{amount}) FROM {table:total} t"
    _, left = made(select, calls=3)
    assert [one.reason for one in left] == ["3 calls are less than calls_min (50)"]
    _, left = made(select, seconds=0.003)
    assert [one.reason for one in left] == ["95 % took less than 4.096 ms: it is fast enough"]
    found = report(Usage("shop", "shop.gone", ""), Usage("shop", "shop.list", "sale"))
    _, left = specialise(found, {}, SHOP, DEFAULT_ADVICE_LIMITS)
    assert [one.reason for one in left] == ["the read is not declared any more"]


def test_two_shapes_of_one_read_are_one_proposal() -> None:
    usages = [Usage("shop", "shop.r", "", (), filters) for filters in ((), (("day", ""),))]
    sums = read("SELECT SUM(t.{amount}) FROM {table:total} t")
    found, left = specialise(report(*usages), sums, SHOP, DEFAULT_ADVICE_LIMITS)
    assert (len(found), left) == (1, ())


def test_the_ledgers_reads_are_understood() -> None:
    computed = {f"ledger.{one.name}": one for one in SQL_READS if isinstance(one, Computed)}
    parts = {
        (name, part.name): sums_of(part) for name, one in computed.items() for part in one.parts
    }
    assert parts["ledger.statement", "days"] == (
        Sums("daily_balance", ("paid_in", "paid_out"), ("book", "account"), ("book", "account")),
    )
    assert parts["ledger.turnover", "turnover"] == (
        Sums("asset_day", ("paid_in", "paid_out", "entries"), ("book", "asset"), ("book",)),
    )
    usages = [Usage("ledger", name, "") for name in computed]
    found, _ = specialise(report(*usages), computed, LEDGER, DEFAULT_ADVICE_LIMITS)
    assert {one.table for one in found} <= {"entry", "daily_balance"}
