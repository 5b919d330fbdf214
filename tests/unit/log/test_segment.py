"""Segment headers, names and keys; MARK; IDENTITY."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.log.log_world import SECRETS

from ultraengine.log.damage import LogRefused
from ultraengine.log.digest import crc32c, require_fast_crc32c
from ultraengine.log.identity import (
    IdentityDamaged,
    LogIdentity,
    decode_identity,
    encode_identity,
)
from ultraengine.log.mark import Mark, MarkDamaged, decode_mark, encode_mark
from ultraengine.log.segment import (
    GENESIS,
    KeyRing,
    Point,
    SegmentDamaged,
    SegmentHeader,
    decode_header,
    encode_header,
    first_sequence_of,
    is_prepared_name,
    prepared_name,
    segment_name,
)
from ultraengine.model.ids import Epoch, FrameSequence, Instant, Offset, ShardId
from ultraengine.testing.sim_clock import SimRandom, SimSecrets

POINT = Point(
    sequence=FrameSequence(11),
    offset=Offset(12),
    recorded_end=Offset(10),
    epoch=Epoch(13),
    time=Instant(14),
    handlers=b"handlers",
    chain=b"c" * 16,
    state_chain=b"s" * 16,
)
HEADER = SegmentHeader(
    shard=ShardId(3),
    cluster_uid=b"u" * 16,
    created=Instant(15),
    point=POINT,
    salt=b"saltsalt",
    master_key="disk",
    wrapped_key=b"w" * 60,
    chain_key="chain",
)


def resealed(raw: bytes, position: int, value: bytes) -> bytes:
    body = (raw[:position] + value + raw[position + len(value) :])[:4092]
    return body + crc32c(body).to_bytes(4, "little")


def test_a_segment_header_comes_back_and_has_4096_bytes() -> None:
    raw = encode_header(HEADER)
    assert len(raw) == 4096
    assert decode_header(raw) == HEADER


def test_a_segment_header_has_the_documented_bytes() -> None:
    def number(value: int, length: int) -> bytes:
        return value.to_bytes(length, "little")

    expected = (
        b"UESG"
        + number(1, 2)
        + number(3, 2)
        + number(3, 4)
        + number(4096, 4)
        + b"u" * 16
        + number(11, 8)
        + number(12, 8)
        + number(15, 8)
        + b"c" * 16
        + b"s" * 16
        + number(13, 8)
        + number(14, 8)
        + b"w" * 60
        + b"disk".ljust(64, b"\0")
        + b"saltsalt"
        + number(10, 8)
        + b"chain".ljust(64, b"\0")
        + b"handlers"
    ).ljust(4092, b"\0")
    assert encode_header(HEADER) == expected + number(crc32c(expected), 4)


def test_every_flipped_bit_of_a_segment_header_is_detected() -> None:
    raw = encode_header(HEADER)
    for position in range(len(raw)):
        damaged = bytearray(raw)
        damaged[position] ^= 1 << (position % 8)
        with pytest.raises(SegmentDamaged) as caught:
            decode_header(bytes(damaged))
        assert str(caught.value) == "the checksum of the segment's header differs"


@pytest.mark.parametrize(
    ("position", "value", "said"),
    [
        (0, b"UEXX", "the magic b'UEXX' is not that of a segment"),
        (6, b"\x07", "flags 7, header length 4096 or a reserved field"),
        (6, b"\x02", "flags and master key name disagree"),
        (6, b"\x01", "flags and chain key name disagree"),
        (12, b"\x00\x20", "flags 3, header length 8192 or a reserved field"),
        (164, b"\xff", "a key name is not UTF-8"),
        (400, b"\x01", "flags 3, header length 4096 or a reserved field"),
    ],
)
def test_a_segment_header_beyond_the_rules_is_refused_even_with_a_good_checksum(
    position: int, value: bytes, said: str
) -> None:
    with pytest.raises(SegmentDamaged) as caught:
        decode_header(resealed(encode_header(HEADER), position, value))
    assert str(caught.value) == said


def test_a_segment_header_that_is_cut_off_says_so() -> None:
    with pytest.raises(SegmentDamaged) as caught:
        decode_header(encode_header(HEADER)[:-1])
    assert str(caught.value) == "the segment's header is cut off"


def test_a_newer_format_is_refused_and_not_called_damage() -> None:
    with pytest.raises(LogRefused, match="format version 2"):
        decode_header(resealed(encode_header(HEADER), 4, b"\x02"))


@given(st.binary(max_size=4200))
def test_arbitrary_bytes_are_no_segment_header(raw: bytes) -> None:
    with pytest.raises(SegmentDamaged):
        decode_header(raw)


def test_a_key_name_that_does_not_fit_is_refused() -> None:
    with pytest.raises(LogRefused, match="longer than 64 bytes"):
        encode_header(msgspec.structs.replace(HEADER, master_key="é" * 33))


def test_names_sort_like_sequences_and_nothing_else_is_a_segment() -> None:
    assert segment_name(9) < segment_name(10) < segment_name(2**64 - 1)
    assert first_sequence_of(segment_name(123)) == 123
    for other in ("MARK", "seg-1.log", segment_name(1) + ".tmp", prepared_name(1)):
        assert first_sequence_of(other) is None
    assert is_prepared_name(prepared_name(4))
    assert not is_prepared_name(segment_name(4))


def test_a_segment_key_opens_with_its_master_key_alone() -> None:
    ring = KeyRing(SECRETS)
    header, keys = ring.create(HEADER, SimRandom(1))
    opened = ring.open(decode_header(encode_header(header)))
    assert keys.cipher is not None
    assert opened.cipher is not None
    assert opened.cipher.decrypt(b"n" * 12, keys.cipher.encrypt(b"n" * 12, b"x", b""), b"") == b"x"
    assert opened.chain_key == b"c" * 32
    other = KeyRing(SimSecrets(SECRETS.values | {"disk": b"n" * 32}))
    with pytest.raises(LogRefused, match="another key"):
        other.open(header)


def test_a_wrapped_key_does_not_open_in_another_segment() -> None:
    ring = KeyRing(SECRETS)
    header, _ = ring.create(HEADER, SimRandom(1))
    for other in (
        msgspec.structs.replace(header, shard=ShardId(4)),
        msgspec.structs.replace(header, cluster_uid=b"v" * 16),
        msgspec.structs.replace(
            header, point=msgspec.structs.replace(POINT, sequence=FrameSequence(12))
        ),
    ):
        with pytest.raises(LogRefused, match="another key"):
            ring.open(other)


def test_two_segments_never_share_key_or_salt() -> None:
    ring, random = KeyRing(SECRETS), SimRandom(1)
    first, _ = ring.create(HEADER, random)
    second, _ = ring.create(HEADER, random)
    assert first.salt != second.salt
    assert first.wrapped_key != second.wrapped_key


@pytest.mark.parametrize(
    ("secrets", "reason"),
    [
        ({"chain": b"c" * 32}, "'disk', which is not there"),
        ({"disk": b"short", "chain": b"c" * 32}, "5 bytes instead of 32"),
        ({"disk": b"m" * 32, "chain": b"c" * 15}, "15 bytes instead of 16 to 64"),
        ({"disk": b"m" * 32, "chain": b"c" * 65}, "65 bytes instead of 16 to 64"),
        ({"disk": b"m" * 32}, "'chain', which is not there"),
    ],
)
def test_a_missing_or_unfit_key_is_named(secrets: dict[str, bytes], reason: str) -> None:
    with pytest.raises(LogRefused, match=reason):
        KeyRing(SimSecrets(secrets)).create(HEADER, SimRandom(1))


def test_a_segment_without_key_names_has_no_keys() -> None:
    plain = msgspec.structs.replace(HEADER, master_key="", chain_key="", point=GENESIS)
    header, keys = KeyRing(SimSecrets({})).create(plain, SimRandom(1))
    assert keys.cipher is None
    assert keys.chain_key == b""
    assert header.wrapped_key == bytes(60)
    assert decode_header(encode_header(header)) == header


def test_mark_comes_back_and_every_flipped_bit_is_detected() -> None:
    raw = encode_mark(Mark(FrameSequence(77), b"c" * 16))
    assert raw[:32] == b"UEMK" + bytes(4) + (77).to_bytes(8, "little") + b"c" * 16
    assert decode_mark(raw) == Mark(FrameSequence(77), b"c" * 16)
    for position in range(len(raw)):
        for bit in range(8):
            damaged = bytearray(raw)
            damaged[position] ^= 1 << bit
            with pytest.raises(MarkDamaged):
                decode_mark(bytes(damaged))
    with pytest.raises(MarkDamaged, match="35 bytes"):
        decode_mark(raw[:-1])


@pytest.mark.parametrize("start", [b"UEXX" + bytes(4), b"UEMK\1" + bytes(3)])
def test_a_mark_with_another_start_is_refused_even_with_a_good_checksum(start: bytes) -> None:
    body = start + bytes(24)
    with pytest.raises(MarkDamaged, match="magic"):
        decode_mark(body + crc32c(body).to_bytes(4, "little"))


def test_identity_comes_back_and_every_flipped_bit_is_detected() -> None:
    identity = LogIdentity(
        cluster_uid=b"u" * 16,
        shard=ShardId(3),
        replica="a",
        disk_uuid=b"d" * 16,
        format=1,
        created=Instant(15),
    )
    raw = encode_identity(identity)
    assert decode_identity(raw) == identity
    for position in range(len(raw)):
        for bit in range(8):
            damaged = bytearray(raw)
            damaged[position] ^= 1 << bit
            with pytest.raises(IdentityDamaged):
                decode_identity(bytes(damaged))
    for length in range(len(raw)):
        with pytest.raises(IdentityDamaged):
            decode_identity(raw[:length])


def test_an_identity_of_another_shape_is_refused() -> None:
    body = msgspec.msgpack.encode({"shard": 1})
    with pytest.raises(IdentityDamaged, match="missing required field"):
        decode_identity(body + crc32c(body).to_bytes(4, "little"))


def test_the_slow_checksum_is_refused() -> None:
    require_fast_crc32c()
    with pytest.raises(LogRefused, match="'python' implementation"):
        require_fast_crc32c("python")


def test_crc32c_is_castagnoli() -> None:
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("master_key", ["", "disk"])
def test_a_header_of_another_cluster_opens_the_same_frames(master_key: str) -> None:
    secrets = SimSecrets({"disk": b"m" * 32})
    ring = KeyRing(secrets)
    header, keys = ring.create(
        SegmentHeader(
            shard=ShardId(3), cluster_uid=b"a" * 16, created=Instant(1), point=GENESIS, salt=b"",
            master_key=master_key,
        ),
        SimRandom(1),
    )  # fmt: skip
    moved = decode_header(encode_header(ring.rehome(header, b"b" * 16, SimRandom(2))))
    assert moved.cluster_uid == b"b" * 16
    assert (moved.salt, moved.point) == (header.salt, header.point)
    opened = ring.open(moved)
    if keys.cipher is not None:
        assert opened.cipher is not None
        assert moved.wrapped_key != header.wrapped_key
        sealed = keys.cipher.encrypt(b"n" * 12, b"content", b"")
        assert opened.cipher.decrypt(b"n" * 12, sealed, b"") == b"content"
        with pytest.raises(LogRefused, match="does not open segment"):
            ring.rehome(
                msgspec.structs.replace(header, cluster_uid=b"c" * 16), b"d" * 16, SimRandom(3)
            )
