"""Consumer slots of a running shard: what consumers confirm, logged as the engine's own commands.

`feed.consumer_moves` decides what is logged and when; here are the clock, the timer and the
shard.  While the shard does not serve, confirmations wait.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from ultraengine.execution.system import DropConsumer, MoveConsumer
from ultraengine.feed.consumer_moves import MOVE_EVERY_S, ConsumerMoves
from ultraengine.feed.source import Consumer
from ultraengine.model.ids import Offset
from ultraengine.shard.driver import Shard
from ultraengine.shard.status import ShardState

GIVEN_UP: Final = "given up by its owner"


class ConsumerSlots:
    """Implements `feed.source.Slots`.  Used on the event loop's thread."""

    def __init__(self, shard: Shard) -> None:
        executor = shard.executor
        self._shard = shard
        self._moves = ConsumerMoves(
            lambda: executor.consumers,
            lambda: executor.moves_only,
            shard.limits.feed_consumers_max,
        )
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def consumers(self) -> Sequence[Consumer]:
        """All slots, by name."""
        return self._moves.consumers()

    def offsets(self) -> Mapping[str, int]:
        """First offset that each consumer still needs, by name: what holds the log."""
        return self._moves.offsets

    def confirm(self, name: str, offset: Offset) -> None:
        """Move a slot on, or make it.  Raises `EngineError` MALFORMED or OVERLOADED."""
        self._moves.confirm(name, offset)
        self._log_due()

    def forget(self, name: str) -> None:
        """Drop a slot."""
        self.drop(name, GIVEN_UP)

    def drop(self, name: str, reason: str) -> None:
        """Drop a slot for a reason, which is logged with it."""
        if self._moves.drop(name):
            self._shard.log_own(DropConsumer(name, reason))

    def _log_due(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        if self._shard.state is ShardState.SERVING:
            for one in self._moves.due(now):
                self._shard.log_own(MoveConsumer(one.name, one.offset))
        next_at = self._moves.next_at()
        if next_at is not None:
            # A slot that is due and waits still, waits for the shard.
            at = next_at if next_at > now else now + MOVE_EVERY_S
            self._timer = self._loop.call_at(at, self._log_due)

    def close(self) -> None:
        """Log nothing more: what is not logged is confirmed again by whoever goes on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
