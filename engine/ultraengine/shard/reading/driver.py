"""Reads: committed state from memory, history and outcomes from disk on other threads.

A query takes what it needs from the state on the writer's turn, as values, together with the
position that it reflects; what needs the history is then rendered on a thread, bounded by
that position, so that later commands do not show.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog

from ultraengine.log.reader import LogReader
from ultraengine.model.domain import QuerySpec
from ultraengine.model.errors import EngineError
from ultraengine.model.id_time import id_time
from ultraengine.model.ids import Epoch, slot_of
from ultraengine.reply import compose
from ultraengine.reply.driver import OffsetWaiters, Recall
from ultraengine.reply.recorded import Recorded, name_of
from ultraengine.shard.effects import Pending
from ultraengine.shard.machine import Machine
from ultraengine.shard.slot_copy import find_carried
from ultraengine.shard.status import OutcomeAnswer, ReadAnswer

READER_THREADS: Final = 2

log = structlog.get_logger("shard")


class Reads:
    """The reads of one shard.  Called on the event loop's thread."""

    def __init__(
        self,
        machine: Machine,
        reader: LogReader,
        epoch: Epoch,
        halted: Callable[[], EngineError | None] = lambda: None,
    ) -> None:
        """`halted` says why nothing can be read: memory knows less than the log, or is void."""
        self._halted = halted
        self._machine = machine
        self._executor = machine.executor
        self._epoch = epoch
        self._threads = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="shard-read")
        self._recall = Recall(reader, self._threads, machine.unrecorded, find_carried)
        self._offsets = OffsetWaiters(machine.limits.min_offset_wait_s)
        self._recorded = OffsetWaiters(machine.limits.min_offset_wait_s)

    async def query(
        self,
        spec: QuerySpec,
        domain: str,
        tenant: str,
        key: str,
        params: Any,
        *,
        min_offset: int | None = None,
        read: str = "leader",
    ) -> ReadAnswer:
        """Answer a domain's query at or above `min_offset`.

        Raises `EngineError`: WAIT_TIMEOUT, SHARD_UNAVAILABLE of a halted shard, and what the
        query raises (NOT_FOUND, MALFORMED); MALFORMED for an offset that names no point here;
        WRONG_SHARD for a key of another shard.
        """
        del read  # With one replica the leader's memory is the answer to every mode.
        self._require_memory()
        self._require_own(tenant, key)
        if min_offset is not None:
            await self._offsets.wait(min_offset, self._executor.applied_end)
            self._require_memory()
        self._require_point(spec, tenant, key, params)
        end = self._executor.applied_end
        try:
            return await self._answer(spec, domain, tenant, key, params, end)
        finally:
            if self._machine.eager:  # What a reader is told nobody decides again, either.
                await self._recorded.wait(end - 1, self._machine.recorded_end)

    async def _answer(
        self, spec: QuerySpec, domain: str, tenant: str, key: str, params: Any, end: int
    ) -> ReadAnswer:
        """The state of this moment, in which everything below `end` is executed."""
        state = self._executor.slot_state(domain, tenant, key)
        value = captured = spec.capture(state, tenant, key, params)
        if spec.render is not None:
            executor = self._executor
            image = executor.slots.get(slot_of(tenant, key))
            index = executor.registry.domain_index[domain]
            history = executor.history_of(image, index, lambda: end)
            value = await asyncio.get_running_loop().run_in_executor(
                self._threads, spec.render, captured, params, history
            )
        return ReadAnswer(value, self._epoch, end - 1)

    def _require_memory(self) -> None:
        halted = self._halted()
        if halted is not None:
            raise halted

    def _require_own(self, tenant: str, key: str) -> None:
        refusal = self._machine.placement.refusal(slot_of(tenant, key))
        if refusal is not None:
            raise refusal

    def _require_point(self, spec: QuerySpec, tenant: str, key: str, params: Any) -> None:
        """Raises `EngineError` MALFORMED for an offset that may be of several owners."""
        point = None if spec.as_of is None else spec.as_of(params)
        if point is None:
            return
        image = self._executor.slots.get(slot_of(tenant, key))
        if image is not None and image.lineage is not None and not image.lineage.names(point):
            raise EngineError(
                f"{key} has moved between shards, whose offsets are not one another's: ask by time",
                code="MALFORMED",
                pointer="/at_offset",
            )

    def reached(self, applied_end: int) -> None:
        """Wake the reads whose offset is executed now."""
        self._offsets.reached(applied_end)

    def recorded(self) -> None:
        """Wake the reads of what is recorded now."""
        if self._machine.eager:
            self._recorded.reached(self._machine.recorded_end)

    async def outcome(self, tenant: str, key: str | None, command_id: str) -> OutcomeAnswer:
        """What became of a command: ``done`` with its reply, or why there is none.

        Without `key`, the newest command of the tenant with this id under any key.  Raises
        `EngineError` SHARD_UNAVAILABLE of a halted shard: the log may hold more than it knows.
        """
        self._require_memory()
        if key is not None:
            self._require_own(tenant, key)
        machine, dedupe = self._machine, self._executor.dedupe
        if machine.is_in_flight(tenant, key, command_id):
            return OutcomeAnswer("in_flight", None, dedupe.floor_offset)
        candidates = machine.candidates(tenant, key, command_id)
        found = await self._recall.find((tenant, key or "", command_id), candidates)
        if found is not None:
            if machine.eager and found.shard is None:
                await self._recorded.wait(found.outcome.offset, machine.recorded_end)
            return OutcomeAnswer("done", machine.repeat_reply(found), dedupe.floor_offset)
        made = id_time(command_id)
        forgotten = made is not None and made < dedupe.floor_time
        return OutcomeAnswer("forgotten" if forgotten else "unknown", None, dedupe.floor_offset)

    async def find(self, pending: Pending, candidates: Sequence[int]) -> Recorded | None:
        """The first attempt of a command among `candidates`, with its outcome."""
        return await self._recall.find(name_of(pending.admitted.command), candidates)

    async def first_attempt(
        self, pending: Pending, candidates: Sequence[int]
    ) -> tuple[Recorded | None, EngineError | None]:
        """(the first attempt or None for a new command, why that cannot be known now)."""
        try:
            return await self.find(pending, candidates), None
        except Exception:
            log.exception("retry.unreadable", shard=self._executor.shard)
            return None, EngineError(
                "the first attempt's outcome cannot be read now",
                code="OUTCOME_UNKNOWN",
                retry_after_s=1.0,
                location=compose.outcome_location(pending.admitted.command),
            )

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False)
