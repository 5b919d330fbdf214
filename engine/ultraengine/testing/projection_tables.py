"""A small projection with every type, fold and kind of table, and tables in memory.

`PROBE` is what the contract of targets writes.  `MemoryTables` holds what a target should hold:
it merges batches by the rules of `projection.fold`, in dictionaries.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

from ultraengine.model.projection import (
    AMOUNT_END,
    TEXT_CHARS_MAX,
    TOTAL_END,
    Aggregate,
    Check,
    Column,
    ColumnType,
    Fold,
    Index,
    Key,
    Partition,
    Rollup,
    Row,
    Rows,
    Source,
    Table,
    TableKind,
)
from ultraengine.projection.fold import COMBINE, Batch
from ultraengine.projection.rollups import roll_up, rolled

INTEGER_END: Final = 2**63
TIME_FIRST: Final = -62_135_596_800_000_000
"""0001-01-01T00:00:00Z."""
TIME_LAST: Final = 253_402_300_799_999_999
"""9999-12-31T23:59:59.999999Z."""
DAY_US: Final = 86_400_000_000
BLOB_BYTES: Final = 64
KEEP_DAYS: Final = 30
_TENANT: Final = Column(name="tenant", type=ColumnType.TEXT)
_NAME: Final = Column(name="name", type=ColumnType.TEXT, length=64)
_DAY: Final = Column(name="day", type=ColumnType.DATE)


def _column(name: str, type: ColumnType, fold: Fold = Fold.LAST) -> Column:
    return Column(name=name, type=type, fold=fold)


def _maybe(name: str, type: ColumnType, length: int = 128) -> Column:
    return Column(name=name, type=type, nullable=True, length=length)


FACT: Final = Table(
    name="fact",
    kind=TableKind.APPEND,
    key=("tenant", "n"),
    columns=(
        _TENANT,
        _column("n", ColumnType.INTEGER),
        _column("amount", ColumnType.AMOUNT),
        _column("total", ColumnType.TOTAL),
        Column(name="text", type=ColumnType.TEXT, length=TEXT_CHARS_MAX),
        _column("time", ColumnType.TIME),
        _column("day", ColumnType.DATE),
        _column("flag", ColumnType.BOOLEAN),
        _column("json", ColumnType.JSON),
        Column(name="blob", type=ColumnType.BYTES, length=BLOB_BYTES),
        _maybe("maybe_integer", ColumnType.INTEGER),
        _maybe("maybe_amount", ColumnType.AMOUNT),
        _maybe("maybe_text", ColumnType.TEXT, 16),
        _maybe("maybe_time", ColumnType.TIME),
        _maybe("maybe_day", ColumnType.DATE),
        _maybe("maybe_flag", ColumnType.BOOLEAN),
        _maybe("maybe_json", ColumnType.JSON),
        _maybe("maybe_blob", ColumnType.BYTES, BLOB_BYTES),
    ),
    indexes=(Index("by_text", ("tenant", "maybe_text"), sparse=True),),
    checks=(
        Check("room", "{maybe_amount} IS NULL OR {amount} - {maybe_amount} >= 0"),
        Check("word", "{maybe_text} IS NULL OR {maybe_text} <> 'forbidden'"),
    ),
    summary="A fact with a value of every type, and one that may be null.",
)
VISIT: Final = Table(
    name="visit",
    kind=TableKind.APPEND,
    key=("tenant", "n"),
    columns=(
        _TENANT,
        _column("n", ColumnType.INTEGER),
        _column("at", ColumnType.TIME),
        _column("shard", ColumnType.INTEGER),
    ),
    partition=Partition("at", keep_days=KEEP_DAYS),
    summary="Cut by months, kept for a month.",
)
STATE: Final = Table(
    name="state",
    kind=TableKind.CURRENT,
    key=("tenant", "name"),
    columns=(
        _TENANT,
        _NAME,
        _column("last", ColumnType.AMOUNT),
        _maybe("note", ColumnType.TEXT),
        _column("paid", ColumnType.TOTAL, Fold.SUM),
        _column("count", ColumnType.INTEGER, Fold.SUM),
        _column("first", ColumnType.TIME, Fold.MIN),
        _column("newest", ColumnType.TIME, Fold.MAX),
        _column("lowest", ColumnType.AMOUNT, Fold.MIN),
        _column("highest", ColumnType.AMOUNT, Fold.MAX),
    ),
    indexes=(Index("newest", ("tenant", "newest")),),
    checks=(Check("count", "{count} >= 0"),),
    summary="Every fold.",
)
KNOWN: Final = Table(
    name="known",
    kind=TableKind.CURRENT,
    key=("tenant", "name"),
    columns=(_TENANT, _NAME),
    summary="Nothing but a key.",
)
GROUPED: Final = Table(
    name="grouped",
    kind=TableKind.CURRENT,
    key=("tenant", "name"),
    columns=(
        _TENANT,
        _NAME,
        Column(name="group_name", type=ColumnType.TEXT, length=64),
        _column("last", ColumnType.AMOUNT),
    ),
    summary="What a rollup looks up.",
)
DAILY: Final = Table(
    name="daily",
    kind=TableKind.CURRENT,
    key=("tenant", "name", "day"),
    columns=(
        _TENANT,
        _NAME,
        _DAY,
        _column("paid_in", ColumnType.TOTAL, Fold.SUM),
        _column("paid_out", ColumnType.TOTAL, Fold.SUM),
    ),
    indexes=(Index("day", ("day",)),),
    summary="What an aggregate is computed from.",
)
DAY_TOTAL: Final = Aggregate(
    table=Table(
        name="day_total",
        kind=TableKind.AGGREGATE,
        key=("tenant", "day"),
        columns=(
            _TENANT,
            _DAY,
            _column("paid_in", ColumnType.TOTAL),
            _column("paid_out", ColumnType.TOTAL),
            _column("names", ColumnType.INTEGER),
        ),
        checks=(Check("balanced", "{paid_in} = {paid_out}"),),
    ),
    source="daily",
    slice_column="day",
    select=(
        "SELECT d.{tenant}, d.{day}, SUM(d.{paid_in}), SUM(d.{paid_out}), COUNT(*)"
        " FROM {table:daily} d WHERE {slice} GROUP BY d.{tenant}, d.{day}"
    ),
)

GROWTH: Final = Aggregate(
    table=Table(
        name="growth",
        kind=TableKind.AGGREGATE,
        key=("tenant", "day"),
        columns=(
            _TENANT,
            _DAY,
            _column("owed", ColumnType.TOTAL),
            _column("owned", ColumnType.TOTAL),
        ),
    ),
    source="daily",
    slice_column="day",
    carried=True,
    select=(
        # What all names together have been paid up to a day, each on its side of zero.
        "SELECT s.{tenant}, s.{day}, TOTAL(DEBIT(s.{paid})), TOTAL(CREDIT(s.{paid})) FROM"
        " (SELECT d.{tenant}, d.{day}, l.{name}, MINUS(TOTAL(l.{paid_in}), TOTAL(l.{paid_out}))"
        " AS {paid} FROM (SELECT DISTINCT c.{tenant}, c.{day} FROM {table:daily} c WHERE {slice}) d"
        " JOIN {table:daily} l ON l.{tenant} = d.{tenant} AND l.{day} <= d.{day}"
        " GROUP BY d.{tenant}, d.{day}, l.{name}) s GROUP BY s.{tenant}, s.{day}"
    ),
)

ROLLED: Final = Table(
    name="rolled",
    kind=TableKind.CURRENT,
    key=("tenant", "span", "start", "group_name"),
    columns=(
        _TENANT,
        _column("span", ColumnType.INTEGER),
        _column("start", ColumnType.TIME),
        Column(name="group_name", type=ColumnType.TEXT, length=64),
        _column("count", ColumnType.INTEGER, Fold.SUM),
        _column("paid", ColumnType.TOTAL, Fold.SUM),
    ),
    checks=(Check("count", "{count} >= 0"),),
    rollup=Rollup(GROUPED, "group_name", (86_400, 60, 0)),
    summary="Sums by what another row says.",
)

Step = tuple[str, str, Any, Any]
"""An event of `ProbeTables`: (``append`` | ``put`` | ``change``, table, row or key, values)."""


class ProbeTables:
    """Implements `model.projection.Projection`; its events say themselves what is written."""

    def __init__(
        self,
        name: str = "probe",
        version: int = 1,
        tables: Sequence[Table] = (FACT, VISIT, STATE, KNOWN, DAILY),
        aggregates: Sequence[Aggregate] = (DAY_TOTAL,),
    ) -> None:
        self.name = name
        self.version = version
        self.tables = tables
        self.aggregates = aggregates

    def project(self, event: Step, at: Source, rows: Rows) -> None:  # noqa: ARG002  (says it all)
        """One row."""
        verb, table, row, values = event
        if verb == "change":
            rows.change(table, tuple(row), values)
        elif verb == "put":
            rows.put(table, tuple(row))
        else:
            rows.append(table, tuple(row))


PROBE: Final = ProbeTables()


def fact(n: int, tenant: str = "t", **values: Any) -> Row:
    """A row of FACT with ordinary values, but for those given."""
    row: dict[str, Any] = {
        "tenant": tenant,
        "n": n,
        "amount": 100 + n,
        "total": 1_000 - n,
        "text": f"text {n}",
        "time": 1_767_225_600_000_000 + n,
        "day": 20_454,
        "flag": n % 2 == 0,
        "json": f'{{"n":{n}}}',
        "blob": n.to_bytes(8, "big", signed=True),
    }
    row.update(values)
    return tuple(row.get(name) for name in FACT.names)


WIDEST: Final = (
    "'quoted' \"twice\" `thrice`; -- not a comment\t\r\n\\N \\. \\0 %s {n} $1 :a ?1 "
    "é ﬁ 漢字 \u2028 \U0001f600 \x01 \x7f \u202e"
)
TEXT_LONGEST: Final = (WIDEST * TEXT_CHARS_MAX)[:TEXT_CHARS_MAX]
EXTREME_FACTS: Final[Sequence[Row]] = (
    fact(0),
    fact(
        INTEGER_END - 1, amount=AMOUNT_END - 1, total=TOTAL_END - 1, time=TIME_LAST, day=2_932_896
    ),
    fact(-INTEGER_END, amount=1 - AMOUNT_END, total=1 - TOTAL_END, time=TIME_FIRST, day=-719_162),
    fact(1, amount=2**63, total=2**64, time=-1, day=-1, text=""),
    fact(2, amount=-(2**63) - 1, total=-(2**65), time=0, day=0, maybe_text=""),
    fact(3, amount=2**63 - 1, total=-(2**63), text=TEXT_LONGEST, maybe_text="\U0001f600" * 16),
    fact(4, amount=0, maybe_amount=1 - AMOUNT_END, maybe_integer=0, maybe_flag=False),
    fact(5, amount=AMOUNT_END - 1, maybe_amount=AMOUNT_END - 1, maybe_blob=b"", maybe_day=-1),
    fact(6, json='{"":"\\u0001\\"","a":[null,1e2,"\U0001f600"]}', maybe_json="null"),
    fact(7, blob=bytes(range(64)), maybe_blob=b"\0\n\\\xff", maybe_time=-1, maybe_text=" x "),
)
"""What every column must give back as it was given."""
UNHOLDABLE: Final[Mapping[str, Row]] = {
    "an amount of 10^38": fact(1, amount=AMOUNT_END),
    "a total of -10^57": fact(1, total=-TOTAL_END),
    "an integer of 65 bits": fact(1, maybe_integer=INTEGER_END),
    "a text that is too long": fact(1, maybe_text="x" * 17),
    "bytes that are too long": fact(1, blob=bytes(BLOB_BYTES + 1)),
    "nothing where something must be": fact(1, amount=None),
    "a text for a number": fact(1, amount="a lot"),
    "a number for a text": fact(1, text=5),
    "a row of another width": fact(1)[:-1],
}
"""What no column takes."""
ALIKE: Final = ("a", "A", "á", "a\u0301", "\uff41", "a ", " a", "", "ß", "ss", "\U0001f600", "a\t")
"""Texts that a lax collation takes for one another."""


class MemoryTables:
    """What a target holds after some batches.  Raises KeyError where it would refuse a row."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self.tables = {table.name: table for table in tables}
        self.held: dict[str, dict[Key, Row]] = {table.name: {} for table in tables}
        """Rows by key, by table."""

    def write(self, batch: Batch) -> None:
        """Merge a batch.  Raises `RowRefused` for a rollup of a row that is not there."""
        for table, rollup in rolled(self.tables.values(), batch):
            place = rollup.source.names.index(rollup.column)
            source = self.held[rollup.source.name]
            roll_up(rollup, table, batch, {key: row[place] for key, row in source.items()})
        for name, rows in batch.appended.items():
            width = len(self.tables[name].key)
            for row in rows:
                if row[:width] in self.held[name]:
                    raise KeyError(row[:width])
                self.held[name][row[:width]] = row
        for name, current in batch.current.items():
            held = self.held[name]
            folds = [COMBINE[column.fold] for column in current.table.columns]
            for key, new in current.put.items():
                held[key] = (
                    tuple(
                        fold(old, value)
                        for fold, old, value in zip(folds, held.get(key, new), new, strict=True)
                    )
                    if key in held
                    else tuple(new)
                )
            for key, values in current.changed.items():
                changed = list(held[key])
                for position, value in values.items():
                    changed[position] = folds[position](changed[position], value)
                held[key] = tuple(changed)

    def rows(self, table: str) -> list[Row]:
        """All rows of a table, by their key."""
        return [row for _, row in sorted(self.held[table].items())]


def random_step(random: Random, known: set[Key]) -> Step:
    """A put of STATE or DAILY, or a change of a row that `known` has; notes what it puts."""
    name, day = random.choice("abcdefg"), random.randrange(3)
    size = random.choice((3, 2**31, 2**62, 10**30, 10**37))
    number = random.randrange(-size, size)
    if random.random() < 0.3:
        return "put", "daily", ("t", name, day, abs(number), abs(number)), None
    row: Row = ("t", name, number, random.choice((None, "", "n")), number, 1, number % DAY_US,
                -(number % DAY_US), number, number)  # fmt: skip
    key: Key = ("t", name)
    if key in known and random.random() < 0.6:
        names = random.sample(STATE.names[2:], random.randrange(1, 6))
        return "change", "state", key, {one: row[STATE.names.index(one)] for one in names}
    known.add(key)
    return "put", "state", row, None
