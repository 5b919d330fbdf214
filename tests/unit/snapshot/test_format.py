"""The bytes of snapshot files: golden files, damage, limits."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import SLOT_COUNT
from ultraengine.snapshot import format as fmt
from ultraengine.snapshot.cipher import wrap_key
from ultraengine.snapshot.codec import JSON, BinaryCodec, Codecs, JsonCodec
from ultraengine.snapshot.errors import SnapshotDamaged, SnapshotError, SnapshotRefused
from ultraengine.snapshot.image import CHUNK_BYTES_MAX, Section, StateHash, state_hash
from ultraengine.snapshot.loader import open_snapshot, read_header
from ultraengine.snapshot.writer import SnapshotWriter
from ultraengine.testing.snapshot_codecs import SnapshotCodecContract

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lz4": {"compress": True},
    "aes": {"encrypt": True},
    "lz4-aes": {"compress": True, "encrypt": True},
    "json": {"codec": JSON},
}


def read(samples: Any, data: bytes) -> tuple[fmt.Header, fmt.Footer, list[Section]]:
    opened = open_snapshot(samples.source(data), "x.full", Codecs(), key_of=samples.key_of)
    return opened.header, opened.footer, list(opened.sections())


def verdict(samples: Any, data: bytes) -> type[SnapshotError] | None:
    try:
        read(samples, data)
    except SnapshotError as problem:
        return type(problem)
    return None


class TestBinaryCodec(SnapshotCodecContract):
    def new_codec(self) -> BinaryCodec:
        return BinaryCodec()


class TestJsonCodec(SnapshotCodecContract):
    def new_codec(self) -> JsonCodec:
        return JsonCodec()

    def test_a_chunk_of_msgpack_is_shown_as_its_value(self) -> None:
        line = self.new_codec().encode_section(
            Section(1, "ledger", 2, msgspec.msgpack.encode({"alice": 5}))
        )
        assert line == b'{"slot":1,"name":"ledger","schema":2,"value":{"alice":5}}\n'

    def test_a_chunk_whose_value_is_many_times_longer_in_json_fits_a_block(self) -> None:
        codec = self.new_codec()
        text = "\x01" * (CHUNK_BYTES_MAX - 5)
        section = Section(1, "ledger", 2, msgspec.msgpack.encode(text))
        line = codec.encode_section(section)
        assert len(line) < fmt.BLOCK_BYTES_MAX
        assert codec.decode_section(line) == section

    @pytest.mark.parametrize(
        "line",
        [
            b'{"slot":1,"name":"n","schema":1}\n',
            b'{"slot":1,"name":"n","schema":1,"value":1,"base64":"AA=="}\n',
            b'{"slot":1,"name":"n","schema":1,"base64":"?"}\n',
            b'{"slot":1,"name":"n","schema":1,"value":1,"more":2}\n',
            b'{"slot":1,"name":"n","schema":1,"value":1}',
        ],
    )
    def test_a_line_of_another_shape_is_refused(self, line: bytes) -> None:
        with pytest.raises(ValueError, match=r"."):
            self.new_codec().decode_section(line)


@pytest.mark.parametrize("kind", KINDS)
class TestGolden:
    """Files written by version 1 of the format.  They stay readable for ever."""

    def test_it_is_read_with_all_its_values(self, samples: Any, kind: str) -> None:
        data = (samples.golden / f"v1-{kind}.snap").read_bytes()
        header, footer, sections = read(samples, data)
        assert sections == samples.sections()
        assert header.position == samples.position()
        assert header.created == samples.header().created
        assert header.cluster_uid == samples.header().cluster_uid
        assert header.encrypted == ("aes" in kind)
        assert (header.base, header.folded) == (None, False)
        assert footer.state_hash == footer.content_hash == state_hash(sections)
        assert footer.sections == len(sections)
        assert footer.chunk_bytes == sum(len(section.chunk) for section in sections)


@pytest.mark.parametrize("kind", ["plain", "aes", "json"])
def test_the_same_bytes_are_written_today(samples: Any, kind: str) -> None:
    """Not for LZ4: compressors may choose other bytes for the same content."""
    data = samples.file(samples.sections(), **KINDS[kind])
    assert data == (samples.golden / f"v1-{kind}.snap").read_bytes()


def test_the_golden_increment_names_its_base(samples: Any) -> None:
    data = (samples.golden / "v1-increment.snap").read_bytes()
    header, footer, sections = read(samples, data)
    assert header.base == samples.base()
    assert sections == samples.sections()[1:3]
    assert footer.state_hash == bytes(reversed(range(32)))
    again = samples.file(sections, base=samples.base(), state_hash=bytes(reversed(range(32))))
    assert again == data


@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_byte_is_found(samples: Any, kind: str) -> None:
    data = samples.file(samples.sections(), **KINDS[kind])
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 0x41
        with pytest.raises(SnapshotError):
            read(samples, bytes(broken))


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation_and_extension_is_damage(samples: Any, kind: str) -> None:
    data = samples.file(samples.sections(), **KINDS[kind])
    for length in range(len(data)):
        with pytest.raises(SnapshotDamaged):
            read(samples, data[:length])
    for more in (b"\0", b"\0" * 128, data[-fmt.FOOTER_BYTES :]):
        with pytest.raises(SnapshotDamaged):
            read(samples, data + more)


def _resealed(data: bytes, at: int, value: bytes, start: int, end: int) -> bytes:
    """`data` with bytes replaced and the checksum before `end` made right again."""
    changed = bytearray(data)
    changed[at : at + len(value)] = value
    changed[end - 4 : end] = fmt.crc32c(bytes(changed[start : end - 4])).to_bytes(4, "little")
    return bytes(changed)


def test_damage_under_a_right_checksum_is_found_too(samples: Any) -> None:
    data = samples.file(samples.sections())
    head_end = int.from_bytes(data[8:12], "little")
    size = len(data)
    foot = size - fmt.FOOTER_BYTES
    cases = {
        "handlers map of": _resealed(data, 180, b"\xff\xff\0\0", 0, head_end),
        "handlers map that is none": _resealed(data, 312, b"\xc1", 0, head_end),
        "key name that is no text": _resealed(data, 184, b"\xff\xfe", 0, head_end),
        "unknown flag": _resealed(data, 6, b"\x80", 0, head_end),
        "footer flags": _resealed(data, foot + 6, b"\x02", foot, size),
        "footer version": _resealed(data, foot + 4, b"\x09", foot, size),
        "state hash without its flag": _resealed(data, foot + 6, b"\x00", foot, size),
        "footer position": _resealed(data, foot + 24, b"\x01", foot, size),
        "count of sections": _resealed(data, foot + 16, b"\x63", foot, size),
        "count of blocks": _resealed(data, foot + 8, b"\x01", foot, size),
        "content hash": _resealed(data, foot + 40, b"\x01\x02", foot, size),
        "block flags": _resealed(data, head_end + 4, b"\x04", head_end, head_end + 40),
        "block encrypted in a plain file": _resealed(
            data, head_end + 4, b"\x02", head_end, head_end + 40
        ),
        "block lz4 that is none": _resealed(data, head_end + 4, b"\x01", head_end, head_end + 40),
        "block number": _resealed(data, head_end + 8, b"\x05", head_end, head_end + 40),
        "sections of a block": _resealed(data, head_end + 16, b"\x09", head_end, head_end + 40),
        "block too long": _resealed(data, head_end + 20, b"\0\0\0\x01", head_end, head_end + 40),
        "plain length": _resealed(data, head_end + 24, b"\xff", head_end, head_end + 40),
    }
    verdicts = {name: verdict(samples, broken) for name, broken in cases.items()}
    assert [name for name, found in verdicts.items() if found is not SnapshotDamaged] == []


def _with_payload(samples: Any, payload: bytes, sections: int) -> bytes:
    """A file with one block of our choosing, all checksums right, totals as given."""
    header = fmt.encode_header(samples.header())
    head = fmt.BlockHeader(
        flags=fmt.BlockFlag(0),
        number=0,
        sections=sections,
        stored_bytes=len(payload),
        plain_bytes=len(payload),
        payload_crc=fmt.crc32c(payload),
    )
    body = header + fmt.encode_block_header(head) + payload + bytes(fmt.padding_of(len(payload)))
    footer = fmt.Footer(
        blocks=1,
        sections=sections,
        position=len(body),
        chunk_bytes=0,
        content_hash=fmt.NO_HASH,
        state_hash=None,
    )
    return body + fmt.encode_footer(footer)


def _framed(*encoded: bytes) -> bytes:
    return b"".join(len(each).to_bytes(4, "little") + each for each in encoded)


def test_sections_that_no_writer_makes_are_damage(samples: Any) -> None:
    codec = BinaryCodec()
    second = codec.encode_section(Section(2, "a", 1, b""))
    first = codec.encode_section(Section(1, "a", 1, b""))
    beyond = codec.encode_section(Section(SLOT_COUNT, "a", 1, b""))
    unnamed = codec.encode_section(Section(1, "", 1, b""))
    cases = {
        "descending": (_framed(second, first), 2),
        "slot out of bounds": (_framed(beyond), 1),
        "no name": (_framed(unnamed), 1),
        "beyond the block": (_framed(first)[:-1], 1),
        "half a length": (b"\x01\x00", 1),
        "name that is no text": (_framed(first[:16] + b"\xff"), 1),
        "gap": (_framed(first[:10] + b"\x01\x00" + first[12:]), 1),
    }
    verdicts = {
        name: verdict(samples, _with_payload(samples, payload, count))
        for name, (payload, count) in cases.items()
    }
    assert [name for name, found in verdicts.items() if found is not SnapshotDamaged] == []


def test_a_later_format_is_refused_by_name_and_not_called_damaged(samples: Any) -> None:
    data = samples.file(samples.sections())
    end = int.from_bytes(data[8:12], "little")
    later = _resealed(data, 4, b"\x02", 0, end)
    with pytest.raises(SnapshotRefused, match="format version 2; this release reads version 1"):
        read(samples, later)
    with pytest.raises(SnapshotDamaged):
        read(samples, _resealed(later, 8, b"\xff\xff\xff\xff", 0, end))
    with pytest.raises(SnapshotDamaged, match="a header of"):
        read(samples, _resealed(data, 8, b"\x01", 0, end))


def test_a_codec_nobody_registered_is_refused_by_number(samples: Any) -> None:
    data = samples.file(samples.sections())
    changed = _resealed(data, 176, b"\x63", 0, int.from_bytes(data[8:12], "little"))
    with pytest.raises(SnapshotRefused, match="codec 99; this process knows 1, 2"):
        read(samples, changed)


def test_an_encrypted_file_shows_nothing_and_needs_its_key(samples: Any) -> None:
    data = samples.file(samples.sections(), encrypt=True)
    assert b"account-7" not in data
    assert b"account-7" in samples.file(samples.sections())
    source = samples.source(data)

    def missing(name: str) -> bytes:
        raise KeyError(name)

    with pytest.raises(SnapshotRefused, match="key 'snapshots', which this process has not"):
        open_snapshot(source, "x", Codecs(), key_of=missing)
    with pytest.raises(SnapshotRefused, match="another value of the key 'snapshots'"):
        open_snapshot(source, "x", Codecs(), key_of=lambda _: bytes(32))
    with pytest.raises(SnapshotRefused, match="has 5 bytes; AES-256 needs 32"):
        open_snapshot(source, "x", Codecs(), key_of=lambda _: b"short")
    known = open_snapshot(source, "x", Codecs(), key_of=missing, data_key=samples.data_key)
    assert list(known.sections()) == samples.sections()


def test_encrypted_blocks_cannot_be_dropped_moved_or_taken_from_another_file(samples: Any) -> None:
    """Somebody without the key rewrites every checksum and still cannot do it."""
    data = samples.file(samples.sections(), encrypt=True)
    end = int.from_bytes(data[8:12], "little")
    foot = len(data) - fmt.FOOTER_BYTES
    # One block fewer, the footer's totals made to fit.
    head = fmt.decode_block_header(data[end : end + 40], "x", end)
    first = data[end : end + 40 + head.stored_bytes + fmt.padding_of(head.stored_bytes)]
    body = data[:end] + first
    footer = fmt.decode_footer(data[foot:], "x", len(data))
    shorter = msgspec.structs.replace(footer, blocks=1, sections=1, position=len(body))
    with pytest.raises(SnapshotDamaged, match="authentication"):
        read(samples, body + fmt.encode_footer(shorter))
    # A header that tells another position.
    other = _resealed(data, 24, b"\x13", 0, end)
    with pytest.raises(SnapshotError):
        read(samples, other)
    # Handlers are not part of what the key's wrapping binds, the blocks bind them.
    other = _resealed(data, data.index(b"trading"), b"tradinG", 0, end)
    with pytest.raises(SnapshotDamaged, match="authentication"):
        read(samples, other)


def test_what_does_not_fit_the_format_is_refused_when_it_is_written(samples: Any) -> None:
    def header(**changes: Any) -> bytes:
        return fmt.encode_header(msgspec.structs.replace(samples.header(), **changes))

    with pytest.raises(InvariantBroken, match="cluster_uid"):
        header(cluster_uid=b"x")
    with pytest.raises(InvariantBroken, match="state_hash"):
        header(base=msgspec.structs.replace(samples.base(), state_hash=b"x"))
    with pytest.raises(InvariantBroken, match="a key name fits"):
        header(key_name="k" * 65)
    many = {f"domain_{number}": 1 for number in range(8000)}
    position = msgspec.structs.replace(samples.position(), handlers=many)
    with pytest.raises(InvariantBroken, match="header has a size"):
        header(position=position)
    with pytest.raises(InvariantBroken, match="32-byte keys"):
        wrap_key(master=b"", data_key=bytes(32), nonce=bytes(12), associated=b"")


def test_a_writer_that_disagrees_with_its_header_is_not_made(samples: Any) -> None:
    with pytest.raises(InvariantBroken):
        SnapshotWriter(samples.header(codec=JSON), BinaryCodec())
    with pytest.raises(InvariantBroken):
        SnapshotWriter(samples.header(), BinaryCodec(), data_key=samples.data_key)


def test_a_footer_is_known_when_the_file_is_finished(samples: Any) -> None:
    writer = SnapshotWriter(samples.header(), BinaryCodec())
    with pytest.raises(InvariantBroken, match="finished"):
        _ = writer.footer
    data = writer.start() + writer.finish(None)
    assert fmt.decode_footer(data[-fmt.FOOTER_BYTES :], "x", len(data)) == writer.footer


@pytest.mark.parametrize(
    "section",
    [
        Section(-2, "a", 1, b""),
        Section(SLOT_COUNT, "a", 1, b""),
        Section(0, "", 1, b""),
        Section(0, "n" * 256, 1, b""),
        Section(0, "a", -1, b""),
        Section(0, "a", 1, bytes(CHUNK_BYTES_MAX + 1)),
    ],
)
def test_a_section_out_of_bounds_is_not_written(samples: Any, section: Section) -> None:
    with pytest.raises(ValueError, match=r"slot|name|schema|chunk"):
        samples.file([section])


def test_sections_out_of_order_are_not_written(samples: Any) -> None:
    with pytest.raises(InvariantBroken, match="ascend"):
        samples.file([Section(1, "b", 1, b""), Section(1, "a", 1, b"")])


class Bloating:
    """A codec of a user that makes ten times more of it."""

    number = 64

    def encode_section(self, section: Section) -> bytes:
        return BinaryCodec().encode_section(section) * 10

    def decode_section(self, data: bytes) -> Section:
        return BinaryCodec().decode_section(data[: len(data) // 10])


def test_a_users_codec_is_used_by_number_and_kept_within_a_block(samples: Any) -> None:
    codecs = Codecs([Bloating()])
    header = samples.header(codec=64)
    writer = SnapshotWriter(header, codecs.get(64), block_bytes=10 * fmt.BLOCK_BYTES_MAX)
    sections = [Section(slot, "a", 1, bytes(1_000_000)) for slot in range(3)]
    data = b"".join((writer.start(), *map(writer.add, sections), writer.finish(None)))
    opened = open_snapshot(samples.source(data), "x", codecs, key_of=samples.key_of)
    assert list(opened.sections()) == sections
    assert opened.footer.blocks == 3
    assert opened.footer.state_hash is None
    assert opened.size == len(data)
    with pytest.raises(ValueError, match="codec 64 makes"):
        writer.add(Section(3, "a", 1, bytes(2_000_000)))
    with pytest.raises(InvariantBroken, match="number of its own"):
        Codecs([Bloating(), Bloating()])
    Bloating.number = 5
    with pytest.raises(InvariantBroken, match="number of its own"):
        Codecs([Bloating()])
    Bloating.number = 64


def test_an_empty_image_is_a_snapshot_too(samples: Any) -> None:
    header, footer, sections = read(samples, samples.file([]))
    assert sections == []
    assert footer.content_hash == StateHash().value()
    assert header.position == samples.position()


def test_the_header_can_be_read_alone(samples: Any) -> None:
    header, raw = read_header(samples.source(samples.file([])), "x")
    assert header == samples.header()
    assert raw == fmt.encode_header(header)


def test_the_state_hash_tells_the_parts_of_sections_apart() -> None:
    one = [Section(1, "ab", 1, b"c"), Section(1, "d", 1, b"")]
    variants = [
        [Section(1, "a", 1, b"bc"), Section(1, "d", 1, b"")],
        [Section(2, "ab", 1, b"c"), Section(1, "d", 1, b"")],
        [Section(1, "ab", 2, b"c"), Section(1, "d", 1, b"")],
        [Section(1, "ab", 1, b"c")],
        one[::-1],
    ]
    assert len({state_hash(each) for each in [one, *variants]}) == len(variants) + 1
    assert state_hash(one).hex() == (
        "2b738290da144db466cdfb21dc00fc8cb44646a2952438d69887be72010d0556"
    )


_SECTION = st.builds(
    Section,
    st.integers(-1, SLOT_COUNT - 1),
    st.text(min_size=1, max_size=20),
    st.integers(0, 0xFFFF_FFFF),
    st.binary(max_size=300),
)


@settings(max_examples=60, deadline=None)
@given(
    sections=st.lists(_SECTION, max_size=12),
    kind=st.sampled_from(sorted(KINDS)),
    block_bytes=st.integers(1, 2000),
)
def test_any_sections_come_back_from_any_kind_of_file(
    samples: Any, sections: list[Section], kind: str, block_bytes: int
) -> None:
    sections.sort(key=lambda section: (section.slot, section.name))
    data = samples.file(sections, block_bytes=block_bytes, **KINDS[kind])
    _, footer, found = read(samples, data)
    assert found == sections
    assert footer.content_hash == state_hash(sections)
