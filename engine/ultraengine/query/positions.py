"""How far the tables have come, and how far a request wants them to be.

An answer says the offset of the last command that it reflects, by shard:

    Ultra-Offset: 0=41, 1=1007

The same header in a request, or ``min_offset=41`` (with ``shard=0`` where there are several),
waits until the tables have come that far: a client that sends back the `offset` of a reply
reads what it has written.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ultraengine.model.errors import Malformed
from ultraengine.model.ids import Offset, ShardId

HEADER: Final = "Ultra-Offset"
SHARDS_MAX: Final = 4_096
OFFSET_MAX: Final = (1 << 63) - 2
_DIGITS: Final = re.compile(r"[0-9]{1,19}")
_PAIR: Final = re.compile(r" *([0-9]{1,4})=([0-9]{1,19}) *")


class Position(msgspec.Struct, frozen=True):
    """How far a set of tables has come."""

    ends: tuple[tuple[ShardId, Offset], ...] = ()
    """First offset that is not in the tables, by shard, ascending."""

    @classmethod
    def of(cls, ends: Mapping[ShardId, Offset]) -> "Position":
        """From a mapping in any order."""
        return cls(tuple(sorted(ends.items())))

    @property
    def header(self) -> str:
        """Value of ``Ultra-Offset``; shards of which nothing is reflected are left out."""
        return ", ".join(f"{shard}={end - 1}" for shard, end in self.ends if end > 0)

    def covers(self, other: "Position") -> bool:
        """Whether it is as far as `other` in every shard."""
        mine = dict(self.ends)
        return all(mine.get(shard, 0) >= end for shard, end in other.ends)


class Wanted(msgspec.Struct, frozen=True):
    """What must be reflected: offsets by shard, or one offset of the only shard there is."""

    offsets: tuple[tuple[ShardId, Offset], ...] = ()
    alone: Offset | None = None

    def __bool__(self) -> bool:
        """Whether anything is wanted."""
        return bool(self.offsets) or self.alone is not None

    def reached(self, position: Position) -> bool:
        """Whether `position` reflects it.

        Raises `Malformed` for ``min_offset`` without ``shard`` over several shards.
        """
        ends = dict(position.ends)
        if self.alone is not None:
            if len(ends) > 1:
                raise Malformed(
                    "the tables follow several shards: say which with 'shard', or send the "
                    f"header {HEADER}",
                    pointer="/query/min_offset",
                )
            if self.alone >= max(ends.values(), default=0):
                return False
        return all(offset < ends.get(shard, 0) for shard, offset in self.offsets)


NOTHING: Final = Wanted()


def read_wanted(min_offset: str | None, shard: str | None, header: Sequence[str]) -> Wanted:
    """From ``min_offset``, ``shard`` and all ``Ultra-Offset`` headers.  Raises `Malformed`."""
    offsets = dict(pair for text in header for pair in _pairs(text))
    alone: Offset | None = None
    if min_offset is None:
        if shard is not None:
            raise Malformed("'shard' belongs to 'min_offset'", pointer="/query/shard")
    else:
        offset = _offset(min_offset, "/query/min_offset")
        if shard is None:
            alone = offset
        else:
            if _DIGITS.fullmatch(shard) is None or int(shard) >= SHARDS_MAX:
                raise Malformed("a shard is 0 to 4095", pointer="/query/shard")
            place = ShardId(int(shard))
            offsets[place] = max(offset, offsets.get(place, offset))
    return Wanted(tuple(sorted(offsets.items())), alone)


def _offset(text: str, pointer: str) -> Offset:
    if _DIGITS.fullmatch(text) is None or int(text) > OFFSET_MAX:
        raise Malformed("an offset is a whole number from 0 of at most 63 bits", pointer=pointer)
    return Offset(int(text))


def _pairs(text: str) -> list[tuple[ShardId, Offset]]:
    found = []
    if not text.strip():
        return []  # What an answer says of tables that reflect nothing may be sent back.
    for part in text.split(","):
        pair = _PAIR.fullmatch(part)
        if pair is None or int(pair[1]) >= SHARDS_MAX:
            raise Malformed(
                f"{HEADER} is shard=offset, as in '0=41, 1=1007'",
                pointer=f"/header/{HEADER.lower()}",
            )
        found.append((ShardId(int(pair[1])), _offset(pair[2], f"/header/{HEADER.lower()}")))
    return found
