"""What a slot has brought along from the shards that had it before, and where its history is.

A copy of a slot is made of *parts*: its own recorded commands and expiries, in order.  A part's
position is ``era << ERA_SHIFT | offset``, with the offset of the shard that owned the slot in that
era: so positions that a domain keeps stay true when the slot moves, and those of a slot ascend
over all its owners.  Positions of era 0 are plain offsets.

The parts of a batch are in the history of the shard that took it, under the offset of the command
that brought them; `Lineage` knows which.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from ultraengine.model.command import Command
from ultraengine.model.domain import History
from ultraengine.model.ids import Offset
from ultraengine.model.outcome import Outcome, Status

CARRIED: Final = "system"
"""The history's name for batches of parts; no domain can have it."""
ERA_SHIFT: Final = 40
ERAS_MAX: Final = 64
"""Owners that a slot can have had: a domain shifts a position by 17 bits and keeps it in 63."""


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """A command of the slot, with what was recorded of it."""

    position: int
    time: int
    epoch: int
    shard: int
    """The shard that carried it out."""
    command: Command
    outcome: Outcome
    skipped: bool = False
    """A person has overridden it: remembered, and not evolved."""


class Expired(msgspec.Struct, frozen=True, array_like=True, tag="expired"):
    """Expiries of the slot's timers, of those that one tick has caused."""

    position: int
    time: int
    domain: str
    events: list[tuple[int, str, str, msgspec.Raw]]
    """(place among the tick's events, tenant, key, event)."""


Part = Done | Expired
_PARTS: Final = msgspec.msgpack.Decoder(list[Part])
_ENCODER: Final = msgspec.msgpack.Encoder()


def encode_parts(parts: Sequence[Part]) -> bytes:
    """The bytes of a batch."""
    return _ENCODER.encode(parts)


def decode_parts(content: bytes) -> list[Part]:
    """Inverse of `encode_parts`.  Raises `msgspec.MsgspecError`."""
    return _PARTS.decode(content)


class Lineage:
    """Where the parts of a slot are that had other owners before; nothing for a first owner."""

    __slots__ = ("base", "chunks", "firsts", "since")

    def __init__(self) -> None:
        self.base = 0
        """Added to an offset of this shard, it is a position of this era."""
        self.since = 0
        """First offset of this shard at which it owns the slot in this era."""
        self.firsts: list[int] = []
        """Position of the first part of each batch, ascending."""
        self.chunks: list[int] = []
        """The offset under which each batch is in the history of this shard."""

    def note(self, parts: Sequence[Part], offset: int) -> None:
        """A batch was taken."""
        if parts:
            self.firsts.append(parts[0].position)
            self.chunks.append(offset)

    def names(self, point: int) -> bool:
        """Whether a number says of which owner it is: one below every later era's positions may be
        an offset of any of them."""
        return self.base == 0 or point >= 1 << ERA_SHIFT

    def chunk_of(self, position: int) -> int | None:
        """The offset of the batch that holds a position, if any does."""
        at = bisect_right(self.firsts, position) - 1
        return None if at < 0 else self.chunks[at]


class CarriedHistory:
    """The history of one domain in a slot that had other owners.  Implements `History`."""

    __slots__ = ("_carried", "_decode", "_domain", "_lineage", "_own")

    def __init__(
        self,
        domain: str,
        lineage: Lineage,
        own: History,
        carried: History,
        decoders: Mapping[str, Callable[[bytes], Sequence[Any]]],
    ) -> None:
        self._domain = domain
        self._lineage = lineage
        self._own = own
        self._carried = carried
        self._decode = decoders[domain]

    def events(self, offset: Offset) -> Sequence[Any] | None:
        """As `model.domain.History`, by position."""
        lineage = self._lineage
        if offset >= lineage.base:
            return self._own.events(Offset(offset - lineage.base))
        chunk = lineage.chunk_of(offset)
        parts = () if chunk is None else self._carried.events(Offset(chunk)) or ()
        at = bisect_left(parts, offset, key=lambda part: part.position)
        if at == len(parts) or parts[at].position != offset:
            return None
        return self._events(parts[at])

    def _events(self, part: Part) -> Sequence[Any] | None:
        if isinstance(part, Done):
            if part.command.type.partition(".")[0] != self._domain or not is_evolved(part):
                return None
            return self._decode(bytes(part.outcome.events))
        if part.domain != self._domain:
            return None
        found = dict(
            zip((n for n, *_ in part.events), self._decode(encoded_events(part)), strict=True)
        )
        return [found.get(n) for n in range(max(found) + 1)]


def encoded_events(part: Expired) -> bytes:
    """The events as one array, as they were recorded."""
    return _ENCODER.encode([event for *_, event in part.events])


def is_evolved(part: Done) -> bool:
    """Whether a command has changed the slot."""
    return part.outcome.status == Status.ACCEPTED and not part.skipped
