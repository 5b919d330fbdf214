"""A history that somebody else owns is read up to a position, wherever its owner has got to."""

import pytest
from tests.unit.execution.test_history import (
    SHARD,
    append_all,
    assert_holds,
    empty,
    files,
    make_small,
    some,
)

from ultraengine.execution import history
from ultraengine.execution.history_files import stored
from ultraengine.execution.history_files.stored import StoredHistory
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ShardId
from ultraengine.testing.sim_disk import SimDisk


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)
    monkeypatch.setattr(stored, "SEGMENT_BYTES", history.SEGMENT_BYTES)
    monkeypatch.setattr(stored, "INDEXES_KEPT", 2)


def test_everything_below_any_position_is_read_and_nothing_is_changed() -> None:
    disk = SimDisk(1)
    owner = empty(disk)
    appended = some(120)
    ends = []
    for one in appended:
        owner.append(*one)
        ends.append(owner.end)
    owner.sync()
    before = files(disk)
    assert len(before) > 5
    for count in range(1, len(appended), 7):
        found = StoredHistory(disk, SHARD, ends[count - 1])
        assert_holds_below(found, appended[:count])
    assert files(disk) == before


def assert_holds_below(found: StoredHistory, appended: list[tuple[int, str, bytes]]) -> None:
    for offset, domain, payload in appended:
        other = "trading" if domain == "ledger" else "ledger"
        assert found.read(offset, domain) == payload
        assert found.read(offset, other) is None
        assert found.read(offset + 1, domain) is None


def test_without_a_position_nothing_is_looked_for() -> None:
    assert StoredHistory(SimDisk(1), SHARD, 0).read(3, "ledger") is None


def test_an_offset_before_the_first_record_of_a_segment_has_no_events() -> None:
    disk = SimDisk(1)
    owner = empty(disk)
    append_all(owner, some(40, start=10))
    owner.sync()
    found = StoredHistory(disk, SHARD, owner.end)
    assert found.read(29, "ledger") is None
    assert_holds(owner, some(40, start=10))
    assert_holds_below(found, some(40, start=10))


def test_the_files_of_another_shard_and_a_lost_index_are_refused() -> None:
    disk = SimDisk(1)
    owner = empty(disk)
    append_all(owner, some(120))
    owner.sync()
    with pytest.raises(InvariantBroken, match="is this shard's"):
        StoredHistory(disk, ShardId(8), owner.end)
    found = StoredHistory(disk, SHARD, owner.end)
    first = min(files(disk))
    file = disk.open(f"history/{first}", write=True)
    file.pwrite(b"?", file.size() - 3)
    with pytest.raises(InvariantBroken, match="ends with its index"):
        found.read(0, "trading")
    disk.remove(f"history/{first}")
    with pytest.raises(FileNotFoundError):
        StoredHistory(disk, SHARD, owner.end)
