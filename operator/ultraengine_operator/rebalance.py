"""Moving slots until as many shards as are wished share them: the wish, and what is said of it.

The map and the shards' own words decide (`rebalancing.balance`); a driver carries moves out beside
the loop, is told the newest wish at each reconcile, and says how far it is.  A shard that is not
wished any more is let go when the logs say that it holds nothing, never by the map alone: between
two steps of a move the map is behind.
"""

import math
from collections import Counter

import msgspec

from ultraengine.model.ids import SLOT_COUNT
from ultraengine.rebalancing.balance import moves
from ultraengine.router.shard_map import ShardMap
from ultraengine_operator.api.types import EngineSpec
from ultraengine_operator.observed import Observed
from ultraengine_operator.reasons import Problem, Reason
from ultraengine_operator.rollout import unready

STUCK_S = 300.0
"""When no slot has moved for so long, somebody is asked to look."""


class Wish(msgspec.Struct, frozen=True):
    """How the slots of an engine are to be shared."""

    count: int
    """Shards 0 to this are to have them."""
    shards: tuple[int, ...]
    """Who is asked: all that are wished or hold slots by the map, and the others that are ready.
    One that is neither, say because its image was never found, is not waited for."""
    left: int = 0
    """Slots that are not where they are wished, by the map."""
    emptying: tuple[int, ...] = ()
    """Shards that are to go and of which no log has said that they hold nothing."""
    waiting: str | None = None
    """Why no slot can be moved yet."""
    lines: tuple[str, ...] = ()
    """What is to be done, for people."""

    @property
    def is_met(self) -> bool:
        """Whether nothing is to be done, as far as the map says."""
        return not self.left and not self.emptying


class Told(msgspec.Struct, frozen=True):
    """How far the driver is with a wish; times are seconds of one clock."""

    count: int
    moved: int
    left: int
    started_s: float
    moved_s: float
    """When a slot moved last, or the work began."""
    slots: tuple[int, ...] = ()
    """Those between two shards."""
    waits_for: str = ""
    """What goes on as soon as it is there again: a shard, the API server."""
    failed: str = ""
    """The move that cannot be done; the slot is where it was."""

    @property
    def per_minute(self) -> int:
        """Slots in a minute, over all the time that slots moved."""
        spent_s = self.moved_s - self.started_s
        return math.floor(60 * self.moved / spent_s) if self.moved and spent_s > 0 else 0


class Rebalancing(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be reported."""

    is_moving: bool = False
    """Whether slots are being moved, or would be if what they wait for was there."""
    reason: Reason = Reason.SLOTS_MOVING
    message: str = ""
    problem: Problem | None = None
    lines: tuple[str, ...] = ()
    progress: dict[str, int | str] | None = None
    """`status.rebalance`."""


QUIET = Rebalancing()


def refusal(spec: EngineSpec, gone: tuple[int, ...]) -> Problem | None:
    """Why no shard may be emptied; None when it may."""
    if not gone or not spec.projections:
        return None
    names = ", ".join(one.name for one in spec.projections)
    return Problem(
        Reason.PROJECTIONS_NEED_SHARDS,
        f"spec.shards is {spec.shards}, and {names} reads the log of shard "
        f"{', '.join(map(str, gone))} for what came from it; no slot is moved away",
        holds=False,
    )


def wish(
    spec: EngineSpec, observed: Observed, shards: tuple[int, ...], shard_map: ShardMap
) -> Wish:
    """How the slots are to be shared, and what is in the way of beginning."""
    count = spec.shards
    gone = tuple(shard for shard in shards if shard >= count)
    work = [] if _is_even(shard_map, count) else moves(shard_map, count)
    ways = Counter((shard_map.owners[move.slot], move.goal) for move in work)
    needed = {*range(count), *shard_map.shards}
    asked = [one for one in shards if one in needed or not unready(observed, (one,))]
    away = unready(observed, tuple(sorted(needed)))
    waiting = None
    if away:
        waiting = f"shards not ready: {', '.join(map(str, away))}"
    elif shard_map.version == 1:
        waiting = "the first version of the map is still in force"
    return Wish(
        count,
        tuple(asked),
        len(work),
        tuple(shard for shard in gone if shard not in observed.emptied),
        waiting,
        tuple(
            f"move {number} slots from shard {source} to shard {goal}"
            for (source, goal), number in sorted(ways.items())
        ),
    )


def _is_even(shard_map: ShardMap, count: int) -> bool:
    sizes: Counter[int] = Counter()
    for one in shard_map.ranges:
        sizes[one.shard] += one.end - one.start
    least = SLOT_COUNT // count
    return set(sizes) == set(range(count)) and set(sizes.values()) <= {least, least + 1}


def judged(wish: Wish, told: Told | None, mode: str, now_s: float) -> Rebalancing:
    """What is to be said of a wish and of how far it is."""
    if mode != "Active":
        return Rebalancing(lines=wish.lines)
    if told is not None and told.count != wish.count:
        told = None  # Of the wish before this one: whoever moves slots is being told.
    if wish.is_met and (told is None or not told.left):
        return QUIET
    waiting = wish.waiting if told is None else told.waits_for
    left = wish.left if told is None else told.left
    if told is None and wish.waiting is not None:
        return Rebalancing(
            is_moving=True,
            reason=Reason.REBALANCING_WAITS,
            message=f"{left} slots wait: {waiting}",
        )
    message = f"{left} slots are to move"
    if not left and wish.emptying:
        names = ", ".join(map(str, wish.emptying))
        message = f"shard {names} is asked whether it holds anything"
    if waiting:
        message = f"{message}; waits for {waiting}"
    problem = None if told is None else _problem(told, now_s)
    return Rebalancing(
        is_moving=True,
        reason=Reason.REBALANCING_WAITS if waiting else Reason.SLOTS_MOVING,
        message=message,
        problem=problem,
        progress=None if told is None else _progress(told),
    )


def _problem(told: Told, now_s: float) -> Problem | None:
    if told.failed:
        message = f"{told.failed}; the slot is where it was, and is tried again every minute"
        return Problem(Reason.SLOT_MOVE_FAILED, message, holds=False)
    still_s = now_s - told.moved_s
    if told.left and still_s > STUCK_S:
        why = told.waits_for or "nobody says why"
        message = f"no slot has moved for {int(still_s // 60)} minutes: {why}"
        return Problem(Reason.REBALANCING_STUCK, message, holds=False)
    return None


def _progress(told: Told) -> dict[str, int | str]:
    found: dict[str, int | str] = {
        "slotsMoved": told.moved,
        "slotsTotal": told.moved + told.left,
        "progress": f"{told.moved}/{told.moved + told.left}",
    }
    if told.slots:
        found["slotMoving"] = told.slots[0]
    if told.per_minute:
        found["slotsPerMinute"] = told.per_minute
        found["etaSeconds"] = str(math.ceil(60 * told.left / told.per_minute))
    return found
