"""Walks every state of a `World`, breadth first, so that a trace found is a shortest one."""

from collections import deque
from hashlib import blake2b
from typing import NamedTuple

import msgspec
from tests.unit.replication.world import Violated, World, check, moves

_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(World).decode
_FAULTS = ("crashes", "loses its disk", "goes back")


class Explored(NamedTuple):
    """What a walk has found."""

    states: int
    complete: bool
    """Whether nothing was left to visit."""
    trace: tuple[str, ...] | None
    """The shortest way to a violation."""
    violation: str


def explore(start: World, *, states_max: int = 10**9) -> Explored:
    """Walk until a violation, the end, or `states_max` states."""
    first = _ENCODE(start)
    came: dict[bytes, tuple[bytes, str] | None] = {_key(first): None}
    queue = deque([first])
    while queue:
        encoded = queue.popleft()
        key, world = _key(encoded), _DECODE(encoded)
        try:
            for name, following in moves(world):
                encoded = _ENCODE(following)
                found = _key(encoded)
                if found in came:
                    continue
                came[found] = (key, name)
                try:
                    check(following)
                except Violated as error:
                    return Explored(len(came), False, _trace(came, found), str(error))
                queue.append(encoded)
        except Violated as error:
            return Explored(len(came), False, _trace(came, key), str(error))
        if len(came) >= states_max:
            return Explored(len(came), False, None, "")
    return Explored(len(came), True, None, "")


def _key(encoded: bytes) -> bytes:
    """Sixteen bytes that stand for a state."""
    return blake2b(encoded, digest_size=16).digest()


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
    seen, stack = {_key(_ENCODE(start))}, [start]
    while stack and len(seen) < states_max:
        for _, following in _healing(stack.pop()):
            if len(following.acknowledged) > told:
                return True
            found = _key(_ENCODE(following))
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


def _trace(came: dict[bytes, tuple[bytes, str] | None], key: bytes) -> tuple[str, ...]:
    steps: list[str] = []
    while (step := came[key]) is not None:
        key, name = step
        steps.append(name)
    return tuple(reversed(steps))


def walk(world: World, *names: str) -> World:
    """The world after the moves with these names, each the first of its name that there is."""
    for name in names:
        possible = list(moves(world))
        world = next((following for found, following in possible if found == name), world)
        if name not in {found for found, _ in possible}:
            raise AssertionError(f"{name!r} is not among {[found for found, _ in possible]}")
        check(world)
    return world
