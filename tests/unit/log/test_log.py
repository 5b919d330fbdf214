"""A log from its opening to its end, on a simulated disk."""

import errno
from typing import Any

import msgspec
import pytest
from tests.unit.log.log_world import (
    LIMITS,
    SECRETS,
    SERIALIZER,
    START,
    World,
    command,
    options,
    outcome,
)

from ultraengine.log.appender import Request
from ultraengine.log.damage import BelowRetention, LogDamaged, LogInUse, LogRefused
from ultraengine.log.driver import Log
from ultraengine.log.frame import (
    FrameDraft,
    FrameKind,
    Keys,
    draft_of,
    encode,
    frame_bytes_at_most,
    place_of,
)
from ultraengine.log.identity import decode_identity, encode_identity
from ultraengine.log.mark import decode_mark
from ultraengine.log.serializer import MsgpackSerializer, outcome_drafts
from ultraengine.log.space import Space
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, Instant, ShardId
from ultraengine.ports import DiskFull
from ultraengine.testing.sim_clock import SimRandom
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_faults import FailedSync, Raises, ShortWrite

FORMS = pytest.mark.parametrize(
    "form",
    [
        {},
        {"compress": True},
        {"master_key": "disk"},
        {"compress": True, "master_key": "disk", "chain_key": "chain"},
    ],
    ids=["plain", "lz4", "aes", "all"],
)


@FORMS
def test_what_is_written_is_read_also_after_a_clean_stop(form: dict[str, Any]) -> None:
    world = World(**form)
    world.groups(20, count=3, size=200)
    end = world.written[-1]
    assert len(world.segments()) > 1 or "compress" in form
    for again in (False, True):
        if again:
            world.log.close(clean=True)
            world.restart(world.disk.kill())
            recovered = world.log.recovered
            assert (recovered.chain, recovered.state_chain) == (end.chain, end.state_chain)
            assert (recovered.end_sequence, recovered.end_offset) == (39, 60)
            assert recovered.recorded_end == 57
            assert recovered.last_time == START + 20
            assert (recovered.last_epoch, recovered.last_handlers) == (1, b"12345678")
            assert recovered.torn is None
        reader = world.log.reader()
        groups = list(reader.groups(0))
        assert [one for group in groups for one in group.commands] == [
            command(n, size=200) for n in range(60)
        ]
        assert groups[-1].outcomes is None
        assert groups[-1].outcomes_payload is None
        for group in groups[:-1]:
            assert group.outcomes is not None
            assert [one.offset for one in group.outcomes] == list(
                range(group.header.base_offset, group.header.offset_end)
            )
        frames = list(reader.frames(0))
        assert [one.header.sequence for one in frames] == list(range(39))


def test_written_says_where_each_write_ended() -> None:
    world = World()
    first, second = world.group(), world.group()
    assert (first.end_sequence, first.durable_end) == (1, 1)
    assert (second.end_sequence, second.durable_end) == (3, 3)
    assert first.chain != second.chain
    assert first.state_chain == bytes(16)
    assert second.state_chain != bytes(16)
    frames = list(world.log.reader().frames(0))
    assert frames[1].header.chain == first.chain
    assert [one.header.durable_end for one in frames] == [0, 1, 1]


def test_a_write_is_one_write_and_one_sync() -> None:
    world = World(SimDisk(record=True))
    world.group()
    before = len(world.disk.trace)
    world.group()
    assert [type(one).__name__ for one in world.disk.trace[before:]] == ["Write", "SyncFile"]


def test_an_empty_log_starts_and_restarts_without_leaving_segments_behind() -> None:
    world = World()
    for _ in range(3):
        recovered = world.log.recovered
        assert (recovered.end_sequence, recovered.end_offset, recovered.last_epoch) == (0, 0, 0)
        assert recovered.last_handlers is None
        assert world.segments() == ["log/seg-00000000000000000000.log"]
        assert list(world.log.reader().frames(0)) == []
        assert list(world.log.reader().groups(0)) == []
        world.log.close(clean=True)
        world.restart(world.disk.kill())


def test_a_clean_stop_leaves_nothing_ahead_and_cuts_the_segment() -> None:
    world = World()
    world.groups(3)
    world.log.close(clean=True)
    world.log.close(clean=True)
    world.disk = world.disk.kill()
    assert world.disk.list("log") == ["FIRST", "MARK", "seg-00000000000000000000.log"]
    assert 4096 < len(world.read(world.segments()[0])) < 8192


def test_a_roll_goes_on_in_a_prepared_segment_and_cuts_the_one_before() -> None:
    world = World()
    assert "prepare-1.tmp" in world.disk.list("log")
    while len(world.segments()) == 1:
        world.group(count=5, size=300)
    first, second = world.segments()
    assert len(world.read(first)) < LIMITS.segment_bytes
    assert len(world.read(second)) == LIMITS.segment_bytes
    world.log.maintain()
    assert any(name.startswith("prepare-") for name in world.disk.list("log"))
    world.group()
    sequences = [one.header.sequence for one in world.log.reader().frames(0)]
    assert sequences == list(range(int(world.written[-1].end_sequence)))


def test_mark_is_written_at_a_roll() -> None:
    world = World()
    before = world.read("log/MARK")
    while len(world.segments()) == 1:
        world.group(count=5, size=300)
    world.log.maintain()
    assert world.read("log/MARK") != before


def test_a_write_larger_than_a_segment_gets_a_segment_of_its_own_length() -> None:
    world = World()
    written = world.write([world.commands(3, size=2000) for _ in range(5)])
    assert written.error is None
    # The empty segment had the same name and is replaced.
    assert len(world.segments()) == 1
    assert len(world.read(world.segments()[0])) > LIMITS.segment_bytes
    assert [one.path for one in world.log._catalog.segments] == world.segments()
    world.write([world.outcomes(3), world.commands(2)])
    world.restart(world.disk.kill())
    assert world.log.recovered.end_offset == 17
    assert len(list(world.log.reader().groups(0))) == 6


