"""PostgreSQL's statements for advice: what is there, copies, indexes made while all goes on.

Pure.  An index on a table without partitions is made CONCURRENTLY: nobody waits.  On a table
with partitions the server cannot do that, so it is made in pieces: an empty one on the parent
alone (the one moment in which writers wait), one CONCURRENTLY on each partition, and each of
them attached; the parent's is valid when the last one is.  Partitions that a worker attaches
meanwhile get theirs from the server.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ultraengine.advice.database import Refused
from ultraengine.advice.trial import TrialFailed
from ultraengine.projection.engine_tables import INDEXES
from ultraengine.projection.postgres.dialect import PostgresDialect
from ultraengine.projection.target import TargetUnavailable

_HERE: Final = (
    "(SELECT oid FROM pg_class"
    " WHERE relname = $1 AND relnamespace = current_schema()::regnamespace)"
)
INDEXES_OF: Final = (
    # Over columns, without those that are not valid yet: whole ones, and those that lack only rows
    # whose last column is null, since no filter asks for these.
    "SELECT i.indexrelid::regclass::text AS name, array_agg(a.attname::text ORDER BY k.place)"
    " AS columns FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[])"
    " WITH ORDINALITY AS k(number, place) JOIN pg_attribute a"
    " ON a.attrelid = i.indrelid AND a.attnum = k.number"
    f" WHERE i.indrelid = {_HERE} AND i.indisvalid AND i.indexprs IS NULL AND (i.indpred IS NULL"
    " OR pg_get_expr(i.indpred, i.indrelid) = (SELECT format('(%I IS NOT NULL)', l.attname)"
    " FROM pg_attribute l WHERE l.attrelid = i.indrelid AND l.attnum ="
    " i.indkey[i.indnkeyatts - 1]))"
    " AND k.place <= i.indnkeyatts GROUP BY i.indexrelid ORDER BY 1"
)
COLUMNS_OF: Final = (
    f"SELECT attname::text FROM pg_attribute WHERE attrelid = {_HERE}"
    " AND attnum > 0 AND NOT attisdropped"
)
_PIECES: Final = f"(SELECT relid FROM pg_partition_tree({_HERE}) UNION SELECT {_HERE})"
"""The function knows nothing of what has no partitions."""
ESTIMATE: Final = (
    # -1 = never analyzed.  A parent counts its partitions' rows once more.
    "SELECT coalesce(sum(greatest(reltuples, 0)), 0)::bigint FROM pg_class"
    f" WHERE oid IN {_PIECES} AND relkind <> 'p'"
)
TREE: Final = (
    "SELECT c.relname::text AS name, p.relname::text AS parent, t.isleaf FROM"
    f" pg_partition_tree({_HERE}) t JOIN pg_class c ON c.oid = t.relid"
    " LEFT JOIN pg_class p ON p.oid = t.parentrelid ORDER BY t.level, c.relname"
)
INDEX_STATE: Final = (
    "SELECT i.indisvalid AS valid, pg_relation_size(i.indexrelid) AS bytes FROM pg_index i"
    f" WHERE i.indexrelid = {_HERE}"
)
INDEX_BYTES: Final = (
    f"SELECT coalesce(sum(pg_relation_size(relid)), 0)::bigint FROM {_PIECES} AS pieces(relid)"
)
IS_COVERED: Final = (
    # The table $2 by a part of the index $1, whatever its name.
    "SELECT EXISTS (SELECT FROM pg_inherits h JOIN pg_index i ON i.indexrelid = h.inhrelid"
    " JOIN pg_class c ON c.oid = i.indrelid"
    f" WHERE h.inhparent = {_HERE} AND c.relname = $2 AND c.relnamespace ="
    " current_schema()::regnamespace)"
)
REMEMBER: Final = (
    f"INSERT INTO {INDEXES.name} (projection, name, indexed, members, created_at)"
    " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING"
)
FORGET: Final = f"DELETE FROM {INDEXES.name} WHERE projection = $1 AND name = $2"
DAY_OF: Final = "CAST({time} AT TIME ZONE 'UTC' AS date)"
TOO_LONG: Final = "57014"
DENIED: Final = "42501"
BUSY: Final = "55P03"
AWAY_CLASSES: Final = ("08", "28", "3D", "53", "57P", "58", "XX")
ASIDE: Final = "ultra_aside"
"""Rows taken out of a copy, to be written again."""


def meaning(state: str, said: str) -> Exception:
    """An error of the server as `Database` has it, by its SQLSTATE."""
    said = f"{said} [{state}]"
    if state == TOO_LONG:
        return TrialFailed(f"it took too long: {said}")
    if state == DENIED:
        return Refused(f"the database does not let this user: {said}")
    if state == BUSY:
        return Refused(f"others use the table, try again: {said}")
    if state.startswith(AWAY_CLASSES):
        return TargetUnavailable(said)
    return TrialFailed(said)


class Piece(msgspec.Struct, frozen=True):
    """One table of a tree of partitions, a parent before its children."""

    name: str
    parent: str | None
    """None: the table itself."""
    is_leaf: bool


def pieces_of(table: str, rows: Sequence[Sequence[Any]]) -> list[Piece]:
    """Of the rows of `TREE`, of which a table without partitions has none."""
    return [Piece(*row) for row in rows] or [Piece(table, None, is_leaf=True)]


class Maker:
    """Statements for one index on one table."""

    def __init__(self, sql: PostgresDialect, table: str, name: str, columns: Sequence[str]) -> None:
        """`table`: the physical one; `name`: of the index, without it."""
        self._sql = sql
        self._table, self._name = sql.identifier(table), name
        self._columns = sql.names(columns)

    def index(self, table: str) -> str:
        """Name of the index on the table or a partition of it."""
        return self._sql.identifier(f"{table}_{self._name}")

    def create(self, piece: Piece) -> str:
        """On one piece: on a partitioned one alone, elsewhere while writers go on."""
        made, held = self._sql.quote(self.index(piece.name)), self._sql.quote(piece.name)
        if piece.is_leaf:
            return f"CREATE INDEX CONCURRENTLY {made} ON {held} ({self._columns})"
        return f"CREATE INDEX {made} ON ONLY {held} ({self._columns})"

    def attach(self, piece: Piece, parent: str) -> str:
        """To the index of the parent."""
        own, whole = (self._sql.quote(self.index(name)) for name in (piece.name, parent))
        return f"ALTER INDEX {whole} ATTACH PARTITION {own}"

    def drop(self, *, concurrently: bool, table: str = "") -> str:
        """On the table, its partitions' with it, or on one of them."""
        how = "CONCURRENTLY " if concurrently else ""
        return f"DROP INDEX {how}IF EXISTS {self._sql.quote(self.index(table or self._table))}"


