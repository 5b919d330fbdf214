"""A user's own parts, given to a process in one place (requirement 001 §2.3, §6).

A configuration names an `Extensions` as ``package.module:ATTRIBUTE`` (``ULTRA_EXTENSIONS``,
``ultra dev --extensions``); `main` hands its members to the parts that take them.  What is
left out is what the engine ships.  `docs/extending.md` shows one of each.
"""

import msgspec

from ultraengine.execution.pipeline import Hooks
from ultraengine.model.policy import (
    CompactionPolicy,
    DurabilityPolicy,
    LogSerializer,
    SchedulingPolicy,
)
from ultraengine.projection.projector import ProjectionHooks
from ultraengine.snapshot.codec import SnapshotCodec
from ultraengine.snapshot.migrate import Migration
from ultraengine.snapshot.schedule import SnapshotPolicy


class Extensions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be replaced without touching the engine.  All of it is trusted code.

    What decides or stores state (hooks, serializers, codecs) must be the same on all replicas
    and at every start, as domains must.
    """

    hooks: Hooks = Hooks()
    """Before the log, before and after execution."""
    durability: DurabilityPolicy | None = None
    """Instead of the one that the configuration names."""
    scheduling: SchedulingPolicy | None = None
    """Who enters the next group; None = in order of arrival."""
    serializers: tuple[LogSerializer, ...] = ()
    """Payload codecs that the log can read, numbers 64 to 255; the first one is written."""
    compaction: CompactionPolicy | None = None
    """Instead of the one that the configuration names; needs an archive."""
    snapshot_codecs: tuple[SnapshotCodec, ...] = ()
    """Section codecs that snapshots can be read with, numbers 64 to 255; the first is written."""
    snapshot_policy: SnapshotPolicy | None = None
    """When a snapshot is due, instead of the configuration's counts and times."""
    migrations: tuple[Migration, ...] = ()
    """Steps from older schemas of sections to today's, taken on load."""
    projection_hooks: ProjectionHooks = ProjectionHooks()
    """In the projection worker: before an event is projected, after a batch is committed."""


NONE = Extensions()
"""A process without any."""
