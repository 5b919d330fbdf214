"""PostgreSQL's SQL, as text: what is generated, and what few machines can run (TimescaleDB)."""

from datetime import date

import msgspec
import pytest

from ultraengine.domains.ledger.tables import ENTRY, TABLES
from ultraengine.model.projection import (
    Column,
    ColumnType,
    Index,
    Interval,
    Partition,
    Table,
    TableKind,
)
from ultraengine.projection.fold import CurrentRows
from ultraengine.projection.postgres.dialect import (
    IDENTIFIER_BYTES_MAX,
    Options,
    PostgresDialect,
    Slice,
    digest_of,
    end_of,
    led,
    literal,
    options_of,
    slice_of,
    slices_ahead,
    slices_of,
)
from ultraengine.projection.postgres.loads import shapes_of
from ultraengine.testing.projection_tables import STATE

DIALECT = PostgresDialect()
HYPER = PostgresDialect(Options(timescale=True))
COMPRESSED = PostgresDialect(Options(timescale=True, compress_after_days=90))
VISIT = Table(
    name="visit",
    kind=TableKind.APPEND,
    key=("tenant", "n"),
    columns=(
        Column(name="tenant", type=ColumnType.TEXT, summary="Whose it is."),
        Column(name="n", type=ColumnType.INTEGER),
        Column(name="day", type=ColumnType.DATE),
        Column(name="shard", type=ColumnType.INTEGER),
        Column(name="mark", type=ColumnType.BYTES, length=16, nullable=True),
    ),
    indexes=(Index("mark", ("tenant", "mark"), unique=True), Index("day", ("day",))),
    partition=Partition("day", Interval.DAY, by_shard=True),
    summary="It's a visit.",
)


def day(text: str) -> int:
    return date.fromisoformat(text).toordinal() - date(1970, 1, 1).toordinal()


def test_a_partitioned_table_has_its_cut_in_every_uniqueness() -> None:
    create, unique, plain, *rest = DIALECT.create_table("visit__v1_b1", VISIT)
    assert 'PRIMARY KEY ("tenant", "n", "day", "shard")' in create
    assert create.endswith(') PARTITION BY RANGE ("day")')
    assert '"tenant" varchar(128) COLLATE "C" NOT NULL' in create
    assert '"mark" bytea CHECK (octet_length("mark") <= 16)' in create
    assert unique == (
        'CREATE UNIQUE INDEX "visit__v1_b1_mark" ON "visit__v1_b1"'
        ' ("tenant", "mark", "day", "shard")'
    )
    assert plain == 'CREATE INDEX "visit__v1_b1_day" ON "visit__v1_b1" ("day")'
    assert rest == [
        "COMMENT ON TABLE \"visit__v1_b1\" IS 'It''s a visit.'",
        'COMMENT ON COLUMN "visit__v1_b1"."tenant" IS \'Whose it is.\'',
        'ALTER TABLE "visit__v1_b1" ENABLE ROW LEVEL SECURITY',
        (
            'CREATE POLICY "ultra_tenant" ON "visit__v1_b1" FOR SELECT TO "ultra_reader"'
            " USING (\"tenant\" = (SELECT current_setting('ultra.tenant', TRUE)))"
        ),
        'GRANT SELECT ON "visit__v1_b1" TO "ultra_reader"',
    ]


def test_keys_and_indexes_begin_with_the_column_that_leads_the_table() -> None:
    table = msgspec.structs.replace(VISIT, led_by="n")
    create, unique, plain, *_ = DIALECT.create_table("visit", table)
    assert 'PRIMARY KEY ("n", "tenant", "day", "shard")' in create
    assert unique.endswith('("tenant", "mark", "day", "shard")')
    assert plain.endswith('("day")')
    create, effective, *_ = DIALECT.create_table("entry", ENTRY)
    assert 'PRIMARY KEY ("account", "tenant", "book", "version", "booked_at")' in create
    assert effective.endswith('("account", "tenant", "book", "effective_at")')
    assert led(("tenant", "book", "amount", "account"), ENTRY) == (
        "tenant", "book", "amount", "account",
    )  # fmt: skip


