"""Generated SQL, the same sentences for every dialect: a parser of the database's SQL reads it.

The parser is sqlglot.  It does not know everything; what it does not know is named here, and is
either taken away before the rest is read or listed as not read.
"""

import logging
import re
from typing import Any

import pytest
import sqlglot
from sqlglot import exp
from tests.unit.projection.generated import KEPT, cases, generated, golden, text

from ultraengine.domains.ledger.tables import TABLES
from ultraengine.projection.dialects import DIALECTS, dialect, refusal

READ = {
    "sqlite": "sqlite",
    "postgresql": "postgres",
    "mysql": "mysql",
    "sqlserver": "tsql",
    "oracle": "oracle",
}
UNREAD = {
    # MariaDB itself runs these in the tests of its target.
    "mysql": r"RENAME TABLE ",
    "postgresql": r"CREATE POLICY |ALTER TABLE \S+ ENABLE ROW LEVEL SECURITY$|GRANT ",
    "sqlserver": (
        r"(CREATE|DROP) PARTITION (FUNCTION|SCHEME) \[\w+\]"
        r"|ALTER PARTITION (FUNCTION|SCHEME) \[\w+\](\(\)|) (SPLIT|MERGE|NEXT)"
        r"|DROP TYPE IF EXISTS \[\w+\]$"
    ),
    "oracle": (
        r"ALTER TABLE \"\w+\" DROP PARTITION FOR \((TIMESTAMP|DATE) '[\d :-]+'\)"
        r" UPDATE GLOBAL INDEXES$"
        r"|BEGIN EXECUTE IMMEDIATE 'DROP TABLE \"\w+\" CASCADE CONSTRAINTS PURGE';"
    ),
}
"""Statements that the parser does not know."""
_INTERVALS = (
    r"\nPARTITION BY RANGE \(\"\w+\"\) INTERVAL \(NUMTO(YM|DS)INTERVAL\(1, '(MONTH|DAY)'\)\)"
    r"( SUBPARTITION BY HASH \(\"shard\"\) SUBPARTITIONS \d+)?"
    r" \(PARTITION \"p_first\" VALUES LESS THAN \((TIMESTAMP|DATE) '[\d :-]+'\)\)"
)
TAKEN_AWAY: dict[str, list[tuple[str, str, int]]] = {
    "mysql": [(r"\nPARTITION BY RANGE COLUMNS.*", "", re.DOTALL)],
    "sqlite": [(r"\?\d+", "?", 0), (r'" ANY\b', '" NUMERIC', 0)],
    "oracle": [(_INTERVALS, "", 0), (r"\nINMEMORY MEMCOMPRESS FOR QUERY LOW$", "", 0)],
    "sqlserver": [
        (r"^CREATE TYPE (\[\w+\]) AS TABLE", r"CREATE TABLE \1", 0),
        (r",\n  INDEX \[\w+\] (UNIQUE )?NONCLUSTERED \([^)]*\)", "", 0),
        (r" WITH \(MEMORY_OPTIMIZED = ON, DURABILITY = SCHEMA_AND_DATA\)$", "", 0),
    ],
}  # fmt: skip
"""Parts of statements that it does not know, and what is read in their place."""


def parsed(name: str, statement: str) -> exp.Expression | None:
    """The statement as the parser sees it; None when it is one of `UNREAD`."""
    if re.match(UNREAD.get(name, r"(?!)"), statement):
        return None
    for pattern, other, flags in TAKEN_AWAY.get(name, ()):
        statement = re.sub(pattern, other, statement, flags=flags)
    logging.getLogger("sqlglot").setLevel(logging.ERROR)
    (found,) = sqlglot.parse(statement, read=READ[name])
    assert isinstance(found, exp.Expression)
    return found


@pytest.mark.parametrize("case", cases(), ids="-".join)
def test_every_statement_is_understood_by_a_parser_of_its_database(case: tuple[str, ...]) -> None:
    name = case[0]
    read = [found for one in generated(*case) if (found := parsed(name, one)) is not None]
    kinds = {type(found).__name__ for found in read}
    # What it does not understand it keeps as a `Command`.
    unknown = [found.sql() for found in read if isinstance(found, exp.Command)]
    assert unknown == []
    assert {"Create", "Insert", "Update", "Delete"} <= kinds
    assert len(read) > 30


@pytest.mark.parametrize("case", cases(), ids="-".join)
def test_every_declared_column_key_and_check_is_in_the_table_as_parsed(
    case: tuple[str, ...],
) -> None:
    made = dialect(*case)
    for table in TABLES.tables:
        statements = made.create_table("t", table)
        (create,) = [
            found
            for one in statements
            if re.match(r"CREATE TABLE", one) and (found := parsed(case[0], one)) is not None
        ]
        columns = [column.name for column in create.find_all(exp.ColumnDef)]
        assert columns == list(table.names)
        (key,) = create.find_all(
            exp.PrimaryKey, exp.ClusteredColumnConstraint, exp.NonClusteredColumnConstraint
        )
        keyed = [found.name for found in key.find_all(exp.Identifier)]
        assert tuple(keyed) == made.primary_key(table)
        assert len(list(create.find_all(exp.Check, exp.CheckColumnConstraint))) >= len(table.checks)


@pytest.mark.parametrize("case", [case for case in cases() if case[0] in KEPT], ids="-".join)
def test_generated_sql_is_what_was_reviewed(case: tuple[str, ...]) -> None:
    # After a look at the difference: python -m tests.unit.projection.generated
    assert text(case) == golden(case).read_text()


def test_no_name_is_longer_than_its_database_keeps() -> None:
    limits = {"mysql": 64, "postgresql": 63, "sqlserver": 128, "oracle": 128}
    quoted: Any = {"mysql": r"`([^`]+)`", "sqlserver": r"\[([^\]]+)\]"}
    for case in cases():
        longest = limits.get(case[0])
        if longest is not None:
            pattern = quoted.get(case[0], r'"([^"]+)"')
            names = {name for one in generated(*case) for name in re.findall(pattern, one)}
            assert max(map(len, names)) <= longest


def test_a_dialect_is_asked_for_by_its_name() -> None:
    for name in DIALECTS:
        if (name,) in cases():
            assert dialect(name).name == name
    with pytest.raises(KeyError):
        dialect("db2")
    with pytest.raises(ValueError, match="mysql has no storage columnstore"):
        dialect("mysql", "columnstore")


def test_a_url_of_a_database_without_driver_is_refused_with_what_there_is() -> None:
    for scheme, database, name in (
        ("mssql", "SQL Server", "sqlserver"), ("sqlserver", "SQL Server", "sqlserver"),
        ("oracle", "Oracle", "oracle"),
    ):  # fmt: skip
        refused = refusal(scheme)
        assert refused is not None
        assert refused.startswith(f"{database} is no target yet")
        assert f"ultra projection ddl --dialect {name}" in refused
    assert refusal("mysql") is None
