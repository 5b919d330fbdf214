"""Which indexes a report gives rise to, and why others are left out."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.advice.worlds import BY_CODE, NOW, report

from ultraengine.advice.recorder import Recorder, Report, Usage
from ultraengine.advice.suggest import (
    Candidate,
    Demand,
    Facts,
    Suggestions,
    bytes_of,
    demands_of,
    evidence_of,
    suggest,
)
from ultraengine.domains.ledger.account_table import ACCOUNT
from ultraengine.domains.ledger.tables import ENTRY, HOLD, TRANSFER
from ultraengine.model.ids import Instant
from ultraengine.model.limits import DEFAULT_ADVICE_LIMITS, AdviceLimits
from ultraengine.model.projection import Column, ColumnType, Table

NEWEST = ("booked_at desc", "transfer desc")
TABLES = {table.name: table for table in (ACCOUNT, TRANSFER, ENTRY, HOLD)}


def transfers(*filters: tuple[str, str], order: tuple[str, ...] = NEWEST) -> Usage:
    return Usage("ledger", "ledger.transfers", "transfer", ("book",), filters, order)


def facts(rows: int = 1_000_000, **more: tuple[tuple[str, ...], ...]) -> dict[Any, Facts]:
    """Of a database that has what is declared, and more."""
    return {
        ("ledger", name): Facts(
            table,
            rows,
            (table.key, *(one.columns for one in table.indexes), *more.get(name, ())),
        )
        for name, table in TABLES.items()
    }


def suggested(*usages: Usage, limits: AdviceLimits = DEFAULT_ADVICE_LIMITS, **more: Any) -> Any:
    return suggest(report(*usages), facts(**more), limits)


def columns(found: Suggestions) -> set[tuple[str, ...]]:
    return {one.columns for one in found.candidates}


def reasons(found: Suggestions) -> list[str]:
    return [one.reason for one in found.left_out]


def test_what_is_equal_stands_first_the_tenant_before_all_then_the_order() -> None:
    found = suggested(transfers(("code", "eq"), ("status", "eq")))
    assert columns(found) == {("tenant", "book", "status", "code", "booked_at", "transfer")}
    (one,) = found.candidates
    assert found.left_out == ()
    (why,) = one.evidence
    assert (why.read, why.filters, why.calls) == ("ledger.transfers", ("code", "status"), 100)
    assert (why.share, why.returned) == (1.0, 10.0)
    assert why.seconds_p50 == why.seconds_p95 == 0.065536
    assert one.seconds == 5.0


def test_bounds_and_order_are_two_candidates_and_the_same_column_is_one() -> None:
    assert columns(suggested(transfers(("code", "eq"), ("amount", "gte"), ("amount", "lt")))) == {
        ("tenant", "book", "code", "booked_at", "transfer"),
        ("tenant", "book", "code", "amount"),
    }
    assert columns(suggested(transfers(("code", "eq"), ("booked_at", "gte")))) == {
        ("tenant", "book", "code", "booked_at", "transfer")
    }
    assert columns(suggested(transfers(("code", "in"), order=("transfer",)))) == {
        ("tenant", "book", "code")
    }


def test_a_column_that_is_equal_orders_nothing() -> None:
    found = suggested(transfers(("transfer", "prefix"), ("booked_at", "eq")))
    # The order that is left is that of the key's last column.
    assert columns(found) == {("tenant", "book", "booked_at", "transfer")}


def test_a_shape_without_filters_or_order_is_served_by_what_it_fixes() -> None:
    one = Usage("ledger", "ledger.entries", "entry", ("book", "account"), (), ())
    assert columns(suggested(one)) == set()
    assert reasons(suggested(one)) == ["an index serves it already"]
    (shape,) = report(Usage("ledger", "r", "entry", ("book",), (("counterparty", "eq"),))).shapes
    assert demands_of(shape, ENTRY) == (Demand(("tenant", "book", "counterparty"), ()),)


def test_one_index_serves_a_shape_and_what_is_its_beginning() -> None:
    code, both = ("code", "eq"), (("code", "eq"), ("source", "eq"))
    found = suggested(
        transfers(code, order=()), transfers(code), transfers(*both), transfers(*both, order=())
    )
    assert {one.columns: len(one.shapes) for one in found.candidates} == {
        ("tenant", "book", "code", "source", "booked_at", "transfer"): 3,
        ("tenant", "book", "code", "booked_at", "transfer"): 1,
    }


def test_what_an_index_or_the_key_serves_is_left_out() -> None:
    served: dict[str, Any] = {"transfer": (("tenant", "code", "book", "booked_at", "transfer"),)}
    assert reasons(suggested(transfers(("code", "eq")), **served)) == ["an index serves it already"]
    key = Usage("ledger", "ledger.transfer", "transfer", ("book", "transfer"), (), ())
    assert reasons(suggested(key)) == ["the key finds the row"]
    assert columns(suggested(transfers(order=("transfer",)))) == set()


def test_rare_cheap_and_fast_shapes_small_and_unknown_tables_are_left_out() -> None:
    few = suggest(report(BY_CODE, calls=49), facts(), DEFAULT_ADVICE_LIMITS)
    assert reasons(few) == ["49 calls are less than calls_min (50)"]
    fast = suggest(report(BY_CODE, seconds=0.0009), facts(), DEFAULT_ADVICE_LIMITS)
    assert reasons(fast) == ["95 % took less than 1.024 ms: it is fast enough"]
    small = suggest(report(BY_CODE), facts(rows=999), DEFAULT_ADVICE_LIMITS)
    assert reasons(small) == ["999 rows are less than table_rows_min (1000)"]
    unknown = [
        Usage("other", "other.list", "transfer", (), (("code", "eq"),), ()),
        Usage("ledger", "ledger.list", "transfer", (), (("colour", "eq"),), ()),
    ]
    assert (
        reasons(suggested(*unknown))
        == ["the table, or a column of it, is not declared any more"] * 2
    )
    recorder = Recorder(Instant(0))
    for usage, seconds in ((BY_CODE, 0.005), (transfers(("source", "eq")), 5.0)):
        for _ in range(60):
            recorder.answered(usage, NOW, seconds, 1, {})
    cheap = suggest(recorder.report(NOW), facts(), DEFAULT_ADVICE_LIMITS)
    assert reasons(cheap) == ["0.10% of the time is less than share_min (1.00%)"]


def test_answers_of_a_cache_and_failures_are_no_calls() -> None:
    (shape,) = report(BY_CODE).shapes
    busy = msgspec.structs.replace(shape, calls=140, cached=80, failed=20)
    found = evidence_of(busy, 10.0)
    assert (found.calls, found.share, found.returned) == (40, 0.5, 25.0)
    assert evidence_of(msgspec.structs.replace(shape, seconds=0.0), 0.0).share == 0.0


def test_an_index_whose_rows_a_database_could_refuse_is_cut_or_left_out() -> None:
    wide = suggested(transfers(("source", "eq"), ("target", "eq"), order=("transfer",)))
    assert columns(wide) == {("tenant", "book", "source", "target", "transfer")}
    cut = AdviceLimits(index_bytes_max=2_100)
    long = transfers(("source", "eq"), order=("code", "booked_at", "transfer"))
    found = suggested(long, limits=cut)
    assert columns(found) == {("tenant", "book", "source", "code", "booked_at")}
    found = suggested(
        transfers(("source", "eq"), ("target", "eq"), order=("transfer",)), limits=cut
    )
    assert reasons(found) == ["rows of the index could be longer than index_bytes_max (2100)"]
    served: dict[str, Any] = {"transfer": (("tenant", "book", "source", "code", "booked_at"),)}
    found = suggested(long, limits=cut, **served)
    assert columns(found) == set()
    assert bytes_of([Column(name="b", type=ColumnType.BYTES, length=7)]) == 7


def test_the_dearest_shapes_come_first_and_the_rest_is_said() -> None:
    limits = AdviceLimits(candidates_max=1)
    recorder = Recorder(Instant(0))
    for usage, seconds in ((BY_CODE, 0.1), (transfers(("source", "eq")), 0.2)):
        for _ in range(60):
            recorder.answered(usage, NOW, seconds, 1, {})
    found = suggest(recorder.report(NOW), facts(), limits)
    assert [one.columns[2] for one in found.candidates] == ["source"]
    assert reasons(found) == ["candidates_max (1) others are for dearer shapes"]


def test_a_name_says_nothing_and_is_the_same_for_the_same_columns() -> None:
    first, second = (suggested(transfers(("code", "eq"))).candidates[0].name for _ in range(2))
    assert first == second
    assert len(first) <= 24
    other = suggested(transfers(("source", "eq"))).candidates[0]
    assert other.name != first


def test_computed_reads_are_no_matter_of_indexes() -> None:
    assert suggested(Usage("ledger", "ledger.turnover", "")) == Suggestions((), ())


COLUMNS = st.sampled_from([name for name in TRANSFER.names if name != "tenant"])
OPERATORS = st.sampled_from(["eq", "in", "lt", "lte", "gt", "gte", "prefix"])


def used(fixed: list[str], filters: set[tuple[str, str]], order: list[str], down: bool) -> Usage:
    ordered = tuple(f"{one} desc" if down else one for one in order)
    name = f"ledger.r{len(fixed)}"
    return Usage("ledger", name, "transfer", tuple(fixed), tuple(sorted(filters)), ordered)


USAGES = st.builds(
    used,
    st.lists(COLUMNS, unique=True, max_size=2),
    st.sets(st.tuples(COLUMNS, OPERATORS), max_size=3),
    st.lists(COLUMNS, unique=True, max_size=2),
    st.booleans(),
)
ANY = AdviceLimits(candidates_max=1_000, share_min=0.0, calls_min=1, index_bytes_max=10_000_000)


@given(st.lists(USAGES, max_size=8, unique=True))
def test_candidates_are_well_formed_and_serve_every_shape_that_is_not_left_out(
    usages: list[Usage],
) -> None:
    made: Report = report(*usages, calls=1)
    known = facts()
    found = suggest(made, known, ANY)
    table: Table = TRANSFER
    for one in found.candidates:
        assert one.columns[0] == "tenant"
        assert set(one.columns) <= set(table.names)
        assert len(set(one.columns)) == len(one.columns)
        assert one.columns not in known["ledger", "transfer"].indexes
        for other in found.candidates:
            assert other is one or other.columns[: len(one.columns)] != one.columns
        assert list(one.shapes) == sorted(one.shapes, key=lambda shape: -shape.seconds)
    left = len(found.left_out)
    kept = {id(shape) for one in found.candidates for shape in one.shapes}
    assert len(kept) + left == len(made.shapes)
    for shape in made.shapes:
        for demand in demands_of(shape, table):
            assert _met(demand, found.candidates) or any(
                map(demand.is_met_by, known["ledger", "transfer"].indexes)
            )


def _met(demand: Demand, candidates: tuple[Candidate, ...]) -> bool:
    return any(demand.is_met_by(one.columns) for one in candidates)
