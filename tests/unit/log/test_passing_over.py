"""A start that replays from a snapshot verifies the log from there on; how little it may read of
the segments before, and what it still sees there."""

from typing import Any

import msgspec
import pytest
from tests.unit.log.log_world import SECRETS, World

from ultraengine.log import recovery
from ultraengine.log.damage import LogDamaged
from ultraengine.log.mark import Mark, encode_mark
from ultraengine.log.segment import KeyRing, decode_header
from ultraengine.log.survey import survey
from ultraengine.model.ids import FrameSequence
from ultraengine.model.limits import Limits


def passed_over(world: World) -> list[bool]:
    """Which segments a start from the log's end takes as read."""
    ring = KeyRing(SECRETS)
    return [one.scan is None for one in survey(world.disk, ring, verify_from=1 << 40).findings]


@pytest.mark.parametrize("keys", [{}, {"master_key": "disk", "chain_key": "chain"}])
def test_a_start_from_a_snapshot_scans_the_last_segment_and_looks_at_the_end_of_the_others(
    keys: Any,
) -> None:
    world = World(**keys)
    world.groups(60, count=3, size=200)
    world.log.close(clean=True)
    world.disk = world.disk.kill()
    paths = world.segments()
    assert passed_over(world) == [True] * (len(paths) - 1) + [False]
    # Room that was not cut off yet, after a power cut for one, is looked at closely.
    world.overwrite(paths[0], len(world.read(paths[0])), bytes(8))
    assert passed_over(world) == [False] + [True] * (len(paths) - 2) + [False]
    # Of what MARK says nothing is passed over before it was compared.
    world.overwrite("log/MARK", 0, encode_mark(Mark(FrameSequence(1), b"other chain 16 b")))
    assert survey(world.disk, KeyRing(SECRETS), verify_from=1 << 40).damage is not None
    world.disk.flip_bits("log/MARK", 3)
    assert passed_over(world) == [False] * len(paths)


def test_a_last_frame_larger_than_the_first_look_is_found() -> None:
    limits = Limits(segment_bytes=2**20, frame_bytes_max=2**19, reserve_bytes=0)
    world = World(limits=limits)
    for size in (100, 300_000, 300_000, 300_000, 900_000):
        world.group(1, size)
    world.log.close(clean=True)
    world.disk = world.disk.kill()
    assert passed_over(world) == [True, False]
    # A byte in the middle of that frame, beyond the first look, still counts.
    world.overwrite(world.segments()[0], len(world.read(world.segments()[0])) - 200_000, b"?")
    with pytest.raises(LogDamaged, match="the payload's checksum differs"):
        world.restart(world.disk, verify_from=lambda: 1 << 40)


@pytest.mark.parametrize("at", ["last frame", "header", "next header"])
def test_a_damaged_end_or_header_is_reported_as_if_everything_was_scanned(at: str) -> None:
    world = World()
    world.groups(60, count=3, size=200)
    world.log.close(clean=True)
    world.disk = world.disk.kill()
    first, second = world.segments()[:2]
    path, position = {
        "last frame": (first, len(world.read(first)) - 20),
        "header": (first, 60),
        "next header": (second, 60),
    }[at]
    world.disk.flip_bits(path, position)
    ring = KeyRing(SECRETS)
    found = [survey(world.disk, ring, verify_from=start).damage for start in (0, 1 << 40)]
    assert found[0] is not None
    assert str(found[0]) == str(found[1])
    assert found[0].file == path


def test_content_that_looks_like_a_frame_is_not_taken_for_the_end_of_a_segment() -> None:
    world = World()
    world.groups(60, count=3, size=200)
    world.log.close(clean=True)
    world.disk = world.disk.kill()
    first, second = world.segments()[:2]
    ring, data = KeyRing(SECRETS), world.read(first)
    segment = decode_header(data[:4096])
    point = decode_header(world.read(second)[:4096]).point
    keys = ring.open(segment)
    assert recovery.leads_to(data[4096:], 4096, segment, keys, point)
    for wrong in (
        {"sequence": point.sequence + 1},
        {"chain": b"another chain 16"},
        {"epoch": point.epoch + 1},
        {"time": point.time + 1},
        {"handlers": b"87654321"},
        {"offset": point.offset + 1, "recorded_end": point.recorded_end + 1},
    ):
        other = msgspec.structs.replace(point, **wrong)
        assert not recovery.leads_to(data[4096:], 4096, segment, keys, other), wrong
    salted = msgspec.structs.replace(segment, salt=b"another!")
    assert not recovery.leads_to(data[4096:], 4096, salted, keys, point)
    assert not recovery.leads_to(data[4096:], 4097, segment, keys, point)
    assert not recovery.leads_to(b"", 4096, segment, keys, point)
