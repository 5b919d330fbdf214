"""A shard without room for its outcomes, and cuts that are given up."""

import asyncio
from pathlib import Path
from typing import Any

from tests.unit.shard.test_shard import Rig, code_of

from ultraengine.log.driver import Written
from ultraengine.ports import DiskFull
from ultraengine.reply.waiters import Ticket


async def until(condition: Any) -> None:
    """Wait for something that happens soon."""
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


async def test_a_cut_that_waits_on_a_full_disk_goes_on_when_there_is_room(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    shard = await rig.start()
    refusing = refuse_outcomes(rig)
    await rig.add(3)
    holding = asyncio.create_task(shard.hold())
    await until(lambda: shard.status().state == "read_only")
    refusing.clear()
    await asyncio.wait_for(holding, 10)
    shard.release()
    assert (await rig.add()).outcome == "accepted"
    await shard.stop()


def refuse_outcomes(rig: Rig) -> list[bool]:
    """Let every write of outcomes alone find no room, until the list is emptied."""
    log, refusing = rig.shard.log, [True]
    write = log.write

    def refused(drafts: Any, on_durable: Any, *, sync: bool = True) -> None:
        if refusing and len(drafts) == 1 and drafts[0].kind == 2:
            at = rig.shard.stand
            on_durable(
                Written(
                    at.end_sequence, at.end_sequence, at.chain, at.state_chain, 0.0, 0.0, (), 0,
                    DiskFull(28, "No space left on device"),
                )
            )  # fmt: skip
        else:
            write(drafts, on_durable, sync=sync)

    log.write = refused  # type: ignore[method-assign]
    return refusing


async def test_space_that_returns_does_not_resume_a_paused_shard(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    shard = await rig.start()
    refusing = refuse_outcomes(rig)
    await rig.add(3)
    pausing = asyncio.create_task(shard.pause("maintenance"))
    await asyncio.sleep(0.1)
    refusing.clear()
    await asyncio.wait_for(pausing, 10)
    assert shard.status().state == "paused"
    assert code_of(await rig.add()) == "PAUSED"
    await shard.resume()
    assert (await rig.add()).outcome == "accepted"
    await shard.stop()


async def test_a_hold_that_is_cancelled_lets_waiting_commands_go_on(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    shard = await rig.start()
    await shard.rest()
    holding = asyncio.create_task(shard.hold())
    await asyncio.sleep(0)
    done: list[Ticket] = []
    shard.submit([rig.admit("a")], Ticket(1, done.append))
    await asyncio.sleep(0)  # The hold's future is done, and its task has not gone on yet.
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    if not holding.cancelled():
        shard.release()
    await until(lambda: done)
    await shard.stop()
