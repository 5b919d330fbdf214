"""A log that somebody else owns, or nobody: read as it stands, and left as it is."""

import threading
from collections.abc import Callable, Iterable

import pytest

from ultraengine.log.damage import BelowRetention, LogDamaged, LogRefused
from ultraengine.log.identity import IDENTITY_PATH
from ultraengine.log.retention import TimeRetention
from ultraengine.log.segment import LOG_DIRECTORY
from ultraengine.log.standing import Standing, standing_log
from ultraengine.ports import ObjectStore
from ultraengine.testing.feed_sources import SECRETS, SHARD, StoredFeed
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_objects import SimObjectStore


def standing(disk: SimDisk, archive: ObjectStore | None = None) -> Standing:
    return standing_log(disk, SECRETS, threading.Lock(), archive=archive)


def segments(disk: SimDisk) -> list[str]:
    return [f"{LOG_DIRECTORY}/{name}" for name in disk.list(LOG_DIRECTORY) if "seg-" in name]


def content(disk: SimDisk) -> dict[str, bytes]:
    names = [IDENTITY_PATH, *(f"{LOG_DIRECTORY}/{name}" for name in disk.list(LOG_DIRECTORY))]
    found = {}
    for name in names:
        file = disk.open(name)
        found[name] = file.pread(file.size(), 0)
        file.close()
    return found


@pytest.mark.parametrize("encrypted", [False, True])
def test_all_groups_are_read_while_the_owner_has_the_log_open(*, encrypted: bool) -> None:
    stored = StoredFeed(encrypted=encrypted)
    stored.write(90, count=3, size=60)
    stored.commands()
    before = content(stored.disk)
    found = standing(stored.disk)
    groups = list(found.reader.groups(0))
    assert [group.commands for group in groups] == stored.written
    assert (found.identity.shard, found.first_offset, found.end.offset) == (SHARD, 0, stored.end)
    whole, last = groups[-2].last_frame, groups[-1].last_frame
    assert whole is not None
    assert whole.header.offset_end == stored.recorded
    assert last is None
    assert found.end.chain == groups[-1].chain
    assert content(stored.disk) == before
    assert len(before) > 4


@pytest.mark.parametrize("encrypted", [False, True])
def test_what_is_archived_is_read_where_the_archive_is_named(*, encrypted: bool) -> None:
    store = SimObjectStore()
    stored = StoredFeed(encrypted=encrypted, compaction=TimeRetention(None), store=store)
    stored.write(100, count=3, size=60)
    first = stored.cut()
    stored.write(5)
    assert first > 0
    found = standing(stored.disk, store)
    assert found.first_offset == 0
    assert [group.commands for group in found.reader.groups(0)] == stored.written
    alone = standing(stored.disk)
    assert alone.first_offset == first
    with pytest.raises(BelowRetention, match=f"offset {first}"):
        list(alone.reader.groups(0))


def test_a_torn_tail_is_not_read_and_stays_where_it_is() -> None:
    stored = StoredFeed()
    stored.write(3)
    path = max(segments(stored.disk))
    end = standing(stored.disk).end
    whole = content(stored.disk)[path]
    used = len(whole.rstrip(b"\0")) + 64
    file = stored.disk.open(path, write=True)
    file.pwrite(b"UEFR torn", used - used % 8)
    before = content(stored.disk)
    assert before[path] != whole
    found = standing(stored.disk)
    assert found.end == end
    assert [group.commands for group in found.reader.groups(0)] == stored.written
    assert content(stored.disk) == before


@pytest.mark.parametrize("which", [min, max])
def test_damage_below_what_was_durable_stops_the_reader_with_its_place(
    which: Callable[[Iterable[str]], str],
) -> None:
    stored = StoredFeed()
    stored.write(90, count=3, size=60)
    path = which(segments(stored.disk))
    file = stored.disk.open(path, write=True)
    file.pwrite(b"?", 5000)
    with pytest.raises(LogDamaged, match="at byte") as caught:
        list(standing(stored.disk).reader.groups(0))
    assert caught.value.file == path
    assert caught.value.byte_position <= 5000


def test_a_damaged_identity_and_a_missing_log_are_named() -> None:
    stored = StoredFeed()
    stored.write()
    for name in stored.disk.list(LOG_DIRECTORY):
        stored.disk.remove(f"{LOG_DIRECTORY}/{name}")
    with pytest.raises(LogRefused, match="no segment"):
        standing(stored.disk)
    stored.disk.open(IDENTITY_PATH, write=True).pwrite(b"?", 3)
    with pytest.raises(LogDamaged, match="from a backup") as caught:
        standing(stored.disk)
    assert caught.value.file == IDENTITY_PATH


def test_the_archive_of_another_engine_is_refused() -> None:
    store = SimObjectStore()
    other = StoredFeed(compaction=TimeRetention(None), store=store, seed=8)
    other.write(100, count=3, size=60)
    other.cut()
    stored = StoredFeed()
    stored.write(3)
    assert stored.log.identity.cluster_uid != other.log.identity.cluster_uid
    with pytest.raises(LogRefused, match="of another engine"):
        standing(stored.disk, store)
