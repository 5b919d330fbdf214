"""Walks every state of a `World`, and looks for ways back to work after a loss."""

import msgspec
from tests.unit import exploring
from tests.unit.exploring import Explored, encode, key_of
from tests.unit.replication.tidying import tidy_moves
from tests.unit.replication.world import Violated, World, check, moves

_FAULTS = ("crashes", "loses its disk", "goes back")


def explore(start: World, *, states_max: int = 10**9, tidy: bool = True) -> Explored:
    """Walk until a violation, the end, or `states_max` states, which are tidied or whole."""
    steps = tidy_moves if tidy else moves
    return exploring.explore(
        start, moves=steps, check=check, violated=Violated, states_max=states_max
    )


def can_commit(world: World, away: int, *, states_max: int = 20_000) -> bool:
    """Whether the others still acknowledge a command when one replica is lost for good.

    Nothing else fails from here on: what is searched is a way of the protocol's own moves.
    """
    told = len(world.acknowledged)
    budget = msgspec.structs.replace(
        world.budget,
        commands=1, epochs=int(world.api.epoch) + 2, crashes=0, wipes=0, rollbacks=0, changes=3,
    )  # fmt: skip
    start = world.with_(away=away, budget=budget)
    seen, stack = {key_of(encode(start))}, [start]
    while stack and len(seen) < states_max:
        for _, following in _healing(stack.pop()):
            if len(following.acknowledged) > told:
                return True
            found = key_of(encode(following))
            if found not in seen:
                seen.add(found)
                stack.append(following)
    return False


def _healing(world: World) -> list[tuple[str, World]]:
    """The moves that are no faults; of copies, those of most."""
    found: dict[str, tuple[str, World]] = {}
    for name, following in moves(world):
        if not any(fault in name for fault in _FAULTS):
            found[name.partition(" copies ")[0] if " copies " in name else name] = (name, following)
    return list(found.values())


def walk(world: World, *names: str) -> World:
    """The world after the moves with these names, each the first of its name that there is."""
    for name in names:
        possible = list(moves(world))
        world = next((following for found, following in possible if found == name), world)
        if name not in {found for found, _ in possible}:
            raise AssertionError(f"{name!r} is not among {[found for found, _ in possible]}")
        check(world)
    return world
