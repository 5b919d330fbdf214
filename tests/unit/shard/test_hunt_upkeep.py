"""Background work that fails beside execution."""

import asyncio
from pathlib import Path

from tests.unit.shard.test_shard import Rig


async def test_upkeep_that_fails_stops_no_group_and_no_rest(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    shard = await rig.start()
    failed: list[object] = []

    def broken() -> tuple[object, ...]:
        raise OSError(5, "Input/output error")

    shard.upkeep = broken
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: failed.append(context["exception"]))
    for number in range(5):
        assert (await rig.add(1)).offset == number + 1
    await asyncio.wait_for(shard.rest(), 5)
    assert len(failed) == 5
    await shard.stop()
