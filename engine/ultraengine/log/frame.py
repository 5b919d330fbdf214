"""Frames: 128 bytes of header, the payload, zero padding to 8 bytes (`FORMAT.md`).

Rules of this file: no length is trusted before the header's checksum holds and the length is
within its limit; no payload is opened before its checksum holds; decoding raises
`FrameDamaged` and nothing else, whatever the bytes.
"""

import enum
import struct
from typing import Final

import lz4.block
import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ultraengine.log.digest import crc32c, frame_chain
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import (
    ConfigVersion,
    Epoch,
    FrameSequence,
    Instant,
    Offset,
    ShardId,
)

MAGIC: Final = b"UEFR"
VERSION: Final = 1
HEADER_BYTES: Final = 128
ALIGNMENT: Final = 8
PAYLOAD_BYTES_MAX: Final = 16 * 1024 * 1024
"""Largest plain payload of format version 1."""
COUNT_MAX: Final = 65_536
TAG_BYTES: Final = 16
STORED_BYTES_MAX: Final = PAYLOAD_BYTES_MAX + TAG_BYTES
COMPRESS_FROM_BYTES: Final = 64
"""Shorter payloads are stored raw without a trial."""
SALT_BYTES: Final = 8
HANDLERS_BYTES: Final = 8

_ZERO8: Final = bytes(8)
_ZERO16: Final = bytes(16)
_HEADER: Final = struct.Struct("<4sHBBHBBIQQQQIIIIQ8sQ16s8s8sI")
_CRC: Final = struct.Struct("<I")
_SEALED_BYTES: Final = 120
"""Header bytes that are associated data of AES-GCM, and the length of a chain identity."""
_U64_MAX: Final = 2**64 - 1


class FrameKind(enum.IntEnum):
    """What a payload holds.  Numbers are part of format version 1."""

    COMMANDS = 1
    OUTCOMES = 2
    ENTRIES = 3
    """Only in key-compacted archives."""


class FrameFlag(enum.IntFlag):
    """Bits of a frame's flags."""

    LZ4 = 1
    AES = 2


class FrameDamaged(ValueError):
    """The bytes are not a good frame; the message says why in a few words."""


class FrameDraft(msgspec.Struct, frozen=True, gc=False):
    """A frame before it has a place: `payload` is plain."""

    kind: FrameKind
    base_offset: int
    count: int
    time: int
    payload: bytes


class FrameHeader(msgspec.Struct, frozen=True, gc=False):
    """A header as it stands on disk, checksums aside."""

    kind: int
    flags: int
    codec: int
    shard: ShardId
    epoch: Epoch
    config_version: ConfigVersion
    sequence: FrameSequence
    base_offset: Offset
    count: int
    stored_bytes: int
    """Payload length as stored, GCM tag included."""
    payload_bytes: int
    """Payload length before compression and encryption."""
    time: Instant
    handlers: bytes
    durable_end: FrameSequence
    """Every frame with a lower sequence was durable when this one was formed."""
    chain: bytes
    """Of the frame before."""
    salt: bytes
    """Of the segment that it was written to."""
    payload_crc: int

    @property
    def frame_bytes(self) -> int:
        """Length of the whole frame on disk, padding included."""
        return HEADER_BYTES + aligned(self.stored_bytes)

    @property
    def offset_end(self) -> Offset:
        """First offset after the commands or outcomes of this frame."""
        return Offset(self.base_offset + self.count)


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A good frame; `payload` is plain."""

    header: FrameHeader
    payload: bytes
    chain: bytes
    """After the frame: it names the history that the frame ends."""


class Keys:
    """What a segment's frames are encrypted and chained with."""

    __slots__ = ("chain_key", "cipher")

    def __init__(self, cipher: AESGCM | None = None, chain_key: bytes = b"") -> None:
        self.cipher = cipher
        self.chain_key = chain_key


class Place(msgspec.Struct, frozen=True, gc=False):
    """All of a header that does not come from the draft."""

    shard: ShardId
    epoch: Epoch
    config_version: ConfigVersion
    sequence: FrameSequence
    handlers: bytes
    durable_end: FrameSequence
    chain: bytes
    salt: bytes
    codec: int


def aligned(length: int) -> int:
    """`length` rounded up to a multiple of 8."""
    return (length + ALIGNMENT - 1) & -ALIGNMENT


