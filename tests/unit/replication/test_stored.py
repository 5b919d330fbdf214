"""What a replica keeps beside its log survives as it was, or not at all."""

import pytest

from ultraengine.log.digest import crc32c
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ConfigVersion, Epoch
from ultraengine.replication.promise import Promise
from ultraengine.replication.record import DiskId, Holder, ReplicaId, Seat
from ultraengine.replication.stored import Stored, decode_stored, encode_stored

HOLDER = Holder(Seat(ReplicaId(1), DiskId(b"disk")), 3)
STORED = Stored(7, Promise(Epoch(4), HOLDER, ConfigVersion(9), seated=True))


@pytest.mark.parametrize("stored", [Stored(), STORED], ids=["new", "sworn"])
def test_what_is_stored_is_read_again(stored: Stored) -> None:
    assert decode_stored(encode_stored(stored)) == stored


def test_a_changed_byte_is_never_believed() -> None:
    raw = encode_stored(STORED)
    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= 1
        with pytest.raises(InvariantBroken, match="what this disk has sworn"):
            decode_stored(bytes(changed))
        with pytest.raises(InvariantBroken):
            decode_stored(raw[:position])


def test_a_good_checksum_over_something_else_is_not_believed() -> None:
    for body in (b"\xc1", b"\x80"):
        with pytest.raises(InvariantBroken):
            decode_stored(b"UERP" + crc32c(body).to_bytes(4, "little") + body)
