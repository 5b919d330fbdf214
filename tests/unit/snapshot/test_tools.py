"""What operators see and do."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ultraengine.model.ids import Instant, ShardId
from ultraengine.snapshot import tools
from ultraengine.snapshot.codec import JSON, Codecs
from ultraengine.snapshot.errors import SnapshotDamaged, SnapshotFailed, SnapshotRefused
from ultraengine.snapshot.image import SHARD_WIDE, Section
from ultraengine.snapshot.manifest import Manifest, encode_manifest
from ultraengine.snapshot.migrate import Migration, Migrations, Readable
from ultraengine.snapshot.store import SnapshotOptions
from ultraengine.snapshot.tools import SectionTotal, Tools
from ultraengine.testing.sim_clock import SimClock, SimRandom, SimSecrets
from ultraengine.testing.snapshot_images import DictImage
from ultraengine_adapters.local.disk import LocalDisk

OPTIONS = SnapshotOptions(shard=ShardId(3), free_bytes_min=0)
WORLD: dict[str, Any] = {"clock": SimClock(), "random": SimRandom()}


@pytest.fixture
def bench(harness: Any, local: LocalDisk) -> Any:
    found = harness(local, master_key="snapshots", increments_share_max=9.0)
    found.driver.recover()
    for seed in range(3):
        found.fill(60, seed=seed)
        found.take()
    return found


@pytest.fixture
def at(local: LocalDisk, samples: Any) -> Tools:
    return Tools(
        disk=local,
        secrets=SimSecrets({"snapshots": samples.master}),
        codecs=Codecs(),
        new_image=DictImage,
    )


def damage(tmp_path: Path, name: str) -> None:
    path = tmp_path / "shard" / "snapshots" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_list_is_the_manifest(bench: Any, at: Tools) -> None:
    assert tools.listed(at) == bench.driver.entries
    assert [entry.full for entry in tools.listed(at)] == [True, False, False]


def test_list_of_an_empty_directory_is_empty(at: Tools) -> None:
    assert tools.listed(at) == ()
    assert tools.verify(at) == tools.Verification(verdicts=(), usable_end=None)


def test_info_tells_header_and_footer(bench: Any, at: Tools) -> None:
    entry = bench.driver.entries[1]
    found = tools.info(at, entry.file)
    assert found.header.base == bench.driver.entries[0].as_base()
    assert found.header.key_name == "snapshots"
    assert found.footer.content_hash.hex() == entry.content_hash
    assert found.bytes == entry.bytes
    with pytest.raises(SnapshotDamaged, match="there is no such file"):
        tools.info(at, "nothing")


def test_totals_add_up_the_sections(bench: Any, at: Tools) -> None:
    entry = bench.driver.entries[0]
    changes, pairs = tools.totals(at, entry.file)
    assert changes == SectionTotal(name="changes", schema=1, sections=1, slots=1, chunk_bytes=1)
    assert (pairs.name, pairs.schema) == ("pairs", 1)
    assert pairs.sections == pairs.slots == entry.sections - 1


def test_lines_are_json_of_every_section(bench: Any, at: Tools) -> None:
    lines = list(tools.lines(at, bench.driver.entries[0].file))
    assert len(lines) == bench.driver.entries[0].sections
    first = msgspec.json.decode(lines[0])
    assert first == {"slot": SHARD_WIDE, "name": "changes", "schema": 1, "value": 60}


def test_verify_reads_and_loads_everything(bench: Any, at: Tools) -> None:
    found = tools.verify(at)
    assert found.good
    assert [verdict.state_compared for verdict in found.verdicts] == [True] * 3
    assert found.usable_end == bench.driver.newest.offset_end
    blind = tools.verify(msgspec.structs.replace(at, new_image=None))
    assert blind.good
    assert not any(verdict.state_compared for verdict in blind.verdicts)


def test_verify_names_the_damage_and_where_a_start_would_begin(
    bench: Any, at: Tools, tmp_path: Path
) -> None:
    full, first, second = bench.driver.entries
    damage(tmp_path, second.file)
    found = tools.verify(at)
    assert not found.good
    problems = [verdict.problem for verdict in found.verdicts]
    assert problems[:2] == [None, None]
    assert problems[2] is not None
    assert f"snapshots/{second.file} is damaged at byte" in problems[2]
    assert found.usable_end == first.offset_end
    damage(tmp_path, full.file)
    found = tools.verify(at)
    assert all(verdict.problem is not None for verdict in found.verdicts)
    assert found.usable_end is None
    # It only looked: nothing was moved or written.
    assert tools.listed(at) == (full, first, second)


def test_verify_without_the_key_says_which(bench: Any, at: Tools) -> None:
    found = tools.verify(msgspec.structs.replace(at, secrets=SimSecrets({})))
    assert len(found.verdicts) == len(bench.driver.entries)
    for verdict in found.verdicts:
        assert verdict.problem is not None
        assert "key 'snapshots', which this process has not" in verdict.problem


def test_verify_finds_an_increment_without_its_image(bench: Any, at: Tools) -> None:
    data = encode_manifest(Manifest(entries=bench.driver.entries[1:]))
    with contextlib.closing(at.disk.open("snapshots/MANIFEST", write=True)) as file:
        file.truncate(0)
        file.pwrite(data, 0)
    problems = [verdict.problem for verdict in tools.verify(at).verdicts]
    assert problems == ["no listed full image leads to it"] * 2


@pytest.mark.parametrize("folds", [False, True])
def test_compact_leaves_one_full_image_at_the_same_position(
    bench: Any, at: Tools, folds: bool
) -> None:
    content, newest = bench.image.content(), bench.driver.newest
    if folds:
        at = msgspec.structs.replace(at, new_image=None)
    entry = tools.compact(at, OPTIONS, **WORLD)
    assert entry.full
    assert entry.offset_end == newest.offset_end
    assert entry.state_hash == newest.state_hash
    assert (entry.content_hash == entry.state_hash) == (not folds)
    assert tools.info(at, entry.file).header.folded == folds
    assert tools.compact(at, OPTIONS, **WORLD) == entry
    _, report = bench.restart(check_state_hash=True)
    assert report.chain == (entry,)
    assert report.state_hash_checked
    assert bench.image.content() == content


def test_compact_of_nothing_says_so(at: Tools) -> None:
    with pytest.raises(SnapshotFailed, match="no snapshot to merge"):
        tools.compact(at, OPTIONS, **WORLD)


def test_compact_of_a_damaged_chain_changes_nothing(bench: Any, at: Tools, tmp_path: Path) -> None:
    damage(tmp_path, bench.driver.entries[1].file)
    names = list(at.disk.list("snapshots"))
    with pytest.raises(SnapshotDamaged):
        tools.compact(at, OPTIONS, **WORLD)
    assert list(at.disk.list("snapshots")) == names


def test_nothing_is_changed_beside_a_running_engine(bench: Any, at: Tools) -> None:
    held = at.disk.lock("LOCK")
    file = bench.driver.entries[0].file
    with pytest.raises(BlockingIOError):
        tools.compact(at, OPTIONS, **WORLD)
    with pytest.raises(BlockingIOError):
        tools.convert(at, file, OPTIONS, **WORLD)
    assert tools.verify(at).good
    held.release()


def test_convert_writes_another_codec_and_key_for_the_same_state(bench: Any, at: Tools) -> None:
    content = bench.image.content()
    plain = msgspec.structs.replace(OPTIONS, codec=JSON, compress=False)
    before = bench.driver.entries
    converted = [tools.convert(at, entry.file, plain, **WORLD) for entry in before]
    for old, new in zip(before, converted, strict=True):
        assert (new.codec, new.encrypted) == (JSON, False)
        assert (new.content_hash, new.state_hash) == (old.content_hash, old.state_hash)
        assert (new.base, new.offset_end) == (old.base, old.offset_end)
    raw = at.disk.open(f"snapshots/{converted[0].file}")
    assert b'"name":"pairs","schema":1,' in raw.pread(raw.size(), 0)
    raw.close()
    assert tools.verify(at).good
    _, report = bench.restart(check_state_hash=True)
    assert report.chain == tuple(converted)
    assert bench.image.content() == content
    with pytest.raises(SnapshotFailed, match=r"x\.full is not listed"):
        tools.convert(at, "x.full", plain, **WORLD)


class Release1(DictImage):
    """Loads schema 1 alone."""

    def load(self, section: Section) -> None:
        assert section.schema == 1
        super().load(section)


def test_convert_to_an_older_schema_lets_the_older_release_start(
    harness: Any, local: LocalDisk, at: Tools
) -> None:
    """Release 2 writes the names backwards; the older one must not see that."""

    def turned(chunk: bytes) -> Iterator[bytes]:
        pairs = msgspec.msgpack.decode(chunk)
        yield msgspec.msgpack.encode([[name[::-1], value] for name, value in pairs])

    step = Migration(name="pairs", from_schema=2, to_schema=1, migrate=turned)
    newer = harness(local, new_image=None)
    newer.image = DictImage(schema=2)
    newer.driver.recover()
    newer.put(4, "cba", b"1")
    newer.take()
    newer.put(5, "fed", b"2")
    newer.take()
    older = Migrations({"pairs": Readable(1), "changes": Readable(1)})
    with pytest.raises(SnapshotRefused, match="has schema 2; this release reads up to 1"):
        newer.driver.load_newest(Release1, older)
    at = msgspec.structs.replace(at, new_image=None, migrations=Migrations({}, [step]))
    merged = tools.compact(at, OPTIONS, **WORLD)
    with pytest.raises(SnapshotRefused, match="no migration"):
        tools.convert(at, merged.file, OPTIONS, schemas={"pairs": 3}, **WORLD)
    back = tools.convert(at, merged.file, OPTIONS, schemas={"pairs": 1}, **WORLD)
    assert back.state_hash is None
    driver = newer.new_driver()
    image, position, report = driver.load_newest(Release1, older)
    assert report.chain == (back,)
    assert isinstance(image, DictImage)
    assert image.content() == {(4, "abc"): b"1", (5, "def"): b"2"}
    assert position == newer.position()
    assert position.chain == hashlib.blake2b(b"2", digest_size=16).digest()
    assert tools.info(at, back.file).header.created == Instant(WORLD["clock"].now())
