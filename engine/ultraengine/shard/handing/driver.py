"""The slots of a running shard that are handed over: messages, and the copy, batch by batch.

A message is tried against the record first, so that one which changes nothing is not logged; what
is answered was logged and executed (clause 2 of `docs/slot-moves.md`).  The copy is read from the
log on a thread, bounded in what it holds and in what it looks through.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Container
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from ultraengine.execution.carried import ERAS_MAX, encode_parts
from ultraengine.execution.system import FillSlot, SlotData, StepSlot
from ultraengine.log.damage import BelowRetention
from ultraengine.log.reader import LogReader
from ultraengine.model.errors import EngineError
from ultraengine.moving.record import Attempt, Begin, Message, Refused, SlotRecord, State, step
from ultraengine.moving.wire import Batch, Told
from ultraengine.shard.driver import Shard
from ultraengine.shard.slot_copy import Origin, next_batch
from ultraengine.shard.slot_index import SlotIndex, groups_at
from ultraengine.shard.slot_moves import comes_after, encode_message, sealed_position
from ultraengine.shard.status import ShardState

BATCH_BYTES_MAX: Final = 256 * 1024
"""Parts of one batch, as they are logged: soft, one command's parts stay together."""
LOGGED_S: Final = 20.0
"""Longest wait for a step to be logged and executed."""
NOTHING: Final = encode_parts(())


