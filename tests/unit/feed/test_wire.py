"""Pages as bytes: whole, in pieces, changed on their way, and from nowhere."""

import struct
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ultraengine.feed.source import FeedPage
from ultraengine.feed.wire import (
    MESSAGE_BYTES_MAX,
    FeedReader,
    WireDamaged,
    encode_end,
    encode_page,
)
from ultraengine.log.digest import crc32c
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Epoch, FrameSequence, Instant, Offset, ShardId
from ultraengine.model.outcome import CommittedGroup

SHARD = ShardId(9)


def group(base: int, count: int = 3, commands: bytes = b"commands") -> CommittedGroup:
    return CommittedGroup(
        SHARD,
        Epoch(2),
        FrameSequence(base * 2),
        Offset(base),
        count,
        Instant(1_700_000_000_000_000 + base),
        1,
        commands,
        b"outcomes of " + commands,
        bytes(range(16)),
    )


PAGE = FeedPage((group(40), group(43, 1, b""), group(44, 7)), Offset(60), Instant(99))
BYTES = b"".join(encode_page(SHARD, PAGE))
EMPTY = FeedPage((), Offset(0), Instant(0))


def resealed(data: bytes) -> bytes:
    """The first message with checksums that fit what it holds."""
    body = data[48:]
    head = data[:40] + struct.pack("<I", crc32c(body))
    return head + struct.pack("<I", crc32c(head)) + body


def read(data: bytes) -> list[FeedPage]:
    return list(FeedReader(SHARD).feed(data))


def test_a_page_comes_back_as_it_was() -> None:
    assert read(BYTES + b"".join(encode_page(SHARD, EMPTY)) + BYTES) == [PAGE, EMPTY, PAGE]


def test_the_layout_is_the_one_that_is_described() -> None:
    page = FeedPage((group(40, 3, b"abc"),), Offset(60), Instant(99))
    data = b"".join(encode_page(SHARD, page))
    assert data[:8] == b"UEFP\x01\x00\x01\x00"
    assert struct.unpack("<IIQQQ", data[8:40]) == (9, 1, 60, 99, 64 + 3 + 15)
    assert struct.unpack("<I", data[40:44])[0] == crc32c(data[48:])
    assert struct.unpack("<I", data[44:48])[0] == crc32c(data[:44])
    assert struct.unpack("<QQQQI", data[48:84]) == (2, 80, 40, 1_700_000_000_000_040, 3)
    assert data[84:88] == b"\x01\0\0\0"
    assert struct.unpack("<II", data[88:96]) == (3, 15)
    assert data[96:112] == bytes(range(16))
    assert data[112:] == b"abcoutcomes of abc"


def test_the_golden_file_is_read_and_written_again_byte_for_byte() -> None:
    data = (Path(__file__).parent / "golden" / "feed-v1.bin").read_bytes()
    reader = FeedReader(SHARD)
    pages = reader.feed(data)
    assert (next(pages), next(pages)) == (PAGE, EMPTY)
    with pytest.raises(EngineError) as caught:
        next(pages)
    assert BYTES + b"".join(encode_page(SHARD, EMPTY)) + encode_end(SHARD, caught.value) == data


@given(st.lists(st.integers(1, 200), min_size=1, max_size=40))
def test_pages_come_together_from_pieces_of_any_size(sizes: list[int]) -> None:
    data, reader, found, at = BYTES * 3, FeedReader(SHARD), [], 0
    for size in sizes:
        found += list(reader.feed(data[at : at + size]))
        at += size
        assert reader.is_between == (at % len(BYTES) == 0 or at >= len(data))
    found += list(reader.feed(data[at:]))
    assert found == [PAGE] * 3
    assert reader.is_between


@pytest.mark.parametrize("code", ["TOO_OLD", "DRAINING"])
def test_a_feed_ends_with_a_reason(code: str) -> None:
    reader = FeedReader(SHARD)
    error = EngineError("because", code=code, retry_after_s=2.5)
    pages = reader.feed(BYTES + encode_end(SHARD, error))
    assert next(pages) == PAGE
    with pytest.raises(EngineError) as caught:
        next(pages)
    said = caught.value
    assert (said.code, said.detail, said.retry_after_s) == (code, "because", 2.5)


def test_a_reason_of_a_newer_engine_is_one_to_ask_again_for() -> None:
    with pytest.raises(EngineError) as caught:
        read(encode_end(SHARD, EngineError("later", code="NEVER_HEARD_OF")))
    assert caught.value.problem.retryable


@pytest.mark.parametrize("position", range(len(BYTES)))
def test_every_changed_bit_is_found(position: int) -> None:
    for bit in (1, 16, 128):
        changed = bytearray(BYTES)
        changed[position] ^= bit
        with pytest.raises(WireDamaged):
            read(bytes(changed) + bytes(300))


@given(st.binary(max_size=400))
@example(b"UEFP\x01\x00\x01\x00")
def test_arbitrary_bytes_raise_nothing_but_the_declared_errors(data: bytes) -> None:
    reader = FeedReader(SHARD)
    try:
        assert list(reader.feed(data)) == []
        assert len(data) < 48
    except WireDamaged:
        assert len(data) >= 48


@given(
    st.lists(st.tuples(st.integers(4, len(BYTES) - 1), st.integers(0, 255)), max_size=6),
    st.integers(0, 60),
    st.binary(max_size=80),
)
def test_messages_with_good_checksums_and_any_content_raise_nothing_else(
    changes: list[tuple[int, int]], cut: int, more: bytes
) -> None:
    data = bytearray(BYTES[: len(BYTES) - cut] + more)
    for position, value in changes:
        if position < len(data):
            data[position] = value
    data[32:40] = struct.pack("<Q", len(data) - 48)
    try:
        pages = read(resealed(bytes(data)))
    except (WireDamaged, EngineError):
        return
    (page,) = pages
    ends = [one.offset_end for one in page.groups]
    assert [one.base_offset for one in page.groups[1:]] == ends[:-1]


@pytest.mark.parametrize(
    ("position", "value", "said"),
    [
        (0, b"UEFQ", "no feed"),
        (4, b"\x02\x00", "no feed of version 1"),
        (6, b"\x03", "kind 3"),
        (7, b"\x01", "kind 1"),
        (8, b"\x08", "shard 8 instead of 9"),
        (12, b"\x04", "3 groups instead of 4"),
        (32, struct.pack("<Q", MESSAGE_BYTES_MAX + 1), str(MESSAGE_BYTES_MAX + 1)),
        (48 + 32, b"\0\0\0\0", "does not fit"),
        (48 + 32, b"\x09", "offset 43 follows 49"),
        (48 + 37, b"\x01", "does not fit"),
        (48 + 40, b"\xff\xff", "does not fit"),
    ],
)
def test_what_no_engine_would_send_is_named(position: int, value: bytes, said: str) -> None:
    data = BYTES[:position] + value + BYTES[position + len(value) :]
    with pytest.raises(WireDamaged, match=said):
        read(resealed(data))


def test_a_group_that_is_cut_off_is_named() -> None:
    data = bytearray(BYTES + bytes(10))
    data[32:40] = struct.pack("<Q", len(data) - 48)
    with pytest.raises(WireDamaged, match="cut off"):
        read(resealed(bytes(data)))


def test_an_end_that_cannot_be_read_is_damage() -> None:
    body = msgspec.msgpack.encode({"no": "array"})
    data = bytearray(encode_end(SHARD, EngineError("x"))[:48] + body)
    data[32:40] = struct.pack("<Q", len(body))
    with pytest.raises(WireDamaged, match="end of a feed"):
        read(resealed(bytes(data)))
