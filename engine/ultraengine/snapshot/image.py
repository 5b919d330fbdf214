"""What a snapshot is a snapshot *of*: an image in sections, at a position of the log.

An `Image` is the whole state of one shard, cut into *sections*.  Sections of the same
content are the same bytes on every replica and in every run, so their hash (the *state
hash*) can be compared between replicas, between a snapshot and the memory it came from,
and between two ways to reach one position (requirement 001 §2.1, §2.2).

Order: ascending (slot, name); chunks of one (slot, name) keep the order they were dumped
in.  Slot -1 stands for what belongs to the shard as a whole.

An *increment* holds the sections of what changed since the last ``mark``.  Loading a full
image and then its increments, oldest first, gives the state at the last one's position.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol, TypeVar

import msgspec

from ultraengine.model.ids import NO_CHAIN, Epoch, FrameSequence, Instant, Offset, ShardId

SHARD_WIDE: Final = -1
"""The slot number of sections that belong to no slot."""

CHUNK_BYTES_MAX: Final = 4 * 1024 * 1024
"""Largest chunk of one section.  Dumps aim at 1 MiB; larger than this is refused."""

NAME_BYTES_MAX: Final = 255
"""Longest section name in UTF-8 bytes."""

STATE_HASH_BYTES: Final = 32


class Section(msgspec.Struct, frozen=True, gc=False):
    """One chunk of one named part of one slot's state."""

    slot: int
    """Slot number, or `SHARD_WIDE`."""
    name: str
    """Owner of the content: a domain's name, ``versions``, ``dedup``, …; not empty."""
    schema: int
    """Version of the chunk's format, from the owner; 1 is the first."""
    chunk: bytes
    """Opaque to snapshots; at most `CHUNK_BYTES_MAX` bytes."""


class ImagePosition(msgspec.Struct, frozen=True, kw_only=True):
    """Where in the log an image was cut: everything before it is in the image."""

    shard: ShardId
    epoch: Epoch
    offset_end: Offset
    """First offset that is not in the image."""
    sequence_end: FrameSequence
    """First frame sequence that is not in the image."""
    chain: bytes = NO_CHAIN
    """Chain of the frame before ``sequence_end`` (16 bytes)."""
    state_chain: bytes = NO_CHAIN
    """State chain over the OUTCOMES payloads before it (16 bytes)."""
    time: Instant
    """Stamped time of the last frame before it; the next frame's may not be lower."""
    handlers: Mapping[str, int] = {}
    """Handler version of each domain by name."""
    history_end: int = 0
    """Bytes of the history store that belong to the image."""


class Image(Protocol):
    """The state of one shard as snapshots see it.  Used from one thread.

    Sections depend on content alone, and slots are independent of each other: an image that
    was given the shard-wide sections and then those of some slots gives back these for these
    slots, and an increment changes a slot through sections of that slot only.  An image that
    dropped a slot since the last ``mark`` cannot say so in an increment; its owner asks for a
    full snapshot then.  Shard-wide sections are small: every increment may repeat them.
    """

    def sections(self, *, full: bool) -> Iterator[Section]:
        """All sections in order; ``full=False``: only what changed since the last ``mark``.

        Reads the state as it is while iterating; the caller sees to it that nothing changes
        meanwhile (a forked child, or an idle writer).
        """

    def load(self, section: Section) -> None:
        """Take one section of a full image or, on top of it, of an increment, in order."""

    def mark(self, slot: int | None = None) -> None:
        """Start of the next increment: everything so far is in a snapshot.

        With `slot`, for that slot alone: a cooperative snapshot marks each slot as it is read.
        """

    def slots(self) -> Sequence[int]:
        """Slots that hold anything, ascending, `SHARD_WIDE` included when it does."""

    def slot_sections(self, slot: int, *, full: bool) -> Iterator[Section]:
        """The sections of one slot, in order."""


AnyImage = TypeVar("AnyImage", bound=Image)
"""The kind of image that a caller makes and gets back loaded."""


def state_hash(sections: Iterable[Section]) -> bytes:
    """blake2b-256 over full sections in order.

    Each section enters as slot (4 bytes, signed), length of the name (4) and the name in
    UTF-8, schema (4), length of the chunk (4) and the chunk; integers are little-endian.
    """
    digest = StateHash()
    for section in sections:
        digest.add(section)
    return digest.value()


class StateHash:
    """`state_hash`, fed section by section."""

    __slots__ = ("_digest",)

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=STATE_HASH_BYTES)

    def add(self, section: Section) -> None:
        """Take the next section."""
        name = section.name.encode()
        head = b"".join(
            (
                section.slot.to_bytes(4, "little", signed=True),
                len(name).to_bytes(4, "little"),
                name,
                section.schema.to_bytes(4, "little"),
                len(section.chunk).to_bytes(4, "little"),
            )
        )
        self._digest.update(head)
        self._digest.update(section.chunk)

    def value(self) -> bytes:
        """The 32 bytes so far."""
        return self._digest.digest()
