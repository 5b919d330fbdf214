"""One flipped bit in a file of a stopped program: an exact stop, or no harm."""

import random
import shutil
from pathlib import Path

import pytest

from ultraengine.testing.process_faults import CANNOT_START, Subject

pytestmark = [pytest.mark.slow]


CHANGES_AT_EACH_START = {"LOCK", "PROMISE"}
"""The lock, and the count of starts, which is raised before anything is read."""


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in CHANGES_AT_EACH_START
    }


@pytest.fixture
def stopped(subject: Subject, tmp_path: Path, journal: Path) -> Path:
    """The data of a program that has worked and stopped twice."""
    data = tmp_path / "data"
    for _ in range(2):
        running = subject.start(data, journal)
        try:
            running.wait_for("A", 60)
        finally:
            verdict = running.stop()
        assert verdict.code == 0, verdict.text
    return data


def regions(data: Path) -> list[tuple[str, int]]:
    """File and byte position of one place in each region of the files."""
    found = []
    for name, content in contents(data).items():
        if name.endswith("RESERVE"):
            continue  # It is never read.
        ends = {0, len(content) // 2, len(content) - 1}
        if "log/seg-" in name:
            # Header: magic, sequence, chain, salt, checksum; first frame: magic, length,
            # sequence, chain, checksums, payload.
            ends |= {40, 60, 230, 4094, 4096, 4149, 4130, 4190, 4218, 4222, 4230}
        found += [(name, position) for position in sorted(ends) if position < len(content)]
    return found


def test_a_flipped_bit_stops_it_with_the_place_or_does_no_harm(
    subject: Subject, stopped: Path, journal: Path, tmp_path: Path
) -> None:
    chance = random.Random(3)
    places = regions(stopped)
    assert len(places) > 20
    if subject.name != "log":
        places = chance.sample(places, 16)  # Its start takes longer.
    stops = 0
    for name, position in places:
        hurt = tmp_path / "hurt"
        shutil.copytree(stopped, hurt)
        file = hurt / name
        content = bytearray(file.read_bytes())
        content[position] ^= 1 << chance.randrange(8)
        file.write_bytes(content)
        before = contents(hurt)
        verdict = subject.verify(hurt, journal)
        assert verdict.code in {0, CANNOT_START}, f"{name} byte {position}: {verdict.text}"
        if verdict.code == CANNOT_START:
            stops += 1
            assert Path(name).name in verdict.text, f"{name} byte {position}: {verdict.text}"
            assert contents(hurt) == before, f"{name} byte {position}: something was changed"
        shutil.rmtree(hurt)
    assert stops > len(places) // 3
