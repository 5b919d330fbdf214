"""What a copy and its leader say of themselves in one status."""

import msgspec
from tests.unit.replication.test_watching import report_of

from ultraengine.replication.watching.report import Difference
from ultraengine.shard.report import ShardStatus
from ultraengine.shard.status import ShardState
from ultraengine.starting.replicated.roles.status import following, leading

SHARD = ShardStatus(
    shard=3, role="leader", state=ShardState.SERVING, reason="", epoch=2, log_end=9, durable_end=9,
    applied_end=9, time="2026-11-30T00:00:00Z", durability="sync", waiting_commands=0,
    waiting_bytes=0, in_flight=0, flushes=1, flush_p50_us=1.0, flush_p99_us=1.0, replayed=0,
    replay_s=0.0, snapshot_offset=None, snapshot_age_s=None, dedup_floor_time=None, first_offset=0,
    consumers=[], handlers={}, alarms=0,
)  # fmt: skip


def test_a_leader_has_the_shards_members_and_the_replicas_side_by_side() -> None:
    said = msgspec.to_builtins(leading(SHARD, report_of(leads=True)))
    assert {"role", "epoch", "leader", "in_sync", "positions", "followers"} <= said.keys()
    assert (said["role"], said["state"], said["applied_end"]) == ("leader", "serving", 9)
    assert said["last_failover"]["new_epoch"] == 2


def test_who_leads_no_more_does_not_say_that_it_does() -> None:
    assert leading(SHARD, report_of(leads=False)).role == "follower"


def test_a_copy_follows_until_it_differs_and_then_says_where() -> None:
    well = msgspec.structs.replace(report_of(leads=False), barred=False)
    assert (following(3, well).state, following(3, well).reason) == ("following", "")
    alone = msgspec.structs.replace(well, in_sync=[])
    assert (following(3, alone).state, following(3, alone).alarms) == ("behind", 0)
    assert following(3, well).applied_end == well.positions.executed_end
    found = Difference(offset=7, command_type="t.do", recorded="a", decided="b")
    told = following(3, msgspec.structs.replace(report_of(leads=False), divergence=found))
    assert (told.state, told.alarms) == ("diverged", 1)
    assert told.reason == "offset 7 came out differently here"
    assert told.divergence == found
