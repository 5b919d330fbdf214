"""What the gateway counts beside its HTTP requests (`edge.metrics`): commands and streams."""

from collections.abc import Iterable
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from ultraengine.edge.metrics import Histogram, RequestMetrics

SIZE_BOUNDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)


class EdgeMetrics(RequestMetrics):
    """Everything the edge counts."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[tuple[str, str], int] = {}
        """(outcome, code or '') -> commands; accepted ones are counted per request."""
        self.batch_sizes = Histogram(SIZE_BOUNDS)
        self.streams_open = 0
        self.feeds_open = 0
        self.streams_closed: dict[int, int] = {}
        """Close code -> streams closed by the engine."""

    def commands(self, outcome: str, code: str, count: int) -> None:
        """Count `count` commands that ended alike."""
        place = (outcome, code)
        self.outcomes[place] = self.outcomes.get(place, 0) + count

    def closed(self, code: int) -> None:
        """Count one stream that the engine closed."""
        self.streams_closed[code] = self.streams_closed.get(code, 0) + 1

    def collect(self) -> Iterable[Metric]:
        """All families of the edge (a Prometheus collector)."""
        yield from super().collect()
        commands = CounterMetricFamily(
            "ultra_edge_commands", "Commands answered at the edge.", labels=("outcome", "code")
        )
        for (outcome, code), count in self.outcomes.items():
            commands.add_metric((outcome, code), count)
        yield commands
        sizes = HistogramMetricFamily("ultra_edge_batch_commands", "Commands per batch or frame.")
        sizes.add_metric((), self.batch_sizes.cumulative(), self.batch_sizes.total)
        yield sizes
        closed = CounterMetricFamily(
            "ultra_edge_streams_closed", "Streams closed by the engine.", labels=("code",)
        )
        for close_code, count in self.streams_closed.items():
            closed.add_metric((str(close_code),), count)
        yield closed
        yield GaugeMetricFamily("ultra_edge_streams_open", "Open streams.", value=self.streams_open)
        yield GaugeMetricFamily("ultra_edge_feeds_open", "Open feeds.", value=self.feeds_open)
