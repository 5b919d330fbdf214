"""Metrics of one replica, from its report, when somebody asks."""

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ultraengine.replication.watching.report import FollowerReport, ReplicaReport

_OWN: Final[tuple[tuple[str, str, Callable[[ReplicaReport], float]], ...]] = (
    ("leads", "1 on the replica that leads", lambda one: one.role == "leader"),
    ("epoch", "Newest epoch that this disk has sworn to", lambda one: one.epoch),
    ("in_sync", "Copies that count, this one included", lambda one: len(one.in_sync)),
    ("copies", "Copies that there are to be counted", lambda one: one.replicas),
    ("min_isr", "Copies without which nothing commits", lambda one: one.min_isr or 0),
    ("end_frames", "First frame not written here", lambda one: one.positions.end),
    ("durable_end_frames", "First frame not synced here", lambda one: one.positions.durable_end),
    ("committed_end_frames", "First frame not committed", lambda one: one.positions.committed_end),
    ("executed_end", "First offset not executed here", lambda one: one.positions.executed_end),
    ("flush_age_seconds", "Age of the oldest flush under way", lambda one: one.flush_age_s),
    ("barred", "1 when execution differs from the leader's", lambda one: one.barred),
)
_OTHERS: Final[tuple[tuple[str, str, Callable[[FollowerReport], float | None]], ...]] = (
    ("in_sync", "1 when this copy counts", lambda one: one.in_sync),
    ("lag_frames", "Frames that it is not known to hold", lambda one: one.lag_frames),
    ("lag_bytes", "Bytes that it is not known to hold", lambda one: one.lag_bytes),
    ("lag_seconds", "Age of the oldest frame it is not known to hold", lambda one: one.lag_s),
    ("silent_seconds", "Since it was last heard", lambda one: one.silent_s),
    ("barred", "1 when its execution differs", lambda one: one.barred),
)


class ReplicaMetrics(Collector):
    """Gauges of this replica, and of the others where it leads."""

    def __init__(
        self, registry: CollectorRegistry, shard: int, report: Callable[[], ReplicaReport]
    ) -> None:
        self._shard = str(shard)
        self._report = report
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """All families."""
        report = self._report()
        for name, text, own in _OWN:
            family = GaugeMetricFamily(f"ultra_replica_{name}", text, labels=("shard",))
            family.add_metric((self._shard,), float(own(report)))
            yield family
        for name, text, of in _OTHERS:
            family = GaugeMetricFamily(f"ultra_follower_{name}", text, labels=("shard", "replica"))
            for one in report.followers:
                value = of(one)
                if value is not None:
                    family.add_metric((self._shard, str(one.replica)), float(value))
            yield family
        failover = report.last_failover
        if failover is not None and failover.took_s is not None:
            family = GaugeMetricFamily(
                "ultra_replica_last_failover_seconds",
                "From the last sign of the leader before until this one served",
                labels=("shard",),
            )
            family.add_metric((self._shard,), failover.took_s)
            yield family
