"""A log that takes another replica's frames as they are, and what a leader sends unsynced."""

import msgspec
import pytest
from tests.unit.log.log_world import SECRETS, World, options

from ultraengine.log.driver import Log, Written
from ultraengine.log.frame import Frame
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ConfigVersion, Epoch, ShardId
from ultraengine.testing.sim_clock import SimClock, SimRandom
from ultraengine.testing.sim_disk import SimDisk


def leading(frames: int = 3) -> World:
    """A log with some frames of its own."""
    world = World()
    world.log.stamp(Epoch(2), ConfigVersion(7))
    for _ in range(frames):
        world.log.write([world.commands(1)], world.written.append)
    return world


def all_frames(world: World, *, unsynced: bool = False) -> list[Frame]:
    """Everything that can be read."""
    return list(world.log.reader().frames(0, unsynced=unsynced))


def test_copied_frames_are_the_frames_that_were_formed_elsewhere() -> None:
    leader, follower = leading(), World(seed=5, handlers=b"otherone", epoch=Epoch(1))
    follower.log.copy(all_frames(leader), follower.written.append)
    theirs, ours = all_frames(leader), all_frames(follower)
    assert [one.chain for one in ours] == [one.chain for one in theirs]
    assert [one.payload for one in ours] == [one.payload for one in theirs]
    assert {(one.header.epoch, one.header.config_version) for one in ours} == {(2, 7)}
    assert {one.header.handlers for one in ours} == {b"12345678"}
    assert follower.log.durable == leader.log.durable
    assert follower.written[-1].end_sequence == 3


def test_a_copied_log_is_the_same_after_a_power_cut() -> None:
    leader, follower = leading(), World(seed=5)
    follower.log.copy(all_frames(leader), follower.written.append)
    log = follower.restart(follower.disk.power_cut(), epoch=Epoch(2))
    assert log.durable == leader.log.durable
    assert log.recovered.last_epoch == 2


def test_a_copy_goes_on_where_it_ended() -> None:
    leader, follower = leading(), World(seed=5)
    frames = all_frames(leader)
    follower.log.copy(frames[:2], follower.written.append)
    follower.log.copy(frames[2:], follower.written.append)
    assert follower.log.durable == leader.log.durable


def test_a_copy_with_a_gap_ends_the_log() -> None:
    leader, follower = leading(), World(seed=5)
    follower.log.copy(all_frames(leader)[1:2], follower.written.append)
    assert [type(one) for one in follower.failures] == [InvariantBroken]
    assert follower.log.durable.durable_end == 0


def test_a_frame_of_another_history_is_not_copied() -> None:
    leader, follower = leading(), World(seed=5)
    frames = all_frames(leader)
    follower.log.copy(frames[:1], follower.written.append)
    header = msgspec.structs.replace(frames[1].header, chain=bytes(16))
    follower.log.copy([msgspec.structs.replace(frames[1], header=header)], follower.written.append)
    (failure,) = follower.failures
    assert isinstance(failure, InvariantBroken)
    assert follower.log.durable.durable_end == 1


def test_a_copied_frame_of_a_lower_epoch_ends_the_log() -> None:
    leader, follower = leading(), World(seed=5)
    frames = all_frames(leader)
    follower.log.copy(frames[:1], follower.written.append)
    header = msgspec.structs.replace(frames[1].header, epoch=Epoch(1))
    follower.log.copy([msgspec.structs.replace(frames[1], header=header)], follower.written.append)
    assert len(follower.failures) == 1


def test_a_frame_of_another_shard_is_not_copied() -> None:
    leader, follower = leading(), World(seed=5)
    frames = all_frames(leader)
    header = msgspec.structs.replace(frames[0].header, shard=ShardId(99))
    follower.log.copy([msgspec.structs.replace(frames[0], header=header)], follower.written.append)
    assert [type(one) for one in follower.failures] == [InvariantBroken]
    assert follower.log.durable.durable_end == 0


def test_nothing_of_an_older_epoch_is_written_behind_what_was_copied() -> None:
    leader, follower = leading(), World(seed=5)
    follower.log.copy(all_frames(leader), follower.written.append)
    own = msgspec.structs.replace(leader.commands(1), base_offset=3)
    follower.log.write([own], follower.written.append)
    assert [type(one) for one in follower.failures] == [InvariantBroken]
    assert follower.log.durable == leader.log.durable
    # It would be taken for damage, or for a torn tail, at the next start.
    assert follower.restart(follower.disk.power_cut(), epoch=Epoch(2)).durable.durable_end == 3


def test_what_is_written_and_not_synced_can_be_sent() -> None:
    world = leading()
    done: list[Written] = []
    world.log.write([world.commands(1)], done.append, sync=False)
    assert len(all_frames(world)) == 3
    assert [one.header.sequence for one in all_frames(world, unsynced=True)] == [0, 1, 2, 3]
    world.log.sync(done.append)
    assert len(all_frames(world)) == 4


def test_an_epoch_never_goes_back() -> None:
    world = leading()
    with pytest.raises(InvariantBroken, match="epochs only grow"):
        world.log.stamp(Epoch(1), ConfigVersion(8))


def test_frames_are_not_stamped_anew_while_a_write_is_under_way() -> None:
    world = World()
    refused: list[str] = []

    def stamp(_written: Written) -> None:
        world.log.write([world.commands(1)], world.written.append)
        try:
            world.log.stamp(Epoch(2), ConfigVersion(1))
        except InvariantBroken as error:
            refused.append(str(error))

    world.log.write([world.commands(1)], stamp)
    assert refused == ["frames are stamped anew between writes"]


def test_nothing_is_copied_before_the_start_or_after_the_end() -> None:
    leader, follower = leading(), World(seed=5)
    follower.log.close(clean=False)
    follower.log.copy(all_frames(leader), follower.written.append)
    assert not follower.written
    unstarted = Log.open(SimDisk(), SimClock(), SimRandom(), SECRETS, options())
    with pytest.raises(InvariantBroken, match="after its start"):
        unstarted.copy(all_frames(leader), follower.written.append)


def epoch_starts(world: World) -> list[tuple[int, int]]:
    return [(int(epoch), int(at)) for epoch, at in world.log.reader().epoch_starts()]


def test_epochs_are_found_wherever_they_begin() -> None:
    world = World()
    assert epoch_starts(world) == []
    for epoch in (1, 4, 5):
        world.log.stamp(Epoch(epoch), ConfigVersion(0))
        for _ in range(9):
            world.log.write([world.commands(1, size=4000)], world.written.append)
    assert world.log._appender.rolls > 5
    assert epoch_starts(world) == [(1, 0), (4, 9), (5, 18)]
    reopened = World(disk=world.disk.power_cut(), epoch=Epoch(6))
    assert epoch_starts(reopened) == [(1, 0), (4, 9), (5, 18)]


def test_a_segment_in_which_no_epoch_begins_is_not_read() -> None:
    world = World()
    for _ in range(9):
        world.log.write([world.commands(1, size=4000)], world.written.append)
    second = world.log._catalog.segments[1]
    reader = world.log.reader()
    world.disk.remove(second.path)
    assert [(int(epoch), int(at)) for epoch, at in reader.epoch_starts()] == [(1, 0)]


def test_the_point_of_a_log_is_where_the_next_frame_goes() -> None:
    leader, follower = leading(), World(seed=5)
    follower.log.copy(all_frames(leader), follower.written.append)
    assert follower.log.point == leader.log.point
    assert (follower.log.point.sequence, follower.log.point.epoch) == (3, 2)