def test_partitions_are_attached_range_by_range_and_shard_by_shard() -> None:
    cut = slice_of(Partition("day", Interval.DAY, by_shard=True), day("2026-01-31"), 3)
    assert DIALECT.create_partition("visit", VISIT, cut.whole) == [
        (
            'CREATE TABLE "visit_p20260131" (LIKE "visit" INCLUDING DEFAULTS INCLUDING CONSTRAINTS)'
            ' PARTITION BY LIST ("shard")'
        ),
        (
            'ALTER TABLE "visit" ATTACH PARTITION "visit_p20260131"'
            " FOR VALUES FROM (DATE '2026-01-31') TO (DATE '2026-02-01')"
        ),
    ]
    assert DIALECT.create_partition("visit", VISIT, cut)[1] == (
        'ALTER TABLE "visit_p20260131" ATTACH PARTITION "visit_p20260131_s3" FOR VALUES IN (3)'
    )
    assert DIALECT.create_partition("entry", ENTRY, Slice(0, 31))[1].endswith(
        "FROM (TIMESTAMPTZ '1970-01-01 00:00:00+00') TO (TIMESTAMPTZ '1970-02-01 00:00:00+00')"
    )
    assert DIALECT.create_partition("state", STATE, Slice(0, 31)) == []


@pytest.mark.parametrize(
    ("within", "first", "after"),
    [
        ("2026-12-31", "2026-12-01", "2027-01-01"),
        ("2026-02-28", "2026-02-01", "2026-03-01"),
        ("1969-12-31", "1969-12-01", "1970-01-01"),
    ],
)
def test_a_month_begins_with_its_first_day_and_ends_before_the_next(
    within: str, first: str, after: str
) -> None:
    assert slice_of(Partition("at"), day(within)) == Slice(day(first), day(after))


def test_rows_tell_which_partitions_they_need() -> None:
    rows = [("t", 1, 10, 0, None), ("t", 2, 10, 1, None), ("t", 3, 11, 1, None)]
    assert slices_of(VISIT, rows) == {Slice(10, 11, 0), Slice(10, 11, 1), Slice(11, 12, 1)}
    by_time = msgspec.structs.replace(VISIT, partition=Partition("day"))
    assert slices_of(by_time, rows) == {Slice(0, 31)}
    entries = [(None,) * 9 + (time,) for time in (-1, 0, 31 * 86_400_000_000)]
    assert slices_of(ENTRY, entries) == {Slice(-31, 0), Slice(0, 31), Slice(31, 59)}
    assert slices_of(STATE, rows) == set()


def test_a_day_that_no_calendar_has_is_refused() -> None:
    for interval in Interval:
        with pytest.raises((ValueError, OverflowError)):
            slice_of(Partition("day", interval), 4_000_000)


def test_partitions_are_made_ahead_for_every_shard() -> None:
    assert slices_ahead(Partition("at"), day("2026-12-15"), [0, 1], 1) == [
        slice_of(Partition("at"), day("2026-12-15")),
        slice_of(Partition("at"), day("2027-01-15")),
    ]
    by_shard = Partition("day", Interval.DAY, by_shard=True)
    assert slices_ahead(by_shard, 10, [0, 1], 1) == [
        Slice(10, 11, 0), Slice(10, 11, 1), Slice(11, 12, 0), Slice(11, 12, 1),
    ]  # fmt: skip
    assert Slice(10, 11, 1).label == "p19700111_s1"


def test_the_end_of_a_partition_is_read_from_its_bounds() -> None:
    bounds = "FOR VALUES FROM ('2026-01-01 00:00:00+00') TO ('2026-02-01 00:00:00+00')"
    assert end_of(bounds) == day("2026-02-01")
    assert end_of("FOR VALUES FROM ('2026-01-01') TO ('2026-01-02')") == day("2026-01-02")
    assert end_of("DEFAULT") is None


