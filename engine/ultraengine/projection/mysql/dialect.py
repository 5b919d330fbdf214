"""MariaDB's and MySQL's SQL: types, tables with their partitions, merges, views, checksums.

Pure.  What is particular here:

* Text is compared by code point, and a space at its end counts: the usual ``utf8mb4_bin`` pads
  with spaces, so that two accounts could be one.  The two servers name the right collation
  differently; `Flavor` knows.
* JSON is ``LONGTEXT`` with ``JSON_VALID``: MySQL's own type would rewrite the canonical text.
* Keys and rows have lengths that the server refuses; they are checked here, with a message.
* A partitioned table is cut by RANGE COLUMNS.  Every unique key has to include the columns that
  cut it.  `partitions` knows which ones there are to be.
* ON DUPLICATE KEY UPDATE takes any unique key for the key.  A merge therefore makes the row's
  own key null where another one matched, which the server refuses.
* No definition is transactional here.  What the views show is changed by one RENAME TABLE, which
  is atomic, and which set that is stands in a view of its own that is renamed with them.
* A rename that waits for one view while it holds another makes the server open a reader's
  statement a second time, half of it: views that it had opened before keep the old text.  So
  MariaDB's never waits; MySQL has no such words.
"""

import enum
from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import Final

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.exact import GreatestWords
from ultraengine.model.ids import Instant
from ultraengine.model.projection import (
    Aggregate,
    Check,
    Column,
    ColumnType,
    Fold,
    Projection,
    Table,
)
from ultraengine.projection.dialect import AMOUNT_DIGITS, TOTAL_DIGITS, Dialect
from ultraengine.projection.engine_tables import REQUESTS, SLICES
from ultraengine.projection.mysql.partitions import REST, Range
from ultraengine.projection.target import Checksum, ProjectionSet, all_tables, physical, view

IDENTIFIER_CHARS_MAX: Final = 64
KEY_BYTES_MAX: Final = 3_072
"""Of one index of InnoDB with pages of 16 KiB."""
ROW_BYTES_MAX: Final = 65_535
"""Of all columns but LONGTEXT together, as declared."""
CHAR_BYTES_MAX: Final = 4
"""Of a character in utf8mb4."""
SHARD_PARTITIONS: Final = 8
"""Sub-partitions by shard; shards beyond share them."""
SERVING: Final = "ultra_projection_serving"
"""Prefix of the view, one per projection, that says which set the others show."""
NEXT: Final = "__next"
LAST: Final = "__last"
"""End of a view's name before and after it is shown; no declared name has two underscores
there that a set's suffix could not follow."""
_HASH_BYTES: Final = 4
_FIXED_BYTES: Final = {
    ColumnType.INTEGER: 8,
    ColumnType.AMOUNT: 18,
    ColumnType.TOTAL: 26,
    ColumnType.TIME: 8,
    ColumnType.DATE: 3,
    ColumnType.BOOLEAN: 1,
    ColumnType.JSON: 12,
}


class Flavor(enum.StrEnum):
    """Which of the two servers; the value is the collation that compares by code point."""

    MARIADB = "utf8mb4_nopad_bin"
    MYSQL = "utf8mb4_0900_bin"


def comment(text: str) -> str:
    """A declared sentence as a comment; a backslash would depend on the session."""
    return "'" + text.replace("\\", "/").replace("'", "''") + "'"


def checksum_of(rows: int, sums: Sequence[str]) -> Checksum:
    """What `MysqlDialect.checksum` found."""
    high, low = (int(one) % 2**64 for one in sums)
    return Checksum(rows, f"{high:016x}{low:016x}")


