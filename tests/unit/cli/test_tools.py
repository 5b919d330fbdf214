"""`ultra log`, `ultra snapshot` and `ultra doctor` on the files of a stopped engine."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.unit.cli.conftest import Dev

from ultraengine.cli.checks import (
    Check,
    attempt,
    check_compiled,
    check_crc32c,
    check_flush,
    check_hand_off,
    check_python,
    check_space,
    memory_limit,
)
from ultraengine.cli.exits import Exit
from ultraengine.cli.main import main
from ultraengine.client import SyncClient
from ultraengine.model.limits import Limits
from ultraengine_adapters.local.disk import LocalDisk

Ultra = Callable[..., tuple[int, str, str]]
NOBODY = ("--url", "http://127.0.0.1:9", "--timeout", "0.05")


@pytest.fixture
def ultra(capsys: pytest.CaptureFixture[str]) -> Ultra:
    """Runs a command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def data(stopped: Path, tmp_path: Path) -> Path:
    """A copy of the stopped engine's directory, to be changed."""
    return Path(shutil.copytree(stopped, tmp_path / "data"))


def segment_of(data: Path) -> Path:
    return next((data / "shard-0000" / "log").glob("seg-*"))


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x40
    path.write_bytes(content)


def test_a_good_log_is_called_good(ultra: Ultra, stopped: Path) -> None:
    code, out, _ = ultra("log", "verify", stopped)
    assert (code, out.splitlines()[-1]) == (Exit.OK, "good")
    code, out, _ = ultra("log", "verify", stopped / "shard-0000", "-o", "json")
    report = msgspec.json.decode(out)
    assert (code, report["ok"], report["problems"]) == (Exit.OK, True, [])
    assert report["end_offset"] >= 3


def test_damage_is_named_by_file_and_byte_and_ends_with_71(ultra: Ultra, data: Path) -> None:
    flip(segment_of(data), 4096 + 300)
    code, out, err = ultra("log", "verify", data)
    assert code == Exit.DAMAGED
    assert "DAMAGED" in out
    assert "damaged at byte" in err
    assert ultra("log", "verify", data, "-o", "json")[0] == Exit.DAMAGED


def test_a_dump_holds_every_command(ultra: Ultra, stopped: Path) -> None:
    code, out, _ = ultra("log", "dump", stopped)
    frames = [msgspec.json.decode(line) for line in out.splitlines()]
    types = [command["type"] for frame in frames for command in frame.get("commands", ())]
    assert code == Exit.OK
    assert types.count("ledger.create_transfers@1") == 1
    _, out, _ = ultra("log", "dump", stopped, "--headers", "--from", 1, "--to", 3)
    headers = [msgspec.json.decode(line) for line in out.splitlines()]
    assert [header["sequence"] for header in headers] == [1, 2]
    assert "commands" not in headers[1]


def test_a_truncated_log_differs_from_the_whole_one_and_keeps_what_was_cut(
    ultra: Ultra, data: Path, stopped: Path
) -> None:
    assert ultra("log", "diff", data, stopped) == (Exit.OK, "no difference\n", "")
    code, out, _ = ultra("log", "truncate", data, "--after", 2, "--keep-broken")
    assert (code, "lost_commands" in out) == (Exit.OK, True)
    assert list((data / "shard-0000" / "broken").iterdir())
    code, out, _ = ultra("log", "diff", data, stopped)
    assert code == Exit.FINDINGS
    assert "the log ends" in out


def test_truncate_shows_what_would_be_lost_and_changes_nothing_until_it_is_meant(
    ultra: Ultra, data: Path, stopped: Path
) -> None:
    code, foreseen, err = ultra("log", "truncate", data, "--after", 2)
    assert (code, "Nothing was changed" in err) == (Exit.FINDINGS, True)
    assert ultra("log", "diff", data, stopped) == (Exit.OK, "no difference\n", "")
    assert not list((data / "shard-0000" / "broken").iterdir())
    _, done, _ = ultra("log", "truncate", data, "--after", 2, "--keep-broken")
    assert "lost_commands" in foreseen
    assert foreseen.splitlines()[:-1] == done.splitlines()[:-1]  # The last one names the copies.


def test_truncate_refuses_a_frame_that_is_not_there(ultra: Ultra, data: Path) -> None:
    code, _, err = ultra("log", "truncate", data, "--after", 999, "--keep-broken")
    assert (code, "frame" in err) == (Exit.USAGE, True)


def test_a_damaged_log_is_repaired_from_a_good_copy(
    ultra: Ultra, data: Path, stopped: Path
) -> None:
    flip(segment_of(data), 4096 + 300)
    code, out, _ = ultra("log", "repair", data, "--good", stopped)
    assert code == Exit.OK
    assert "are from the good copy" in out
    assert ultra("log", "verify", data)[0] == Exit.OK
    _, out, _ = ultra("log", "repair", data, "--good", stopped)
    assert "nothing was damaged" in out


