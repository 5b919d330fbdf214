"""What a start with a snapshot verifies of the log, and that damage before it is not passed over
by whoever needs what is there."""

import msgspec
import pytest

from ultraengine.domains.counter import DOMAIN
from ultraengine.execution.registry import Admitted
from ultraengine.log.damage import LogDamaged
from ultraengine.model.ids import SLOT_COUNT
from ultraengine.snapshot.errors import SnapshotRefused
from ultraengine.snapshot.store import MANIFEST, newest_sequence
from ultraengine.testing.sim_clock import SimClock
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_shard import SimShard

IN_THE_FIRST_FRAME = 4096 + 150


def added(shard: SimShard, id: str) -> Admitted:
    return shard.registry.admit(
        id=id, type="counter.add", key="k", data=msgspec.json.encode({"delta": 1}), codec="json",
        tenant="t", principal="p", scopes=frozenset({"*:write"}),
    )  # fmt: skip


def send(shard: SimShard, start: int, end: int) -> None:
    for number in range(start, end):
        (reply,) = shard.send(added(shard, f"c{number}"))
        assert reply.outcome == "accepted"


def start(disk: SimDisk, *, verify_all: bool = False) -> SimShard:
    return SimShard(disk, SimClock(), [DOMAIN], verify_all=verify_all)


def lived() -> SimDisk:
    """Three segments and two snapshots, the second one at the end of the second segment."""
    disk = SimDisk()
    assert newest_sequence(disk) == 0
    for first in (0, 20):
        shard = start(disk)
        send(shard, first, first + 20)
        shard.snapshot("full")
        assert newest_sequence(disk) == shard.position().sequence_end
        shard.stop()
        disk = disk.kill()
    shard = start(disk)
    send(shard, 40, 45)
    shard.stop()
    return disk.kill()


def segments(disk: SimDisk) -> list[str]:
    return [f"log/{name}" for name in disk.list("log") if name.startswith("seg-")]


def test_a_start_does_not_read_what_its_snapshot_holds_unless_it_is_told_to() -> None:
    disk = lived()
    first = segments(disk)[0]
    disk.flip_bits(first, IN_THE_FIRST_FRAME)
    with pytest.raises(LogDamaged) as caught:
        start(SimDisk(image=disk.image().copy()), verify_all=True)
    assert caught.value.file == first
    shard = start(disk)
    (reply,) = shard.send(added(shard, "c45"))
    assert reply.outcome == "accepted"
    assert reply.version == 46
    # Who needs what is there hears of it: here, a retry whose first answer was in that frame.
    with pytest.raises(LogDamaged):
        shard.send(added(shard, "c0"))


def test_damage_behind_the_snapshot_stops_the_start() -> None:
    disk = lived()
    third = segments(disk)[2]
    disk.flip_bits(third, IN_THE_FIRST_FRAME)
    with pytest.raises(LogDamaged) as caught:
        start(disk)
    assert caught.value.file == third


def test_replay_from_an_older_snapshot_finds_damage_that_the_newest_one_hid() -> None:
    disk = lived()
    _, second, _ = segments(disk)
    newest = max(name for name in disk.list("snapshots") if name != MANIFEST)
    whole = disk.image().copy()
    disk.flip_bits(f"snapshots/{newest}", 700)
    shard = start(SimDisk(image=disk.image().copy()))
    assert shard.replayed > 20
    disk.flip_bits(second, IN_THE_FIRST_FRAME)
    with pytest.raises(LogDamaged) as caught:
        start(disk)
    assert caught.value.file == second
    # With the newest snapshot nobody has to read there.
    disk = SimDisk(image=whole)
    disk.flip_bits(second, IN_THE_FIRST_FRAME)
    assert start(disk).replayed < 20


def test_a_manifest_that_cannot_be_read_makes_a_start_verify_everything() -> None:
    disk = lived()
    assert newest_sequence(disk) > 0
    disk.flip_bits(f"snapshots/{MANIFEST}", 30)
    assert newest_sequence(disk) == 0
    disk.flip_bits(segments(disk)[0], IN_THE_FIRST_FRAME)
    with pytest.raises(LogDamaged):
        start(disk)


def test_a_snapshot_whose_keys_lie_in_the_slots_of_another_release_is_refused() -> None:
    """Loaded as it is, its accounts would be gone, and retries of what it holds done twice."""
    shard = start(SimDisk())
    send(shard, 0, 3)
    sections = [
        msgspec.structs.replace(one, slot=(one.slot + 1) % SLOT_COUNT) if one.slot >= 0 else one
        for one in shard.memory.image.sections(full=True)
    ]
    image = start(SimDisk()).memory.proof_image()
    versions = next(one for one in sections if one.name == "versions")
    with pytest.raises(SnapshotRefused, match="move 'snapshots', 'history' and 'dedup' away"):
        image.load(versions)
    for section in shard.memory.image.sections(full=True):
        start(SimDisk()).memory.proof_image().load(section)
