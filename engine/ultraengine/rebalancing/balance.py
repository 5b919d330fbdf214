"""Which slots go where until each shard has as many as any other, and how far that is."""

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from ultraengine.model.ids import SLOT_COUNT, ShardId
from ultraengine.moving.record import SlotRecord, State, serves
from ultraengine.router.shard_map import ShardMap

Logged = Mapping[ShardId, Mapping[int, SlotRecord]]
"""What each shard has logged of slots."""


class Move(msgspec.Struct, frozen=True):
    """One slot and who is to have it."""

    slot: int
    goal: ShardId
    asked: tuple[ShardId, ...] = ()
    """The shards that may have anything of it; empty: all there are."""


class Progress(msgspec.Struct, frozen=True):
    """How far a rebalancing is."""

    moved: int
    left: int
    elapsed_s: float
    slots: tuple[int, ...] = ()
    """Those between two shards."""

    @property
    def eta_s(self) -> float | None:
        """How long it still takes at the pace so far; None before the first slot."""
        return self.elapsed_s / self.moved * self.left if self.moved else None


def shares(owners: Sequence[ShardId], count: int) -> dict[ShardId, int]:
    """How many slots each of their owners is to have when `count` shards share them.

    One more than others have those that own the most now, so that the fewest slots move; shards
    from `count` on are to have none.  Raises ValueError.
    """
    if not 0 < count <= SLOT_COUNT:
        raise ValueError(f"{count} shards are not 1 to {SLOT_COUNT}")
    owned = _owned(owners)
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
    return _moves(shard_map.owners, count)


def _moves(owners: Sequence[ShardId], count: int) -> list[Move]:
    wanted, owned = shares(owners, count), _owned(owners)
    goals: list[ShardId] = []
    surplus: list[int] = []
    for shard, share in wanted.items():
        has = owned.get(shard, [])
        surplus += has[share:]
        goals += [shard] * max(0, share - len(has))
    return [Move(slot, goal) for slot, goal in zip(sorted(surplus), goals, strict=True)]


def _owned(owners: Sequence[ShardId]) -> dict[ShardId, list[int]]:
    owned: dict[ShardId, list[int]] = {}
    for slot, shard in enumerate(owners):
        owned.setdefault(shard, []).append(slot)
    return owned


def unfinished(
    logged: Logged,
    shard_map: ShardMap,
    kept: Sequence[ShardId],
    *,
    back: bool = False,
) -> list[Move]:
    """What earlier coordinators have begun, as moves that end it: forward, or `back` where the
    destination does not own the slot yet.

    `kept`: shards that may own slots.
    """
    goals: dict[int, ShardId] = {}
    for shard, records in sorted(logged.items()):
        for slot, record in records.items():
            if record.state in {State.EXPORTING, State.SEALED}:
                forward = record.peer is not None and record.peer in kept and not back
                goals[slot] = record.peer if forward and record.peer is not None else shard
            elif record.state is State.STAGED:
                goals.setdefault(slot, shard_map.owners[slot])
    for slot, shard in _arrived(logged).items():
        if slot in goals or shard_map.owners[slot] != shard:
            goals[slot] = shard
    return [Move(slot, goal) for slot, goal in sorted(goals.items())]


def _arrived(logged: Logged) -> dict[int, ShardId]:
    """Slots that have an owner by the logs, whatever the map or what was left behind says."""
    newest: dict[int, int] = {}
    for records in logged.values():
        for slot, record in records.items():
            newest[slot] = max(record.era, newest.get(slot, 0))
    return {
        slot: shard
        for shard, records in sorted(logged.items())
        for slot, record in sorted(records.items())
        if record.state is State.OWNED and record.era == newest[slot]
    }


def following(logged: Logged, shard_map: ShardMap, count: int) -> list[Move]:
    """All that is left to do until `count` shards share the slots and no move is open; what was
    begun comes first.  Each move names the shards that have logged anything of its slot, so that
    not all need be asked at each step.  To be asked again whenever the wish has changed.

    A begun move goes on while its destination has room for it, by this wish; else it is turned
    round, unless the destination owns the slot already.  Raises ValueError.
    """
    arrived = _arrived(logged)
    onward = _onward(logged, arrived)
    owners = [*shard_map.owners]
    for slot, shard in arrived.items():
        owners[slot] = shard
    ends = [*owners]
    for slot, shard in onward.items():
        ends[slot] = shard
    wanted, sizes = shares(ends, count), Counter(ends)
    for slot, shard in onward.items():
        if sizes[shard] > wanted[shard] and owners[slot] < count:
            sizes[shard] -= 1
            ends[slot] = owners[slot]
    goals = {move.slot: move.goal for move in _moves(ends, count)}
    known: dict[int, set[ShardId]] = {}
    for shard, records in logged.items():
        for slot in records:
            known.setdefault(slot, set()).add(shard)

    def move(slot: int, goal: ShardId) -> Move:
        asked = {shard_map.owners[slot], goal, *known.get(slot, ())}
        return Move(slot, goal, tuple(sorted(asked)))

    begun = [
        move(one.slot, goals.pop(one.slot, ends[one.slot]))
        for one in unfinished(logged, shard_map, ())
    ]
    return begun + [move(slot, goal) for slot, goal in goals.items()]


def _onward(logged: Logged, arrived: Mapping[int, ShardId]) -> dict[int, ShardId]:
    """Where the slots go that are between two shards."""
    return {
        slot: record.peer
        for _, records in sorted(logged.items())
        for slot, record in sorted(records.items())
        if record.state in {State.EXPORTING, State.SEALED}
        and record.peer is not None
        and slot not in arrived
    }


def all_served(logged: Logged, shard_map: ShardMap) -> bool:
    """Whether each slot is served by the shard that the map names, by this shard's own log.

    Then no other shard has any, whatever it would say: a slot has one owner at most.
    """
    for slot, shard in enumerate(shard_map.owners):
        record = logged[shard].get(slot) if shard in logged else SlotRecord(state=State.ABSENT)
        if record is not None and not serves(record):
            return False
    return True
