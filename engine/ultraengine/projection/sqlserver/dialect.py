"""SQL Server's SQL, from 2019: types, tables with their partitions, merges, views.

Pure, and never run: there is no driver, and no such server among the tests.  What is said here is
generated, compared with golden files and read by a parser of T-SQL (`docs/targets.md`).

* Text is ``nvarchar`` with a binary collation.  A length counts UTF-16 units, so that a character
  beyond U+FFFF takes two.  SQL Server takes 'a' and 'a ' for equal whatever the collation: text
  in a key may not end with a space (a CHECK), and a merge compares lengths too.
* ``decimal`` ends at 38 digits: a TOTAL beyond is refused by the server.
* A partitioned table has a function and a scheme of its own.  Unique keys include its column; a
  second cut by shard does not exist here.
* Many rows go as a table-valued parameter of a type made for the table: one command inserts or
  merges all of them.  A bulk copy into the table itself serves facts as well.
* Definitions are transactional: the views are swapped in one transaction.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.projection import (
    Column,
    ColumnType,
    Index,
    Projection,
    Rollup,
    Table,
    TableKind,
)
from ultraengine.projection.dialect import AMOUNT_DIGITS, Dialect
from ultraengine.projection.target import all_tables, physical, view

CLUSTERED_BYTES_MAX: Final = 900
INDEX_BYTES_MAX: Final = 1_700
COLLATION: Final = "Latin1_General_100_BIN2"
ROWS: Final = "@rows"
"""The table-valued parameter."""
_BYTES: Final = {
    ColumnType.INTEGER: 8,
    ColumnType.AMOUNT: 17,
    ColumnType.TOTAL: 17,
    ColumnType.TIME: 8,
    ColumnType.DATE: 3,
    ColumnType.BOOLEAN: 1,
}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may choose about storage."""

    columnstore: bool = False
    """APPEND tables are clustered columnstores: for scans over years; their key becomes an index
    beside it."""
    in_memory: bool = False
    """CURRENT tables are memory-optimized; the database then needs a filegroup for it."""


