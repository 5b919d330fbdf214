"""A wall clock that leaps a month ahead makes no shard forget what it has acknowledged."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.shard.test_shard import LIMITS, Rig

from ultraengine.model.ids import Instant
from ultraengine_adapters.local.clock import SystemClock

MONTH_US = 30 * 86_400 * 1_000_000


class LeapingClock(SystemClock):
    ahead_us = 0

    def now(self) -> Instant:
        return Instant(super().now() + self.ahead_us)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    await rig.start()
    yield rig
    await rig.shard.stop()


async def test_a_retry_after_a_leap_is_still_recognised_and_somebody_is_told(rig: Rig) -> None:
    clock = LeapingClock()
    rig.shard._clock._clock = clock
    (first,) = await rig.send(rig.admit("pay-1"))
    clock.ahead_us = MONTH_US
    assert clock.ahead_us > LIMITS.dedup_window_s * 1_000_000
    alarms = rig.shard.status().alarms
    for number in range(3):
        (between,) = await rig.send(rig.admit(f"other-{number}"))
        assert between.time is not None
        assert first.time is not None
        assert between.time[:7] == first.time[:7]
    (again,) = await rig.send(rig.admit("pay-1"))
    assert (again.duplicate, again.offset) == (True, first.offset)
    assert await rig.value() == 4
    assert rig.shard.status().alarms == alarms + 1