def test_frames_of_one_write_lie_in_one_segment() -> None:
    world = World()
    for _ in range(10):
        world.write([world.commands(1, size=1000), world.commands(1, size=1000)])
    firsts = [int(path[8:28]) for path in world.segments()]
    assert len(firsts) > 1
    assert all(first % 2 == 0 for first in firsts)


def test_frames_that_nothing_proves_durable_are_copied_by_the_next_start() -> None:
    world = World(master_key="disk", chain_key="chain", compress=True)
    world.groups(5)
    chain = world.written[-1].chain
    world.restart(world.disk.kill())
    recovered = world.log.recovered
    assert recovered.copied_frames == 2
    assert (recovered.end_sequence, recovered.chain) == (9, chain)
    assert [path[8:28] for path in world.segments()] == ["0" * 20, "7".rjust(20, "0")]
    old = world.read(world.segments()[0])
    world.group()
    assert [one.header.sequence for one in world.log.reader().frames(0)] == list(range(11))
    # And again: what the second start has synced is proved by its MARK.
    world.restart(world.disk.kill())
    assert world.log.recovered.end_sequence == 11
    assert world.read(world.segments()[0]) == old


def test_a_start_removes_prepared_segments_that_it_did_not_fill() -> None:
    world = World()
    file = world.disk.open("log/prepare-77.tmp", create=True, write=True)
    file.pwrite(b"not zero", 5000)
    world.restart(world.disk.kill())
    assert "prepare-77.tmp" not in world.disk.list("log")


def test_a_torn_tail_is_kept_aside_and_the_log_ends_before_it() -> None:
    world = World()
    world.groups(4)
    world.log.mark()
    path = world.segments()[0]
    end = len(world.read(path).rstrip(b"\0"))
    end += -end % 8
    world.overwrite(path, end, b"UEFR torn write" + bytes(100) + b"end")
    world.restart(world.disk.kill())
    torn = world.log.recovered.torn
    assert torn is not None
    assert (torn.file, torn.byte_position, torn.length) == (path, end, 118)
    assert world.read(torn.kept_as) == b"UEFR torn write" + bytes(100) + b"end"
    assert torn.reason == "the header's checksum differs"
    assert world.log.recovered.end_sequence == 7
    world.group()
    assert len(list(world.log.reader().groups(0))) == 5


def test_an_unacknowledged_frame_that_is_half_there_is_torn_and_not_damage() -> None:
    world = World()
    world.groups(3)
    world.disk.inject(Raises(errno.EIO), "sync")
    with pytest.raises(OSError, match="\\[Errno 5\\]"):
        world.group(size=3000)
    path = world.segments()[0]
    end = len(world.read(path).rstrip(b"\0"))
    world.overwrite(path, end - 2000, bytes(1000))
    world.restart(world.disk.kill())
    assert world.log.recovered.torn is not None
    assert world.log.recovered.end_offset == 6


def test_damage_below_what_was_acknowledged_stops_the_start_and_changes_nothing() -> None:
    world = World()
    world.groups(6)
    path = world.segments()[0]
    frames = list(world.log.reader().frames(0))
    position = 4096 + sum(one.header.frame_bytes for one in frames[:3])
    data = world.read(path)
    world.overwrite(path, position + 130, bytes([data[position + 130] ^ 4]))
    world.disk = world.disk.kill()
    before = {name: world.read(f"log/{name}") for name in world.disk.list("log")}
    with pytest.raises(LogDamaged) as caught:
        world.restart(world.disk)
    damage = caught.value
    assert damage.file == path
    assert damage.byte_position == position
    assert damage.sequence == 3
    assert damage.offset == 4
    assert damage.proved_end == 9
    assert damage.reason == "the payload's checksum differs"
    assert {name: world.read(f"log/{name}") for name in world.disk.list("log")} == before


@pytest.mark.parametrize("fill", [b"", b"\0"], ids=["cut off", "zeros"])
def test_the_loss_of_the_very_last_acknowledged_frames_is_found_by_mark(fill: bytes) -> None:
    world = World()
    world.groups(4)
    frames = list(world.log.reader().frames(0))
    world.log.close(clean=True)
    world.disk = world.disk.kill()
    path = world.segments()[0]
    end = 4096 + sum(one.header.frame_bytes for one in frames[:5])
    length = len(world.read(path))
    file = world.disk.open(path, write=True)
    file.truncate(end)
    file.pwrite(fill * (length - end), end)
    with pytest.raises(LogDamaged) as caught:
        world.restart(world.disk)
    assert (caught.value.sequence, caught.value.offset, caught.value.proved_end) == (5, 6, 7)


def test_an_unreadable_mark_lets_only_an_end_pass_that_nothing_follows() -> None:
    world = World()
    world.groups(4)
    mark = bytearray(world.read("log/MARK"))
    mark[9] ^= 1
    world.overwrite("log/MARK", 0, bytes(mark))
    image = world.disk.image()
    world.disk = SimDisk(image=image.copy())
    path = world.segments()[0]
    assert World(SimDisk(image=image)).log.recovered.end_sequence == 7
    world.overwrite(path, len(world.read(path).rstrip(b"\0")) + 8, b"torn")
    with pytest.raises(LogDamaged, match="MARK cannot be read \\(the checksum differs\\)"):
        world.restart(world.disk)


def test_a_mark_of_another_history_is_damage() -> None:
    world, other = World(seed=1), World(seed=2)
    world.groups(4)
    other.groups(3, count=3)
    other.group(count=2)
    other.log.mark()
    world.overwrite("log/MARK", 0, other.read("log/MARK"))
    with pytest.raises(LogDamaged, match="MARK was written for another history"):
        world.restart(world.disk.kill())


def test_a_mark_of_another_history_is_damage_in_the_middle_of_a_segment_too() -> None:
    world, other = World(seed=1), World(seed=2)
    world.groups(8)
    other.groups(4, size=30)
    other.log.mark()
    world.overwrite("log/MARK", 0, other.read("log/MARK"))
    with pytest.raises(LogDamaged, match="MARK was written for another history"):
        world.restart(world.disk.kill())


