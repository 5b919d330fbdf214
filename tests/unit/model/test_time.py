"""Instants as text, and the time that ids carry."""

import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.model.id_time import id_time
from ultraengine.model.ids import Instant
from ultraengine.model.instant import format_instant, parse_instant

MOMENT = Instant(1_763_632_800_123_000)
"""2025-11-20T10:00:00.123Z"""
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid(milliseconds: int, tail: str = "0" * 16) -> str:
    digits = ""
    for _ in range(10):
        milliseconds, digit = divmod(milliseconds, 32)
        digits = CROCKFORD[digit] + digits
    return digits + tail


def uuid7(milliseconds: int) -> str:
    return str(uuid.UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | 12345))


@given(st.datetimes(timezones=st.just(UTC)))
def test_an_instant_comes_back_from_its_text(moment: datetime) -> None:
    instant = parse_instant(moment.isoformat())
    assert parse_instant(format_instant(instant)) == instant


def test_an_instant_has_six_decimals_and_ends_in_z() -> None:
    assert format_instant(MOMENT) == "2025-11-20T10:00:00.123000Z"
    assert format_instant(Instant(-1)) == "1969-12-31T23:59:59.999999Z"


def test_an_offset_is_taken_into_account() -> None:
    assert parse_instant("2025-11-20T12:00:00.123+02:00") == MOMENT


def test_a_time_without_an_offset_is_refused_with_what_to_write() -> None:
    with pytest.raises(ValueError, match=r"has no UTC offset; write it as \.\.\.Z"):
        parse_instant("2025-11-20T10:00:00")


@given(st.integers(1_420_070_400_000, (1 << 48) - 1))
def test_uuid7_and_ulid_say_when_they_were_made(milliseconds: int) -> None:
    assert id_time(uuid7(milliseconds)) == milliseconds * 1000
    assert id_time(uuid7(milliseconds).upper()) == milliseconds * 1000
    assert id_time(ulid(milliseconds)) == milliseconds * 1000


@pytest.mark.parametrize(
    "opaque",
    [
        "pay-8841",
        "",
        str(uuid.UUID(int=5, version=4)),
        "x" + ulid(1_763_632_800_123),
        ulid(1_763_632_800_123)[:-1],
        ulid(1_763_632_800_123).replace("0", "U"),
        "8" + ulid(1_763_632_800_123)[1:],
        ulid(1_420_070_399_999),
    ],
)
def test_other_ids_say_nothing(opaque: str) -> None:
    assert id_time(opaque) is None