def test_a_directory_in_use_is_left_alone(ultra: Ultra, data: Path, stopped: Path) -> None:
    lock = LocalDisk(data / "shard-0000").lock("LOCK")
    try:
        assert ultra("log", "repair", data, "--good", stopped)[0] == Exit.IN_USE
        assert ultra("snapshot", "compact", data)[0] == Exit.IN_USE
    finally:
        lock.release()


def test_a_directory_with_several_shards_asks_which(ultra: Ultra, data: Path) -> None:
    shutil.copytree(data / "shard-0000", data / "shard-0001")
    code, _, err = ultra("log", "verify", data)
    assert (code, "several shards" in err) == (Exit.USAGE, True)
    assert "shard-0001" in err


def test_a_directory_without_a_shard_says_what_to_name(ultra: Ultra, tmp_path: Path) -> None:
    code, _, err = ultra("log", "verify", tmp_path)
    assert (code, "holds no shard" in err, "--data" in err) == (Exit.USAGE, True, True)


def snapshots_of(ultra: Ultra, data: Path) -> list[str]:
    _, out, _ = ultra("snapshot", "list", data, "-o", "json")
    return [entry["file"] for entry in msgspec.json.decode(out)]


def test_snapshots_are_listed_described_and_verified_with_their_state(
    ultra: Ultra, stopped: Path
) -> None:
    files = snapshots_of(ultra, stopped)
    assert len(files) >= 2
    code, out, _ = ultra("snapshot", "list", stopped)
    assert (code, files[0] in out) == (Exit.OK, True)
    code, out, _ = ultra("snapshot", "info", stopped, files[0], "--sections")
    assert code == Exit.OK
    assert "state hash" in out
    assert "\nledger " in out
    code, out, _ = ultra("snapshot", "verify", stopped)
    assert code == Exit.OK
    assert f"{files[0]}: good, its state too" in out


