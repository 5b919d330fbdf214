"""Our caches beside `cachetools` on one trace: hit rate and cost per operation, as a table.

    .venv/bin/python benchmarks/cache.py [--operations 1000000] [--keys 100000] [--capacity 1000]

The trace: keys by a Zipf distribution (a few are asked for all the time), whose popular keys
change half way, and now and then a scan that asks for many keys once, as a report does.  All
caches see the same keys in the same order; a miss puts the key in.  No thresholds: it is not
a test.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any, NamedTuple

import cachetools

from ultraengine.cache.admission import LruPolicy, TinyLfuPolicy
from ultraengine.cache.bounded import Cache

SCAN_EVERY = 20
"""One in so many stretches of the trace is a scan."""
STRETCH = 1_000


class Contender(NamedTuple):
    """One cache, by what it can do."""

    name: str
    get: Callable[[int], Any]
    put: Callable[[int, int], Any]


def zipf(keys: int, skew: float, count: int, chance: random.Random) -> list[int]:
    """`count` keys; key n is asked for in proportion to 1 / (n + 1) ** skew."""
    weights = list(accumulate(1 / (n + 1) ** skew for n in range(keys)))
    return chance.choices(range(keys), cum_weights=weights, k=count)


def trace(keys: int, skew: float, count: int, *, scans: bool, seed: int = 1) -> list[int]:
    """Popular keys, other popular keys from half way on, and scans in between."""
    chance = random.Random(seed)
    asked = zipf(keys, skew, count, chance)
    half = count // 2
    asked[half:] = [(key + keys // 2) % keys for key in asked[half:]]
    if scans:
        fresh = keys
        for start in range(0, count - STRETCH, STRETCH * SCAN_EVERY):
            asked[start : start + STRETCH] = range(fresh, fresh + STRETCH)
            fresh += STRETCH
    return asked


def ours(name: str, policy: Any, capacity: int) -> Contender:
    """One of our caches."""
    cache: Cache[int, int] = Cache(capacity, policy)
    return Contender(name, cache.get, cache.put)


def theirs(name: str, cache: Any) -> Contender:
    """One of cachetools."""

    def put(key: int, value: int) -> None:
        cache[key] = value

    return Contender(name, cache.get, put)


def contenders(capacity: int) -> list[Contender]:
    """All, empty."""
    return [
        ours("LRU", LruPolicy(), capacity),
        ours("W-TinyLFU", TinyLfuPolicy(capacity), capacity),
        theirs("cachetools LRU", cachetools.LRUCache(capacity)),
        theirs("cachetools LFU", cachetools.LFUCache(capacity)),
    ]


def run(one: Contender, asked: Iterable[int]) -> tuple[int, float]:
    """(hits, seconds) of a trace."""
    get, put = one.get, one.put
    hits = 0
    start = time.perf_counter()
    for key in asked:
        if get(key) is None:
            put(key, 1)
        else:
            hits += 1
    return hits, time.perf_counter() - start


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--capacity", type=int, default=1_000)
    options = parser.parse_args()
    print("| trace | cache | hit rate | ns per operation |\n|---|---|--:|--:|")
    for skew in (0.7, 0.9, 1.1):
        for scans in (False, True):
            asked = trace(options.keys, skew, options.operations, scans=scans)
            named = f"Zipf {skew}{', scans' if scans else ''}"
            for one in contenders(options.capacity):
                hits, seconds = run(one, asked)
                rate, cost = hits / len(asked), seconds / len(asked) * 1e9
                print(f"| {named} | {one.name} | {rate:.3f} | {cost:,.0f} |")


if __name__ == "__main__":
    main()
