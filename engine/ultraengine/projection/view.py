"""What a worker says of itself: for metrics, for health, for `ultra projection status`."""

from collections.abc import Iterable, Mapping

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ultraengine.model.ids import ShardId
from ultraengine.projection.breaker import BreakerState
from ultraengine.projection.lag import Alert, Lag
from ultraengine.projection.progress import Progress
from ultraengine.projection.target import Parked, SetState


class SetView(msgspec.Struct, frozen=True):
    """One set as its worker sees it."""

    projection: str
    version: int
    build: int
    state: SetState
    paused: bool
    parked: Parked | None
    followed: bool
    """Whether rows are being written into it."""
    offsets: dict[ShardId, int]
    lags: dict[ShardId, Lag]
    alert: Alert
    progress: Progress | None
    """Of a build."""


class TargetView(msgspec.Struct, frozen=True):
    """One target as its worker sees it."""

    target: str
    dialect: str
    exactly_once: bool
    breaker: BreakerState
    breaker_opened: int
    last_error: str | None
    rows: Mapping[str, int]
    """Written since the start, by projection."""
    batches: int
    rows_per_s: float
    hook_failures: int
    sets: tuple[SetView, ...]

    @property
    def is_well(self) -> bool:
        """Whether nobody needs to look: everything that serves is followed, nothing is parked."""
        return self.breaker is BreakerState.CLOSED and not any(one.parked for one in self.sets)


_OF_SET = ("target", "projection", "build", "state")


def metrics(views: Iterable[TargetView]) -> Iterable[Metric]:
    """All families of a worker."""
    breaker = GaugeMetricFamily(
        "ultra_projection_breaker",
        "1 for the state that the breaker is in.",
        labels=("target", "state"),
    )
    opened = CounterMetricFamily(
        "ultra_projection_breaker_opened", "Times that the breaker opened.", labels=("target",)
    )
    rows = CounterMetricFamily(
        "ultra_projection_rows", "Rows written.", labels=("target", "projection")
    )
    batches = CounterMetricFamily(
        "ultra_projection_batches", "Transactions committed.", labels=("target",)
    )
    rate = GaugeMetricFamily(
        "ultra_projection_rows_per_second", "Rows written lately.", labels=("target",)
    )
    hooks = CounterMetricFamily(
        "ultra_projection_hook_failures", "Hooks after a batch that raised.", labels=("target",)
    )
    commands = GaugeMetricFamily(
        "ultra_projection_lag_commands", "Commands not in the tables.", labels=(*_OF_SET, "shard")
    )
    seconds = GaugeMetricFamily(
        "ultra_projection_lag_seconds",
        "Age of the oldest command not in the tables.",
        labels=(*_OF_SET, "shard"),
    )
    alert = GaugeMetricFamily(
        "ultra_projection_lag_alert", "0 calm, 1 warning, 2 alarm.", labels=_OF_SET
    )
    parked = GaugeMetricFamily(
        "ultra_projection_parked", "1 when a person has to look.", labels=_OF_SET
    )
    paused = GaugeMetricFamily("ultra_projection_paused", "1 when paused.", labels=_OF_SET)
    built = GaugeMetricFamily(
        "ultra_projection_build_fraction", "How far a build is, 0 to 1.", labels=_OF_SET
    )
    for view in views:
        for state in BreakerState:
            breaker.add_metric((view.target, state), float(state is view.breaker))
        opened.add_metric((view.target,), view.breaker_opened)
        for projection, count in view.rows.items():
            rows.add_metric((view.target, projection), count)
        batches.add_metric((view.target,), view.batches)
        rate.add_metric((view.target,), view.rows_per_s)
        hooks.add_metric((view.target,), view.hook_failures)
        for one in view.sets:
            place = (view.target, one.projection, str(one.build), str(one.state))
            for shard, lag in one.lags.items():
                commands.add_metric((*place, str(shard)), lag.commands)
                seconds.add_metric((*place, str(shard)), lag.seconds)
            alert.add_metric(place, int(one.alert))
            parked.add_metric(place, float(one.parked is not None))
            paused.add_metric(place, float(one.paused))
            if one.progress is not None:
                built.add_metric(place, one.progress.fraction)
    yield from (breaker, opened, rows, batches, rate, hooks)
    yield from (commands, seconds, alert, parked, paused, built)