class Handing:
    """The slots of one shard.  Used on the event loop's thread."""

    def __init__(self, shard: Shard, reader: LogReader, recorded_end: Callable[[], int]) -> None:
        """`recorded_end`: first offset whose outcome is not durable."""
        self._shard = shard
        self._reader = reader
        self._recorded_end = recorded_end
        self._placement = shard.machine.placement
        self._placement.on_logged = self._logged
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._locks: dict[int, asyncio.Lock] = {}
        self._index: SlotIndex | None = None
        """Used on the thread alone."""
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="slot-copy")

    def records(self) -> dict[int, SlotRecord]:
        """What is logged, of all slots that a message ever came for."""
        return dict(self._placement.moves.records)

    def look(self, slot: int, *, digest: bool = True) -> Told:
        """What this shard says of a slot; the digest of a copy costs a look at all of it."""
        return Told(self._shard.executor.shard, self._placement.look(slot, digest=digest))

    async def send(self, slot: int, message: Message) -> Told:
        """Carry a message out.  Raises `EngineError`: SHARD_UNAVAILABLE, OUTCOME_UNKNOWN."""
        async with self._alone(slot):
            seen = self.look(slot)
            record = seen.seen.record
            try:
                after = step(record, message, seen.seen.digest)
            except Refused as refused:
                return msgspec.structs.replace(seen, refused=refused.reason.value)
            if after is record:
                return seen
            if isinstance(message, Begin):
                self._require_movable(record, message)
            is_first = self._placement.is_first_owner(slot)
            sealed = comes_after(record, message)
            await self._log(StepSlot(slot, is_first, encode_message(message), sealed))
            return self.look(slot)

    def _require_movable(self, record: SlotRecord, message: Begin) -> None:
        """Raises `EngineError` MALFORMED for a move that cannot come to anything."""
        if message.destination == self._shard.executor.shard:
            raise EngineError("the slot is here already", code="MALFORMED")
        if record.era + 1 >= ERAS_MAX:
            raise EngineError(f"a slot has at most {ERAS_MAX} owners", code="MALFORMED")
        if not self._shard.machine.durable.local:
            detail = "with durability async a shard hands no slots over: it may forget that it did"
            raise EngineError(detail, code="MALFORMED")

    # --- the copy ---------------------------------------------------------------------------

    async def read(self, slot: int, position: int) -> Batch:
        """The next batch of a slot that is handed over, from `position` on.

        Raises `EngineError`: MALFORMED when it is not handed over, TOO_OLD when the log does not
        reach back to it.
        """
        executor, record = self._shard.executor, self._placement.record(slot)
        if record.state not in {State.EXPORTING, State.SEALED}:
            raise EngineError(f"slot {slot} is not handed over here", code="MALFORMED")
        is_sealed, image = record.state is State.SEALED, executor.slots.get(slot)
        end = sealed_position(record) if is_sealed else int(executor.applied_end)
        time = int(executor.time)
        if image is None:
            return Batch(position, max(position, end), time, NOTHING)
        end = min(end, self._recorded_end())
        origin = Origin.of(executor.shard, slot, image.lineage)
        skipped = frozenset(executor.skipped)
        try:
            reached, content = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._read, origin, position, end, skipped
            )
        except BelowRetention as error:
            raise EngineError(
                f"slot {slot} goes back to offset {origin.start}, and the log begins at "
                f"{error.first_offset}: slots move with an archive that reaches back, or from a "
                "log that was never cut",
                code="TOO_OLD",
            ) from error
        return Batch(position, reached, time, content)

    def _read(
        self, origin: Origin, position: int, end: int, skipped: Container[int]
    ) -> tuple[int, bytes]:
        index = self._indexed(end)
        if origin.start < index.start:
            raise BelowRetention(first_sequence=0, first_offset=index.start)
        end = min(end, index.end)
        bases = index.bases(origin.slot, max(position, origin.start), end)
        groups = groups_at(bases, lambda base: self._reader.groups(base, end))
        bytes_max = min(BATCH_BYTES_MAX, self._shard.limits.frame_bytes_max // 8)
        return next_batch(groups, origin, position, end, skipped, bytes_max)

    def _indexed(self, end: int) -> SlotIndex:
        """The index up to `end`, or as far as outcomes are durable.  Raises `BelowRetention`."""
        if self._index is None:
            first = 0
            try:
                next(iter(self._reader.groups(0, 1)), None)
            except BelowRetention as error:
                first = int(error.first_offset)
            self._index = SlotIndex(first)
        self._index.extend(self._reader.groups(self._index.end, end))
        return self._index

    async def feed(self, slot: int, attempt: Attempt, batch: Batch) -> Told:
        """Log a batch; one that does not go on where the copy ends changes nothing.

        Raises `EngineError`: TOO_LARGE, SHARD_UNAVAILABLE, OUTCOME_UNKNOWN.
        """
        bytes_max = self._shard.limits.frame_bytes_max // 2
        if len(batch.parts) > bytes_max:
            detail = f"a batch of {len(batch.parts)} bytes; half of frame_bytes_max is {bytes_max}"
            raise EngineError(detail, code="TOO_LARGE")
        async with self._alone(slot):
            seen = self.look(slot, digest=False)
            record = seen.seen.record
            is_next = record.state is State.STAGED and record.attempt == attempt
            if not is_next or seen.seen.position != batch.start or batch.end <= batch.start:
                return seen
            start, end = batch.start, batch.end
            era, number = attempt.era, attempt.number
            await self._log(FillSlot(slot, era, number, start, end, batch.time, batch.parts))
            return self.look(slot, digest=False)

    # --- logging ----------------------------------------------------------------------------

    @asynccontextmanager
    async def _alone(self, slot: int) -> AsyncIterator[None]:
        """One step of a slot at a time: what is tried against its record is still true when it is
        executed."""
        lock = self._locks.setdefault(slot, asyncio.Lock())
        async with lock:
            yield

    async def _log(self, data: SlotData) -> None:
        if self._shard.state is not ShardState.SERVING:
            detail = f"the shard is {self._shard.state.value}"
            raise EngineError(detail, code="SHARD_UNAVAILABLE", retry_after_s=1.0)
        logged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[data.slot] = logged
        try:
            self._shard.log_own(data)
            await asyncio.wait_for(logged, LOGGED_S)
        except TimeoutError:
            detail = "a step of a slot's move was not executed in time; it may be logged"
            raise EngineError(detail, code="OUTCOME_UNKNOWN") from None
        finally:
            self._waiting.pop(data.slot, None)

    def _logged(self, data: SlotData) -> None:
        logged = self._waiting.get(data.slot)
        if logged is not None and not logged.done():
            logged.set_result(None)

    def close(self) -> None:
        """Let the thread end."""
        self._threads.shutdown(wait=False)
