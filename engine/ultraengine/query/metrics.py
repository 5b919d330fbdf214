"""What `ultra query` counts beside its HTTP requests."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ultraengine.cache.bounded import CacheStats
from ultraengine.edge.metrics import RequestMetrics

Totals = Sequence[tuple[str, int, int, int, float]]


class QueryMetrics(RequestMetrics):
    """Everything an `ultra query` counts (a Prometheus collector)."""

    def __init__(self) -> None:
        super().__init__()
        self.reads_in_flight = 0
        self.waiting = 0
        """Requests that wait for an offset."""
        self.waits: dict[str, int] = {"reached": 0, "timeout": 0}
        self.above_quota = 0
        """Reads refused because their tenant's quota was used up."""
        self.unavailable = 0
        """Conversations that the database did not finish."""
        self.ended = 0
        """Statements ended by their timeout."""
        self.breaker: Callable[[], str] = lambda: "closed"
        self.caches: Callable[[], Mapping[str, CacheStats]] = dict
        self.totals: Callable[[], Totals] = tuple
        self.positions: Callable[[], Iterable[tuple[str, int, int]]] = tuple
        """(projection, shard, first offset that is not in the tables)."""

    def collect(self) -> Iterable[Metric]:
        """All families."""
        yield from super().collect()
        yield from self._reads()
        yield from self._caches()
        waits = CounterMetricFamily(
            "ultra_query_waits", "Waits for an offset, by how they ended.", labels=("end",)
        )
        for end, count in self.waits.items():
            waits.add_metric((end,), count)
        yield waits
        yield CounterMetricFamily(
            "ultra_query_unavailable",
            "Reads that the database did not finish.",
            value=self.unavailable,
        )
        yield CounterMetricFamily(
            "ultra_query_statements_ended", "Statements ended by their timeout.", value=self.ended
        )
        yield CounterMetricFamily(
            "ultra_query_above_quota",
            "Reads refused because their tenant's quota was used up.",
            value=self.above_quota,
        )
        yield GaugeMetricFamily(
            "ultra_query_reads_in_flight", "Reads being answered.", value=self.reads_in_flight
        )
        yield GaugeMetricFamily(
            "ultra_query_waiting", "Reads that wait for an offset.", value=self.waiting
        )
        breaker = GaugeMetricFamily(
            "ultra_query_breaker", "1 for the state that the breaker is in.", labels=("state",)
        )
        breaker.add_metric((self.breaker(),), 1)
        yield breaker
        position = GaugeMetricFamily(
            "ultra_query_position",
            "First offset that is not in the tables, as last seen.",
            labels=("projection", "shard"),
        )
        for projection, shard, offset in self.positions():
            position.add_metric((projection, str(shard)), offset)
        yield position

    def _reads(self) -> Iterable[Metric]:
        calls = CounterMetricFamily(
            "ultra_query_reads", "Reads by how they were answered.", labels=("read", "by")
        )
        seconds = CounterMetricFamily(
            "ultra_query_read_seconds", "Time of reads in the database.", labels=("read",)
        )
        for read, called, cached, failed, took in self.totals():
            calls.add_metric((read, "cache"), cached)
            calls.add_metric((read, "nothing"), failed)
            calls.add_metric((read, "database"), called - cached - failed)
            seconds.add_metric((read,), took)
        yield calls
        yield seconds

    def _caches(self) -> Iterable[Metric]:
        found = self.caches()
        looked = CounterMetricFamily(
            "ultra_query_cache_lookups", "Look-ups in a cache.", labels=("cache", "result")
        )
        left = CounterMetricFamily(
            "ultra_query_cache_evictions", "Entries that made room.", labels=("cache",)
        )
        held = GaugeMetricFamily("ultra_query_cache_entries", "Entries held.", labels=("cache",))
        for name, stats in found.items():
            looked.add_metric((name, "hit"), stats.hits)
            looked.add_metric((name, "miss"), stats.misses)
            left.add_metric((name,), stats.evictions)
            held.add_metric((name,), stats.entries)
        yield looked
        yield left
        yield held
