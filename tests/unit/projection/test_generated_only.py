"""What is particular to SQL Server and Oracle, as far as text shows it."""

import msgspec
import pytest
from tests.unit.projection.generated import generated

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.projection import (
    Column,
    ColumnType,
    Index,
    Interval,
    Partition,
    Table,
    TableKind,
)
from ultraengine.projection.oracle import dialect as oracle
from ultraengine.projection.sqlserver import dialect as sqlserver
from ultraengine.testing.projection_tables import FACT, KNOWN, STATE, VISIT

TENANT = Column(name="tenant", type=ColumnType.TEXT)


def indexed(column: Column, unique: bool = False) -> Table:
    return Table(
        name="t", kind=TableKind.CURRENT, key=("tenant",), columns=(TENANT, column),
        indexes=(Index("i", ("tenant", column.name), unique),),
    )  # fmt: skip


def test_the_empty_text_is_told_from_null_in_oracle() -> None:
    assert [oracle.given(oracle.stored(text)) for text in ("", None, "a", " ")] == [
        "",
        None,
        "a",
        " ",
    ]
    assert oracle.stored("") not in ("", None)


@pytest.mark.parametrize("type", [ColumnType.JSON, ColumnType.BYTES])
def test_oracle_has_no_index_of_a_lob(type: ColumnType) -> None:
    with pytest.raises(InvariantBroken, match="no index"):
        oracle.OracleDialect().create_table("t", indexed(Column(name="x", type=type)))


def test_oracle_cuts_by_day_where_a_table_is_cut_by_dates() -> None:
    columns = tuple(
        msgspec.structs.replace(one, type=ColumnType.DATE) if one.name == "at" else one
        for one in VISIT.columns
    )
    daily = msgspec.structs.replace(VISIT, columns=columns, partition=Partition("at", Interval.DAY))
    create = oracle.OracleDialect().create_table("t", daily)[0]
    assert "INTERVAL (NUMTODSINTERVAL(1, 'DAY'))" in create
    assert "LESS THAN (DATE '1970-01-01')" in create


def test_oracle_names_a_folded_parameter_once() -> None:
    update = oracle.OracleDialect().update("t", STATE, ("paid", "first", "newest"))
    assert [update.count(f":p{number}") for number in range(1, 6)] == [1] * 5


def test_a_switch_of_oracle_moves_all_views_by_one_update() -> None:
    statements = generated("oracle")
    (swap,) = [number for number, one in enumerate(statements) if one.startswith('UPDATE "ultra')]
    guards = [one.count("WHERE EXISTS") for one in statements[swap - 5 : swap]]
    # The old set has three of the five tables: from the others there is nothing to switch.
    assert sorted(guards) == [1, 1, 2, 2, 2]
    assert statements[swap + 1].startswith("CREATE OR REPLACE VIEW")
    assert 'DROP VIEW "probe_fact"' in statements[swap:]


def test_sql_server_compares_keys_with_the_spaces_at_their_ends() -> None:
    sql = sqlserver.SqlServerDialect()
    (merge,) = sql.merge_rows("t", KNOWN)
    assert "DATALENGTH([held].[name]) = DATALENGTH([new].[name])" in merge
    (create,) = [one for one in sql.create_table("t", KNOWN) if one.startswith("CREATE TABLE")]
    assert "CHECK ([name] NOT LIKE N'% ')" in create


def test_sql_server_refuses_keys_that_are_too_long_and_unclusters_long_ones() -> None:
    sql = sqlserver.SqlServerDialect()
    for length, kind in ((64, "CLUSTERED"), (600, "NONCLUSTERED")):
        name = Column(name="name", type=ColumnType.TEXT, length=length)
        made = Table(
            name="t", kind=TableKind.CURRENT, key=("tenant", "name"), columns=(TENANT, name)
        )
        assert f"PRIMARY KEY {kind} " in sql.create_table("t", made)[0]
    with pytest.raises(InvariantBroken, match="1700"):
        sql.create_table("t", indexed(Column(name="x", type=ColumnType.BYTES, length=1_500)))
    with pytest.raises(InvariantBroken, match="JSON"):
        sql.create_table("t", indexed(Column(name="x", type=ColumnType.JSON)))


def test_sql_server_cuts_unique_indexes_with_their_table() -> None:
    unique = msgspec.structs.replace(
        VISIT, indexes=(Index("once", ("tenant", "shard"), unique=True),)
    )
    statements = sqlserver.SqlServerDialect().create_table("t", unique)
    assert "CREATE UNIQUE INDEX [t_once] ON [t] ([tenant], [shard], [at])" in statements


def test_sql_server_merges_in_memory_without_merge() -> None:
    sql = sqlserver.SqlServerDialect(sqlserver.Options(in_memory=True, columnstore=True))
    assert [one.split()[0] for one in sql.merge_rows("t", STATE)] == ["UPDATE", "INSERT"]
    assert [one.split()[0] for one in sql.merge_rows("t", KNOWN)] == ["INSERT"]
    unique = indexed(Column(name="x", type=ColumnType.TEXT), unique=True)
    assert "INDEX [i] UNIQUE NONCLUSTERED ([tenant], [x])" in sql.create_table("t", unique)[0]
    # Facts are never in memory.
    assert "MEMORY_OPTIMIZED" not in "".join(sql.create_table("t", FACT))
