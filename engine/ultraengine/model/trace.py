"""W3C Trace Context as text: carried with a command, looked into by whoever records spans."""

import re
from typing import Final

_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)


def is_traceparent(text: str) -> bool:
    """Whether `text` is a traceparent of version 00 (later versions may be longer: refused)."""
    return len(text) == 55 and _TRACEPARENT.fullmatch(text) is not None


def is_sampled(traceparent: str | None) -> bool:
    """Whether the caller records this trace."""
    return traceparent is not None and int(traceparent[-2:], 16) & 1 == 1
