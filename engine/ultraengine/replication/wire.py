"""What replicas send to each other, byte by byte (`FORMAT.md`).

    head (20 bytes) | body (msgpack) | frames, each as a log stores it

The head says how long everything is before anything is allocated, and its checksum covers itself
and the body; frames carry their own.  Frames go as they are stored, without their segment's
encryption (the connection has its own) and without a look at the commands in them.

Whatever the bytes, decoding raises `WireDamaged` and nothing else: then the connection is closed.
"""

import enum
import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from ultraengine.log import frame as frames
from ultraengine.log.digest import crc32c
from ultraengine.log.frame import Frame, FrameDamaged, Keys
from ultraengine.model.ids import ShardId
from ultraengine.replication.installing.offer import Transfer
from ultraengine.replication.messages import Append, Message
from ultraengine.replication.record import Holder

MAGIC: Final = b"UERW"
VERSION: Final = 1
HEAD_BYTES: Final = 20
BODY_BYTES_MAX: Final = 1024 * 1024
"""A table of some 60,000 epochs."""
GREETING_BYTES_MAX: Final = 1024
"""Nothing longer is read from somebody who is not known yet."""
FRAMES_MAX: Final = 1024
FRAMES_BYTES_MAX: Final = frames.frame_bytes_at_most(frames.PAYLOAD_BYTES_MAX) + 1024 * 1024
"""One frame of the greatest length always fits."""

_HEAD: Final = struct.Struct("<4sBBHIII")
_SUMMED_BYTES: Final = 16
_PLAIN: Final = Keys()


class WireDamaged(ValueError):
    """These are not bytes of a replica of this version; the message says why in a few words."""


class Kind(enum.IntEnum):
    """What a body holds.  Numbers are part of version 1."""

    GREETING = 1
    MESSAGE = 2
    TRANSFER = 3


class Greeting(msgspec.Struct, frozen=True, array_like=True):
    """The first on a connection, in both directions: who speaks, and for which log."""

    cluster_uid: bytes
    shard: ShardId
    me: Holder


class Head(msgspec.Struct, frozen=True):
    """How long the rest is."""

    kind: Kind
    frames: int
    body_bytes: int
    frames_bytes: int
    summed: bytes
    """Of the head, what the checksum covers."""
    crc: int

    @property
    def rest_bytes(self) -> int:
        """What follows the head."""
        return self.body_bytes + self.frames_bytes


def stored(frame: Frame, *, compress: bool = False) -> bytes:
    """A frame as it travels: as a log without encryption stores it."""
    place = frames.place_of(frame.header)
    return b"".join(frames.encode(frames.draft_of(frame), place, _PLAIN, compress=compress)[0])


def batches(stored_frames: Sequence[bytes], bytes_max: int) -> list[Sequence[bytes]]:
    """The same frames in runs of at most `bytes_max`, and of one frame where one is longer."""
    runs: list[Sequence[bytes]] = []
    start = size = 0
    for position, one in enumerate(stored_frames):
        full = size + len(one) > bytes_max or position - start == FRAMES_MAX
        if position > start and full:
            runs.append(stored_frames[start:position])
            start, size = position, 0
        size += len(one)
    if start < len(stored_frames):
        runs.append(stored_frames[start:])
    return runs


def encode_greeting(greeting: Greeting) -> bytes:
    """The first bytes of a connection."""
    return _encode(Kind.GREETING, msgspec.msgpack.encode(greeting), ())


def encode_message(message: Message, stored_frames: Sequence[bytes] = ()) -> bytes:
    """A message; an `Append` takes its frames as `stored` gives them, and has none itself."""
    return _encode(Kind.MESSAGE, msgspec.msgpack.encode(message), stored_frames)


def encode_transfer(transfer: Transfer) -> bytes:
    """A question about a snapshot, or its answer."""
    return _encode(Kind.TRANSFER, msgspec.msgpack.encode(transfer), ())


def _encode(kind: Kind, body: bytes, stored_frames: Sequence[bytes]) -> bytes:
    frames_bytes = sum(len(one) for one in stored_frames)
    if len(body) > BODY_BYTES_MAX or frames_bytes > FRAMES_BYTES_MAX:
        raise WireDamaged(f"{len(body)} and {frames_bytes} bytes are too many to send")
    if len(stored_frames) > FRAMES_MAX:
        raise WireDamaged(f"{len(stored_frames)} frames are too many to send")
    head = _HEAD.pack(MAGIC, VERSION, kind, len(stored_frames), len(body), frames_bytes, 0)
    summed = head[:_SUMMED_BYTES]
    crc = crc32c(summed + body).to_bytes(4, "little")
    return b"".join((summed, crc, body, *stored_frames))


