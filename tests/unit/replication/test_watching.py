"""What a replica says of itself and of the others."""

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from tests.unit.replication.test_handover import told
from tests.unit.replication.test_replica import FIRST, HOLDERS, SEATS, led, replica

from ultraengine.replication import record as records
from ultraengine.replication.messages import Lead
from ultraengine.replication.record import ReplicaId
from ultraengine.replication.sizing import Wish
from ultraengine.replication.watching import report as reports
from ultraengine.replication.watching.marks import MARKS_MAX, Lag, Marks
from ultraengine.replication.watching.metrics import ReplicaMetrics
from ultraengine.replication.watching.report import Failover, Positions, ReplicaReport


def test_lag_is_what_was_written_behind_the_held_end_and_how_old_it_is() -> None:
    marks = Marks()
    for end, size, at in ((1, 100, 1.0), (3, 200, 2.0), (4, 50, 3.0)):
        marks.add(end, size, at)
    assert marks.lag(4, 4, 9.0) == Lag(0, 0, 0.0)
    assert marks.lag(3, 4, 9.0) == Lag(1, 50, 6.0)
    assert marks.lag(1, 4, 9.0) == Lag(3, 250, 7.0)
    assert marks.lag(0, 4, 9.0) == Lag(4, 350, 8.0)


def test_frames_without_a_mark_are_counted_and_their_size_is_not_known() -> None:
    assert Marks().lag(3, 10, 9.0) == Lag(7, 0, 0.0)


def test_old_marks_are_thinned_out_and_tell_at_least() -> None:
    marks = Marks()
    for end in range(1, 3 * MARKS_MAX):
        marks.add(end, 10, float(end))
    last = 3 * MARKS_MAX - 1
    lag = marks.lag(last - 1, last, float(last))
    assert (lag.frames, lag.seconds) == (1, 0.0)
    oldest = marks.lag(0, last, float(last))
    assert oldest.bytes == 10 * last
    assert last - oldest.seconds < MARKS_MAX


def test_roles_have_one_word_each() -> None:
    leader, second, _ = led()
    assert reports.role_of(leader) == "leader"
    assert reports.role_of(second) == "follower"
    candidate = replica(0)
    candidate.receive(Lead(FIRST), 0.0)
    assert reports.role_of(candidate) == "candidate"


def test_the_leader_is_whom_the_disk_obeys_unless_the_record_is_newer() -> None:
    _, second, _ = led()
    assert reports.leader_of(second, None) == 0
    assert reports.leader_of(second, FIRST) == 0
    assert reports.leader_of(second, records.elected(FIRST, HOLDERS[2], SEATS)) == 2
    assert reports.leader_of(replica(1), None) is None
    assert reports.leader_of(replica(1), FIRST) == 0


def test_where_the_leader_is_reached_is_what_it_has_said_itself() -> None:
    said = msgspec.structs.replace(told(0), url="http://a:1")
    assert reports.url_of(ReplicaId(0), {ReplicaId(0): said}) == "http://a:1"
    assert reports.url_of(ReplicaId(0), {ReplicaId(0): told(0)}) is None
    assert reports.url_of(ReplicaId(0), {}) is None
    assert reports.url_of(None, {}) is None


def test_the_newest_record_is_the_one_that_is_told_of() -> None:
    leader, second, _ = led()
    later = records.shrunk(FIRST, SEATS[2])
    assert reports.in_force(leader, later) == later
    assert reports.in_force(leader, None) == FIRST
    assert reports.in_force(second, None) is None


def test_a_leader_tells_of_every_other_copy_joined_or_not() -> None:
    leader, _, _ = led()
    marks = Marks()
    leader.log.grow(1)  # type: ignore[attr-defined]
    marks.add(2, 400, 3.0)
    said = {ReplicaId(1): told(1, 17, barred=True), ReplicaId(0): told(0)}
    first, second = reports.followers(leader, said, marks, 5.0)
    assert (first.replica, first.in_sync, first.held_end) == (1, True, 1)
    assert (first.lag_frames, first.lag_bytes, first.lag_s) == (1, 400, 2.0)
    assert (first.executed_end, first.barred, first.silent_s) == (17, True, 5.0)
    assert (second.replica, second.executed_end, second.barred) == (2, None, False)
    assert second.lag_frames == 1


def test_a_copy_that_has_not_joined_has_no_lag_yet() -> None:
    leader = replica(0)
    leader.receive(Lead(FIRST), 0.0)
    found = reports.followers(leader, {ReplicaId(2): told(2, 4)}, Marks(), 1.0)
    assert [(one.replica, one.held_end, one.lag_s, one.silent_s) for one in found] == [
        (1, None, None, None),
        (2, None, None, None),
    ]
    assert found[1].executed_end == 4


