"""Walks every state of a world, breadth first, so that a trace found is a shortest one."""

import argparse
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
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


def campaign(
    about: str | None,
    walks: Mapping[str, Callable[[int], Explored]],
    mutants: Callable[[], Iterable[str]],
    *,
    states_max: int,
) -> None:
    """The command line of larger walks: walk those named, or all, and print a row for each.

    A walk gets the number of states that it may see.  `mutants` gives the rows of the table of
    switched-off clauses.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--walk", action="append", choices=sorted(walks))
    parser.add_argument("--states-max", type=int, default=states_max)
    parser.add_argument("--mutants", action="store_true", help="the table of switched-off clauses")
    options = parser.parse_args()
    if options.mutants:
        for row in mutants():
            print(row, flush=True)
        return
    for name in options.walk or walks:
        began = time.process_time()
        found = walks[name](options.states_max)
        spent = time.process_time() - began
        verdict = found.violation or ("all" if found.complete else "as many as allowed")
        print(f"{name} | {found.states} | {verdict} | {spent:.0f} s", flush=True)
        if found.trace:
            raise SystemExit("\n".join(found.trace))
