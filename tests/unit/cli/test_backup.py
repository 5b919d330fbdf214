"""`ultra backup` and `ultra restore`: what they say, and that nothing half done is left."""

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.servers.s3 import S3Server
from tests.unit.cli.conftest import Dev

from ultraengine.cli.exits import Exit
from ultraengine.cli.restore_verb import moment
from ultraengine.model.filled import PATH, decode_filled
from ultraengine.router.shard_map import ShardMap
from ultraengine_adapters.local.disk import LocalDisk

Ultra = Callable[..., tuple[int, str, str]]


@pytest.fixture
def data(stopped: Path, tmp_path: Path) -> Path:
    """A copy of the stopped engine's directory."""
    return Path(shutil.copytree(stopped, tmp_path / "data"))


@pytest.fixture
def store(ultra: Ultra, data: Path, tmp_path: Path) -> Path:
    """A store with one backup of it."""
    code, out, err = ultra("backup", "now", data, "--to", tmp_path / "store")
    assert code == Exit.OK, err
    assert "state hash" in out
    return tmp_path / "store"


def shown(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def test_a_restored_directory_replays_to_the_state_of_the_old_one(
    ultra: Ultra, data: Path, store: Path, tmp_path: Path
) -> None:
    code, out, err = ultra("restore", "--from", store, "--data", tmp_path / "new", "-o", "json")
    assert code == Exit.OK, err
    ((done),) = msgspec.json.decode(out)
    _, replayed, _ = ultra("log", "replay", data, "-o", "json")
    old = msgspec.json.decode(replayed)
    assert done["replayed"]["state_hash"] == old["state_hash"]
    assert done["restored"]["offset_end"] == old["offset"]
    assert shown(tmp_path / "new") == ["shard-0000"]
    assert ultra("log", "verify", tmp_path / "new")[0] == Exit.OK
    assert ultra("snapshot", "verify", tmp_path / "new")[0] == Exit.OK


def test_a_restore_overwrites_nothing(ultra: Ultra, data: Path, store: Path) -> None:
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    code, _, err = ultra("restore", "--from", store, "--data", data)
    assert (code, "is there already" in err) == (Exit.USAGE, True)
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


def test_a_restore_ends_at_an_offset_or_a_moment(ultra: Ultra, store: Path, tmp_path: Path) -> None:
    _, out, _ = ultra("backup", "list", "--to", store, "-o", "json")
    (backup,) = msgspec.json.decode(out)
    at = backup["at"]["offset_end"]
    code, out, err = ultra("restore", "--from", store, "--data", tmp_path / "a", "--offset", at)
    assert (code, f"offsets below  {at}" in out) == (Exit.OK, True), err
    code, out, err = ultra(
        "restore", "--from", store, "--data", tmp_path / "b", "--at", "2100-01-01T00:00:00Z"
    )
    assert (code, f"offsets below  {backup['end']['offset_end']}" in out) == (Exit.OK, True), err


def test_every_backup_is_proved_and_drilled(
    ultra: Ultra, data: Path, store: Path, tmp_path: Path
) -> None:
    assert ultra("backup", "now", data, "--to", store)[0] == Exit.OK
    code, out, err = ultra("backup", "verify", "--to", store, "--replay")
    assert (code, out.count("good, its state too")) == (Exit.OK, 2), err
    code, out, _ = ultra("backup", "verify", "--to", store)
    assert (code, out.count(": good\n")) == (Exit.OK, 2)
    code, out, _ = ultra("backup", "list", "--to", store)
    assert (code, len(out.splitlines())) == (Exit.OK, 3)


def test_a_flipped_bit_is_named_and_nothing_is_left(
    ultra: Ultra, store: Path, tmp_path: Path
) -> None:
    image = min((store / "0/snapshots").iterdir())
    bad = bytearray(image.read_bytes())
    bad[len(bad) // 2] ^= 1
    image.write_bytes(bad)
    code, out, _ = ultra("backup", "verify", "--to", store)
    assert (code, image.name in out, "SHA-256" in out) == (Exit.DAMAGED, True, True)
    code, _, err = ultra("restore", "--from", store, "--data", tmp_path / "new")
    assert (code, image.name in err) == (Exit.DAMAGED, True)
    assert shown(tmp_path / "new") == []


def test_a_manifest_with_another_state_hash_is_found_by_replay(
    ultra: Ultra, store: Path, tmp_path: Path
) -> None:
    (path,) = (store / "0/backups").iterdir()
    line = path.read_bytes().splitlines()[0]
    content = msgspec.json.decode(line)
    content["state_hash"] = "00" * 32
    from ultraengine.backup.manifest import Backup, encode_backup  # noqa: PLC0415

    path.write_bytes(encode_backup(msgspec.convert(content, Backup)))
    at = content["at"]["offset_end"]
    code, _, err = ultra("restore", "--from", store, "--data", tmp_path / "new", "--offset", at)
    assert (code, "the manifest says" in err) == (Exit.DAMAGED, True)
    assert shown(tmp_path / "new") == []
    code, out, _ = ultra("backup", "verify", "--to", store, "--replay")
    assert (code, "the manifest says" in out) == (Exit.DAMAGED, True)


def test_a_directory_in_use_is_refused(ultra: Ultra, data: Path, tmp_path: Path) -> None:
    lock = LocalDisk(data / "shard-0000").lock("LOCK")
    try:
        code, _, err = ultra("backup", "now", data, "--to", tmp_path / "store")
    finally:
        lock.release()
    assert (code, "a running process owns the directory" in err) == (Exit.IN_USE, True)


def test_two_restores_of_one_shard_do_not_meet(ultra: Ultra, store: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    lock = LocalDisk(tmp_path / "new").lock(".restoring-shard-0000.lock")
    try:
        code, _, _ = ultra("restore", "--from", store, "--data", tmp_path / "new")
    finally:
        lock.release()
    assert code == Exit.IN_USE
    # What a killed one has left is no obstacle.
    (tmp_path / "new/.restoring-shard-0000/log").mkdir(parents=True)
    (tmp_path / "new/.restoring-shard-0000/log/seg-x").write_bytes(b"half")
    assert ultra("restore", "--from", store, "--data", tmp_path / "new")[0] == Exit.OK
    assert shown(tmp_path / "new") == ["shard-0000"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("backup", "now", "{data}"), "--to is needed"),
        (("backup", "list", "--to", "gs://x"), "is neither s3://"),
        (("backup", "list", "--to", "{none}"), "the store holds no backup"),
        (("restore", "--from", "{none}", "--data", "{new}"), "the store holds no backup"),
        (("restore", "--from", "{store}", "--data", "{new}", "--shard", "7"), "no backup of it"),
        (("restore", "--from", "{store}", "--data", "{new}", "--offset", "9999"), "and not 9999"),
        (("restore", "--from", "{store}", "--data", "{new}", "--at", "2026-01-01T00:00:00"),
         "has no time zone"),
        (("restore", "--from", "{store}", "--data", "{new}", "--at", "2001-01-01T00:00:00Z"),
         "the oldest backup is of offset"),
        (("restore", "--from", "{store}", "--data", "{new}", "--domain",
          "ultraengine.domains.counter:DOMAIN"), "has no owner for"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_and_nothing_is_left(
    ultra: Ultra, data: Path, store: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    places = {"data": data, "store": store, "none": tmp_path / "none", "new": tmp_path / "new"}
    code, _, err = ultra(*(one.format(**places) for one in arguments))
    assert code != Exit.OK
    assert said in err
    assert shown(tmp_path / "new") == []


def test_a_moment_is_taken_to_the_microsecond() -> None:
    assert moment("1970-01-02T00:00:00.000001Z") == 86_400_000_001
    assert moment("1970-01-01T01:00:00+01:00") == 0


@pytest.mark.usefixtures("s3_keys")
def test_a_store_that_denies_is_said_with_its_reason(
    ultra: Ultra, data: Path, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = s3_server.new_place()
    assert ultra("backup", "now", data, "--to", place)[0] == Exit.OK
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "expired")
    code, _, err = ultra("restore", "--from", place, "--data", tmp_path / "new")
    assert (code, "SignatureDoesNotMatch" in err) == (Exit.USAGE, True)
    assert shown(tmp_path / "new") == []


def test_an_engine_without_a_store_says_that_there_is_no_such_operation(
    ultra: Ultra, dev: Dev
) -> None:
    code, _, err = ultra("backup", "now", "--url", dev.url)
    assert (code, "there is no such path" in err) == (Exit.REFUSED, True)


def map_of(place: Path, shards: int, version: int = 1) -> Path:
    """A published shard map."""
    path = place / f"map-{shards}-{version}.json"
    path.write_bytes(msgspec.structs.replace(ShardMap.even(shards), version=version).encode())
    return path


def test_before_a_first_start_a_shard_is_restored_once(
    ultra: Ultra, store: Path, tmp_path: Path
) -> None:
    begin = ("restore", "--from", store, "--data", tmp_path / "new", "--shard", 0)
    order = (*begin, "--report", tmp_path / "report")
    code, out, err = ultra(*order, "--first-start", map_of(tmp_path, 1))
    assert code == Exit.OK, err
    report = decode_filled((tmp_path / "report").read_bytes())
    assert report is not None
    assert all(one in out for one in (report.backup, report.offset, report.state_hash))
    assert report.stamped_at[:19] in out
    (tmp_path / "new" / "shard-0000" / "mine").touch()
    (tmp_path / "report").unlink()
    code, _, err = ultra(*order, "--first-start", map_of(tmp_path, 1))
    assert (code, "is there" in err) == (Exit.OK, True)
    assert (tmp_path / "new" / "shard-0000" / "mine").exists()
    # The pod that has restored it may be gone, and its report with it.
    assert decode_filled((tmp_path / "report").read_bytes()) == report


def test_nothing_is_reported_of_a_directory_that_was_not_restored(
    ultra: Ultra, store: Path, data: Path, tmp_path: Path
) -> None:
    order = ("restore", "--from", store, "--data", data, "--report", tmp_path / "report")
    code, _, err = ultra(*order, "--shard", 0, "--first-start", map_of(tmp_path, 1))
    assert code == Exit.OK, err
    (data / "shard-0000" / PATH).write_bytes(b"no report \xff")
    code, _, err = ultra(*order, "--shard", 0, "--first-start", map_of(tmp_path, 1))
    assert code == Exit.OK, err
    assert not (tmp_path / "report").exists()
    code, _, err = ultra(*order)
    assert (code, "--report is of one shard" in err) == (Exit.USAGE, True)


def test_an_empty_volume_of_an_engine_that_has_been_ready_is_filled_with_nothing(
    ultra: Ultra, store: Path, tmp_path: Path
) -> None:
    """It would forget what was acknowledged since; the start that follows refuses it."""
    order = ("restore", "--from", store, "--data", tmp_path / "new", "--shard", 0)
    code, _, err = ultra(*order, "--first-start", map_of(tmp_path, 1, version=2))
    assert (code, "has been ready" in err) == (Exit.OK, True)
    assert shown(tmp_path / "new") == []


@pytest.mark.parametrize("shard", [0, 1])
def test_a_shard_with_other_slots_than_the_map_gives_it_is_refused(
    ultra: Ultra, store: Path, tmp_path: Path, shard: int
) -> None:
    order = ("restore", "--from", store, "--data", tmp_path / "new", "--shard", shard)
    code, _, err = ultra(*order, "--first-start", map_of(tmp_path, 2))
    assert code != Exit.OK
    assert shown(tmp_path / "new") == []
    if shard == 0:
        assert "owns slots 0-4095, and the map gives it 0-2047" in err


def test_a_first_start_is_of_one_shard_and_needs_a_map(
    ultra: Ultra, store: Path, tmp_path: Path
) -> None:
    order = ("restore", "--from", store, "--data", tmp_path / "new")
    code, _, err = ultra(*order, "--first-start", map_of(tmp_path, 1))
    assert (code, "--shard" in err) == (Exit.USAGE, True)
    code, _, err = ultra(*order, "--shard", 0, "--first-start", tmp_path / "none.json")
    assert (code, "--first-start" in err) == (Exit.USAGE, True)
    assert shown(tmp_path / "new") == []