def decode_head(raw: bytes) -> Head:
    """The head in exactly 20 bytes.  Raises `WireDamaged`."""
    if len(raw) != HEAD_BYTES:
        raise WireDamaged("the head is cut off")
    magic, version, kind, count, body_bytes, frames_bytes, crc = _HEAD.unpack(raw)
    if magic != MAGIC or version != VERSION:
        raise WireDamaged(f"magic {magic!r}, version {version}")
    if kind not in _KINDS or count > FRAMES_MAX:
        raise WireDamaged(f"kind {kind} with {count} frames")
    if body_bytes > BODY_BYTES_MAX or frames_bytes > FRAMES_BYTES_MAX:
        raise WireDamaged(f"lengths {body_bytes} and {frames_bytes} are beyond the limits")
    return Head(Kind(kind), count, body_bytes, frames_bytes, raw[:_SUMMED_BYTES], crc)


_KINDS: Final = frozenset(int(kind) for kind in Kind)
_GREETING: Final = msgspec.msgpack.Decoder(Greeting)
_MESSAGE: Final[msgspec.msgpack.Decoder[Message]] = msgspec.msgpack.Decoder(Message)
_TRANSFER: Final[msgspec.msgpack.Decoder[Transfer]] = msgspec.msgpack.Decoder(Transfer)


def greeting_head(raw: bytes) -> Head:
    """The head of a greeting, before anything behind it is read.  Raises `WireDamaged`."""
    head = decode_head(raw)
    if head.kind is not Kind.GREETING or head.frames or head.frames_bytes:
        raise WireDamaged(f"{head.kind.name} where a greeting should stand")
    if head.body_bytes > GREETING_BYTES_MAX:
        raise WireDamaged(f"a greeting of {head.body_bytes} bytes")
    return head


def decode_greeting(head: Head, rest: bytes) -> Greeting:
    """The first of a connection.  Raises `WireDamaged`."""
    body = _body(head, Kind.GREETING, rest)
    if head.frames or head.frames_bytes:
        raise WireDamaged("a greeting has no frames")
    try:
        return _GREETING.decode(body)
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        raise WireDamaged(f"a greeting: {error}") from None


def decode_message(head: Head, rest: bytes, keys: Keys) -> Message:
    """What follows a greeting; `keys` has the key of the chain.  Raises `WireDamaged`."""
    body = _body(head, Kind.MESSAGE, rest)
    try:
        message = _MESSAGE.decode(body)
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        raise WireDamaged(f"a message: {error}") from None
    if isinstance(message, Append):
        if message.frames:
            raise WireDamaged("frames stand behind the body")
        return msgspec.structs.replace(message, frames=_frames(head, rest, message, keys))
    if head.frames or head.frames_bytes:
        raise WireDamaged("only an Append has frames")
    return message


def decode_transfer(head: Head, rest: bytes) -> Transfer:
    """A question about a snapshot, or its answer.  Raises `WireDamaged`."""
    body = _body(head, Kind.TRANSFER, rest)
    if head.frames or head.frames_bytes:
        raise WireDamaged("only an Append has frames")
    try:
        return _TRANSFER.decode(body)
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        raise WireDamaged(f"a transfer: {error}") from None


def decode_received(head: Head, rest: bytes, keys: Keys) -> Message | Transfer:
    """Whatever follows a greeting.  Raises `WireDamaged`."""
    if head.kind is Kind.TRANSFER:
        return decode_transfer(head, rest)
    return decode_message(head, rest, keys)


def _body(head: Head, kind: Kind, rest: bytes) -> bytes:
    if head.kind is not kind or len(rest) != head.rest_bytes:
        raise WireDamaged(f"{head.kind.name} of {len(rest)} bytes")
    body = rest[: head.body_bytes]
    if crc32c(head.summed + body) != head.crc:
        raise WireDamaged("the checksum differs")
    return body


def _frames(head: Head, rest: bytes, message: Append, keys: Keys) -> tuple[Frame, ...]:
    """The frames of an `Append`: good ones, and each the next of the one before."""
    found = []
    position, sequence = head.body_bytes, message.position
    chain: bytes | None = None
    for _ in range(head.frames):
        try:
            frame = frames.decode(rest, position, keys)
        except FrameDamaged as error:
            raise WireDamaged(f"frame {sequence}: {error}") from None
        header = frame.header
        if header.sequence != sequence or chain not in (None, header.chain):
            raise WireDamaged(f"frame {header.sequence} stands where {sequence} should")
        found.append(frame)
        position += header.frame_bytes
        sequence, chain = sequence + 1, frame.chain
    if position != len(rest):
        raise WireDamaged("there is more than the frames that were announced")
    return tuple(found)
