"""What a halted shard says, and what may be done with it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.unit.shard.test_shard import Fragile, Rig, code_of

from ultraengine.model.errors import EngineError


async def test_an_answer_after_a_halt_says_unknown_and_not_refused(tmp_path: Path) -> None:
    rig = Rig(tmp_path, domains=(Fragile(),))
    await rig.start()
    reply, joined = await rig.send(rig.admit("a", 13), rig.admit("a", 13))
    assert code_of(reply) == code_of(joined) == "OUTCOME_UNKNOWN"
    # "refused" would mean that it was never logged, and it was.
    assert reply.outcome == joined.outcome == "unknown"
    assert not joined.duplicate
    await rig.shard.stop()


async def test_a_halted_shard_does_not_say_that_a_durable_command_was_never_logged(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, domains=(Fragile(),))
    await rig.start()
    await rig.send(rig.admit("a", 13))
    with pytest.raises(EngineError) as caught:
        await rig.shard.outcome("t", "k", "a")
    assert caught.value.code == "SHARD_UNAVAILABLE"
    await rig.shard.stop()


async def test_a_retry_being_verified_while_the_shard_halts_is_answered_once(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, domains=(Fragile(),))
    shard = await rig.start()
    await rig.send(rig.admit("first", 12))
    await shard.rest()
    reading, go_on = asyncio.Event(), asyncio.Event()
    find = shard.reads.find

    async def slow(pending: Any, candidates: Any) -> Any:
        reading.set()
        await go_on.wait()
        return await find(pending, candidates)

    shard.reads.find = slow  # type: ignore[method-assign]
    retry = asyncio.create_task(rig.send(rig.admit("first", 12)))
    await reading.wait()
    await rig.send(rig.admit("fatal", 1))
    (reply,) = await retry
    assert reply.outcome == "unknown"
    failed: list[Any] = []
    tasks = list(shard._tasks)
    go_on.set()
    failed = await asyncio.gather(*tasks, return_exceptions=True)
    assert failed == [None]
    await shard.stop()
