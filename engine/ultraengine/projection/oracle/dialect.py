"""Oracle's SQL, from 19c: types, tables with their partitions, merges, views.

Pure, and never run: there is no driver, and no such server among the tests.  What is said here is
generated, compared with golden files and read by a parser of Oracle's SQL (`docs/targets.md`).

* To Oracle the empty text is null.  To a projection it is not: it is stored as `EMPTY`, a single
  U+0000, which no text of a projection holds (`model.projection.storable`), and is given back as
  the empty text.  Who reads with SQL sees ``CHR(0)``.
* Bytes are a BLOB: an empty RAW would be null too, and every byte is a value.
* ``NUMBER`` ends at 38 digits: a TOTAL beyond is refused by the server.
* A partitioned table makes its ranges itself (INTERVAL).  Its key stays as declared, with a global
  index, so uniqueness is what the engine guarantees; dropping a range maintains that index.
* Many rows go as one execution with arrays of parameters (array binding).
* Definitions commit by themselves, one by one.  So views are switched by a row: for the time of
  the swap each view shows the old set or the new one by what the row of the sets says, and one
  UPDATE moves all of them (`switch`).
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.projection import (
    Column,
    ColumnType,
    Fold,
    Interval,
    Projection,
    Table,
    TableKind,
)
from ultraengine.projection.dialect import AMOUNT_DIGITS, Dialect
from ultraengine.projection.engine_tables import SETS
from ultraengine.projection.target import ProjectionSet, all_tables, physical, view

EMPTY: Final = "\0"
TEXT_BYTES_MAX: Final = 4_000
"""Of a VARCHAR2 without extended strings: a longer text is refused by the server."""
SHARD_PARTITIONS: Final = 8


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may choose about storage."""

    columnstore: bool = False
    """APPEND tables are also kept by column in memory (Database In-Memory, a licence)."""


def stored(text: str | None) -> str | None:
    """A text as Oracle can tell it from null."""
    return EMPTY if text == "" else text


def given(text: str | None) -> str | None:
    """What was stored."""
    return "" if text == EMPTY else text


