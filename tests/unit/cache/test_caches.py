"""Caches of the read side: bounded, deterministic, never stale, better than a coin."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultraengine.cache.admission import LruPolicy, TinyLfuPolicy
from ultraengine.cache.bounded import Cache, CacheStats
from ultraengine.cache.frequency import COUNT_MAX, FrequencySketch, stable_hash
from ultraengine.cache.lookups import LookupCache
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.policy import CachePolicy
from ultraengine.testing.policies import CacheContract


class TestLru(CacheContract):
    def make(self, capacity: int) -> CachePolicy[str]:
        del capacity
        return LruPolicy()


class TestTinyLfu(CacheContract):
    def make(self, capacity: int) -> CachePolicy[str]:
        return TinyLfuPolicy(capacity)


class KeepFirst:
    """A user's own: what came first stays, until it is removed."""

    def on_hit(self, key: str) -> None:
        del key

    def admit(self, key: str) -> str | None:
        del key
        return None

    def on_insert(self, key: str) -> None:
        del key

    def on_remove(self, key: str) -> None:
        del key


class TestKeepFirst(CacheContract):
    def make(self, capacity: int) -> CachePolicy[str]:
        del capacity
        return KeepFirst()


class EvictsStrangers(KeepFirst):
    def admit(self, key: str) -> str | None:
        return key + "?"


def hit_rate(policy: CachePolicy[int], capacity: int, keys: Sequence[int]) -> float:
    cache: Cache[int, int] = Cache(capacity, policy)
    for key in keys:
        if cache.get(key) is None:
            cache.put(key, key + 1)
    return cache.stats().hit_rate


def test_frequency_keeps_hot_keys_through_a_scan() -> None:
    source = random.Random(1)
    keys = [key for n in range(6_000) for key in (source.randrange(90), 10**6 + n)]
    lfu = hit_rate(TinyLfuPolicy(100), 100, keys)
    lru = hit_rate(LruPolicy(), 100, keys)
    assert lfu > 0.42
    assert lfu > lru * 1.2


def test_frequency_is_not_worse_than_recency_where_recency_is_all() -> None:
    keys = [number // 4 for number in range(8_000)]
    assert hit_rate(TinyLfuPolicy(50), 50, keys) >= 0.74
    assert hit_rate(LruPolicy(), 50, keys) == pytest.approx(0.75)


def test_hot_keys_may_change() -> None:
    source = random.Random(3)
    before = [source.randrange(40) for _ in range(5_000)]
    after = [1_000 + source.randrange(40) for _ in range(5_000)]
    cache: Cache[int, int] = Cache(50, TinyLfuPolicy(50))
    hits = 0
    for number, key in enumerate(before + after):
        if cache.get(key) is None:
            cache.put(key, 1)
        elif number > 7_500:
            hits += 1
    assert hits > 2_400


def test_lru_evicts_what_was_used_longest_ago() -> None:
    cache: Cache[str, int] = Cache(2, LruPolicy())
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)


def test_a_cache_of_frequent_keys_works_at_every_small_size() -> None:
    for capacity in range(1, 12):
        cache: Cache[int, int] = Cache(capacity, TinyLfuPolicy(capacity))
        source = random.Random(capacity)
        for _ in range(3_000):
            key = source.randrange(2 * capacity)
            if source.random() < 0.1:
                cache.remove(key)
            elif cache.get(key) is None:
                cache.put(key, 1)
            assert len(cache) <= capacity
        assert cache.stats().hits > 0


def test_removals_from_the_window_make_room_from_the_main_part() -> None:
    policy: TinyLfuPolicy[int] = TinyLfuPolicy(3)
    cache: Cache[int, int] = Cache(3, policy)
    for key in (1, 2, 3):
        cache.put(key, 1)
    assert list(policy._window) == [3]
    cache.remove(3)
    policy.on_insert(9)
    policy.on_remove(9)
    assert policy.admit(4) == 1


