"""Every slot has one shard, in every map that is accepted."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.model.ids import SLOT_COUNT, ShardId, slot_of
from ultraengine.router.shard_map import MapRefused, ShardMap, SlotRange


@given(st.integers(1, 300))
def test_an_even_map_gives_every_slot_to_one_shard_and_no_shard_two_more_than_another(
    count: int,
) -> None:
    shard_map = ShardMap.even(count)
    assert len(shard_map.owners) == SLOT_COUNT
    assert shard_map.shards == tuple(range(count))
    sizes = [sum(end - start for start, end in shard_map.slots_of(s)) for s in shard_map.shards]
    assert sum(sizes) == SLOT_COUNT
    assert max(sizes) - min(sizes) <= 1


@given(st.text(max_size=20), st.text(max_size=20), st.integers(1, 9))
def test_a_key_is_where_its_slot_is(tenant: str, key: str, count: int) -> None:
    shard_map = ShardMap.even(count, version=4)
    shard = shard_map.shard_of(tenant, key)
    slot = slot_of(tenant, key)
    assert [start <= slot < end for start, end in shard_map.slots_of(shard)] == [True]


def test_a_map_comes_back_from_its_json_which_is_documented() -> None:
    shard_map = ShardMap.even(2, version=3)
    assert shard_map.encode() == b'{"version":3,"ranges":[[0,2048,0],[2048,4096,1]]}'
    assert ShardMap.decode(shard_map.encode()) == shard_map


def test_a_shard_may_own_several_ranges() -> None:
    content = b'{"version":9,"ranges":[[0,10,1],[10,20,0],[20,4096,1]]}'
    shard_map = ShardMap.decode(content)
    assert shard_map.slots_of(ShardId(1)) == ((0, 10), (20, SLOT_COUNT))
    assert shard_map.shards == (0, 1)
    assert (shard_map.owners[9], shard_map.owners[10], shard_map.owners[20]) == (1, 0, 1)


@pytest.mark.parametrize("count", [0, -1, SLOT_COUNT + 1])
def test_there_are_as_many_shards_as_there_can_be(count: int) -> None:
    with pytest.raises(MapRefused):
        ShardMap.even(count)


@pytest.mark.parametrize(
    "ranges",
    [
        [],
        [[0, 4095, 0]],
        [[0, 4097, 0]],
        [[0, 10, 0], [11, 4096, 1]],
        [[0, 10, 0], [9, 4096, 1]],
        [[0, 0, 0], [0, 4096, 1]],
        [[5, 4096, 0]],
        [[0, 4096, -1]],
    ],
)
def test_a_map_with_a_slot_of_no_shard_or_of_two_is_refused(ranges: list[list[int]]) -> None:
    with pytest.raises(MapRefused):
        ShardMap.decode(msgspec.json.encode({"version": 1, "ranges": ranges}))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"version":0,"ranges":[[0,4096,0]]}', b'{"version":1}', b"{}"]
)
def test_bytes_that_are_no_map_are_refused(content: bytes) -> None:
    with pytest.raises(MapRefused):
        ShardMap.decode(content)


def test_a_range_is_small_on_the_wire() -> None:
    assert msgspec.json.encode(SlotRange(0, 1, ShardId(2))) == b"[0,1,2]"


@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(0, SLOT_COUNT - 1), st.integers(0, 12)), max_size=12),
)
def test_moving_a_slot_changes_its_shard_and_no_other_one(
    count: int, changes: list[tuple[int, int]]
) -> None:
    shard_map = ShardMap.even(count)
    owners, version = list(shard_map.owners), shard_map.version
    for slot, shard in changes:
        shard_map = shard_map.moved(slot, ShardId(shard))
        owners[slot], version = ShardId(shard), version + 1
    assert ShardMap.decode(shard_map.encode()) == shard_map
    assert list(shard_map.owners) == owners
    assert shard_map.version == version


def test_a_map_has_as_few_ranges_as_can_be() -> None:
    shard_map = ShardMap.even(2)
    there = shard_map.moved(2047, ShardId(1))
    assert there.ranges == (SlotRange(0, 2047, ShardId(0)), SlotRange(2047, 4096, ShardId(1)))
    assert there.moved(2047, ShardId(0)).ranges == shard_map.ranges
