"""Which keys a bounded cache keeps: LRU and W-TinyLFU, behind `model.policy.CachePolicy`.

LRU keeps what was used last; a single scan empties it.  W-TinyLFU (as in Caffeine; see
`frequency` for the paper) lets every new key into a small window and, when the window is
full, compares its oldest key with the one that the main part would give up first: whoever was
used more often stays.  The main part is a segmented LRU: keys are on probation until they
are used again.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from ultraengine.cache.frequency import FrequencySketch, stable_hash

K = TypeVar("K", bound=Hashable)

WINDOW_PERCENT: Final = 1
PROTECTED_PERCENT: Final = 80
"""Of the main part."""


class LruPolicy(Generic[K]):
    """Evicts the key that was used longest ago; keeps out nothing."""

    def __init__(self) -> None:
        self._order: OrderedDict[K, None] = OrderedDict()

    def on_hit(self, key: K) -> None:
        """`key` was found."""
        self._order.move_to_end(key)

    def admit(self, key: K) -> K | None:  # noqa: ARG002  (Protocol)
        """The key used longest ago, which is forgotten here."""
        evicted, _ = self._order.popitem(last=False)
        return evicted

    def on_insert(self, key: K) -> None:
        """`key` entered the cache."""
        self._order[key] = None

    def on_remove(self, key: K) -> None:
        """`key` left the cache other than by ``admit``."""
        self._order.pop(key, None)


class TinyLfuPolicy(Generic[K]):
    """Keeps what is used often, in the long run and of late."""

    def __init__(self, capacity: int, hash_of: Callable[[K], int] = stable_hash) -> None:
        """`capacity` is that of the cache, in entries; `hash_of` gives 64 stable bits."""
        if capacity < 1:
            raise ValueError(f"a cache holds at least one entry, not {capacity}")
        self._hash_of = hash_of
        self._sketch = FrequencySketch(capacity)
        self._window_max = max(1, capacity * WINDOW_PERCENT // 100)
        self._protected_max = (capacity - self._window_max) * PROTECTED_PERCENT // 100
        self._window: OrderedDict[K, None] = OrderedDict()
        self._probation: OrderedDict[K, None] = OrderedDict()
        self._protected: OrderedDict[K, None] = OrderedDict()

    def on_hit(self, key: K) -> None:
        """`key` was found."""
        self._sketch.use(self._hash_of(key))
        if key in self._window:
            self._window.move_to_end(key)
        elif key in self._protected:
            self._protected.move_to_end(key)
        elif self._protected_max:
            del self._probation[key]
            self._protected[key] = None
            if len(self._protected) > self._protected_max:
                demoted, _ = self._protected.popitem(last=False)
                self._probation[demoted] = None
        else:
            self._probation.move_to_end(key)

    def admit(self, key: K) -> K | None:  # noqa: ARG002  (the window takes every key)
        """The loser between the oldest of the window and the first to go of the main part."""
        main = self._probation or self._protected
        if len(self._window) < self._window_max and main:
            evicted, _ = main.popitem(last=False)
            return evicted
        candidate, _ = self._window.popitem(last=False)
        if not main:
            return candidate
        victim = next(iter(main))
        if self._estimate(candidate) <= self._estimate(victim):
            return candidate
        del main[victim]
        self._probation[candidate] = None
        return victim

    def on_insert(self, key: K) -> None:
        """`key` entered the cache, by the window."""
        self._sketch.use(self._hash_of(key))
        self._window[key] = None
        if len(self._window) > self._window_max:
            # Only while the cache is not full: ``admit`` has made room otherwise.
            oldest, _ = self._window.popitem(last=False)
            self._probation[oldest] = None

    def on_remove(self, key: K) -> None:
        """`key` left the cache other than by ``admit``."""
        for part in (self._window, self._probation, self._protected):
            part.pop(key, None)

    def _estimate(self, key: K) -> int:
        return self._sketch.estimate(self._hash_of(key))
