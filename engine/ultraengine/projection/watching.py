"""What a worker has seen, turned into what it says: lags, alerts, progress, rates.

Fed by the driver; nothing here acts.  What changed is returned as facts for the log.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ultraengine.model.ids import Instant, ShardId
from ultraengine.model.limits import ProjectionLimits
from ultraengine.projection.breaker import Breaker
from ultraengine.projection.lag import Alert, LagAlerts, worst
from ultraengine.projection.progress import Progress, Speedometer, commands_done
from ultraengine.projection.readings import Reading, SetKey, key_of
from ultraengine.projection.target import Checkpoint, ProjectionSet, SetState, Target
from ultraengine.projection.view import SetView, TargetView

TELL_EVERY_S: Final = 5.0
"""Between two lines about one build."""
Fact = tuple[str, str, dict[str, Any]]
"""(level, event, facts)."""


class Watch:
    """The figures of one target."""

    def __init__(self, limits: ProjectionLimits) -> None:
        self._limits = limits
        self._alerts: dict[SetKey, LagAlerts] = {}
        self._speeds: dict[SetKey, Speedometer] = {}
        self._told_at: dict[SetKey, float] = {}
        self.rows: dict[str, int] = {}
        self._rows_total = 0
        self._rows_speed = Speedometer()
        self._rows_per_s = 0.0
        self.batches = 0
        self.hook_failures = 0
        self.last_error: str | None = None
        self._sets: tuple[SetView, ...] = ()

    def wrote(self, projection: str, rows: int) -> None:
        """A batch is durable."""
        self.rows[projection] = self.rows.get(projection, 0) + rows
        self._rows_total += rows
        self.batches += 1

    def observe(
        self,
        sets: Sequence[ProjectionSet],
        readings: Iterable[Reading],
        standing: Mapping[SetKey, Mapping[ShardId, Checkpoint]],
        now: Instant,
        monotonic: float,
    ) -> list[Fact]:
        """Look at everything; what is worth a line."""
        self._rows_speed.observe(monotonic, self._rows_total)
        self._rows_per_s = self._rows_speed.rate(monotonic, self._rows_total)
        followed = {
            key_of(member.of): reading for reading in readings for member in reading.members
        }
        facts: list[Fact] = []
        views: list[SetView] = []
        for of in sets:
            key = key_of(of)
            reading = followed.get(key)
            positions = standing.get(key, {}) if reading is None else reading.positions
            lags = {} if reading is None else reading.lags(now)
            alerts = self._alerts.setdefault(
                key, LagAlerts(self._limits.lag_warn_s, self._limits.lag_alarm_s)
            )
            if reading is not None and of.state is SetState.SERVING:
                facts += _alert_facts(of, alerts, worst(list(lags.values())).seconds)
            progress = None
            if reading is not None and of.state is SetState.BUILDING:
                progress = self._progress(key, reading, monotonic)
                facts += self._progress_facts(of, progress, monotonic)
            views.append(
                SetView(
                    of.projection, of.version, of.build, of.state, of.paused, of.parked,
                    reading is not None,
                    {shard: int(one.offset) for shard, one in positions.items()},
                    lags, alerts.level, progress,
                )
            )  # fmt: skip
        self._sets = tuple(views)
        return facts

    def _progress(self, key: SetKey, reading: Reading, monotonic: float) -> Progress:
        speed = self._speeds.setdefault(key, Speedometer())
        done = commands_done(reading.positions)
        speed.observe(monotonic, done)
        return Progress(done, reading.total, speed.rate(monotonic, done))

    def _progress_facts(
        self, of: ProjectionSet, progress: Progress, monotonic: float
    ) -> list[Fact]:
        told_at = self._told_at.setdefault(key_of(of), monotonic)
        if monotonic - told_at < TELL_EVERY_S:
            return []
        self._told_at[key_of(of)] = monotonic
        eta = progress.eta_s
        return [
            (
                "info",
                "projection.progress",
                {
                    "projection": of.projection,
                    "build": of.build,
                    "percent": round(100 * progress.fraction, 1),
                    "commands_per_s": round(progress.rate),
                    "eta_s": None if eta is None else round(eta),
                },
            )
        ]

    def view(self, target: Target, breaker: Breaker) -> TargetView:
        """Everything, as of the last `observe`."""
        return TargetView(
            target=target.name,
            dialect=target.dialect,
            exactly_once=target.exactly_once,
            breaker=breaker.state,
            breaker_opened=breaker.opened,
            last_error=self.last_error,
            rows=dict(self.rows),
            batches=self.batches,
            rows_per_s=self._rows_per_s,
            hook_failures=self.hook_failures,
            sets=self._sets,
        )


def _alert_facts(of: ProjectionSet, alerts: LagAlerts, seconds: float) -> list[Fact]:
    level = alerts.observe(seconds)
    if level is None:
        return []
    how = {Alert.CALM: "info", Alert.WARN: "warning", Alert.ALARM: "error"}[level]
    facts = {"projection": of.projection, "build": of.build, "seconds": round(seconds, 1)}
    return [(how, f"projection.lag_{level.name.lower()}", facts)]
