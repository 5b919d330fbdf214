"""One coordinator over shards in memory: maps, failures, and moves beside each other."""

from collections.abc import Sequence

import pytest
from tests.unit.rebalancing.logs import AskedLogs, Logs

from ultraengine.model.errors import EngineError
from ultraengine.model.ids import ShardId
from ultraengine.moving.record import Activate, Message, Seal
from ultraengine.ports import OutcomeUnknown
from ultraengine.rebalancing.balance import Move, Progress
from ultraengine.rebalancing.driver import LAG_MAX, MoveFailed, Mover
from ultraengine.router.shard_map import ShardMap

ZERO, ONE, TWO = ShardId(0), ShardId(1), ShardId(2)


class MemoryMaps:
    """A map in memory.  `faults` are used up by swaps, one each: an error, and whether the swap is
    done all the same."""

    def __init__(self, shard_map: ShardMap) -> None:
        self.shard_map = shard_map
        self.faults: list[tuple[OSError, bool]] = []
        self.swaps = 0

    async def read(self) -> ShardMap:
        return self.shard_map

    async def swap(self, shard_map: ShardMap) -> bool:
        self.swaps += 1
        fault, lands = self.faults.pop() if self.faults else (None, True)
        if lands and shard_map.version == self.shard_map.version + 1:
            self.shard_map = shard_map
        if fault is not None:
            raise fault
        return shard_map == self.shard_map


class World:
    def __init__(self, shards: int = 2) -> None:
        first = ShardMap.even(shards)
        self.logs, self.maps = Logs(first), MemoryMaps(first)
        self.mover = Mover(AskedLogs(self.logs, [ZERO, ONE, TWO]), self.maps)

    async def move(self, slots: Sequence[int], goal: ShardId, parallel: int = 1) -> Progress:
        work = [Move(slot, goal) for slot in slots]
        return await self.mover.carry_out(work, lambda _: None, parallel=parallel)


async def test_slots_that_arrive_together_are_published_together_and_told() -> None:
    world = World()
    slots = range(64)
    await world.move(slots, TWO, parallel=16)
    assert {world.maps.shard_map.owners[slot] for slot in slots} == {TWO}
    assert world.maps.swaps < len(slots)
    assert world.maps.shard_map.version == 1 + world.maps.swaps
    assert world.logs.told[-1] == world.maps.shard_map
    assert all(world.logs.serving(slot, 3) == [2] for slot in slots)


async def test_a_slot_of_a_long_log_to_which_nobody_writes_arrives() -> None:
    world = World()
    world.logs.ends[ZERO] = 5 * LAG_MAX
    # Nothing is logged between the copy and the seal, so there is nothing left to copy after it.
    await world.move(range(4), TWO)
    assert all(world.logs.serving(slot, 3) == [2] for slot in range(4))


async def test_a_copy_that_is_complete_and_another_image_ends_the_work() -> None:
    world = World()
    world.logs.ends[ZERO] = 5 * LAG_MAX

    def spoil(slot: int, message: Message) -> None:
        if isinstance(message, Seal):
            world.logs.copied[TWO, slot] += 1

    world.logs.before_send = spoil
    with pytest.raises(MoveFailed, match="the copy is complete and is another image"):
        await world.mover.settle(Move(0, TWO))
    assert world.logs.serving(0, 3) == []


@pytest.mark.parametrize("lands", [False, True])
@pytest.mark.parametrize("error", [OutcomeUnknown, ConnectionError, TimeoutError])
async def test_a_swap_without_an_answer_is_looked_at_again(
    error: type[OSError], *, lands: bool
) -> None:
    world = World()
    world.maps.faults = [(error(5, "as told"), lands)]
    await world.move([7], TWO)
    assert world.maps.shard_map == ShardMap.even(2).moved(7, TWO)
    assert world.logs.serving(7, 3) == [2]
    assert world.mover.waits == {}


async def test_a_map_that_cannot_be_written_ends_the_work() -> None:
    world = World()
    world.maps.faults = [(PermissionError(13, "no"), False)]
    with pytest.raises(ExceptionGroup) as refused:
        await world.move([7], TWO)
    assert isinstance(refused.value.exceptions[0], PermissionError)


@pytest.mark.parametrize("step", [Seal, Activate])
async def test_a_slot_that_cannot_be_moved_is_where_it_was(step: type[Message]) -> None:
    world = World()

    def refuse(_slot: int, message: Message) -> None:
        if isinstance(message, step):
            raise EngineError("a domain is missing", code="MALFORMED")

    world.logs.before_send = refuse
    with pytest.raises(ExceptionGroup) as failed:
        await world.move([7], TWO)
    assert isinstance(failed.value.exceptions[0], MoveFailed)
    assert world.logs.serving(7, 3) == [0]
    assert world.maps.shard_map == ShardMap.even(2)


async def test_a_move_waits_for_a_shard_that_is_away_and_says_so() -> None:
    world = World()
    seen: list[dict[int, str]] = []
    left = 3

    def away(slot: int, _message: Message) -> None:
        nonlocal left
        seen.append(dict(world.mover.waits))
        if left:
            left -= 1
            raise EngineError("shard 2 is away", code="SHARD_UNAVAILABLE")

    world.logs.before_send = away
    done = await world.move([7], TWO)
    assert (done.moved, done.left) == (1, 0)
    assert {7: "shard 2 is away"} in seen
    assert world.mover.waits == {}
    assert world.logs.serving(7, 3) == [2]
