"""What a shard hears of its log when others copy it."""

from collections.abc import Sequence

import pytest
from tests.unit.log.log_world import World

from ultraengine.log.driver import OnDurable
from ultraengine.log.frame import FrameDraft
from ultraengine.log.retention import RetentionReport
from ultraengine.model.errors import InvariantBroken
from ultraengine.replication.leading_log import LeadingLog


class Led:
    """A log, and what its replica was asked to do."""

    def __init__(self) -> None:
        self.world = World()
        self.appended: list[int] = []
        self.closed: list[bool] = []
        log = self.world.log
        self.leading = LeadingLog(log, log.recovered, self._append, self.closed.append)

    def _append(self, drafts: Sequence[FrameDraft], on_durable: OnDurable) -> None:
        self.appended.append(len(drafts))


def test_writes_and_syncs_go_to_the_replica_and_are_not_told_before_it_tells() -> None:
    led = Led()
    told: list[object] = []
    led.leading.write([led.world.commands(1)], told.append)
    led.leading.sync(told.append)
    assert led.appended == [1, 0]
    assert told == []
    assert led.world.log.durable.durable_end == 0


def test_nothing_is_written_without_a_flush_or_past_the_replica() -> None:
    led = Led()
    with pytest.raises(InvariantBroken, match="no reply before the flush"):
        led.leading.write([led.world.commands(1)], lambda _: None, sync=False)
    assert not led.leading.takes_now([led.world.commands(1)], 1024)
    with pytest.raises(InvariantBroken, match="waits for others"):
        led.leading.write_now([led.world.commands(1)])
    assert led.appended == []


def test_nothing_is_removed_from_a_log_that_copies_catch_up_from() -> None:
    led = Led()
    for _ in range(9):
        led.world.group(1, size=4000)
    end = led.world.log.durable.durable_end
    offset = int(led.world.log.recovered.end_offset)
    assert led.leading.retain(offset + 9, end, {}) == RetentionReport()
    assert led.leading.first_offset == 0
    assert next(led.leading.reader().frames(0)).header.sequence == 0


def test_its_end_is_the_replicas_end() -> None:
    led = Led()
    led.leading.start(lambda _error: None)
    with led.leading.quiet():
        assert not led.leading.read_only
    led.leading.release_reserve()
    led.leading.close(clean=True)
    assert led.closed == [True]
