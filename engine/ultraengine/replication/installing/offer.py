"""What is said while a copy is filled: it asks, piece by piece, and its leader answers.

    Fetch (of no part)  ->  Offered: where the log begins, and the files
    Fetch (part, position)  ->  Piece, the last one of a part with the digest of all of it
    any Fetch  ->  Withdrawn: begin anew

One question is open at a time, and an answer names its question: what is lost is asked again, what
comes twice is dropped.  Nothing here changes what the copy has sworn.
"""

import msgspec

from ultraengine.log.segment import Point
from ultraengine.replication.record import Holder

PIECE_BYTES = 256 * 1024
DIGEST_BYTES = 32
OFFER = -1
"""The part that is asked for first."""


class Part(msgspec.Struct, frozen=True):
    """One file of the new copy."""

    path: str
    """Where it is to be."""
    size: int


class Fetch(msgspec.Struct, frozen=True, tag=True):
    """A question of one life of a copy; `number` counts its attempts."""

    me: Holder
    number: int
    part: int
    position: int


class Offered(msgspec.Struct, frozen=True, tag=True):
    """What there is.  All of it is committed, whoever leads."""

    number: int
    base: Point
    """Where the log begins; at most where the snapshot was cut."""
    sequence_end: int
    """First frame that is not in the snapshot."""
    parts: tuple[Part, ...]


class Piece(msgspec.Struct, frozen=True, tag=True):
    """Some of a part."""

    number: int
    part: int
    position: int
    data: bytes
    digest: bytes = b""
    """BLAKE2b-256 of the whole part, with its last piece."""


class Withdrawn(msgspec.Struct, frozen=True, tag=True):
    """This attempt comes to nothing."""

    number: int
    why: str


Transfer = Fetch | Offered | Piece | Withdrawn
