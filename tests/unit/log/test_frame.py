"""One frame: what is written is read, and nothing else is."""

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.log import frame as frames
from ultraengine.log.digest import crc32c, frame_chain
from ultraengine.log.frame import (
    FrameDamaged,
    FrameDraft,
    FrameKind,
    Keys,
    Place,
    decode,
    decode_header,
    encode,
)
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ConfigVersion, Epoch, FrameSequence, ShardId

CIPHER = Keys(AESGCM(b"k" * 32), b"c" * 32)
PLAIN = Keys()
PLACE = Place(
    shard=ShardId(7),
    epoch=Epoch(2),
    config_version=ConfigVersion(5),
    sequence=FrameSequence(41),
    handlers=b"handlers",
    durable_end=FrameSequence(40),
    chain=b"c" * 16,
    salt=b"saltsalt",
    codec=1,
)


def draft(payload: bytes = b"payload") -> FrameDraft:
    return FrameDraft(FrameKind.COMMANDS, 1000, 3, 1_700_000_000_000_000, payload)


def frame_bytes(
    payload: bytes = b"payload", keys: Keys = PLAIN, *, compress: bool = False
) -> bytes:
    parts, length, _ = encode(draft(payload), PLACE, keys, compress=compress)
    data = b"".join(parts)
    assert len(data) == length
    return data


def resealed(raw: bytes, position: int, value: bytes) -> bytes:
    """`raw` with other header bytes and a header checksum that holds."""
    changed = raw[:position] + value + raw[position + len(value) :]
    return changed[:124] + crc32c(changed[:124]).to_bytes(4, "little") + changed[128:]


@pytest.mark.parametrize("keys", [PLAIN, CIPHER], ids=["plain", "aes"])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("payload", [b"", b"x", b"abcdefgh" * 100, bytes(range(256)) * 5])
def test_a_frame_comes_back_as_it_was(payload: bytes, compress: bool, keys: Keys) -> None:
    parts, length, chain = encode(draft(payload), PLACE, keys, compress=compress)
    data = b"".join(parts)
    found = decode(b"before--" + data + b"after", 8, keys)
    assert found.payload == payload
    assert found.chain == chain
    assert length == len(data) == found.header.frame_bytes
    assert length % 8 == 0
    assert frames.draft_of(found) == draft(payload)
    assert frames.place_of(found.header) == PLACE


def test_the_header_has_the_documented_bytes() -> None:
    raw = frame_bytes(b"payload")
    expected = (
        b"UEFR"
        + (1).to_bytes(2, "little")
        + bytes([1, 0])
        + (128).to_bytes(2, "little")
        + bytes([1, 0])
        + (7).to_bytes(4, "little")
        + (2).to_bytes(8, "little")
        + (5).to_bytes(8, "little")
        + (41).to_bytes(8, "little")
        + (1000).to_bytes(8, "little")
        + (3).to_bytes(4, "little")
        + (7).to_bytes(4, "little")
        + (7).to_bytes(4, "little")
        + bytes(4)
        + (1_700_000_000_000_000).to_bytes(8, "little")
        + b"handlers"
        + (40).to_bytes(8, "little")
        + b"c" * 16
        + b"saltsalt"
        + bytes(8)
        + crc32c(b"payload").to_bytes(4, "little")
    )
    assert raw[:124] == expected
    assert raw[124:128] == crc32c(expected).to_bytes(4, "little")
    assert raw[128:] == b"payload\0"


def test_the_chain_is_over_the_documented_bytes() -> None:
    _, _, chain = encode(draft(b"payload"), PLACE, CIPHER)
    plain = frame_bytes(b"payload")
    identity = plain[:7] + b"\0" + plain[8:52] + bytes(4) + plain[56:80] + bytes(8) + plain[88:104]
    assert chain == frame_chain(identity + bytes(16), b"payload", b"c" * 32)