class OracleDialect(Dialect):
    """Oracle Database 19c and newer."""

    name = "oracle"
    inserted = '"new".{column}'
    column_types = {  # noqa: RUF012  (as declared by `Dialect`)
        ColumnType.INTEGER: "NUMBER(19)",
        ColumnType.AMOUNT: f"NUMBER({AMOUNT_DIGITS})",
        ColumnType.TOTAL: f"NUMBER({AMOUNT_DIGITS})",
        ColumnType.TEXT: "VARCHAR2({length} CHAR)",
        ColumnType.TIME: "TIMESTAMP(6)",
        ColumnType.DATE: "DATE",
        ColumnType.BOOLEAN: "NUMBER(1)",
        ColumnType.JSON: "CLOB",
        ColumnType.BYTES: "BLOB",
    }

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()

    def placeholder(self, number: int) -> str:
        """``:p1``"""
        return f":p{number}"

    def limited(self, select: str, rows: int) -> str:
        """At most so many rows of an ordered query."""
        return f"{select} FETCH FIRST {rows} ROWS ONLY"

    # --- definition ----------------------------------------------------------------------

    def create_table(self, name: str, table: Table) -> list[str]:
        """Raises `InvariantBroken` for keys of what Oracle cannot index."""
        lines = [self.column(column, table) for column in table.columns]
        lines.append(
            f"CONSTRAINT {self.quote(f'{name}_key')}"
            f" PRIMARY KEY ({self.names(self.primary_key(table))})"
        )
        lines += [
            f"CONSTRAINT {self.quote(f'{name}_{label}')} CHECK ({condition})"
            for label, condition in self._conditions(table)
        ]
        for columns in (table.key, *(index.columns for index in table.indexes)):
            for column in columns:
                if table.column(column).type in {ColumnType.JSON, ColumnType.BYTES}:
                    raise InvariantBroken(
                        "Oracle has no index of what may be long", table=table.name, key=column
                    )
        body = ",\n  ".join(lines)
        create = f"CREATE TABLE {self.quote(name)} (\n  {body}\n){self.table_suffix(table)}"
        return [create, *self.create_indexes(name, table), *self._comments(name, table)]

    def _conditions(self, table: Table) -> list[tuple[str, str]]:
        made = [(check.name, self.check(check)) for check in table.checks]
        for column in table.columns:
            name = self.quote(column.name)
            guard = {
                ColumnType.JSON: ("json", f"{name} IS JSON"),
                ColumnType.BOOLEAN: ("truth", f"{name} IN (0, 1)"),
                ColumnType.BYTES: ("length", f"LENGTHB({name}) <= {column.length}"),
                ColumnType.DATE: ("day", f"{name} = TRUNC({name})"),
                ColumnType.INTEGER: (
                    "range", f"{name} BETWEEN -9223372036854775808 AND 9223372036854775807"
                ),
            }.get(column.type)  # fmt: skip
            if guard is not None:
                made.append((f"{column.name}_{guard[0]}", guard[1]))
        return made

    def _comments(self, name: str, table: Table) -> list[str]:
        made = [(self.quote(name), "TABLE", table.summary)]
        made += [
            (f"{self.quote(name)}.{self.quote(column.name)}", "COLUMN", column.summary)
            for column in table.columns
        ]
        return [
            f"COMMENT ON {kind} {what} IS '{summary.replace(chr(39), chr(39) * 2)}'"
            for what, kind, summary in made
            if summary
        ]

    def table_suffix(self, table: Table) -> str:
        """Ranges that make themselves, and columns in memory."""
        made = ""
        partition = table.partition
        if partition is not None:
            step = (
                "NUMTODSINTERVAL(1, 'DAY')"
                if partition.interval is Interval.DAY
                else "NUMTOYMINTERVAL(1, 'MONTH')"
            )
            made += (
                f"\nPARTITION BY RANGE ({self.quote(partition.column)}) INTERVAL ({step})"
                + (f" SUBPARTITION BY HASH (\"shard\") SUBPARTITIONS {SHARD_PARTITIONS}"
                   if partition.by_shard else "")
                + f' (PARTITION "p_first" VALUES LESS THAN ({self._start(table)}))'
            )  # fmt: skip
        if self.options.columnstore and table.kind is TableKind.APPEND:
            made += "\nINMEMORY MEMCOMPRESS FOR QUERY LOW"
        return made

    def _start(self, table: Table, day: str = "1970-01-01") -> str:
        partition = table.partition
        if partition and table.column(partition.column).type is ColumnType.DATE:
            return f"DATE '{day}'"
        return f"TIMESTAMP '{day} 00:00:00'"

    def drop_partition(self, name: str, table: Table, day: str) -> str:
        """Remove the range that holds a day, ``2026-01-01``, with all its rows."""
        return (
            f"ALTER TABLE {self.quote(name)} DROP PARTITION FOR ({self._start(table, day)})"
            " UPDATE GLOBAL INDEXES"
        )

    def drop_table(self, name: str) -> str:
        """19c has no IF EXISTS."""
        drop = f"DROP TABLE {self.quote(name)} CASCADE CONSTRAINTS PURGE"
        return (
            f"BEGIN EXECUTE IMMEDIATE '{drop}';"
            " EXCEPTION WHEN OTHERS THEN IF SQLCODE <> -942 THEN RAISE; END IF; END;"
        )

    # --- views ---------------------------------------------------------------------------

    def swap_views(self, projection: Projection, suffix: str) -> list[str]:
        """When nothing is shown yet, or after a `switch`."""
        return [
            f"CREATE OR REPLACE VIEW {self.quote(view(projection.name, table.name))}"
            f" AS SELECT {self.names(table.names)}"
            f" FROM {self.quote(physical(projection.name, table.name, suffix))}"
            for table in all_tables(projection)
        ]

    def switch(
        self, projection: Projection, old: ProjectionSet, tables: Sequence[Table],
        new: ProjectionSet,
    ) -> list[str]:  # fmt: skip
        """From a set with `tables` to another: views by the row, the row, views of the new set.

        Columns are those of the new set; where the old one has none, they are null.  The UPDATE
        is the swap; statements before and after it change nothing that a reader sees.
        """
        held = {table.name: table for table in tables}
        made = []
        for table in all_tables(projection):
            shown = self.quote(view(projection.name, table.name))
            branches = [self._branch(projection, table, table, new)]
            if table.name in held:
                branches.insert(0, self._branch(projection, table, held[table.name], old))
            made.append(f"CREATE OR REPLACE VIEW {shown} AS {' UNION ALL '.join(branches)}")
        sets, state = self.quote(SETS.name), self.quote("state")
        made.append(
            f"UPDATE {sets} SET {state} = CASE {self.quote('build')} WHEN {new.build}"
            f" THEN 'serving' ELSE 'retired' END"
            f" WHERE {self.quote('projection')} = '{projection.name}'"
            f" AND {self.quote('build')} IN ({old.build}, {new.build})"
        )
        made += self.swap_views(projection, new.suffix)
        gone = held.keys() - {table.name for table in all_tables(projection)}
        made += [f"DROP VIEW {self.quote(view(projection.name, name))}" for name in sorted(gone)]
        return made

    def _branch(self, projection: Projection, shown: Table, held: Table, of: ProjectionSet) -> str:
        columns = ", ".join(
            self.quote(column.name) if column.name in held.names
            else f"CAST(NULL AS {self.column_type(column, shown)}) AS {self.quote(column.name)}"
            for column in shown.columns
        )  # fmt: skip
        return (
            f"SELECT {columns} FROM {self.quote(physical(projection.name, held.name, of.suffix))}"
            f" WHERE EXISTS (SELECT 1 FROM {self.quote(SETS.name)}"
            f" WHERE {self.quote('projection')} = '{projection.name}'"
            f" AND {self.quote('build')} = {of.build} AND {self.quote('state')} = 'serving')"
        )

    # --- writing -------------------------------------------------------------------------

    def folded(self, column: Column, held: str, new: str) -> str:
        """`new` once: it may be a parameter."""
        if column.fold is Fold.MIN:
            return f"LEAST({held}, {new})"
        if column.fold is Fold.MAX:
            return f"GREATEST({held}, {new})"
        return super().folded(column, held, new)

    def row(self, table: Table) -> str:
        """One row given as parameters, as a source; executed with arrays of them."""
        values = ", ".join(
            f"{self.placeholder(number)} AS {self.quote(column)}"
            for number, column in enumerate(table.names, 1)
        )
        return f"SELECT {values} FROM DUAL"

    def merge(self, name: str, table: Table, source: str) -> str:
        """`source` names its columns as the table does: `row`, or a query."""
        matching = " AND ".join(
            f'"held".{self.quote(column)} = "new".{self.quote(column)}' for column in table.key
        )
        changes = ", ".join(
            f'"held".{self.quote(column.name)} = '
            + self.folded(
                column,
                f'"held".{self.quote(column.name)}',
                self.inserted.format(column=self.quote(column.name)),
            )
            for column in table.columns
            if column.name not in table.key
        )
        matched = f" WHEN MATCHED THEN UPDATE SET {changes}" if changes else ""
        values = ", ".join(f'"new".{self.quote(column)}' for column in table.names)
        return (
            f'MERGE INTO {self.quote(name)} "held" USING ({source}) "new" ON ({matching}){matched}'
            f" WHEN NOT MATCHED THEN INSERT ({self.names(table.names)}) VALUES ({values})"
        )
