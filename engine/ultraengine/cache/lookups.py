"""Answers of look-ups, kept until a command changes what they came from.

An answer is kept with the offset it was computed at and the *sources* it depends on (such as
(tenant, partition key)).  ``changed`` notes the newest offset per source in a fixed table
indexed by hash; an answer is good while no source of it has changed since.  So invalidation
costs the same however many answers there are, and two sources that share a place in the table
cost a needless recomputation, never a stale answer.
"""

from array import array
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

from ultraengine.cache.bounded import Cache, CacheStats
from ultraengine.cache.frequency import stable_hash
from ultraengine.model.policy import CachePolicy

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LookupCache(Generic[K, V]):
    """A `Cache` whose values expire by offset.  Belongs to one thread."""

    def __init__(self, capacity: int, policy: CachePolicy[K], *, places_log2: int = 16) -> None:
        """The table of sources has ``2**places_log2`` places of 8 bytes."""
        self._cache: Cache[K, tuple[V, int, tuple[int, ...]]] = Cache(capacity, policy)
        self._ends: array[int] = array("Q", bytes(8 << places_log2))
        """Per place: end (newest offset + 1) of the commands that changed a source there."""
        self._mask = (1 << places_log2) - 1
        self._stale = 0

    @property
    def stale(self) -> int:
        """Look-ups that found an answer which had been overtaken; counted as hits below too."""
        return self._stale

    def changed(self, source: object, offset: int) -> None:
        """The command at `offset` changed `source`.  Offsets never go back."""
        self._ends[stable_hash(source) & self._mask] = offset + 1

    def put(self, key: K, value: V, *, end: int, sources: Sequence[object]) -> bool:
        """Keep an answer that reflects all commands below `end`; whether it was let in."""
        places = tuple(stable_hash(source) & self._mask for source in sources)
        return self._cache.put(key, (value, end, places))

    def get(self, key: K) -> tuple[V, int] | None:
        """(value, end) of an answer that no later command has changed, or None."""
        found = self._cache.get(key)
        if found is None:
            return None
        value, end, places = found
        ends = self._ends
        for place in places:
            if ends[place] > end:
                self._stale += 1
                self._cache.remove(key)
                return None
        return value, end

    def stats(self) -> CacheStats:
        """Counters of the cache underneath."""
        return self._cache.stats()