def test_a_mark_without_segments_is_damage() -> None:
    world = World()
    world.groups(2)
    world.log.close(clean=True)
    world.disk = world.disk.kill()
    for path in world.segments():
        world.disk.remove(path)
    with pytest.raises(LogDamaged, match="there is no segment, but MARK proves frames"):
        world.restart(world.disk)


def test_a_missing_segment_in_the_middle_is_damage() -> None:
    world = World()
    world.groups(60, count=3, size=200)
    world.log.close(clean=True)
    world.disk = world.disk.kill()
    missing = world.segments()[1]
    world.disk.remove(missing)
    with pytest.raises(LogDamaged) as caught:
        world.restart(world.disk)
    assert caught.value.file == world.segments()[0]
    assert caught.value.sequence == int(missing[8:28])


def test_a_damaged_segment_header_is_damage() -> None:
    world = World()
    world.groups(60, count=3, size=200)
    world.log.close(clean=True)
    world.disk = world.disk.kill()
    world.disk.flip_bits(world.segments()[1], 60)
    with pytest.raises(LogDamaged, match="the checksum of the segment's header differs") as caught:
        world.restart(world.disk)
    assert caught.value.byte_position == 0
    assert caught.value.sequence == int(world.segments()[1][8:28])


def test_two_segments_of_different_histories_are_damage() -> None:
    worlds = [World(seed=1, cluster_uid=b"u" * 16), World(seed=1, cluster_uid=b"u" * 16)]
    for world, size in zip(worlds, (300, 301), strict=True):
        world.groups(30, count=3, size=size)
        world.log.close(clean=True)
        world.disk = world.disk.kill()
    first, second = (world.segments() for world in worlds)
    assert first == second
    worlds[0].overwrite(first[1], 0, worlds[1].read(second[1]))
    with pytest.raises(LogDamaged, match="with another history"):
        worlds[0].restart(worlds[0].disk)


def test_verify_from_leaves_older_segments_to_their_readers() -> None:
    world = World()
    world.groups(60, count=3, size=200)
    world.log.close(clean=True)
    world.disk = world.disk.kill()
    first, second = world.segments()[:2]
    world.disk.flip_bits(first, 4300)
    world.restart(world.disk, verify_from=lambda: int(second[8:28]))
    reader = world.log.reader()
    assert reader.find(150) is not None
    for offset in (100, 60, 150, 179):
        found = reader.find(offset)
        assert found is not None
        assert found[1] == command(offset, size=200)
    index = world.log._catalog.segments[0].index
    list(reader.frames(int(second[8:28]) - 1, int(second[8:28])))
    assert index.covered_sequence == int(second[8:28])
    with pytest.raises(LogDamaged) as caught:
        list(reader.groups(0))
    assert caught.value.file == first
    assert caught.value.byte_position == 4096


def test_one_directory_has_one_process() -> None:
    world = World()
    with pytest.raises(LogInUse, match="LOCK is locked by another process"):
        world.open()
    world.log.close(clean=False)
    world.open()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"shard": ShardId(4)}, "belongs to shard 3, not to 4"),
        ({"replica": "b"}, "belongs to replica '', not to 'b'"),
        ({"cluster_uid": b"v" * 16}, "belongs to cluster"),
    ],
)
def test_the_directory_of_somebody_else_is_refused(changes: dict[str, Any], reason: str) -> None:
    world = World()
    world.groups(2)
    with pytest.raises(LogRefused, match=reason):
        World(disk=world.disk.kill(), **changes)


def test_identity_is_minted_once_and_its_loss_is_damage() -> None:
    world = World()
    identity = world.log.identity
    assert len(identity.cluster_uid) == len(identity.disk_uuid) == 16
    assert decode_identity(world.read("IDENTITY")) == identity
    world.restart(world.disk.kill())
    assert world.log.identity == identity
    for damage in ("flip", "remove"):
        disk = world.disk.kill()
        if damage == "flip":
            disk.flip_bits("IDENTITY", 5)
        else:
            disk.remove("IDENTITY")
        with pytest.raises(LogDamaged, match="IDENTITY"):
            World(disk=disk)
        world.disk = disk


def test_a_directory_of_no_replica_becomes_the_one_of_a_replica_by_wish_alone() -> None:
    world = World()
    world.groups(2)
    before = world.log.identity
    adopted = World(disk=world.disk.kill(), replica="0", adopts=True)
    after = msgspec.structs.replace(before, replica="0")
    assert adopted.log.identity == decode_identity(adopted.read("IDENTITY")) == after
    with pytest.raises(LogRefused, match="belongs to replica '0', not to '1'"):
        World(disk=adopted.disk.kill(), replica="1", adopts=True)


def test_a_newer_identity_is_refused() -> None:
    world = World()
    newer = msgspec.structs.replace(world.log.identity, format=2)
    world.overwrite("IDENTITY", 0, encode_identity(newer))
    with pytest.raises(LogRefused, match="format 2; this release reads 1"):
        world.restart(world.disk.kill())


def test_segments_of_another_cluster_are_refused() -> None:
    world, other = World(seed=1), World(seed=2)
    world.groups(2)
    other.groups(2)
    world.overwrite(world.segments()[0], 0, other.read(other.segments()[0]))
    with pytest.raises(LogRefused, match="belongs to cluster"):
        world.restart(world.disk.kill())


def test_an_epoch_never_goes_back() -> None:
    world = World(epoch=Epoch(5))
    world.group()
    with pytest.raises(InvariantBroken, match="epochs only grow"):
        world.restart(world.disk.kill(), epoch=Epoch(4))
    world.restart(world.disk.kill(), epoch=Epoch(6))
    world.group()
    assert [one.header.epoch for one in world.log.reader().frames(0)] == [5, 6, 6]


