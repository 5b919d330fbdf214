"""Answers that are kept, and when one may be given again.

Two caches, both bounded, both with an admission policy that a scan does not empty:

* The **hot** one keeps single rows and computed answers.  One is given again only while the
  newest position that this process has seen is the very one that it was read at, and that was
  looked at less than `fresh_s` ago.
* The **settled** one keeps master data: rows declared never to change (`Read.settled`).  One is
  given however far the tables have come since, while the same set of tables serves, and that was
  looked at less than `settled_s` ago.

An answer keeps the label of the moment it was read at: it is never given with a newer one, and
it answers ``min_offset`` only when that moment does.
"""

from typing import Any, Final

import msgspec

from ultraengine.cache.admission import TinyLfuPolicy
from ultraengine.cache.bounded import Cache, CacheStats
from ultraengine.cache.lookups import LookupCache
from ultraengine.model.reads import Read
from ultraengine.query.plan import Asked
from ultraengine.query.sql import Moment

HOT_ENTRIES: Final = 20_000
SETTLED_ENTRIES: Final = 50_000
FRESH_S: Final = 0.25
SETTLED_S: Final = 60.0
ROWS_MAX: Final = 1_000
"""Answers made of more rows are not kept."""

Key = tuple[Any, ...]


class Kept(msgspec.Struct, frozen=True):
    """An answer and the moment that it shows."""

    value: Any
    moment: Moment
    rows: int


class _Seen(msgspec.Struct, frozen=True):
    """The newest moment of a projection that this process knows, and when it looked."""

    moment: Moment
    at: float


class AnswerCache:
    """Belongs to one thread.  Times are seconds of a monotonic clock."""

    def __init__(
        self,
        *,
        hot_entries: int = HOT_ENTRIES,
        settled_entries: int = SETTLED_ENTRIES,
        fresh_s: float = FRESH_S,
        settled_s: float = SETTLED_S,
    ) -> None:
        self._fresh_s = fresh_s
        self._settled_s = settled_s
        self._hot: Cache[Key, Kept] = Cache(hot_entries, TinyLfuPolicy(hot_entries))
        self._settled: LookupCache[Key, Kept] = LookupCache(
            settled_entries, TinyLfuPolicy(settled_entries)
        )
        self._seen: dict[str, _Seen] = {}

    def saw(self, projection: str, moment: Moment, now: float) -> None:
        """A database has shown this moment.  One that is behind what is known says nothing."""
        known = self._seen.get(projection)
        if known is not None:
            if moment.build < known.moment.build:
                return
            if moment.build > known.moment.build:
                # Answers of the set that served before end with it.
                self._settled.changed(projection, moment.build - 1)
            elif not moment.position.covers(known.moment.position):
                return
        self._seen[projection] = _Seen(moment, now)

    def newest(self, projection: str) -> Moment | None:
        """The newest moment that is known; None before the first."""
        seen = self._seen.get(projection)
        return None if seen is None else seen.moment

    def get(self, asked: Asked, now: float) -> Kept | None:
        """An answer that may be given now, or None."""
        projection = asked.route.projection.name
        seen = self._seen.get(projection)
        if seen is None:
            return None
        age = now - seen.at
        if is_settled(asked):
            found = self._settled.get(asked.key) if age <= self._settled_s else None
            kept = None if found is None else found[0]
        elif is_hot(asked):
            kept = self._hot.get(asked.key) if age <= self._fresh_s else None
            if kept is not None and not _same(kept.moment, seen.moment):
                self._hot.remove(asked.key)
                kept = None
        else:
            return None
        if kept is None or not asked.wanted.reached(kept.moment.position):
            return None
        return kept

    def put(self, asked: Asked, kept: Kept) -> None:
        """Keep an answer, if it is of a kind that is kept and the policy lets it in."""
        if kept.rows > ROWS_MAX:
            return
        if is_settled(asked):
            projection = asked.route.projection.name
            self._settled.put(asked.key, kept, end=kept.moment.build, sources=(projection,))
        elif is_hot(asked):
            self._hot.put(asked.key, kept)

    def stats(self) -> dict[str, CacheStats]:
        """Counters by cache."""
        return {"hot": self._hot.stats(), "settled": self._settled.stats()}


def is_settled(asked: Asked) -> bool:
    """Whether the answer is master data."""
    read = asked.route.read
    return isinstance(read, Read) and read.settled


def is_hot(asked: Asked) -> bool:
    """Whether the answer is one row or a computed one; pages of lists are not kept."""
    read = asked.route.read
    return not isinstance(read, Read) or read.one


def _same(one: Moment, other: Moment) -> bool:
    return one.build == other.build and one.position == other.position
