"""Rows as PostgreSQL's COPY takes them in binary: what `_rows.c` does, and its reference.

Purpose: most of what a projection writes are rows of facts, and their way to the server is
encode, send, insert.  A general driver encodes a row of 14 columns in several microseconds, most
of them for `decimal.Decimal`; the compiled encoder takes a fraction of one.

Format (PostgreSQL manual, COPY, "Binary Format"; big-endian): the signature, then rows, then -1
as int16.  A row is its number of fields as int16, then per field its length as int32 (-1 = null)
and its bytes:

    INTEGER   int64                      TIME   int64, microseconds since 2000-01-01
    BOOLEAN   one byte                   DATE   int32, days since 2000-01-01
    TEXT, JSON   UTF-8                   BYTES  as they are
    AMOUNT, TOTAL   numeric: int16 count of digits, weight, sign (0 or 0x4000), scale 0; then
              digits to the base 10,000 as int16, highest first, without zeros at either end

Rules: `encode` refuses with ValueError what is no row of these columns; the server refuses what
is out of its own range.  The compiled form gives the same bytes and refuses the same rows.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from struct import Struct
from typing import Any, Final

from ultraengine.model.projection import AMOUNT_END, TOTAL_END, Column, ColumnType

SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
"""Begins the data: magic, no flags, no extension."""
TRAILER: Final = b"\xff\xff"
"""Ends the data."""
TIME_ORIGIN: Final = 946_684_800_000_000
"""2000-01-01 in microseconds since the Unix epoch."""
DATE_ORIGIN: Final = 10_957
"""2000-01-01 in days since the Unix epoch."""

KINDS: Final = {
    ColumnType.INTEGER: b"i",
    ColumnType.AMOUNT: b"a",
    ColumnType.TOTAL: b"w",
    ColumnType.TEXT: b"t",
    ColumnType.TIME: b"m",
    ColumnType.DATE: b"d",
    ColumnType.BOOLEAN: b"b",
    ColumnType.JSON: b"t",
    ColumnType.BYTES: b"y",
}
"""How each type is encoded, one letter per column."""

_INTEGER: Final = Struct(">iq")
_DATE: Final = Struct(">ii")
_LENGTH: Final = Struct(">i")
_COUNT: Final = Struct(">h")
_BOOLEAN: Final = {False: b"\0\0\0\1\0", True: b"\0\0\0\1\1"}
_NULL: Final = b"\xff\xff\xff\xff"
_INT64_END: Final = 1 << 63
_INT32_END: Final = 1 << 31
_BASE: Final = 10_000


def kinds(columns: Sequence[Column]) -> bytes:
    """The columns' types as `encode` takes them."""
    return b"".join(KINDS[column.type] for column in columns)


def lead(fields: int, *numbers: int) -> bytes:
    """How a row of so many fields begins, the first of them being these integers."""
    return _COUNT.pack(fields) + b"".join(_INTEGER.pack(8, number) for number in numbers)


def in_order(rows: Sequence[Sequence[Any]], positions: Sequence[int]) -> list[Sequence[Any]]:
    """The rows in the order of their columns at `positions`.  Raises TypeError, IndexError.

    Sorted once for each column, the last one first: the sort is stable, columns of one value cost
    one pass, and single values compare in three eighths of the time of tuples of them.
    """
    ordered = list(rows)
    for position in reversed(positions):
        ordered.sort(key=itemgetter(position))
    return ordered


def _amount(value: Any) -> bytes:
    if not isinstance(value, int) or not -AMOUNT_END < value < AMOUNT_END:
        raise ValueError("an amount is an integer below 10^38 in size")
    return _numeric(value)


def _total(value: Any) -> bytes:
    if not isinstance(value, int) or not -TOTAL_END < value < TOTAL_END:
        raise ValueError("a total is an integer below 10^57 in size")
    return _numeric(value)


def _numeric(value: int) -> bytes:
    digits: list[int] = []
    rest = abs(value)
    while rest:
        rest, digit = divmod(rest, _BASE)
        digits.append(digit)
    weight = max(0, len(digits) - 1)
    digits.reverse()
    while digits and digits[-1] == 0:
        digits.pop()
    sign = 0x4000 if value < 0 else 0
    return Struct(f">ihhHh{len(digits)}h").pack(
        8 + 2 * len(digits), len(digits), weight, sign, 0, *digits
    )


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError(f"bytes are expected: {type(value).__name__}")  # noqa: TRY004  (one family for all refusals)
    return _LENGTH.pack(len(value)) + value


def _text(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"a text is expected: {type(value).__name__}")  # noqa: TRY004  (one family for all refusals)
    return _bytes(value.encode())


def _integer(value: Any) -> bytes:
    if not isinstance(value, int) or not -_INT64_END <= value < _INT64_END:
        raise ValueError(f"an integer of 64 bits is expected: {value!r}")
    return _INTEGER.pack(8, value)


def _time(value: Any) -> bytes:
    _integer(value)
    return _integer(value - TIME_ORIGIN)


def _date(value: Any) -> bytes:
    if not isinstance(value, int) or not -_INT32_END <= value - DATE_ORIGIN < _INT32_END:
        raise ValueError(f"a date is an integer of 32 bits: {value!r}")
    return _DATE.pack(4, value - DATE_ORIGIN)


def _boolean(value: Any) -> bytes:
    if not isinstance(value, bool):
        raise ValueError(f"a truth is expected: {type(value).__name__}")  # noqa: TRY004  (one family for all refusals)
    return _BOOLEAN[value]


_FIELDS: Final = {
    ord("i"): _integer,
    ord("a"): _amount,
    ord("w"): _total,
    ord("t"): _text,
    ord("m"): _time,
    ord("d"): _date,
    ord("b"): _boolean,
    ord("y"): _bytes,
}


def plain_encode(first: bytes, columns: bytes, rows: Sequence[Sequence[Any]]) -> bytes:
    """The rows, each begun with `first`; `columns` are their `kinds`.  Raises ValueError."""
    fields = [_FIELDS[kind] for kind in columns]
    out = bytearray()
    for row in rows:
        if len(row) != len(fields):
            raise ValueError(f"a row has {len(row)} values for {len(fields)} columns")
        out += first
        for field, value in zip(fields, row, strict=True):
            out += _NULL if value is None else field(value)
    return bytes(out)


Encode = Callable[[bytes, bytes, Sequence[Sequence[Any]]], bytes]

encode: Encode
try:
    from ultraengine.projection.postgres._rows import encode as compiled_encode
except ImportError:
    encode = plain_encode
else:
    encode = compiled_encode
"""`plain_encode`, or its compiled form where there is one."""
