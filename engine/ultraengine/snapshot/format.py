"""The bytes of a snapshot file: header, blocks, footer (`FORMAT.md`, version 1).

    header | block 0 | block 1 | … | footer

Everything is known when the header is written, except what only the end can tell: the
footer carries totals and hashes, so a file without its exact footer at its exact end is not
a snapshot.  Blocks hold whole sections.  All functions are pure; decoding checks lengths
before it trusts them, and every byte of a file is covered by a checksum or checked to be
zero, so that any change of the bytes is found.
"""

import enum
import hashlib
import struct
from collections.abc import Mapping
from typing import Final

import google_crc32c
import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import (
    CHAIN_BYTES,
    NO_CHAIN,
    Epoch,
    FrameSequence,
    Instant,
    Offset,
    ShardId,
)
from ultraengine.snapshot.errors import SnapshotDamaged, SnapshotRefused
from ultraengine.snapshot.image import STATE_HASH_BYTES, ImagePosition

VERSION: Final = 1
HEADER_MAGIC: Final = b"UESN"
BLOCK_MAGIC: Final = b"UESB"
FOOTER_MAGIC: Final = b"UESE"

HEADER_FIXED_BYTES: Final = 312
HEADER_BYTES_MAX: Final = 64 * 1024
HEADER_WRAPPED_DATA_BYTES: Final = 248
"""Header bytes that are the associated data of the wrapped key: all before it."""
BLOCK_HEADER_BYTES: Final = 40
BLOCK_SEALED_BYTES: Final = 32
"""Block header bytes that are associated data of the block: all before its checksums."""
FOOTER_BYTES: Final = 128
FOOTER_SEALED_BYTES: Final = 104
BLOCK_BYTES_MAX: Final = 16 * 1024 * 1024
"""Largest block before compression and encryption."""
TAG_BYTES: Final = 16
WRAPPED_KEY_BYTES: Final = 60
KEY_NAME_BYTES: Final = 64
UID_BYTES: Final = 16
NO_HASH: Final = bytes(STATE_HASH_BYTES)
NO_UID: Final = bytes(UID_BYTES)

_HEADER: Final = struct.Struct("<4sHHIIQQQQQ16s16sQQ16s32s16sQBxxxI64s60sI")
_BLOCK: Final = struct.Struct("<4sB3sQIII4sI")
_FOOTER: Final = struct.Struct("<4sHHQQQQ32s32s16sI")
_CRC: Final = struct.Struct("<I")


class HeaderFlag(enum.IntFlag):
    """Bits of the header's flags."""

    INCREMENT = 1
    ENCRYPTED = 2
    FOLDED = 4
    """Chunks of one (slot, name) are a dump followed by changes, not a fresh dump."""


class BlockFlag(enum.IntFlag):
    """Bits of a block's flags."""

    LZ4 = 1
    ENCRYPTED = 2


class FooterFlag(enum.IntFlag):
    """Bits of the footer's flags."""

    STATE_HASH = 1


class BasePosition(msgspec.Struct, frozen=True, kw_only=True):
    """Which image an increment stands on: any one at this position of the same history."""

    offset_end: Offset
    sequence_end: FrameSequence
    chain: bytes
    """The log's chain there; equal chains mean equal history."""
    state_hash: bytes = NO_HASH
    """State hash there, zero when it was not computed."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known when a snapshot is cut."""

    position: ImagePosition
    created: Instant
    """Wall-clock time of the cut, for people."""
    codec: int
    base: BasePosition | None = None
    """Set for increments."""
    folded: bool = False
    cluster_uid: bytes = NO_UID
    key_name: str = ""
    """Name of the master key; empty = not encrypted."""
    wrapped_key: bytes = bytes(WRAPPED_KEY_BYTES)

    @property
    def encrypted(self) -> bool:
        """Whether the blocks are encrypted."""
        return self.key_name != ""


class Footer(msgspec.Struct, frozen=True, kw_only=True):
    """What only the end of a snapshot can tell."""

    blocks: int
    sections: int
    position: int
    """Byte position of the footer itself."""
    chunk_bytes: int
    """Sum of the lengths of all chunks."""
    content_hash: bytes
    """blake2b-256 of the sections of this file, as `image.state_hash`."""
    state_hash: bytes | None
    """blake2b-256 of the full image at the position; None when it was not computed."""
    tag: bytes = bytes(TAG_BYTES)


