"""Replies that wait until their outcomes are durable: what `eager` outcomes are.

Without, an outcome is written with the next group, and commands whose outcomes were not written
when a process died are decided again: by the release that logged them, or the start is refused.
With it nobody has ever to decide again what a client was told, at the price of one
more flush for each group.
"""

from collections.abc import Iterator

from ultraengine.model.reply import Reply
from ultraengine.shard.effects import Pending


class Held:
    """Replies of executed commands, by offset.  Their commands are in flight until they leave."""

    def __init__(self) -> None:
        self._replies: dict[int, list[tuple[Pending, Reply]]] = {}

    def add(self, offset: int, pending: Pending, reply: Reply) -> None:
        """Keep the answer to `pending`, which tells the outcome of the command at `offset`."""
        self._replies.setdefault(offset, []).append((pending, reply))

    def below(self, end: int) -> Iterator[tuple[Pending, Reply]]:
        """Take out what tells outcomes below `end`, in the order in which it came."""
        for offset in [one for one in self._replies if one < end]:
            yield from self._replies.pop(offset)
