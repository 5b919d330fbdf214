"""What a shard hears of its log when others copy it."""

from collections.abc import Sequence

import msgspec
import pytest
from tests.unit.log.log_world import LIMITS, World

from ultraengine.log.driver import OnDurable
from ultraengine.log.frame import FrameDraft
from ultraengine.model.errors import InvariantBroken
from ultraengine.replication.leading_log import LeadingLog
from ultraengine.replication.record import ReplicaId


class Led:
    """A log, and what its replica was asked to do."""

    def __init__(self, world: World | None = None) -> None:
        self.world = World() if world is None else world
        self.appended: list[int] = []
        self.closed: list[bool] = []
        log = self.world.log
        self.needed: dict[ReplicaId, int] = {}
        self.leading = LeadingLog(
            log, log.recovered, self._append, self.closed.append, lambda: self.needed
        )

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


def test_what_a_copy_needs_stays_in_the_log_and_goes_when_it_has_it() -> None:
    led = Led()
    for _ in range(9):
        led.world.group(1, size=4000)
    log, reader = led.world.log, led.leading.reader()
    end = int(log.durable.durable_end)
    led.needed = {ReplicaId(1): 0, ReplicaId(2): end}
    assert led.leading.retain(99, end, {}).limited_by == "replica 1"
    assert reader.first.sequence == 0
    led.needed = {ReplicaId(1): end // 2}
    assert led.leading.retain(99, end, {"feed": 1}).limited_by == "feed"
    report = led.leading.retain(99, end, {})
    assert report.limited_by == "replica 1"
    assert 0 < reader.first.sequence <= end // 2
    assert led.leading.first_offset == reader.first.offset == reader.segment_offset(0)
    led.needed = {}
    assert not led.leading.retain(99, end, {}).limited_by
    assert reader.first.sequence > end // 2


def test_beyond_the_cap_a_copy_is_waited_for_no_more_and_no_consumer_is_told() -> None:
    limits = msgspec.structs.replace(LIMITS, retention_bytes_max=1)
    led = Led(World(limits=limits))
    for _ in range(9):
        led.world.group(1, size=4000)
    end = int(led.world.log.durable.durable_end)
    led.needed = {ReplicaId(1): 0}
    report = led.leading.retain(99, end, {"feed": 0})
    assert list(report.dropped) == ["feed"]
    assert any("'replica 1'" in alarm for alarm in report.alarms)
    assert led.leading.first_offset > 0


def test_its_end_is_the_replicas_end() -> None:
    led = Led()
    led.leading.start(lambda _error: None)
    with led.leading.quiet():
        assert not led.leading.read_only
    led.leading.release_reserve()
    led.leading.close(clean=True)
    assert led.closed == [True]
