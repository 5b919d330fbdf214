"""The mark beside a record as bytes."""

import msgspec
import pytest

from ultraengine.model.errors import InvariantBroken
from ultraengine.replication.belonging import Cluster, decode_cluster, encode_cluster

MARK = Cluster("shop", bytes(range(16)))


def test_a_mark_is_read_as_it_was_written() -> None:
    assert decode_cluster(encode_cluster(MARK)) == MARK


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"\xff",
        encode_cluster(MARK)[:-1],
        encode_cluster(msgspec.structs.replace(MARK, uid=b"short")),
    ],
)
def test_other_bytes_are_no_mark(raw: bytes) -> None:
    with pytest.raises(InvariantBroken):
        decode_cluster(raw)