@pytest.mark.parametrize(
    "changes",
    [
        {"handlers": b"short"},
        {"codec": 0},
        {"codec": 256},
        {"cluster_uid": b"short"},
        {"limits": msgspec.structs.replace(LIMITS, frame_bytes_max=1 << 25)},
        {"limits": msgspec.structs.replace(LIMITS, segment_bytes=8000)},
        {"limits": msgspec.structs.replace(LIMITS, segment_bytes=16385)},
    ],
)
def test_options_that_cannot_work_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvariantBroken):
        World(**changes)


def test_master_keys_rotate_with_the_next_segment_and_old_ones_stay_readable() -> None:
    world = World(master_key="old")
    world.groups(3)
    world.restart(world.disk.kill(), master_key="disk")
    world.groups(3)
    world.restart(world.disk.kill(), master_key=None)
    world.groups(3)
    assert len(list(world.log.reader().groups(0))) == 9
    missing = dict(SECRETS.values)
    removed = SECRETS.values.pop("old")
    try:
        with pytest.raises(LogRefused, match="'old', which is not there"):
            world.restart(world.disk.kill())
    finally:
        SECRETS.values["old"] = removed
    assert missing == SECRETS.values


def test_no_content_is_readable_on_an_encrypted_disk() -> None:
    world = World(master_key="disk")
    world.groups(5)
    assert b"acme" not in world.read(world.segments()[0])
    assert b"acme" in (b"".join(one.payload for one in world.log.reader().frames(0)))


@pytest.mark.parametrize(
    "draft",
    [
        FrameDraft(FrameKind.COMMANDS, 3, 1, START + 9, b"x"),
        FrameDraft(FrameKind.COMMANDS, 5, 1, START + 9, b"x"),
        FrameDraft(FrameKind.COMMANDS, 4, 1, START, b"x"),
        FrameDraft(FrameKind.OUTCOMES, 1, 1, START + 9, b"x"),
        FrameDraft(FrameKind.OUTCOMES, 2, 3, START + 9, b"x"),
    ],
    ids=["overlap", "gap", "time", "again", "beyond"],
)
def test_a_frame_that_does_not_continue_the_log_ends_it(draft: FrameDraft) -> None:
    world = World()
    world.groups(2)
    with pytest.raises(InvariantBroken):
        world.write([draft])
    before = len(world.written)
    world.log.write([world.commands(1)], world.written.append)
    assert len(world.written) == before
    assert world.log.mark() is False
    world.restart(world.disk.kill())
    assert world.log.recovered.end_sequence == 3


@pytest.mark.parametrize("call", ["pwrite", "sync"])
def test_a_failed_write_or_sync_ends_the_log_and_is_never_tried_again(call: str) -> None:
    world = World()
    world.groups(2)
    world.disk.inject(Raises(errno.EIO) if call == "pwrite" else FailedSync(), call)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="\\[Errno 5\\]"):
        world.group()
    trace = len(world.disk.trace)
    world.log.write([world.commands(1)], world.written.append)
    world.log.close(clean=True)
    assert len(world.disk.trace) == trace
    assert len(world.failures) == 1
    world.restart(world.disk.power_cut())
    assert world.log.recovered.end_offset in {4, 6}


def test_a_full_disk_refuses_a_write_whole_and_consumes_no_sequence() -> None:
    world = World()
    world.group()
    stand = world.written[-1]
    world.disk.capacity = 1
    while True:
        offset, recorded = world.offset, world.recorded
        written = world.group(count=4, size=500)
        if written.error is not None:
            break
        stand = written
    assert isinstance(written.error, DiskFull)
    assert world.log.read_only
    assert (written.end_sequence, written.durable_end) == (stand.end_sequence, stand.durable_end)
    assert (written.chain, written.bytes) == (stand.chain, 0)
    assert not world.failures
    # What was formed on top of the refused group is refused as well, until it is noticed.
    world.recorded = recorded
    assert world.write([world.commands(1)]).error is not None
    world.disk.capacity = 1 << 40
    assert world.write([world.commands(1)]).error is not None
    world.offset = offset
    world.log.maintain()
    assert not world.log.read_only
    assert world.group().error is None
    world.restart(world.disk.power_cut())
    assert world.log.recovered.end_offset == offset + 2


def test_outcomes_that_fit_are_written_while_commands_are_refused() -> None:
    world = World()
    world.group()
    world.disk.capacity = 1
    while (written := world.write([world.commands(1, size=3000)])).error is None:
        offset = world.offset
    assert world.write([world.outcomes(2)]).error is None
    # The refused group is still being built upon: that is refused, and is no bug.
    assert world.write([world.commands(1)]).error is not None
    world.offset = offset
    assert world.write([world.commands(1)]).error is None
    assert written.error is not None


def test_a_write_torn_by_a_full_disk_leaves_nothing_behind() -> None:
    world = World(master_key="disk")
    world.groups(2)
    path = world.segments()[0]
    end = len(world.read(path).rstrip(b"\0"))
    world.disk.inject(ShortWrite(200, errno.ENOSPC), "pwrite")
    offset, recorded = world.offset, world.recorded
    assert world.group().error is not None
    assert len(world.read(path)) - end < 8
    world.offset, world.recorded = offset, recorded
    assert world.group().error is None
    assert len(world.segments()) == 2, "a nonce is never used twice: the segment is left"
    world.restart(world.disk.power_cut())
    assert world.log.recovered.end_offset == 6


def test_the_reserve_lets_a_full_log_stop_cleanly() -> None:
    world = World(limits=msgspec.structs.replace(LIMITS, reserve_bytes=80 * 1024))
    assert world.disk.exists("RESERVE")
    used = world.disk.capacity - world.disk.free_bytes()
    world.disk.capacity = used
    while world.group(count=4, size=700).error is None:
        offset, recorded = world.offset, world.recorded
    world.offset, world.recorded = offset, recorded
    # Fill what is left of the current segment, so that the last outcomes find no room.
    while world.write([world.commands(1, size=30)]).error is None:
        offset = world.offset
    world.offset = offset
    assert world.log.read_only
    assert world.write([world.outcomes(4)]).error is not None
    world.log.release_reserve()
    world.recorded = recorded
    while world.recorded < world.offset:
        written = world.write([world.outcomes(min(4, world.offset - world.recorded))])
        assert written.error is None
    world.log.close(clean=True)
    world.restart(world.disk.power_cut())
    assert world.log.recovered.recorded_end == world.log.recovered.end_offset == offset


