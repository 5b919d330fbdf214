"""What a running shard is made of."""

import msgspec

from ultraengine.execution.executor import Executor
from ultraengine.execution.registry import Registry
from ultraengine.log.writer import LogWriter
from ultraengine.model.ids import Epoch
from ultraengine.model.limits import Limits
from ultraengine.model.policy import FlushRule
from ultraengine.shard.machine import Machine
from ultraengine.shard.metrics import ShardMetrics
from ultraengine.shard.steady_clock import SteadyClock


class ShardParts(msgspec.Struct):
    """What `shard.opening` puts together for one shard."""

    machine: Machine
    executor: Executor
    log: LogWriter
    registry: Registry
    limits: Limits
    rule: FlushRule
    clock: SteadyClock
    metrics: ShardMetrics
    epoch: Epoch
    replayed: int
    replay_s: float

    @property
    def replay_per_s(self) -> float | None:
        """Commands per second of the recovery; None when nothing was replayed."""
        return self.replayed / self.replay_s if self.replayed and self.replay_s else None
