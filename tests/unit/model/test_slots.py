"""Slots are part of the format, and names that people give are spread like random ones (ADR 17)."""

import zlib
from collections import Counter
from collections.abc import Callable
from statistics import mean

import pytest

from ultraengine.model.ids import SLOT_COUNT, slot_of

NAMES = ("book-{}", "book-{:03}", "customer-{:06}", "{}", "account:{}:eur", "order-{}-x", "user{}")
TENANTS = ("default", "t", "acme")
STARTS = (0, 1, 100, 12_345)


@pytest.mark.parametrize(
    ("tenant", "key", "slot"),
    [
        ("", "", 328),
        ("default", "book-0", 3918),
        ("default", "book-1", 2403),
        ("default", "cdnow", 3257),
        ("acme", "Zürich", 1938),
    ],
)
def test_slots_never_change(tenant: str, key: str, slot: int) -> None:
    assert slot_of(tenant, key) == slot


def unevenness(slot: Callable[[str, str], int], keys: int, shards: int) -> float:
    """Chi-square per degree of freedom over equal ranges of slots; random choice gives 1."""
    found = []
    for tenant in TENANTS:
        for name in NAMES:
            for start in STARTS:
                counts = Counter(
                    slot(tenant, name.format(n)) * shards // SLOT_COUNT
                    for n in range(start, start + keys)
                )
                expected = keys / shards
                square = sum((counts[s] - expected) ** 2 / expected for s in range(shards))
                found.append(square / (shards - 1))
    return mean(found)


@pytest.mark.parametrize(("keys", "shards"), [(8, 2), (64, 2), (64, 4), (1_000, 8)])
def test_numbered_names_are_spread_over_shards_as_by_chance(keys: int, shards: int) -> None:
    assert 0.5 < unevenness(slot_of, keys, shards) < 1.5


def test_the_checksum_alone_would_put_numbered_names_together() -> None:
    def bare(tenant: str, key: str) -> int:
        return zlib.crc32(f"{tenant}\0{key}".encode()) % SLOT_COUNT

    assert unevenness(bare, 64, 2) > 5
