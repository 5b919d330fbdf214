"""Metrics of one shard, observed per group and never per command."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ultraengine.log.driver import Written
from ultraengine.model.ids import ShardId

SECONDS: Final = (
    0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0,
)  # fmt: skip
COMMANDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class ShardMetrics:
    """Histograms by stage, counters and gauges, labelled with the shard."""

    def __init__(self, registry: CollectorRegistry, shard: ShardId) -> None:
        def seconds(name: str, text: str) -> Histogram:
            return Histogram(
                f"ultra_{name}_seconds", text, ["shard"], registry=registry, buckets=SECONDS
            ).labels(str(shard))

        self.queue: Histogram = seconds("queue", "Wait of a group's oldest command for its group")
        self.write: Histogram = seconds("log_write", "Write of one flush")
        self.sync: Histogram = seconds("log_sync", "fdatasync of one flush")
        self.flush: Histogram = seconds("log_flush", "From handing a group over to its durability")
        self.execute: Histogram = seconds("execute", "Execution of one group, all slices")
        self.group: Histogram = Histogram(
            "ultra_group_commands", "Commands per group", ["shard"], registry=registry,
            buckets=COMMANDS,
        ).labels(str(shard))  # fmt: skip

        def counter(name: str, text: str) -> Counter:
            return Counter(f"ultra_{name}", text, ["shard"], registry=registry).labels(str(shard))

        self.commands: Counter = counter("commands_total", "Commands executed, system ones too")
        self.rejected: Counter = counter("commands_refused_total", "Commands refused by the shard")
        self.bytes: Counter = counter("log_bytes_total", "Bytes handed to the log")
        self.alarms: Counter = counter("alarms_total", "Alarms; each is in the log of the process")
        self.snapshots: Counter = counter("snapshots_total", "Verified snapshots taken")

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"ultra_{name}", text, ["shard"], registry=registry).labels(str(shard))

        self.waiting: Gauge = gauge("queue_commands", "Commands that wait for a group")
        self.applied: Gauge = gauge("applied_end", "First offset not executed")
        self.replay: Gauge = gauge("replay_commands_per_second", "Rate of the last recovery")
        self.serving: Gauge = gauge("serving", "1 while commands are accepted")
        self.snapshot_offset: Gauge = gauge("snapshot_offset", "First offset not in a snapshot")

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
