"""Counters of HTTP requests, as plain integers, turned into Prometheus text when asked.

Counting one request costs about 0.5 us; the locks of a general metrics library would cost
ten times that on the hot path.  Only the thread of the event loop counts; a scrape reads.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

LATENCY_BOUNDS_S: Final = (
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01,
    0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip  # A table reads better in rows.


class Histogram:
    """Counts of values at or below each bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Buckets as Prometheus wants them."""
        seen = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            seen += count
            buckets.append((bound, seen))
        return buckets


class RequestMetrics(Collector):
    """What every listener counts."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        """(route, status) -> requests."""
        self.durations: dict[str, Histogram] = {}
        """Route -> seconds."""
        self.requests_in_flight = 0
        self.key_file_reloads: dict[str, int] = {"ok": 0, "failed": 0}
        self.loop_gap_max_s = 0.0
        """Longest gap between two beats of the event loop since the start."""

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        place = (route, status)
        self.requests[place] = self.requests.get(place, 0) + 1
        histogram = self.durations.get(route)
        if histogram is None:
            histogram = self.durations[route] = Histogram(LATENCY_BOUNDS_S)
        histogram.observe(seconds)

    def collect(self) -> Iterable[Metric]:
        """The families of requests (a Prometheus collector)."""
        requests = CounterMetricFamily(
            "ultra_edge_http_requests", "Answered HTTP requests.", labels=("route", "status")
        )
        for (route, status), count in self.requests.items():
            requests.add_metric((route, str(status)), count)
        yield requests
        durations = HistogramMetricFamily(
            "ultra_edge_http_request_seconds", "Seconds from request to answer.", labels=("route",)
        )
        for route, histogram in self.durations.items():
            durations.add_metric((route,), histogram.cumulative(), histogram.total)
        yield durations
        reloads = CounterMetricFamily(
            "ultra_edge_key_file_reloads", "Readings of the key file.", labels=("result",)
        )
        for result, count in self.key_file_reloads.items():
            reloads.add_metric((result,), count)
        yield reloads
        yield GaugeMetricFamily(
            "ultra_edge_http_requests_in_flight",
            "Requests being answered.",
            value=self.requests_in_flight,
        )
        yield GaugeMetricFamily(
            "ultra_edge_loop_gap_max_seconds",
            "Longest gap of the event loop.",
            value=self.loop_gap_max_s,
        )


class Exposition:
    """The text of ``/metrics``: the edge's families and those of what is behind it."""

    content_type: Final = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, registry: CollectorRegistry, *collectors: Collector) -> None:
        self._registry = registry
        self._collectors = collectors
        for collector in collectors:
            registry.register(collector)

    def leave(self) -> None:
        """Let another edge of this process have these families: nobody may read one twice."""
        for collector in self._collectors:
            self._registry.unregister(collector)

    def text(self) -> bytes:
        """All metrics now."""
        return generate_latest(self._registry)
