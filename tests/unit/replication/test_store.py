"""The record as bytes."""

import msgspec
import pytest

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ShardId
from ultraengine.replication import record as records
from ultraengine.replication.record import DiskId, Holder, ReplicaId, Seat
from ultraengine.replication.store import decode_record, encode_record

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
