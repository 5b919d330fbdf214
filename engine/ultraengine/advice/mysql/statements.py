"""MariaDB's and MySQL's statements for advice: what is there, copies, plans, errors.

Pure.  A copy is made under a name of its own, since a temporary table hides the one of the same
name from its first moment, and is renamed when it is full.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ultraengine.advice.database import TRIED, Refused
from ultraengine.advice.trial import TrialFailed
from ultraengine.model.projection import ColumnType, Table
from ultraengine.projection.engine_tables import INDEXES
from ultraengine.projection.mysql.dialect import Flavor, MysqlDialect
from ultraengine.projection.target import TargetUnavailable

_HERE: Final = "table_schema = DATABASE() AND table_name = ?"
HAS_TABLE: Final = f"SELECT COUNT(*) FROM information_schema.tables WHERE {_HERE}"
ESTIMATE: Final = f"SELECT table_rows FROM information_schema.tables WHERE {_HERE}"
COLUMNS_OF: Final = f"SELECT column_name FROM information_schema.columns WHERE {_HERE}"
INDEXES_OF: Final = (
    # Whole columns alone.
    "SELECT index_name, column_name FROM information_schema.statistics"
    f" WHERE {_HERE} AND sub_part IS NULL ORDER BY index_name, seq_in_index"
)
REMEMBER: Final = (
    f"INSERT IGNORE INTO `{INDEXES.name}`"
    " (`projection`, `name`, `indexed`, `members`, `created_at`) VALUES (?, ?, ?, ?, ?)"
)
RUNS: Final = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = ?"
"""Whether a connection, by its number, is still there."""
READS: Final = "SHOW SESSION STATUS LIKE 'Handler\\_read%'"
"""Rows that the session has read so far, by the way in which it came to them."""
DAY_OF: Final = "CAST({time} AS DATE)"
COPY: Final = "ultra_copy"
ASIDE: Final = "ultra_aside"
"""Rows taken out of a copy, to be written again."""
ENTRY_BYTES: Final = 7
"""Of an entry of an index beside its values."""
PAGE_FILL: Final = 0.7
"""Of a page whose rows came in no order."""
COUNTED_MAX: Final = 1_000_000
"""Larger tables have the rows that the server believes them to have."""
TOO_LONG: Final = frozenset({1969, 3024})
DENIED: Final = frozenset({1044, 1045, 1142, 1143, 1227, 1370})
BUSY: Final = frozenset({1205, 1213})
_CONSTRAINT: Final = re.compile(r"CONSTRAINT `(?:[^`]|``)*` CHECK")
_BYTES: Final = {
    ColumnType.INTEGER: 8,
    ColumnType.AMOUNT: 17,
    ColumnType.TOTAL: 26,
    ColumnType.TIME: 8,
    ColumnType.DATE: 3,
    ColumnType.BOOLEAN: 1,
}


def meaning(code: int, said: str) -> Exception:
    """An error of the server as `Database` has it, by its number."""
    if code in TOO_LONG:
        return TrialFailed(f"it took too long: {said}")
    if code in DENIED:
        return Refused(f"the database does not let this user: {said}")
    if code in BUSY:
        return Refused(f"others use the table, try again: {said}")
    return TrialFailed(said)


def away(said: str) -> Exception:
    """Of a connection that is no more."""
    return TargetUnavailable(said or "no answer")


def limit(flavor: Flavor, seconds: float) -> str:
    """The statement that bounds the following ones; MySQL bounds queries alone."""
    if flavor is Flavor.MARIADB:
        return f"SET SESSION max_statement_time = {max(0.001, seconds):.3f}"
    return f"SET SESSION max_execution_time = {max(1, round(seconds * 1_000))}"


def grouped(rows: Sequence[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Columns by index, of the rows of `INDEXES_OF`."""
    found: dict[str, tuple[str, ...]] = {}
    for index, column in rows:
        found[index] = (*found.get(index, ()), column)
    return found


