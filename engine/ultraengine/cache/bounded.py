"""A cache of at most so many entries, with a replaceable policy and honest counters.

Serves the read side, never correctness: whoever asks can do without the answer.  Belongs to
one thread.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.policy import CachePolicy

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class CacheStats(msgspec.Struct, frozen=True):
    """Counts since the cache was made."""

    entries: int
    hits: int
    misses: int
    evictions: int
    refused: int
    """Values that the policy kept out."""

    @property
    def hit_rate(self) -> float:
        """Hits per look-up, 0 to 1; 0 before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


class Cache(Generic[K, V]):
    """Values by key.  None is no value: it stands for "not there"."""

    def __init__(self, capacity: int, policy: CachePolicy[K]) -> None:
        if capacity < 1:
            raise ValueError(f"a cache holds at least one entry, not {capacity}")
        self.capacity = capacity
        self._policy = policy
        self._values: dict[K, V] = {}
        self._hits = 0
        self._misses = 0
        self._evictions = 0
        self._refused = 0

    def __len__(self) -> int:
        """Number of entries."""
        return len(self._values)

    def get(self, key: K) -> V | None:
        """The value, or None; counts as a use."""
        value = self._values.get(key)
        if value is None:
            self._misses += 1
        else:
            self._hits += 1
            self._policy.on_hit(key)
        return value

    def put(self, key: K, value: V) -> bool:
        """Keep a value, if the policy lets it in; whether it did.

        Raises `InvariantBroken` when the policy evicts a key that is not there.
        """
        if key in self._values:
            self._values[key] = value
            return True
        if len(self._values) >= self.capacity:
            evicted = self._policy.admit(key)
            if evicted is None:
                self._refused += 1
                return False
            if evicted not in self._values:
                raise InvariantBroken("a cache policy evicts what is cached", key=evicted)
            del self._values[evicted]
            self._evictions += 1
        self._values[key] = value
        self._policy.on_insert(key)
        return True

    def remove(self, key: K) -> None:
        """Drop a key, if it is there."""
        if self._values.pop(key, None) is not None:
            self._policy.on_remove(key)

    def clear(self) -> None:
        """Drop everything; the counters stay."""
        for key in list(self._values):
            self.remove(key)

    def stats(self) -> CacheStats:
        """The counters of this moment."""
        return CacheStats(
            entries=len(self._values),
            hits=self._hits,
            misses=self._misses,
            evictions=self._evictions,
            refused=self._refused,
        )
