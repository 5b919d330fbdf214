"""SQLite's SQL, as text."""

import msgspec
import pytest

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.projection import Aggregate, Fold
from ultraengine.projection.sqlite.dialect import SqliteDialect, exact_select
from ultraengine.projection.sqlite.store.driver import connect
from ultraengine.testing.projection_tables import DAY_TOTAL, FACT, STATE

DIALECT = SqliteDialect()


def aggregate(select: str) -> Aggregate:
    return msgspec.structs.replace(DAY_TOTAL, select=select)


def test_a_table_is_strict_and_its_columns_are_bounded() -> None:
    create, index = DIALECT.create_table("probe_fact__v1_b1", FACT)
    assert create.startswith('CREATE TABLE "probe_fact__v1_b1" (\n  "tenant" TEXT NOT NULL CHECK')
    assert create.endswith(") STRICT")
    assert '"blob" BLOB NOT NULL CHECK (length("blob") <= 64)' in create
    assert '"flag" INTEGER NOT NULL CHECK ("flag" IN (0, 1))' in create
    assert '"amount" ANY NOT NULL CHECK' in create
    assert "ultra_compare(ultra_minus(" in create
    assert index == (
        'CREATE INDEX "probe_fact__v1_b1_by_text" ON "probe_fact__v1_b1" ("tenant", "maybe_text")'
        ' WHERE "maybe_text" IS NOT NULL'
    )


def test_a_fold_is_native_only_for_small_words() -> None:
    paid, count = STATE.column("paid"), STATE.column("count")
    assert paid.fold is count.fold is Fold.SUM
    assert DIALECT.folded(count, "a", "b") == "a + b"
    assert "THEN a + b ELSE ultra_plus(a, b) END" in DIALECT.folded(paid, "a", "b")
    assert "THEN max(a, b) ELSE CASE WHEN ultra_compare(b, a) > 0" in DIALECT.folded(
        STATE.column("highest"), "a", "b"
    )
    assert DIALECT.folded(STATE.column("last"), "a", "b") == "b"


def test_amounts_of_an_aggregate_are_computed_exactly() -> None:
    select = (
        "SELECT d.{tenant}, d.{day}, MIN(d.{paid_in}), d.{paid_out}, COUNT(*) FROM {table:daily} d"
        " WHERE {slice} GROUP BY 1, 2"
    )
    assert exact_select(aggregate(select)) == select.replace("MIN(", "ultra_min(")
    delete, insert = DIALECT.aggregate(DAY_TOTAL, "probe", "v1_b1", 2)
    assert delete == 'DELETE FROM "probe_day_total__v1_b1" WHERE "day" IN (?1, ?2)'
    assert 'ultra_sum(d."paid_in")' in insert
    assert 'FROM "probe_daily__v1_b1" d WHERE "day" IN (?1, ?2)' in insert


@pytest.mark.parametrize(
    ("select", "reason"),
    [
        ("SELECT {tenant}, {day}, 1 FROM x", "one output per column"),
        ("WITH a AS (SELECT 1) SELECT 1", "one output per column"),
        (
            "SELECT {tenant}, {day}, SUM({a} * 2), SUM({b}), COUNT(*) FROM x WHERE {slice}",
            "SUM, MIN or MAX",
        ),
        (
            "SELECT {tenant}, {day}, {a} + {b}, SUM({b}), COUNT(*) FROM x WHERE {slice}",
            "SUM, MIN or MAX",
        ),
        (
            "SELECT {tenant}, {day}, AVG({a}), SUM({b}), COUNT(*) FROM x WHERE {slice}",
            "SUM, MIN or MAX",
        ),
    ],
)
def test_an_aggregate_that_cannot_be_exact_is_refused(select: str, reason: str) -> None:
    with pytest.raises(InvariantBroken, match=reason):
        exact_select(aggregate(select))


@pytest.mark.parametrize("condition", ["= 'a'", "IN ('a', 'b')", ">= 'a' AND \"maybe_text\" < 'b'"])
def test_an_index_without_empty_rows_finds_all_that_a_filter_asks_for(condition: str) -> None:
    database = connect(":memory:")
    for statement in DIALECT.create_table("probe_fact__v1_b1", FACT):
        database.execute(statement)
    text = f'SELECT * FROM "probe_fact__v1_b1" WHERE "tenant" = ? AND "maybe_text" {condition}'
    plan = database.execute(f"EXPLAIN QUERY PLAN {text}", ("t",)).fetchall()
    database.close()
    assert any("probe_fact__v1_b1_by_text" in row[3] for row in plan)
