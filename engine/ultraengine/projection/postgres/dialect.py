"""PostgreSQL's SQL: types, tables with their partitions, who may read, and checksums.

Pure.  What is particular here:

* TEXT is compared ``COLLATE "C"``: by code point, as the engine and all other targets do it.
* JSON is ``json``, not ``jsonb``: the canonical text is kept as it is, and any of it is taken
  (``jsonb`` refuses the escape of U+0000, and a user's metadata would stop the projection).
* A table with a `Partition` is cut by native range partitions, one per month or day, each cut
  again by shard where that is declared.  Uniqueness then includes those columns, as PostgreSQL
  demands.  With the TimescaleDB extension it is a hypertable instead.
* Tables have row-level security: the reader role sees the rows of the tenant named by a setting
  of its session, and nothing without it.  Views run with the rights of who asks
  (``security_invoker``, PostgreSQL 15), so the same holds through them.
* Identifiers longer than PostgreSQL keeps are shortened here, with a hash, before it cuts them.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import date
from hashlib import blake2b
from typing import Final
from urllib.parse import unquote

import msgspec

from ultraengine.model.exact import GreatestWords
from ultraengine.model.projection import (
    Aggregate,
    Column,
    ColumnType,
    Index,
    Interval,
    Partition,
    Projection,
    Rollup,
    Table,
    TableKind,
)
from ultraengine.projection.dialect import AMOUNT_DIGITS, TOTAL_DIGITS, Dialect
from ultraengine.projection.engine_tables import SLICES
from ultraengine.projection.target import all_tables, physical, view

IDENTIFIER_BYTES_MAX: Final = 63
FILL_PERCENT: Final = 50
"""How full pages of CURRENT tables are written: a change that finds room on its row's page touches
no index.  A large batch changes every row of a page, and the room of the versions before is free
only after it: with 80 most changes went to other pages, for a quarter of the server's time."""
SHAPE: Final = "ultra_shape"
"""Column of a staging table: 0 = a whole row, 1 and up = which columns change."""
DAY_US: Final = 86_400_000_000
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_HASH_BYTES: Final = 5
_SUM_END: Final = 1 << 64
_BOUNDS: Final = re.compile(r"TO \('(\d{4}-\d{2}-\d{2})[^']*'\)")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator chooses about a PostgreSQL target."""

    reader: str = "ultra_reader"
    """Role (not a login) that may read; grant it to the logins of the query process."""
    setting: str = "ultra.tenant"
    """Setting of a reader's session that names its tenant."""
    timescale: bool | None = None
    """Whether partitioned tables are hypertables of TimescaleDB; None = where it is installed."""
    compress_after_days: int | None = None
    """TimescaleDB compresses chunks older than this; None = never.  Compressed tables cannot
    have row-level security, so their views filter by tenant instead (`docs/targets.md`)."""


def options_of(url: str) -> tuple[str, Options]:
    """A URL without the options that are ours, and these: ``?reader=auditor&setting=app.tenant``.

    The driver would send what it does not know to the server.  Raises ValueError.
    """
    base, _, query = url.partition("?")
    own: dict[str, str] = {}
    rest = []
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        if name in {"reader", "setting", "compress_after_days"}:
            own[name] = unquote(value)
        else:
            rest.append(pair)
    try:
        options = msgspec.convert(own, Options, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"an option cannot be read: {error}") from error
    return base + "?" * bool(rest) + "&".join(rest), options


class Slice(msgspec.Struct, frozen=True, order=True):
    """One partition of a table: a range of days, and a shard where it is cut by shards."""

    start: int
    """First day, since 1970-01-01."""
    end: int
    """First day after it."""
    shard: int | None = None

    @property
    def label(self) -> str:
        """How its name ends: ``p20260101``, ``p20260101_s3``."""
        day = date.fromordinal(_EPOCH_ORDINAL + self.start)
        whole = f"p{day.isoformat().replace('-', '')}"
        return whole if self.shard is None else f"{whole}_s{self.shard}"

    @property
    def whole(self) -> "Slice":
        """The range, of all shards."""
        return Slice(self.start, self.end)


