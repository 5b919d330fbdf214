"""The ledger's rows, where clients write what databases dislike; its checks, one by one."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from ultraengine.domains.ledger.account_table import ACCOUNT
from ultraengine.domains.ledger.days import ASSET_CLOSE, ASSET_DAY, ASSET_HELD
from ultraengine.domains.ledger.tables import TABLES, TRANSFER
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.projection.fold import Batch
from ultraengine.projection.sqlite.store.driver import Store
from ultraengine.projection.target import START, Checkpoint, Moved, RowRefused
from ultraengine.testing.projected import happened
from ultraengine.testing.projection_tables import MemoryTables
from ultraengine.testing.projections import in_database

SECOND = 1_000_000
KEY = ("t", "k")
HUGE = 10**38 - 1


def tables(bench: Any) -> MemoryTables:
    batch, held = Batch(TABLES.tables), MemoryTables(TABLES.tables)
    for event, at in happened(bench):
        TABLES.project(event, at, batch)
    held.write(batch)
    return held


def row(held: MemoryTables, table: str, *key: Any) -> dict[str, Any]:
    names = held.tables[table].names
    return dict(zip(names, held.held[table][*KEY, *key], strict=True))


def test_what_databases_cannot_hold_is_replaced(books: Any) -> None:
    books.open("odd", metadata={"a\0": "b\0c", "plain": ""})
    books.move("t1", "bank", "odd", 1, code="x\0", reference="\0")
    books.move("t2", "bank", "odd", 1, code=7, reference="")
    held = tables(books)
    assert json.loads(row(held, "account", "odd")["metadata"]) == {
        "a\ufffd": "b\ufffdc",
        "plain": "",
    }
    found = [(row(held, "transfer", name)["code"], row(held, "transfer", name)["reference"])
             for name in ("t1", "t2")]  # fmt: skip
    assert found == [("x\ufffd", "\ufffd"), ("7", "")]
    in_database(books, TABLES)


def test_days_of_huge_amounts_sum_up_beyond_the_end_of_amounts(bench: Any) -> None:
    """No tenant stops the projection of the others."""
    bench.open("a", "b", min_balance=None)
    for number in range(4):
        sides = ("a", "b") if number % 2 == 0 else ("b", "a")
        assert bench.move(f"t{number}", *sides, str(HUGE)) == "posted"
    held = tables(bench)
    day = bench.time // 86_400_000_000
    assert row(held, "daily_balance", "a", day)["paid_in"] == 2 * HUGE
    in_database(bench, TABLES)


def test_a_hold_is_one_transfer_and_one_hold_until_it_moves(books: Any) -> None:
    books.move("h1", "alice", "bob", 100, pending_timeout_s=5)
    books.move("h2", "alice", "bob", 50, pending_timeout_s=0, effective_time="1969-12-31")
    booked = books.time
    assert books.one("post_transfers", id="h2", amount=20) == "posted"
    books.tick(booked + 10 * SECOND)
    held = tables(books)
    assert row(held, "transfer", "h1")["status"] == "pending"
    first, second = row(held, "hold", "h1"), row(held, "hold", "h2")
    assert (first["status"], first["posted_amount"], first["resolved_at"]) == (
        "expired", 0, booked + 10 * SECOND,
    )  # fmt: skip
    assert (second["status"], second["posted_amount"], second["expires_at"]) == ("posted", 20, None)
    entries = [entry[:5] for entry in held.rows("entry") if entry[4] in {"h1", "h2"}]
    assert [entry[2] for entry in entries] == ["alice", "bob"]
    assert row(held, "daily_balance", "alice", -1)["paid_out"] == 20


def test_a_timers_event_says_that_the_engine_sent_it(books: Any) -> None:
    books.move("h1", "alice", "bob", 100, pending_timeout_s=1)
    books.tick(books.time + 10 * SECOND)
    held = tables(books)
    assert row(held, "account", "alice")["log_offset"] == books.executor.applied_end - 1
    assert row(held, "hold", "h1")["log_offset"] == books.executor.applied_end - 1
    assert row(held, "transfer", "h1")["principal"] == "tester"


def test_a_transfer_counts_on_the_day_of_its_business_time(books: Any) -> None:
    assert books.move("t1", "alice", "bob", 7, effective_time="2026-02-01") == "posted"
    held = tables(books)
    day, us = 20_485, 86_400 * SECOND
    assert row(held, "transfer", "t1")["effective_at"] == day * us
    assert row(held, "transfer", "t1")["booked_at"] == books.time
    assert {entry[8] for entry in held.rows("entry") if entry[4] == "t1"} == {day * us}
    assert row(held, "daily_balance", "bob", day)["paid_in"] == 7


BROKEN: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "account_held": ("account", {"pending_in": -1}),
    "account_available": ("account", {"pending_out": 1_001}),
    "account_room": ("account", {"max_balance": 1_000, "pending_in": 1}),
    "account_limits": ("account", {"min_balance": 1, "pending_out": 0}),
    "account_version": ("account", {"version": 0}),
    "transfer_amount": ("transfer", {"amount": 0}),
    "transfer_sides": ("transfer", {"source": "alice", "target": "alice"}),
    "transfer_status": ("transfer", {"status": "done"}),
    "transfer_reversal": ("transfer", {"status": "reversal"}),
    "transfer_hold": ("transfer", {"hold_timeout_s": None}),
    "entry_amount": ("entry", {"amount": 0}),
    "entry_sides": ("entry", {"counterparty": "alice"}),
    "entry_version": ("entry", {"version": 1}),
    "hold_amount": ("hold", {"amount": 0}),
    "hold_sides": ("hold", {"target": "alice"}),
    "hold_status": ("hold", {"status": "gone", "resolved_at": 1}),
    "hold_posted": ("hold", {"posted_amount": 1}),
    "hold_resolved": ("hold", {"resolved_at": 1}),
    "daily_balance_paid": ("daily_balance", {"paid_in": -1}),
    "daily_balance_entries": ("daily_balance", {"entries": 0}),
    "day_held_held": ("day_held", {"pending_out": -1}),
    "day_close_version": ("day_close", {"version": 0}),
    "asset_booked_double_entry": ("asset_booked", {"debits": 1}),
    "asset_booked_accounts": ("asset_booked", {"accounts": -1}),
    "asset_shift_double_entry": ("asset_shift", {"credits": 1}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_check_refuses_what_the_engine_never_does(books: Any, name: str) -> None:
    """Each alone: the row without the break is written."""
    table, values = BROKEN[name]
    books.move("h1", "alice", "bob", 100, pending_timeout_s=5)
    books.move("s1", "bank", "bob", 5, effective_time="2020-01-01")
    held = tables(books)
    declared = held.tables[table]
    wanted = {"account": "alice", "source": "alice"}
    plain = next(
        found
        for found in held.rows(table)
        if all(
            found[declared.names.index(column)] == value
            for column, value in wanted.items()
            if column in declared.names
        )
    )
    broken = tuple(
        values.get(column, value) for column, value in zip(declared.names, plain, strict=True)
    )
    write(declared.name, plain)
    with pytest.raises(
        RowRefused, match=f"ledger_{table}__v3_b1_{name.removeprefix(table + '_')}$"
    ):
        write(declared.name, broken)


def write(table: str, row: tuple[Any, ...]) -> None:
    store = Store(":memory:")
    try:
        store.prepare()
        of = store.create(TABLES, 1, Instant(0))
        batch = Batch(TABLES.tables)
        # As it is kept: what is put is rolled up only then.
        (batch.appended[table].append if table in batch.appended else batch.current[table].take)(
            row
        )
        after = Checkpoint(Offset(1), Epoch(1))
        store.write(of, TABLES, batch, [Moved(ShardId(0), START, after)])
    finally:
        store.db.close()


def test_every_check_is_tried() -> None:
    declared = {f"{table.name}_{check.name}" for table in TABLES.tables for check in table.checks}
    assert declared == set(BROKEN)
    assert [check.name for check in ASSET_DAY.table.checks] == ["double_entry"]
    assert [check.name for check in ASSET_CLOSE.table.checks] == ["double_entry", "accounts"]
    assert [check.name for check in ASSET_HELD.table.checks] == ["double_entry"]


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("daily_balance", ("alice", 0, 5, 0, 1, 0)),
        ("day_close", ("alice", 99_999, 5, 9)),
        ("day_held", ("alice", 99_999, 5, 0)),
    ],
)
def test_double_entry_is_guarded_by_day_and_asset(
    books: Any, table: str, row: tuple[Any, ...]
) -> None:
    store = Store(":memory:")
    store.prepare()
    of = store.create(TABLES, 1, Instant(0))
    batch = Batch(TABLES.tables)
    for event, at in happened(books):
        TABLES.project(event, at, batch)
    batch.put(table, (*KEY, *row))
    after = Checkpoint(Offset(1), Epoch(1))
    store.write(of, TABLES, batch, [Moved(ShardId(0), START, after)])
    with pytest.raises(RowRefused, match="double_entry"):
        store.refresh(of, TABLES, 100)
    store.db.close()


def test_the_tables_name_what_they_hold() -> None:
    assert ACCOUNT.column("balance").summary
    assert all(column.summary for table in TABLES.tables for column in table.columns)
    assert TRANSFER.key == ("tenant", "book", "transfer")


def spans(held: MemoryTables, table: str) -> dict[tuple[int, int], tuple[int, ...]]:
    """Sums of the one asset by span and start."""
    return {(found[2], found[3]): found[5:] for found in held.rows(table)}


def test_what_moves_below_zero_is_kept_by_day_minute_and_moment(bench: Any) -> None:
    bench.open("a", "b", "c", min_balance=None)
    opened = bench.time
    assert bench.move("t1", "a", "b", 10) == "posted"
    first = bench.time
    assert bench.move("t2", "b", "c", 4) == "posted"  # Above 0 before and after: no change.
    assert bench.move("t3", "b", "a", 15) == "posted"  # b falls below 0, a comes out of it.
    found = spans(tables(bench), "asset_booked")
    moments = {start: sums for (span, start), sums in found.items() if span == 0}
    assert moments == {opened: (3, 0, 0), first: (0, 10, 10), bench.time: (0, -1, -1)}
    days = {start: sums for (span, start), sums in found.items() if span == 86_400}
    assert list(map(sum, zip(*days.values(), strict=True))) == [3, 9, 9]
    assert {start % (86_400 * SECOND) for start in days} == {0}
    assert {start % (60 * SECOND) for span, start in found if span == 60} == {0}


def test_another_business_time_moves_the_change_there(bench: Any) -> None:
    bench.open("a", "b", min_balance=None)
    assert bench.move("t1", "a", "b", 10, effective_time="2026-02-01") == "posted"
    day, booked = 20_485 * 86_400 * SECOND, bench.time
    found = spans(tables(bench), "asset_shift")
    assert found[0, day] == found[86_400, day] == (10, 10)
    assert found[0, booked] == found[60, booked - booked % (60 * SECOND)] == (-10, -10)
    assert not tables(bench).rows("late_account")


def test_a_late_posting_is_remembered_with_its_account_and_times(bench: Any) -> None:
    bench.open("a", "b", "c", min_balance=None)
    bench.move("t1", "a", "b", 10)
    latest = bench.time
    bench.move("t2", "a", "c", 1, effective_time="2001-01-01")
    bench.move("t3", "b", "a", 1, effective_time="2002-01-01")
    held = tables(bench)
    years = [11_323 * 86_400 * SECOND, 11_688 * 86_400 * SECOND]
    late = [found[2:] for found in held.rows("late_account")]
    assert late == [("a", years[0], latest), ("b", years[1], latest)]
