"""The pure half of the MySQL target: addresses, values, ranges, versions, errors, lengths."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.projection import (
    AMOUNT_END,
    TEXT_CHARS_MAX,
    Column,
    ColumnType,
    Fold,
    Index,
    Interval,
    Partition,
    Table,
    TableKind,
)
from ultraengine.projection.fold import Batch
from ultraengine.projection.mysql import partitions, values
from ultraengine.projection.mysql.address import Address, parse
from ultraengine.projection.mysql.dialect import (
    IDENTIFIER_CHARS_MAX,
    Flavor,
    MysqlDialect,
    checksum_of,
    comment,
)
from ultraengine.projection.mysql.partitions import RANGES_MAX, REST, Range
from ultraengine.projection.mysql.statements import Verdict, session, too_old, verdict, version_of
from ultraengine.projection.target import RowRefused
from ultraengine.testing.projection_tables import DAILY, DAY_TOTAL, FACT, KNOWN, STATE, VISIT, fact

# --- addresses -------------------------------------------------------------------------------


def test_an_address_is_read_from_a_url_part_by_part() -> None:
    assert parse("mysql://me:p%40ss%2F@db.example:3307/books?tls=verify&ca=/ca.pem") == Address(
        host="db.example", port=3307, socket=None, user="me", password="p@ss/",  # noqa: S106  (nobody's)
        database="books", tls="verify", ca="/ca.pem",
    )  # fmt: skip
    assert parse("mariadb://@/b?socket=/run/s&bulk=0") == Address(
        host="localhost", port=3306, socket="/run/s", user="", password="", database="b", bulk=False
    )


def test_an_address_is_shown_without_its_password() -> None:
    assert repr(parse("mysql://me:secret@host/books")) == "mysql://me@host:3306/books"
    assert repr(parse("mysql://me@/books?socket=/run/s")) == "mysql://me@/run/s/books"


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("postgresql://host/books", "begins with mysql"),
        ("mysql://host", "names its database"),
        ("mysql://host/a/b", "names its database"),
        ("mysql://host/books?tls=maybe", "tls is one of"),
        ("mysql://host/books?sockets=/x", "no option sockets"),
        ("mysql://host:70000/books", "the port"),
    ],
)
def test_a_url_that_is_none_is_refused_with_what_is_wrong(url: str, wrong: str) -> None:
    with pytest.raises(InvariantBroken, match=wrong):
        parse(url)


# --- values ----------------------------------------------------------------------------------


def chunked(*rows: Any, packet_bytes: int = 1 << 20) -> list[tuple[str, list[Any]]]:
    return list(values.chunks(FACT, FACT.columns, rows, packet_bytes))


def test_values_become_the_types_of_the_protocol() -> None:
    ((places, rows),) = chunked(fact(1, amount=5, total=AMOUNT_END, time=-1, day=-1))
    assert places == f"({', '.join(['?'] * 10 + ['NULL'] * 8)})"
    (row,) = rows
    assert row[:4] == ("t", 1, 5, Decimal(AMOUNT_END))
    assert type(row[2]) is int
    assert type(row[3]) is Decimal
    assert row[5] == datetime(1969, 12, 31, 23, 59, 59, 999_999)  # noqa: DTZ001  (as the server has it)
    assert row[6] == date(1969, 12, 31)
    assert row[7] is False


def test_a_column_is_a_parameter_if_one_row_has_a_value_in_it() -> None:
    first, second = fact(1), fact(2, maybe_text="x", maybe_amount=AMOUNT_END - 1)
    ((places, rows),) = chunked(first, second)
    assert places.count("NULL") == 6
    assert [row[-2:] for row in rows] == [(None, None), (Decimal(AMOUNT_END - 1), "x")]


def test_rows_go_in_commands_of_bounded_rows_and_bytes_in_their_order() -> None:
    rows = [fact(number) for number in range(values.ROWS_MAX + 1)]
    sizes = [len(some) for _, some in chunked(*rows, packet_bytes=1 << 30)]
    assert sizes == [values.ROWS_MAX, 1]
    large = [fact(number, text="\U0001f600" * TEXT_CHARS_MAX) for number in range(5)]
    made = chunked(*large, packet_bytes=40_000)
    assert [row[1] for _, some in made for row in some] == list(range(5))
    assert all(len(some) <= 2 for _, some in made)
    # What is short in bytes is not refused for what it could have been.
    assert len(chunked(fact(1, text="x" * TEXT_CHARS_MAX), packet_bytes=8_000)) == 1
    with pytest.raises(RowRefused, match="larger than 8000 bytes"):
        chunked(fact(1, text="\U0001f600" * TEXT_CHARS_MAX), packet_bytes=8_000)
    assert chunked() == []


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"n": True}, "bool where int belongs"),
        ({"maybe_integer": 2**63}, "out of its range"),
        ({"maybe_integer": -(2**63) - 1}, "out of its range"),
        ({"amount": 1.5}, "float where int belongs"),
        ({"amount": None}, "NoneType where int belongs"),
        ({"text": "x" * TEXT_CHARS_MAX + " "}, "longer than 4000"),
        ({"maybe_text": 5}, "int where str belongs"),
        ({"time": 2**62}, "years 1 to 9999"),
        ({"day": 10**7}, "years 1 to 9999"),
        ({"flag": 1}, "int where bool belongs"),
        ({"json": b"{}"}, "bytes where str belongs"),
        ({"blob": bytes(65)}, "more than 64"),
    ],
)
def test_what_the_server_would_change_or_cut_is_refused(changed: Any, wrong: str) -> None:
    with pytest.raises(RowRefused, match=wrong):
        chunked(fact(**{"n": 1, **changed}))


def test_changes_are_grouped_by_what_they_set_and_what_they_make_null() -> None:
    batch = Batch([STATE])
    batch.change("state", ("t", "a"), {"note": None, "count": 1})
    batch.change("state", ("t", "b"), {"count": 2, "note": None})
    batch.change("state", ("t", "c"), {"note": "x"})
    batch.change("state", ("t", "d"), {"note": None})
    assert values.changes(batch.current["state"]) == {
        (("count",), ("note",)): [(1, "t", "a"), (2, "t", "b")],
        (("note",), ()): [("x", "t", "c")],
        ((), ("note",)): [("t", "d")],
    }


def test_slices_are_touched_by_whole_rows_and_by_changes() -> None:
    batch = Batch([DAILY])
    batch.put("daily", ("t", "a", 1, 5, 5))
    batch.put("daily", ("t", "b", 1, 5, 5))
    batch.change("daily", ("t", "a", 0), {"paid_in": 1})
    touched = values.touched_slices(DAY_TOTAL, batch.current["daily"])
    assert touched == [date(1970, 1, 1), date(1970, 1, 2)]


# --- ranges ----------------------------------------------------------------------------------

MONTHS = [Range(date(2025, 12, 1), date(2026, 1, 1)), Range(date(2026, 1, 1), date(2026, 2, 1))]


def by_day(keep_days: int | None = None) -> Table:
    columns = tuple(
        msgspec.structs.replace(one, type=ColumnType.DATE) if one.name == "at" else one
        for one in VISIT.columns
    )
    return msgspec.structs.replace(
        VISIT, columns=columns, partition=Partition("at", Interval.DAY, keep_days=keep_days)
    )


def test_ranges_are_added_after_those_there_are_without_a_gap() -> None:
    december, february = date(2025, 12, 31), date(2026, 2, 1)
    assert partitions.to_add(VISIT, (), december, date(2026, 1, 1)) == MONTHS
    assert partitions.to_add(VISIT, MONTHS[:1], february, february) == [
        MONTHS[1], Range(february, date(2026, 3, 1)),
    ]  # fmt: skip
    assert partitions.to_add(VISIT, MONTHS, date(2020, 1, 1), december) == []


def test_there_are_never_more_ranges_than_their_limit() -> None:
    made = partitions.to_add(by_day(), (), date(2026, 1, 1), date(2036, 1, 1))
    assert len(made) == RANGES_MAX
    assert partitions.to_add(by_day(), made, date(2036, 1, 1), date(2036, 1, 1)) == []


def test_only_ranges_that_are_past_their_keep_as_a_whole_are_dropped() -> None:
    assert partitions.to_drop(VISIT, MONTHS, date(2026, 1, 30)) == []
    assert partitions.to_drop(VISIT, MONTHS, date(2026, 1, 31)) == MONTHS[:1]
    assert list(partitions.to_drop(by_day(), MONTHS, date(2030, 1, 1))) == []


def test_the_days_of_rows_are_told_and_what_is_no_day_is_left_to_others() -> None:
    day = values.EPOCH_DAY
    rows: list[Any] = [("t", 1, -1, 0), ("t", 2, 86_400_000_000, 0), ("t", 3, None, 0), ("t",)]
    assert partitions.span(VISIT, rows) == (date(1969, 12, 31), date(1970, 1, 2))
    assert partitions.span(by_day(), [("t", 1, 0, 0)]) == (day, day)
    assert partitions.span(VISIT, rows[2:]) is None
    assert partitions.span(VISIT, [("t", 1, 2**62, 0)]) is None
    assert partitions.span(KNOWN, [("t", "a")]) is None


def test_ranges_are_known_again_by_their_names() -> None:
    names = [REST, *(one.name for one in MONTHS)]
    assert partitions.read_ranges(VISIT, names) == tuple(MONTHS)
    with pytest.raises(InvariantBroken):
        partitions.read_ranges(KNOWN, names)


# --- servers and errors ----------------------------------------------------------------------


def test_a_server_is_known_by_what_it_says_of_itself() -> None:
    assert version_of("10.11.19-MariaDB-0+deb12u1") == (Flavor.MARIADB, (10, 11, 19))
    assert version_of("8.0.36") == (Flavor.MYSQL, (8, 0, 36))
    assert version_of("8.4.0-commercial") == (Flavor.MYSQL, (8, 4, 0))
    assert too_old(Flavor.MARIADB, (10, 6, 1)) is None
    assert too_old(Flavor.MYSQL, (8, 0, 17)) is None
    old = too_old(Flavor.MARIADB, (10, 5, 9))
    assert old == "the server is version 10.5.9; 10.6 is the oldest supported"
    assert too_old(Flavor.MYSQL, (8, 0, 16)) is not None


def test_errors_are_told_apart_by_their_number_and_unknown_ones_are_tried_again() -> None:
    assert {verdict(code) for code in (1062, 1048, 1264, 1406, 3819, 4025)} == {Verdict.REFUSED}
    assert verdict(1146) is Verdict.GONE
    assert {verdict(code) for code in (1205, 1213, 1040, 1142, 9999)} == {Verdict.AWAY}


# --- SQL -------------------------------------------------------------------------------------


def table(*columns: Column, key: tuple[str, ...] = ("tenant",), **more: Any) -> Table:
    tenant = Column(name="tenant", type=ColumnType.TEXT)
    return Table(name="t", kind=TableKind.CURRENT, columns=(tenant, *columns), key=key, **more)


def text(name: str, length: int = 128) -> Column:
    return Column(name=name, type=ColumnType.TEXT, length=length, nullable=True)


def test_both_servers_compare_text_by_code_point_and_with_its_spaces() -> None:
    for flavor, collation in (
        (Flavor.MARIADB, "utf8mb4_nopad_bin"), (Flavor.MYSQL, "utf8mb4_0900_bin"),
    ):  # fmt: skip
        (create,) = MysqlDialect(flavor).create_table("t", KNOWN)
        assert create.count(f"COLLATE {collation}") == 3
        assert session(flavor, 5)[0] == f"SET NAMES utf8mb4 COLLATE {collation}"


@pytest.mark.parametrize(
    ("wide", "wrong"),
    [
        (table(text("a"), text("b"), indexes=(Index("i", ("a",) * 7),)), "3072"),
        (table(Column(name="j", type=ColumnType.JSON), indexes=(Index("i", ("j",)),)), "JSON"),
        (table(*(text(f"c{n}", TEXT_CHARS_MAX) for n in range(4)), text("d", 500)), "65535"),
    ],
)
def test_what_the_server_could_not_hold_is_refused_with_the_numbers(
    wide: Table, wrong: str
) -> None:
    with pytest.raises(InvariantBroken, match=wrong):
        MysqlDialect().create_table("t", wide)


def test_bytes_are_counted_once_and_characters_four_times() -> None:
    blob = Column(name="b", type=ColumnType.BYTES, length=2_560)
    assert MysqlDialect().create_table("t", table(blob, indexes=(Index("i", ("tenant", "b")),)))
    longer = msgspec.structs.replace(blob, length=2_561)
    with pytest.raises(InvariantBroken, match="3072"):
        MysqlDialect().create_table("t", table(longer, indexes=(Index("i", ("tenant", "b")),)))


def test_a_name_that_is_too_long_ends_with_a_hash_of_the_whole() -> None:
    sql = MysqlDialect()
    long = "x" * IDENTIFIER_CHARS_MAX
    assert sql.identifier(long) == long
    one, other = sql.identifier(f"{long}1"), sql.identifier(f"{long}2")
    assert len(one) == len(other) == IDENTIFIER_CHARS_MAX
    assert one != other


def test_comments_hold_whatever_a_sentence_holds() -> None:
    assert comment("it's a \\ path") == "'it''s a / path'"


def test_a_change_names_each_parameter_once() -> None:
    sql = MysqlDialect()
    assert sql.change("t", STATE, ("paid", "first", "newest", "last"), ("note",)) == (
        "UPDATE `t` SET `paid` = `paid` + ?, `first` = LEAST(`first`, ?),"
        " `newest` = GREATEST(`newest`, ?), `last` = ?, `note` = NULL"
        " WHERE `tenant` = ? AND `name` = ?"
    )
    assert {STATE.column(name).fold for name in ("paid", "first", "newest")} == {
        Fold.SUM, Fold.MIN, Fold.MAX,
    }  # fmt: skip


def test_sums_of_hashes_are_shown_with_all_their_digits_and_without_their_carry() -> None:
    assert checksum_of(3, ["1", str(2**64 + 2)]).digest == "00000000000000010000000000000002"


def test_what_a_swap_left_behind_is_known_by_its_name() -> None:
    sql = MysqlDialect()
    for name in ("probe_fact__next", "probe_fact__last", "ultra_projection_serving_probe__last"):
        assert sql.is_left_over("probe", name)
    for name in ("probe_fact", "other_fact__next", "ultra_projection_serving_probe"):
        assert not sql.is_left_over("probe", name)
