"""Every byte of a log directory: a flip is found, or changes nothing that counts.

A log of several segments is damaged one byte at a time, in every region.  Either the start
stops and names the damage, or everything that was acknowledged is there.
"""

import random
from typing import Any

import pytest
from tests.unit.log.log_world import SECRETS, SERIALIZER, World

from ultraengine.log.damage import LogDamaged, LogError
from ultraengine.log.digest import crc32c
from ultraengine.log.tools import verify
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_image import Image

FORMS = pytest.mark.parametrize(
    "form",
    [{}, {"compress": True, "master_key": "disk", "chain_key": "chain"}],
    ids=["plain", "all"],
)


def made(form: dict[str, Any], *, clean: bool) -> tuple[Image, list[bytes], list[str]]:
    """A log as a process leaves it, what it holds, and its files."""
    world = World(**form)
    world.groups(5, count=3, size=900)
    world.log.mark()
    if clean:
        world.log.close(clean=True)
        world.disk = world.disk.kill()
    frames = [
        frame.payload
        for frame in World(SimDisk(image=world.disk.image()), **form).log.reader().frames(0)
    ]
    files = [*world.segments(), "log/MARK", "IDENTITY"]
    return world.disk.image(), frames, files


def used(disk: SimDisk, path: str) -> int:
    """Bytes of a file up to the last one that is not zero, and a few more."""
    file = disk.open(path)
    data = file.pread(file.size(), 0)
    return min(len(data), len(data.rstrip(b"\0")) + 16)


@FORMS
@pytest.mark.parametrize("clean", [True, False], ids=["stopped", "killed"])
def test_a_flip_anywhere_is_found_or_harmless(form: dict[str, Any], clean: bool) -> None:
    image, expected, files = made(form, clean=clean)
    chance = random.Random(4)
    named: list[tuple[str, str]] = []
    harmless = 0
    for path in files:
        length = used(SimDisk(image=image.copy()), path)
        # The whole of small files and of the regions with structure, a sample of the rest.
        every = set(range(min(length, 340))) | set(range(4088, min(length, 4096 + 300)))
        every |= {chance.randrange(length) for _ in range(60)}
        for position in sorted(at for at in every if at < length):
            disk = SimDisk(image=image.copy())
            disk.flip_bits(path, position, 1 << chance.randrange(8))
            try:
                world = World(disk, **form)
            except LogError as error:
                named.append((path, str(error)))
                continue
            harmless += 1
            served = [frame.payload for frame in world.log.reader().frames(0)]
            assert served == expected, f"{path} at {position}"
            assert path == "log/MARK" or position >= length - 24, (path, position)
    assert len(named) > 600
    assert all(path in message or path == "log/MARK" for path, message in named)
    assert harmless > 0


@FORMS
def test_verify_names_each_flip_below_the_end(form: dict[str, Any]) -> None:
    image, _, files = made(form, clean=True)
    chance = random.Random(5)
    assert verify(SimDisk(image=image.copy()), SECRETS).ok
    for path in files:
        length = used(SimDisk(image=image.copy()), path)
        for position in {chance.randrange(length) for _ in range(40)}:
            disk = SimDisk(image=image.copy())
            disk.flip_bits(path, position)
            report = verify(disk, SECRETS)
            if path == "log/MARK":
                assert report.mark_end is None
            else:
                assert not report.ok
                assert report.problems[0].file == path
                assert report.problems[0].byte_position <= position


def test_content_shaped_like_a_frame_cannot_turn_a_torn_tail_into_damage() -> None:
    world = World()
    world.groups(3)
    world.log.mark()
    good = world.log.reader()
    frame = list(good.frames(0))[-1]
    # A client sends the bytes of a whole frame that claims a durable end far ahead.
    path = world.segments()[0]
    data = world.read(path)
    start = data.rfind(b"UEFR")
    forged = bytearray(data[start : start + frame.header.frame_bytes])
    forged[32:40] = (10**6).to_bytes(8, "little")
    forged[80:88] = (10**6).to_bytes(8, "little")
    forged[104:112] = bytes(8)
    forged[124:128] = crc32c(bytes(forged[:124])).to_bytes(4, "little")
    end = len(data.rstrip(b"\0"))
    end += -end % 8
    world.overwrite(path, end, b"UEFR" + bytes(124) + bytes(forged))
    world.restart(world.disk.kill())
    assert world.log.recovered.torn is not None
    assert world.log.recovered.end_offset == 6


def test_zeros_over_an_acknowledged_frame_are_damage_though_nothing_follows() -> None:
    world = World()
    world.groups(6)
    path = world.segments()[0]
    frames = list(world.log.reader().frames(0))
    start = 4096 + sum(one.header.frame_bytes for one in frames[:4])
    world.overwrite(path, start, bytes(len(world.read(path)) - start))
    world.log.mark()
    with pytest.raises(LogDamaged) as caught:
        world.restart(world.disk.kill())
    assert caught.value.sequence == 4


def test_payloads_of_good_frames_are_what_was_written() -> None:
    world = World()
    world.groups(4)
    for frame in world.log.reader().frames(0):
        decode = (
            SERIALIZER.decode_commands if frame.header.kind == 1 else SERIALIZER.decode_outcomes
        )
        assert len(decode(frame.payload)) == frame.header.count
