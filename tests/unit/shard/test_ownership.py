"""A shard refuses the keys of other shards, whatever a map told the caller."""

import struct
from pathlib import Path

import google_crc32c
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.shard.test_shard import Rig, code_of

from ultraengine.log.damage import LogRefused
from ultraengine.log.retention import TimeRetention
from ultraengine.model.errors import EngineError, InvariantBroken
from ultraengine.model.ids import SLOT_COUNT, ShardId, slot_of
from ultraengine.shard.ownership import (
    PATH,
    Ownership,
    decode_ownership,
    encode_ownership,
    read_ownership,
    write_ownership,
)
from ultraengine.testing.feed_sources import StoredFeed
from ultraengine.testing.sim_objects import SimObjectStore
from ultraengine_adapters.local.disk import LocalDisk


def ownership(*slots: tuple[int, int], shard: int = 0) -> Ownership:
    return Ownership(
        engine_uid=b"u" * 16, shard=ShardId(shard), shard_count=2, map_version=3, slots=slots
    )


def around(key: str) -> tuple[tuple[int, int], ...]:
    """Every slot but that of a key of the tenant "t"."""
    slot = slot_of("t", key)
    return tuple(pair for pair in ((0, slot), (slot + 1, SLOT_COUNT)) if pair[0] < pair[1])


async def test_a_key_of_another_shard_is_refused_by_commands_reads_and_outcomes(
    tmp_path: Path,
) -> None:
    write_ownership(LocalDisk(tmp_path), ownership(*around("k")))
    rig = Rig(tmp_path)
    shard = await rig.start()
    wrong, right = await rig.send(rig.admit("a"), rig.admit("b", key="own"))
    assert (code_of(wrong), wrong.outcome, wrong.offset) == ("WRONG_SHARD", "refused", None)
    assert wrong.error is not None
    assert wrong.error.shard_map_version == 3
    assert right.outcome == "accepted"
    assert await rig.value("own") == 1
    with pytest.raises(EngineError) as read:
        await rig.value("k")
    with pytest.raises(EngineError) as asked:
        await shard.outcome("t", "k", "a")
    assert [error.value.code for error in (read, asked)] == ["WRONG_SHARD"] * 2
    assert (await shard.outcome("t", None, "b")).state == "done"
    await shard.stop()


async def test_what_a_shard_did_before_it_lost_a_slot_is_not_answered_by_it_any_more(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path)
    await rig.start()
    (first,) = await rig.send(rig.admit("a"))
    assert first.outcome == "accepted"
    await rig.shard.stop()
    write_ownership(rig.disk, ownership(*around("k")))
    await rig.start()
    (again,) = await rig.send(rig.admit("a"))
    assert code_of(again) == "WRONG_SHARD"
    await rig.shard.stop()


async def test_the_directory_of_another_shard_is_not_opened(tmp_path: Path) -> None:
    write_ownership(LocalDisk(tmp_path), ownership((0, SLOT_COUNT), shard=1))
    with pytest.raises(LogRefused, match="is of shard 1, not 0"):
        await Rig(tmp_path).start()
    assert not (tmp_path / "PROMISE").exists()


def test_a_damaged_file_is_no_reason_to_take_every_key(tmp_path: Path) -> None:
    disk = LocalDisk(tmp_path)
    assert read_ownership(disk) is None
    write_ownership(disk, ownership((0, 7)))
    whole = (tmp_path / PATH).read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        (tmp_path / PATH).write_bytes(damaged)
        with pytest.raises(InvariantBroken):
            read_ownership(disk)
    for content in (b"", whole[:-1], encode_ownership(ownership((5, 5)))):
        with pytest.raises(InvariantBroken):
            decode_ownership(content)
    with pytest.raises(InvariantBroken):
        decode_ownership(encode_ownership(ownership((0, SLOT_COUNT + 1))))
    body = msgspec.msgpack.encode({"shard": 1})
    with pytest.raises(InvariantBroken):
        decode_ownership(body + struct.pack("<I", google_crc32c.value(body)))


@given(st.lists(st.tuples(st.integers(0, SLOT_COUNT - 1), st.integers(1, 50)), max_size=9))
def test_a_slot_is_foreign_exactly_when_no_range_holds_it(pairs: list[tuple[int, int]]) -> None:
    ranges = [(start, min(start + length, SLOT_COUNT)) for start, length in pairs]
    owned = ownership(*ranges)
    assert decode_ownership(encode_ownership(owned)) == owned
    for slot in {0, SLOT_COUNT - 1, *(end for _, end in ranges), *(start for start, _ in ranges)}:
        if slot < SLOT_COUNT:
            inside = any(start <= slot < end for start, end in ranges)
            assert owned.foreign[slot] == (not inside)


async def test_a_start_with_the_archive_of_another_engine_is_refused(tmp_path: Path) -> None:
    store = SimObjectStore()
    other = StoredFeed(compaction=TimeRetention(), store=store, shard=ShardId(0))
    other.write(100, count=3, size=60)
    other.cut()
    with pytest.raises(LogRefused, match="of another engine"):
        await Rig(tmp_path, archive=store).start()
    rig = Rig(tmp_path, archive=SimObjectStore())
    await rig.start()  # Nobody holds the directory.
    await rig.add()
    await rig.shard.stop()