def test_a_full_disk_at_the_start_costs_the_reserve_and_the_log_is_read_only() -> None:
    limits = msgspec.structs.replace(LIMITS, reserve_bytes=20 * 1024)
    world = World(limits=limits)
    world.groups(2)
    disk = world.disk.kill()
    disk.remove("log/prepare-1.tmp")
    disk.capacity = disk.image().used_bytes(frozenset())
    assert disk.free_bytes() == 0
    world.restart(disk)
    assert not disk.exists("RESERVE")
    assert world.log.read_only
    assert world.log.recovered.end_offset == 4
    disk.capacity = 1 << 40
    world.log.maintain()
    assert disk.exists("RESERVE")
    assert not world.log.read_only


def test_a_start_without_room_is_disk_full_and_loses_nothing() -> None:
    world = World(limits=msgspec.structs.replace(LIMITS, reserve_bytes=0))
    world.groups(2)
    disk = world.disk.kill()
    for name in disk.list("log"):
        if name.startswith("prepare"):
            disk.remove(f"log/{name}")
    disk.capacity = 1
    with pytest.raises(DiskFull):
        world.restart(disk)
    disk.capacity = 1 << 40
    world.restart(disk)
    assert world.log.recovered.end_offset == 4


def test_an_unsynced_write_is_not_durable_until_a_sync_is_asked_for() -> None:
    world = World()
    written = world.write([world.commands(2)], sync=False)
    assert (written.end_sequence, written.durable_end, written.sync_s) == (1, 0, 0)
    assert list(world.log.reader().frames(0)) == []
    world.log.sync(world.written.append)
    assert world.written[-1].durable_end == 1
    assert len(list(world.log.reader().frames(0))) == 1
    world.write([world.commands(2)], sync=False)
    while len(world.segments()) == 1:
        world.write([world.commands(2, size=2000)], sync=False)
    # The name of the new segment proves what lies before it, so that was synced.
    first = int(world.segments()[1][8:28])
    assert world.written[-1].durable_end == first
    survivor = World(disk=world.disk.power_cut())
    assert survivor.log.recovered.end_sequence >= first


def test_nothing_is_written_before_the_start_or_started_twice() -> None:
    world = World()
    with pytest.raises(InvariantBroken, match="started once"):
        world.log.start(world.failures.append)
    world.log.close(clean=True)
    log = Log.open(world.disk, world.clock, SimRandom(9), SECRETS, options())
    with pytest.raises(InvariantBroken, match="after its start"):
        log.write([world.commands(1)], world.written.append)
    with pytest.raises(InvariantBroken, match="write_now"):
        log.write_now([world.commands(1)])


def test_write_now_writes_on_the_callers_thread() -> None:
    world = World(SimDisk(record=True))
    drafts = [world.commands(2)]
    assert world.log.takes_now(drafts, 64 * 1024)
    written = world.log.write_now(drafts)
    assert written is not None
    assert written.durable_end == 1
    world.disk.inject(Raises(errno.EIO), "sync")
    assert world.log.write_now([world.commands(2)]) is None
    assert [getattr(error, "errno", None) for error in world.failures] == [errno.EIO]
    assert not world.log.takes_now([world.commands(2)], 64 * 1024)
    # Whoever had asked before the failure writes nothing behind it.
    trace = len(world.disk.trace)
    world.offset = 4
    assert world.log.write_now([world.commands(2)]) is None
    assert len(world.disk.trace) == trace