class MysqlDialect(GreatestWords, Dialect):
    """MariaDB from 10.6, and MySQL from 8.0.17."""

    name = "mysql"
    quotes = ("`", "`")
    inserted = "VALUES({column})"

    def __init__(self, flavor: Flavor = Flavor.MARIADB) -> None:
        self.flavor = flavor
        text = f"CHARACTER SET utf8mb4 COLLATE {flavor.value}"
        self.column_types = {
            ColumnType.INTEGER: "BIGINT",
            ColumnType.AMOUNT: f"DECIMAL({AMOUNT_DIGITS},0)",
            ColumnType.TOTAL: f"DECIMAL({TOTAL_DIGITS},0)",
            ColumnType.TEXT: f"VARCHAR({{length}}) {text}",
            ColumnType.TIME: "DATETIME(6)",
            ColumnType.DATE: "DATE",
            ColumnType.BOOLEAN: "BOOLEAN",
            ColumnType.JSON: f"LONGTEXT {text}",
            ColumnType.BYTES: "VARBINARY({length})",
        }

    def identifier(self, name: str) -> str:
        """The name itself, or with a hash instead of its end when the server refuses it."""
        if len(name) <= IDENTIFIER_CHARS_MAX:
            return name
        digest = blake2b(name.encode(), digest_size=_HASH_BYTES).hexdigest()
        return f"{name[: IDENTIFIER_CHARS_MAX - len(digest) - 1]}_{digest}"

    def quote(self, name: str) -> str:
        """An identifier."""
        return super().quote(self.identifier(name))

    # --- definition ----------------------------------------------------------------------

    def column(self, column: Column, table: Table) -> str:
        """With its comment; requests number themselves."""
        made = super().column(column, table)
        if table is REQUESTS and column.name == "id":
            made += " AUTO_INCREMENT"
        note = f" COMMENT {comment(column.summary)}" if column.summary else ""
        return made + note

    def with_partition(self, columns: Sequence[str], table: Table) -> tuple[str, ...]:
        """The columns of a unique key, and what the table is cut by."""
        partition = table.partition
        if partition is None:
            return tuple(columns)
        cut = (partition.column, *(["shard"] if partition.by_shard else []))
        return (*columns, *(name for name in cut if name not in columns))

    def primary_key(self, table: Table) -> tuple[str, ...]:
        """The key, and what the table is cut by."""
        return self.with_partition(table.key, table)

    def all_checks(self, table: Table) -> tuple[Check, ...]:
        """The declared ones, and those of types that the server does not have."""
        return (
            *table.checks,
            *(Check(f"{column.name}_json", f"JSON_VALID({{{column.name}}})")
              for column in table.columns if column.type is ColumnType.JSON),
            *(Check(f"{column.name}_truth", f"{{{column.name}}} IN (0, 1)")
              for column in table.columns if column.type is ColumnType.BOOLEAN),
        )  # fmt: skip

    def create_table(self, name: str, table: Table) -> list[str]:
        """One statement, indexes included.

        Raises `InvariantBroken` for keys and rows that are too long for the server.
        """
        self.check_lengths(table)
        lines = [self.column(column, table) for column in table.columns]
        lines.append(f"PRIMARY KEY ({self.names(self.primary_key(table))})")
        for index in table.indexes:
            columns = self.with_partition(index.columns, table) if index.unique else index.columns
            kind = "UNIQUE KEY" if index.unique else "KEY"
            lines.append(f"{kind} {self.quote(index.name)} ({self.names(columns)})")
        lines += [
            f"CONSTRAINT {self.quote(f'{name}_{check.name}')} CHECK ({self.check(check)})"
            for check in self.all_checks(table)
        ]
        body = ",\n  ".join(lines)
        return [f"CREATE TABLE {self.quote(name)} (\n  {body}\n){self.table_suffix(table)}"]

    def table_suffix(self, table: Table) -> str:
        """Engine, collation, comment, and the first partition: all of time."""
        made = (
            " ENGINE=InnoDB ROW_FORMAT=DYNAMIC"
            f" DEFAULT CHARACTER SET utf8mb4 COLLATE {self.flavor.value}"
        )
        if table.summary:
            made += f" COMMENT={comment(table.summary)}"
        partition = table.partition
        if partition is None:
            return made
        made += f"\nPARTITION BY RANGE COLUMNS ({self.quote(partition.column)})"
        if partition.by_shard:
            made += f"\nSUBPARTITION BY HASH (`shard`) SUBPARTITIONS {SHARD_PARTITIONS}"
        return f"{made}\n({self._rest})"

    def column_bytes(self, column: Column) -> int:
        """As declared, with the bytes of a length."""
        if column.type is ColumnType.TEXT:
            return column.length * CHAR_BYTES_MAX + 2
        if column.type is ColumnType.BYTES:
            return column.length + 2
        return _FIXED_BYTES[column.type]

    def check_lengths(self, table: Table) -> None:
        """Raises `InvariantBroken` with the numbers."""
        for columns in (self.primary_key(table), *(one.columns for one in table.indexes)):
            size = 0
            for name in columns:
                column = table.column(name)
                long = column.type in {ColumnType.TEXT, ColumnType.BYTES}
                if column.type is ColumnType.JSON:
                    raise InvariantBroken("MySQL has no index of JSON", table=table.name, key=name)
                size += self.column_bytes(column) - (2 if long else 0)
            if size > KEY_BYTES_MAX:
                raise InvariantBroken(
                    f"an index of MySQL has at most {KEY_BYTES_MAX} bytes, a character 4",
                    table=table.name, index=", ".join(columns), bytes=size,
                )  # fmt: skip
        size = sum(map(self.column_bytes, table.columns)) + (len(table.columns) + 7) // 8
        if size > ROW_BYTES_MAX:
            raise InvariantBroken(
                f"a row of MySQL has at most {ROW_BYTES_MAX} bytes, a character 4",
                table=table.name, bytes=size,
            )  # fmt: skip

    # --- partitions ----------------------------------------------------------------------

    @property
    def _rest(self) -> str:
        return f"PARTITION {self.quote(REST)} VALUES LESS THAN (MAXVALUE)"

    def add_partitions(self, name: str, ranges: Sequence[Range]) -> str:
        """Cut ascending ranges, all after those that there are, off the rest."""
        made = "".join(
            f"PARTITION {self.quote(one.name)} VALUES LESS THAN ('{one.end}'), " for one in ranges
        )
        return (
            f"ALTER TABLE {self.quote(name)} REORGANIZE PARTITION {self.quote(REST)}"
            f" INTO ({made}{self._rest})"
        )

    def drop_partitions(self, name: str, ranges: Sequence[Range]) -> str:
        """Remove ranges with all their rows."""
        dropped = self.names([one.name for one in ranges])
        return f"ALTER TABLE {self.quote(name)} DROP PARTITION {dropped}"

    # --- views ---------------------------------------------------------------------------

    def serving_view(self, projection: str) -> str:
        """Name of the view that says which set the views of a projection show."""
        return f"{SERVING}_{projection}"

    def prepare_views(
        self, projection: Projection, of: ProjectionSet, now: Instant
    ) -> dict[str, str]:
        """Statements that make the views of a set under another name, by the name to show."""
        made = {
            view(projection.name, table.name): (
                f"CREATE OR REPLACE VIEW {self.quote(view(projection.name, table.name) + NEXT)}"
                f" AS SELECT {self.names(table.names)}"
                f" FROM {self.quote(physical(projection.name, table.name, of.suffix))}"
            )
            for table in all_tables(projection)
        }
        serving = self.serving_view(projection.name)
        made[serving] = (
            f"CREATE OR REPLACE VIEW {self.quote(serving + NEXT)}"
            f" AS SELECT {of.build} AS `build`, {now} AS `changed_at`"
        )
        return made

    def is_left_over(self, projection: str, name: str) -> bool:
        """Whether a view was made or put aside by a swap that did not come to its end."""
        ours = (f"{projection}_", self.serving_view(projection))
        return name.startswith(ours) and name.endswith((NEXT, LAST))

    @property
    def rename_waits(self) -> bool:
        """Whether a rename stands behind readers, as long as the session lets it."""
        return self.flavor is Flavor.MYSQL

    def rename_views(self, wanted: Collection[str], shown: Collection[str]) -> str:
        """The statement that shows the prepared views and hides all that are shown.

        Where it does not wait, it is refused at once when anybody reads one of them
        (`statements.HELD`).
        """
        moves = [(one, one + LAST) for one in shown] + [(one + NEXT, one) for one in wanted]
        (first, then), *others = moves
        at_once = "" if self.rename_waits else " NOWAIT"
        return ", ".join(
            (
                f"RENAME TABLE {self.quote(first)}{at_once} TO {self.quote(then)}",
                *(f"{self.quote(old)} TO {self.quote(new)}" for old, new in others),
            )
        )

    def swap_views(self, projection: Projection, suffix: str) -> list[str]:
        """The first time; the driver names what is shown already, and its set."""
        made = [
            f"CREATE OR REPLACE VIEW {self.quote(view(projection.name, table.name) + NEXT)}"
            f" AS SELECT {self.names(table.names)}"
            f" FROM {self.quote(physical(projection.name, table.name, suffix))}"
            for table in all_tables(projection)
        ]
        names = [view(projection.name, table.name) for table in all_tables(projection)]
        return [*made, self.rename_views(names, ())]

    # --- writing -------------------------------------------------------------------------

    def folded(self, column: Column, held: str, new: str) -> str:
        """`new` once: a parameter has no number here."""
        if column.fold is Fold.MIN:
            return f"LEAST({held}, {new})"
        if column.fold is Fold.MAX:
            return f"GREATEST({held}, {new})"
        return super().folded(column, held, new)

    def merge(self, name: str, table: Table, source: str) -> str:
        """A row that another unique key matches is refused, not merged."""
        held = self.quote(name)
        changes = [
            f"{self.quote(column.name)} = "
            + self.folded(
                column,
                f"{held}.{self.quote(column.name)}",
                self.inserted.format(column=self.quote(column.name)),
            )
            for column in table.columns
            if column.name not in table.key
        ]
        first = self.quote(table.key[0])
        if any(index.unique for index in table.indexes):
            same = " AND ".join(
                f"{held}.{self.quote(column)} = VALUES({self.quote(column)})"
                for column in table.key
            )
            changes.insert(0, f"{first} = CASE WHEN {same} THEN {held}.{first} END")
        elif not changes:
            changes = [f"{first} = {held}.{first}"]
        return (
            f"INSERT INTO {held} ({self.names(table.names)}) {source}"
            f" ON DUPLICATE KEY UPDATE {', '.join(changes)}"
        )

    def insert_many(self, name: str, table: Table, one: str) -> str:
        """Insert rows, each given by the list of values `one`."""
        return f"INSERT INTO {self.quote(name)} ({self.names(table.names)}) VALUES {one}"

    def change(self, name: str, table: Table, columns: Sequence[str], nulls: Sequence[str]) -> str:
        """Change `columns` of one row and make `nulls` null; parameters: columns, then the key."""
        changes = [
            f"{self.quote(column)} = {self.folded(table.column(column), self.quote(column), '?')}"
            for column in columns
        ]
        changes += [f"{self.quote(column)} = NULL" for column in nulls]
        where = " AND ".join(f"{self.quote(column)} = ?" for column in table.key)
        return f"UPDATE {self.quote(name)} SET {', '.join(changes)} WHERE {where}"

    def touch_later(self, of: Aggregate, projection: str, suffix: str) -> str:
        """Touch what a carried aggregate has behind a day, the last parameter."""
        return (
            f"INSERT INTO {SLICES.name} (`projection`, `build`, `aggregate`, `slice`)"
            f" {self.later_slices(of, projection, suffix, '?, ?, ?')} ?"
            " ON DUPLICATE KEY UPDATE `slice` = VALUES(`slice`)"
        )

    # --- checksums -----------------------------------------------------------------------

    def checksum(self, name: str, table: Table) -> str:
        """Rows and a digest of a table, whatever their order: two sums of halves of MD5.

        Sums, not exclusive-or: a row that is there twice must show.  A value is written with its
        length before it, so that no two rows are written alike.
        """
        text = ", ".join(
            f"COALESCE(CONCAT(OCTET_LENGTH({column}), ':', {column}), '-')"
            for column in (
                f"HEX({self.quote(one.name)})" if one.type is ColumnType.BYTES
                else self.quote(one.name)
                for one in table.columns
            )
        )  # fmt: skip
        halves = ", ".join(
            f"CAST(COALESCE(SUM(CAST(CONV(SUBSTRING(`digest`, {start}, 16), 16, 10)"
            f" AS DECIMAL(20,0))), 0) AS CHAR) AS `{name}`"
            for start, name in ((1, "high"), (17, "low"))
        )
        return (
            f"SELECT COUNT(*) AS `rows`, {halves}"
            f" FROM (SELECT MD5(CONCAT_WS(',', {text})) AS `digest` FROM {self.quote(name)})"
            " AS `whole`"
        )
