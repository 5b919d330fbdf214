"""How a log ends: closed by whoever heard of its failure, without room, and told once."""

import errno
import threading

import msgspec
import pytest
from tests.unit.log.log_world import LIMITS, SECRETS, World, options
from tests.unit.log.test_threads import PATIENCE_S

from ultraengine.log.damage import LogDamaged
from ultraengine.log.driver import Log
from ultraengine.log.frame import FrameDraft, FrameKind
from ultraengine.model.limits import Limits
from ultraengine.testing.sim_clock import SimClock, SimRandom
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_faults import FailedSync, Raises


def test_who_hears_of_a_failure_on_the_logs_own_thread_may_close_it_there() -> None:
    disk = SimDisk()
    quiet = msgspec.structs.replace(LIMITS, segments_prepared=0, reserve_bytes=0)
    log = Log.open(disk, SimClock(), SimRandom(1), SECRETS, options(limits=quiet))
    closed_by: list[str] = []
    closed = threading.Event()

    def close(error: BaseException) -> None:
        log.close(clean=False)
        closed_by.append(threading.current_thread().name)
        closed.set()

    log.start(close)
    disk.inject(FailedSync(), "sync")
    log.write([FrameDraft(FrameKind.COMMANDS, 0, 1, 1, b"x")], lambda written: None)
    assert closed.wait(PATIENCE_S)
    assert closed_by == ["log-flush"]
    assert World(disk.kill()).log.recovered.end_offset in {0, 1}


def test_a_clean_stop_without_room_for_mark_gives_up_the_reserve_for_it() -> None:
    world = World()
    world.groups(3)
    end = world.log.durable.durable_end
    assert world.disk.exists("RESERVE")
    world.disk.inject(Raises(errno.ENOSPC), "pwrite", "log/MARK*")
    world.log.close(clean=True)
    assert not world.disk.exists("RESERVE")
    assert world.failures == []
    world.restart(world.disk.power_cut())
    assert world.log.recovered.end_sequence == end


def test_a_failure_that_is_met_twice_is_told_once() -> None:
    world = World()
    world.disk.inject(Raises(errno.EIO), "sync", "log/MARK*")

    def marking(written: object) -> None:
        world.log.mark()

    world.log.write([world.commands(1)], marking)
    assert [getattr(error, "errno", None) for error in world.failures] == [errno.EIO]
    assert world.log.mark() is False


def test_a_failure_before_the_start_is_raised_and_stays() -> None:
    disk = SimDisk()
    log = Log.open(disk, SimClock(), SimRandom(1), SECRETS, options())
    disk.inject(Raises(errno.EIO), "sync", "log/MARK*")
    with pytest.raises(OSError, match="\\[Errno 5\\]"):
        log.mark()
    assert log.mark() is False


def test_a_lookup_goes_on_where_damage_that_is_mended_now_has_stopped_the_one_before() -> None:
    limits = Limits(
        segment_bytes=512 * 1024, frame_bytes_max=16 * 1024, reserve_bytes=0, segments_prepared=0
    )
    world = World(limits=limits)
    world.groups(60, count=20, size=700)
    frames = list(world.log.reader().frames(0, 21))
    world.log.close(clean=True)
    first, second = world.segments()[:2]
    world.restart(world.disk.kill(), verify_from=lambda: int(second[8:28]))
    position = 4096 + sum(one.header.frame_bytes for one in frames[:20])
    reader = world.log.reader()
    good = world.read(first)[position : position + 64]
    world.disk.flip_bits(first, position + 20)
    with pytest.raises(LogDamaged):
        reader.find(500)
    world.overwrite(first, position, good)
    assert reader.find(500) is not None
    places = list(world.log._catalog.segments[0].index._positions)
    assert len(places) > 5
    assert places == sorted(set(places))
    for offset in (0, 199, 200, 201, 500):
        found = reader.find(offset)
        assert found is not None
        assert found[1].id == f"id-{offset}"
