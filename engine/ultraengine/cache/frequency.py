"""How often a key was used lately, in about eight bytes per cached key.

TinyLFU (Einziger, Friedman, Manes: "TinyLFU: A Highly Efficient Cache Admission Policy", ACM
ToS 2017): a count-min sketch of small saturating counters, a Bloom filter before it (the
doorkeeper) that takes the first use of a key, so that keys used once cost no counter, and
ageing: after `SAMPLES_PER_KEY` uses per cached key all counters are halved.

Deterministic: hashes are xxh3 of the key's msgpack encoding, never ``hash()``.
"""

from typing import Final

import msgspec
import xxhash

ROWS: Final = 4
SAMPLES_PER_KEY: Final = 10
COUNT_MAX: Final = 15

_HALVED: Final = bytes(count >> 1 for count in range(256))
_encode: Final = msgspec.msgpack.Encoder().encode


def stable_hash(key: object) -> int:
    """64 bits that are the same in every process.  Keys: what msgpack can encode."""
    return xxhash.xxh3_64_intdigest(_encode(key))


class FrequencySketch:
    """Estimates uses per key; never too low but for ageing and `COUNT_MAX`."""

    __slots__ = ("_door", "_mask", "_rows", "_sample", "_sample_max")

    def __init__(self, capacity: int) -> None:
        """`capacity`: number of keys that the cache may hold."""
        width = 1 << max(4, (2 * capacity - 1).bit_length())
        self._mask = width - 1
        self._rows = [bytearray(width) for _ in range(ROWS)]
        self._door = bytearray(width)
        self._sample = 0
        self._sample_max = max(1, capacity) * SAMPLES_PER_KEY

    # Unrolled: this runs with every look-up, and loops over four rows cost three times as much.

    def use(self, hashed: int) -> None:
        """Count one use of the key with this hash."""
        # One place per row: double hashing with an odd step (Kirsch and Mitzenmacher 2006).
        mask, step = self._mask, hashed >> 32 | 1
        a = hashed & mask
        b = hashed + step & mask
        c = hashed + 2 * step & mask
        d = hashed + 3 * step & mask
        door = self._door
        # The doorkeeper: a byte per place instead of a bit, so that ageing is one call.
        if not (door[a] and door[b] and door[c] and door[d]):
            door[a] = door[b] = door[c] = door[d] = 1
        else:
            first, second, third, fourth = self._rows
            one, two, three, four = first[a], second[b], third[c], fourth[d]
            least = min(one, two, three, four)
            if least < COUNT_MAX:
                # Raising only the lowest counters ("conservative update") errs less.
                more = least + 1
                if one == least:
                    first[a] = more
                if two == least:
                    second[b] = more
                if three == least:
                    third[c] = more
                if four == least:
                    fourth[d] = more
        self._sample += 1
        if self._sample >= self._sample_max:
            self._age()

    def estimate(self, hashed: int) -> int:
        """Uses counted since they last aged, 0 to `COUNT_MAX` + 1."""
        mask, step = self._mask, hashed >> 32 | 1
        a = hashed & mask
        b = hashed + step & mask
        c = hashed + 2 * step & mask
        d = hashed + 3 * step & mask
        door = self._door
        first, second, third, fourth = self._rows
        known = 1 if door[a] and door[b] and door[c] and door[d] else 0
        return min(first[a], second[b], third[c], fourth[d]) + known

    def _age(self) -> None:
        self._rows = [row.translate(_HALVED) for row in self._rows]
        self._door = bytearray(len(self._door))
        self._sample //= 2
