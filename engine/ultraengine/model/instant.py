"""Instants as text: RFC 3339 in UTC with microseconds."""

from datetime import UTC, datetime, timedelta
from typing import Final

from ultraengine.model.ids import Instant

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def format_instant(instant: Instant) -> str:
    """``2026-11-20T10:00:00.000001Z``; always six decimals, so that text sorts like time."""
    text = (_EPOCH + timedelta(microseconds=instant)).isoformat(timespec="microseconds")
    return text[:-6] + "Z"


def parse_instant(text: str) -> Instant:
    """Read an RFC 3339 date-time with an offset.  Raises ValueError without one."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no UTC offset; write it as ...Z")
    return Instant((moment - _EPOCH) // _MICROSECOND)
