"""Protocols of the policies that users may replace (requirement 001 §2.3).

Each has a contract suite in `ultraengine.testing.policies` and shipped implementations;
`docs/extending.md` shows one of a user's own for each.
"""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from ultraengine.model.command import Command
from ultraengine.model.ids import Instant
from ultraengine.model.outcome import Outcome
from ultraengine.model.reply import DurabilityName

K = TypeVar("K")
V = TypeVar("V")


class FlushRule(msgspec.Struct, frozen=True):
    """When a formed group is flushed and what a reply waits for."""

    name: DurabilityName
    wait_s: float
    """How long a group may stay open for more commands; 0 = closed as soon as the disk is free."""
    group_bytes_max: int
    reply_before_flush: bool
    """Only ``async``: execute and reply first, flush within ``wait_s``."""


class DurabilityPolicy(Protocol):
    """Chooses how groups are flushed (requirement 001 §2.1, durable log)."""

    def rule(self) -> FlushRule:
        """The rule in force."""


class SchedulingPolicy(Protocol):
    """Chooses which waiting commands enter the next group, and in which order.

    Must be a function of its arguments, must keep the order of commands of one (tenant, key),
    and may starve nobody: every command is chosen after finitely many calls.
    """

    def choose(self, waiting: Sequence[Command], count_max: int) -> Sequence[int]:
        """Indexes into `waiting`, at most `count_max`, at least one when any waits."""


class CachePolicy(Protocol, Generic[K]):
    """Admission and eviction of a bounded cache; never part of correctness."""

    def on_hit(self, key: K) -> None:
        """`key` was found."""

    def admit(self, key: K) -> K | None:
        """A miss on `key` while the cache is full: the key to evict for it, None = keep out."""

    def on_insert(self, key: K) -> None:
        """`key` entered the cache."""

    def on_remove(self, key: K) -> None:
        """`key` left the cache other than by ``admit``."""


class LogSerializer(Protocol):
    """Payload codec of COMMANDS and OUTCOMES frames; ``codec`` is stamped in each header."""

    @property
    def codec(self) -> int:
        """1-255; 1 is msgpack arrays, 2-63 are reserved, 64-255 are a user's own."""

    def encode_commands(self, commands: Sequence[Command]) -> bytes:
        """Payload of a COMMANDS frame."""

    def decode_commands(self, payload: bytes) -> list[Command]:
        """Inverse of ``encode_commands``.  Raises ValueError on anything else."""

    def encode_outcomes(self, outcomes: Sequence[Outcome]) -> bytes:
        """Payload of an OUTCOMES frame."""

    def decode_outcomes(self, payload: bytes) -> list[Outcome]:
        """Inverse of ``encode_outcomes``.  Raises ValueError on anything else."""


class CompactionPolicy(Protocol):
    """What happens to sealed segments below the retention point (requirement 001 §2.1)."""

    @property
    def name(self) -> str:
        """``none``, ``key`` or ``time``, or a user's own."""

    def archive(self, *, sealed_at: Instant, now: Instant) -> bool:
        """Whether a segment sealed at `sealed_at` goes to the archive before it is removed, and
        may stay there.  `now` is logged time: that of the newest frame."""