def test_write_now_takes_only_what_is_small_and_fits_into_the_segment() -> None:
    world = World()
    draft = world.commands(1)
    size = frame_bytes_at_most(len(draft.payload))
    assert world.log.takes_now([draft], size)
    assert not world.log.takes_now([draft], size - 1)
    assert not world.log.takes_now([draft] * 2, size)
    room = world.log._appender.room_bytes
    many = [draft] * (room // size)
    assert world.log.takes_now(many, 1 << 40)
    assert not world.log.takes_now([*many, draft], 1 << 40)
    with world.log.quiet():
        assert not world.log.takes_now([draft], size)
    world.log.close(clean=True)
    assert not world.log.takes_now([draft], size)


def test_a_callback_may_write_again() -> None:
    world = World()
    seen: list[int] = []

    def again(written: object) -> None:
        seen.append(len(seen))
        if len(seen) < 4:
            world.log.write([world.commands(1)], again)

    world.log.write([world.commands(1)], again)
    assert seen == [0, 1, 2, 3]
    assert world.log.idle
    assert len(list(world.log.reader().groups(0))) == 4


def test_a_callback_that_raises_ends_the_log() -> None:
    world = World()

    def wrong(written: object) -> None:
        raise ZeroDivisionError

    world.log.write([world.commands(1)], wrong)
    assert isinstance(world.failures[0], ZeroDivisionError)


class Reversed(MsgpackSerializer):
    """A user's codec: payloads backwards."""

    @property
    def codec(self) -> int:
        return 64

    def encode_commands(self, commands: object) -> bytes:
        return super().encode_commands(commands)[::-1]  # type: ignore[arg-type]

    def decode_commands(self, payload: bytes) -> list[object]:  # type: ignore[override]
        return list(super().decode_commands(payload[::-1]))


def test_a_users_codec_is_stamped_and_used_for_reading() -> None:
    world = World(codec=64, codecs=[Reversed()])
    draft = world.commands(2)
    world.write([msgspec.structs.replace(draft, payload=draft.payload[::-1])])
    group = next(world.log.reader().groups(0))
    assert group.header.codec == 64
    assert group.commands == [command(0), command(1)]
    world.changes.pop("codecs")
    world.restart(world.disk.kill(), codec=1)
    with pytest.raises(LogRefused, match="codec 64; no serializer"):
        list(world.log.reader().groups(0))


def test_outcomes_of_one_group_may_need_several_frames() -> None:
    world = World()
    drafts = [world.commands(10)]
    drafts += outcome_drafts(
        SERIALIZER, [outcome(n) for n in range(10)], Instant(world.time), payload_bytes_max=60
    )
    assert len(drafts) > 2
    world.write(drafts[:2])
    group = next(world.log.reader().groups(0))
    assert group.outcomes is None
    assert group.outcomes_payload is None
    world.restart(world.disk.kill())
    recorded = int(world.log.recovered.recorded_end)
    assert 0 < recorded < 10
    rest = list(
        outcome_drafts(
            SERIALIZER,
            [outcome(n) for n in range(10)],
            Instant(world.time),
            recorded_end=recorded,
        )
    )
    world.write([*rest, world.commands(1)])
    group = next(world.log.reader().groups(0))
    assert group.outcomes == [outcome(n) for n in range(10)]
    assert group.outcomes_payload == SERIALIZER.encode_outcomes([outcome(n) for n in range(10)])


def test_an_outcomes_frame_over_two_groups_is_found_when_read() -> None:
    world = World()
    world.write([world.commands(2), world.commands(2), world.outcomes(3)])
    with pytest.raises(InvariantBroken, match="belongs to one COMMANDS frame"):
        list(world.log.reader().groups(0))


def test_groups_are_read_from_the_middle_and_up_to_an_end() -> None:
    world = World()
    world.groups(40, count=3, size=100)
    reader = world.log.reader()
    for start, end in ((0, None), (1, 5), (50, 70), (58, 59), (117, 120), (119, None), (120, None)):
        groups = list(reader.groups(start, end))
        offsets = [n for g in groups for n in range(g.header.base_offset, g.header.offset_end)]
        last = 120 if end is None else -(-end // 3) * 3
        assert offsets == list(range(start // 3 * 3, min(last, 120)))
        for group in groups:
            assert group.recorded == (group.header.base_offset < 117)


def test_one_command_is_found_with_its_outcome() -> None:
    world = World()
    world.groups(40, count=3, size=100)
    reader = world.log.reader()
    for offset in range(120):
        found = reader.find(offset)
        assert found is not None
        header, found_command, found_outcome = found
        assert header.base_offset <= offset < header.offset_end
        assert found_command == command(offset, size=100)
        if offset < 117:
            assert found_outcome is not None
            assert found_outcome.offset == offset
        else:
            assert found_outcome is None
    assert reader.find(120) is None


def test_chains_tell_histories_apart_at_every_position() -> None:
    world = World()
    world.groups(30, count=3, size=100)
    reader = world.log.reader()
    frames = list(reader.frames(0))
    for frame in frames:
        assert reader.chain_at(frame.header.sequence) == frame.header.chain
    assert reader.chain_at(len(frames)) == world.written[-1].chain
    assert reader.durable_end == len(frames) == world.log.durable.durable_end
    with pytest.raises(LookupError):
        reader.chain_at(len(frames) + 1)


def test_frames_are_read_in_any_range() -> None:
    world = World()
    world.groups(30, count=3, size=100)
    reader = world.log.reader()
    for start in range(0, 59, 7):
        for end in range(start, 70, 5):
            sequences = [one.header.sequence for one in reader.frames(start, end)]
            assert sequences == list(range(start, min(end, 59)))


def test_a_reader_follows_the_log_as_it_grows() -> None:
    world = World()
    reader = world.log.reader()
    seen = 0
    for _ in range(60):
        world.group(count=2, size=300)
        for frame in reader.frames(seen):
            assert frame.header.sequence == seen
            seen += 1
    assert len(world.segments()) > 2
    assert seen == world.written[-1].end_sequence


def test_damage_under_a_running_log_is_seen_by_its_readers() -> None:
    world = World()
    world.groups(30, count=3, size=100)
    reader = world.log.reader()
    frames = list(reader.frames(0))
    position = 4096 + sum(one.header.frame_bytes for one in frames[:4])
    path = world.segments()[0]
    data = world.read(path)
    for at in (position, position + 40, position + 90, position + 140):
        world.overwrite(path, at, bytes([data[at] ^ 1]))
        with pytest.raises(LogDamaged) as caught:
            list(reader.frames(0))
        assert (caught.value.sequence, caught.value.byte_position) == (4, position)
        assert caught.value.offset == 6
        world.overwrite(path, at, data[at : at + 1])
    assert len(list(reader.frames(0))) == 59


def test_swapped_frames_are_seen_by_a_reader() -> None:
    world = World()
    world.groups(10, count=3, size=100)
    frames = list(world.log.reader().frames(0))
    path = world.segments()[0]
    data = world.read(path)
    starts = [4096]
    for frame in frames:
        starts.append(starts[-1] + frame.header.frame_bytes)
    # Frames 3 and 5 hold two groups of the same length.
    third, fifth = data[starts[3] : starts[4]], data[starts[5] : starts[6]]
    assert len(third) == len(fifth)
    world.overwrite(path, starts[3], fifth)
    with pytest.raises(LogDamaged, match="frame 5 stands here"):
        list(world.log.reader().frames(0))


def test_what_retention_removed_is_said_to_be_removed() -> None:
    world = World()
    world.groups(60, count=3, size=200)
    report = world.log.retain(170, 100, {})
    assert report.removed
    reader = world.log.reader()
    for read in (
        lambda: list(reader.frames(0)),
        lambda: list(reader.groups(0)),
        lambda: reader.find(0),
        lambda: reader.chain_at(0),
    ):
        with pytest.raises(BelowRetention) as caught:
            read()
        assert caught.value.first_sequence == report.first_sequence
        assert caught.value.first_offset == report.first_offset
    assert reader.find(report.first_offset) is not None


def test_a_reader_that_is_overtaken_by_retention_says_so() -> None:
    world = World()
    world.groups(60, count=3, size=200)
    frames = world.log.reader().frames(0)
    next(frames)
    world.log.retain(170, 100, {})
    with pytest.raises(BelowRetention):
        list(frames)


def test_the_log_works_on_an_empty_directory_alone() -> None:
    disk = SimDisk()
    World(disk=disk)
    assert sorted(disk.list("")) == ["IDENTITY", "LOCK", "RESERVE", "broken", "log"]


def test_another_chain_key_does_not_break_the_chain_of_copied_frames() -> None:
    world = World()
    world.groups(5)
    for key, copied in (("chain", 2), ("chain", 0), (None, 0)):
        chain = world.written[-1].chain
        world.restart(world.disk.kill(), chain_key=key)
        assert world.log.recovered.copied_frames == copied
        assert world.log.recovered.chain == chain
        assert world.log.reader().chain_at(int(world.log.recovered.end_sequence)) == chain
        if copied:
            world.group()
            world.log.close(clean=True)
        else:
            world.groups(2)
            world.log.mark()
    assert len(list(world.log.reader().groups(0))) == 10
    named = [world.log._catalog.segments[n].header.chain_key for n in range(len(world.segments()))]
    # The old key for the copies, then the new one, then none again.
    assert named == ["", "", "chain", ""]
    world.restart(world.disk.kill())


def test_a_refused_write_that_needs_a_long_segment_does_not_leave_the_log_read_only() -> None:
    world = World()
    world.group()
    world.disk.capacity = 1
    offset, recorded = world.offset, world.recorded
    written = world.write([world.commands(3, size=2000) for _ in range(5)])
    assert written.error is not None
    assert world.log.read_only
    world.offset, world.recorded = offset, recorded
    # Everything that is kept ahead is still there, so smaller writes go on.
    world.log.maintain()
    assert not world.log.read_only
    assert world.group().error is None


def test_a_full_disk_that_shows_in_the_middle_of_a_roll_changes_nothing() -> None:
    for call in ("pwrite", "rename"):
        world = World(limits=msgspec.structs.replace(LIMITS, segments_prepared=2))
        world.group()
        world.write([world.outcomes(2), world.commands(1, size=9000)])
        offset = world.offset
        world.disk.inject(Raises(errno.ENOSPC), call, "log/prepare-*")
        written = world.write([world.commands(1, size=7000)])
        assert written.error is not None
        world.offset = offset
        assert world.write([world.commands(1, size=7000)]).error is None
        assert not world.failures
        world.restart(world.disk.power_cut())
        assert world.log.recovered.end_offset == offset + 1


def test_mark_and_retention_end_the_log_on_an_error_of_the_disk() -> None:
    for what in ("mark", "remove"):
        world = World()
        world.groups(60, count=3, size=200)
        world.disk.inject(Raises(errno.EIO), "remove" if what == "remove" else "sync")
        with pytest.raises(OSError, match="\\[Errno 5\\]"):
            world.log.mark() if what == "mark" else world.log.retain(150, 90, {})
        assert len(world.failures) == 1
        before = len(world.written)
        world.log.write([world.commands(1)], world.written.append)
        assert len(world.written) == before


def test_a_torn_tail_on_a_full_disk_is_kept_at_the_cost_of_the_reserve() -> None:
    world = World(limits=msgspec.structs.replace(LIMITS, reserve_bytes=64 * 1024))
    world.groups(2)
    path = world.segments()[0]
    end = len(world.read(path).rstrip(b"\0"))
    world.overwrite(path, end + 8, b"torn")
    disk = world.disk.kill()
    disk.capacity -= disk.free_bytes()
    world.restart(disk)
    torn = world.log.recovered.torn
    assert torn is not None
    assert world.read(torn.kept_as).strip(b"\0") == b"torn"
    assert world.log.recovered.end_offset == 4


def test_two_torn_tails_at_one_place_are_both_kept() -> None:
    world = World()
    kept = []
    for content in (b"first", b"second"):
        world.group()
        world.log.close(clean=True)
        world.disk = world.disk.kill()
        path = world.segments()[0]
        file = world.disk.open(path, write=True)
        file.pwrite(content, 8192)
        world.restart(world.disk)
        torn = world.log.recovered.torn
        if torn is not None:
            kept.append(world.read(torn.kept_as).strip(b"\0"))
    assert kept[0] == b"first"


def test_a_segment_of_another_shard_of_the_same_cluster_is_refused() -> None:
    uid = b"u" * 16
    world, other = World(cluster_uid=uid), World(cluster_uid=uid, shard=ShardId(4))
    other.groups(2)
    world.overwrite(world.segments()[0], 0, other.read(other.segments()[0]))
    with pytest.raises(LogRefused, match="belongs to shard 4"):
        world.restart(world.disk.kill())


def test_many_writes_from_callbacks_do_not_nest() -> None:
    world = World()
    left = 3000

    def again(written: object) -> None:
        nonlocal left
        left -= 1
        if left:
            world.log.write([world.commands(1)], again)

    world.log.write([world.commands(1)], again)
    assert left == 0
    assert not world.failures


def test_a_segment_that_ends_before_the_next_begins_is_damage_even_without_mark() -> None:
    world = World()
    world.groups(60, count=3, size=200)
    world.log.close(clean=True)
    world.disk = world.disk.kill()
    world.disk.remove("log/MARK")
    path, following = world.segments()[:2]
    data = world.read(path)
    last = data.rfind(b"UEFR")
    world.overwrite(path, last, bytes(len(data) - last))
    with pytest.raises(LogDamaged) as caught:
        world.restart(world.disk)
    assert caught.value.file == path
    assert caught.value.byte_position == last
    assert caught.value.sequence == int(following[8:28]) - 1


def test_the_segment_before_is_cut_where_the_copies_begin() -> None:
    world = World()
    world.groups(5)
    frames = list(world.log.reader().frames(0))
    world.restart(world.disk.kill())
    assert world.log.recovered.copied_frames == 2
    kept = 4096 + sum(one.header.frame_bytes for one in frames[:7])
    assert len(world.read(world.segments()[0])) == kept


def test_a_segment_that_another_history_has_replaced_is_seen_by_a_reader() -> None:
    worlds = [World(seed=1, cluster_uid=b"u" * 16), World(seed=1, cluster_uid=b"u" * 16)]
    for world, size in zip(worlds, (300, 301), strict=True):
        world.groups(30, count=3, size=size)
        world.log.close(clean=True)
        world.disk = world.disk.kill()
    ours, theirs = worlds
    first, second = ours.segments()[:2]
    ours.restart(ours.disk, verify_from=lambda: int(second[8:28]))
    ours.overwrite(first, 0, theirs.read(first))
    with pytest.raises(LogDamaged, match="the segments before have another chain") as caught:
        list(ours.log.reader().frames(0))
    assert caught.value.file == second
    ours.disk = ours.disk.kill()
    # The next start reads no more than the end of that segment, and sees it there.
    with pytest.raises(LogDamaged, match="with another history"):
        ours.restart(ours.disk)


def test_segments_and_marks_are_durable_before_they_are_relied_on() -> None:
    world = World(SimDisk(record=True))
    world.groups(3)
    before = len(world.disk.trace)
    world.log.mark()
    kinds = [type(one).__name__ for one in world.disk.trace[before:]]
    assert kinds[-3:] == ["SyncFile", "Rename", "SyncDirectory"]
    before = len(world.disk.trace)
    Space(world.disk, LIMITS).prepare(LIMITS.segment_bytes)
    kinds = [type(one).__name__ for one in world.disk.trace[before:]]
    assert kinds[-2:] == ["Write", "SyncFile"]
    world.disk = world.disk.power_cut(lambda _: 0)
    assert decode_mark(world.read("log/MARK")).durable_end == 5


def test_a_frame_put_in_the_place_of_another_breaks_the_chain_for_a_reader() -> None:
    world = World()
    world.groups(10, count=3, size=100)
    frames = list(world.log.reader().frames(0))
    path = world.segments()[0]
    starts = [4096]
    for frame in frames:
        starts.append(starts[-1] + frame.header.frame_bytes)
    other = msgspec.structs.replace(draft_of(frames[4]), payload=frames[4].payload[::-1])
    parts, length, _ = encode(other, place_of(frames[4].header), Keys())
    assert length == frames[4].header.frame_bytes
    world.overwrite(path, starts[4], b"".join(parts))
    with pytest.raises(LogDamaged, match="the chain does not continue") as caught:
        list(world.log.reader().frames(0))
    assert (caught.value.sequence, caught.value.byte_position) == (5, starts[5])


def test_a_request_that_stood_on_a_refused_one_is_refused_with_it() -> None:
    world = World()
    world.group()
    world.log.maintain()
    requests = [
        Request([world.outcomes(2), world.commands(1, size=100)], sync=True),
        # Does not fit behind the first one, so the first is written before the log rolls.
        Request([world.commands(1, size=7000), world.commands(1, size=7000)], sync=True),
        Request([], sync=True),
    ]
    world.disk.inject(ShortWrite(50, errno.ENOSPC), "pwrite")
    first, second, sync = world.log._appender.append(requests)
    assert first.error is not None
    assert second.error is not None
    assert (sync.error, sync.durable_end, sync.end_sequence) == (None, 1, 1)
    assert len(world.segments()) == 1


def test_a_segment_that_vanished_is_an_error_and_not_retention() -> None:
    world = World()
    world.groups(3)
    world.disk.remove(world.segments()[0])
    with pytest.raises(FileNotFoundError):
        list(world.log.reader().frames(0))


def test_frames_that_are_not_durable_yet_are_not_shown_wherever_reading_begins() -> None:
    world = World(limits=msgspec.structs.replace(LIMITS, segment_bytes=1 << 20))
    world.groups(3)
    for _ in range(20):
        world.write([world.commands(1, size=7000)], sync=False)
    reader = world.log.reader()
    assert len(list(reader.frames(0))) == 5
    assert [group.header.base_offset for group in reader.groups(0)] == [0, 2, 4]
    assert reader.find(24) is None
    assert list(reader.groups(20)) == []


def test_a_damaged_header_in_a_segment_that_nobody_has_walked_is_found_by_a_lookup() -> None:
    world = World()
    world.groups(60, count=3, size=200)
    frames = list(world.log.reader().frames(0, 4))
    world.log.close(clean=True)
    world.disk = world.disk.kill()
    position = 4096 + sum(one.header.frame_bytes for one in frames[:3])
    first, second = world.segments()[:2]
    world.disk.flip_bits(first, position + 20)
    world.restart(world.disk, verify_from=lambda: int(second[8:28]))
    with pytest.raises(LogDamaged) as caught:
        world.log.reader().find(20)
    assert (caught.value.sequence, caught.value.byte_position) == (3, position)
    assert caught.value.offset == 6


def test_a_segment_under_the_name_of_another_is_damage() -> None:
    world = World()
    world.groups(60, count=3, size=200)
    world.log.close(clean=True)
    world.disk = world.disk.kill()
    second, third = world.segments()[1:3]
    world.overwrite(second, 0, world.read(third))
    with pytest.raises(LogDamaged, match="the header is that of segment"):
        world.restart(world.disk)


def test_an_error_of_the_sync_is_no_full_disk_even_while_zeros_are_written() -> None:
    disk = SimDisk()
    disk.make_directory("log")
    disk.inject(Raises(errno.EIO), "sync")
    with pytest.raises(OSError, match="\\[Errno 5\\]") as caught:
        Space(disk, LIMITS).prepare(LIMITS.segment_bytes)
    assert not isinstance(caught.value, DiskFull)
    disk.inject(Raises(errno.ENOSPC), "sync")
    with pytest.raises(DiskFull):
        Space(disk, LIMITS).prepare(LIMITS.segment_bytes)
    assert disk.list("log") == []
