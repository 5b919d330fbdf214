"""Lag, alerts, progress, readings and what is shown of them."""

from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from tests.unit.projection.shop import T0, AuditTables, ShopTables, busy_log, members

from ultraengine.feed.source import FeedPage
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.model.limits import ProjectionLimits
from ultraengine.projection.breaker import Breaker
from ultraengine.projection.lag import NONE, Alert, Lag, LagAlerts, lag, worst
from ultraengine.projection.progress import (
    SAMPLES_MAX,
    WINDOW_S,
    Progress,
    Speedometer,
    commands_done,
    is_caught_up,
)
from ultraengine.projection.projector import Formed
from ultraengine.projection.readings import Member, Reading, group_by_position
from ultraengine.projection.target import (
    START,
    Checkpoint,
    Moved,
    Parked,
    ProjectionSet,
    SetState,
)
from ultraengine.projection.view import TargetView, metrics
from ultraengine.projection.watching import TELL_EVERY_S, Watch
from ultraengine.testing.memory_target import MemoryDatabase, MemoryTarget

SECOND = 1_000_000
ZERO, ONE = ShardId(0), ShardId(1)


def at(offset: int, time: int = 0) -> Checkpoint:
    return Checkpoint(Offset(offset), Epoch(1), Instant(time))


# --- lag ---------------------------------------------------------------------------------------


def test_what_holds_everything_is_not_behind_however_old_that_is() -> None:
    assert lag(at(10, T0), Offset(10), T0, None, Instant(T0 + 10**12)) == NONE
    assert lag(at(11, T0), Offset(10), T0, None, T0) == NONE


def test_a_lag_counts_from_the_oldest_group_that_waits() -> None:
    now = Instant(T0 + 10 * SECOND)
    waiting = Instant(T0 + 4 * SECOND)
    assert lag(at(10, T0), Offset(15), now, waiting, now) == Lag(5, 6.0)


def test_a_lag_of_which_nothing_was_read_counts_from_what_was_written_last() -> None:
    now = Instant(T0 + 10 * SECOND)
    assert lag(at(10, T0), Offset(15), now, None, now) == Lag(5, 10.0)
    assert lag(START, Offset(15), Instant(T0 + 9 * SECOND), None, now) == Lag(15, 1.0)


def test_a_clock_that_is_behind_the_engine_makes_no_negative_lag() -> None:
    assert lag(at(1, T0), Offset(2), T0, T0, Instant(T0 - 1)).seconds == 0.0


def test_a_set_is_as_far_behind_as_all_its_shards() -> None:
    assert worst([Lag(2, 1.5), Lag(3, 0.5)]) == Lag(5, 1.5)
    assert worst([]) == NONE


def test_an_alert_is_told_once_and_ends_well_below_its_threshold() -> None:
    alerts = LagAlerts(10.0, 100.0)
    told = [alerts.observe(seconds) for seconds in (9.9, 10.0, 11.0, 5.0, 4.9, 4.8)]
    assert told == [None, Alert.WARN, None, None, Alert.CALM, None]
    told = [alerts.observe(seconds) for seconds in (150.0, 60.0, 49.0, 0.0)]
    assert told == [Alert.ALARM, None, Alert.WARN, Alert.CALM]


# --- progress ----------------------------------------------------------------------------------


def test_progress_says_how_far_and_how_long() -> None:
    progress = Progress(250, 1_000, 50.0)
    assert (progress.fraction, progress.eta_s) == (0.25, 15.0)
    assert Progress(250, 1_000, 0.0).eta_s is None
    assert (Progress(0, 0, 0.0).fraction, Progress(0, 0, 0.0).eta_s) == (1.0, 0.0)
    assert (Progress(11, 10, 1.0).fraction, Progress(11, 10, 1.0).eta_s) == (1.0, 0.0)


def test_a_rate_is_that_of_the_last_half_minute() -> None:
    speed = Speedometer()
    assert speed.rate(0.0, 0) == 0.0
    speed.observe(0.0, 0)
    assert speed.rate(0.0, 0) == 0.0
    speed.observe(0.01, 5)  # Too soon: left out.
    speed.observe(10.0, 1_000)
    assert speed.rate(10.0, 1_000) == 100.0
    for second in range(20, 200, 10):
        speed.observe(float(second), 1_000)
    assert speed.rate(190.0, 1_000) == 0.0


def test_samples_are_bounded() -> None:
    speed = Speedometer()
    for n in range(10 * SAMPLES_MAX):
        speed.observe(n * WINDOW_S / SAMPLES_MAX / 2, n)
    assert len(speed._samples) <= SAMPLES_MAX