def test_the_chain_does_not_depend_on_how_a_frame_is_stored() -> None:
    payload = b"abcdefgh" * 100
    other = msgspec.structs.replace(PLACE, salt=b"othersal", durable_end=FrameSequence(0))
    key = Keys(None, CIPHER.chain_key)
    chains = {
        encode(draft(payload), PLACE, key)[2],
        encode(draft(payload), PLACE, key, compress=True)[2],
        encode(draft(payload), other, CIPHER, compress=True)[2],
    }
    assert len(chains) == 1


@pytest.mark.parametrize("field", ["shard", "epoch", "config_version", "sequence", "codec"])
def test_the_chain_depends_on_every_number_of_the_history(field: str) -> None:
    other = msgspec.structs.replace(PLACE, **{field: getattr(PLACE, field) + 1})
    assert encode(draft(), other, PLAIN)[2] != encode(draft(), PLACE, PLAIN)[2]


def test_the_chain_depends_on_the_key_the_past_the_handlers_and_the_content() -> None:
    reference = encode(draft(), PLACE, PLAIN)[2]
    others = [
        encode(draft(), PLACE, Keys(None, b"k" * 16))[2],
        encode(draft(), msgspec.structs.replace(PLACE, chain=b"d" * 16), PLAIN)[2],
        encode(draft(), msgspec.structs.replace(PLACE, handlers=b"other..."), PLAIN)[2],
        encode(draft(b"paYload"), PLACE, PLAIN)[2],
        encode(msgspec.structs.replace(draft(), kind=FrameKind.OUTCOMES), PLACE, PLAIN)[2],
        encode(msgspec.structs.replace(draft(), base_offset=1001), PLACE, PLAIN)[2],
        encode(msgspec.structs.replace(draft(), count=4), PLACE, PLAIN)[2],
        encode(msgspec.structs.replace(draft(), time=1), PLACE, PLAIN)[2],
    ]
    assert len({reference, *others}) == len(others) + 1


@pytest.mark.parametrize("keys", [PLAIN, CIPHER], ids=["plain", "aes"])
@pytest.mark.parametrize("compress", [False, True])
def test_every_flipped_bit_is_detected(compress: bool, keys: Keys) -> None:
    data = frame_bytes(b"abcdefgh" * 10 + b"odd", keys, compress=compress)
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(FrameDamaged):
                decode(bytes(damaged), 0, keys)


def test_every_cut_is_detected() -> None:
    data = frame_bytes(b"abcdefgh" * 10 + b"odd")
    for length in range(len(data)):
        with pytest.raises(FrameDamaged):
            decode(data[:length], 0, PLAIN)


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (4, b"\x02\x00"),
        (6, b"\x00"),
        (6, b"\x04"),
        (7, b"\x04"),
        (8, b"\x00\x01"),
        (10, b"\x00"),
        (11, b"\x01"),
        (40, b"\xff" * 8),
        (48, bytes(4)),
        (48, (65_537).to_bytes(4, "little")),
        (52, (1 << 24).to_bytes(4, "little")),
        (56, ((1 << 24) + 1).to_bytes(4, "little")),
        (60, b"\x01"),
        (80, (42).to_bytes(8, "little")),
        (112, b"\x01"),
    ],
)
def test_a_header_beyond_the_rules_is_refused_even_when_its_checksum_holds(
    position: int, value: bytes
) -> None:
    with pytest.raises(FrameDamaged):
        decode_header(resealed(frame_bytes(), position, value)[:128])


def test_a_length_is_refused_before_it_is_used() -> None:
    raw = resealed(frame_bytes(), 52, b"\xff\xff\xff\xff\xff\xff\xff\xff")
    with pytest.raises(FrameDamaged, match="beyond the limits"):
        decode(raw, 0, PLAIN)


def test_a_compressed_bomb_does_not_grow_beyond_its_declared_length() -> None:
    data = frame_bytes(b"a" * 100_000, compress=True)
    header = decode_header(data[:128])
    assert header.stored_bytes < 1000
    bomb = resealed(data, 56, (header.stored_bytes + 1).to_bytes(4, "little"))
    with pytest.raises(FrameDamaged, match="does not decompress"):
        decode(bomb, 0, PLAIN)


