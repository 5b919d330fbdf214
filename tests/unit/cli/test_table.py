"""Rows of files: nothing is dropped, and every row knows its line."""

import io

import pytest

from ultraengine.cli.importing.mapping import TableFormat
from ultraengine.cli.importing.table import BadRow, Row, read_rows


def rows(content: bytes, **options: object) -> list[Row | BadRow]:
    table = TableFormat(**{"columns": ["a", "b"], **options})  # type: ignore[arg-type]  # options of many types
    stream = io.TextIOWrapper(
        io.BytesIO(content), encoding=table.encoding, errors="surrogateescape", newline=""
    )
    return list(read_rows(stream, table))


def test_csv_rows_know_their_lines_even_when_fields_hold_line_breaks() -> None:
    assert rows(b'a,b\r\n1,"x\ny"\r\n\r\n2,"say ""hi"""\r\n') == [
        Row(2, ["1", "x\ny"], '1,"x\ny"'),
        Row(5, ["2", 'say "hi"'], '2,"say ""hi"""'),
    ]


def test_whitespace_tables_need_no_quoting() -> None:
    assert rows(b" a  b\n 1\t 2 \r\n\n3 4", format="whitespace") == [
        Row(2, ["1", "2"], " 1\t 2 "),
        Row(4, ["3", "4"], "3 4"),
    ]


def test_delimiter_quote_and_header_are_as_the_mapping_says() -> None:
    assert rows(b"'x;y';2\n", delimiter=";", quote="'", header_lines=0) == [
        Row(1, ["x;y", "2"], "'x;y';2")
    ]


def test_a_byte_order_mark_is_no_content() -> None:
    assert rows(b"\xef\xbb\xbf1,2\n", header_lines=0) == [Row(1, ["1", "2"], "1,2")]


@pytest.mark.parametrize(
    ("content", "bad"),
    [
        (b"1,2,3\n", BadRow(1, "3 columns instead of 2", "1,2,3")),
        (b"1\n", BadRow(1, "1 columns instead of 2", "1")),
        (b"1,\xff\n", BadRow(1, "not utf-8-sig text", "1,\ufffd")),
        (b'1,"2"3\n', BadRow(1, "',' expected after '\"'", '1,"2"3')),
        (b'1,"2\n', BadRow(1, "unexpected end of data", '1,"2')),
    ],
)
def test_what_cannot_be_a_row_is_returned_with_the_reason(content: bytes, bad: BadRow) -> None:
    assert rows(content, header_lines=0) == [bad]


def test_rows_after_a_bad_one_are_read() -> None:
    found = rows(b'1,"2"3\n4,5\n', header_lines=0)
    assert found[1] == Row(2, ["4", "5"], "4,5")


def test_other_encodings_are_decoded() -> None:
    assert rows("é,ü\n".encode("latin-1"), encoding="latin-1", header_lines=0) == [
        Row(1, ["é", "ü"], "é,ü")
    ]
