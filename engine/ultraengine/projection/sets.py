"""What should happen to the sets of a target: a difference, never a deed.

    what is declared + what the target holds + what people asked + time  ->  actions

The life of a set is the table `NEXT`.  The planner is level-based: it looks at what is there and
says what is missing, so a worker that died between two actions goes on where it was.

* A projection without a set is built, and served once it has caught up.
* A raised version, or a person's request, builds a new set beside the one that serves; when it
  has caught up the views change over in one step, and the old set is dropped after a grace.
* A set of a *newer* version than this program declares is left alone: an older release must not
  write into it.  A request to rebuild, made on purpose, goes back.
* Sets of projections that nobody declares are left alone and reported.
"""

import enum
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from ultraengine.model.ids import Instant
from ultraengine.projection.lag import MICROSECONDS
from ultraengine.projection.target import ProjectionSet, Request, SetState


class Wanted(msgspec.Struct, frozen=True):
    """A projection that this program declares."""

    name: str
    version: int


class Occasion(enum.StrEnum):
    """What moves a set to its next state."""

    CAUGHT_UP = "caught_up"
    """It holds all that the feed had."""
    REPLACED = "replaced"
    """Another set serves in its place; the target does this in the same step."""
    GRACE_OVER = "grace_over"
    """Nobody can be reading it any more."""
    SUPERSEDED = "superseded"
    """A newer build makes it useless."""


NEXT: Final[dict[tuple[SetState, Occasion], SetState | None]] = {
    (SetState.BUILDING, Occasion.CAUGHT_UP): SetState.SERVING,
    (SetState.SERVING, Occasion.REPLACED): SetState.RETIRED,
    (SetState.RETIRED, Occasion.GRACE_OVER): None,
    (SetState.BUILDING, Occasion.SUPERSEDED): None,
}
"""None: it is dropped.  Pairs that are absent cannot happen."""


class Create(msgspec.Struct, frozen=True):
    """Make the tables of a new build."""

    projection: str
    build: int
    why: str


class Serve(msgspec.Struct, frozen=True):
    """Let the views show it."""

    of: ProjectionSet


class Drop(msgspec.Struct, frozen=True):
    """Remove it with its tables."""

    of: ProjectionSet
    why: Occasion


class Pause(msgspec.Struct, frozen=True):
    """Let it stand still, or go on."""

    of: ProjectionSet
    paused: bool


class Unpark(msgspec.Struct, frozen=True):
    """Try again what it was parked at."""

    of: ProjectionSet


Action = Create | Serve | Drop | Pause | Unpark


class Plan(msgspec.Struct, frozen=True):
    """What to do, and whom to feed meanwhile."""

    actions: tuple[Action, ...]
    follow: tuple[ProjectionSet, ...]
    """Sets to be written: what serves first, then what is being built."""
    newer: tuple[ProjectionSet, ...] = ()
    """Sets of a newer version than this program's: left alone."""
    unknown: tuple[ProjectionSet, ...] = ()
    """Sets of projections that nobody declares: left alone."""


def plan(
    wanted: Sequence[Wanted],
    sets: Sequence[ProjectionSet],
    requests: Sequence[tuple[str, Request]],
    caught_up: Iterable[ProjectionSet],
    now: Instant,
    grace_s: float,
) -> Plan:
    """What should happen now.  Requests are planned for once; the rest until it is so."""
    ready = {(one.projection, one.build) for one in caught_up}
    names = {one.name for one in wanted}
    actions: list[Action] = []
    follow: list[ProjectionSet] = []
    newer: list[ProjectionSet] = []
    for one in wanted:
        own = [of for of in sets if of.projection == one.name]
        asked = [request for name, request in requests if name == one.name]
        answers = _asked(own, asked)
        actions += answers
        stopped = {to.of.build for to in answers if isinstance(to, Pause) and to.paused}
        actions += _builds(one, own, is_asked=Request.REBUILD in asked)
        for of in own:
            occasion = _occasion(of, one, own, ready, now, grace_s)
            if occasion is None or (occasion is Occasion.CAUGHT_UP and of.build in stopped):
                continue
            following = NEXT[of.state, occasion]
            actions.append(Drop(of, occasion) if following is None else Serve(of))
        gone = {of.build for of in own if Drop(of, Occasion.SUPERSEDED) in actions}
        follow += [
            of
            for of in own
            if of.version == one.version
            and of.state is not SetState.RETIRED
            and of.build not in gone | stopped
            and of.parked is None
            and not of.paused
        ]
        newer += [of for of in own if of.version > one.version and of.state is not SetState.RETIRED]
    follow.sort(key=lambda of: (of.state is not SetState.SERVING, of.projection, of.build))
    unknown = tuple(of for of in sets if of.projection not in names)
    return Plan(tuple(actions), tuple(follow), tuple(newer), unknown)


def _asked(own: Sequence[ProjectionSet], asked: Sequence[Request]) -> list[Action]:
    """Pauses, in the order in which they were asked: the last word counts."""
    paused = {of.suffix: of.paused for of in own}
    tried_again = False
    for request in asked:
        if request is Request.RESUME:
            tried_again = True
        for of in own:
            if of.state is SetState.RETIRED:
                continue
            if request is Request.RESUME:
                paused[of.suffix] = False
            elif request is Request.PAUSE or (
                request is Request.PAUSE_BUILD and of.state is SetState.BUILDING
            ):
                paused[of.suffix] = True
    actions: list[Action] = [
        Pause(of, paused[of.suffix]) for of in own if paused[of.suffix] is not of.paused
    ]
    if tried_again:
        actions += [Unpark(of) for of in own if of.parked is not None]
    return actions


def _builds(one: Wanted, own: Sequence[ProjectionSet], *, is_asked: bool) -> list[Action]:
    """A new build where one is missing."""
    building = [of for of in own if of.state is SetState.BUILDING and of.version == one.version]
    serving = [of for of in own if of.state is SetState.SERVING]
    if is_asked:
        # A build that goes on already is what was asked for; one that is stuck is not.
        why = "" if any(of.parked is None for of in building) else "asked"
    elif building:
        why = ""
    elif not serving:
        # A build of a newer release is that release's matter.
        why = "" if any(of.version > one.version for of in own) else "first"
    else:
        why = "version" if all(of.version < one.version for of in serving) else ""
    if not why:
        return []
    return [Create(one.name, 1 + max((of.build for of in own), default=0), why)]


def _occasion(
    of: ProjectionSet,
    one: Wanted,
    own: Sequence[ProjectionSet],
    ready: set[tuple[str, int]],
    now: Instant,
    grace_s: float,
) -> Occasion | None:
    """What moves a set on now, by itself."""
    if of.state is SetState.RETIRED:
        is_over = now - of.changed_at >= grace_s * MICROSECONDS
        return Occasion.GRACE_OVER if is_over else None
    if of.state is SetState.SERVING:
        return None
    newest = max(
        other.build
        for other in own
        if other.state is SetState.BUILDING and other.version >= of.version
    )
    if of.version < one.version or of.build < newest:
        return Occasion.SUPERSEDED
    is_free = of.parked is None and not of.paused
    is_ready = (of.projection, of.build) in ready and of.version == one.version
    return Occasion.CAUGHT_UP if is_free and is_ready else None
