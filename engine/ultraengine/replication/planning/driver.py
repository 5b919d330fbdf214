"""Who plans failovers, in real time: `planner.py` beside each replica, and the first record.

Every replica plans; nobody is chosen for it.  Plans are swaps, and of two that were made from one
record one lands.  A planner that sees another epoch than before begins anew, so that it gives the
new holder the time that it would give a silent one.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from ultraengine.model.ids import Epoch, ShardId
from ultraengine.ports import Clock
from ultraengine.replication.founding import Founding
from ultraengine.replication.messages import Found, Message, Told
from ultraengine.replication.planner import PATIENCE, Planner, PlannerEffects, PlannerLimits
from ultraengine.replication.record import Holder, Record, ReplicaId
from ultraengine.replication.recording.driver import Records

TICK_S: Final = 0.05
_FOUNDING_FROM: Final = 2**32
"""Numbers of questions before a founding; a planner's are lower."""

log = structlog.get_logger("replication")


class Planning:
    """One planner beside one replica.  Used on the event loop's thread."""

    def __init__(
        self,
        cluster_uid: bytes,
        shard: ShardId,
        me: Holder,
        replicas: Sequence[ReplicaId],
        min_isr: int,
        limits: PlannerLimits,
        *,
        clock: Clock,
        records: Records,
        send: Callable[[ReplicaId, Message], None],
        on_record: Callable[[Record | None], None],
    ) -> None:
        """`on_record` is told of every read: a leader that nobody reaches learns from it that it is
        one no more."""
        self._cluster_uid = cluster_uid
        self._shard = shard
        self._me = me
        self._replicas = tuple(replicas)
        self._min_isr = min_isr
        self._limits = limits
        self._clock = clock
        self._records = records
        self._send = send
        self._on_record = on_record
        self._epoch = Epoch(0)
        self._planner = self._anew(0)
        self._founding: Founding | None = None
        self._foundings = 0
        self._complained = False

    def _anew(self, numbers_from: int) -> Planner:
        return Planner(
            self._cluster_uid,
            len(self._replicas),
            self._limits,
            self._clock.monotonic(),
            numbers_from=numbers_from,
            patience=PATIENCE * int(self._me.seat.replica),
        )

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            self._do(self._planner.tick(self._clock.monotonic()))
            await asyncio.sleep(TICK_S)

    def told(self, message: Told) -> None:
        """A replica has answered."""
        self._planner.told(message)
        founding = self._founding
        if founding is None:
            return
        made = founding.told(message)
        if isinstance(made, Found):
            self._to_all(made)
        elif made is not None:
            self._founding = None
            self._records.create(made, lambda _record: None)
        if founding.lost and not self._complained:
            self._complained = True
            log.error("record.lost", detail="there is no record, and a disk holds history")

    def _do(self, effects: PlannerEffects) -> None:
        if effects.read:
            self._records.read(self._read)
        if effects.ask is not None:
            self._to_all(effects.ask)
        if effects.lead is not None:
            self._send(effects.lead.record.holder.seat.replica, effects.lead)
        swap = effects.swap
        if swap is not None:
            holder = swap.new.holder.seat.replica
            log.info("failover.planned", epoch=swap.new.epoch, holder=holder)
            self._records.swap(
                swap, lambda current: self._do(self._planner.swap_answered(swap, current))
            )

    def _read(self, record: Record | None) -> None:
        self._on_record(record)
        if record is None:
            self._found()
        elif record.epoch != self._epoch:
            self._epoch = record.epoch
            self._planner = self._anew(self._planner.number)
        else:
            self._do(self._planner.record_read(record, self._clock.monotonic()))

    def _found(self) -> None:
        """Only one of all begins it; the others hear of the record when it is there."""
        if self._me.seat.replica != min(self._replicas):
            return
        self._foundings += 1
        self._founding = Founding(
            self._cluster_uid,
            self._shard,
            self._me,
            replicas=len(self._replicas),
            min_isr=self._min_isr,
            number=_FOUNDING_FROM + 2 * self._foundings,
        )
        self._to_all(self._founding.ask)

    def _to_all(self, message: Message) -> None:
        for replica in self._replicas:
            self._send(replica, message)