def frame_bytes_at_most(payload_bytes: int) -> int:
    """Upper bound of a frame's length on disk for a plain payload of this length."""
    return HEADER_BYTES + aligned(payload_bytes + TAG_BYTES)


def _nonce(sequence: int) -> bytes:
    return b"\0\0\0\0" + sequence.to_bytes(8, "little")


def check_draft(draft: FrameDraft) -> None:
    """Raises `InvariantBroken` when a draft is beyond the limits of the format."""
    if not 0 < draft.count <= COUNT_MAX:
        raise InvariantBroken("a frame holds 1 to 65,536 records", count=draft.count)
    if len(draft.payload) > PAYLOAD_BYTES_MAX:
        raise InvariantBroken(
            "a frame's payload is at most 16 MiB", payload_bytes=len(draft.payload)
        )
    if not 0 <= draft.base_offset <= _U64_MAX - COUNT_MAX:
        raise InvariantBroken("an offset has 64 bits", base_offset=draft.base_offset)
    if not 0 <= draft.time <= _U64_MAX:
        raise InvariantBroken("a time has 64 bits", time=draft.time)


def encode(
    draft: FrameDraft, place: Place, keys: Keys, *, compress: bool = False
) -> tuple[list[bytes], int, bytes]:
    """A frame as parts to be joined, its length on disk, and the chain after it.

    The draft must have passed `check_draft`.  Compression comes before encryption; a payload
    that does not shrink is stored raw.
    """
    payload = draft.payload
    stored, flags = payload, 0
    if compress and len(payload) >= COMPRESS_FROM_BYTES:
        packed: bytes = lz4.block.compress(payload, store_size=False)
        if len(packed) < len(payload):
            stored, flags = packed, int(FrameFlag.LZ4)
    cipher = keys.cipher
    stored_bytes = len(stored)
    if cipher is not None:
        flags |= FrameFlag.AES
        stored_bytes += TAG_BYTES
    sealed = _pack(draft, place, flags, stored_bytes, place.durable_end, place.salt)
    identity = _pack(draft, place, 0, 0, 0, _ZERO8)
    if cipher is not None:
        stored = cipher.encrypt(_nonce(place.sequence), stored, sealed)
    head = sealed + _CRC.pack(crc32c(stored))
    parts = [head, _CRC.pack(crc32c(head)), stored]
    padding = -stored_bytes % ALIGNMENT
    if padding:
        parts.append(bytes(padding))
    chain = frame_chain(identity, payload, keys.chain_key)
    return parts, HEADER_BYTES + stored_bytes + padding, chain


def _pack(
    draft: FrameDraft, place: Place, flags: int, stored_bytes: int, durable_end: int, salt: bytes
) -> bytes:
    """Header bytes 0-119."""
    return _HEADER.pack(
        MAGIC,
        VERSION,
        draft.kind,
        flags,
        HEADER_BYTES,
        place.codec,
        0,
        place.shard,
        place.epoch,
        place.config_version,
        place.sequence,
        draft.base_offset,
        draft.count,
        stored_bytes,
        len(draft.payload),
        0,
        draft.time,
        place.handlers,
        durable_end,
        place.chain,
        salt,
        _ZERO8,
        0,
    )[:_SEALED_BYTES]


def decode_header(raw: bytes) -> FrameHeader:
    """The header in exactly 128 bytes.  Raises `FrameDamaged`."""
    if len(raw) != HEADER_BYTES:
        raise FrameDamaged("the header is cut off")
    if raw[:4] != MAGIC:
        raise FrameDamaged("no frame starts here")
    if _CRC.unpack_from(raw, 124)[0] != crc32c(raw[:124]):
        raise FrameDamaged("the header's checksum differs")
    (
        _magic,
        version,
        kind,
        flags,
        header_bytes,
        codec,
        zero0,
        shard,
        epoch,
        config_version,
        sequence,
        base_offset,
        count,
        stored_bytes,
        payload_bytes,
        zero1,
        time,
        handlers,
        durable_end,
        chain,
        salt,
        zero2,
        payload_crc,
    ) = _HEADER.unpack_from(raw)
    if version != VERSION or header_bytes != HEADER_BYTES:
        raise FrameDamaged(f"format version {version} with a header of {header_bytes} bytes")
    if kind not in _KINDS or flags & ~_FLAGS or zero0 or zero1 or zero2 != _ZERO8 or not codec:
        raise FrameDamaged(f"kind {kind}, flags {flags}, codec {codec} or a reserved field")
    if not 0 < count <= COUNT_MAX or base_offset > _U64_MAX - COUNT_MAX:
        raise FrameDamaged(f"count {count} at base offset {base_offset}")
    if payload_bytes > PAYLOAD_BYTES_MAX or stored_bytes > payload_bytes + TAG_BYTES:
        raise FrameDamaged(f"lengths {stored_bytes} and {payload_bytes} are beyond the limits")
    if durable_end > sequence:
        raise FrameDamaged(f"durable end {durable_end} beyond the frame's own sequence {sequence}")
    return FrameHeader(
        kind,
        flags,
        codec,
        shard,
        epoch,
        config_version,
        sequence,
        base_offset,
        count,
        stored_bytes,
        payload_bytes,
        time,
        handlers,
        durable_end,
        chain,
        salt,
        payload_crc,
    )


