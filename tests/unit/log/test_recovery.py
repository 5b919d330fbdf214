"""The decision table, and the walk over one segment."""

import itertools

import msgspec
import pytest
from tests.unit.log.log_world import SECRETS, World

from ultraengine.log import frame as frames
from ultraengine.log.damage import LogDamaged
from ultraengine.log.frame import Frame, FrameDamaged, FrameHeader, Keys
from ultraengine.log.index import SegmentIndex
from ultraengine.log.recovery import (
    Verdict,
    decide,
    follow,
    later_headers,
    later_proof,
    scan,
    used_end,
)
from ultraengine.log.segment import GENESIS, KeyRing, SegmentHeader, decode_header, encode_header
from ultraengine.log.survey import unproved
from ultraengine.model.ids import ConfigVersion, Epoch, FrameSequence, Instant, Offset, ShardId


def test_the_decision_table_has_one_answer_for_every_input() -> None:
    seen = set()
    for starts, below, zero, lost in itertools.product([False, True], repeat=4):
        verdict = decide(
            next_segment_starts_here=starts,
            below_proved_end=below,
            rest_is_zero=zero,
            mark_lost=lost,
        )
        seen.add(verdict)
        if starts:
            assert verdict is Verdict.CONTINUE
        elif below:
            assert verdict is Verdict.DAMAGE, "acknowledged frames are never cut away"
        elif zero:
            assert verdict is Verdict.END
        else:
            assert verdict is (Verdict.DAMAGE if lost else Verdict.TORN)
    assert seen == set(Verdict)


def loaded(groups: int = 6) -> tuple[bytes, SegmentHeader, Keys]:
    """The bytes of a segment with that many groups."""
    world = World()
    world.groups(groups)
    data = world.read(world.segments()[0])
    header = decode_header(data[:4096])
    return data, header, KeyRing(SECRETS).open(header)


def test_a_scan_sees_every_frame_and_stops_at_the_zeros() -> None:
    data, header, keys = loaded()
    seen: list[tuple[int, int]] = []
    found = scan(data, header, keys, visit=lambda f, at: seen.append((f.header.sequence, at)))
    assert [sequence for sequence, _ in seen] == list(range(11))
    assert found.end.point.sequence == 11
    assert found.end.point.offset == 12
    assert found.end.point.recorded_end == 10
    assert not data[found.end.byte_position :].strip(b"\0")
    assert found.reason == "no frame starts here"


def test_a_scan_proves_what_later_frames_say_and_keeps_the_stands_from_there() -> None:
    data, header, keys = loaded()
    found = scan(data, header, keys)
    # The last write, frames 9 and 10, was formed when all before it was durable.
    assert found.proved_end == 9
    assert [stand.point.sequence for stand in found.unproved] == [9, 10, 11]


def test_a_floor_from_elsewhere_proves_as_well() -> None:
    data, header, keys = loaded()
    assert [one.point.sequence for one in scan(data, header, keys, floor=11).unproved] == [11]


def test_a_scan_stops_where_the_next_segment_begins_whatever_follows() -> None:
    data, header, keys = loaded()
    found = scan(data, header, keys, stop=5)
    assert found.end.point.sequence == 5
    assert found.reason == ""


def test_headers_behind_a_hole_still_prove_what_was_durable() -> None:
    data, header, keys = loaded()
    third = scan(data, header, keys, stop=3).end.byte_position
    damaged = bytearray(data)
    damaged[third] ^= 1
    found = scan(bytes(damaged), header, keys)
    assert found.end.point.sequence == 3
    assert later_proof(bytes(damaged), third, header) == 9


def test_every_header_behind_a_hole_is_found_in_order() -> None:
    data, header, keys = loaded()
    position = scan(data, header, keys, stop=3).end.byte_position
    found = later_headers(data, position, header)
    assert [one.sequence for one in found] == list(range(3, 11))
    assert later_headers(data, position + 8, header) == found[1:]


@pytest.mark.parametrize(
    ("proved_end", "stands"),
    [(9, [9, 10, 11]), (10, [10, 11]), (11, [11]), (3, [9, 10, 11])],
)
def test_what_is_proved_elsewhere_leaves_the_stands_from_there_on(
    proved_end: int, stands: list[int]
) -> None:
    data, header, keys = loaded()
    kept = unproved(scan(data, header, keys), proved_end)
    assert [stand.point.sequence for stand in kept] == stands


def test_content_that_looks_like_a_header_proves_nothing() -> None:
    data, header, _ = loaded()
    forged = frames.encode(
        frames.FrameDraft(frames.FrameKind.COMMANDS, 0, 1, 0, b""),
        frames.Place(
            header.shard,
            Epoch(1),
            ConfigVersion(0),
            FrameSequence(1000),
            bytes(8),
            FrameSequence(1000),
            bytes(16),
            b"guessed!",
            1,
        ),
        Keys(),
    )[0]
    tail = data[:8192] + b"".join(forged)
    assert later_proof(tail, 8192, header) == 0