def plan_of(document: Any) -> tuple[str, tuple[str, ...]]:
    """Text and used indexes of EXPLAIN FORMAT=JSON, of either server."""
    lines: list[str] = []
    used: list[str] = []

    def walk(node: Any, depth: int) -> None:
        if isinstance(node, list):
            for one in node:
                walk(one, depth)
        if not isinstance(node, Mapping):
            return
        for name, child in node.items():
            if name == "table" and isinstance(child, Mapping):
                index = child.get("key")
                rows = child.get("rows", child.get("rows_examined_per_scan", 0))
                place = f"{child.get('access_type', 'ALL')} {child.get('table_name', '')}"
                by = f" by {index}" if index else ""
                lines.append(f"{'  ' * depth}{place}{by} ({rows} rows believed)")
                if index:
                    used.append(index)
            elif "sort" in name and isinstance(child, Mapping):
                lines.append(f"{'  ' * depth}{name}")
            walk(child, depth + 1)

    walk(document, 0)
    return "\n".join(lines), tuple(dict.fromkeys(used))


class Copying:
    """Statements for a copy: a temporary table of the same name, which hides the real one.

    It belongs to the session, and the server drops it with it, however that ends.
    """

    def __init__(self, sql: MysqlDialect, name: str, table: Table) -> None:
        self._sql = sql
        self._table = table
        self.held = sql.quote(name)

    def create(self, shown: str) -> str:
        """By what SHOW CREATE TABLE says; a temporary table has no partitions."""
        lines = shown.splitlines()
        end = next(at for at, line in enumerate(lines) if line.startswith(")"))
        whole = "\n".join(["(", *lines[1 : end + 1]])
        # MySQL wants names of checks to be its own.
        return f"CREATE TEMPORARY TABLE {COPY} {_CONSTRAINT.sub('CHECK', whole)}"

    def fill(self, share: float, rows_max: int) -> str:
        """All rows, or a sample that is the same each time."""
        sample = f" WHERE RAND(1) < {share:.9f}" if share < 1 else ""
        return f"INSERT INTO {COPY} SELECT * FROM {self.held}{sample} LIMIT {rows_max}"

    def hide(self) -> str:
        """From here on statements find the copy."""
        return f"ALTER TABLE {COPY} RENAME TO {self.held}"

    def count(self) -> str:
        """Its rows."""
        return f"SELECT COUNT(*) FROM {self.held}"

    def examples(self, columns: Sequence[str], count: int) -> str:
        """Rows at even distances."""
        names = self._sql.names(columns)
        there = " AND ".join(f"{self._sql.quote(name)} IS NOT NULL" for name in columns)
        return (
            f"SELECT {names} FROM (SELECT {names}, ROW_NUMBER() OVER () AS ultra_row,"
            f" COUNT(*) OVER () AS ultra_rows FROM {self.held} WHERE {there}) AS numbered"
            f" WHERE ultra_row % GREATEST(1, FLOOR(ultra_rows / {count})) = 0 LIMIT {count}"
        )

    def index(self, columns: Sequence[str]) -> str:
        """The one under trial."""
        return f"CREATE INDEX {TRIED} ON {self.held} ({self._sql.names(columns)})"

    def no_index(self) -> str:
        """Without it."""
        return f"DROP INDEX {TRIED} ON {self.held}"

    def index_bytes(self, columns: Sequence[str]) -> str:
        """What entries of an index are together; an entry ends with the primary key."""
        members = dict.fromkeys([*columns, *self._sql.primary_key(self._table)])
        sizes = [
            f"COALESCE(OCTET_LENGTH({self._sql.quote(name)}), 0) + 1"
            if self._table.column(name).type not in _BYTES
            else str(_BYTES[self._table.column(name).type])
            for name in members
        ]
        return (
            f"SELECT CAST(COALESCE(SUM({' + '.join(sizes)} + {ENTRY_BYTES}), 0) / {PAGE_FILL}"
            f" AS SIGNED) FROM {self.held}"
        )

    def aside(self, rows: int, rows_max: int) -> str:
        """Some rows from all over the table, in the order in which they stand."""
        step = max(1, rows // rows_max)
        return (
            f"CREATE TEMPORARY TABLE {ASIDE} SELECT * FROM (SELECT t.*, ROW_NUMBER() OVER ()"
            f" AS ultra_row FROM {self.held} t) AS numbered WHERE ultra_row % {step} = 0"
            f" LIMIT {rows_max}"
        )

    def take_out(self) -> str:
        """They are no more in the copy."""
        same = " AND ".join(
            f"c.{self._sql.quote(name)} = a.{self._sql.quote(name)}" for name in self._table.key
        )
        return f"DELETE c FROM {self.held} c JOIN {ASIDE} a ON {same}"

    def write(self) -> str:
        """Put them in again."""
        names = self._sql.names(self._table.names)
        return f"INSERT INTO {self.held} ({names}) SELECT {names} FROM {ASIDE}"
