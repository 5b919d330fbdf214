"""The Protocol of a target: a database that holds sets of tables, and what a write says.

A *set* is one build of one projection: its tables with a version and a build number in their
names.  One set *serves* (the views without version in their names show it), others are being
built or wait for their end.  A target holds many sets of many projections.

Exactly once (requirement 001 §2.1): a batch and the positions it moves are one transaction, and
the positions move only from where the writer believed them to be, so of two workers one is
fenced.  Every implementation passes `ultraengine.testing.projection_targets.TargetContract`.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from ultraengine.model.ids import NO_CHAIN, Epoch, Instant, Offset, ShardId
from ultraengine.model.projection import Aggregate, Projection, Table
from ultraengine.projection.fold import Batch

LEDGER_TABLE: Final = "ultra_projection_ledger"
"""One row per write and shard, for auditors: which state of the log, by its chain hash, the tables
have followed.  Its columns: `projection.engine_tables.LEDGER`."""


class TargetUnavailable(Exception):
    """The database cannot be reached or has dropped us: try again later; nothing was written."""


class RowRefused(Exception):
    """The database refuses a row (a CHECK, a duplicate, a missing row): trying again is no use.

    The transaction was undone.  The projection parks until a person has looked.
    """


class Fenced(Exception):
    """Another writer has moved the position: this one must stop."""


class Checkpoint(msgspec.Struct, frozen=True):
    """How far a set has followed one shard's log."""

    offset: Offset
    """First offset that is not in the tables."""
    epoch: Epoch = Epoch(0)
    """Of the last group in them."""
    time: Instant = Instant(0)
    """Stamped time of that group."""
    chain: bytes = NO_CHAIN
    """Log chain after that group's COMMANDS frame."""


START: Final = Checkpoint(Offset(0))
"""Where a set without a position begins."""


class Moved(msgspec.Struct, frozen=True):
    """One shard's position, moved by a batch."""

    shard: ShardId
    before: Checkpoint
    after: Checkpoint
    groups: int = 1


class SetState(enum.StrEnum):
    """Life of a set: building -> serving -> retired -> dropped (gone)."""

    BUILDING = "building"
    SERVING = "serving"
    RETIRED = "retired"


class Parked(msgspec.Struct, frozen=True):
    """Where and why a set stands still until a person has looked."""

    shard: ShardId
    offset: Offset
    index: int
    """Index of the event in its command; -1: not one event, but its command's or group's bytes
    cannot be read, or the database refused the group that begins at `offset`."""
    reason: str
    time: Instant


class ProjectionSet(msgspec.Struct, frozen=True):
    """One build of one projection, as the target remembers it."""

    projection: str
    version: int
    build: int
    """Counts from 1 per projection."""
    state: SetState
    created_at: Instant
    changed_at: Instant
    """When the state was reached."""
    parked: Parked | None = None
    paused: bool = False

    @property
    def suffix(self) -> str:
        """What its physical names end with."""
        return f"v{self.version}_b{self.build}"


def physical(projection: str, table: str, suffix: str) -> str:
    """Name of a table of a set: ``ledger_entry__v1_b3``."""
    return f"{projection}_{table}__{suffix}"


def view(projection: str, table: str) -> str:
    """Name under which the serving set is read: ``ledger_entry``."""
    return f"{projection}_{table}"


class Checksum(msgspec.Struct, frozen=True):
    """Content of one table, whatever the order of its rows; comparable within one target."""

    rows: int
    digest: str


class Request(enum.StrEnum):
    """What a person asks of the worker, through the target."""

    REBUILD = "rebuild"
    PAUSE = "pause"
    """All sets of the projection."""
    PAUSE_BUILD = "pause-build"
    """Only what is being built; what serves goes on."""
    RESUME = "resume"
    """Also out of a park: the event is tried again."""


class Target(Protocol):
    """One database.  One task uses it at a time.

    All methods raise `TargetUnavailable` when it cannot be reached.
    """

    @property
    def name(self) -> str:
        """Its name in metrics, logs and commands."""

    @property
    def dialect(self) -> str:
        """``sqlite``, ``postgresql``, ``mysql``, …"""

    @property
    def exactly_once(self) -> bool:
        """Whether rows and positions are one transaction.  False: at least once; a batch may be
        written again after a crash, with the same (shard, offset)s."""

    async def open(self) -> None:
        """Connect, and make the engine's own tables where they are missing."""

    async def close(self) -> None:
        """Disconnect.  Idempotent."""

    async def sets(self) -> Sequence[ProjectionSet]:
        """All sets, by projection and build."""

    async def create(self, projection: Projection, build: int, now: Instant) -> ProjectionSet:
        """Make the tables of a new set, in `SetState.BUILDING`.  Idempotent."""

    async def positions(self, of: ProjectionSet) -> Mapping[ShardId, Checkpoint]:
        """How far it has come, by shard; shards that it has not begun are absent."""

    async def write(
        self, of: ProjectionSet, projection: Projection, batch: Batch, moved: Sequence[Moved]
    ) -> None:
        """One transaction: rows, positions, one ledger row per shard, touched slices.

        Raises `RowRefused` (a CHECK, a duplicate, a changed row that is not there, a value that its
        column cannot hold), `Fenced` (also for a set that is gone); nothing was written then.
        """

    async def refresh(self, of: ProjectionSet, projection: Projection, slices_max: int) -> int:
        """Compute touched slices of the aggregates anew, at most so many; how many are left.

        Raises `RowRefused` when a CHECK of an aggregate does not hold; nothing was changed then.
        """

    async def serve(self, of: ProjectionSet, projection: Projection, now: Instant) -> None:
        """Let the views show this set, atomically; the one that served is retired.

        Views of tables that this set does not have are gone.  Idempotent.
        """

    async def drop(self, of: ProjectionSet, tables: Sequence[str], now: Instant) -> None:
        """Remove the tables and all memory of a set that does not serve.  Idempotent.

        Raises `InvariantBroken` for one that serves.
        """

    async def park(self, of: ProjectionSet, parked: Parked | None) -> None:
        """Remember why it stands still; None = it may go on."""

    async def ask(self, projection: str, request: Request, now: Instant) -> None:
        """Leave a request for the worker."""

    async def requests(self) -> Sequence[tuple[str, Request]]:
        """Take what was asked, oldest first; each is given once."""

    async def pause(self, of: ProjectionSet, *, paused: bool) -> None:
        """Remember that a person wants it to stand still, or to go on."""

    async def keep(self, of: ProjectionSet, projection: Projection, now: Instant) -> None:
        """Partitions of the time to come are made, those past their keep are dropped."""

    async def checksums(self, of: ProjectionSet, tables: Sequence[Table]) -> Mapping[str, Checksum]:
        """By table, of one moment (a single snapshot)."""


def all_tables(projection: Projection) -> tuple[Table, ...]:
    """Every table of a set, aggregates included."""
    aggregates: Sequence[Aggregate] = projection.aggregates
    return (*projection.tables, *(one.table for one in aggregates))
