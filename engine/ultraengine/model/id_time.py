"""Time carried by ids: UUIDv7 (RFC 9562 §5.7) and ULID.

Lets the engine refuse a late retry whose first attempt it may have forgotten, instead of
doing it twice (`docs/api.md`, TOO_OLD).  Opaque ids carry none.
"""

import re
from typing import Final

from ultraengine.model.ids import Instant

_UUID7: Final = re.compile(
    r"(?P<high>[0-9a-fA-F]{8})-(?P<low>[0-9a-fA-F]{4})-7[0-9a-fA-F]{3}"
    r"-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
)
_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_CROCKFORD: Final = {digit: n for n, digit in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}
_EARLIEST_MS: Final = 1_420_070_400_000
"""2015-01-01: before ULIDs existed, so an earlier "time" is an opaque id that looks like one."""


def id_time(command_id: str) -> Instant | None:
    """When an id says that it was made; None when it says nothing."""
    found = _UUID7.fullmatch(command_id)
    if found is not None:
        return Instant(int(found["high"] + found["low"], 16) * 1000)
    if _ULID.fullmatch(command_id) is None:
        return None
    milliseconds = 0
    for digit in command_id[:10]:
        milliseconds = milliseconds * 32 + _CROCKFORD[digit]
    return Instant(milliseconds * 1000) if milliseconds >= _EARLIEST_MS else None
