"""A switchover of the shard that leads here: stop its intake, hand over, end.

    commands are refused, queued ones finish -> rest -> the replica hands over -> this process ends

Whoever is refused sends the same id to the new leader.  When the successor does not get there
within ``ULTRA_HANDOVER_S``, this leader takes commands again as if nothing had been.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec
import structlog

from ultraengine.model.errors import EngineError
from ultraengine.replication.driver import ReplicaDriver
from ultraengine.replication.effects import Deposed
from ultraengine.replication.handover.plan import chosen
from ultraengine.replication.record import Record, ReplicaId, Seat
from ultraengine.replication.sizing import goes
from ultraengine.shard.driver import Shard
from ultraengine.shard.status import ShardState

REQUESTED_S: Final = 2.0
"""How long a copy is waited for where ``ULTRA_HANDOVER_S`` is 0, by request."""
ASIDE_S: Final = 1.0
"""How often a leader that is not to be a copy any more tries to hand over."""
ANSWER_S: Final = 0.1
"""Until the process ends: whoever has asked for the switchover gets an answer before."""

log = structlog.get_logger("replication")


class Switched(msgspec.Struct, frozen=True):
    """Who leads now, and what it took."""

    replica: int
    epoch: int
    log_end: int
    """Offset below which everything was committed, and is on the new leader."""
    stopped_s: float
    """From the end of intake until the swap was known won."""


class Switchover:
    """The switchovers of one process.  Used on the event loop's thread."""

    def __init__(
        self,
        replica: ReplicaDriver,
        shard: Shard,
        wait_s: float,
        on_end: Callable[[BaseException], None],
    ) -> None:
        """`on_end` is told that another leads: the process must end."""
        self._replica = replica
        self._shard = shard
        self._wait_s = wait_s or REQUESTED_S
        self._at_stop = wait_s > 0
        self._on_end = on_end
        self._busy = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.handed = False
        """Whether another leads."""

    async def promote(self, number: int | None, reason: str) -> Any:
        """Let a copy lead, the best one without a number; this process ends soon after.

        Raises `EngineError` CANNOT_PROMOTE; OUTCOME_UNKNOWN while nobody knows who leads.
        """
        switched, record = await self._switch(number, reason)
        self._spawn(self._end(record))
        return switched

    async def before_stop(self) -> None:
        """Hand over if a copy can lead; the stop goes on in any case."""
        if not self._at_stop:
            return
        try:
            _, record = await self._switch(None, "stop")
            await self._replica.handing.tell_successor(record)
        except EngineError as error:
            log.warning("switchover.none", why=error.detail)

    async def keep_aside(self) -> None:
        """Hand over while this copy leads and is not to be any more; until it is cancelled."""
        wish = self._replica.machine.wish
        while wish is not None and goes(wish, int(self._replica.me.seat.replica)):
            await asyncio.sleep(ASIDE_S)
            if self._shard.state is ShardState.SERVING and not self.handed:
                try:
                    await self.promote(None, "fewer copies")
                except EngineError as error:
                    log.warning("switchover.none", why=error.detail)

    async def _end(self, record: Record) -> None:
        await self._replica.handing.tell_successor(record)
        await asyncio.sleep(ANSWER_S)
        to = record.holder.seat.replica
        self._on_end(Deposed(f"replica {to} leads by a switchover, epoch {record.epoch}"))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _switch(self, number: int | None, reason: str) -> tuple[Switched, Record]:
        to = self._successor(number)
        shard, began = self._shard, time.monotonic()
        log.info("switchover.begins", to=to.replica, reason=reason)
        record = await self._stopped(to, began)
        switched = Switched(
            int(to.replica), record.epoch, int(shard.machine.log_end), time.monotonic() - began
        )
        log.info("switchover.done", **msgspec.to_builtins(switched))
        return switched, record

    def _successor(self, number: int | None) -> Seat:
        leader = self._replica.machine.leader
        serves = self._shard.state is ShardState.SERVING and self._replica.machine.serves
        if self._busy or leader is None or not serves:
            raise EngineError(
                f"this replica does not serve, or hands over already: {self._shard.state.value}",
                code="CANNOT_PROMOTE",
            )
        wanted = None if number is None else ReplicaId(number)
        told, wish = self._replica.watching.told, self._replica.machine.wish
        places = leader.record.replicas
        if wish is not None:
            places = min(places, wish.replicas)
        found = chosen(leader.record, self._replica.me.seat, told, wanted, places)
        if isinstance(found, str):
            raise EngineError(found, code="CANNOT_PROMOTE")
        return found

    async def _stopped(self, to: Seat, began: float) -> Record:
        """Hand over while nothing is taken.  Takes commands again when it is given up."""
        shard, late = self._shard, f"replica {to.replica} did not get there in {self._wait_s} s"
        self._busy = True
        try:
            async with asyncio.timeout(self._wait_s):
                await shard.pause("", ShardState.HANDING_OVER)
                await shard.hold()
        except TimeoutError:
            self._busy = False
            await shard.resume(ShardState.HANDING_OVER)
            raise EngineError(f"{late}: commands still wait", code="CANNOT_PROMOTE") from None
        left = max(0.0, self._wait_s - (time.monotonic() - began))
        handing = asyncio.ensure_future(self._replica.handing.to(self._replica.machine, to, left))
        handing.add_done_callback(self._settled)
        try:
            record = await asyncio.wait_for(asyncio.shield(handing), self._wait_s + left)
        except TimeoutError:
            # Nobody may go on before the record has said who leads; `_settled` does then.
            raise EngineError(
                "the record does not answer: nobody knows yet who leads", code="OUTCOME_UNKNOWN"
            ) from None
        if record is None:
            raise EngineError(late, code="CANNOT_PROMOTE")
        return record

    def _settled(self, handing: "asyncio.Future[Record | None]") -> None:
        """It is known who leads, perhaps long after whoever asked went away."""
        self.handed = not handing.cancelled() and handing.result() is not None
        if not self.handed:
            log.warning("switchover.given_up")
            self._spawn(self._go_on())

    async def _go_on(self) -> None:
        self._shard.release()
        await self._shard.resume(ShardState.HANDING_OVER)
        self._busy = False