class SqlServerDialect(Dialect):
    """SQL Server 2019 and newer, and Azure SQL."""

    name = "sqlserver"
    quotes = ("[", "]")
    inserted = "[new].{column}"
    column_types = {  # noqa: RUF012  (as declared by `Dialect`)
        ColumnType.INTEGER: "bigint",
        ColumnType.AMOUNT: f"decimal({AMOUNT_DIGITS}, 0)",
        ColumnType.TOTAL: f"decimal({AMOUNT_DIGITS}, 0)",
        ColumnType.TEXT: f"nvarchar({{length}}) COLLATE {COLLATION}",
        ColumnType.TIME: "datetime2(6)",
        ColumnType.DATE: "date",
        ColumnType.BOOLEAN: "bit",
        ColumnType.JSON: f"nvarchar(max) COLLATE {COLLATION}",
        ColumnType.BYTES: "varbinary({length})",
    }

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()

    def placeholder(self, number: int) -> str:
        """``@P1``"""
        return f"@P{number}"

    def limited(self, select: str, rows: int) -> str:
        """At most so many rows of an ordered query."""
        return f"{select} OFFSET 0 ROWS FETCH NEXT {rows} ROWS ONLY"

    # --- definition ----------------------------------------------------------------------

    def is_columnstore(self, table: Table) -> bool:
        """Whether its rows lie in columns."""
        return self.options.columnstore and table.kind is TableKind.APPEND

    def is_in_memory(self, table: Table) -> bool:
        """Whether its rows lie in memory."""
        return self.options.in_memory and table.kind is TableKind.CURRENT

    def with_partition(self, columns: Sequence[str], table: Table) -> tuple[str, ...]:
        """The columns of a unique key, and the one that the table is cut by."""
        cut = () if table.partition is None else (table.partition.column,)
        return (*columns, *(name for name in cut if name not in columns))

    def primary_key(self, table: Table) -> tuple[str, ...]:
        """The key, and what the table is cut by."""
        return self.with_partition(table.key, table)

    def create_table(self, name: str, table: Table) -> list[str]:
        """Its partition function and scheme, the table, its indexes, the type of its rows.

        Raises `InvariantBroken` for keys that are too long for the server.
        """
        lines = [self.column(column, table) for column in table.columns]
        lines.append(self._key(name, table))
        lines += [
            f"CONSTRAINT {self.quote(f'{name}_{label}')} CHECK ({condition})"
            for label, condition in self._conditions(table)
        ]
        if self.is_in_memory(table):
            # Indexes of such tables are part of the table.
            lines += [
                f"INDEX {self.quote(index.name)} {'UNIQUE ' if index.unique else ''}NONCLUSTERED"
                f" ({self.names(index.columns)})"
                for index in table.indexes
            ]
        body = ",\n  ".join(lines)
        made = [
            *self._create_partitions(name, table),
            f"CREATE TABLE {self.quote(name)} (\n  {body}\n){self._storage(name, table)}",
        ]
        if self.is_columnstore(table):
            made.append(
                f"CREATE CLUSTERED COLUMNSTORE INDEX {self.quote(f'{name}_columns')}"
                f" ON {self.quote(name)}{self._storage(name, table)}"
            )
        if not self.is_in_memory(table):
            made += self.create_indexes(name, table)
        return [*made, self.create_row_type(name, table)]

    def _key(self, name: str, table: Table) -> str:
        columns = self.primary_key(table)
        size = self._index_bytes(columns, table)
        apart = self.is_columnstore(table) or self.is_in_memory(table)
        clustered = size <= CLUSTERED_BYTES_MAX and not apart
        kind = "CLUSTERED" if clustered else "NONCLUSTERED"
        for index in table.indexes:
            self._index_bytes(index.columns, table)
        return f"CONSTRAINT {self.quote(f'{name}_key')} PRIMARY KEY {kind} ({self.names(columns)})"

    def _index_bytes(self, columns: Sequence[str], table: Table) -> int:
        size = 0
        for name in columns:
            column = table.column(name)
            if column.type is ColumnType.JSON:
                raise InvariantBroken("SQL Server has no index of JSON", table=table.name, key=name)
            size += {ColumnType.TEXT: 2 * column.length, ColumnType.BYTES: column.length}.get(
                column.type
            ) or _BYTES[column.type]
        if size > INDEX_BYTES_MAX:
            raise InvariantBroken(
                f"an index of SQL Server has at most {INDEX_BYTES_MAX} bytes, a character 2",
                table=table.name, index=", ".join(columns), bytes=size,
            )  # fmt: skip
        return size

    def _conditions(self, table: Table) -> list[tuple[str, str]]:
        made = [(check.name, self.check(check)) for check in table.checks]
        for column in table.columns:
            name = self.quote(column.name)
            if column.type is ColumnType.JSON:
                # In a list, because a value alone is not taken before 2022.
                made.append((f"{column.name}_json", f"ISJSON(CONCAT('[', {name}, ']')) = 1"))
            if column.type is ColumnType.TEXT and column.name in table.key:
                made.append((f"{column.name}_end", f"{name} NOT LIKE N'% '"))
        return made

    def _storage(self, name: str, table: Table) -> str:
        if self.is_in_memory(table):
            return " WITH (MEMORY_OPTIMIZED = ON, DURABILITY = SCHEMA_AND_DATA)"
        if table.partition is None:
            return ""
        return f" ON {self.quote(f'{name}_scheme')}({self.quote(table.partition.column)})"

    def _create_partitions(self, name: str, table: Table) -> list[str]:
        partition = table.partition
        if partition is None:
            return []
        kind = self.column_type(table.column(partition.column), table)
        function, scheme = self.quote(f"{name}_function"), self.quote(f"{name}_scheme")
        return [
            f"CREATE PARTITION FUNCTION {function} ({kind}) AS RANGE RIGHT FOR VALUES ()",
            f"CREATE PARTITION SCHEME {scheme} AS PARTITION {function} ALL TO ([PRIMARY])",
        ]

    def add_partition(self, name: str, day: str) -> list[str]:
        """Let a range begin at a day, ``2026-01-01``."""
        return [
            f"ALTER PARTITION SCHEME {self.quote(f'{name}_scheme')} NEXT USED [PRIMARY]",
            f"ALTER PARTITION FUNCTION {self.quote(f'{name}_function')}() SPLIT RANGE ('{day}')",
        ]

    def drop_partition(self, name: str, number: int, day: str) -> list[str]:
        """Empty the range with this number, which ends at a day, and join it with the next."""
        return [
            f"TRUNCATE TABLE {self.quote(name)} WITH (PARTITIONS ({number}))",
            f"ALTER PARTITION FUNCTION {self.quote(f'{name}_function')}() MERGE RANGE ('{day}')",
        ]

    def create_indexes(self, name: str, table: Table) -> list[str]:
        """Unique ones include what the table is cut by."""
        indexes = tuple(
            Index(one.name, self.with_partition(one.columns, table), unique=True)
            if one.unique else one
            for one in table.indexes
        )  # fmt: skip
        return super().create_indexes(name, msgspec.structs.replace(table, indexes=indexes))

    def row_type(self, name: str) -> str:
        """Type of a parameter that holds rows of the table `name`."""
        return f"{name}_rows"

    def create_row_type(self, name: str, table: Table) -> str:
        """A type whose columns are those of the table."""
        columns = ", ".join(self.column(column, table) for column in table.columns)
        return f"CREATE TYPE {self.quote(self.row_type(name))} AS TABLE ({columns})"

    def drop_set(self, projection: Projection, suffix: str) -> list[str]:
        """Remove all of a set: tables, then what they stood on."""
        made = []
        for table in all_tables(projection):
            name = physical(projection.name, table.name, suffix)
            made += [self.drop_table(name), f"DROP TYPE IF EXISTS {self.quote(f'{name}_rows')}"]
            if table.partition is not None:
                made += [
                    f"DROP PARTITION SCHEME {self.quote(f'{name}_scheme')}",
                    f"DROP PARTITION FUNCTION {self.quote(f'{name}_function')}",
                ]
        return made

    def swap_views(self, projection: Projection, suffix: str) -> list[str]:
        """One batch each, all in one transaction."""
        return [
            f"CREATE OR ALTER VIEW {self.quote(view(projection.name, table.name))}"
            f" AS SELECT {self.names(table.names)}"
            f" FROM {self.quote(physical(projection.name, table.name, suffix))}"
            for table in all_tables(projection)
        ]

    # --- writing -------------------------------------------------------------------------

    def lookup(self, name: str, rollup: Rollup, count: int) -> str:
        """There are no row values to compare with."""
        key = rollup.source.key
        same = [
            " AND ".join(
                f"{self.quote(column)} = {self.placeholder(place)}"
                for place, column in enumerate(key, first)
            )
            for first in range(1, count * len(key) + 1, len(key))
        ]
        where = " OR ".join(f"({one})" for one in same)
        return f"SELECT {self.names((*key, rollup.column))} FROM {self.quote(name)} WHERE {where}"

    def rows(self, table: Table) -> str:
        """The rows of the parameter, as a source."""
        return f"SELECT {self.names(table.names)} FROM {ROWS}"

    def insert_rows(self, name: str, table: Table) -> str:
        """Insert all rows of the parameter."""
        return f"INSERT INTO {self.quote(name)} ({self.names(table.names)}) {self.rows(table)}"

    def _same(self, held: str, column: Column) -> str:
        name = self.quote(column.name)
        same = f"{held}.{name} = [new].{name}"
        if column.type is ColumnType.TEXT:
            # A space at the end is not compared.
            same += f" AND DATALENGTH({held}.{name}) = DATALENGTH([new].{name})"
        return same

    def _matching(self, held: str, table: Table) -> str:
        return " AND ".join(self._same(held, table.column(name)) for name in table.key)

    def _changes(self, held: str, table: Table) -> str:
        return ", ".join(
            f"{self.quote(column.name)} = "
            + self.folded(
                column,
                f"{held}.{self.quote(column.name)}",
                f"[new].{self.quote(column.name)}",
            )
            for column in table.columns
            if column.name not in table.key
        )

    def merge(self, name: str, table: Table, source: str) -> str:
        """HOLDLOCK, or two writers of one key would both insert it."""
        changes = self._changes("[held]", table)
        matched = f" WHEN MATCHED THEN UPDATE SET {changes}" if changes else ""
        values = ", ".join(f"[new].{self.quote(column)}" for column in table.names)
        return (
            f"MERGE INTO {self.quote(name)} WITH (HOLDLOCK) AS [held]"
            f" USING ({source}) AS [new] ({self.names(table.names)})"
            f" ON {self._matching('[held]', table)}{matched}"
            f" WHEN NOT MATCHED THEN INSERT ({self.names(table.names)}) VALUES ({values});"
        )

    def merge_rows(self, name: str, table: Table) -> list[str]:
        """Merge all rows of the parameter; tables in memory take no MERGE."""
        if not self.is_in_memory(table):
            return [self.merge(name, table, self.rows(table))]
        held = self.quote(name)
        matching, changes = self._matching("[held]", table), self._changes("[held]", table)
        insert = (
            f"INSERT INTO {held} ({self.names(table.names)}) {self.rows(table)} AS [new]"
            f" WHERE NOT EXISTS (SELECT 1 FROM {held} AS [held] WHERE {matching})"
        )
        if not changes:
            return [insert]
        update = (
            f"UPDATE [held] SET {changes} FROM {held} AS [held] JOIN {ROWS} AS [new] ON {matching}"
        )
        return [update, insert]
