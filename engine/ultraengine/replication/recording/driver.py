"""Reads and swaps of the record, one after the other, on a thread.

One after the other: a read that began before a swap and is heard after it would show its leader an
older record than it knows, and end a leadership without a reason.  Whatever fails has no answer;
the protocol asks again.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from ultraengine.ports import RecordStore
from ultraengine.replication.effects import Swap
from ultraengine.replication.record import Record
from ultraengine.replication.store import decode_record, encode_record

WAITING_MAX: Final = 32
"""Requests that wait behind one that hangs; more are dropped, as if they had been lost."""

log = structlog.get_logger("replication")

Answer = Callable[[Record | None], None]
"""Told on the event loop which record is in force."""


class Records:
    """The record of one shard, as one process reaches it."""

    def __init__(self, store: RecordStore, replicas: int) -> None:
        """`replicas`: what is meant by a record that does not say how many copies there are."""
        self._store = store
        self._replicas = replicas
        self._read: tuple[Record, bytes] | None = None
        """The newest that was read, and how it lies there: a release before wrote less."""
        self._queue: asyncio.Queue[tuple[Callable[[], Record | None], Answer]] = asyncio.Queue()

    def read(self, answer: Answer) -> None:
        """A quorum read."""
        self._ask(self._current, answer)

    def swap(self, swap: Swap, answer: Answer) -> None:
        """A compare-and-swap; `answer` is told ``swap.new``, or what is there instead."""
        self._ask(lambda: self._swapped(self._bytes_of(swap.expected), swap.new), answer)

    def create(self, record: Record, answer: Answer) -> None:
        """Put the first record where there is none."""
        self._ask(lambda: self._swapped(None, record), answer)

    def _ask(self, request: Callable[[], Record | None], answer: Answer) -> None:
        if self._queue.qsize() < WAITING_MAX:
            self._queue.put_nowait((request, answer))

    def _current(self) -> Record | None:
        raw = self._store.read()
        if raw is None:
            return None
        record = decode_record(raw, replicas=self._replicas)
        self._read = record, raw
        return record

    def _bytes_of(self, record: Record) -> bytes:
        known = self._read
        return known[1] if known is not None and known[0] == record else encode_record(record)

    def _swapped(self, expected: bytes | None, new: Record) -> Record | None:
        if self._store.swap(expected, encode_record(new)):
            log.info("record.swapped", epoch=new.epoch, version=new.version, isr=_places(new))
            return new
        return self._current()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            request, answer = await self._queue.get()
            try:
                record = await asyncio.to_thread(request)
            except OSError as error:
                log.warning("record.no_answer", why=str(error))
                continue
            answer(record)


def _places(record: Record) -> list[int]:
    return [int(seat.replica) for seat in record.isr]
