"""Walks every state of a world, breadth first, so that a trace found is a shortest one."""

from collections import deque
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import NamedTuple, TypeVar

import msgspec

W = TypeVar("W")
encode = msgspec.msgpack.Encoder().encode


class Explored(NamedTuple):
    """What a walk has found."""

    states: int
    complete: bool
    """Whether nothing was left to visit."""
    trace: tuple[str, ...] | None
    """The shortest way to a violation."""
    violation: str


def explore(
    start: W,
    *,
    moves: Callable[[W], Iterator[tuple[str, W]]],
    check: Callable[[W], None],
    violated: type[Exception],
    states_max: int = 10**9,
) -> Explored:
    """Walk until a violation, the end, or `states_max` states."""
    decode = msgspec.msgpack.Decoder(type(start)).decode
    first = encode(start)
    came: dict[bytes, tuple[bytes, str] | None] = {key_of(first): None}
    queue = deque([first])
    while queue:
        encoded = queue.popleft()
        key, world = key_of(encoded), decode(encoded)
        try:
            for name, following in moves(world):
                encoded = encode(following)
                found = key_of(encoded)
                if found in came:
                    continue
                came[found] = (key, name)
                try:
                    check(following)
                except violated as error:
                    return Explored(len(came), False, _trace(came, found), str(error))
                queue.append(encoded)
        except violated as error:
            return Explored(len(came), False, _trace(came, key), str(error))
        if len(came) >= states_max:
            return Explored(len(came), False, None, "")
    return Explored(len(came), True, None, "")


def key_of(encoded: bytes) -> bytes:
    """Sixteen bytes that stand for a state."""
    return blake2b(encoded, digest_size=16).digest()


def _trace(came: dict[bytes, tuple[bytes, str] | None], key: bytes) -> tuple[str, ...]:
    steps: list[str] = []
    while (step := came[key]) is not None:
        key, name = step
        steps.append(name)
    return tuple(reversed(steps))
