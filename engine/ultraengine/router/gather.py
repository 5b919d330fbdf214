"""What several shards say together, where a question names no key."""

from collections.abc import Sequence
from typing import Final

import msgspec

_RANK: Final = {"done": 3, "in_flight": 2, "forgotten": 1}


class FoundReply(msgspec.Struct):
    """The part of a reply that says which of two is the newer one."""

    time: str | None = None
    """RFC 3339 UTC with microseconds, so that texts sort as times do."""


class FoundOutcome(msgspec.Struct):
    """The part of one shard's answer about an id that decides."""

    state: str
    reply: FoundReply | None = None

    @property
    def is_found(self) -> bool:
        """Whether the shard knows the command."""
        return self.state in {"done", "in_flight"}


def newest(found: Sequence[FoundOutcome]) -> int:
    """The place of the answer to give: the newest command that was done, else one that is in
    flight, else that its id may have been forgotten, else that nobody knows it.

    Raises ValueError for no answers.
    """

    def order(place: int) -> tuple[int, str]:
        one = found[place]
        time = "" if one.reply is None else one.reply.time or ""
        return _RANK.get(one.state, 0), time

    return max(range(len(found)), key=order)
