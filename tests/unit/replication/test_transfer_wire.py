"""Questions about snapshots and their answers are bytes that never change their meaning."""

import pytest

from ultraengine.log.frame import Keys
from ultraengine.log.segment import Point
from ultraengine.model.ids import Epoch, FrameSequence, Instant, Offset
from ultraengine.replication import wire
from ultraengine.replication.installing.offer import (
    OFFER,
    PIECE_BYTES,
    Fetch,
    Offered,
    Part,
    Piece,
    Transfer,
    Withdrawn,
)
from ultraengine.replication.messages import Ask
from ultraengine.replication.record import DiskId, Holder, ReplicaId, Seat
from ultraengine.replication.wire import WireDamaged

ME = Holder(Seat(ReplicaId(1), DiskId(b"d" * 4)), 3)
BASE = Point(
    FrameSequence(9), Offset(20), Offset(18), Epoch(4), Instant(77), b"handlers", b"c" * 4, b"s" * 4
)
GOLDEN: list[tuple[Transfer, str]] = [
    (
        Fetch(ME, 1, OFFER, 0),
        (
            "5545525701030000490000000000000027f091cd85a474797065a54665746368a26d6582a4736561"
            "7482a77265706c69636101a46469736bc40464646464a5737461727403a66e756d62657201a47061"
            "7274ffa8706f736974696f6e00"
        ),
    ),
    (
        Offered(1, BASE, 30, (Part("snapshots/a.full", 7),)),
        (
            "5545525701030000ac000000000000003c60501e85a474797065a74f666665726564a66e756d6265"
            "7201a46261736588a873657175656e636509a66f666673657414ac7265636f726465645f656e6412"
            "a565706f636804a474696d654da868616e646c657273c40868616e646c657273a5636861696ec404"
            "63636363ab73746174655f636861696ec40473737373ac73657175656e63655f656e641ea5706172"
            "74739182a470617468b0736e617073686f74732f612e66756c6ca473697a6507"
        ),
    ),
    (
        Piece(1, 0, 4, b"abc", b"digest"),
        (
            "55455257010300003d00000000000000d8b2fc7786a474797065a55069656365a66e756d62657201"
            "a47061727400a8706f736974696f6e04a464617461c403616263a6646967657374c4066469676573"
            "74"
        ),
    ),
    (
        Withdrawn(1, "why"),
        (
            "55455257010300002000000000000000fe8beb5a83a474797065a957697468647261776ea66e756d"
            "62657201a3776879a3776879"
        ),
    ),
]


def received(raw: bytes) -> object:
    head = wire.decode_head(raw[: wire.HEAD_BYTES])
    return wire.decode_received(head, raw[wire.HEAD_BYTES :], Keys())


@pytest.mark.parametrize(("transfer", "raw"), GOLDEN, ids=lambda one: type(one).__name__)
def test_a_transfer_is_sent_as_the_format_says_and_read_again(transfer: Transfer, raw: str) -> None:
    assert wire.encode_transfer(transfer).hex() == raw
    assert received(bytes.fromhex(raw)) == transfer


def test_a_message_is_told_from_a_transfer_by_its_kind() -> None:
    assert received(wire.encode_message(Ask(7))) == Ask(7)


def test_a_whole_piece_fits_into_a_message() -> None:
    piece = Piece(1, 2, 3, bytes(PIECE_BYTES), bytes(32))
    assert received(wire.encode_transfer(piece)) == piece


def test_nothing_else_is_taken_for_a_transfer() -> None:
    raw = wire._encode(wire.Kind.TRANSFER, b"\x80", ())
    with pytest.raises(WireDamaged, match="a transfer"):
        received(raw)
    with_frames = wire._encode(wire.Kind.TRANSFER, b"\x80", (b"x" * 8,))
    with pytest.raises(WireDamaged, match="only an Append"):
        received(with_frames)
    flipped = bytearray(wire.encode_transfer(Withdrawn(1, "why")))
    flipped[-1] ^= 1
    with pytest.raises(WireDamaged, match="checksum"):
        received(bytes(flipped))
