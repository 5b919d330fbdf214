"""The record as bytes."""

import asyncio

import msgspec
import pytest

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ShardId
from ultraengine.replication import record as records
from ultraengine.replication.effects import Swap
from ultraengine.replication.record import DiskId, Holder, Record, ReplicaId, Seat
from ultraengine.replication.recording.driver import Records
from ultraengine.replication.store import decode_record, encode_record
from ultraengine.testing.sim_record import SimRecordStore

SEATS = tuple(Seat(ReplicaId(n), DiskId(bytes([200 + n] * 16))) for n in range(3))
RECORD = records.bootstrap(b"\xff" * 16, ShardId(1), Holder(SEATS[0], 1), SEATS, 2)


def test_a_record_is_read_as_it_was_written() -> None:
    assert decode_record(encode_record(RECORD)) == RECORD
    assert encode_record(decode_record(encode_record(RECORD))) == encode_record(RECORD)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"\xff", encode_record(RECORD)[:-1]])
def test_other_bytes_are_no_record(raw: bytes) -> None:
    with pytest.raises(InvariantBroken, match="not one"):
        decode_record(raw)


def test_a_record_that_nobody_may_have_written_is_refused() -> None:
    without = msgspec.structs.replace(RECORD, isr=())
    with pytest.raises(InvariantBroken, match="holder"):
        decode_record(encode_record(without))


def test_a_record_that_does_not_say_how_many_copies_there_are_means_those_of_the_settings() -> None:
    told = msgspec.json.decode(encode_record(RECORD))
    for name in ("replicas", "resized", "before"):
        del told[name]
    old = msgspec.json.encode(told)
    assert decode_record(old, replicas=3).replicas == 3
    with pytest.raises(InvariantBroken, match="min_isr seats"):
        decode_record(old)


async def test_a_record_of_a_release_before_is_swapped_as_it_lies_there() -> None:
    told = msgspec.json.decode(encode_record(RECORD))
    for name in ("replicas", "resized", "before"):
        del told[name]
    store = SimRecordStore()
    assert store.swap(None, msgspec.json.encode(told))
    records_of = Records(store, 3)
    running = asyncio.create_task(records_of.run())
    found: asyncio.Queue[Record | None] = asyncio.Queue()
    records_of.read(found.put_nowait)
    old = await found.get()
    assert old is not None
    new = records.touched(old)
    records_of.swap(Swap(old, new), found.put_nowait)
    assert await found.get() == new
    records_of.swap(Swap(new, records.touched(new)), found.put_nowait)
    assert await found.get() == records.touched(new)
    running.cancel()