def test_a_header_at_an_odd_position_proves_nothing() -> None:
    data, header, keys = loaded()
    second = scan(data, header, keys, stop=4).end.byte_position
    shifted = data[:4096] + b"\0\0\0\0" + data[second : second + 128]
    assert later_proof(shifted, 4096, header) == 0


def frame_header(**changes: object) -> FrameHeader:
    header = FrameHeader(
        kind=1,
        flags=0,
        codec=1,
        shard=ShardId(3),
        epoch=Epoch(2),
        config_version=ConfigVersion(0),
        sequence=FrameSequence(5),
        base_offset=Offset(20),
        count=2,
        stored_bytes=0,
        payload_bytes=0,
        time=Instant(100),
        handlers=bytes(8),
        durable_end=FrameSequence(5),
        chain=b"c" * 16,
        salt=bytes(8),
        payload_crc=0,
    )
    return msgspec.structs.replace(header, **changes)


POINT = msgspec.structs.replace(
    GENESIS,
    sequence=FrameSequence(5),
    offset=Offset(20),
    recorded_end=Offset(18),
    epoch=Epoch(2),
    time=Instant(100),
    chain=b"c" * 16,
)


@pytest.mark.parametrize(
    "header",
    [
        frame_header(),
        frame_header(epoch=3, time=101),
        frame_header(kind=2, base_offset=18),
        frame_header(kind=2, base_offset=18, count=1),
    ],
)
def test_a_frame_that_continues_the_log_is_good(header: FrameHeader) -> None:
    follow(POINT, header)


@pytest.mark.parametrize(
    "header",
    [
        frame_header(sequence=4),
        frame_header(sequence=6),
        frame_header(chain=b"d" * 16),
        frame_header(epoch=1),
        frame_header(time=99),
        frame_header(base_offset=19),
        frame_header(base_offset=21),
        frame_header(kind=2, base_offset=17),
        frame_header(kind=2, base_offset=19, count=1),
        frame_header(kind=2, base_offset=18, count=3),
        frame_header(kind=3),
    ],
)
def test_a_frame_that_does_not_continue_the_log_is_not_good(header: FrameHeader) -> None:
    with pytest.raises(FrameDamaged):
        follow(POINT, header)


def test_a_frame_of_another_shard_or_segment_is_not_good() -> None:
    data, header, keys = loaded()
    for other in (
        msgspec.structs.replace(header, shard=ShardId(4)),
        msgspec.structs.replace(header, salt=b"othersal"),
    ):
        found = scan(encode_header(other) + data[4096:], other, keys)
        assert found.end.point.sequence == 0
        assert found.reason == "the frame belongs to another segment"


def test_the_index_leads_to_the_frame_or_shortly_before_it() -> None:
    world = World(limits=msgspec.structs.replace(World().log._limits, segment_bytes=1 << 20))
    world.groups(400, count=3, size=300)
    data = world.read(world.segments()[0])
    header = decode_header(data[:4096])
    index = SegmentIndex(header.point)
    places: list[tuple[Frame, int]] = []
    scan(data, header, Keys(), visit=lambda f, at: places.append((f, at)))
    offset = 0
    for frame, position in places:
        index.note(frame.header.sequence, offset, position, frame.header.frame_bytes)
        if frame.header.kind == 1:
            offset = frame.header.offset_end
    for frame, position in places:
        start = index.start_of_sequence(frame.header.sequence)
        assert start <= position < start + 2 * 65536
        if frame.header.kind == 1:
            for offset in range(frame.header.base_offset, frame.header.offset_end):
                start = index.start_of_offset(offset)
                assert start <= position < start + 2 * 65536
    assert index.start_of_sequence(10**6) > 4096
    assert index.covered_sequence == len(places)


def test_damage_names_file_position_sequence_offset_and_what_to_do() -> None:
    message = str(
        LogDamaged(
            "the payload's checksum differs",
            file="log/seg-1.log",
            byte_position=8192,
            sequence=41,
            offset=1000,
            proved_end=50,
        )
    )
    assert message.startswith(
        "log/seg-1.log: damaged at byte 8192, where frame 41 (offset 1000) should be: "
        "the payload's checksum differs; frames below 50 were durable once. Nothing was changed."
    )
    assert "ultra log repair" in message
    assert "ultra log truncate" in message


@pytest.mark.parametrize("block", [0, 1, 2, 3])
@pytest.mark.parametrize("near", [-1, 0, 1])
def test_the_used_end_is_found_wherever_the_zeros_begin(block: int, near: int) -> None:
    at = max(0, block * 256 * 1024 + near)
    for behind in (0, 7, 256 * 1024, 600_000):
        assert used_end(b"x" * at + bytes(behind)) == at
        assert used_end(bytes(at) + b"\1" + bytes(behind)) == at + 1
