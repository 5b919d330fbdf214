"""Declarations of tables that contradict themselves are refused, each by its reason."""

from typing import Any

import msgspec
import pytest

from ultraengine.domains.ledger import DOMAIN as LEDGER
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.projection import (
    TEXT_CHARS_MAX,
    Check,
    Column,
    ColumnType,
    Fold,
    Index,
    Partition,
    Projecting,
    Rollup,
    Table,
    TableKind,
    check_projection,
    storable,
)
from ultraengine.testing.projection_tables import (
    DAILY,
    DAY_TOTAL,
    FACT,
    GROUPED,
    PROBE,
    ROLLED,
    STATE,
    ProbeTables,
)

TEXT = ColumnType.TEXT
TENANT = Column(name="tenant", type=TEXT)
WHEN = Column(name="at", type=ColumnType.TIME)


def table(**members: Any) -> Table:
    plain: dict[str, Any] = {
        "name": "things", "kind": TableKind.APPEND, "key": ("tenant",), "columns": (TENANT, WHEN),
    }  # fmt: skip
    return Table(**(plain | members))


def column(**members: Any) -> tuple[Column, ...]:
    plain: dict[str, Any] = {"name": "x", "type": ColumnType.INTEGER}
    return (TENANT, Column(**(plain | members)))


WRONG = {
    "a name is": [
        table(name="Things"),
        table(name="x" * 25),
        table(columns=column(name="2x")),
        table(indexes=(Index("By", ("at",)),)),
        table(checks=(Check("so what", "1 = 1"),)),
    ],
    "names of their own": [table(columns=(TENANT, TENANT))],
    "a key stands first": [
        table(key=()),
        table(key=("at",)),
        table(key=("tenant", "nothing")),
    ],
    "first in its key": [table(columns=(WHEN, TENANT), key=("at",))],
    "what leads a key is of it": [table(led_by="at")],
    "an index names columns": [table(indexes=(Index("by", ("nothing",)),))],
    "a unique index has all rows": [
        table(indexes=(Index("by", ("at",), unique=True, sparse=True),)),
    ],
    "a key column is never null": [
        table(columns=(Column(name="tenant", type=TEXT, nullable=True),)),
        table(key=("tenant", "x"), columns=column(fold=Fold.SUM), kind=TableKind.CURRENT),
    ],
    "a folded column is": [
        table(columns=column(fold=Fold.SUM)),
        table(columns=column(fold=Fold.MAX, nullable=True), kind=TableKind.CURRENT),
        table(columns=column(fold=Fold.MIN, type=TEXT), kind=TableKind.CURRENT),
    ],
    "a length is": [
        table(columns=column(length=0)),
        table(columns=column(length=TEXT_CHARS_MAX + 1)),
    ],
    "is partitioned by one of its columns": [
        table(partition=Partition("nothing")),
        table(partition=Partition("at"), kind=TableKind.CURRENT),
    ],
    "cut by a time": [
        table(columns=column(), partition=Partition("x")),
        table(columns=column(type=ColumnType.DATE, nullable=True), partition=Partition("x")),
    ],
    "by shard has that column": [table(partition=Partition("at", by_shard=True))],
    "an aggregate is declared as one": [table(kind=TableKind.AGGREGATE)],
}


@pytest.mark.parametrize(
    ("reason", "wrong"), [(reason, one) for reason, tables in WRONG.items() for one in tables]
)
def test_a_wrong_table_is_refused(reason: str, wrong: Table) -> None:
    with pytest.raises(InvariantBroken, match=reason):
        check_projection(ProbeTables(tables=(wrong,), aggregates=()))


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": "nothing"},
        {"source": "fact"},
        {"slice_column": "paid_in"},
        {"slice_column": "tenant"},
        {"select": "SELECT 1"},
        {"table": DAILY},
    ],
)
def test_a_wrong_aggregate_is_refused(wrong: dict[str, Any]) -> None:
    tables = (FACT, STATE, msgspec.structs.replace(DAILY, name="daily"))
    if "table" in wrong:
        wrong = {"table": msgspec.structs.replace(DAILY, name="other")}
    aggregate = msgspec.structs.replace(DAY_TOTAL, **wrong)
    with pytest.raises(InvariantBroken, match="current source whose key holds its slice"):
        check_projection(ProbeTables(tables=tables, aggregates=(aggregate,)))