def test_a_name_that_is_too_long_is_shortened_and_still_its_own() -> None:
    long = "p" * 24 + "_" + "t" * 24 + "__v1_b1_" + "i" * 24
    names = {DIALECT.identifier(long + end) for end in ("", "a", "b")}
    assert len(names) == 3
    assert {len(name) for name in names} == {IDENTIFIER_BYTES_MAX}
    assert DIALECT.identifier("short") == "short"
    assert DIALECT.quote('a"b') == '"a""b"'
    assert literal("it's") == "'it''s'"


def test_a_partitioned_table_is_a_hypertable_where_timescaledb_is() -> None:
    create, *rest = HYPER.create_table("visit", VISIT)
    assert "PARTITION BY" not in create
    assert (
        "SELECT create_hypertable('\"visit\"', 'day', chunk_time_interval => INTERVAL '1 day',"
        " create_default_indexes => FALSE)"
    ) in rest
    assert "SELECT add_dimension('\"visit\"', 'shard', number_partitions => 4)" in rest
    assert 'ALTER TABLE "visit" ENABLE ROW LEVEL SECURITY' in rest
    assert HYPER.drop_chunks("visit", VISIT, day("2026-01-01")) == (
        "SELECT drop_chunks('\"visit\"', older_than => DATE '2026-01-01')"
    )
    assert "hypertable" not in "".join(HYPER.create_table("state", STATE))


def test_a_compressed_table_is_guarded_by_its_view() -> None:
    made = COMPRESSED.create_table("entry", ENTRY)
    assert "SELECT add_compression_policy('\"entry\"', INTERVAL '90 days')" in made
    assert any("timescaledb.compress_orderby = '\"booked_at\"'" in one for one in made)
    assert not any("GRANT" in one or "ROW LEVEL" in one for one in made)
    view, *_ = COMPRESSED.create_view("ledger", ENTRY, "v1_b1")
    assert "security_barrier = TRUE" in view
    assert "WHERE \"tenant\" = (SELECT current_setting('ultra.tenant', TRUE))" in view
    plain, *_ = DIALECT.create_view("ledger", ENTRY, "v1_b1")
    assert "security_invoker = TRUE" in plain
    assert "WHERE" not in plain


def test_the_reader_and_the_setting_have_the_names_that_were_chosen() -> None:
    chosen = PostgresDialect(Options(reader="auditor", setting="app.tenant"))
    made = "\n".join([*chosen.create_set(TABLES, "v1_b1"), *chosen.swap_views(TABLES, "v1_b1")])
    assert 'TO "auditor"' in made
    assert "current_setting('app.tenant', TRUE)" in made
    assert "ultra_reader" not in made


def test_options_are_taken_out_of_the_url() -> None:
    url = "postgresql://me@/db?host=/tmp/x&reader=the%20auditor&port=1&compress_after_days=30"
    assert options_of(url + "&setting=app.tenant") == (
        "postgresql://me@/db?host=/tmp/x&port=1",
        Options(reader="the auditor", setting="app.tenant", compress_after_days=30),
    )
    assert options_of("postgresql://host/db") == ("postgresql://host/db", Options())
    assert options_of("postgresql://host/db?reader=x")[0] == "postgresql://host/db"
    with pytest.raises(ValueError, match="compress_after_days"):
        options_of("postgresql://host/db?compress_after_days=soon")


def test_changes_are_grouped_by_the_columns_that_they_change() -> None:
    current = CurrentRows(STATE)
    current.changer(("last", "note"))(("t", "a"), (1, "x"))
    current.changer(("note", "last"))(("t", "b"), ("y", 2))
    current.changer(("count",))(("t", "c"), (5,))
    rest = [None] * 6
    assert shapes_of(current) == {
        (2, 3): [["t", "a", 1, "x", *rest], ["t", "b", 2, "y", *rest]],
        (5,): [["t", "c", None, None, None, 5, *rest[:4]]],
    }


def test_a_digest_has_the_same_length_for_all_sums() -> None:
    assert digest_of("-1", str(2**64 + 10)) == "f" * 16 + "0" * 15 + "a"
