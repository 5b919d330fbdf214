"""verify, dump, diff, repair and truncate, on whole and on damaged logs."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from tests.unit.log.log_world import LIMITS, SECRETS, World, command

from ultraengine.log.damage import LogDamaged, LogInUse, LogRefused
from ultraengine.log.first import write_first
from ultraengine.log.tools import (
    RepairReport,
    TruncateReport,
    diff,
    dump,
    repair,
    truncate,
    verify,
)
from ultraengine.testing.sim_clock import SimClock, SimRandom
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_image import Image

UID = b"u" * 16
FORM: dict[str, Any] = {
    "compress": True,
    "master_key": "disk",
    "chain_key": "chain",
    "cluster_uid": UID,
}


def built(groups: int = 40, seed: int = 0, **changes: Any) -> World:
    """A log of several segments, stopped, on a disk of its own."""
    world = World(SimDisk(seed), seed, **({"cluster_uid": UID} | changes))
    world.groups(groups, count=3, size=300)
    return world


def stopped(world: World) -> World:
    world.log.close(clean=True)
    world.disk = world.disk.kill()
    return world


def copy(image: Image) -> SimDisk:
    return SimDisk(image=image.copy())


def mend(damaged: SimDisk, good: SimDisk, *, encrypt: bool = False) -> RepairReport:
    return repair(
        damaged,
        good,
        clock=SimClock(),
        random=SimRandom(7),
        secrets=SECRETS,
        master_key="disk" if encrypt else None,
    )


def cut(disk: SimDisk, after: int, **changes: Any) -> TruncateReport:
    return truncate(disk, after, clock=SimClock(), secrets=SECRETS, **changes)


def content(disk: SimDisk, **changes: Any) -> list[tuple[int, bytes, bytes]]:
    """Sequence, chain and payload of every frame that a process would serve."""
    world = World(disk, 99, **({"cluster_uid": UID} | changes))
    return [(f.header.sequence, f.header.chain, f.payload) for f in world.log.reader().frames(0)]


# --- verify --------------------------------------------------------------------------------


def test_verify_of_a_whole_log_says_what_is_there() -> None:
    world = stopped(built(**FORM))
    report = verify(world.disk, SECRETS)
    assert report.ok
    assert report.problems == ()
    assert report.identity == world.log.identity
    assert (report.end_sequence, report.end_offset, report.recorded_end) == (79, 120, 117)
    assert report.chain == world.written[-1].chain.hex()
    assert report.state_chain == world.written[-1].state_chain.hex()
    assert report.mark_end == report.proved_end == 79
    assert report.torn_bytes == 0
    ends = [segment.end_sequence for segment in report.segments]
    assert [segment.first_sequence for segment in report.segments] == [0, *ends[:-1]]
    assert [segment.verdict for segment in report.segments[:-1]] == ["continue"] * (len(ends) - 1)
    assert report.segments[-1].verdict == "end"
    assert all(segment.encrypted and segment.keyed for segment in report.segments)
    assert json.loads(msgspec.json.encode(report))["end_offset"] == 120


def test_verify_of_an_empty_directory_misses_its_identity() -> None:
    report = verify(SimDisk(), SECRETS)
    assert not report.ok
    assert report.problems[0].file == "IDENTITY"
    assert report.end_sequence == 0
    assert report.chain == ""


def test_verify_goes_on_behind_damage_and_lists_all_of_it() -> None:
    world = stopped(built())
    first, _, third = world.segments()[:3]
    world.disk.flip_bits(first, 5000)
    world.disk.flip_bits(third, 100)
    world.disk.flip_bits("IDENTITY", 3)
    report = verify(world.disk, SECRETS)
    assert [problem.file for problem in report.problems] == ["IDENTITY", first, third]
    assert report.problems[1].message.startswith(f"{first}: damaged at byte")
    assert report.end_offset == 120


def test_verify_from_a_frame_on_leaves_older_segments_out() -> None:
    world = stopped(built())
    first, second = world.segments()[:2]
    world.disk.flip_bits(first, 5000)
    assert not verify(world.disk, SECRETS).ok
    report = verify(world.disk, SECRETS, from_sequence=int(second[8:28]))
    assert report.ok
    assert report.segments[0].first_sequence == int(second[8:28])


def test_verify_tells_a_torn_tail_and_a_log_without_segments() -> None:
    world = built(2)
    path = world.segments()[0]
    end = len(world.read(path).rstrip(b"\0"))
    world.overwrite(path, end + 8 - end % 8, b"torn")
    report = verify(world.disk, SECRETS)
    assert report.ok
    assert 4 <= report.torn_bytes <= 12
    world = stopped(built(2))
    for path in world.segments():
        world.disk.remove(path)
    assert "MARK proves frames" in verify(world.disk, SECRETS).problems[0].reason


class Overtaken(SimDisk):
    """A disk on which retention removes the first segment while it is being looked at."""

    lists = 0
    overtakes = 1

    def list(self, path: str) -> Sequence[str]:
        names = super().list(path)
        segments = [name for name in names if name.startswith("seg-")]
        if path == "log" and self.lists < self.overtakes and len(segments) > 1:
            self.lists += 1
            write_first(self, int(segments[1][4:24]))
            self.remove(f"log/{segments[0]}")
        return names


def test_verify_begins_again_when_retention_overtakes_it() -> None:
    world = stopped(built())
    disk = Overtaken(image=world.disk.image())
    report = verify(disk, SECRETS)
    assert report.ok
    assert report.segments[0].first_sequence > 0
    assert report.end_offset == 120
    disk = Overtaken(image=world.disk.image())
    disk.overtakes = 10
    with pytest.raises(FileNotFoundError):
        verify(disk, SECRETS)


# --- dump ----------------------------------------------------------------------------------


def test_dump_shows_every_frame_with_its_content_as_json_can_hold_it() -> None:
    world = stopped(built(10, **FORM))
    shown = list(dump(world.disk, SECRETS))
    assert json.loads(json.dumps(shown)) == shown
    assert [one["sequence"] for one in shown] == list(range(19))
    kinds = [one["kind"] for one in shown[:5]]
    assert kinds == ["COMMANDS", "OUTCOMES", "COMMANDS", "OUTCOMES", "COMMANDS"]
    first = shown[0]["commands"][0]
    assert first["id"] == "id-0"
    assert first["key"] == "k0"
    assert first["data"].startswith("0:")
    assert shown[1]["outcomes"][2] == {
        "offset": 2,
        "status": 0,
        "version": 3,
        "result": 2,
        "events": [],
        "failure": None,
        "messages": None,
    }
    assert shown[3]["chain"] == content(world.disk.kill(), **FORM)[3][1].hex()


def test_dump_takes_a_range_and_may_leave_content_out() -> None:
    world = stopped(built(40))
    shown = list(dump(world.disk, SECRETS, from_sequence=33, to_sequence=41, payloads=False))
    assert [one["sequence"] for one in shown] == list(range(33, 41))
    assert all("commands" not in one and "outcomes" not in one for one in shown)


def test_dump_shows_raw_bytes_where_it_cannot_decode() -> None:
    world = World(codec=70, cluster_uid=UID)
    world.group()
    (shown,) = dump(world.disk, SECRETS)
    assert "no serializer for codec 70" in shown["payload_error"]
    assert shown["payload"]
    world = World(cluster_uid=UID)
    world.write([msgspec.structs.replace(world.commands(1), payload=b"\xc1")])
    (shown,) = dump(world.disk, SECRETS)
    assert shown["payload"] == "wQ=="


def test_dump_ends_at_damage() -> None:
    world = stopped(built(40))
    world.disk.flip_bits(world.segments()[1], 70)
    first_of_second = int(world.segments()[1][8:28])
    assert [one["sequence"] for one in dump(world.disk, SECRETS)] == list(range(first_of_second))
    world = stopped(built(40))
    world.disk.flip_bits(world.segments()[0], 4100)
    assert list(dump(world.disk, SECRETS)) == []


# --- diff ----------------------------------------------------------------------------------


def test_logs_of_one_history_do_not_differ_however_they_are_stored() -> None:
    a = built(40, seed=1, chain_key="chain")
    b = built(40, seed=2, **FORM)
    assert diff(a.disk, b.disk, SECRETS, SECRETS) is None
    a.log.retain(100, 60, {})
    assert diff(a.disk, b.disk, SECRETS, SECRETS) is None
    assert diff(b.disk, a.disk, SECRETS, SECRETS) is None


def test_diff_names_the_first_difference() -> None:
    a, b = World(cluster_uid=UID), World(cluster_uid=UID)
    for world in (a, b):
        world.groups(5)
    offset = a.offset
    draft = a.commands(1, size=40)
    a.write([draft])
    other = bytearray(draft.payload)
    other[-3] ^= 1
    b.offset, b.time = a.offset, a.time
    b.write([msgspec.structs.replace(draft, payload=bytes(other))])
    found = diff(a.disk, b.disk, SECRETS, SECRETS)
    assert found is not None
    assert (found.sequence, found.offset, found.field) == (9, offset, "payload")
    assert found.a.startswith(f"byte {len(other) - 3}: ")
    assert found.a != found.b


def test_diff_names_the_header_field_and_the_end() -> None:
    a, b = World(cluster_uid=UID), World(cluster_uid=UID, handlers=b"87654321")
    a.groups(2)
    b.groups(2)
    found = diff(a.disk, b.disk, SECRETS, SECRETS)
    assert found is not None
    assert (found.sequence, found.field, found.a) == (0, "handlers", b"12345678".hex())
    longer = World(cluster_uid=UID)
    longer.groups(3)
    for x, y, here in ((a, longer, "the log ends"), (longer, a, "a frame")):
        found = diff(x.disk, y.disk, SECRETS, SECRETS)
        assert found is not None
        assert (found.sequence, found.field, found.a) == (3, "end", here)


# --- repair --------------------------------------------------------------------------------


def damages() -> list[tuple[str, Callable[[World], None]]]:
    def payload(world: World) -> None:
        world.disk.flip_bits(world.segments()[1], 4096 + 200)

    def frame_header(world: World) -> None:
        world.disk.flip_bits(world.segments()[-1], 4096 + 40)

    def segment_header(world: World) -> None:
        world.disk.flip_bits(world.segments()[1], 60)

    def first_header(world: World) -> None:
        world.disk.flip_bits(world.segments()[0], 60)

    def every_header(world: World) -> None:
        for path in world.segments():
            world.disk.flip_bits(path, 60)

    def hole(world: World) -> None:
        world.overwrite(world.segments()[0], 6000, bytes(3000))

    def end_lost(world: World) -> None:
        path = world.segments()[-1]
        file = world.disk.open(path, write=True)
        file.truncate(len(world.read(path)) - 600)

    def several(world: World) -> None:
        for path in world.segments()[:3]:
            world.disk.flip_bits(path, 5000)

    kinds = [
        payload, frame_header, segment_header, first_header, every_header, hole, end_lost, several,
    ]  # fmt: skip
    return [(kind.__name__, kind) for kind in kinds]


@pytest.mark.parametrize(("_name", "damage"), damages(), ids=[name for name, _ in damages()])
@pytest.mark.parametrize("form", [{"chain_key": "chain"}, FORM], ids=["plain", "all"])
def test_repair_takes_what_is_lost_from_a_good_copy(
    _name: str, damage: Callable[[World], None], form: dict[str, Any]
) -> None:
    good = stopped(built(40, seed=1, chain_key="chain"))
    world = stopped(built(40, seed=2, **form))
    expected = content(copy(good.disk.image()))
    damage(world)
    before = {path: world.read(path) for path in world.segments()}
    assert not verify(world.disk, SECRETS).ok
    report = mend(world.disk, good.disk, encrypt=form is FORM)
    assert verify(world.disk, SECRETS).ok
    assert (report.end_sequence, report.end_offset) == (79, 120)
    for segment in report.segments:
        assert segment.kept_as is not None
        assert world.read(segment.kept_as) == before[segment.path]
        assert segment.from_sequence <= segment.to_sequence
    if form is FORM:
        assert all(b"acme" not in world.read(path) for path in world.segments())
    assert content(world.disk) == expected
    # Nothing to do is done, and changes nothing.
    assert mend(world.disk.kill(), good.disk).segments == ()


def test_repair_of_an_unreadable_mark_writes_it_anew() -> None:
    good = stopped(built(10, seed=1))
    world = stopped(built(10, seed=2))
    world.disk.flip_bits("log/MARK", 10)
    broken = world.read("log/MARK")
    report = mend(world.disk, good.disk)
    assert report.mark_kept_as is not None
    assert world.read(report.mark_kept_as) == broken
    # Only what the frames themselves prove: the last write may have been under way.
    assert verify(world.disk, SECRETS).mark_end == 17


def test_repair_needs_no_mark_to_mend_frames_and_writes_it_anew() -> None:
    good = stopped(built(40, seed=1))
    world = stopped(built(40, seed=2))
    world.disk.flip_bits(world.segments()[1], 5000)
    world.disk.flip_bits("log/MARK", 10)
    report = mend(world.disk, good.disk)
    assert [one.path for one in report.segments] == [world.segments()[1]]
    assert report.mark_kept_as is not None
    assert verify(world.disk, SECRETS).ok
    assert report.end_sequence == 79


def refused(damaged: World, good: World, reason: str) -> None:
    before = {path: damaged.read(path) for path in damaged.segments()}
    with pytest.raises(LogRefused, match=reason):
        mend(damaged.disk, good.disk)
    assert {path: damaged.read(path) for path in damaged.segments()} == before


def test_repair_refuses_a_copy_that_does_not_belong() -> None:
    world = stopped(built(40))
    world.disk.flip_bits(world.segments()[1], 5000)
    refused(world, stopped(built(40, cluster_uid=b"v" * 16)), "different clusters or shards")


def test_repair_refuses_a_copy_that_is_damaged_itself() -> None:
    world, good = stopped(built(40)), stopped(built(40))
    for one in (world, good):
        one.disk.flip_bits(one.segments()[1], 5000)
    refused(world, good, "the good copy is damaged as well")


def test_repair_refuses_a_copy_that_is_too_short() -> None:
    world, good = stopped(built(40)), stopped(built(5))
    world.disk.flip_bits(world.segments()[1], 5000)
    refused(world, good, "the good copy does not have frame")
    world = stopped(built(40))
    world.disk.flip_bits(world.segments()[1], 60)
    refused(world, good, "the good copy does not have frame")
    for path in world.segments():
        world.disk.flip_bits(path, 61)
    empty = stopped(built(0))
    refused(world, empty, "the good copy does not have frame 0")


def test_repair_refuses_a_copy_with_another_history_before_the_damage() -> None:
    world = stopped(built(40))
    other = World(SimDisk(), 3, cluster_uid=UID)
    other.groups(40, count=3, size=301)
    world.disk.flip_bits(world.segments()[1], 5000)
    refused(world, stopped(other), "the histories differ before frame")


def test_repair_refuses_a_copy_that_parts_behind_the_damage() -> None:
    """The copy agrees up to the damage, but what the damaged log still knows says otherwise."""
    world, other = World(SimDisk(), 1, cluster_uid=UID), World(SimDisk(), 2, cluster_uid=UID)
    for one in (world, other):
        one.groups(4, count=3, size=100)
    world.groups(3, count=3, size=100)
    other.groups(3, count=3, size=101)
    position = 4096 + sum(f.header.frame_bytes for f in list(world.log.reader().frames(0))[:5])
    for one in (world, other):
        stopped(one)
    world.disk.flip_bits(world.segments()[0], position + 140)
    refused(world, other, "has another history before frame")


def test_repair_needs_both_identities_and_the_lock() -> None:
    world, good = stopped(built(5)), stopped(built(5))
    good.disk.remove("IDENTITY")
    with pytest.raises(LogDamaged, match="IDENTITY"):
        mend(world.disk, good.disk)
    running, good = built(5), stopped(built(5))
    with pytest.raises(LogInUse):
        mend(running.disk, good.disk)


def test_repair_cannot_help_where_no_segment_is_left() -> None:
    world, good = stopped(built(5)), stopped(built(5))
    for path in world.segments():
        world.disk.remove(path)
    with pytest.raises(LogRefused, match="cannot be repaired"):
        mend(world.disk, good.disk)


# --- truncate ------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [78, 77, 50, 31, 30, 1, 0, -1])
def test_truncate_loses_what_it_says_and_nothing_else(after: int) -> None:
    world = stopped(built(40, **FORM))
    before = {path: world.read(path) for path in [*world.segments(), "log/MARK"]}
    expected = content(copy(world.disk.image()))
    report = cut(world.disk, after)
    assert report.end_sequence == after + 1
    assert report.lost_frames == 79 - (after + 1)
    assert report.lost_commands == 120 - report.end_offset
    assert report.unreadable_bytes == 0
    assert report.last_sequence_seen == (78 if after < 78 else None)
    kept = {name.rpartition("/")[2].split("-before-truncate")[0]: name for name in report.kept}
    for name, copy_ in kept.items():
        assert world.read(copy_) == before[f"log/{name}"]
    assert ("MARK" in kept) == (after < 78)
    assert verify(world.disk, SECRETS).ok
    assert content(world.disk.kill()) == expected[: after + 1]


def test_truncate_at_damage_counts_what_cannot_be_read() -> None:
    world = stopped(built(40))
    frames = list(World(copy(world.disk.image()), 5, cluster_uid=UID).log.reader().frames(0))
    second = int(world.segments()[1][8:28])
    position = 4096
    for frame in frames[second:]:
        if frame.header.sequence == second + 3:
            break
        position += frame.header.frame_bytes
    world.disk.flip_bits(world.segments()[1], position + 150)
    world.disk.flip_bits(world.segments()[-1], 60)
    with pytest.raises(LogRefused, match=f"good up to frame {second + 2} only"):
        cut(world.disk, second + 5)
    report = cut(world.disk, second + 2)
    assert report.unreadable_bytes > 0
    assert report.last_sequence_seen is not None
    assert report.last_sequence_seen > second + 3
    assert verify(world.disk, SECRETS).ok
    after = World(world.disk, 6, cluster_uid=UID)
    assert after.log.recovered.end_sequence == second + 3
    found = after.log.reader().find(0)
    assert found is not None
    assert found[1] == command(0, size=300)


def test_truncate_does_not_count_a_stray_copy_of_an_earlier_frame_as_lost() -> None:
    """A block that the disk put in the wrong place holds nothing that was behind the end."""
    world = stopped(built(5))
    path = world.segments()[-1]
    data = world.read(path)
    first = next(iter(World(copy(world.disk.image()), 5, cluster_uid=UID).log.reader().frames(0)))
    stray = data[4096 : 4096 + first.header.frame_bytes]
    world.overwrite(path, len(data) + -len(data) % 8 + 64, stray)
    report = cut(world.disk, 8)
    assert (report.end_sequence, report.lost_frames) == (9, 0)
    assert report.last_sequence_seen is None
    assert report.unreadable_bytes > 0
    assert verify(world.disk, SECRETS).ok


def test_truncate_may_keep_no_copy_and_can_be_run_again() -> None:
    world = stopped(built(40))
    report = cut(world.disk, 40, keep_broken=False)
    assert report.kept == ()
    assert world.disk.list("broken") == []
    again = cut(world.disk, 40)
    assert (again.lost_frames, again.end_sequence) == (0, 41)
    twice = cut(world.disk, 40)
    assert len(set(again.kept + twice.kept)) == 2


def test_truncate_replaces_an_unreadable_mark() -> None:
    world = stopped(built(10))
    world.disk.flip_bits("log/MARK", 10)
    report = cut(world.disk, 18)
    assert any("MARK" in name for name in report.kept)
    assert verify(world.disk, SECRETS).mark_end == 19


def test_truncate_refuses_what_is_not_there_or_in_use() -> None:
    world = built(10)
    with pytest.raises(LogInUse):
        cut(world.disk, 5)
    stopped(world)
    with pytest.raises(LogRefused, match="good up to frame 18 only"):
        cut(world.disk, 19)
    world.disk.flip_bits(world.segments()[0], 60)
    with pytest.raises(LogRefused, match="name an earlier frame"):
        cut(world.disk, 5)
    world = built(60)
    world.log.retain(100, 60, {})
    with pytest.raises(LogRefused, match="nothing to keep"):
        cut(stopped(world).disk, 0)


def test_truncate_interrupted_anywhere_can_be_finished() -> None:
    for seed in range(12):
        world = built(40, seed=seed)
        stopped(world)
        cut(world.disk, 33)
        world.disk = world.disk.power_cut()
        if not verify(world.disk, SECRETS).ok:
            cut(world.disk, 33)
        assert verify(world.disk, SECRETS).end_sequence == 34


def test_a_log_goes_on_after_truncation() -> None:
    world = stopped(built(40, limits=LIMITS))
    cut(world.disk, 33)
    after = World(world.disk, 8, cluster_uid=UID)
    after.groups(10)
    assert [f.header.sequence for f in after.log.reader().frames(0)] == list(
        range(int(after.written[-1].end_sequence))
    )
