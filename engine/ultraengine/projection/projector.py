"""From groups to batches: what one transaction of each set will write.

    groups of several shards -> `Former.take`, one after the other -> `Formed`

Several projections may be fed from one reading; each gets a batch of its own.  Pure: the same
groups give the same batches, so a batch that was lost in a crash is simply made again.

An event that a projection cannot take is *poison*: nothing of its group is kept, the caller
writes what came before and parks the projection there.  Nothing is ever left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from ultraengine.model.domain import Domain
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Instant, Offset, ShardId
from ultraengine.model.outcome import CommittedGroup
from ultraengine.model.projection import Projecting, Projection, Source, check_projection
from ultraengine.projection.decode import WHOLE, Behind, Decoder, Undecodable
from ultraengine.projection.fold import Batch
from ultraengine.projection.target import START, Checkpoint, Moved, Parked

STEP_EVENTS: Final = 100
"""Events between two stops: about a millisecond."""
REASON_CHARS_MAX: Final = 1_000
"""A reason is kept in the target: what a raised error says beyond this is cut."""


class BeforeProjection(Protocol):
    """Runs before an event is projected.  Part of what a table says, so it must be pure."""

    def __call__(self, projection: str, event: Any, at: Source, /) -> Any:
        """The event to project: as it came, or masked; None leaves it out of this projection.

        Raising parks the projection.
        """


class Written(msgspec.Struct, frozen=True):
    """A batch that is durable in a target."""

    target: str
    projection: str
    build: int
    serving: bool
    rows: int
    moved: tuple[Moved, ...]


class AfterProjection(Protocol):
    """Runs after a batch was committed; sees what was written, changes nothing, may not fail.

    At most once: after a crash between the commit and the call nobody calls it again.
    """

    def __call__(self, written: Written, /) -> None:
        """Observe."""


class ProjectionHooks(msgspec.Struct, frozen=True):
    """Hooks of a worker, in the order in which they run."""

    before: tuple[BeforeProjection, ...] = ()
    after: tuple[AfterProjection, ...] = ()


def told(hooks: ProjectionHooks, written: Written) -> list[str]:
    """Let the hooks after see a batch; what failed.  Nothing that they raise gets further."""
    failures: list[str] = []
    for hook in hooks.after:
        try:
            hook(written)
        except Exception as error:  # noqa: BLE001  (whatever it raises)
            failures.append(f"{type(error).__name__}: {error}")
    return failures


class Declared(msgspec.Struct, frozen=True):
    """A projection and the domain whose events fill it."""

    domain: str
    projection: Projection


def declared(domains: Sequence[Domain]) -> tuple[Declared, ...]:
    """The projections of some domains, checked.

    Raises `InvariantBroken` for a wrong declaration or for two of one name.
    """
    found = tuple(
        Declared(domain.name, projection)
        for domain in domains
        if isinstance(domain, Projecting)
        for projection in domain.projections
    )
    for one in found:
        check_projection(one.projection)
    names = [one.projection.name for one in found]
    if len(set(names)) != len(names):
        raise InvariantBroken("projections have names of their own", names=names)
    return found


class Poison(msgspec.Struct, frozen=True):
    """What could not be projected."""

    projection: str | None
    """The one that refused it; None: the bytes cannot be read, so none can go on."""
    parked: Parked


class Formed(msgspec.Struct, frozen=True):
    """Batches of the same groups, one for each projection, and how far they move the positions."""

    batches: tuple[Batch, ...]
    """In the order of the projections."""
    moved: tuple[Moved, ...]
    """By shard."""
    commands: int
    overridden: tuple[tuple[ShardId, Offset], ...] = ()
    """Commands that a person has overridden and whose rows were written before."""


class Former:
    """A batch in the making.  After a `Poison` it is void: form anew what came before."""

    def __init__(
        self,
        members: Sequence[Declared],
        decoder: Decoder,
        positions: Mapping[ShardId, Checkpoint],
        hooks: ProjectionHooks,
    ) -> None:
        self._decoder = decoder
        self._before: Mapping[ShardId, Checkpoint] = positions
        self._moved: dict[ShardId, Moved] = {}
        self._batches = tuple(Batch(member.projection.tables) for member in members)
        self._hooks = hooks.before
        self._by_domain: dict[str, list[tuple[Projection, Batch]]] = {}
        for member, batch in zip(members, self._batches, strict=True):
            self._by_domain.setdefault(member.domain, []).append((member.projection, batch))
        self.poison: Poison | None = None
        """What could not be projected; with it the batch is void."""
        self.groups = 0
        self.bytes = 0
        """Payload of the groups."""
        self._commands = 0
        self.behind: Behind | None = None
        """Why the last group was not taken: what is to be taken first.  The batch goes on."""

    @property
    def rows(self) -> int:
        """Rows of the largest batch."""
        return max((batch.row_count for batch in self._batches), default=0)

    def position(self, shard: ShardId) -> Checkpoint:
        """How far this shard was taken."""
        moved = self._moved.get(shard)
        return self._before.get(shard, START) if moved is None else moved.after

    def reached(self, shard: ShardId) -> Offset:
        """Below which offset this shard was taken."""
        return self.position(shard).offset

    def take(self, group: CommittedGroup, now: Instant) -> Poison | None:
        """`steps` without stops: None = the group is in the batches, or `behind` says why not."""
        for _ in self.steps(group, now):
            pass
        return self.poison

    def steps(self, group: CommittedGroup, now: Instant) -> Iterator[None]:
        """Project the part of a group that is new, in steps of `STEP_EVENTS`.

        When it ends without `poison` and without `behind`, the group is in the batches.  Whoever
        writes meanwhile gets his turn between two steps.  Raises `InvariantBroken` when commands
        are missing between the position and the group.
        """
        self.behind = None
        before = self.position(group.shard)
        if group.base_offset > before.offset:
            raise InvariantBroken(
                "a feed has no gaps",
                shard=group.shard,
                position=before.offset,
                base_offset=group.base_offset,
            )
        if group.offset_end <= before.offset:
            return
        name: str | None = None
        left = STEP_EVENTS
        source, hooks, by_domain = self._decoder.source, self._hooks, self._by_domain
        try:
            for domain, event in self._decoder.events(group, before.offset, self.reached):
                for projection, batch in by_domain.get(domain, ()):
                    name = projection.name
                    if hooks:
                        taken = self._hooked(name, event, source)
                        if taken is not None:
                            projection.project(taken, source, batch)
                    else:
                        projection.project(event, source, batch)
                name = None
                left -= 1
                if not left:
                    left = STEP_EVENTS
                    yield
        except Behind as behind:
            self.behind = behind
        except Undecodable as error:
            parked = Parked(group.shard, error.offset, WHOLE, error.reason, now)
            self.poison = Poison(None, parked)
        except Exception as error:  # noqa: BLE001  (whatever a projection raises parks it)
            reason = f"{type(error).__name__}: {error}"[:REASON_CHARS_MAX]
            parked = Parked(group.shard, source.offset, source.index, reason, now)
            self.poison = Poison(name, parked)
        else:
            self._commands += group.offset_end - before.offset
            self._include(group)

    def _hooked(self, projection: str, event: Any, source: Source) -> Any:
        for hook in self._hooks:
            event = hook(projection, event, source)
            if event is None:
                return None
        return event

    def _include(self, group: CommittedGroup) -> None:
        shard = group.shard
        old = self._moved.get(shard)
        after = Checkpoint(group.offset_end, group.epoch, group.time, group.chain)
        if old is None:
            self._moved[shard] = Moved(shard, self._before.get(shard, START), after)
        else:
            self._moved[shard] = Moved(shard, old.before, after, old.groups + 1)
        self.groups += 1
        self.bytes += len(group.commands) + len(group.outcomes)

    def finish(self) -> Formed:
        """What is to be written."""
        return Formed(
            self._batches,
            tuple(moved for _, moved in sorted(self._moved.items())),
            self._commands,
            tuple(self._decoder.late_overrides()),
        )
