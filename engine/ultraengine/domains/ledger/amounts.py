"""Amounts, assets and business times: how they are read, compared and written.

An amount is an integer in minor units, below 10^38 in size, never a float.  Clients may
send a decimal string, a JSON integer or a msgpack integer; answers always hold strings.

Canonical form in the log, in events and in snapshots: a msgpack integer when it fits into
63 bits and a sign, a decimal string without leading zeros otherwise (msgpack ends at 64
bits).  So one amount has one form, whatever the client spoke.
"""

import re
from typing import Final

from ultraengine.model.errors import Malformed
from ultraengine.model.instant import parse_instant

Number = int | str
"""A number in canonical form."""

SIZE_END: Final = 10**38
"""Amounts and balances are below this in size."""
WORD_END: Final = 1 << 63
"""Numbers in [-WORD_END, WORD_END) are written as integers."""
SCALE_MAX: Final = 38
"""A larger scale would leave no integer part below 10^38."""

_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,37})")
_ASSET: Final = re.compile(r"[A-Z][A-Z0-9]{0,15}/(0|[1-9][0-9]?)")
_TIME: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}"
    r"(?:[Tt]\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?(?:[Zz]|[+-]\d{2}:\d{2}))?",
    re.ASCII,
)
_DATE_CHARACTERS: Final = 10


def wire(value: int) -> Number:
    """The canonical form of a number."""
    return value if -WORD_END <= value < WORD_END else str(value)


def read_amount(value: Number, pointer: str) -> int:
    """The number that a client wrote.  Raises `Malformed` with `pointer`."""
    if isinstance(value, str):
        if _DECIMAL.fullmatch(value) is None:
            raise Malformed(
                "an amount is an integer in minor units: a decimal string of at most 38 digits "
                "or a JSON integer",
                pointer=pointer,
            )
        value = int(value)
    if not -SIZE_END < value < SIZE_END:
        raise Malformed("an amount is below 10^38 in size", pointer=pointer)
    return value


def check_asset(asset: str, pointer: str) -> None:
    """Raises `Malformed` unless `asset` is ``CODE/scale``, as in ``USD/2``."""
    found = _ASSET.fullmatch(asset)
    if found is None or int(found[1]) > SCALE_MAX:
        raise Malformed(
            "an asset is CODE/scale: a capital letter, up to 15 capitals or digits, a slash and "
            f"a scale of 0 to {SCALE_MAX}, as in USD/2",
            pointer=pointer,
        )


def read_time(value: Number, pointer: str) -> int:
    """Microseconds since the Unix epoch from RFC 3339 text; a date alone is its start in UTC.

    Integers are taken as microseconds, which is the canonical form.  Raises `Malformed`.
    """
    if isinstance(value, int):
        if not _TIME_FIRST <= value < _TIME_END:
            raise Malformed("a time is within the years 0001 to 9999", pointer=pointer)
        return value
    text = value
    if _TIME.fullmatch(text) is None:
        raise Malformed(
            "a time is RFC 3339 with an offset, as in 2026-11-20T10:00:00Z", pointer=pointer
        )
    if len(text) == _DATE_CHARACTERS:
        text += "T00:00:00Z"
    try:
        instant = parse_instant(text.upper())
    except (ValueError, OverflowError) as error:
        raise Malformed(f"no such time: {value}", pointer=pointer) from error
    if not _TIME_FIRST <= instant < _TIME_END:
        raise Malformed("a time is within the years 0001 to 9999 in UTC", pointer=pointer)
    return instant


_TIME_FIRST: Final = parse_instant("0001-01-01T00:00:00Z")
_TIME_END: Final = parse_instant("9999-12-31T23:59:59.999999Z") + 1
