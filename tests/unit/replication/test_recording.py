"""Requests for the record wait for each other, and one that fails has no answer."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

from structlog.testing import capture_logs
from tests.unit.replication.test_replica import FIRST, SEATS
from tests.unit.replication.three import until

from ultraengine.ports import RecordStore
from ultraengine.replication import record as records
from ultraengine.replication.effects import Swap
from ultraengine.replication.record import Record
from ultraengine.replication.recording.driver import WAITING_MAX, Records
from ultraengine.replication.store import decode_record, encode_record
from ultraengine.testing.sim_record import SimRecordStore

SECOND = records.shrunk(FIRST, SEATS[2])
Answers = list[Record | None]


class Hanging(SimRecordStore):
    """One whose reads hang until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.goes = threading.Event()
        self.reads = 0

    def read(self) -> bytes | None:
        self.reads += 1
        self.goes.wait()
        return super().read()


@contextlib.asynccontextmanager
async def running(store: RecordStore) -> AsyncIterator[Records]:
    """Requests are done as long as this lasts."""
    made = Records(store, 3)
    task = asyncio.ensure_future(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_record_is_created_once_and_a_swap_of_an_old_one_tells_what_is_there() -> None:
    store, answers = SimRecordStore(), Answers()
    async with running(store) as made:
        made.read(answers.append)
        made.create(FIRST, answers.append)
        made.create(SECOND, answers.append)
        made.swap(Swap(FIRST, SECOND), answers.append)
        made.swap(Swap(FIRST, records.touched(FIRST)), answers.append)
        await until(lambda: len(answers) == 5)
    assert answers == [None, FIRST, FIRST, SECOND, SECOND]
    assert store.read() == encode_record(SECOND)


async def test_a_request_that_fails_is_not_answered_and_the_next_one_is() -> None:
    store, answers = SimRecordStore(iter(["", "lost", "late", ""])), Answers()
    async with running(store) as made:
        with capture_logs() as lines:
            made.create(FIRST, answers.append)
            made.read(answers.append)
            made.swap(Swap(FIRST, SECOND), answers.append)
            made.read(answers.append)
            await until(lambda: len(answers) == 2)
    assert answers == [FIRST, SECOND], "the swap has landed, and nobody knew"
    assert [one["event"] for one in lines].count("record.no_answer") == 2


async def test_behind_a_request_that_hangs_a_bounded_number_waits() -> None:
    store, answers = Hanging(), Answers()
    async with running(store) as made:
        made.read(answers.append)
        await until(lambda: store.reads)
        for _ in range(WAITING_MAX + 9):
            made.read(answers.append)
        assert not answers
        store.goes.set()
        await until(lambda: len(answers) == 1 + WAITING_MAX)
        made.create(FIRST, answers.append)
        await until(lambda: answers[-1] is not None)
    assert store.reads == 1 + WAITING_MAX
    raw = store.read()
    assert raw is not None
    assert decode_record(raw) == FIRST
