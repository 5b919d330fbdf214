"""Reads that wait."""

from pathlib import Path

import pytest
from tests.unit.shard.test_shard import Rig

from ultraengine.model.errors import EngineError


async def test_a_wait_for_an_offset_that_never_comes_leaves_nothing_behind(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    shard = await rig.start()
    with pytest.raises(EngineError):
        await rig.value(min_offset=1 << 62)
    assert not shard.reads._offsets._waiting
    await shard.stop()
