"""Which slots go where until each shard has as many as any other, and how far that is."""

from collections.abc import Mapping, Sequence

import msgspec

from ultraengine.model.ids import SLOT_COUNT, ShardId
from ultraengine.moving.record import SlotRecord, State, serves
from ultraengine.router.shard_map import ShardMap


class Move(msgspec.Struct, frozen=True):
    """One slot and who is to have it."""

    slot: int
    goal: ShardId


class Progress(msgspec.Struct, frozen=True):
    """How far a rebalancing is."""

    moved: int
    left: int
    elapsed_s: float

    @property
    def eta_s(self) -> float | None:
        """How long it still takes at the pace so far; None before the first slot."""
        return self.elapsed_s / self.moved * self.left if self.moved else None


def shares(shard_map: ShardMap, count: int) -> dict[ShardId, int]:
    """How many slots each shard of the map is to have when `count` shards share them.

    One more than others have those that own the most now, so that the fewest slots move; shards
    from `count` on are to have none.  Raises ValueError.
    """
    if not 0 < count <= SLOT_COUNT:
        raise ValueError(f"{count} shards are not 1 to {SLOT_COUNT}")
    owned = _owned(shard_map)
    keep = sorted(
        (ShardId(shard) for shard in range(count)),
        key=lambda shard: (-len(owned.get(shard, ())), shard),
    )
    found = dict.fromkeys(owned, 0)
    for place, shard in enumerate(keep):
        found[shard] = SLOT_COUNT // count + (place < SLOT_COUNT % count)
    return dict(sorted(found.items()))


def moves(shard_map: ShardMap, count: int) -> list[Move]:
    """The fewest moves after which `count` shards share the slots; in the order of the slots.

    Raises ValueError.
    """
    wanted, owned = shares(shard_map, count), _owned(shard_map)
    goals: list[ShardId] = []
    surplus: list[int] = []
    for shard, share in wanted.items():
        has = owned.get(shard, [])
        surplus += has[share:]
        goals += [shard] * max(0, share - len(has))
    return [Move(slot, goal) for slot, goal in zip(sorted(surplus), goals, strict=True)]


def _owned(shard_map: ShardMap) -> dict[ShardId, list[int]]:
    owned: dict[ShardId, list[int]] = {}
    for slot, shard in enumerate(shard_map.owners):
        owned.setdefault(shard, []).append(slot)
    return owned


def unfinished(
    logged: Mapping[ShardId, Mapping[int, SlotRecord]],
    shard_map: ShardMap,
    kept: Sequence[ShardId],
    *,
    back: bool = False,
) -> list[Move]:
    """What earlier coordinators have begun, as moves that end it: forward, or `back` where the
    destination does not own the slot yet.

    `logged`: what each shard has logged of slots; `kept`: shards that may own slots.
    """
    goals: dict[int, ShardId] = {}
    for shard, records in sorted(logged.items()):
        for slot, record in records.items():
            if record.state in {State.EXPORTING, State.SEALED}:
                forward = record.peer is not None and record.peer in kept and not back
                goals[slot] = record.peer if forward and record.peer is not None else shard
            elif record.state is State.STAGED:
                goals.setdefault(slot, shard_map.owners[slot])
    for shard, records in sorted(logged.items()):
        for slot, record in records.items():
            # It has arrived, and the map or what was left behind does not say so yet.
            is_newest = all(
                record.era >= other[slot].era for other in logged.values() if slot in other
            )
            if serves(record) and record.state is State.OWNED and is_newest:
                open_elsewhere = slot in goals
                if open_elsewhere or shard_map.owners[slot] != shard:
                    goals[slot] = shard
    return [Move(slot, goal) for slot, goal in sorted(goals.items())]
