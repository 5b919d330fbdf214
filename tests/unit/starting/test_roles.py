"""What a copy and its leader say of themselves in one status."""

from pathlib import Path

import msgspec
import pytest
from tests.unit.replication.test_watching import report_of
from tests.unit.replication.three import three, until

from ultraengine.domains.counter import DOMAIN
from ultraengine.execution.executor import Executor
from ultraengine.execution.registry import Registry
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Offset, ShardId
from ultraengine.model.limits import DEFAULT_LIMITS
from ultraengine.replication.watching.report import Difference
from ultraengine.shard.following.driver import Following
from ultraengine.shard.report import ShardStatus
from ultraengine.shard.status import ShardState
from ultraengine.starting.replicated.roles.driver import FollowingEngine
from ultraengine.starting.replicated.roles.status import following, leading
from ultraengine.testing.memory import MemoryDedupe, MemoryHistory

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


class NoUpkeep:
    def upkeep(self) -> object:
        return None


async def test_a_copy_gives_its_feed_while_it_keeps_up_and_says_who_leads_when_it_does_not(
    tmp_path: Path,
) -> None:
    async with three(tmp_path) as made:
        leader = await made.leader()
        await made.in_sync(3)
        await made.commit(leader, b"one")
        number = next(one for one in made.drivers if one != leader)
        replica = made.drivers[number]
        await until(lambda: replica.watching.lagging(0.0) == "")
        executor = Executor(
            Registry((DOMAIN,)), ShardId(3), dedupe=MemoryDedupe(), history=MemoryHistory([DOMAIN])
        )
        following = Following(executor, NoUpkeep(), lambda: None, on_difference=lambda: None)
        copy = FollowingEngine(3, executor.registry, DEFAULT_LIMITS, replica, following)
        page = await anext(copy.feed.pages(ShardId(3), Offset(0)))
        assert (page.groups, page.end) == ((), 0)
        following.on_executed(5)
        assert copy.feed.end == 5
        with pytest.raises(EngineError) as caught:
            await copy.feed.confirm(ShardId(3), "mail", Offset(0))
        assert caught.value.code == "NOT_FOUND", "slots are a leader's"
        replica.machine.barred = True
        with pytest.raises(EngineError) as caught:
            await anext(copy.feed.pages(ShardId(3), Offset(0)))
        assert caught.value.code == "NOT_LEADER"
        assert f"replica {leader} leads" in caught.value.detail
        await following.stop()
        await copy.feed.close()