def slice_of(partition: Partition, day: int, shard: int | None = None) -> Slice:
    """The partition that holds a day.  Raises ValueError outside of the years 1 to 9998."""
    if partition.interval is Interval.DAY:
        date.fromordinal(_EPOCH_ORDINAL + day + 1)
        return Slice(day, day + 1, shard)
    start = date.fromordinal(_EPOCH_ORDINAL + day).replace(day=1)
    end = date(start.year + start.month // 12, start.month % 12 + 1, 1)
    return Slice(start.toordinal() - _EPOCH_ORDINAL, end.toordinal() - _EPOCH_ORDINAL, shard)


def slices_of(table: Table, rows: Iterable[Sequence[object]]) -> set[Slice]:
    """The partitions that rows of a partitioned table fall into.  Raises ValueError as above."""
    partition = table.partition
    if partition is None:
        return set()
    column = table.names.index(partition.column)
    unit = DAY_US if table.column(partition.column).type is ColumnType.TIME else 1
    if partition.by_shard:
        shard = table.names.index("shard")
        found = {(int(row[column]) // unit, int(row[shard])) for row in rows}  # type: ignore[call-overload]
        return {slice_of(partition, day, number) for day, number in found}
    days = {int(row[column]) // unit for row in rows}  # type: ignore[call-overload]
    return {slice_of(partition, day) for day in days}


def end_of(bounds: str) -> int | None:
    """First day after a range partition, from the bounds as the server writes them."""
    found = _BOUNDS.search(bounds)
    return None if found is None else date.fromisoformat(found[1]).toordinal() - _EPOCH_ORDINAL


def slices_ahead(
    partition: Partition, today: int, shards: Sequence[int], ahead: int
) -> list[Slice]:
    """The partitions of today and of so many intervals after it."""
    made = []
    day = today
    for _ in range(ahead + 1):
        cut = slice_of(partition, day)
        made += (
            [Slice(cut.start, cut.end, shard) for shard in shards] if partition.by_shard else [cut]
        )
        day = cut.end
    return made


def led(columns: Sequence[str], table: Table) -> tuple[str, ...]:
    """Columns of a key or an index as they are compared: first the one that leads the table.

    Only of those that begin like the key: behind other columns it may be asked for in its order.
    """
    begin = table.key[: table.key.index(table.led_by) + 1] if table.led_by else ()
    if not begin or tuple(columns[: len(begin)]) != begin:
        return tuple(columns)
    return (table.led_by, *(name for name in columns if name != table.led_by))


def digest_of(low: str, high: str) -> str:
    """The two sums of a checksum as one text of fixed length."""
    return "".join(f"{int(part) % _SUM_END:016x}" for part in (low, high))


def literal(text: str) -> str:
    """A text as a constant."""
    return "'" + text.replace("'", "''") + "'"


class PostgresDialect(GreatestWords, Dialect):
    """PostgreSQL 15 and newer."""

    name = "postgresql"
    sparse_indexes = True
    column_types = {  # noqa: RUF012  (as declared by `Dialect`)
        ColumnType.INTEGER: "bigint",
        ColumnType.AMOUNT: f"numeric({AMOUNT_DIGITS},0)",
        ColumnType.TOTAL: f"numeric({TOTAL_DIGITS},0)",
        ColumnType.TEXT: 'varchar({length}) COLLATE "C"',
        ColumnType.TIME: "timestamptz",
        ColumnType.DATE: "date",
        ColumnType.BOOLEAN: "boolean",
        ColumnType.JSON: "json",
        ColumnType.BYTES: "bytea",
    }

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()

    def identifier(self, name: str) -> str:
        """The name that PostgreSQL keeps: with a hash instead of its end when it is too long."""
        if len(name.encode()) <= IDENTIFIER_BYTES_MAX:
            return name
        digest = blake2b(name.encode(), digest_size=_HASH_BYTES).hexdigest()
        return f"{name[: IDENTIFIER_BYTES_MAX - len(digest) - 1]}_{digest}"

    def quote(self, name: str) -> str:
        """An identifier; others than the project's own names may hold a quote."""
        return '"' + self.identifier(name).replace('"', '""') + '"'

    def placeholder(self, number: int) -> str:
        """``$1``"""
        return f"${number}"

    # --- definition ----------------------------------------------------------------------

    def column(self, column: Column, table: Table) -> str:
        """``bytea`` has no length of its own."""
        made = super().column(column, table)
        if column.type is ColumnType.BYTES:
            made += f" CHECK (octet_length({self.quote(column.name)}) <= {column.length})"
        return made

    def _with_partition(self, columns: Sequence[str], table: Table) -> tuple[str, ...]:
        partition = table.partition
        if partition is None:
            return tuple(columns)
        cut = (partition.column, *(["shard"] if partition.by_shard else []))
        return (*columns, *(name for name in cut if name not in columns))

    def primary_key(self, table: Table) -> tuple[str, ...]:
        """The key in the order in which it is compared, and what the table is cut by."""
        return self._with_partition(led(table.key, table), table)

    def table_suffix(self, table: Table) -> str:
        """Partitions, or room for changes."""
        if table.partition is not None and not self.options.timescale:
            return f" PARTITION BY RANGE ({self.quote(table.partition.column)})"
        if table.kind is TableKind.CURRENT:
            return f" WITH (fillfactor = {FILL_PERCENT})"
        return ""

    def create_indexes(self, name: str, table: Table) -> list[str]:
        """As they are compared; unique ones include what the table is cut by."""
        indexes = tuple(
            Index(one.name, self._with_partition(led(one.columns, table), table), unique=True)
            if one.unique
            else msgspec.structs.replace(one, columns=led(one.columns, table))
            for one in table.indexes
        )
        return super().create_indexes(name, msgspec.structs.replace(table, indexes=indexes))

    def create_table(self, name: str, table: Table) -> list[str]:
        """With comments, hypertables where wanted, and who may read."""
        made = super().create_table(name, table)
        if table.partition is not None and self.options.timescale:
            made += self._hypertable(name, table, table.partition)
        made += self._comments("TABLE", name, table)
        return made + self._readable(name, table)

    def _comments(self, kind: str, name: str, table: Table) -> list[str]:
        held = self.quote(name)
        made = [f"COMMENT ON {kind} {held} IS {literal(table.summary)}"] * bool(table.summary)
        return made + [
            f"COMMENT ON COLUMN {held}.{self.quote(column.name)} IS {literal(column.summary)}"
            for column in table.columns
            if column.summary
        ]

    # --- TimescaleDB ---------------------------------------------------------------------

    def is_compressed(self, table: Table) -> bool:
        """Whether TimescaleDB will compress it."""
        return (
            table.partition is not None
            and bool(self.options.timescale)
            and self.options.compress_after_days is not None
        )

    def _hypertable(self, name: str, table: Table, partition: Partition) -> list[str]:
        held = literal(self.quote(name))
        made = [
            (
                f"SELECT create_hypertable({held}, {literal(partition.column)},"
                f" chunk_time_interval => INTERVAL '1 {partition.interval.value}',"
                " create_default_indexes => FALSE)"
            )
        ]
        if partition.by_shard:
            made.append(f"SELECT add_dimension({held}, 'shard', number_partitions => 4)")
        if self.is_compressed(table):
            made += [
                (
                    f"ALTER TABLE {self.quote(name)} SET (timescaledb.compress,"
                    f" timescaledb.compress_segmentby = 'tenant',"
                    f" timescaledb.compress_orderby = {literal(self.quote(partition.column))})"
                ),
                (
                    f"SELECT add_compression_policy({held},"
                    f" INTERVAL '{self.options.compress_after_days} days')"
                ),
            ]
        return made

    def drop_chunks(self, name: str, table: Table, day: int) -> str:
        """Drop what a hypertable holds of the days before, in whole chunks."""
        before = self._day(day, table)
        return f"SELECT drop_chunks({literal(self.quote(name))}, older_than => {before})"

    # --- partitions ----------------------------------------------------------------------

    def _day(self, day: int, table: Table) -> str:
        written = date.fromordinal(_EPOCH_ORDINAL + day).isoformat()
        if table.partition and table.column(table.partition.column).type is ColumnType.DATE:
            return f"DATE '{written}'"
        return f"TIMESTAMPTZ '{written} 00:00:00+00'"

    def partition_name(self, name: str, cut: Slice) -> str:
        """Name of a partition of the table `name`."""
        return self.identifier(f"{name}_{cut.label}")

    def create_partition(self, name: str, table: Table, cut: Slice) -> list[str]:
        """Make one partition; its range first where it is cut by shard too.

        ``LIKE`` and ``ATTACH`` let readers go on, as ``PARTITION OF`` would not.
        """
        partition = table.partition
        if partition is None:
            return []
        if cut.shard is not None:
            parent, bounds = self.partition_name(name, cut.whole), f"IN ({cut.shard})"
        else:
            start, end = self._day(cut.start, table), self._day(cut.end, table)
            parent, bounds = name, f"FROM ({start}) TO ({end})"
        made = self.quote(self.partition_name(name, cut))
        by = ' PARTITION BY LIST ("shard")' if partition.by_shard and cut.shard is None else ""
        return [
            (
                f"CREATE TABLE {made} (LIKE {self.quote(name)}"
                f" INCLUDING DEFAULTS INCLUDING CONSTRAINTS){by}"
            ),
            f"ALTER TABLE {self.quote(parent)} ATTACH PARTITION {made} FOR VALUES {bounds}",
        ]

    def drop_partition(self, name: str, partition: str) -> list[str]:
        """Remove a range with all its rows."""
        made = self.quote(partition)
        return [f"ALTER TABLE {self.quote(name)} DETACH PARTITION {made}", f"DROP TABLE {made}"]

    # --- who may read --------------------------------------------------------------------

    @property
    def _tenant(self) -> str:
        # In a sub-select it is asked once per statement, not once per row.
        return f"(SELECT current_setting({literal(self.options.setting)}, TRUE))"

    def _readable(self, name: str, table: Table) -> list[str]:
        if self.is_compressed(table) or table.key[0] != "tenant":
            return []
        held, reader = self.quote(name), self.quote(self.options.reader)
        return [
            f"ALTER TABLE {held} ENABLE ROW LEVEL SECURITY",
            (
                f'CREATE POLICY "ultra_tenant" ON {held} FOR SELECT TO {reader}'
                f' USING ("tenant" = {self._tenant})'
            ),
            f"GRANT SELECT ON {held} TO {reader}",
        ]

    def create_view(self, projection: str, table: Table, suffix: str) -> list[str]:
        """Let one view show a set: what was granted on it stays."""
        shown = self.quote(view(projection, table.name))
        held = self.quote(physical(projection, table.name, suffix))
        select = f"AS SELECT {self.names(table.names)} FROM {held}"
        if self.is_compressed(table):
            # No policy guards the table: the view is a barrier, but for the tables' owner.
            create = (
                f"CREATE OR REPLACE VIEW {shown} WITH (security_barrier = TRUE) {select}"
                f' WHERE "tenant" = {self._tenant}'
                f" OR current_user = (SELECT tableowner FROM pg_tables"
                f" WHERE schemaname = current_schema() AND tablename ="
                f" {literal(self.identifier(physical(projection, table.name, suffix)))})"
            )
        else:
            create = f"CREATE OR REPLACE VIEW {shown} WITH (security_invoker = TRUE) {select}"
        grant = f"GRANT SELECT ON {shown} TO {self.quote(self.options.reader)}"
        return [create, *self._comments("VIEW", view(projection, table.name), table), grant]

    def drop_view(self, projection: str, table: str) -> str:
        """Fails where something of a user depends on it."""
        return f"DROP VIEW IF EXISTS {self.quote(view(projection, table))}"

    def swap_views(self, projection: Projection, suffix: str) -> list[str]:
        """For a set whose tables have the columns of the one shown, or when none is."""
        return [
            statement
            for table in all_tables(projection)
            for statement in self.create_view(projection.name, table, suffix)
        ]

    # --- writing -------------------------------------------------------------------------

    def stage(self, name: str) -> str:
        """Name of a session's staging table for the table `name`."""
        return self.identifier(f"stage_{name}")

    def create_stage(self, name: str, table: Table) -> str:
        """A staging table: temporary, so nothing of it is logged; empty again at each commit."""
        columns = ", ".join(
            f"{self.quote(column.name)} {self.column_type(column, table)}"
            for column in table.columns
        )
        return (
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {self.quote(self.stage(name))}"
            f" ({self.quote(SHAPE)} bigint NOT NULL, {columns}) ON COMMIT DELETE ROWS"
        )

    def merge_stage(self, name: str, table: Table) -> str:
        """Merge the whole rows of the staging table."""
        source = (
            f"SELECT {self.names(table.names)} FROM {self.quote(self.stage(name))}"
            f" WHERE {self.quote(SHAPE)} = 0"
        )
        return self.merge(name, table, source)

    def _same_key(self, held: str, stage: str, table: Table) -> str:
        return " AND ".join(
            f"{held}.{self.quote(column)} = {stage}.{self.quote(column)}" for column in table.key
        )

    def change_stage(self, name: str, table: Table, columns: Sequence[str], shape: int) -> str:
        """Change some columns of the rows that the staging table names with this shape."""
        held, stage = self.quote(name), self.quote(self.stage(name))
        changes = ", ".join(
            f"{self.quote(column)} = "
            + self.folded(
                table.column(column),
                f"{held}.{self.quote(column)}",
                f"{stage}.{self.quote(column)}",
            )
            for column in columns
        )
        return (
            f"UPDATE {held} SET {changes} FROM {stage}"
            f" WHERE {stage}.{self.quote(SHAPE)} = {shape} AND {self._same_key(held, stage, table)}"
        )

    def lookup(self, name: str, rollup: Rollup, count: int) -> str:  # noqa: ARG002  (arrays)
        """Takes an array for each column of the key."""
        key = rollup.source.key
        arrays = ", ".join(f"${number}::text[]" for number in range(1, len(key) + 1))
        return (
            f"SELECT {self.names((*key, rollup.column))} FROM {self.quote(name)}"
            f" WHERE ({self.names(key)}) IN (SELECT * FROM unnest({arrays}))"
        )

    def analyze(self, name: str) -> str:
        """Let the planner know what the table holds."""
        return f"ANALYZE {self.quote(name)}"

    def missing_stage(self, name: str, table: Table, shape: int) -> str:
        """A key that such a change did not find."""
        held, stage = self.quote(name), self.quote(self.stage(name))
        return (
            f"SELECT {self.names(table.key)} FROM {stage} WHERE {self.quote(SHAPE)} = {shape}"
            f" AND NOT EXISTS (SELECT FROM {held} WHERE {self._same_key(held, stage, table)})"
            " LIMIT 1"
        )

    def touch_later(self, of: Aggregate, projection: str, suffix: str) -> str:
        """Touch what a carried aggregate has behind day $4."""
        later = self.later_slices(of, projection, suffix, "$1::varchar, $2::int, $3::varchar")
        return (
            f"INSERT INTO {SLICES.name} (projection, build, aggregate, slice)"
            f" {later} DATE '1970-01-01' + $4::int ORDER BY 4"
            " ON CONFLICT (projection, build, aggregate, slice)"
            " DO UPDATE SET slice = excluded.slice"
        )

    # --- checksums -----------------------------------------------------------------------

    def checksum(self, name: str, table: Table) -> str:
        """Rows and a digest of a table, whatever their order: two sums of hashes of all rows.

        Sums, not exclusive-or: a row that is there twice must show.  The session's settings
        decide how a row is written, so the driver fixes them.
        """
        text = f"ROW({self.names(table.names)})::text"
        sums = ", ".join(
            f"coalesce(sum(hashtextextended(text, {seed})), 0)::text AS {side}"
            for seed, side in enumerate(("low", "high"))
        )
        return (
            f"SELECT count(*) AS rows, {sums}"
            f" FROM (SELECT {text} AS text FROM {self.quote(name)}) AS whole"
        )