def test_two_tables_of_one_name_are_refused() -> None:
    with pytest.raises(InvariantBroken, match="names of their own"):
        check_projection(ProbeTables(tables=(FACT, FACT), aggregates=()))
    with pytest.raises(InvariantBroken, match="a name is"):
        check_projection(ProbeTables(name="no name"))


def test_right_declarations_pass() -> None:
    check_projection(PROBE)
    whole = table(columns=(TENANT, WHEN, Column(name="shard", type=ColumnType.INTEGER)),
                  partition=Partition("at", by_shard=True))  # fmt: skip
    check_projection(ProbeTables(tables=(whole,), aggregates=()))
    for projection in LEDGER.projections:
        check_projection(projection)
    assert isinstance(LEDGER, Projecting)


def test_a_column_is_found_by_its_name() -> None:
    assert FACT.column("blob").type is ColumnType.BYTES
    with pytest.raises(KeyError, match="fact has no column nothing"):
        FACT.column("nothing")


def test_a_storable_text_has_no_nul_and_is_otherwise_the_same() -> None:
    text = "as it is \ufffd"
    assert storable(text) is text
    assert storable("a\0b\0") == "a\ufffdb\ufffd"


def rolled(**members: Any) -> Table:
    return msgspec.structs.replace(ROLLED, **members)


def rollup(**members: Any) -> Table:
    assert ROLLED.rollup is not None
    return rolled(rollup=msgspec.structs.replace(ROLLED.rollup, **members))


WRONG_ROLLUPS = {
    "a rollup has a current source": [
        rolled(rollup=Rollup(FACT, "text", (0,))),
        rolled(rollup=Rollup(DAILY, "name", (0,))),
        rollup(column="last"),
    ],
    "a rollup is kept by": [
        rolled(kind=TableKind.APPEND, columns=tuple(
            msgspec.structs.replace(one, fold=Fold.LAST) for one in ROLLED.columns)),
        rolled(key=("tenant", "span", "start")),
        rolled(columns=tuple(
            msgspec.structs.replace(one, type=ColumnType.TEXT) if one.name == "span" else one
            for one in ROLLED.columns)),
    ],
    "a rollup holds sums": [
        rolled(columns=tuple(
            msgspec.structs.replace(one, fold=Fold.MAX) if one.name == "count" else one
            for one in ROLLED.columns)),
    ],
    "a rollup has spans": [rollup(spans_s=()), rollup(spans_s=(0, 0))],
    "a span is no shorter": [rollup(spans_s=(60, -1))],
}  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "wrong"),
    [(reason, one) for reason, tables in WRONG_ROLLUPS.items() for one in tables],
)
def test_a_wrong_rollup_is_refused(reason: str, wrong: Table) -> None:
    assert wrong.rollup is not None
    tables = [wrong.rollup.source, wrong]
    with pytest.raises(InvariantBroken, match=reason):
        check_projection(ProbeTables(tables=tables, aggregates=()))


def test_a_rollups_source_is_a_table_of_its_projection() -> None:
    check_projection(ProbeTables(tables=(GROUPED, ROLLED), aggregates=()))
    with pytest.raises(InvariantBroken, match="a rollup has a source of its projection"):
        check_projection(ProbeTables(tables=(ROLLED,), aggregates=()))


def test_rows_of_a_rollup_are_put_by_its_sources_key_and_a_moment() -> None:
    assert ROLLED.taken.names == ("tenant", "name", "moment", "count", "paid")
    assert ROLLED.taken.key == ("tenant", "name", "moment")
    assert FACT.taken is FACT
