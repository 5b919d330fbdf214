"""A real file system that has no room any more, and gets some again."""

from pathlib import Path

import pytest

from ultraengine.ports import DiskFull
from ultraengine.testing.process_faults import CANNOT_START, Subject
from ultraengine_adapters.local.disk import LocalDisk

pytestmark = [pytest.mark.root, pytest.mark.slow]

MIB = 1024 * 1024


def fill(place: Path) -> Path:
    """Take all space that is left, to the last block."""
    ballast = place / "ballast"
    file = LocalDisk(place).open("ballast", create=True, write=True)
    position = file.size()
    for length in (MIB, 4096, 512):
        try:
            while True:
                file.pwrite(b"b" * length, position)
                position += length
        except DiskFull:
            position = file.size()
    file.close()
    return ballast


def test_it_turns_read_only_and_serves_again_when_there_is_room(
    subject: Subject, small_ext4: Path, journal: Path
) -> None:
    data = small_ext4 / "data"
    running = subject.start(data, journal)
    try:
        running.wait_for("A", 30)
        for _ in range(2):
            turned, served = running.facts("R"), running.facts("W")
            ballast = fill(small_ext4)
            running.wait_until("R", turned + 1)
            assert LocalDisk(small_ext4).free_bytes() < MIB
            ballast.unlink()
            running.wait_until("W", served + 1)
            running.wait_for("A", 30)
        verdict = running.stop()
    finally:
        running.discard()
    assert verdict.code == 0, verdict.text
    after = subject.verify(data, journal)
    assert after.code == 0, after.text


def test_a_kill_on_a_full_disk_loses_nothing_and_the_next_start_waits_or_says_why(
    subject: Subject, small_ext4: Path, journal: Path
) -> None:
    data = small_ext4 / "data"
    running = subject.start(data, journal)
    try:
        running.wait_for("A", 30)
        ballast = fill(small_ext4)
        running.wait_until("R", 1)
    finally:
        running.kill()
    for _ in range(3):
        # Each start needs some room; when there is none it must say so and change nothing.
        verdict = subject.verify(data, journal)
        assert verdict.code in {0, CANNOT_START}, verdict.text
        if verdict.code == CANNOT_START:
            assert "No space left" in verdict.text
    ballast.unlink()
    after = subject.verify(data, journal)
    assert after.code == 0, after.text


def test_a_stop_on_a_full_disk_is_clean(subject: Subject, small_ext4: Path, journal: Path) -> None:
    data = small_ext4 / "data"
    running = subject.start(data, journal)
    try:
        running.wait_for("A", 30)
        fill(small_ext4)
        running.wait_until("R", 1)
        verdict = running.stop()
    finally:
        running.discard()
    assert verdict.code == 0, verdict.text
    (small_ext4 / "ballast").unlink()
    after = subject.verify(data, journal)
    assert after.code == 0, after.text