_KINDS: Final = frozenset(int(kind) for kind in FrameKind)
_FLAGS: Final = int(FrameFlag.LZ4 | FrameFlag.AES)


def decode_payload(header: FrameHeader, raw_header: bytes, stored: bytes, keys: Keys) -> bytes:
    """The plain payload of a frame whose header is good.  Raises `FrameDamaged`."""
    if len(stored) != header.stored_bytes:
        raise FrameDamaged("the payload is cut off")
    if crc32c(stored) != header.payload_crc:
        raise FrameDamaged("the payload's checksum differs")
    encrypted = header.flags & FrameFlag.AES
    if bool(encrypted) != (keys.cipher is not None):
        raise FrameDamaged("frame and segment disagree on encryption")
    plain = stored
    if keys.cipher is not None:
        try:
            plain = keys.cipher.decrypt(_nonce(header.sequence), stored, raw_header[:_SEALED_BYTES])
        except InvalidTag:
            raise FrameDamaged("the payload does not decrypt") from None
    if header.flags & FrameFlag.LZ4:
        try:
            # uncompressed_size bounds the allocation: it was checked with the header.
            plain = lz4.block.decompress(plain, uncompressed_size=header.payload_bytes)
        except lz4.block.LZ4BlockError:
            raise FrameDamaged("the payload does not decompress") from None
    if len(plain) != header.payload_bytes:
        raise FrameDamaged(f"{len(plain)} bytes of payload instead of {header.payload_bytes}")
    return plain


def chain_after(raw_header: bytes, payload: bytes, keys: Keys) -> bytes:
    """The chain after a good frame: over its identity and its plain payload.

    The identity is header bytes 0-119 with flags (7), stored length (52-55), durable end
    (80-87) and salt (104-111) as zero: what a copy in another segment may change.
    """
    identity = b"".join(
        (
            raw_header[:7],
            b"\0",
            raw_header[8:52],
            b"\0\0\0\0",
            raw_header[56:80],
            _ZERO8,
            raw_header[88:104],
            _ZERO16,
        )
    )
    return frame_chain(identity, payload, keys.chain_key)


def decode(data: bytes, position: int, keys: Keys) -> Frame:
    """The frame at `position` of `data`.  Raises `FrameDamaged`."""
    raw = data[position : position + HEADER_BYTES]
    header = decode_header(raw)
    start = position + HEADER_BYTES
    end = start + header.stored_bytes
    payload = decode_payload(header, raw, data[start:end], keys)
    padding = data[end : position + header.frame_bytes]
    if len(padding) != -header.stored_bytes % ALIGNMENT or any(padding):
        raise FrameDamaged("the padding is cut off or not zero")
    return Frame(header, payload, chain_after(raw, payload, keys))


def draft_of(frame: Frame) -> FrameDraft:
    """The draft that gives this frame again."""
    header = frame.header
    return FrameDraft(
        FrameKind(header.kind), header.base_offset, header.count, header.time, frame.payload
    )


def place_of(header: FrameHeader, *, salt: bytes | None = None) -> Place:
    """The place of a frame, in its own segment or (`salt`) in another one."""
    return Place(
        header.shard,
        header.epoch,
        header.config_version,
        header.sequence,
        header.handlers,
        header.durable_end,
        header.chain,
        header.salt if salt is None else salt,
        header.codec,
    )