def test_a_damaged_snapshot_is_found(ultra: Ultra, data: Path) -> None:
    files = snapshots_of(ultra, data)
    path = data / "shard-0000" / "snapshots" / files[-1]
    flip(path, path.stat().st_size // 2)
    code, out, _ = ultra("snapshot", "verify", data)
    assert code == Exit.DAMAGED
    assert f"{files[-1]}: good" not in out
    flip(path, 4)
    code, _, _ = ultra("snapshot", "info", data, files[-1])
    assert code in {Exit.DAMAGED, Exit.USAGE}


def test_a_snapshot_is_converted_and_compacted(ultra: Ultra, data: Path) -> None:
    before = snapshots_of(ultra, data)
    code, out, _ = ultra(
        "snapshot", "convert", data, before[-1], "--codec", "json", "--uncompressed"
    )
    assert (code, msgspec.json.decode(out)["codec"]) == (Exit.OK, 2)
    code, out, _ = ultra("snapshot", "compact", data)
    assert (code, msgspec.json.decode(out)["codec"]) == (Exit.OK, 2)
    assert ultra("snapshot", "verify", data)[0] == Exit.OK
    code, _, err = ultra("snapshot", "convert", data, "none.full")
    assert (code, "not listed" in err) == (Exit.USAGE, True)


def test_without_snapshots_a_start_replays_the_log(ultra: Ultra, data: Path) -> None:
    shutil.rmtree(data / "shard-0000" / "snapshots")
    code, out, _ = ultra("snapshot", "verify", data)
    assert (code, "replays the whole log" in out) == (Exit.OK, True)
    assert ultra("snapshot", "compact", data)[0] == Exit.USAGE


def grades(out: str) -> dict[str, str]:
    return {check["name"]: check["grade"] for check in msgspec.json.decode(out)}


def test_a_healthy_directory_has_no_failed_check(ultra: Ultra, stopped: Path) -> None:
    code, out, _ = ultra("doctor", stopped, "-o", "json", *NOBODY)
    found = grades(out)
    assert code == Exit.OK, out
    assert set(found) == {
        "python", "crc32c", "compiled parts", "thread hand-off", "disk flush", "free space",
        "log", "snapshots", "domains", "memory",
    }  # fmt: skip
    assert [found[name] for name in ("log", "snapshots", "domains")] == ["ok"] * 3
    code, out, _ = ultra("doctor", stopped, *NOBODY)
    assert "all invariants hold" in out


def test_the_doctor_finds_a_damaged_log(ultra: Ultra, data: Path) -> None:
    flip(segment_of(data), 4096 + 300)
    code, out, _ = ultra("doctor", data, "-o", "json", *NOBODY)
    found = grades(out)
    assert (code, found["log"]) == (Exit.FINDINGS, "fail")
    assert "domains" not in found


def test_the_doctor_replays_the_log_where_there_is_no_snapshot(ultra: Ultra, data: Path) -> None:
    shutil.rmtree(data / "shard-0000" / "snapshots")
    code, out, _ = ultra("doctor", data, *NOBODY)
    assert code == Exit.OK
    assert "none taken yet" in out
    assert "(snapshot to 0, then" in out


def test_the_doctor_leaves_out_commands_without_a_recorded_outcome(
    ultra: Ultra, data: Path
) -> None:
    shutil.rmtree(data / "shard-0000" / "snapshots")
    _, out, _ = ultra("log", "dump", data, "--headers")
    frames = [msgspec.json.decode(line) for line in out.splitlines()]
    last = next(frame for frame in reversed(frames) if frame["kind"] == "COMMANDS")
    ultra("log", "truncate", data, "--after", last["sequence"], "--keep-broken")
    code, out, _ = ultra("doctor", data, *NOBODY)
    assert code == Exit.OK
    assert f"invariants hold at offset {last['base_offset']:,} " in out


def test_the_doctor_finds_damaged_snapshots(ultra: Ultra, data: Path) -> None:
    for name in snapshots_of(ultra, data):
        path = data / "shard-0000" / "snapshots" / name
        flip(path, path.stat().st_size // 2)
    code, out, _ = ultra("doctor", data, "-o", "json", *NOBODY)
    found = grades(out)
    # The log still begins at offset 0, so a start replays all of it.
    assert (code, found["snapshots"], found["domains"]) == (Exit.FINDINGS, "fail", "ok")


def test_the_doctor_uses_an_older_snapshot_where_the_newest_is_damaged_as_a_start_does(
    ultra: Ultra, data: Path
) -> None:
    newest = data / "shard-0000" / "snapshots" / snapshots_of(ultra, data)[-1]
    flip(newest, newest.stat().st_size // 2)
    code, out, _ = ultra("doctor", data, "-o", "json", *NOBODY)
    found = grades(out)
    assert (code, found["snapshots"], found["domains"]) == (Exit.OK, "warn", "ok")


def test_the_doctor_says_when_a_start_would_miss_a_part_of_the_log(
    ultra: Ultra, data: Path
) -> None:
    ultra("log", "truncate", data, "--after", 2, "--keep-broken")
    code, out, _ = ultra("doctor", data, *NOBODY)
    assert (code, "a part of the log is missing" in out) == (Exit.FINDINGS, True)


def test_the_doctor_says_when_a_snapshot_is_of_another_log(
    ultra: Ultra, data: Path, tmp_path: Path
) -> None:
    other = Dev(tmp_path / "other")
    for number in range(20):
        content = json.dumps({"accounts": [{"id": f"a{number}", "asset": "USD/2"}]})
        ultra("send", "ledger.open_accounts", "--key", "k", "--data", content, "--url", other.url)
    assert other.stop() == 0
    place = tmp_path / "other" / "shard-0000" / "snapshots"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(data / "shard-0000" / "snapshots", place)
    code, out, _ = ultra("doctor", tmp_path / "other", *NOBODY)
    assert (code, "taken of another log" in out) == (Exit.FINDINGS, True)


def test_what_was_encrypted_is_written_again_under_its_own_key(
    ultra: Ultra, data: Path, tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "disk").write_bytes(bytes(range(32)))
    keys = ("--secrets", secrets)

    def key_of(name: str) -> str:
        _, out, _ = ultra("snapshot", "info", data, name, *keys)
        return next(line.split()[-1] for line in out.splitlines() if line.startswith("key"))

    def written(*arguments: object) -> str:
        code, out, err = ultra("snapshot", *arguments, *keys)
        assert code == Exit.OK, err
        return str(msgspec.json.decode(out)["file"])

    first = snapshots_of(ultra, data)[0]
    encrypted = written("convert", data, first, "--master-key", "disk")
    assert key_of(encrypted) == "disk"
    again = written("convert", data, encrypted)
    assert key_of(again) == "disk"
    assert key_of(written("compact", data)) == "disk"
    assert key_of(written("convert", data, again, "--plain")) != "disk"


def test_merging_offline_removes_no_older_state(ultra: Ultra, data: Path) -> None:
    """How many states are kept is a setting of the engine's."""
    first = snapshots_of(ultra, data)[0]
    second = merge(ultra, data)
    process = Dev(data)
    content = json.dumps({"accounts": [{"id": "c", "asset": "USD/2"}]})
    ultra("send", "ledger.open_accounts", "--key", "k", "--data", content, "--url", process.url)
    with SyncClient(process.url) as client:
        client.operate("snapshot")
    assert process.stop() == 0
    third = merge(ultra, data)
    assert {first, second, third} <= set(snapshots_of(ultra, data))


def merge(ultra: Ultra, data: Path) -> str:
    """The full image that merging the newest chain gives."""
    code, out, err = ultra("snapshot", "compact", data)
    assert code == Exit.OK, err
    return str(msgspec.json.decode(out)["file"])


def test_the_doctor_needs_the_domains_of_the_data(ultra: Ultra, stopped: Path) -> None:
    counter = ("--domain", "ultraengine.domains.counter:DOMAIN")
    code, out, _ = ultra("doctor", stopped, "-o", "json", *counter, *NOBODY)
    assert (code, grades(out)["domains"]) == (Exit.FINDINGS, "fail")
    code, _, err = ultra("doctor", stopped, "--domain", "no.such:DOMAIN", *NOBODY)
    assert (code, "no.such" in err) == (Exit.USAGE, True)
    code, _, err = ultra("snapshot", "verify", stopped, *counter)
    assert (code, "--domain" in err) == (Exit.USAGE, True)


def test_the_doctor_sees_a_running_engine(ultra: Ultra, dev: "Dev") -> None:
    code, out, _ = ultra("doctor", dev.data, "-o", "json", "--url", dev.url)
    found = grades(out)
    assert found["engine"] in {"ok", "warn"}
    assert (code, found["log"], found["domains"]) == (Exit.OK, "ok", "ok")


def test_the_doctor_looks_at_the_machine_alone_when_there_are_no_data(
    ultra: Ultra, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = ultra("doctor", *NOBODY)
    assert (code, "no data directory" in out) == (Exit.OK, True)


def test_replay_validation_is_asked_of_a_running_engine(ultra: Ultra, dev: "Dev") -> None:
    code, out, _ = ultra("log", "replay", "--validate", "--url", dev.url)
    assert (code, msgspec.json.decode(out)["equal"]) == (Exit.OK, True)
    code, _, _ = ultra("log", "replay", "--validate", *NOBODY)
    assert code == Exit.UNREACHABLE


def test_a_skip_is_refused_while_the_shard_serves(ultra: Ultra, dev: "Dev") -> None:
    line = ("log", "skip", "--offset", "1", "--reason", "a test")
    code, _, err = ultra(*line, "--url", dev.url)
    assert (code, "the shard is serving" in err) == (Exit.USAGE, True)
    assert ultra(*line, *NOBODY)[0] == Exit.UNREACHABLE


def test_a_check_that_raises_is_a_finding() -> None:
    def broken() -> Check:
        raise OSError("no such device")

    assert attempt("x", broken) == Check("x", "fail", "OSError: no such device")


def test_the_interpreter_and_the_checksum_are_good_here() -> None:
    assert check_python().grade == ("warn" if sys.flags.optimize else "ok")
    assert check_crc32c().grade == "ok"


def test_plain_python_is_a_warning_that_names_what_is_absent() -> None:
    assert check_compiled([]).grade == "ok"
    found = check_compiled(["ultraengine.execution._packed"])
    assert (found.grade, "_packed absent" in found.finding, bool(found.advice)) == (
        "warn", True, True,
    )  # fmt: skip


def test_the_switch_interval_is_put_back() -> None:
    before = sys.getswitchinterval()
    assert check_hand_off(0.0002, seconds=0.02).name == "thread hand-off"
    assert sys.getswitchinterval() == before


def test_a_flush_leaves_no_file_behind(tmp_path: Path) -> None:
    assert check_flush(tmp_path).grade in {"ok", "warn"}
    assert list(tmp_path.iterdir()) == []
    assert check_flush(tmp_path / "none").grade == "fail"


def test_too_little_space_fails_before_the_disk_is_full(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    free = status.f_bavail * status.f_frsize
    assert check_space(tmp_path, Limits(segment_bytes=1, reserve_bytes=1)).grade == "ok"
    assert check_space(tmp_path, Limits(segment_bytes=1, reserve_bytes=free // 2)).grade == "warn"
    assert check_space(tmp_path, Limits(segment_bytes=1, reserve_bytes=2 * free)).grade == "fail"


def test_the_limit_of_the_control_group_counts_when_it_is_lower(tmp_path: Path) -> None:
    machine = memory_limit(())
    (tmp_path / "max").write_text("max\n")
    (tmp_path / "low").write_text("4096\n")
    (tmp_path / "high").write_text(f"{machine * 2}\n")
    assert memory_limit([tmp_path / "none", tmp_path / "max", tmp_path / "low"]) == 4096
    assert memory_limit([tmp_path / "high"]) == machine
