"""What executing one command produced: the record of OUTCOMES frames and of the feed.

Recovery and followers *evolve* recorded events and never run a handler for them, so
an outcome carries everything that execution decided.
"""

import enum

import msgspec

from ultraengine.model.command import Command
from ultraengine.model.ids import Epoch, FrameSequence, Instant, Offset, ShardId

EMPTY_ARRAY = msgspec.Raw(b"\x90")
NIL = msgspec.Raw(b"\xc0")


class Status(enum.IntEnum):
    """How an executed command ended.  Numbers are part of log format version 1."""

    ACCEPTED = 0
    REJECTED = 1
    """A domain rule, an expected version or authorization inside the domain said no."""
    INTERNAL = 2
    """A handler raised; the command changed nothing (`EngineError` code INTERNAL)."""


class Failure(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Why a command was not accepted.  ``code`` is stable, ``detail`` is for people."""

    code: str
    detail: str
    pointer: str = ""
    """RFC 6901 pointer into the command, empty for the whole of it."""
    current_version: int | None = None
    """For VERSION_MISMATCH: the version found."""


class Outcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The recorded outcome of the command at ``offset``; array form, fields appended only."""

    offset: int
    status: int
    version: int
    """Number of accepted commands of (tenant, key) after this one."""
    result: msgspec.Raw
    """msgpack of the domain's result, nil when there is none."""
    events: msgspec.Raw
    """msgpack array of the domain's events, with post-values."""
    failure: Failure | None = None
    messages: msgspec.Raw = NIL
    """msgpack array of messages to other shards, nil when there are none."""


class CommittedOutcome(msgspec.Struct, frozen=True, gc=False):
    """The feed's record: one committed command with its outcome, as consumers see it."""

    shard: ShardId
    epoch: Epoch
    offset: Offset
    time: Instant
    command: Command
    outcome: Outcome


class CommittedGroup(msgspec.Struct, frozen=True, gc=False):
    """The feed's unit of shipping: one group as stored, not decoded.

    ``commands`` and ``outcomes`` are the plain payloads of the two frames
    (decompressed, decrypted) with ``codec`` naming their serializer.
    """

    shard: ShardId
    epoch: Epoch
    sequence: FrameSequence
    """Frame sequence of the COMMANDS frame: the position to resume from is ``offset_end``."""
    base_offset: Offset
    count: int
    time: Instant
    codec: int
    commands: bytes
    outcomes: bytes
    chain: bytes
    """Log chain after the COMMANDS frame: which history this group ends."""

    @property
    def offset_end(self) -> Offset:
        """First offset after this group."""
        return Offset(self.base_offset + self.count)
