"""What the edge needs from the engine behind it: one local shard, or a router of many.

The edge never knows how many shards there are.  It hands over admitted commands with a
ticket, asks queries, and reads the status.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

import msgspec

from ultraengine.execution.registry import Admitted, Registry
from ultraengine.model.domain import QuerySpec
from ultraengine.model.limits import Limits
from ultraengine.model.outcome import CommittedOutcome
from ultraengine.model.reply import Reply
from ultraengine.moving.record import Attempt, Message
from ultraengine.moving.wire import Batch, Records, Told
from ultraengine.replication.installing.offer import Transfer
from ultraengine.reply.waiters import Ticket

Lend = Callable[[int, int, int], Awaitable[Transfer]]
ReadMode = Literal["leader", "confirm", "follower"]


class ReadAnswer(Protocol):
    """A query's answer and the position it was read at."""

    @property
    def value(self) -> Any:
        """Encodable answer."""

    @property
    def epoch(self) -> int:
        """Epoch of the replica that answered."""

    @property
    def offset(self) -> int:
        """Offset of the last command that the answer reflects; -1 before the first."""

    @property
    def role(self) -> str:
        """``leader``, or ``follower``: then it may be older than what was answered elsewhere."""


class OutcomeAnswer(Protocol):
    """What became of a command id."""

    @property
    def state(self) -> str:
        """``done``, ``in_flight``, ``unknown`` or ``forgotten`` (below the dedupe floor)."""

    @property
    def reply(self) -> Reply | None:
        """The original reply when done."""

    @property
    def dedup_floor(self) -> int:
        """Offset below which ids may have been forgotten."""


class EngineStatus(Protocol):
    """The part of a shard's status that the edge itself acts on."""

    @property
    def role(self) -> str:
        """``leader`` or ``follower``."""

    @property
    def state(self) -> str:
        """``serving``, ``following``, or a state of `NOT_READY`."""

    @property
    def epoch(self) -> int:
        """Current epoch."""

    @property
    def dedup_floor_time(self) -> str | None:
        """Logged time below which ids may have been forgotten, RFC 3339; None when none is."""


class Engine(Protocol):
    """A shard or a router of shards.  Called on the thread of the event loop alone."""

    @property
    def registry(self) -> Registry:
        """Domains and admission."""

    @property
    def limits(self) -> Limits:
        """Limits in force."""

    def submit(self, admitted: Sequence[Admitted], ticket: Ticket, first_index: int = 0) -> None:
        """Queue commands.  Never raises: refusals arrive as replies in the ticket."""

    async def query(
        self,
        spec: QuerySpec,
        domain: str,
        tenant: str,
        key: str,
        params: Any,
        *,
        min_offset: int | None,
        read: ReadMode,
    ) -> ReadAnswer:
        """Answer a read from memory.  Raises `EngineError` (NOT_FOUND, WAIT_TIMEOUT, ...)."""

    async def outcome(self, tenant: str, key: str | None, command_id: str, /) -> OutcomeAnswer:
        """What became of a command; without `key` a bounded search by the id alone."""

    def status(self) -> EngineStatus:
        """A value with everything an operator wants to know; cheap."""


class Feed(Protocol):
    """Committed outcomes from an offset on, for subscriptions."""

    def outcomes(self, from_offset: int) -> AsyncIterator[Sequence[CommittedOutcome]]:
        """All outcomes from `from_offset`, in order, group by group, for ever.

        The first list comes at once, even when it is empty.  Raises `EngineError` TOO_OLD on
        the first step when they are no longer kept.
        """


class Slots(Protocol):
    """What hands slots over to other shards, and takes them (`shard.handing.driver`)."""

    def records(self) -> Records:
        """What is logged, of all slots that a message ever came for."""

    def look(self, slot: int, /) -> Told:
        """What this shard says of a slot."""

    async def send(self, slot: int, message: Message, /) -> Told:
        """Carry a message out.  Raises `EngineError`."""

    async def read(self, slot: int, position: int, /) -> Batch:
        """The next batch of a slot that is handed over.  Raises `EngineError`."""

    async def feed(self, slot: int, attempt: Attempt, batch: Batch, /) -> Told:
        """Log a batch.  Raises `EngineError`."""


class Operations(msgspec.Struct, frozen=True, kw_only=True):
    """What the admin API may ask of an engine; results are encodable values.

    What is None is absent from the API and from its document.
    """

    pause: Callable[[str], Awaitable[Any]] | None = None
    """(reason): refuse new commands (PAUSED) until ``resume``; reads go on."""
    resume: Callable[[], Awaitable[Any]] | None = None
    """Take commands again."""
    drain: Callable[[], Awaitable[Any]] | None = None
    """Refuse new commands (DRAINING), answer all that wait, write the last outcomes."""
    snapshot: Callable[[], Awaitable[Any]] | None = None
    """Take a snapshot; returns what was written."""
    backup: Callable[[], Awaitable[Any]] | None = None
    """Copy the shard to the store that is set; returns what was copied, and where."""
    replay_validate: Callable[[int, int | None], Awaitable[Any]] | None = None
    """(from_offset, to_offset): decide a log range again and compare; returns the report."""
    promote: Callable[[int | None, str], Awaitable[Any]] | None = None
    """(replica, reason): let a copy lead, the best one without a number."""
    skip: Callable[[int, str], Awaitable[Any]] | None = None
    """(offset, reason): log an override for the command where execution halts."""
    lend: Lend | None = None
    """(attempt, part, position): some of the files of this shard, for a candidate."""


NOT_READY: Final[Mapping[str, str]] = {
    "recovering": "SHARD_UNAVAILABLE",
    "paused": "PAUSED",
    "draining": "DRAINING",
    "handing_over": "DRAINING",
    "read_only": "READ_ONLY",
    "halted": "SHARD_UNAVAILABLE",
    "stopped": "SHARD_UNAVAILABLE",
    "following": "NOT_LEADER",
    "behind": "NOT_LEADER",
    "diverged": "NOT_LEADER",
}
"""States in which an engine refuses commands, with the code that says so."""
