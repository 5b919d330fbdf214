"""FIRST tells a lost first segment from one that retention has removed."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.log.log_world import SECRETS, World

from ultraengine.log.damage import LogDamaged
from ultraengine.log.digest import crc32c
from ultraengine.log.first import FIRST_PATH, FirstDamaged, decode_first, encode_first
from ultraengine.log.mending import repair
from ultraengine.log.segment import KeyRing
from ultraengine.log.survey import read_first, survey
from ultraengine.log.tools import verify
from ultraengine.testing.sim_clock import SimClock, SimRandom
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_faults import Raises


def stopped(disk: SimDisk | None = None) -> World:
    world = World(disk)
    world.groups(60, count=3, size=200)
    world.log.close(clean=True)
    world.disk = world.disk.kill()
    return world


@given(st.integers(0, 2**64 - 1), st.integers(0, 19), st.integers(0, 7))
def test_every_flipped_bit_of_it_is_found(sequence: int, position: int, bit: int) -> None:
    data = bytearray(encode_first(sequence))
    assert decode_first(bytes(data)) == sequence
    data[position] ^= 1 << bit
    with pytest.raises(FirstDamaged):
        decode_first(bytes(data))


def test_another_length_or_magic_is_refused() -> None:
    with pytest.raises(FirstDamaged, match="19 bytes instead of 20"):
        decode_first(encode_first(5)[:-1])
    for body in (b"UEMK" + bytes(12), b"UEFS\1" + bytes(11)):
        with pytest.raises(FirstDamaged, match="the magic or a reserved field differs"):
            decode_first(body + crc32c(body).to_bytes(4, "little"))


@pytest.mark.parametrize("start", [0, 1 << 40])
def test_a_log_that_lost_its_first_segment_is_damaged_and_repaired_from_a_copy(start: int) -> None:
    world = stopped()
    assert read_first(world.disk) == (0, "")
    good = SimDisk(image=world.disk.image().copy())
    first, second = world.segments()[:2]
    lost = world.read(first)
    world.disk.remove(first)
    with pytest.raises(LogDamaged, match="FIRST says that the log begins there") as caught:
        world.restart(world.disk, verify_from=lambda: start)
    assert (caught.value.file, caught.value.sequence) == (first, 0)
    assert first in verify(world.disk, SECRETS).problems[0].message
    report = repair(world.disk, good, clock=SimClock(), random=SimRandom(4), secrets=SECRETS)
    assert [(one.path, one.kept_as) for one in report.segments] == [(first, None)]
    assert report.segments[0].to_sequence == int(second[8:28])
    assert len(world.read(first)) == len(lost)
    world.restart(world.disk)
    assert len(list(world.log.reader().groups(0))) == 60


def test_what_a_person_gives_up_is_not_asked_for_again() -> None:
    world = stopped()
    first, second = world.segments()[:2]
    world.disk.remove(first)
    world.disk.remove(FIRST_PATH)
    world.restart(world.disk)
    assert read_first(world.disk) == (int(second[8:28]), "")


def test_retention_says_so_before_it_removes_anything() -> None:
    world = World()
    world.groups(60, count=3, size=200)
    segments = world.segments()
    report = world.log.retain(100, 1 << 40, {})
    assert len(report.removed) >= 2
    assert read_first(world.disk) == (report.first_sequence, "")
    assert report.first_sequence == int(world.segments()[0][8:28])
    # Also when the power goes before the removals are on the disk, the log opens.
    for kept in range(2):
        world = World(SimDisk(seed=kept))
        world.groups(60, count=3, size=200)
        world.disk.inject(Raises(errno.EIO), "remove", after=kept)
        with pytest.raises(OSError, match="Input/output"):
            world.log.retain(100, 1 << 40, {})
        assert world.segments()[0] == segments[kept]
        assert survey(world.disk, KeyRing(SECRETS)).damage is None


def test_a_full_disk_does_not_keep_retention_from_making_room() -> None:
    world = World()
    world.groups(60, count=3, size=200)
    world.disk.inject(Raises(errno.ENOSPC), "open", "log/FIRST.tmp", times=2)
    assert world.log.retain(100, 1 << 40, {}).removed
    assert read_first(world.disk) == (None, "")
    world.log.close(clean=True)
    world.disk = world.disk.kill()
    world.restart(world.disk)
    assert read_first(world.disk) == (int(world.segments()[0][8:28]), "")


def test_one_that_cannot_be_read_proves_nothing_and_is_written_anew() -> None:
    world = stopped()
    world.disk.flip_bits(FIRST_PATH, 9)
    (problem,) = verify(world.disk, SECRETS).problems
    assert problem.file == FIRST_PATH
    assert "The next start writes it anew" in problem.message
    world.disk.remove(world.segments()[0])
    world.restart(world.disk)
    assert read_first(world.disk) == (int(world.segments()[0][8:28]), "")