def test_a_leader_tells_of_a_copy_that_counts_or_is_wished_and_of_no_other() -> None:
    leader = replica(0)
    leader.receive(Lead(records.bootstrap(b"c", FIRST.shard, HOLDERS[0], SEATS[:2], 2)), 0.0)
    said = {ReplicaId(2): told(2, 4)}

    def told_of(wish: Wish | None) -> list[int]:
        leader.wish = wish
        return [one.replica for one in reports.followers(leader, said, Marks(), 1.0)]

    assert told_of(None) == told_of(Wish(2)) == told_of(Wish(1)) == [1]
    assert told_of(Wish(3)) == [1, 2]


def test_a_follower_knows_nothing_of_the_others() -> None:
    _, second, _ = led()
    assert reports.followers(second, {ReplicaId(2): told(2)}, Marks(), 1.0) == []


def report_of(leads: bool) -> ReplicaReport:
    leader, _, _ = led()
    failover = Failover(
        old_epoch=1, new_epoch=2, acknowledged_end=4, acknowledged_offset=8,
        promoted_end=5, promoted_offset=9,
        chain="ab", lossless=True, silent_since="a", elected_at="b", serving_at="c", took_s=1.25,
    )  # fmt: skip
    return ReplicaReport(
        replica=0,
        replicas=3,
        role="leader" if leads else "follower",
        epoch=2,
        leader=0,
        leader_url=None,
        in_sync=[0, 1],
        min_isr=2,
        positions=Positions(end=7, durable_end=6, committed_end=5, executed_end=9),
        flush_age_s=0.5,
        barred=not leads,
        divergence=None,
        followers=reports.followers(leader, {}, Marks(), 1.0) if leads else [],
        last_failover=failover if leads else None,
    )


def test_metrics_say_what_the_report_says() -> None:
    registry = CollectorRegistry()
    ReplicaMetrics(registry, 3, lambda: report_of(leads=True))
    text = generate_latest(registry).decode()
    for line in (
        'ultra_replica_leads{shard="3"} 1.0',
        'ultra_replica_epoch{shard="3"} 2.0',
        'ultra_replica_in_sync{shard="3"} 2.0',
        'ultra_replica_committed_end_frames{shard="3"} 5.0',
        'ultra_replica_executed_end{shard="3"} 9.0',
        'ultra_replica_last_failover_seconds{shard="3"} 1.25',
        'ultra_follower_lag_frames{replica="1",shard="3"} 0.0',
        'ultra_follower_in_sync{replica="2",shard="3"} 1.0',
    ):
        assert line in text


def test_of_a_copy_that_has_not_joined_metrics_say_only_what_is_known() -> None:
    candidate = replica(0)
    candidate.receive(Lead(FIRST), 0.0)
    unknown = reports.followers(candidate, {}, Marks(), 1.0)
    registry = CollectorRegistry()
    ReplicaMetrics(
        registry, 3, lambda: msgspec.structs.replace(report_of(leads=True), followers=unknown)
    )
    text = generate_latest(registry).decode()
    assert 'ultra_follower_in_sync{replica="1",shard="3"} 1.0' in text
    assert "ultra_follower_lag_seconds{" not in text


def test_a_follower_has_no_metrics_of_others_and_says_when_it_is_barred() -> None:
    registry = CollectorRegistry()
    ReplicaMetrics(registry, 3, lambda: report_of(leads=False))
    text = generate_latest(registry).decode()
    assert 'ultra_replica_leads{shard="3"} 0.0' in text
    assert 'ultra_replica_barred{shard="3"} 1.0' in text
    assert "ultra_follower_lag_frames{" not in text
    assert "last_failover" not in text


def test_a_copy_keeps_up_unless_it_is_barred_out_of_sync_not_fed_or_late() -> None:
    _, second, _ = led()

    def why(**changes: float) -> str:
        told = {"heard_s": 0.1, "late_s": 0.0} | changes
        return reports.lagging(second, FIRST, **told)

    assert why() == ""
    assert why(heard_s=reports.STALE_S, late_s=reports.STALE_S) == ""
    assert "silent" in why(heard_s=reports.STALE_S + 0.1)
    assert "6 s late" in why(late_s=reports.STALE_S + 1.0)
    assert "in sync" in reports.lagging(second, None, heard_s=0.0, late_s=0.0)
    dropped = records.shrunk(FIRST, SEATS[1])
    assert "in sync" in reports.lagging(second, dropped, heard_s=0.0, late_s=0.0)
    second.barred = True
    assert "executes nothing" in why()
