"""What answers wait for: a first attempt read back, an offset that is reached."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.unit.log.log_world import World, command, outcome

from ultraengine.model.command import Command
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Epoch, Instant
from ultraengine.reply.driver import OffsetWaiters, Recall
from ultraengine.reply.recorded import Recorded, name_of


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def world() -> World:
    """Offsets 0 to 3 with outcomes, 4 and 5 without."""
    world = World()
    world.groups(3)
    return world


def recall(world: World, threads: ThreadPoolExecutor, *unrecorded: int) -> Recall:
    memory = {
        offset: Recorded(command(offset), outcome(offset), Epoch(1), Instant(0))
        for offset in unrecorded
    }
    return Recall(world.log.reader(), threads, memory)


async def test_a_first_attempt_is_read_back_from_the_log_with_its_outcome(
    world: World, threads: ThreadPoolExecutor
) -> None:
    found = await recall(world, threads).find(name_of(command(2)), [3, 2])
    assert found is not None
    assert (found.command, found.outcome, found.epoch) == (command(2), outcome(2), 1)
    assert found.time == world.time - 1


async def test_what_is_not_recorded_yet_is_found_in_memory_alone(
    world: World, threads: ThreadPoolExecutor
) -> None:
    name = name_of(command(5))
    assert await recall(world, threads).find(name, [5]) is None
    found = await recall(world, threads, 5).find(name, [5])
    assert found is not None
    assert found.outcome == outcome(5)


async def test_a_candidate_is_confirmed_by_tenant_key_and_id(
    world: World, threads: ThreadPoolExecutor
) -> None:
    asked = recall(world, threads)
    tenant, key, command_id = name_of(command(1))
    assert await asked.find((tenant, "", command_id), [1]) is not None
    for other in [
        ("else", key, command_id),
        (tenant, "else", command_id),
        (tenant, key, "else"),
        (tenant, "", "else"),
    ]:
        assert await asked.find(other, [1]) is None


async def test_offsets_beyond_the_log_are_no_first_attempt(
    world: World, threads: ThreadPoolExecutor
) -> None:
    assert await recall(world, threads).find(name_of(command(9)), [9]) is None


async def test_a_read_waits_until_its_offset_is_executed_and_no_longer() -> None:
    waiters = OffsetWaiters(wait_s=30)
    await waiters.wait(4, applied_end=5)
    reading = asyncio.ensure_future(waiters.wait(5, applied_end=5))
    await asyncio.sleep(0)
    waiters.reached(5)
    await asyncio.sleep(0)
    assert not reading.done()
    waiters.reached(6)
    waiters.reached(7)
    await reading


async def test_a_read_that_waits_too_long_is_told_which_offset_is_missing() -> None:
    waiters = OffsetWaiters(wait_s=0.001)
    with pytest.raises(EngineError, match="offset 9 was not reached") as caught:
        await waiters.wait(9, applied_end=3)
    assert caught.value.code == "WAIT_TIMEOUT"
    waiters.reached(10)


def test_commands_are_told_apart_by_tenant_key_and_id() -> None:
    one = command(1)
    assert isinstance(one, Command)
    assert name_of(one) == (one.tenant, one.key, one.id)
