"""`ultra key` from the outside, and the keys it makes at a real engine's door."""

import json
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ultraengine.cli.exits import Exit
from ultraengine.cli.main import main

Ultra = Callable[..., tuple[int, str, str]]
ISSUE = ("key", "issue", "--tenant", "acme", "--principal", "till-7", "--scope", "ledger:read")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def test_a_key_is_shown_once_and_the_file_keeps_its_hash_for_its_owner_alone(
    ultra: Ultra, file: Path
) -> None:
    code, out, err = ultra(*ISSUE, "--file", file)
    key = out.strip()
    assert (code, key[:6]) == (0, "ultra_")
    assert out == key + "\n"
    assert key not in err
    assert key[-43:] not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    code, out, _ = ultra("key", "list", "--file", file)
    assert code == 0
    assert out.splitlines()[1].split() == [
        key.split("_")[1], "acme", "till-7", "ledger:read", "never", "live",
    ]  # fmt: skip
    assert key[-43:] not in out


def test_a_revoked_key_is_no_longer_in_the_file(ultra: Ultra, file: Path) -> None:
    _, out, _ = ultra(*ISSUE, "--file", file, "-o", "json")
    issued = json.loads(out)
    _, out, _ = ultra("key", "revoke", "--file", file, issued["prefix"], "-o", "json")
    assert json.loads(out) == {name: value for name, value in issued.items() if name != "key"}
    assert ultra("key", "list", "--file", file, "-o", "json")[1].strip() == "[]"
    code, _, err = ultra("key", "revoke", "--file", file, issued["prefix"])
    assert code == Exit.USAGE
    assert f"there is no key {issued['prefix']}" in err


def test_an_existing_file_keeps_its_comments_its_mode_and_the_link_to_it(
    ultra: Ultra, tmp_path: Path
) -> None:
    behind = tmp_path / "behind.toml"
    behind.write_text("# Ours.\n")
    behind.chmod(0o640)
    link = tmp_path / "keys.toml"
    link.symlink_to(behind)
    assert ultra(*ISSUE, "--file", link)[0] == 0
    assert link.is_symlink()
    assert behind.read_text().startswith("# Ours.\n\n[[keys]]\n")
    assert stat.S_IMODE(behind.stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["behind.toml", "keys.toml"]


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("soon", "neither a number of days"),
        ("0d", "neither a number of days"),
        ("99999d", None),
        ("2020-01-01T00:00:00Z", "is past"),
        ("2120-01-01T00:00:00", "no time zone"),
        ("2120-01-01T02:00:00.5+02:00", None),
    ],
)
def test_an_expiry_is_days_or_a_future_time_with_a_zone(
    ultra: Ultra, file: Path, when: str, said: str | None
) -> None:
    code, _, err = ultra(*ISSUE, "--file", file, "--expires", when)
    if said is None:
        assert code == 0
        assert ultra("key", "list", "--file", file)[1].splitlines()[1].endswith("live")
    else:
        assert code == Exit.USAGE
        assert said in err
        assert not file.exists()
    if when.startswith("2120") and said is None:
        assert "2120-01-01T00:00:00Z" in ultra("key", "list", "--file", file)[1]


def test_a_list_says_which_keys_have_expired(ultra: Ultra, file: Path) -> None:
    ultra(*ISSUE, "--file", file)
    file.write_text(file.read_text() + "expires = 2020-01-01T00:00:00Z\n")
    line = ultra("key", "list", "--file", file)[1].splitlines()[1]
    assert line.split()[-2:] == ["2020-01-01T00:00:00Z", "expired"]


@pytest.mark.parametrize(
    "arguments",
    [
        (*ISSUE, "--scope", "everything"),
        ("key", "list"),
        ("key", "revoke", "aaaaaaaa"),
    ],
)
def test_a_mistake_is_told_and_changes_nothing(
    ultra: Ultra, file: Path, arguments: tuple[str, ...]
) -> None:
    file.write_bytes(b"keys = 7\n" if arguments[1] != "issue" else b"")
    before = file.read_bytes()
    code, out, err = ultra(*arguments, "--file", file)
    assert (code, out) == (Exit.USAGE, "")
    assert str(file) in err
    assert "Nothing was changed." in err
    assert file.read_bytes() == before


def test_a_file_that_is_not_there_can_be_issued_into_but_neither_listed_nor_revoked_from(
    ultra: Ultra, tmp_path: Path
) -> None:
    missing = tmp_path / "none" / "keys.toml"
    for arguments in (("key", "list"), ("key", "revoke", "aaaaaaaa"), ISSUE):
        code, _, err = ultra(*arguments, "--file", missing)
        assert code == Exit.USAGE
        assert "No such file" in err


def test_keys_that_are_issued_at_the_same_time_are_all_in_the_file(file: Path) -> None:
    def issue(number: int) -> None:
        arguments = ("--tenant", "acme", "--principal", f"p{number}", "--scope", "*:read")
        assert main(["key", "issue", "--file", str(file), *arguments]) == 0

    threads = [threading.Thread(target=issue, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(line.startswith("principal") for line in file.read_text().splitlines()) == 16


def test_an_engine_takes_an_issued_key_and_refuses_others(
    ultra: Ultra, file: Path, tmp_path: Path
) -> None:
    _, key, _ = ultra(*ISSUE, "--file", file)
    (tmp_path / "key").write_text(key)
    (tmp_path / "other").write_text(key[:-2] + ("A" if key[-2] != "A" else "B"))
    arguments = ["dev", "--ephemeral", "--port", "0", "--auth", str(file)]
    process = subprocess.Popen(
        [Path(sys.executable).with_name("ultra"), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = next(line for line in process.stdout if "address" in line)
        reach = ("get", "limits", "--url", said.split()[-1], "--api-key-file")
        assert ultra(*reach, tmp_path / "key")[0] == Exit.OK
        assert ultra(*reach, tmp_path / "other")[0] == Exit.REFUSED
    finally:
        process.terminate()
        process.communicate(timeout=60)
