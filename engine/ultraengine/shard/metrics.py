"""Metrics of one shard, observed per group and never per command.

A lone command is a group too, so counting is kept cheap: plain numbers of the loop's thread,
made into Prometheus families only when somebody asks.  The locks and label checks of a general
metrics library cost a lone command about 15 us, an eighth of its processor time.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ultraengine.log.driver import Written
from ultraengine.model.ids import ShardId

SECONDS: Final = (
    0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0,
)  # fmt: skip
COMMANDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class Histogram:
    """Counts of values at or below each bound."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def family(self, name: str, text: str, shard: str) -> Metric:
        """As Prometheus wants it: cumulative buckets and the sum."""
        seen, buckets = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            seen += count
            buckets.append((bound, float(seen)))
        family = HistogramMetricFamily(name, text, labels=("shard",))
        family.add_metric((shard,), buckets, self._total)
        return family


class Counter:
    """A number that grows."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value = 0

    def inc(self, amount: int = 1) -> None:
        """Add to it."""
        self._value += amount

    def family(self, name: str, text: str, shard: str) -> Metric:
        """As Prometheus wants it."""
        family = CounterMetricFamily(name, text, labels=("shard",))
        family.add_metric((shard,), self._value)
        return family


class Gauge:
    """A number of this moment."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value = 0.0

    def set(self, value: float) -> None:
        """Replace it."""
        self._value = value

    def family(self, name: str, text: str, shard: str) -> Metric:
        """As Prometheus wants it."""
        family = GaugeMetricFamily(name, text, labels=("shard",))
        family.add_metric((shard,), self._value)
        return family


class ShardMetrics(Collector):
    """Histograms by stage, counters and gauges, labelled with the shard."""

    def __init__(self, registry: CollectorRegistry, shard: ShardId) -> None:
        self._shard = str(shard)
        self._named: list[tuple[str, str, Histogram | Counter | Gauge]] = []

        def seconds(name: str, text: str) -> Histogram:
            made = Histogram(SECONDS)
            self._named.append((f"ultra_{name}_seconds", text, made))
            return made

        self.queue = seconds("queue", "Wait of a group's oldest command for its group")
        self.write = seconds("log_write", "Write of one flush")
        self.sync = seconds("log_sync", "fdatasync of one flush")
        self.flush = seconds("log_flush", "From handing a group over to its durability")
        self.execute = seconds("execute", "Execution of one group, all slices")
        self.group = Histogram(COMMANDS)
        self._named.append(("ultra_group_commands", "Commands per group", self.group))

        def counter(name: str, text: str) -> Counter:
            made = Counter()
            self._named.append((f"ultra_{name}", text, made))
            return made

        self.commands = counter("commands_total", "Commands executed, system ones too")
        self.rejected = counter("commands_refused_total", "Commands refused by the shard")
        self.bytes = counter("log_bytes_total", "Bytes handed to the log")
        self.alarms = counter("alarms_total", "Alarms; each is in the log of the process")
        self.snapshots = counter("snapshots_total", "Verified snapshots taken")
        self.consumers_dropped = counter(
            "consumers_dropped_total", "Consumer slots dropped because the log was too large"
        )

        def gauge(name: str, text: str) -> Gauge:
            made = Gauge()
            self._named.append((f"ultra_{name}", text, made))
            return made

        self.waiting = gauge("queue_commands", "Commands that wait for a group")
        self.applied = gauge("applied_end", "First offset not executed")
        self.replay = gauge("replay_commands_per_second", "Rate of the last recovery")
        self.serving = gauge("serving", "1 while commands are accepted")
        self.snapshot_offset = gauge("snapshot_offset", "First offset not in a snapshot")
        self.consumers: Callable[[], Mapping[str, int]] = dict
        """Every consumer slot with its offset."""
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """All families of the shard."""
        for name, text, metric in self._named:
            yield metric.family(name, text, self._shard)
        slots = GaugeMetricFamily(
            "ultra_consumer_offset",
            "Everything below is confirmed by this consumer",
            labels=("shard", "consumer"),
        )
        for consumer, offset in self.consumers().items():
            slots.add_metric((self._shard, consumer), offset)
        yield slots

    def flushed(self, written: Written, took_s: float) -> None:
        """A write was reported `took_s` after it was handed over."""
        self.flush.observe(took_s)
        self.write.observe(written.write_s)
        self.sync.observe(written.sync_s)
        self.bytes.inc(written.bytes)

    def executed(self, commands: int, took_s: float) -> None:
        """A group was executed to its end."""
        self.execute.observe(took_s)
        self.group.observe(commands)
        self.commands.inc(commands)