def test_an_encrypted_frame_is_refused_without_its_key_and_a_plain_one_with_a_key() -> None:
    with pytest.raises(FrameDamaged, match="disagree on encryption"):
        decode(frame_bytes(keys=CIPHER), 0, PLAIN)
    with pytest.raises(FrameDamaged, match="disagree on encryption"):
        decode(frame_bytes(), 0, CIPHER)


def test_an_encrypted_frame_does_not_open_with_another_key() -> None:
    with pytest.raises(FrameDamaged, match="does not decrypt"):
        decode(frame_bytes(keys=CIPHER), 0, Keys(AESGCM(b"j" * 32), CIPHER.chain_key))


def test_an_encrypted_frame_does_not_open_in_another_place() -> None:
    data = frame_bytes(keys=CIPHER)
    for position in (16, 24, 32, 64, 72, 80, 88, 104):
        moved = resealed(data, position, b"\x30" if position == 32 else b"\x01")
        with pytest.raises(FrameDamaged, match="does not decrypt"):
            decode(moved, 0, CIPHER)


def test_an_encrypted_payload_shorter_than_its_tag_is_refused() -> None:
    data = resealed(frame_bytes(b"", CIPHER), 52, (4).to_bytes(4, "little"))
    data = resealed(data, 120, crc32c(data[128:132]).to_bytes(4, "little"))
    with pytest.raises(FrameDamaged, match="does not decrypt"):
        decode(data[:136].replace(data[132:136], bytes(4)), 0, CIPHER)


def test_a_plain_payload_of_another_length_than_declared_is_refused() -> None:
    data = resealed(frame_bytes(b"abcd"), 56, (5).to_bytes(4, "little"))
    with pytest.raises(FrameDamaged, match="4 bytes of payload instead of 5"):
        decode(data, 0, PLAIN)


@pytest.mark.parametrize(
    "bad",
    [
        msgspec.structs.replace(draft(), count=0),
        msgspec.structs.replace(draft(), count=65_537),
        msgspec.structs.replace(draft(), base_offset=-1),
        msgspec.structs.replace(draft(), base_offset=2**64 - 1),
        msgspec.structs.replace(draft(), time=-1),
        msgspec.structs.replace(draft(), time=2**64),
        draft(bytes(16 * 1024 * 1024 + 1)),
    ],
    ids=["none", "too many", "below 0", "offset", "before time", "time", "too long"],
)
def test_a_draft_beyond_the_limits_is_a_bug_of_the_caller(bad: FrameDraft) -> None:
    with pytest.raises(InvariantBroken):
        frames.check_draft(bad)


def test_the_largest_payload_fits() -> None:
    payload = bytes(16 * 1024 * 1024)
    frames.check_draft(draft(payload))
    data = frame_bytes(payload, CIPHER)
    assert len(data) == frames.frame_bytes_at_most(len(payload))
    assert decode(data, 0, CIPHER).payload == payload


@given(st.binary(max_size=600), st.integers(0, 64), st.booleans())
def test_arbitrary_bytes_raise_nothing_but_the_declared_error(
    data: bytes, position: int, encrypted: bool
) -> None:
    with pytest.raises(FrameDamaged):
        decode(data, position, CIPHER if encrypted else PLAIN)


@given(
    st.lists(st.tuples(st.integers(0, 119), st.integers(0, 255)), max_size=8),
    st.binary(max_size=200),
    st.booleans(),
    st.booleans(),
)
def test_headers_with_good_checksums_and_any_content_raise_nothing_else(
    changes: list[tuple[int, int]], payload: bytes, compress: bool, encrypted: bool
) -> None:
    keys = CIPHER if encrypted else PLAIN
    raw = frame_bytes(b"abcdefgh" * 12, keys, compress=compress)
    for position, value in changes:
        raw = resealed(raw, position, bytes([value]))
    raw = raw[:128] + payload
    raw = resealed(raw, 120, crc32c(payload).to_bytes(4, "little"))
    raw = resealed(raw, 52, len(payload).to_bytes(4, "little"))
    try:
        found = decode(raw + bytes(-len(payload) % 8), 0, keys)
    except FrameDamaged:
        return
    assert len(found.payload) == found.header.payload_bytes <= 16 * 1024 * 1024
