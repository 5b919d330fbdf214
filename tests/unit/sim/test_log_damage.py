"""The log against a disk that lies: bits that flip, writes that vanish, tear or go astray.

What was promised and has a witness is there with its bytes, or the start stops with an exact
message and has changed nothing.  The frames of the very last write before a kill have no
witness yet, so they alone may be cut, as a torn tail whose bytes are kept.

``ULTRA_TORTURE=1`` (``make torture``) flips every byte instead of a share.
"""

import os
import random
from collections.abc import Iterator

import pytest

from ultraengine.log.damage import LogDamaged
from ultraengine.log.frame import HEADER_BYTES, MAGIC
from ultraengine.log.mark import MARK_PATH
from ultraengine.log.opening import TornTail
from ultraengine.testing.log_runs import Content, Form, Promise, Run, contents
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_faults import Effect, LostWrite, MisdirectedWrite, TornWrite
from ultraengine.testing.sim_image import Image
from ultraengine.testing.sim_trace import Note

pytestmark = pytest.mark.no_cover
"""It would double their time, and tests of the parts reach every branch."""

TORTURE = os.environ.get("ULTRA_TORTURE") == "1"
PLAIN = Form("plain")
SEALED = Form("lz4-aes", compress=True, encrypt=True)
TAIL = Form("from-a-snapshot", compress=True, verify_from=1 << 40)
"""A start that verifies as little as it may; whoever reads the rest verifies that."""
FORMS = pytest.mark.parametrize("form", [PLAIN, SEALED, TAIL], ids=lambda form: form.name)


def in_use(form: Form) -> Run:
    """Two starts, a roll, and groups of several sizes; the last write is acknowledged."""
    run = Run(form, seed=5)
    for sizes in ((100, 700), (3000,), (40,)):
        run.append(*sizes)
    run.stop()
    for sizes in ((2500,), (5900,), (5900,), (600, 90), (333,)):
        run.append(*sizes)
        run.log.maintain()
    return run


def stopped(form: Form) -> tuple[Run, Image]:
    run = in_use(form)
    run.finish()
    return run, run.disk.power_cut(lambda _: 0).image()


def killed(form: Form) -> tuple[Run, Image]:
    run = in_use(form)
    return run, run.disk.kill().image()


def unwitnessed(run: Run) -> int:
    """Frames from this sequence on were in the last write."""
    notes = [op.value for op in run.disk.trace if isinstance(op, Note)]
    return min([note.kept for note in notes if isinstance(note, Promise) and note.kept][-1])


def files(image: Image) -> dict[str, bytes]:
    """All files with their bytes, but the lock."""
    return {
        path: bytes(image.files[node].data)
        for path, node in image.walk()
        if node in image.files and path != "LOCK"
    }


class Found:
    """What the start of a log made of a damaged disk."""

    def __init__(self, run: Run, image: Image) -> None:
        before = files(image)
        disk = SimDisk(image=image)
        self.damage: LogDamaged | None = None
        self.torn: TornTail | None = None
        try:
            log = run.form.open(disk)
        except LogDamaged as damage:
            self.damage = damage
            assert files(disk.image()) == before, "a damaged log was changed"
            return
        self.torn = log.recovered.torn
        try:
            frames = list(log.reader().frames(0))
        except LogDamaged as damage:
            assert run.form.verify_from > 0, "damage was passed over"
            self.damage = damage
            return
        found: dict[int, Content] = dict(enumerate(contents(frames)))
        self.end = len(found)
        for number, content in found.items():
            assert content in run.issued[number], f"frame {number} was invented"
        self.lost = [n for n, content in run.promised.items() if found.get(n) != content]


def flipped(image: Image, path: str, position: int, mask: int) -> Image:
    disk = SimDisk(image=image.copy())
    disk.flip_bits(path, position, mask)
    return disk.image()


def places(image: Image, share: int) -> Iterator[tuple[str, int]]:
    """Byte positions to damage: half of what has a structure, a share of the rest."""
    for path, data in files(image).items():
        if path == "RESERVE" or path.endswith(".tmp"):
            continue
        telling = {*range(min(len(data), 240)), *range(max(0, len(data) - 16), len(data))}
        at = data.find(MAGIC)
        while at >= 0:
            telling.update(range(at, min(len(data), at + HEADER_BYTES + 4)))
            at = data.find(MAGIC, at + 1)
        for position in range(len(data)):
            if TORTURE or (position in telling and position % 2) or position % share == 0:
                yield path, position