def test_a_set_has_caught_up_when_it_holds_what_every_shard_had() -> None:
    held = {ZERO: at(5), ONE: at(3)}
    assert is_caught_up(held, {ZERO: Offset(5), ONE: Offset(2)})
    assert not is_caught_up(held, {ZERO: Offset(6), ONE: Offset(2)})
    assert not is_caught_up(held, {ZERO: Offset(5), ONE: None})
    assert not is_caught_up(held, {})
    assert is_caught_up({}, {ZERO: Offset(0)})
    assert not is_caught_up({}, {ZERO: Offset(1)})
    assert commands_done(held) == 8


# --- readings -------------------------------------------------------------------------------------


def building(build: int = 1, name: str = "shop", **more: Any) -> ProjectionSet:
    return ProjectionSet(name, 1, build, SetState.BUILDING, T0, T0, **more)


def reading(*sets: ProjectionSet, positions: dict[ShardId, Checkpoint] | None = None) -> Reading:
    known = {one.projection.name: one for one in members(ShopTables(), AuditTables())}
    found = [Member(of, known[of.projection]) for of in sets or (building(),)]
    return Reading(found, positions or {}, (ZERO, ONE))


def test_shards_give_their_groups_in_turn() -> None:
    one = reading()
    first, second = busy_log(0, 3), busy_log(1, 1)
    one.inboxes[ZERO].receive(FeedPage(tuple(first.groups), first.end, T0))
    one.inboxes[ONE].receive(FeedPage(tuple(second.groups), second.end, T0))
    taken = []
    while (group := one.next_group(lambda _: Offset(0))) is not None:
        taken.append((group.shard, group.base_offset))
    starts = [group.base_offset for group in first.groups]
    assert taken == [(0, starts[0]), (1, 0), (0, starts[1]), (0, starts[2])]
    assert one.inboxes[ZERO].bytes == 0


def test_a_group_that_is_put_back_comes_first_again() -> None:
    one, log = reading(), busy_log(0, 2)
    inbox = one.inboxes[ZERO]
    inbox.receive(FeedPage(tuple(log.groups), log.end, T0))
    size = inbox.bytes
    group = inbox.take()
    inbox.put_back(group)
    assert inbox.groups[0] is group
    assert inbox.bytes == size


def test_a_batch_counts_as_written_when_it_is_and_not_before() -> None:
    one = reading()
    inbox = one.inboxes[ZERO]
    inbox.receive(FeedPage((), Offset(4), Instant(T0 + SECOND)))
    one.inboxes[ONE].receive(FeedPage((), Offset(0), Instant(0)))
    formed = Formed((), (Moved(ZERO, START, at(4, T0)),), 4)
    one.formed(formed, {ZERO: Instant(T0 - SECOND)})
    assert not one.is_caught_up
    assert one.taken[ZERO].offset == 4
    assert one.lags(Instant(T0 + SECOND))[ZERO] == Lag(4, 2.0)
    one.written(formed)
    assert one.is_caught_up
    assert one.lags(Instant(T0 + SECOND)) == {ZERO: NONE, ONE: NONE}
    assert one.total == 4


def test_a_shard_of_which_nothing_was_read_has_no_lag_yet() -> None:
    assert reading().lags(T0) == {}


def test_what_was_read_and_waits_makes_the_lag() -> None:
    one, log = reading(), busy_log(0, 2)
    one.inboxes[ZERO].receive(FeedPage(tuple(log.groups), log.end, T0))
    assert one.lags(Instant(T0 + SECOND))[ZERO].seconds == 1.0


def test_sets_at_the_same_positions_share_a_reading_unless_they_must_not() -> None:
    known = {one.projection.name: one for one in members(ShopTables(), AuditTables())}
    sets = [building(1), building(2), building(1, "audit"), building(2, "audit")]
    found = [Member(of, known[of.projection]) for of in sets]
    positions = {
        ("shop", 1): {ZERO: at(5)},
        ("shop", 2): {},
        ("audit", 1): {ZERO: at(5)},
        ("audit", 2): {},
    }
    together = group_by_position(found, positions, {})
    assert together == [(found[0], found[2]), (found[1], found[3])]
    apart = group_by_position(found, positions, {("audit", 1): {}})
    assert apart == [(found[0],), (found[1], found[3]), (found[2],)]


# --- what is shown -----------------------------------------------------------------------------


