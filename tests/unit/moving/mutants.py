"""The clauses of moving a slot, each switched off by a patch that only tests know.

Where two places prevent the same thing, both are switched off.  `docs/slot-moves.md` holds the
table with the traces that are found.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.unit.exploring import Explored, explore
from tests.unit.moving import world as worlds
from tests.unit.moving.world import Budget, Held, Violated, World, check, first, moves

from ultraengine.moving import plan, record
from ultraengine.moving.record import Attempt, SlotRecord, State

STATES_MAX = 60_000


class Mutant(NamedTuple):
    """One clause switched off."""

    clause: str
    patches: tuple[tuple[Any, Any, Any], ...]
    """(module or table, name or key, broken)."""
    budget: Budget = Budget()
    shards: int = 2


def by_the_map(world: World, number: int) -> bool:
    return record.serves(world.shards[number].record) or (
        world.mapped == number and world.shards[number].record.state is State.SEALED
    )


def told_before_synced(before: SlotRecord, after: SlotRecord) -> SlotRecord:
    return before if after.state is State.SEALED else after


def keeps_waiting(waiting: tuple[int, ...]) -> tuple[int, ...]:
    return waiting


def without_ids(staged: Held) -> Held:
    return Held(staged.applied, ())


def always(*_: Any) -> bool:
    return True


def serves_copies(one: SlotRecord) -> bool:
    return one.state in {State.OWNED, State.EXPORTING, State.STAGED}


def serves_sealed(one: SlotRecord) -> bool:
    return one.state in {State.OWNED, State.EXPORTING, State.SEALED}


def forgets(one: SlotRecord, message: Any, _digest: bytes) -> SlotRecord:
    return SlotRecord(state=State.ABSENT, attempt=Attempt(message.attempt.era, 0))


def tells_and_forgets(one: SlotRecord) -> Attempt | None:
    held = {State.OWNED, State.EXPORTING, State.SEALED, State.STAGED}
    return None if one.state in held else Attempt(one.era, 9)


TWICE = Budget(attempts=2)
FOOLISH = Budget(planned=False)
MUTANTS = [
    Mutant("1 a shard's own record decides", ((worlds, "takes", by_the_map),)),
    Mutant("1 a copy serves nothing", ((record, "serves", serves_copies),)),
    Mutant("1 a sealed slot is not served", ((record, "serves", serves_sealed),)),
    Mutant("2 durable before it is told", ((worlds, "synced", told_before_synced),)),
    Mutant("3 what waits behind the seal is refused", ((worlds, "still_waits", keeps_waiting),)),
    Mutant("4 ids move with the slot", ((worlds, "image", without_ids),)),
    Mutant("4 the copy is the sealed image",
           ((record, "is_image", always), (plan, "is_image", always))),
    Mutant("5 messages name their attempt", ((record, "is_same", always),), TWICE),
    Mutant("6 reopened after a refusal for ever",
           ((record, "proves_refusal", always),), FOOLISH),
    Mutant("6 refused by the destination", ((record, "is_peer", always),), FOOLISH, 3),
    Mutant("6 a refusal is not forgotten",
           ((record.NEXT, (State.STAGED, record.Cancel), forgets),
            (plan, "fence", tells_and_forgets))),
    Mutant("6 what was refused is not staged again", ((record, "is_newer", always),)),
    Mutant("7 dropped after a successor owns",
           ((record, "proves_successor", always), (plan, "proves_successor", always))),
    Mutant("8 the map was read first", ((worlds, "swaps_onto", lambda world: world.past),)),
]  # fmt: skip


def _get(place: Any, name: Any) -> Any:
    return place[name] if isinstance(place, dict) else getattr(place, name)


def _set(place: Any, name: Any, value: Any) -> None:
    if isinstance(place, dict):
        place[name] = value
    else:
        setattr(place, name, value)


@contextmanager
def switched_off(mutant: Mutant) -> Iterator[None]:
    """While a clause is off."""
    saved = [(place, name, _get(place, name)) for place, name, _ in mutant.patches]
    worlds.forget_plans()
    try:
        for place, name, broken in mutant.patches:
            _set(place, name, broken)
        yield
    finally:
        for place, name, whole in saved:
            _set(place, name, whole)
        worlds.forget_plans()


def find(mutant: Mutant) -> Explored:
    """What the explorer finds while a clause is off."""
    with switched_off(mutant):
        return explore(
            first(mutant.budget, mutant.shards),
            moves=moves,
            check=check,
            violated=Violated,
            states_max=STATES_MAX,
        )
