"""Ids that carry their time: UUID version 7 (RFC 9562 §5.7), increasing within a source.

An id with a time in it lets the engine refuse an attempt that is older than its memory
of ids, instead of taking it for a new one.
"""

import os
import time
import uuid
from collections.abc import Callable
from typing import Final

_NANOSECONDS_PER_MS: Final = 1_000_000
_VERSION: Final = 0x7 << 76
_VARIANT: Final = 0b10 << 62


class IdSource:
    """Makes UUIDv7 strings; each is greater than the one before, as text too.

    The 12 bits after the milliseconds hold the fraction of the millisecond (RFC 9562 §6.2,
    method 3); when the clock stands still or goes back, the last value is counted on.
    """

    def __init__(
        self,
        now_ns: Callable[[], int] = time.time_ns,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._now_ns = now_ns
        self._random_bytes = random_bytes
        self._last = 0

    def next(self) -> str:
        """The next id, 36 characters."""
        milliseconds, rest = divmod(self._now_ns(), _NANOSECONDS_PER_MS)
        stamp = max(milliseconds << 12 | (rest << 12) // _NANOSECONDS_PER_MS, self._last + 1)
        self._last = stamp
        tail = int.from_bytes(self._random_bytes(8), "big") >> 2
        value = (stamp >> 12) << 80 | _VERSION | (stamp & 0xFFF) << 64 | _VARIANT | tail
        return str(uuid.UUID(int=value))