def watched(
    watch: Watch, *readings: Reading, sets: list[ProjectionSet], seconds: float = 0.0
) -> Any:
    now = Instant(T0 + int(seconds * SECOND))
    return watch.observe(sets, readings, {("shop", 9): {ZERO: at(2)}}, now, seconds)


def view_of(watch: Watch) -> TargetView:
    return watch.view(MemoryTarget("main", MemoryDatabase()), Breaker(30.0))


def test_a_build_tells_its_progress_every_few_seconds() -> None:
    watch, of = Watch(ProjectionLimits()), building()
    one = reading(of)
    one.inboxes[ZERO].receive(FeedPage((), Offset(100), T0))
    assert watched(watch, one, sets=[of]) == []
    one.positions[ZERO] = at(25)
    facts = watched(watch, one, sets=[of], seconds=TELL_EVERY_S)
    assert facts == [
        (
            "info",
            "projection.progress",
            {"projection": "shop", "build": 1, "percent": 25.0, "commands_per_s": 5, "eta_s": 15},
        )
    ]
    assert watched(watch, one, sets=[of], seconds=TELL_EVERY_S + 1) == []
    progress = view_of(watch).sets[0].progress
    assert progress is not None
    assert progress.fraction == 0.25


def test_a_build_that_stands_still_has_no_end_in_sight() -> None:
    watch, of = Watch(ProjectionLimits()), building()
    one = reading(of)
    one.inboxes[ZERO].receive(FeedPage((), Offset(100), T0))
    watched(watch, one, sets=[of])
    [(_, _, facts)] = watched(watch, one, sets=[of], seconds=TELL_EVERY_S)
    assert facts["eta_s"] is None


def test_a_serving_set_that_falls_behind_is_told_when_its_level_changes() -> None:
    watch = Watch(ProjectionLimits(lag_warn_s=10, lag_alarm_s=20))
    of = ProjectionSet("shop", 1, 1, SetState.SERVING, T0, T0)
    one = reading(of, positions={ZERO: at(1, T0)})
    one.inboxes[ZERO].receive(FeedPage((), Offset(2), T0))
    told = [
        [(level, event) for level, event, _ in watched(watch, one, sets=[of], seconds=seconds)]
        for seconds in (1.0, 11.0, 12.0, 21.0)
    ]
    assert told == [
        [],
        [("warning", "projection.lag_warn")],
        [],
        [("error", "projection.lag_alarm")],
    ]
    one.positions[ZERO] = at(2, T0)
    [(level, event, _)] = watched(watch, one, sets=[of], seconds=30.0)
    assert (level, event) == ("info", "projection.lag_calm")


def test_the_figures_of_a_worker_are_metrics() -> None:
    watch = Watch(ProjectionLimits())
    parked = Parked(ZERO, Offset(7), 0, "poison", T0)
    build = building(2)
    stuck = building(9, parked=parked, paused=True)
    one = reading(build, positions={ZERO: at(1, T0)})
    one.inboxes[ZERO].receive(FeedPage((), Offset(4), T0))
    watch.wrote("shop", 40)
    watch.wrote("shop", 2)
    watched(watch, one, sets=[build, stuck])
    view = view_of(watch)
    assert not view.is_well
    assert view.sets[1].offsets == {0: 2}
    assert not view.sets[1].followed
    registry = CollectorRegistry()

    class Collector:
        def collect(self) -> Any:
            return metrics([view])

    registry.register(Collector())
    text = generate_latest(registry).decode()
    place = 'build="2",projection="shop"'
    for line in (
        'ultra_projection_breaker{state="closed",target="main"} 1.0',
        'ultra_projection_breaker{state="open",target="main"} 0.0',
        'ultra_projection_rows_total{projection="shop",target="main"} 42.0',
        'ultra_projection_batches_total{target="main"} 2.0',
        'ultra_projection_rows_per_second{target="main"} 0.0',
        f'ultra_projection_lag_commands{{{place},shard="0",state="building",target="main"}} 3.0',
        f'ultra_projection_lag_seconds{{{place},shard="0",state="building",target="main"}} 0.0',
        f'ultra_projection_build_fraction{{{place},state="building",target="main"}} 0.25',
        'ultra_projection_parked{build="9",projection="shop",state="building",target="main"} 1.0',
        'ultra_projection_paused{build="9",projection="shop",state="building",target="main"} 1.0',
    ):
        assert line in text.splitlines(), line


def test_a_worker_without_trouble_is_well() -> None:
    watch = Watch(ProjectionLimits())
    watched(watch, reading(building()), sets=[building()])
    assert view_of(watch).is_well