class Copying:
    """Statements for a copy: a temporary table of the same name, which hides the real one.

    It belongs to the session, and the server drops it with it, however that ends.
    """

    def __init__(self, sql: PostgresDialect, schema: str, table: str) -> None:
        self._sql = sql
        self._quoted = sql.quote(table)
        self.held = f"pg_temp.{self._quoted}"
        self.source = f"{sql.quote(schema)}.{sql.quote(table)}"

    def create(self) -> str:
        """With its key, checks and indexes; partitions become one table."""
        return f"CREATE TEMPORARY TABLE {self._quoted} (LIKE {self.source} INCLUDING ALL)"

    def bounded_count(self, rows_max: int) -> str:
        """How many rows there are, and no more than one beyond."""
        return f"SELECT count(*) FROM (SELECT FROM {self.source} LIMIT {rows_max + 1}) AS counted"

    def fill(self, percent: float | None, rows_max: int) -> str:
        """All rows, or a sample of the pages."""
        sample = "" if percent is None else f" TABLESAMPLE SYSTEM ({percent:.6f}) REPEATABLE (1)"
        return f"INSERT INTO {self.held} SELECT * FROM {self.source}{sample} LIMIT {rows_max}"

    def examples(self, columns: Sequence[str]) -> str:
        """Rows at even distances; parameters: all rows, how many are wanted."""
        names = self._sql.names(columns)
        there = " AND ".join(f"{self._sql.quote(name)} IS NOT NULL" for name in columns)
        return (
            f"SELECT {names} FROM (SELECT {names}, row_number() OVER () AS ultra_row,"
            f" count(*) OVER () AS ultra_rows FROM {self.held} WHERE {there}) AS numbered"
            " WHERE ultra_row % greatest(1, ultra_rows / $1::bigint) = 0 LIMIT $1::bigint"
        )

    def aside(self, rows: int, rows_max: int) -> list[str]:
        """Take some rows out, in the order in which they stand."""
        step = max(1, rows // rows_max)
        same = f"{self.held}.ctid = chosen.ctid"
        return [
            (f"CREATE TEMPORARY TABLE {ASIDE} AS SELECT * FROM {self.held} WHERE FALSE"),
            (
                f"WITH chosen AS (SELECT ctid FROM (SELECT ctid, row_number() OVER () AS n"
                f" FROM {self.held}) AS numbered WHERE n % {step} = 0 LIMIT {rows_max}),"
                f" gone AS (DELETE FROM {self.held} USING chosen WHERE {same}"
                f" RETURNING {self.held}.*) INSERT INTO {ASIDE} SELECT * FROM gone"
            ),
        ]

    def write(self) -> str:
        """Put them in again."""
        return f"INSERT INTO {self.held} SELECT * FROM {ASIDE}"