def test_counters_say_what_happened() -> None:
    cache: Cache[str, int] = Cache(1, KeepFirst())
    assert cache.stats().hit_rate == 0.0
    assert cache.put("a", 1)
    assert not cache.put("b", 2)
    assert cache.put("a", 5)
    assert (cache.get("a"), cache.get("b")) == (5, None)
    assert cache.stats() == CacheStats(entries=1, hits=1, misses=1, evictions=0, refused=1)
    assert cache.stats().hit_rate == 0.5
    cache.remove("never there")
    cache.clear()
    assert len(cache) == 0
    lru: Cache[str, int] = Cache(1, LruPolicy())
    lru.put("a", 1)
    lru.put("b", 1)
    assert lru.stats().evictions == 1


def test_a_policy_that_evicts_a_stranger_is_found_out() -> None:
    cache: Cache[str, int] = Cache(1, EvictsStrangers())
    cache.put("a", 1)
    with pytest.raises(InvariantBroken, match=r"b\?"):
        cache.put("b", 2)


def test_a_cache_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Cache(0, LruPolicy[str]())
    with pytest.raises(ValueError, match="at least one"):
        TinyLfuPolicy[str](0)


def test_hashes_are_the_same_in_every_process() -> None:
    assert stable_hash("a") == 0xBAE4C337B5E78D68
    assert stable_hash(("t", "k")) != stable_hash(("tk", ""))


def test_the_sketch_is_never_too_low_until_it_ages() -> None:
    sketch = FrequencySketch(100)
    source = random.Random(4)
    counts: dict[int, int] = {}
    for _ in range(900):
        key = stable_hash(source.randrange(60))
        counts[key] = counts.get(key, 0) + 1
        sketch.use(key)
    assert all(sketch.estimate(key) >= min(count, COUNT_MAX) for key, count in counts.items())
    assert sum(sketch.estimate(stable_hash(n)) > 0 for n in range(1_000, 2_000)) < 300


def test_the_sketch_forgets_with_age() -> None:
    sketch = FrequencySketch(10)
    old = stable_hash("old")
    for _ in range(8):
        sketch.use(old)
    before = sketch.estimate(old)
    for number in range(92):
        sketch.use(stable_hash(number))
    assert sketch.estimate(old) <= before // 2 + 1


def test_an_answer_is_good_until_its_source_changes() -> None:
    cache: LookupCache[str, int] = LookupCache(10, LruPolicy())
    cache.changed(("t", "a"), 5)
    cache.put("sum", 7, end=6, sources=[("t", "a"), ("t", "b")])
    assert cache.get("sum") == (7, 6)
    cache.changed(("t", "c"), 8)
    assert cache.get("sum") == (7, 6)
    cache.changed(("t", "b"), 9)
    assert cache.get("sum") is None
    assert cache.stale == 1
    assert cache.stats().entries == 0
    assert cache.get("other") is None


def test_an_answer_that_was_old_when_it_was_kept_is_not_given() -> None:
    cache: LookupCache[str, int] = LookupCache(10, LruPolicy())
    cache.changed("a", 5)
    cache.put("late", 1, end=5, sources=["a"])
    assert cache.get("late") is None


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["change", "ask"]), st.integers(0, 5), st.integers(0, 5)),
        max_size=60,
    )
)
def test_no_answer_is_ever_stale(steps: list[tuple[str, int, int]]) -> None:
    # A table of four places, so that sources share places all the time.
    cache: LookupCache[tuple[int, int], int] = LookupCache(4, TinyLfuPolicy(4), places_log2=2)
    values = dict.fromkeys(range(6), 0)
    for offset, (verb, one, other) in enumerate(steps):
        if verb == "change":
            values[one] += 1
            cache.changed(one, offset)
            continue
        found = cache.get((one, other))
        if found is None:
            value = values[one] * 1_000 + values[other] + 1
            cache.put((one, other), value, end=offset, sources=[one, other])
        else:
            assert found[0] == values[one] * 1_000 + values[other] + 1
