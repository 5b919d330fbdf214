"""Rows of a text file, with the line on which each stands.

CSV by RFC 4180 (quoted fields may hold line breaks) or columns between whitespace.  What
cannot be a row is returned as a `BadRow`, never dropped.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from typing import Final, TextIO

import msgspec

from ultraengine.cli.importing.mapping import TableFormat

_UNDECODABLE: Final = re.compile("[\udc80-\udcff]")
"""What bytes become under ``surrogateescape`` when they are no text."""


class Row(msgspec.Struct, frozen=True):
    """One row: its fields as text."""

    line: int
    """Line of the file on which it starts, from 1."""
    fields: list[str]
    raw: str
    """As it stands in the file, without the line break."""


class BadRow(msgspec.Struct, frozen=True):
    """Lines that are no row, and why."""

    line: int
    reason: str
    raw: str


def read_rows(stream: TextIO, table: TableFormat) -> Iterator[Row | BadRow]:
    """All rows of a stream that was opened with ``errors="surrogateescape", newline=""``.

    Empty lines are no rows and are passed over.
    """
    rows = _whitespace(stream) if table.format == "whitespace" else _csv(stream, table)
    for row in rows:
        if row.line <= table.header_lines or not row.raw.strip():
            continue
        if isinstance(row, BadRow):
            yield row
        elif _UNDECODABLE.search(row.raw):
            readable = row.raw.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            yield BadRow(row.line, f"not {table.encoding} text", readable)
        elif len(row.fields) != len(table.columns):
            reason = f"{len(row.fields)} columns instead of {len(table.columns)}"
            yield BadRow(row.line, reason, row.raw)
        else:
            yield row


def _whitespace(stream: TextIO) -> Iterator[Row | BadRow]:
    for line, text in enumerate(stream, start=1):
        yield Row(line, text.split(), text.rstrip("\r\n"))


class _Lines:
    """The lines of a stream, remembering those of the current record."""

    def __init__(self, stream: Iterable[str]) -> None:
        self._lines = iter(stream)
        self.record: list[str] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.record.append(line)
        return line


def _csv(stream: TextIO, table: TableFormat) -> Iterator[Row | BadRow]:
    lines = _Lines(stream)
    reader = csv.reader(lines, delimiter=table.delimiter, quotechar=table.quote, strict=True)
    start = 1
    while True:
        lines.record.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(start, str(error), _raw(lines))
        else:
            yield Row(start, fields, _raw(lines))
        start = reader.line_num + 1


def _raw(lines: _Lines) -> str:
    return "".join(lines.record).rstrip("\r\n")
