"""Segments: names, the 4,096-byte header, and the keys it carries (`FORMAT.md`).

A segment's header says where the log stands before its first frame (a `Point`), so that
every segment can be checked and read without the ones before it.
"""

import re
import struct
from collections.abc import Callable
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ultraengine.log.damage import LogRefused
from ultraengine.log.digest import CHAIN_KEY_BYTES_MAX, crc32c
from ultraengine.log.frame import SALT_BYTES, FrameHeader, FrameKind, Keys
from ultraengine.model.ids import (
    NO_CHAIN,
    Epoch,
    FrameSequence,
    Instant,
    Offset,
    ShardId,
)
from ultraengine.ports import Random, Secrets

LOG_DIRECTORY: Final = "log"
BROKEN_DIRECTORY: Final = "broken"
LOCK_FILE: Final = "LOCK"

MAGIC: Final = b"UESG"
ARCHIVE_MAGIC: Final = b"UEKA"
VERSION: Final = 1
HEADER_BYTES: Final = 4096
UID_BYTES: Final = 16
KEY_BYTES: Final = 32
KEY_NAME_BYTES: Final = 64
WRAPPED_BYTES: Final = 60
_NONCE_BYTES: Final = 12
_WRAPPED_DATA_BYTES: Final = 56

_ENCRYPTED: Final = 1
_KEYED: Final = 2
_HEADER: Final = struct.Struct("<4sHHII16sQQQ16s16sQQ60s64s8sQ64s8sQQQ")
_CRC: Final = struct.Struct("<I")
_NAME: Final = re.compile(r"seg-([0-9]{20})\.log")
_PREPARED: Final = re.compile(r"prepare-[0-9]+\.tmp")


class SegmentDamaged(ValueError):
    """The bytes are not a good segment header; the message says why in a few words."""


class Point(msgspec.Struct, frozen=True, gc=False):
    """Where a log stands between two frames: all that the next frame is checked against."""

    sequence: FrameSequence
    offset: Offset
    """Base offset of the next COMMANDS frame."""
    recorded_end: Offset
    """Base offset of the next OUTCOMES frame: every lower offset has its outcome."""
    epoch: Epoch
    time: Instant
    """Lowest time that the next frame may carry."""
    handlers: bytes
    """Of the last frame; zeros before the first one."""
    chain: bytes
    state_chain: bytes


GENESIS: Final = Point(
    FrameSequence(0), Offset(0), Offset(0), Epoch(0), Instant(0), bytes(8), NO_CHAIN, NO_CHAIN
)
"""Before the first frame of a shard."""


class SegmentHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the first 4,096 bytes."""

    shard: ShardId
    cluster_uid: bytes
    created: Instant
    point: Point
    """Before the first frame."""
    salt: bytes
    """Repeated in each frame: tells this segment's frames from all other bytes."""
    master_key: str = ""
    """Name of the key that wraps the segment's key; empty = not encrypted."""
    wrapped_key: bytes = bytes(WRAPPED_BYTES)
    chain_key: str = ""
    """Name of the key of the chain; empty = not keyed."""
    archive: bool = False
    """A key-compacted archive instead of a segment."""
    end_sequence: FrameSequence = FrameSequence(0)
    end_offset: Offset = Offset(0)
    entries: int = 0
    """The last three are for archives alone: end of the range covered, number of entries."""

    @property
    def first_sequence(self) -> FrameSequence:
        """Sequence of the first frame."""
        return self.point.sequence


def segment_name(first_sequence: int) -> str:
    """File name in the log directory."""
    return f"seg-{first_sequence:020d}.log"


def first_sequence_of(name: str) -> FrameSequence | None:
    """Inverse of `segment_name`; None for any other file."""
    found = _NAME.fullmatch(name)
    return None if found is None else FrameSequence(int(found[1]))


def prepared_name(number: int) -> str:
    """File name of a zero-filled segment that is not in use yet."""
    return f"prepare-{number}.tmp"


def is_prepared_name(name: str) -> bool:
    """Whether a file is a `prepared_name`."""
    return _PREPARED.fullmatch(name) is not None


def path_of(name: str) -> str:
    """Path of a file in the log directory."""
    return f"{LOG_DIRECTORY}/{name}"


def encode_header(header: SegmentHeader) -> bytes:
    """The 4,096 bytes."""
    point = header.point
    flags = (_ENCRYPTED if header.master_key else 0) | (_KEYED if header.chain_key else 0)
    body = _HEADER.pack(
        ARCHIVE_MAGIC if header.archive else MAGIC,
        VERSION,
        flags,
        header.shard,
        HEADER_BYTES,
        header.cluster_uid,
        point.sequence,
        point.offset,
        header.created,
        point.chain,
        point.state_chain,
        point.epoch,
        point.time,
        header.wrapped_key,
        _name_bytes(header.master_key),
        header.salt,
        point.recorded_end,
        _name_bytes(header.chain_key),
        point.handlers,
        header.end_sequence,
        header.end_offset,
        header.entries,
    ).ljust(HEADER_BYTES - 4, b"\0")
    return body + _CRC.pack(crc32c(body))


