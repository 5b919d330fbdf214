"""The encoder of rows: its reference, its compiled form, and what a server makes of the bytes."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.servers.postgres import connection

from ultraengine.model.projection import Column, ColumnType
from ultraengine.projection.postgres import rows

ENCODERS: list[rows.Encode] = [rows.plain_encode] + [rows.encode] * (
    rows.encode is not rows.plain_encode
)
EVERY = b"iawtmdby"
DAY = 86_400_000_000

ROWS = st.lists(
    st.tuples(
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.integers(-(10**38) + 1, 10**38 - 1) | st.integers(-(10**12), 10**12),
        st.none() | st.integers(-(10**57) + 1, 10**57 - 1),
        st.none() | st.text(),
        st.none() | st.integers(-(2**63) + rows.TIME_ORIGIN, 2**63 - 1),
        st.none() | st.integers(-(2**31) + rows.DATE_ORIGIN, 2**31 - 1 + rows.DATE_ORIGIN),
        st.none() | st.booleans(),
        st.none() | st.binary(),
    ),
    max_size=20,
)


@given(ROWS)
def test_the_compiled_encoder_gives_the_bytes_of_its_reference(given_rows: list[Any]) -> None:
    first = rows.lead(9, 7)
    expected = rows.plain_encode(first, EVERY, given_rows)
    assert rows.encode(first, EVERY, given_rows) == expected
    assert rows.encode(first, EVERY, [list(row) for row in given_rows]) == expected


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "a", "ab", "b", "ü"]), st.integers(-2, 2), st.text(), st.none()
        )
    ),
    st.permutations(range(3)),
    st.integers(1, 3),
)
def test_rows_are_put_in_the_order_of_their_key_and_equal_keys_stay_as_they_came(
    given_rows: list[Any], positions: list[int], width: int
) -> None:
    key = positions[:width]
    ordered = sorted(given_rows, key=lambda row: [row[position] for position in key])
    assert rows.in_order(given_rows, key) == ordered


WRONG: list[tuple[bytes, Any]] = [
    (b"i", 2**63), (b"i", -(2**63) - 1), (b"i", "1"), (b"i", 1.0),
    (b"a", 10**38), (b"a", -(10**38)), (b"a", 1.5), (b"a", 10**400), (b"a", "1"),
    (b"w", 10**57), (b"w", -(10**57)), (b"w", "1"),
    (b"t", 1), (b"t", b"a"), (b"t", "\ud800"),
    (b"m", -(2**63)), (b"m", 2**63), (b"m", "now"), (b"m", None.__class__),
    (b"d", 2**31 + rows.DATE_ORIGIN), (b"d", -(2**63)), (b"d", "today"), (b"d", 2**70),
    (b"b", 1), (b"b", "true"), (b"y", "text"), (b"y", bytearray(b"y")),
]  # fmt: skip


@pytest.mark.parametrize("encode", ENCODERS)
@pytest.mark.parametrize(("kind", "value"), WRONG)
def test_what_is_no_value_of_the_column_is_refused(
    encode: rows.Encode, kind: bytes, value: object
) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (the words differ, the refusal does not)
        encode(rows.lead(1), kind, [(value,)])


@pytest.mark.parametrize("encode", ENCODERS)
def test_a_row_of_another_width_is_refused(encode: rows.Encode) -> None:
    with pytest.raises(ValueError, match="1 values for 2 columns"):
        encode(rows.lead(2), b"ii", [(1,)])


@pytest.mark.parametrize("encode", ENCODERS)
async def test_the_server_reads_every_type_as_it_was_given(
    encode: rows.Encode, postgres_url: str
) -> None:
    given_rows = [
        (
            2**63 - 1,
            10**38 - 1,
            10**57 - 1,
            "text ü",
            1_700_000_000_123_456,
            19_000,
            True,
            b"\0\xff",
        ),
        (-(2**63), -(10**38) + 1, -(10**57) + 1, "", 0, 0, False, b""),
        (0, 0, 0, "x", -1, -1, None, None),
        (1, 10_000, 10**40, None, None, None, None, None),
        (1, -100_000_001, -1, None, None, None, None, None),
        (1, 2**64 * 10_000, 2**64, None, None, None, None, None),
        (None,) * 8,
    ]
    data = rows.SIGNATURE + encode(rows.lead(8), EVERY, given_rows) + rows.TRAILER
    async with connection(postgres_url) as database:
        await database.execute(
            "CREATE TABLE t (i bigint, a numeric(38,0), w numeric(57,0), t text, m timestamptz,"
            " d date, b boolean, y bytea)"
        )

        async def source() -> Any:
            yield data

        await database.copy_to_table("t", source=source(), format="binary")
        held = await database.fetch("SELECT * FROM t")
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert [tuple(row) for row in held] == [
        (
            row[0],
            None if row[1] is None else Decimal(row[1]),
            None if row[2] is None else Decimal(row[2]),
            row[3],
            None if row[4] is None else epoch + timedelta(microseconds=row[4]),
            None if row[5] is None else date(1970, 1, 1) + timedelta(days=row[5]),
            row[6],
            row[7],
        )
        for row in given_rows
    ]


def test_each_column_type_has_its_encoding() -> None:
    columns = [Column(name="c", type=type_) for type_ in ColumnType]
    assert rows.kinds(columns) == b"iawtmdbty"
