"""What a scrape says of a shard."""

from prometheus_client import CollectorRegistry, generate_latest

from ultraengine.log.driver import Written
from ultraengine.model.ids import FrameSequence, ShardId
from ultraengine.shard.metrics import ShardMetrics


def written(write_s: float, sync_s: float, size: int) -> Written:
    sequence = FrameSequence(1)
    return Written(sequence, sequence, b"", b"", write_s, sync_s, (), size)


def test_a_scrape_has_cumulative_buckets_sums_counters_and_gauges_of_the_shard() -> None:
    registry = CollectorRegistry()
    metrics = ShardMetrics(registry, ShardId(3))
    metrics.flushed(written(0.00005, 0.0003, 512), 0.0004)
    metrics.flushed(written(0.00006, 7.0, 256), 7.5)
    metrics.executed(3, 0.001)
    metrics.rejected.inc()
    metrics.applied.set(42)
    text = generate_latest(registry).decode()
    for line in (
        'ultra_log_write_seconds_bucket{le="5e-05",shard="3"} 1.0',
        'ultra_log_write_seconds_bucket{le="0.0001",shard="3"} 2.0',
        'ultra_log_sync_seconds_bucket{le="5.0",shard="3"} 1.0',
        'ultra_log_sync_seconds_bucket{le="+Inf",shard="3"} 2.0',
        'ultra_log_sync_seconds_count{shard="3"} 2.0',
        'ultra_log_flush_seconds_sum{shard="3"} 7.5004',
        'ultra_group_commands_bucket{le="2",shard="3"} 0.0',
        'ultra_group_commands_bucket{le="4",shard="3"} 1.0',
        'ultra_commands_total{shard="3"} 3.0',
        'ultra_commands_refused_total{shard="3"} 1.0',
        'ultra_log_bytes_total{shard="3"} 768.0',
        'ultra_applied_end{shard="3"} 42.0',
        'ultra_serving{shard="3"} 0.0',
    ):
        assert line in text.splitlines()
    assert "# TYPE ultra_commands_total counter" in text
    assert "# TYPE ultra_queue_seconds histogram" in text
    assert "# TYPE ultra_queue_commands gauge" in text
