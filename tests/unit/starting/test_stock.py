"""What a shard gives to a copy is its newest verified snapshot and history, and is proved there."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.shard.test_shard import Rig

from ultraengine.ports import File
from ultraengine.replication.installing.offer import Part
from ultraengine.replication.installing.place import BESIDE, put_in_place, ready, write_part
from ultraengine.replication.installing.stock import NO_STOCK, OpenPart
from ultraengine.snapshot.codec import Codecs
from ultraengine.snapshot.store import newest_sequence
from ultraengine.starting.replicated.stock import ShardStock
from ultraengine_adapters.local.disk import LocalDisk
from ultraengine_adapters.local.secrets import FileSecrets

KEYS = FileSecrets(None, {})


def stock(disk: LocalDisk) -> ShardStock:
    return ShardStock(disk, Codecs(), KEYS.get)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path / "from")
    await made.start()
    for delta in range(5):
        await made.add(delta)
    await made.shard.rest()
    yield made
    await made.shard.stop()


async def snapshot(rig: Rig) -> int:
    await rig.snapshots.take()
    newest = rig.snapshot_driver.newest
    assert newest is not None
    return newest.sequence_end


def copied(rig: Rig, place: Path, **changed: bytes) -> tuple[LocalDisk, list[str], int]:
    """Everything that is offered, beside nothing."""
    taken, disk, paths = stock(rig.disk).take(), LocalDisk(place), []  # type: ignore[arg-type]
    assert taken is not None
    for one in taken.parts:
        content = one.read(0, one.part.size + 5)
        assert len(content) == one.part.size
        write_part(disk, one.part.path, changed.get(one.part.path.partition("/")[0], content))
        paths.append(one.part.path)
    taken.close()
    return disk, paths, taken.sequence_end


async def test_there_is_nothing_before_the_first_snapshot(rig: Rig) -> None:
    assert stock(rig.disk).take() is None  # type: ignore[arg-type]
    assert NO_STOCK.take() is None
    assert NO_STOCK.prove(BESIDE, 0)


async def test_what_is_taken_is_proved_and_found_by_the_next_start(
    rig: Rig, tmp_path: Path
) -> None:
    sequence_end = await snapshot(rig)
    disk, paths, told = copied(rig, tmp_path / "to")
    assert told == sequence_end
    assert stock(disk).prove(BESIDE, sequence_end) == ""
    assert "no snapshot at the position" in stock(disk).prove(BESIDE, sequence_end + 1)
    ready(disk, paths)
    assert put_in_place(disk)
    assert newest_sequence(disk) == sequence_end


async def test_a_damaged_snapshot_is_not_proved(rig: Rig, tmp_path: Path) -> None:
    sequence_end = await snapshot(rig)
    disk, paths, _ = copied(rig, tmp_path / "to")
    full = next(path for path in paths if path.endswith(".full"))
    file = disk.open(full + BESIDE, write=True)
    file.pwrite(b"\xff" * 64, file.size() // 2)
    file.close()
    assert "SnapshotDamaged" in stock(disk).prove(BESIDE, sequence_end)
    disk.remove(full + BESIDE)
    assert "SnapshotDamaged" in stock(disk).prove(BESIDE, sequence_end)
    assert stock(LocalDisk(tmp_path / "empty")).prove(BESIDE, 0)


async def test_a_missing_history_is_noticed(rig: Rig, tmp_path: Path) -> None:
    sequence_end = await snapshot(rig)
    disk, paths, _ = copied(rig, tmp_path / "to")
    history = [path for path in paths if path.startswith("history/")]
    for path in history:
        disk.remove(path + BESIDE)
    said = stock(disk).prove(BESIDE, sequence_end)
    assert said == ("the history is missing" if rig.memory.history.end else "")


class Overtaken(LocalDisk):
    """Retention removes what was listed, so many times."""

    times = 0

    def open(self, path: str, *, create: bool = False, write: bool = False) -> File:
        if path.endswith(".full") and self.times:
            self.times -= 1
            raise FileNotFoundError(path)
        return super().open(path, create=create, write=write)


async def test_a_file_that_goes_meanwhile_is_looked_for_anew_and_not_for_ever(
    rig: Rig, tmp_path: Path
) -> None:
    await snapshot(rig)
    disk = Overtaken(tmp_path / "from")
    disk.times = 2
    taken = stock(disk).take()
    assert taken is not None
    taken.close()
    disk.times = 3
    with pytest.raises(FileNotFoundError):
        stock(disk).take()


def test_a_part_without_a_file_is_read_from_its_content() -> None:
    part = OpenPart(Part("snapshots/MANIFEST", 6), None, b"abcdef")
    assert (part.read(0, 4), part.read(4, 4), part.read(6, 4)) == (b"abcd", b"ef", b"")
