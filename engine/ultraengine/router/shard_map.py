"""The shard map: which shard owns which slots, under a version that only grows.

A map is a value.  Whoever has an older one is told so by the shard (WRONG_SHARD with the
shard's version), because a shard's own record outranks every map (`shard.ownership`).

As JSON, which is how it is published:

    {"version": 3, "ranges": [[0, 2048, 0], [2048, 4096, 1]]}

Each range is (first slot, end, shard) and excludes its end; together they cover all slots.
"""

from collections.abc import Mapping
from functools import cached_property
from itertools import chain, groupby, pairwise, repeat

import msgspec

from ultraengine.model.ids import SLOT_COUNT, ShardId, slot_of


class MapRefused(ValueError):
    """The content is no shard map; the message says why."""


class SlotRange(msgspec.Struct, frozen=True, array_like=True):
    """Slots ``start <= slot < end`` and the shard that owns them."""

    start: int
    end: int
    shard: ShardId


class ShardMap(msgspec.Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """Every slot's shard.  Made by `even` or `decode`, which check it."""

    version: int
    ranges: tuple[SlotRange, ...]

    @classmethod
    def even(cls, shard_count: int, *, version: int = 1) -> "ShardMap":
        """Shards 0 to `shard_count` - 1 with as many slots each as can be, in order."""
        if not 0 < shard_count <= SLOT_COUNT:
            raise MapRefused(f"{shard_count} shards are not 1 to {SLOT_COUNT}")
        starts = [shard * SLOT_COUNT // shard_count for shard in range(shard_count + 1)]
        return cls(
            version,
            tuple(
                SlotRange(start, end, ShardId(shard))
                for shard, (start, end) in enumerate(pairwise(starts))
            ),
        )

    @classmethod
    def decode(cls, content: bytes) -> "ShardMap":
        """Read the JSON form.  Raises `MapRefused`."""
        try:
            found = msgspec.json.decode(content, type=cls)
        except msgspec.MsgspecError as error:
            raise MapRefused(str(error)) from error
        at = 0
        for one in found.ranges:
            if one.start != at or not one.start < one.end <= SLOT_COUNT or one.shard < 0:
                raise MapRefused(
                    f"the range {one.start}..{one.end} of shard {one.shard} does not go on at "
                    f"slot {at}: ranges are in order, without gaps, and exclude their end"
                )
            at = one.end
        if at != SLOT_COUNT or found.version < 1:
            raise MapRefused(
                f"version {found.version} with slots up to {at}: versions start at 1 and a map "
                f"covers {SLOT_COUNT} slots"
            )
        return found

    def moved(self, slot: int, shard: ShardId) -> "ShardMap":
        """The next version, in which one slot is another shard's: what to swap in onto this one."""
        return self.moved_all({slot: shard})

    def moved_all(self, owners: Mapping[int, ShardId]) -> "ShardMap":
        """The next version, in which these slots are these shards': as `moved`, in one step."""
        shards = [*self.owners]
        for slot, shard in owners.items():
            shards[slot] = shard
        ranges: list[SlotRange] = []
        start = 0
        for shard, run in groupby(shards):
            end = start + len(list(run))
            ranges.append(SlotRange(start, end, shard))
            start = end
        return ShardMap(self.version + 1, tuple(ranges))

    def encode(self) -> bytes:
        """The JSON form; the same map has the same bytes."""
        return msgspec.json.encode(self)

    @cached_property
    def owners(self) -> tuple[ShardId, ...]:
        """The shard of each slot."""
        runs = (repeat(one.shard, one.end - one.start) for one in self.ranges)
        return tuple(chain.from_iterable(runs))

    @cached_property
    def shards(self) -> tuple[ShardId, ...]:
        """Every shard that owns a slot, ascending."""
        return tuple(sorted({one.shard: None for one in self.ranges}))

    def shard_of(self, tenant: str, key: str) -> ShardId:
        """The shard of a partition key."""
        return self.owners[slot_of(tenant, key)]

    def slots_of(self, shard: ShardId) -> tuple[tuple[int, int], ...]:
        """The ranges of one shard; each excludes its end."""
        return tuple((one.start, one.end) for one in self.ranges if one.shard == shard)
