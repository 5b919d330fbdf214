"""The contract of snapshot codecs (requirement 001 §2.3, §6.1, §18.9).

A codec of one's own passes when this suite does::

    from ultraengine.testing.snapshot_codecs import SnapshotCodecContract

    class TestMyCodec(SnapshotCodecContract):
        def new_codec(self):
            return MyCodec()
"""
# ruff: noqa: S101 - a contract suite asserts.

import msgspec
import pytest

from ultraengine.model.ids import SLOT_COUNT
from ultraengine.snapshot.codec import BINARY, JSON, USER_CODECS, SnapshotCodec
from ultraengine.snapshot.format import BLOCK_BYTES_MAX
from ultraengine.snapshot.image import CHUNK_BYTES_MAX, NAME_BYTES_MAX, SHARD_WIDE, Section

_CHUNKS = {
    "nothing": b"",
    "a zero byte": b"\0",
    "every byte": bytes(range(256)),
    "line ends": b"\n\r\n\0\n",
    "text": "Zażółć gęślą jaźń".encode(),
    "a msgpack map": msgspec.msgpack.encode({"a": [1, -1, 2**63, 1.5, None, True], "ż": "ó"}),
    "msgpack floats": msgspec.msgpack.encode([0.1, 1e300, -0.0, 5e-324, float("inf")]),
    "msgpack that is not minimal": b"\xd1\x00\x01",
    "msgpack bytes": msgspec.msgpack.encode([b"\xff\x00", {"k": b""}]),
    "msgpack keys that are numbers": msgspec.msgpack.encode({1: "one"}),
    "a msgpack time": b"\xd6\xff\x00\x00\x00\x01",
    "two msgpack values": b"\x01\x02",
    "half a msgpack value": b"\x93\x01",
    "json": b'{"slot":1}\n',
}


def _sections() -> list[Section]:
    names = ("n", "n" * NAME_BYTES_MAX, "ż" * (NAME_BYTES_MAX // 2), 'a"b\\c\n')
    return [
        *(Section(7, "ledger", 3, chunk) for chunk in _CHUNKS.values()),
        *(Section(slot, "versions", 1, b"x") for slot in (SHARD_WIDE, 0, SLOT_COUNT - 1)),
        *(Section(1, "s", schema, b"x") for schema in (0, 1, 0xFFFF_FFFF)),
        *(Section(1, name, 1, b"x") for name in names),
    ]


class SnapshotCodecContract:
    """Tests every codec passes.  Subclass and give ``new_codec``."""

    def new_codec(self) -> SnapshotCodec:
        """The codec under test."""
        raise NotImplementedError

    def test_its_number_is_its_own(self) -> None:
        """1 and 2 are shipped, 3 to 63 are reserved."""
        number = self.new_codec().number
        assert number in (BINARY, JSON) or number in USER_CODECS

    def test_every_section_comes_back_as_it_was(self) -> None:
        """Lossless for any chunk, name, slot and schema."""
        codec = self.new_codec()
        for section in _sections():
            assert codec.decode_section(codec.encode_section(section)) == section

    def test_equal_sections_have_equal_bytes(self) -> None:
        """Also from another instance: nothing of the process enters the bytes."""
        first, second = self.new_codec(), self.new_codec()
        for section in _sections():
            assert first.encode_section(section) == second.encode_section(section)
            assert first.encode_section(section) == first.encode_section(section)

    def test_the_largest_section_fits_a_block(self) -> None:
        """Incompressible bytes included."""
        chunk = bytes(range(256)) * (CHUNK_BYTES_MAX // 256)
        codec = self.new_codec()
        encoded = codec.encode_section(Section(1, "n", 1, chunk))
        assert len(encoded) + 4 <= BLOCK_BYTES_MAX
        assert codec.decode_section(encoded).chunk == chunk

    def test_a_shortened_section_is_refused_or_another_one(self) -> None:
        """A cut is never taken for the section, and raises nothing but ValueError."""
        codec = self.new_codec()
        for section in _sections():
            encoded = codec.encode_section(section)
            for length in range(min(len(encoded), 64)):
                try:
                    found = codec.decode_section(encoded[:length])
                except ValueError:
                    continue
                assert found != section

    def test_bytes_of_something_else_are_refused(self) -> None:
        """With ValueError, which the loader reports as damage."""
        codec = self.new_codec()
        for other in (b"", b"\0", b"\xff" * 40, b"not a section"):
            with pytest.raises(ValueError, match=r"(?s)."):
                codec.decode_section(other)
