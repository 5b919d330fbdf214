"""Instants as text: RFC 3339 in UTC with microseconds."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from ultraengine.model.ids import Instant

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    """A whole second as text; the times of one second share it."""
    return (_EPOCH + timedelta(seconds=seconds)).isoformat(timespec="seconds")[:19]


def format_instant(instant: Instant) -> str:
    """``2026-11-20T10:00:00.000001Z``; always six decimals, so that text sorts like time."""
    seconds, micros = divmod(instant, 1_000_000)
    return f"{_second(seconds)}.{micros:06d}Z"


def parse_instant(text: str) -> Instant:
    """Read an RFC 3339 date-time with an offset.  Raises ValueError without one."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no UTC offset; write it as ...Z")
    return Instant((moment - _EPOCH) // _MICROSECOND)