def decode_header(raw: bytes) -> SegmentHeader:
    """The header in exactly 4,096 bytes.

    Raises `SegmentDamaged`, and `LogRefused` for an intact header of a newer format.
    """
    if len(raw) != HEADER_BYTES:
        raise SegmentDamaged("the segment's header is cut off")
    if _CRC.unpack_from(raw, HEADER_BYTES - 4)[0] != crc32c(raw[: HEADER_BYTES - 4]):
        raise SegmentDamaged("the checksum of the segment's header differs")
    fields = _HEADER.unpack_from(raw)
    magic, version, flags, shard, length, uid, sequence, offset, created, chain, state = fields[:11]
    epoch, time, wrapped, master, salt, recorded, chain_key, handlers = fields[11:19]
    end_sequence, end_offset, entries = fields[19:]
    if magic not in {MAGIC, ARCHIVE_MAGIC}:
        raise SegmentDamaged(f"the magic {magic!r} is not that of a segment")
    if version != VERSION:
        raise LogRefused(f"segment of format version {version}; this release reads {VERSION}")
    if flags & ~(_ENCRYPTED | _KEYED) or length != HEADER_BYTES or any(raw[_HEADER.size : -4]):
        raise SegmentDamaged(f"flags {flags}, header length {length} or a reserved field")
    header = SegmentHeader(
        shard=shard,
        cluster_uid=uid,
        created=created,
        point=Point(sequence, offset, recorded, epoch, time, handlers, chain, state),
        salt=salt,
        master_key=_name_text(master),
        wrapped_key=wrapped,
        chain_key=_name_text(chain_key),
        archive=magic == ARCHIVE_MAGIC,
        end_sequence=end_sequence,
        end_offset=end_offset,
        entries=entries,
    )
    if bool(flags & _ENCRYPTED) != bool(header.master_key):
        raise SegmentDamaged("flags and master key name disagree")
    if bool(flags & _KEYED) != bool(header.chain_key):
        raise SegmentDamaged("flags and chain key name disagree")
    return header


def _name_bytes(name: str) -> bytes:
    raw = name.encode()
    if len(raw) > KEY_NAME_BYTES or "\0" in name:
        raise LogRefused(f"the key name {name!r} is longer than {KEY_NAME_BYTES} bytes")
    return raw.ljust(KEY_NAME_BYTES, b"\0")


def _name_text(raw: bytes) -> str:
    try:
        return raw.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        raise SegmentDamaged("a key name is not UTF-8") from None


def advance(point: Point, header: FrameHeader, chain: bytes, state_chain: bytes) -> Point:
    """The point after a good frame; the chains are those after it."""
    offset, recorded = point.offset, point.recorded_end
    if header.kind == FrameKind.COMMANDS:
        offset = header.offset_end
    else:
        recorded = header.offset_end
    return Point(
        FrameSequence(point.sequence + 1),
        offset,
        recorded,
        header.epoch,
        header.time,
        header.handlers,
        chain,
        state_chain,
    )


class KeyRing:
    """Makes segment keys and opens those of existing segments."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def create(self, header: SegmentHeader, random: Random) -> tuple[SegmentHeader, Keys]:
        """Give `header` a fresh salt and, when it names a master key, a fresh wrapped key."""
        fresh = msgspec.structs.replace(
            header, salt=random.bytes(SALT_BYTES), wrapped_key=bytes(WRAPPED_BYTES)
        )
        cipher = None
        if header.master_key:
            key = random.bytes(KEY_BYTES)
            nonce = random.bytes(_NONCE_BYTES)
            bound = encode_header(fresh)[:_WRAPPED_DATA_BYTES]
            wrapped = self._master(header.master_key).encrypt(nonce, key, bound)
            fresh = msgspec.structs.replace(fresh, wrapped_key=nonce + wrapped)
            cipher = AESGCM(key)
        return fresh, Keys(cipher, self._chain_key(header.chain_key))

    def rehome(self, header: SegmentHeader, cluster_uid: bytes, random: Random) -> SegmentHeader:
        """The header of a copy in another cluster: its frames stay as they are.

        The segment's key is bound to the cluster, so it is wrapped anew.  Raises `LogRefused` as
        ``open`` does.
        """
        moved = msgspec.structs.replace(header, cluster_uid=cluster_uid)
        if not header.master_key:
            return moved
        key, nonce = self._unwrapped(header), random.bytes(_NONCE_BYTES)
        bound = encode_header(moved)[:_WRAPPED_DATA_BYTES]
        wrapped = self._master(header.master_key).encrypt(nonce, key, bound)
        return msgspec.structs.replace(moved, wrapped_key=nonce + wrapped)

    def open(self, header: SegmentHeader) -> Keys:
        """The keys of an existing segment.

        Raises `LogRefused` when a key is missing, has the wrong length or is another one.
        """
        cipher = AESGCM(self._unwrapped(header)) if header.master_key else None
        return Keys(cipher, self._chain_key(header.chain_key))

    def _unwrapped(self, header: SegmentHeader) -> bytes:
        nonce, wrapped = header.wrapped_key[:_NONCE_BYTES], header.wrapped_key[_NONCE_BYTES:]
        bound = encode_header(header)[:_WRAPPED_DATA_BYTES]
        try:
            return self._master(header.master_key).decrypt(nonce, wrapped, bound)
        except InvalidTag:
            raise LogRefused(
                f"the master key {header.master_key!r} does not open segment "
                f"{header.first_sequence}: it is another key than the one it was written with"
            ) from None

    def _master(self, name: str) -> AESGCM:
        key = self._secret(name)
        if len(key) != KEY_BYTES:
            raise LogRefused(f"the master key {name!r} has {len(key)} bytes instead of {KEY_BYTES}")
        return AESGCM(key)

    def _chain_key(self, name: str) -> bytes:
        if not name:
            return b""
        key = self._secret(name)
        if not 16 <= len(key) <= CHAIN_KEY_BYTES_MAX:
            raise LogRefused(f"the chain key {name!r} has {len(key)} bytes instead of 16 to 64")
        return key

    def _secret(self, name: str) -> bytes:
        try:
            return self._secrets.get(name)
        except KeyError:
            raise LogRefused(f"the log needs the secret {name!r}, which is not there") from None


KeysOf = Callable[[SegmentHeader], Keys]