class BlockHeader(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The head of one block."""

    flags: BlockFlag
    number: int
    sections: int
    stored_bytes: int
    """Payload length as stored, tag included."""
    plain_bytes: int
    """Payload length before compression and encryption."""
    payload_crc: int = 0


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of `data`."""
    return int(google_crc32c.value(data))


def padding_of(length: int) -> int:
    """Zero bytes that bring `length` to a multiple of 8."""
    return -length % 8


def _sealed(body: bytes) -> bytes:
    return body + _CRC.pack(crc32c(body))


def encode_handlers(handlers: Mapping[str, int]) -> bytes:
    """msgpack map of handler versions, by name in ascending order."""
    return msgspec.msgpack.encode({name: handlers[name] for name in sorted(handlers)})


def encode_header(header: Header) -> bytes:
    """The header's bytes, a multiple of 8.  Raises `InvariantBroken` for what cannot fit."""
    at, base = header.position, header.base
    _check_widths(header)
    flags = HeaderFlag(0)
    if base is not None:
        flags |= HeaderFlag.INCREMENT
    if header.encrypted:
        flags |= HeaderFlag.ENCRYPTED
    if header.folded:
        flags |= HeaderFlag.FOLDED
    handlers = encode_handlers(at.handlers)
    padding = padding_of(HEADER_FIXED_BYTES + len(handlers) + 4)
    length = HEADER_FIXED_BYTES + len(handlers) + padding + 4
    if length > HEADER_BYTES_MAX:
        raise InvariantBroken("a snapshot header has a size", bytes=length, max=HEADER_BYTES_MAX)
    fixed = _HEADER.pack(
        HEADER_MAGIC,
        VERSION,
        flags,
        length,
        at.shard,
        at.epoch,
        at.offset_end,
        at.sequence_end,
        at.time,
        at.history_end,
        at.chain,
        at.state_chain,
        0 if base is None else base.offset_end,
        0 if base is None else base.sequence_end,
        NO_CHAIN if base is None else base.chain,
        NO_HASH if base is None else base.state_hash,
        header.cluster_uid,
        header.created,
        header.codec,
        len(handlers),
        header.key_name.encode(),
        header.wrapped_key,
        0,
    )
    return _sealed(fixed + handlers + bytes(padding))


def _check_widths(header: Header) -> None:
    at, base = header.position, header.base
    widths = [
        ("chain", at.chain, CHAIN_BYTES),
        ("state_chain", at.state_chain, CHAIN_BYTES),
        ("cluster_uid", header.cluster_uid, UID_BYTES),
        ("wrapped_key", header.wrapped_key, WRAPPED_KEY_BYTES),
    ]
    if base is not None:
        widths += [
            ("base.chain", base.chain, CHAIN_BYTES),
            ("base.state_hash", base.state_hash, STATE_HASH_BYTES),
        ]
    for name, value, width in widths:
        if len(value) != width:
            raise InvariantBroken("header fields have fixed widths", field=name, bytes=len(value))
    name_bytes = len(header.key_name.encode())
    if name_bytes > KEY_NAME_BYTES:
        raise InvariantBroken("a key name fits its field", bytes=name_bytes, max=KEY_NAME_BYTES)


def header_length(start: bytes, path: str) -> int:
    """Length of the whole header, from its first 12 bytes; checked before it is trusted."""
    if len(start) < 12 or start[:4] != HEADER_MAGIC:
        raise SnapshotDamaged(path, 0, "this is not the start of a snapshot")
    version = int.from_bytes(start[4:6], "little")
    length = int.from_bytes(start[8:12], "little")
    fits = HEADER_FIXED_BYTES + 4 < length <= HEADER_BYTES_MAX and length % 8 == 0
    if version == VERSION and not fits:
        raise SnapshotDamaged(path, 8, f"a header of {length} bytes")
    # Lengths of later versions are not known to be bad; only their checksum will tell.
    return length if fits else HEADER_FIXED_BYTES


def decode_header(data: bytes, path: str) -> Header:
    """Inverse of `encode_header`.

    Raises `SnapshotDamaged`, or `SnapshotRefused` for an intact header of a later version.
    """
    length = header_length(data, path)
    if len(data) != length or crc32c(data[:-4]) != _CRC.unpack_from(data, length - 4)[0]:
        raise SnapshotDamaged(path, 0, "the header does not match its checksum")
    version = int.from_bytes(data[4:6], "little")
    if version != VERSION:
        raise SnapshotRefused(
            f"{path} has snapshot format version {version}; this release reads version {VERSION}"
        )
    return _decode_checked(data, path)


def _decode_checked(data: bytes, path: str) -> Header:
    (
        _,
        _,
        flags,
        length,
        shard,
        epoch,
        offset_end,
        sequence_end,
        time,
        history_end,
        chain,
        state_chain,
        base_offset,
        base_sequence,
        base_chain,
        base_hash,
        cluster_uid,
        created,
        codec,
        handlers_length,
        key_name,
        wrapped_key,
        _,
    ) = _HEADER.unpack_from(data)
    if HEADER_FIXED_BYTES + handlers_length > length - 4:
        raise SnapshotDamaged(path, 180, f"a handlers map of {handlers_length} bytes")
    try:
        raw = data[HEADER_FIXED_BYTES : HEADER_FIXED_BYTES + handlers_length]
        handlers = msgspec.msgpack.decode(raw, type=dict[str, int])
        name = key_name.rstrip(b"\0").decode()
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise SnapshotDamaged(path, HEADER_FIXED_BYTES, str(problem)) from None
    base = None
    if flags & HeaderFlag.INCREMENT:
        base = BasePosition(
            offset_end=Offset(base_offset),
            sequence_end=FrameSequence(base_sequence),
            chain=base_chain,
            state_hash=base_hash,
        )
    header = Header(
        position=ImagePosition(
            shard=ShardId(shard),
            epoch=Epoch(epoch),
            offset_end=Offset(offset_end),
            sequence_end=FrameSequence(sequence_end),
            chain=chain,
            state_chain=state_chain,
            time=Instant(time),
            handlers=handlers,
            history_end=history_end,
        ),
        created=Instant(created),
        codec=codec,
        base=base,
        folded=bool(flags & HeaderFlag.FOLDED),
        cluster_uid=cluster_uid,
        key_name=name,
        wrapped_key=wrapped_key,
    )
    if encode_header(header) != data:
        # One meaning, one encoding: unknown flags, filled gaps and unsorted maps end here.
        raise SnapshotDamaged(path, 0, "the header is not in its only form")
    return header


def header_digest(header: bytes) -> bytes:
    """blake2b-128 of the header's bytes: binds encrypted blocks to their file."""
    return hashlib.blake2b(header, digest_size=16).digest()


def encode_block_header(head: BlockHeader) -> bytes:
    """The 40 bytes before a block's payload."""
    body = _BLOCK.pack(
        BLOCK_MAGIC,
        head.flags,
        b"",
        head.number,
        head.sections,
        head.stored_bytes,
        head.plain_bytes,
        b"",
        head.payload_crc,
    )
    return _sealed(body)


def decode_block_header(data: bytes, path: str, position: int) -> BlockHeader:
    """Inverse of `encode_block_header`; checks its checksum and its lengths."""
    if len(data) != BLOCK_HEADER_BYTES or data[:4] != BLOCK_MAGIC:
        raise SnapshotDamaged(path, position, "a block should start here")
    if crc32c(data[:-4]) != _CRC.unpack_from(data, BLOCK_HEADER_BYTES - 4)[0]:
        raise SnapshotDamaged(path, position, "the block header does not match its checksum")
    _, flags, _, number, sections, stored, plain, _, payload_crc = _BLOCK.unpack_from(data)
    if plain > BLOCK_BYTES_MAX or stored > plain + TAG_BYTES or flags & ~0x03:
        raise SnapshotDamaged(
            path, position, f"a block with flags {flags}, {stored} bytes stored for {plain}"
        )
    return BlockHeader(
        flags=BlockFlag(flags),
        number=number,
        sections=sections,
        stored_bytes=stored,
        plain_bytes=plain,
        payload_crc=payload_crc,
    )


def encode_footer(footer: Footer) -> bytes:
    """The last 128 bytes of a snapshot."""
    known = footer.state_hash is not None
    body = _FOOTER.pack(
        FOOTER_MAGIC,
        VERSION,
        FooterFlag.STATE_HASH if known else 0,
        footer.blocks,
        footer.sections,
        footer.position,
        footer.chunk_bytes,
        footer.content_hash,
        footer.state_hash or NO_HASH,
        footer.tag,
        0,
    )
    return _sealed(body)


def decode_footer(data: bytes, path: str, size: int) -> Footer:
    """Inverse of `encode_footer`, for the last 128 bytes of a file of `size` bytes."""
    position = size - FOOTER_BYTES
    if len(data) != FOOTER_BYTES or data[:4] != FOOTER_MAGIC:
        raise SnapshotDamaged(path, max(position, 0), "the file does not end with a footer")
    if crc32c(data[:-4]) != _CRC.unpack_from(data, FOOTER_BYTES - 4)[0]:
        raise SnapshotDamaged(path, position, "the footer does not match its checksum")
    _, version, flags, blocks, sections, at, chunk_bytes, content, state, tag, zero = (
        _FOOTER.unpack_from(data)
    )
    known = flags == FooterFlag.STATE_HASH
    if version != VERSION or flags & ~1 or zero or (not known and state != NO_HASH):
        raise SnapshotDamaged(path, position, f"a footer of version {version}, flags {flags}")
    if at != position:
        raise SnapshotDamaged(path, position, f"the footer belongs at byte {at}")
    return Footer(
        blocks=blocks,
        sections=sections,
        position=at,
        chunk_bytes=chunk_bytes,
        content_hash=content,
        state_hash=state if known else None,
        tag=tag,
    )
