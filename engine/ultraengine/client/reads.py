"""Reads over HTTP, and how far each key has been seen.

A read asks for ``min_offset``: the offset of the last command of the same key that this client
got an answer for, which what is read must include.  So a client reads its own writes, whichever
replica answers.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec

from ultraengine.model.reply import Reply

KEYS_SEEN_MAX: Final = 10_000
"""Keys whose last position is kept; the one not used for longest is dropped."""

OutcomeState = Literal["done", "in_flight", "unknown", "forgotten"]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a read returned, and the position it was read at."""

    value: Any
    """The decoded JSON body."""
    etag: str | None
    """Version of what was read, without quotes; for ``expected_version`` and ``if_versions``."""
    epoch: int | None
    offset: int | None
    """The answer holds the effects of all commands up to this offset, this one included."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command."""

    state: OutcomeState
    """``unknown`` is final only for ids above the dedupe floor; ``forgotten`` is below it."""
    reply: Reply | None = None
    """The original reply when the state is ``done``."""
    dedup_floor: int | None = None
    """First offset whose ids are still remembered."""


class Seen:
    """The offset of the last answered command of each key; bounded."""

    def __init__(self, keys_max: int = KEYS_SEEN_MAX) -> None:
        self._keys_max = keys_max
        self._offsets: OrderedDict[str, int] = OrderedDict()

    def note(self, key: str, reply: Reply) -> None:
        """Remember the reply to a command of `key`."""
        if reply.offset is None:
            return
        self._offsets[key] = max(reply.offset, self._offsets.pop(key, 0))
        if len(self._offsets) > self._keys_max:
            self._offsets.popitem(last=False)

    def offset(self, key: str) -> int | None:
        """What a read of `key` must include; None when nothing is known."""
        return self._offsets.get(key)


def key_of(path: str) -> str | None:
    """The partition key in ``{domain}/{key}/…``; None where there is none."""
    parts = path.strip("/").split("/")
    return parts[1] if len(parts) > 1 else None


def read_url(base: str, path: str) -> str:
    """The address of a read: below ``/v1/``, or as it is with a slash in front."""
    below = path if path.startswith("/") else f"/v1/{path}"
    return base + quote(below, safe="/:")


def read_params(
    params: Mapping[str, str | int | None] | None, *, min_offset: int | None, read: str | None
) -> dict[str, str]:
    """The query of a read; members that are None are left out."""
    given: dict[str, str | int | None] = {**(params or {}), "min_offset": min_offset, "read": read}
    return {name: str(value) for name, value in given.items() if value is not None}
