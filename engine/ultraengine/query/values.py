"""Values in requests and answers: text by `ColumnType`, as people and JSON write them.

INTEGER   42        AMOUNT, TOTAL  "1250" (never a float, in JSON a string)
TIME      2026-11-20T10:00:00Z, or a date alone for its start in UTC
DATE      2026-11-20                  BOOLEAN   true, false
BYTES     hexadecimal                 TEXT      as it is, without U+0000
JSON      in answers only
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import msgspec

from ultraengine.model.errors import Malformed
from ultraengine.model.ids import Instant
from ultraengine.model.instant import format_instant
from ultraengine.model.projection import TEXT_CHARS_MAX, ColumnType, Value

INTEGER_END: Final = 1 << 63
AMOUNT_DIGITS: Final = 38
TOTAL_DIGITS: Final = 57
SHOWN_CHARS_MAX: Final = 60
_EPOCH: Final = date(1970, 1, 1)
_START: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,56})")
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_TIME: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?(?:[Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*")
_TIME_FIRST: Final = -62_135_596_800_000_000
_TIME_END: Final = 253_402_300_800_000_000
"""Years 0001 to 9999."""

WANTED: Final[Mapping[ColumnType, str]] = {
    ColumnType.INTEGER: "a whole number of 64 bits",
    ColumnType.AMOUNT: f"an integer of at most {AMOUNT_DIGITS} digits",
    ColumnType.TOTAL: f"an integer of at most {TOTAL_DIGITS} digits",
    ColumnType.TEXT: "text without U+0000",
    ColumnType.TIME: "RFC 3339 with an offset, as in 2026-11-20T10:00:00Z, or a date",
    ColumnType.DATE: "a date, as in 2026-11-20",
    ColumnType.BOOLEAN: "true or false",
    ColumnType.BYTES: "hexadecimal in lower case",
    ColumnType.JSON: "not comparable",
}


def read_value(text: str, kind: ColumnType, length: int, pointer: str) -> Value:
    """The value that a request writes as `text`.  Raises `Malformed` with `pointer`."""
    value = _READ[kind](text, length)
    if value is None:
        shown = text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}…"
        raise Malformed(f"{shown!r} is not {WANTED[kind]}", pointer=pointer)
    return value


def _integer(text: str, _length: int) -> Value:
    if _INTEGER.fullmatch(text) is None:
        return None
    value = int(text)
    return value if -INTEGER_END <= value < INTEGER_END else None


def _amount(text: str, _length: int) -> Value:
    digits = len(text) - text.startswith("-")
    return int(text) if _DECIMAL.fullmatch(text) and digits <= AMOUNT_DIGITS else None


def _total(text: str, _length: int) -> Value:
    return int(text) if _DECIMAL.fullmatch(text) else None


def _text(text: str, length: int) -> Value:
    return text if len(text) <= min(length, TEXT_CHARS_MAX) and "\0" not in text else None


def _date(text: str, _length: int) -> Value:
    if _DATE.fullmatch(text) is None:
        return None
    try:
        return (date.fromisoformat(text) - _EPOCH).days
    except ValueError:
        return None


def _time(text: str, _length: int) -> Value:
    if _DATE.fullmatch(text):
        text += "T00:00:00Z"
    if _TIME.fullmatch(text) is None:
        return None
    try:
        moment = (datetime.fromisoformat(text.upper()) - _START) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return None
    return moment if _TIME_FIRST <= moment < _TIME_END else None


def _boolean(text: str, _length: int) -> Value:
    return {"true": True, "false": False}.get(text)


def _bytes(text: str, length: int) -> Value:
    return bytes.fromhex(text) if _HEX.fullmatch(text) and len(text) <= 2 * length else None


def _nothing(_text: str, _length: int) -> Value:
    return None


_READ: Final = {
    ColumnType.INTEGER: _integer,
    ColumnType.AMOUNT: _amount,
    ColumnType.TOTAL: _total,
    ColumnType.TEXT: _text,
    ColumnType.TIME: _time,
    ColumnType.DATE: _date,
    ColumnType.BOOLEAN: _boolean,
    ColumnType.BYTES: _bytes,
    ColumnType.JSON: _nothing,
}


def show(value: Value, kind: ColumnType) -> Any:
    """A value in an answer, for JSON and msgpack alike."""
    if value is None:
        return None
    found: Any = _SHOW[kind](value)
    return found


def _as_it_is(value: Any) -> Any:
    return value


def _show_time(value: Any) -> str:
    return format_instant(Instant(value))


def _show_date(value: Any) -> str:
    return (_EPOCH + timedelta(days=value)).isoformat()


_SHOW: Final[Mapping[ColumnType, Any]] = {
    ColumnType.INTEGER: _as_it_is,
    ColumnType.AMOUNT: str,
    ColumnType.TOTAL: str,
    ColumnType.TEXT: _as_it_is,
    ColumnType.TIME: _show_time,
    ColumnType.DATE: _show_date,
    ColumnType.BOOLEAN: _as_it_is,
    ColumnType.BYTES: bytes.hex,
    ColumnType.JSON: msgspec.json.decode,
}
SCHEMAS: Final[Mapping[ColumnType, Mapping[str, Any]]] = {
    ColumnType.INTEGER: {
        "type": "integer", "minimum": -INTEGER_END, "maximum": INTEGER_END - 1,
    },
    ColumnType.AMOUNT: {"type": "string", "pattern": "^-?(0|[1-9][0-9]{0,37})$"},
    ColumnType.TOTAL: {"type": "string", "pattern": "^-?(0|[1-9][0-9]{0,56})$"},
    ColumnType.TEXT: {"type": "string"},
    ColumnType.TIME: {"type": "string", "format": "date-time"},
    ColumnType.DATE: {"type": "string", "format": "date"},
    ColumnType.BOOLEAN: {"type": "boolean"},
    ColumnType.BYTES: {"type": "string", "pattern": "^([0-9a-f]{2})*$"},
    ColumnType.JSON: {},
}  # fmt: skip  # A table reads better in rows.
"""JSON schemas of the values."""