@FORMS
def test_a_flipped_bit_in_a_stopped_log_is_damage_or_harmless(form: Form) -> None:
    run, image = stopped(form)
    masks = random.Random(11)
    damaged = intact = 0
    for path, position in places(image, share=29):
        found = Found(run, flipped(image, path, position, 1 << masks.randrange(8)))
        if found.damage is None:
            assert found.lost == [], f"{path} byte {position}"
            assert found.torn is None, f"{path} byte {position}"
            intact += 1
        else:
            assert found.damage.file == path, f"{path} byte {position}: {found.damage}"
            assert path in str(found.damage)
            damaged += 1
    assert damaged > 500
    assert intact > 0


@FORMS
def test_a_flipped_bit_in_a_killed_log_costs_at_most_the_last_write(form: Form) -> None:
    run, image = killed(form)
    masks = random.Random(12)
    cut = 0
    for path, position in places(image, share=97):
        found = Found(run, flipped(image, path, position, 1 << masks.randrange(8)))
        if found.damage is None and found.lost:
            assert min(found.lost) >= unwitnessed(run), f"{path} byte {position}: {found.lost}"
            assert found.torn is not None, f"{path} byte {position}"
            cut += 1
    assert cut > 100


@FORMS
@pytest.mark.parametrize("stop", [True, False], ids=["stopped", "killed"])
@pytest.mark.parametrize(
    "effect",
    [
        LostWrite(),
        TornWrite(0),
        TornWrite(130),
        TornWrite(600),
        MisdirectedWrite(512),
        MisdirectedWrite(-512),
        MisdirectedWrite(8),
        MisdirectedWrite(4096),
    ],
    ids=str,
)
def test_a_write_that_the_disk_betrays_costs_at_most_the_last_one(
    effect: Effect, form: Form, *, stop: bool
) -> None:
    stops = 0
    for number in range(60):
        run = Run(form, seed=6)
        run.disk.inject(effect, "pwrite", after=number)
        for sizes in ((100, 700), (3000,), (2900,), (40,), (800, 80), (300,)):
            run.append(*sizes)
            run.log.maintain()
        if stop:
            run.finish()
        # The caches are gone as well: what the disk has is what counts now.
        found = Found(run, run.disk.power_cut(lambda step: step.length).image())
        if found.damage is not None:
            stops += 1
            continue
        allowed = max(run.promised) + 1 if stop else unwitnessed(run)
        assert all(n >= allowed for n in found.lost), f"write {number}: {found.lost}"
    assert stops > 0


@FORMS
def test_a_segment_that_is_missing_or_cut_is_damage(form: Form) -> None:
    run, image = stopped(form)
    segments = [path for path in files(image) if path.startswith("log/seg-")]
    assert len(segments) >= 3
    for path in segments:
        disk = SimDisk(image=image.copy())
        disk.remove(path)
        assert Found(run, disk.image()).damage is not None, path
        used = len(files(image)[path].rstrip(b"\0"))
        for length in (0, 100, 4096, 4096 + 128, used - 1):
            disk = SimDisk(image=image.copy())
            if length < used:
                disk.open(path, write=True).truncate(length)
                found = Found(run, disk.image())
                assert found.damage is not None, f"{path} cut to {length}"
                assert found.damage.file == path


@FORMS
def test_segments_in_each_others_place_are_damage(form: Form) -> None:
    run, image = stopped(form)
    segments = [path for path in files(image) if path.startswith("log/seg-")]
    disk = SimDisk(image=image)
    disk.rename(segments[0], "log/other")
    disk.rename(segments[1], segments[0])
    disk.rename("log/other", segments[1])
    damage = Found(run, disk.image()).damage
    assert damage is not None
    assert damage.file == segments[0]


def test_an_old_state_of_the_last_segment_is_damage_because_mark_knows_more() -> None:
    run = Run(PLAIN, seed=7)
    run.append(100)
    path = next(p for p in files(run.disk.image()) if p.startswith("log/seg-"))
    old = files(run.disk.image())[path]
    run.append(200)
    run.finish()
    disk = run.disk.kill()
    file = disk.open(path, write=True)
    file.truncate(0)
    file.pwrite(old, 0)
    damage = Found(run, disk.image()).damage
    assert damage is not None
    assert (damage.file, damage.sequence, damage.proved_end) == (path, 1, 3)


def test_a_missing_mark_alone_loses_nothing() -> None:
    run, image = stopped(PLAIN)
    disk = SimDisk(image=image)
    disk.remove(MARK_PATH)
    found = Found(run, disk.image())
    assert found.damage is None
    assert found.lost == []


def test_what_was_flipped_back_is_whole_again() -> None:
    run, image = stopped(SEALED)
    path = max(path for path in files(image) if path.startswith("log/seg-"))
    broken = flipped(image, path, 4096 + 200, 4)
    assert Found(run, broken.copy()).damage is not None
    mended = Found(run, flipped(broken, path, 4096 + 200, 4))
    assert mended.damage is None
    assert mended.lost == []
