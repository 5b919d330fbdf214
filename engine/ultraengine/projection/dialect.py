"""The SQL of a target, as text: what all databases share, and where each differs.

Pure: statements out, nothing is run.  A database is one subclass in a module of its own
(`sqlite/dialect.py`, `postgres/dialect.py`, …); the tests of generated SQL are the same for all of
them.  Values never enter this text, only names that `model.projection` has checked.
"""

import re
from collections.abc import Sequence
from typing import Final

from ultraengine.model.exact import ExactWords, expanded
from ultraengine.model.projection import (
    Aggregate,
    Check,
    Column,
    ColumnType,
    Fold,
    Index,
    Projection,
    Rollup,
    Table,
)
from ultraengine.projection.target import all_tables, physical, view

AMOUNT_DIGITS: Final = 38
TOTAL_DIGITS: Final = 57
_REFERENCE: Final = re.compile(r"\{(table:)?([a-z][a-z0-9_]*)\}")


class Dialect(ExactWords):
    """What all share, in standard SQL.  Subclasses say what is different."""

    name: str = "sql"
    quotes: tuple[str, str] = ('"', '"')
    column_types: dict[ColumnType, str]
    """SQL type by column type; ``{length}`` is replaced."""
    sparse_indexes: bool = False
    """Whether an index may leave rows out."""
    inserted: str = "excluded.{column}"
    """How a merge names the value that came in."""

    def quote(self, name: str) -> str:
        """An identifier.  Quoted always: a column may be called like a keyword."""
        return f"{self.quotes[0]}{name}{self.quotes[1]}"

    def names(self, names: Sequence[str]) -> str:
        """A list of identifiers."""
        return ", ".join(map(self.quote, names))

    def placeholder(self, number: int) -> str:  # noqa: ARG002  (others number theirs)
        """The parameter with this number, from 1."""
        return "?"

    def placeholders(self, count: int, first: int = 1) -> str:
        """A list of `count` parameters."""
        return ", ".join(self.placeholder(first + n) for n in range(count))

    # --- definition ----------------------------------------------------------------------

    def column_type(self, column: Column, table: Table) -> str:  # noqa: ARG002  (keys may differ)
        """SQL type of a column."""
        return self.column_types[column.type].format(length=column.length)

    def column(self, column: Column, table: Table) -> str:
        """Definition of a column."""
        null = "" if column.nullable else " NOT NULL"
        return f"{self.quote(column.name)} {self.column_type(column, table)}{null}"

    def primary_key(self, table: Table) -> tuple[str, ...]:
        """Columns of the primary key."""
        return table.key

    def check(self, check: Check) -> str:
        """A check's condition with quoted columns."""
        return self.resolved(check.condition, "", "")

    def resolved(self, text: str, projection: str, suffix: str) -> str:
        """Declared SQL with its references replaced: ``{column}``, ``{table:NAME}``."""

        def replace(found: re.Match[str]) -> str:
            name = found[2]
            return self.quote(physical(projection, name, suffix) if found[1] else name)

        return _REFERENCE.sub(replace, text)

    def create_table(self, name: str, table: Table) -> list[str]:
        """Statements that make a table of a set, named `name`, with its key, checks and indexes."""
        lines = [self.column(column, table) for column in table.columns]
        lines.append(f"PRIMARY KEY ({self.names(self.primary_key(table))})")
        lines += [
            f"CONSTRAINT {self.quote(f'{name}_{check.name}')} CHECK ({self.check(check)})"
            for check in table.checks
        ]
        body = ",\n  ".join(lines)
        create = f"CREATE TABLE {self.quote(name)} (\n  {body}\n){self.table_suffix(table)}"
        return [create, *self.create_indexes(name, table)]

    def table_suffix(self, table: Table) -> str:  # noqa: ARG002  (partitions, storage)
        """What follows the list of columns."""
        return ""

    def create_indexes(self, name: str, table: Table) -> list[str]:
        """One statement per secondary index."""
        return [
            f"CREATE {'UNIQUE ' if index.unique else ''}INDEX {self.quote(f'{name}_{index.name}')}"
            f" ON {self.quote(name)} ({self.names(index.columns)}){self._present(index)}"
            for index in table.indexes
        ]

    def _present(self, index: Index) -> str:
        if not (index.sparse and self.sparse_indexes):
            return ""
        return f" WHERE {self.quote(index.columns[-1])} IS NOT NULL"

    def create_set(self, projection: Projection, suffix: str) -> list[str]:
        """Statements that make all tables of a set."""
        return [
            statement
            for table in all_tables(projection)
            for statement in self.create_table(physical(projection.name, table.name, suffix), table)
        ]

    def drop_table(self, name: str) -> str:
        """Remove a table if it is there."""
        return f"DROP TABLE IF EXISTS {self.quote(name)}"

    def swap_views(self, projection: Projection, suffix: str) -> list[str]:
        """Statements that let the views show a set; run in one transaction where there is one."""
        statements: list[str] = []
        for table in all_tables(projection):
            shown = self.quote(view(projection.name, table.name))
            statements += [
                f"DROP VIEW IF EXISTS {shown}",
                (
                    f"CREATE VIEW {shown} AS SELECT {self.names(table.names)}"
                    f" FROM {self.quote(physical(projection.name, table.name, suffix))}"
                ),
            ]
        return statements

    def lookup(self, name: str, rollup: Rollup, count: int) -> str:
        """Keys of a rollup's source and what it looks up, of `count` keys given as parameters."""
        key = rollup.source.key
        firsts = range(1, count * len(key) + 1, len(key))
        listed = ", ".join(f"({self.placeholders(len(key), first)})" for first in firsts)
        return (
            f"SELECT {self.names((*key, rollup.column))} FROM {self.quote(name)}"
            f" WHERE ({self.names(key)}) IN ({listed})"
        )

    # --- writing -------------------------------------------------------------------------

    def folded(self, column: Column, held: str, new: str) -> str:
        """The value of a column after a merge of `new` into `held`."""
        if column.fold is Fold.SUM:
            return f"{held} + {new}"
        if column.fold is Fold.MIN:
            return f"CASE WHEN {new} < {held} THEN {new} ELSE {held} END"
        if column.fold is Fold.MAX:
            return f"CASE WHEN {new} > {held} THEN {new} ELSE {held} END"
        return new

    def merge(self, name: str, table: Table, source: str) -> str:
        """Merge the whole rows of `source` (``VALUES …`` or ``SELECT …``) by the key."""
        held = self.quote(name)
        changes = ", ".join(
            f"{self.quote(column.name)} = "
            + self.folded(
                column,
                f"{held}.{self.quote(column.name)}",
                self.inserted.format(column=self.quote(column.name)),
            )
            for column in table.columns
            if column.name not in table.key
        )
        action = f"UPDATE SET {changes}" if changes else "NOTHING"
        return (
            f"INSERT INTO {held} ({self.names(table.names)}) {source}"
            f" ON CONFLICT ({self.names(self.primary_key(table))}) DO {action}"
        )

    def update(self, name: str, table: Table, columns: Sequence[str]) -> str:
        """Change some columns of one row; parameters: the columns, then the key."""
        held = self.quote(name)
        changes = ", ".join(
            f"{self.quote(column)} = "
            + self.folded(table.column(column), self.quote(column), self.placeholder(number))
            for number, column in enumerate(columns, 1)
        )
        where = " AND ".join(
            f"{self.quote(column)} = {self.placeholder(number)}"
            for number, column in enumerate(table.key, len(columns) + 1)
        )
        return f"UPDATE {held} SET {changes} WHERE {where}"

    def insert(self, name: str, table: Table) -> str:
        """Insert one row given as parameters."""
        return (
            f"INSERT INTO {self.quote(name)} ({self.names(table.names)})"
            f" VALUES ({self.placeholders(len(table.columns))})"
        )

    def aggregate(self, of: Aggregate, projection: str, suffix: str, slices: int) -> list[str]:
        """Compute `slices` slices anew; each statement takes the slices as its parameters."""
        target = self.quote(physical(projection, of.table.name, suffix))
        column = self.quote(of.slice_column)
        within = f"{column} IN ({self.placeholders(slices)})"
        declared = expanded(of.select.replace("{slice}", within), self)
        select = self.resolved(declared, projection, suffix)
        return [
            f"DELETE FROM {target} WHERE {within}",
            f"INSERT INTO {target} ({self.names(of.table.names)}) {select}",
        ]

    def later_slices(self, of: Aggregate, projection: str, suffix: str, constants: str) -> str:
        """`constants` and each slice that the table has; a condition on the slice follows."""
        table = self.quote(physical(projection, of.table.name, suffix))
        column = self.quote(of.slice_column)
        return f"SELECT DISTINCT {constants}, {column} FROM {table} WHERE {column} >"
