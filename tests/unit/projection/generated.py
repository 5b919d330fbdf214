"""Every statement that a dialect generates for the ledger and for the probe of the contract.

python -m tests.unit.projection.generated      writes the golden files anew
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ultraengine.domains.ledger.tables import TABLES
from ultraengine.model.projection import Partition, Projection, Table, TableKind
from ultraengine.projection.dialect import Dialect
from ultraengine.projection.dialects import DIALECTS, STORAGE, dialect
from ultraengine.projection.engine_tables import engine_tables
from ultraengine.projection.oracle.dialect import OracleDialect
from ultraengine.projection.sqlserver.dialect import SqlServerDialect
from ultraengine.projection.target import ProjectionSet, SetState, all_tables, physical
from ultraengine.testing.projection_sets import NOW
from ultraengine.testing.projection_tables import PROBE, VISIT, ProbeTables

GOLDEN: Final = Path(__file__).parent / "golden"
PROJECTIONS: Final[tuple[Projection, ...]] = (TABLES, PROBE)
KEPT: Final = ("mysql", "sqlserver", "oracle")
"""Dialects with golden files; the others have their tests elsewhere."""
SUFFIX: Final = "v1_b1"
BY_SHARD: Final = Table(
    name="sharded",
    kind=TableKind.APPEND,
    key=VISIT.key,
    columns=VISIT.columns,
    partition=Partition("at", by_shard=True),
)


def present() -> list[str]:
    """Dialects whose module is there."""
    return [name for name, place in DIALECTS.items() if find_spec(place.rpartition(".")[0])]


def definitions(made: Dialect, projection: Projection) -> Iterator[str]:
    """Tables and views."""
    yield from made.create_set(projection, SUFFIX)
    yield from made.swap_views(projection, SUFFIX)


def writing(made: Dialect, projection: Projection) -> Iterator[str]:
    """What fills the tables."""
    for table in projection.tables:
        name = physical(projection.name, table.name, SUFFIX)
        yield made.insert(name, table)
        if table.rollup is not None:
            source = physical(projection.name, table.rollup.source.name, SUFFIX)
            yield made.lookup(source, table.rollup, 2)
        if table.kind is TableKind.CURRENT:
            yield from merging(made, name, table)
            changed = [column for column in table.names if column not in table.key]
            if changed:
                yield made.update(name, table, changed)
    for aggregate in projection.aggregates:
        yield from made.aggregate(aggregate, projection.name, SUFFIX, 3)


def merging(made: Dialect, name: str, table: Table) -> Iterator[str]:
    """Merges, from every source that the dialect takes."""
    if isinstance(made, SqlServerDialect):
        yield from made.merge_rows(name, table)
    elif isinstance(made, OracleDialect):
        yield made.merge(name, table, made.row(table))
    else:
        yield made.merge(name, table, f"VALUES ({made.placeholders(len(table.columns))})")


def generated(name: str, *storage: str) -> list[str]:
    """All of it."""
    made = dialect(name, *storage)
    statements = []
    for projection in PROJECTIONS:
        statements += [*definitions(made, projection), *writing(made, projection)]
        statements += [
            made.drop_table(physical(projection.name, table.name, SUFFIX))
            for table in all_tables(projection)
        ]
    if name in STORAGE:
        for table in (*engine_tables, BY_SHARD):
            statements += made.create_table(table.name, table)
    if isinstance(made, SqlServerDialect):
        statements += [made.insert_rows("probe_fact__v1_b1", PROBE.tables[0])]
        statements += made.add_partition("probe_visit__v1_b1", "2026-01-01")
        statements += made.drop_partition("probe_visit__v1_b1", 1, "2025-12-01")
        statements += made.drop_set(PROBE, SUFFIX)
        statements.append(made.limited("SELECT [n] FROM [probe_fact] ORDER BY [n]", 10))
    if isinstance(made, OracleDialect):
        statements.append(made.drop_partition("probe_visit__v1_b1", VISIT, "2025-12-01"))
        old, new = (
            ProjectionSet("probe", version, version, SetState.SERVING, NOW, NOW)
            for version in (1, 2)
        )
        second = ProbeTables(version=2, tables=PROBE.tables[1:])
        # The old set lacks the last two tables, the new one the first.
        statements += made.switch(second, old, all_tables(PROBE)[:-2], new)
        statements.append(made.limited('SELECT "n" FROM "probe_fact" ORDER BY "n"', 10))
    return statements


def cases() -> list[tuple[str, ...]]:
    """Dialects, each also with all of its storage."""
    return [
        case
        for name in present()
        for case in dict.fromkeys([(name,), (name, *STORAGE.get(name, ()))])
    ]


def golden(case: tuple[str, ...]) -> Path:
    """Where the statements of a case are kept."""
    return GOLDEN / f"{'-'.join(case)}.sql"


def text(case: tuple[str, ...]) -> str:
    """As they are kept."""
    return "".join(f"{statement}\n;\n" for statement in generated(*case))


if __name__ == "__main__":
    for one in cases():
        if one[0] in KEPT:
            golden(one).write_text(text(one))
