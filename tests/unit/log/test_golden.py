"""Format version 1 stays what it is: golden files, read and written byte for byte."""

import hashlib
import struct
from pathlib import Path

import pytest
from tests.unit.log.golden import make

from ultraengine.log import frame as frames
from ultraengine.log.first import decode_first, encode_first
from ultraengine.log.key_archive import decode_archive, encode_archive
from ultraengine.log.recovery import scan
from ultraengine.log.segment import KeyRing, decode_header, encode_header
from ultraengine.log.serializer import MsgpackSerializer

GOLDEN = Path(__file__).parent / "golden"
CHAINS = {
    "": "d9041804734cfb2200834d41b2fcb91b",
    "golden-chain": "7fd325e93d020c36354d1bc37b4139aa",
}
"""The chain at the end, by the name of its key: the same however frames are stored."""
STATE_CHAIN = "562e1c5e623b5c8b2e2615f6a70a1f9c"
NAMES = pytest.mark.parametrize("name", sorted(make.FORMS))


def test_every_golden_file_is_tested() -> None:
    names = sorted(path.name for path in GOLDEN.glob("*.bin"))
    assert names == sorted([*make.FORMS, make.ARCHIVE, make.FIRST])


def test_the_golden_archive_is_read_and_written_again_byte_for_byte() -> None:
    data = (GOLDEN / make.ARCHIVE).read_bytes()
    ring = KeyRing(make.SECRETS)
    header, entries = decode_archive(data, ring)
    assert entries == make.ENTRIES
    assert (header.point.offset, header.end_offset, header.end_sequence) == (5000, 5004, 1003)
    assert encode_archive(header, ring.open(header), entries, compress=False) == data
    assert make.archive_content() == data


def test_the_golden_first_is_read_and_written_again_byte_for_byte() -> None:
    data = (GOLDEN / make.FIRST).read_bytes()
    assert decode_first(data) == make.FIRST_SEQUENCE
    assert encode_first(make.FIRST_SEQUENCE) == data


@NAMES
def test_a_golden_file_is_read_to_its_end(name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    header = decode_header(data[:4096])
    assert header.point == make.START
    found: list[frames.Frame] = []
    result = scan(
        data, header, KeyRing(make.SECRETS).open(header), visit=lambda f, _: found.append(f)
    )
    assert result.end.byte_position == len(data)
    assert result.end.point.sequence == 1003
    assert result.end.point.offset == 5004
    assert result.end.point.recorded_end == 5000
    assert result.proved_end == 1000
    assert [frames.draft_of(frame) for frame in found] == make.drafts()
    serializer = MsgpackSerializer()
    assert serializer.decode_outcomes(found[0].payload) == make.OUTCOMES
    assert serializer.decode_commands(found[1].payload) == make.COMMANDS
    assert result.end.point.chain.hex() == CHAINS[header.chain_key]
    assert result.end.point.state_chain.hex() == STATE_CHAIN


@NAMES
def test_a_golden_file_is_written_again_byte_for_byte(name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    header = decode_header(data[:4096])
    keys = KeyRing(make.SECRETS).open(header)
    again = [encode_header(header)]
    position = 4096
    while position < len(data):
        frame = frames.decode(data, position, keys)
        parts, length, chain_again = frames.encode(
            frames.draft_of(frame),
            frames.place_of(frame.header),
            keys,
            compress=make.FORMS[name][0],
        )
        assert chain_again == frame.chain
        again += parts
        position += length
    assert b"".join(again) == data


@NAMES
def test_the_script_makes_the_golden_files(name: str) -> None:
    assert make.content(name) == (GOLDEN / name).read_bytes()


def test_the_plain_golden_file_is_what_the_specification_says() -> None:
    """Read with nothing but struct and hashlib, straight from `FORMAT.md`."""
    data = (GOLDEN / "v1-plain.bin").read_bytes()
    position, chain, state = 4096, data[56:72], data[72:88]
    sequence = int.from_bytes(data[32:40], "little")
    while position < len(data):
        header = bytearray(data[position : position + 120])
        (length,) = struct.unpack_from("<I", header, 52)
        payload = data[position + 128 : position + 128 + length]
        assert struct.unpack_from("<Q", header, 32) == (sequence,)
        assert header[88:104] == chain
        assert header[104:112] == data[228:236]
        header[7:8] = bytes(1)
        header[52:56] = bytes(4)
        header[80:88] = bytes(8)
        header[104:112] = bytes(8)
        chain = hashlib.blake2b(bytes(header) + payload, digest_size=16).digest()
        if header[6] == 2:
            state = hashlib.blake2b(state + payload, digest_size=16).digest()
        position += 128 + -(-length // 8) * 8
        sequence += 1
    assert position == len(data)
    assert chain.hex() == CHAINS[""]
    assert state.hex() == STATE_CHAIN


def test_the_forms_are_what_their_names_say() -> None:
    for name, (compress, master_key, _) in make.FORMS.items():
        data = (GOLDEN / name).read_bytes()
        flags = {data[at + 7] for at in range(4096, len(data), 8) if data[at : at + 4] == b"UEFR"}
        assert any(flag & 1 for flag in flags) == compress
        assert all(bool(flag & 2) == bool(master_key) for flag in flags)
        assert (b"checkout-77" in data) == (not master_key)
