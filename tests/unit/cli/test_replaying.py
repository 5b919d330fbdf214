"""`ultra log replay DIRECTORY`: the state of a shard, and its decisions, from files alone."""

import contextlib
import json
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.cli.conftest import SNAPSHOT, ULTRA, Dev

from ultraengine.cli.exits import Exit
from ultraengine.cli.replaying import _Ids, _open
from ultraengine.client import SyncClient
from ultraengine.execution.dedup import RUN_BYTES_PER_ENTRY, DedupIndex
from ultraengine.model.ids import Instant, Offset
from ultraengine.model.limits import DEFAULT_LIMITS

Ultra = Callable[..., tuple[int, str, str]]
NOBODY = ("--url", "http://127.0.0.1:9", "--timeout", "0.05")
OTHER = """
from msgspec.structs import replace
from ultraengine.domains.ledger import Ledger
from ultraengine.model.domain import Rejection

def refuse(book, item, context):
    return Rejection("closed_today", "nothing moves today")

class Other(Ledger):
    commands = [
        replace(spec, decide_item=refuse, lane=None, single=None)
        if spec.name == "create_transfers" else spec
        for spec in Ledger.commands
    ]

DOMAIN = Other()
"""

BROKEN = """
from msgspec import defstruct
from msgspec.structs import replace
from ultraengine.domains.ledger import Ledger
from ultraengine.domains.ledger.evolve import evolve

class Broken(Ledger):
    commands = [replace(spec, lane=None, single=None) for spec in Ledger.commands]

    def evolve(self, book, event, at):
        if getattr(event, "id", "") == "t1":
            raise ArithmeticError
        evolve(book, event, at)

class Narrow(Ledger):
    commands = [
        replace(spec, data=defstruct("Data", [("wanted", int)])) for spec in Ledger.commands
    ]

DOMAIN, NARROW = Broken(), Narrow()
"""
CODEC = """
from ultraengine.extensions import Extensions
from ultraengine.log.serializer import MsgpackSerializer

class Own(MsgpackSerializer):
    codec = 64

class Other(Own):
    def decode_commands(self, payload):
        raise ValueError("no letter of mine")

WRITER, READER = Extensions(serializers=(Own(),)), Extensions(serializers=(Other(),))
"""


@pytest.fixture
def data(stopped: Path, tmp_path: Path) -> Path:
    """A copy of the stopped engine's directory, to be changed."""
    return Path(shutil.copytree(stopped, tmp_path / "data"))


def replayed(ultra: Ultra, *arguments: object) -> Any:
    code, out, err = ultra("log", "replay", *arguments, "-o", "json")
    assert code == Exit.OK, err
    return msgspec.json.decode(out)


def content(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def listed(ultra: Ultra, data: Path) -> Any:
    return msgspec.json.decode(ultra("snapshot", "list", data, "-o", "json")[1])


def test_a_replay_from_the_snapshot_and_one_of_the_whole_log_reach_one_state(
    ultra: Ultra, stopped: Path
) -> None:
    before = content(stopped)
    short, whole = replayed(ultra, stopped), replayed(ultra, stopped, "--from-start")
    assert short["from_offset"] > whole["from_offset"] == 0
    assert whole["replayed"] == whole["offset"] == short["offset"]
    assert (short["state_hash"], short["chain"]) == (whole["state_hash"], whole["chain"])
    log = msgspec.json.decode(ultra("log", "verify", stopped, "-o", "json")[1])
    assert (whole["chain"], whole["offset"]) == (log["chain"], log["recorded_end"])
    code, out, _ = ultra("log", "replay", stopped)
    assert (code, whole["state_hash"] in out, "replayed" in out) == (Exit.OK, True, True)
    assert content(stopped) == before


def test_a_replay_up_to_a_snapshot_has_its_state_hash(ultra: Ultra, stopped: Path) -> None:
    for entry in listed(ultra, stopped):
        end = entry["offset_end"]
        found = replayed(ultra, stopped, "--from-start", "--to", end)
        assert (found["offset"], found["state_hash"]) == (end, entry["state_hash"])
        loaded = replayed(ultra, stopped, "--to", end)
        assert (loaded["replayed"], loaded["state_hash"]) == (0, entry["state_hash"])


def test_an_offset_within_the_log_is_reached_and_one_beyond_it_refused(
    ultra: Ultra, stopped: Path
) -> None:
    end = replayed(ultra, stopped)["offset"]
    hashes = {
        replayed(ultra, stopped, "--to", offset)["state_hash"] for offset in range(1, end + 1)
    }
    assert len(hashes) >= 3
    code, _, err = ultra("log", "replay", stopped, "--to", end + 1)
    assert (code, f"below offset {end}" in err) == (Exit.USAGE, True)


def test_the_directory_of_a_running_engine_is_read_beside_it(ultra: Ultra, dev: Dev) -> None:
    found = replayed(ultra, dev.data)
    # What the engine has not recorded yet is counted, and no part of the state.
    assert found["offset"] + found["left_out"] >= 1
    code, out, _ = ultra("log", "replay", dev.data, "--validate")
    assert (code, msgspec.json.decode(out)["equal"]) == (Exit.OK, True)


def test_commands_without_a_recorded_outcome_are_left_out_and_counted(
    ultra: Ultra, data: Path
) -> None:
    frames = [json.loads(line) for line in ultra("log", "dump", data, "--headers")[1].splitlines()]
    last = max(frame["sequence"] for frame in frames if frame["kind"] == "OUTCOMES")
    assert ultra("log", "truncate", data, "--after", last - 1, "--keep-broken")[0] == Exit.OK
    found = replayed(ultra, data, "--from-start")
    assert found["left_out"] >= 1
    _, _, err = ultra("log", "replay", data, "--from-start")
    assert "left out" in err


def test_a_damaged_snapshot_is_passed_by_and_stays_where_it_is(ultra: Ultra, data: Path) -> None:
    whole = replayed(ultra, data)
    path = data / "shard-0000" / "snapshots" / listed(ultra, data)[-1]["file"]
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0x40
    path.write_bytes(damaged)
    before = content(data)
    code, out, err = ultra("log", "replay", data, "-o", "json")
    found = msgspec.json.decode(out)
    assert (code, found["state_hash"]) == (Exit.OK, whole["state_hash"])
    assert found["from_offset"] < whole["from_offset"]
    assert "an older state is used" in err
    (data / "shard-0000" / "snapshots" / "MANIFEST").write_bytes(b"?")
    code, _, err = ultra("log", "replay", data)
    assert (code, "--from-start" in err) == (Exit.DAMAGED, True)
    assert replayed(ultra, data, "--from-start")["state_hash"] == whole["state_hash"]
    del before[next(name for name in before if name.endswith("MANIFEST"))]
    assert before.items() <= content(data).items()


def test_a_snapshot_of_another_log_is_refused(ultra: Ultra, data: Path, tmp_path: Path) -> None:
    process = Dev(tmp_path / "another")
    subprocess.run([sys.executable, "-c", SNAPSHOT, process.url], check=True, capture_output=True)
    assert process.stop() == 0
    shutil.rmtree(data / "shard-0000" / "snapshots")
    shutil.copytree(process.data / "shard-0000" / "snapshots", data / "shard-0000" / "snapshots")
    code, _, err = ultra("log", "replay", data)
    assert (code, "of another log" in err) == (Exit.DAMAGED, True)


def test_damage_of_the_log_ends_with_its_place(ultra: Ultra, data: Path) -> None:
    path = next((data / "shard-0000" / "log").glob("seg-*"))
    damaged = bytearray(path.read_bytes())
    damaged[4100 + 60] ^= 1
    path.write_bytes(damaged)
    code, _, err = ultra("log", "replay", data, "--from-start")
    assert (code, "damaged at byte" in err) == (Exit.DAMAGED, True)


def test_decisions_that_read_the_history_below_a_snapshot_come_out_the_same(
    ultra: Ultra, data: Path
) -> None:
    process = Dev(data)
    reversal = {"transfers": [{"id": "back", "reverses": "t"}]}
    subprocess.run(
        [ULTRA, "send", "ledger.reverse_transfers", "--key", "k", "--data", json.dumps(reversal),
         "--url", process.url],
        check=True,
        capture_output=True,
    )  # fmt: skip
    assert process.stop() == 0
    end = replayed(ultra, data)["offset"]
    dumped = [json.loads(line) for line in ultra("log", "dump", data)[1].splitlines()]
    at = next(
        frame["base_offset"] + number
        for frame in dumped
        for number, command in enumerate(frame.get("commands", ()))
        if command["type"].startswith("ledger.reverse")
    )
    before = content(data)
    for options in (["--from", at], ["--from", at, "--from-start"], []):
        code, out, _ = ultra("log", "replay", data, "--validate", *options)
        report = msgspec.json.decode(out)
        assert (code, report["equal"], report["to_offset"]) == (Exit.OK, True, end)
        assert report["compared"] >= 1
    assert content(data) == before


def test_the_first_command_that_is_decided_differently_is_named(
    ultra: Ultra, stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other_ledger.py").write_text(OTHER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    other = ("--domain", "other_ledger:DOMAIN")
    code, out, _ = ultra("log", "replay", stopped, "--validate", *other)
    report = msgspec.json.decode(out)
    assert (code, report["equal"]) == (Exit.FINDINGS, False)
    assert report["command_type"] == "ledger.create_transfers@1"
    assert "closed_today" in report["decided"]
    at = report["first_difference"]
    code, out, _ = ultra("log", "replay", stopped, "--validate", "--to", at, *other)
    assert (code, msgspec.json.decode(out)["equal"]) == (Exit.OK, True)
    # The domains of the settings count where none is named.
    monkeypatch.setenv("ULTRA_DOMAINS", "other_ledger:DOMAIN")
    assert ultra("log", "replay", stopped, "--validate")[0] == Exit.FINDINGS


def last_transfers(ultra: Ultra, data: Path) -> int:
    """Offset of the last command that moves money."""
    return [
        int(frame["base_offset"]) + number
        for frame in map(json.loads, ultra("log", "dump", data)[1].splitlines())
        for number, command in enumerate(frame.get("commands", ()))
        if command["type"].startswith("ledger.create")
    ][-1]


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A ledger that cannot evolve the transfer t1."""
    (tmp_path / "broken_ledger.py").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return "broken_ledger:DOMAIN"


def test_an_overridden_command_is_passed_by_whatever_is_recorded_of_it(
    ultra: Ultra, tmp_path: Path, broken: str
) -> None:
    # It halts the shard before its outcome is recorded, so that a start records the override.
    data, other = tmp_path / "overridden", ("--domain", broken)
    process = Dev(data, *other)

    def send(kind: str, content: object) -> None:
        ultra("send", kind, "--key", "k", "--data", json.dumps(content), "--timeout", "3",
              "--url", process.url)  # fmt: skip

    accounts = [{"id": name, "asset": "USD/2", "min_balance": None} for name in "ab"]
    send("ledger.open_accounts", {"accounts": accounts})
    transfer = {"from": "a", "to": "b", "amount": "5"}
    send("ledger.create_transfers", {"transfers": [{"id": "t1", **transfer}]})
    at = last_transfers(ultra, data)
    code, _, err = ultra("log", "skip", "--offset", at, "--reason", "x", "--url", process.url)
    assert code == Exit.OK, err
    process.stop()
    process = Dev(data, *other)
    send("ledger.create_transfers", {"transfers": [{"id": "t2", **transfer}]})
    assert process.stop() == 0
    end = replayed(ultra, data, "--from-start")["offset"]
    for domains in (other, ()):
        code, out, err = ultra("log", "replay", data, "--validate", "--from-start", *domains)
        assert code == Exit.OK, err
        report = msgspec.json.decode(out)
        assert (report["equal"], report["to_offset"]) == (True, end)
        assert report["compared"] == end - 1
    code, _, err = ultra(
        "log", "replay", data, "--validate", "--from-start", "--from", at, "--to", at + 1
    )
    assert (code, "can be compared" in err) == (Exit.USAGE, True)


def test_a_logged_override_of_a_recorded_event_is_honoured_where_it_does_not_evolve(
    ultra: Ultra, data: Path, tmp_path: Path, broken: str
) -> None:
    # The command is recorded with its event; a later build cannot evolve it.
    process = Dev(data)
    transfer = {"from": "a", "to": "b", "amount": "5"}
    content = {"transfers": [{"id": "t1", **transfer}]}
    ultra("send", "ledger.create_transfers", "--key", "k", "--data", json.dumps(content),
          "--url", process.url)  # fmt: skip
    assert process.stop() == 0
    other = ("--domain", broken)
    for options in ((), ("--validate",)):
        code, _, err = ultra("log", "replay", data, "--from-start", *options, *other)
        assert (code, "evolve" in err, "--domain" in err) == (Exit.FINDINGS, True, False)
    at = last_transfers(ultra, data)
    process = Dev(data)
    with SyncClient(process.url) as client:
        client.operate("skip", {"offset": at, "reason": "x"})
    assert process.stop() == 0
    whole = replayed(ultra, data, "--from-start")
    without = replayed(ultra, data, "--from-start", *other)
    assert without["offset"] == whole["offset"]
    assert without["state_hash"] != whole["state_hash"]
    for begin in (0, at + 1):
        arguments = ("--validate", "--from-start", "--from", begin, *other)
        code, out, err = ultra("log", "replay", data, *arguments)
        assert code == Exit.OK, err
        report = msgspec.json.decode(out)
        assert (report["equal"], report["to_offset"]) == (True, whole["offset"])
    # A start honours it as well, so the doctor does.
    shutil.rmtree(data / "shard-0000" / "snapshots")
    code, out, _ = ultra("doctor", data, *other, *NOBODY)
    assert (code, "all invariants hold" in out) == (Exit.OK, True)


def test_data_that_this_build_does_not_take_is_a_finding_and_no_damage(
    ultra: Ultra, stopped: Path, broken: str
) -> None:
    narrow = ("--domain", broken.replace("DOMAIN", "NARROW"))
    code, _, err = ultra("log", "replay", stopped, "--validate", *narrow)
    assert (code, "wanted" in err, "does not fit here" in err) == (Exit.FINDINGS, True, True)


def test_a_payload_that_is_not_its_codecs_is_damage_with_its_offset(
    ultra: Ultra, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_codec.py").write_text(CODEC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("ULTRA_EXTENSIONS", "own_codec:WRITER")
    data = tmp_path / "data"
    assert Dev(data, "--extensions", "own_codec:WRITER").stop() == 0
    assert replayed(ultra, data, "--from-start")["offset"] > 0
    monkeypatch.setenv("ULTRA_EXTENSIONS", "own_codec:READER")
    for options in ((), ("--validate",)):
        code, _, err = ultra("log", "replay", data, "--from-start", *options)
        assert (code, "offset 0" in err, "no letter" in err) == (Exit.DAMAGED, True, True)


@pytest.mark.parametrize(("window_s", "kept"), [(10**6, 20_000), (1, 1_000)])
def test_ids_beyond_memory_leave_it_and_are_found_on_the_disk(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window_s: int, kept: int
) -> None:
    monkeypatch.setenv("ULTRA_LIMIT_DEDUP_ENTRIES_MAX", "2000")
    monkeypatch.setenv("ULTRA_LIMIT_DEDUP_WINDOW_S", str(window_s))
    options = Namespace(domain=None, directory=stopped, secrets=None, archive=None)
    with contextlib.closing(_Ids(_open(options), tmp_path)) as ids:
        executor = ids.new_image().resume(None)
        dedupe = executor.dedupe
        assert isinstance(dedupe, DedupIndex)
        most = 0
        for offset in range(20_000):
            dedupe.add(offset % 3, offset.to_bytes(8, "little"), offset)
            if offset % 50 == 49:
                ids.advance(Instant(offset * 1_000), Offset(offset + 1))
                most = max(most, dedupe.entries_in_memory)
        assert most <= 2_000
        assert abs(dedupe.entries - kept) <= 100
        for offset in (20_000 - kept + 100, 19_999):
            assert dedupe.find(offset % 3, offset.to_bytes(8, "little")) == (offset,)


def test_ids_that_leave_memory_change_no_state_hash(
    ultra: Ultra, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replayed(ultra, stopped)
    # As many together as before: that many are forgotten, wherever they are.
    more = DEFAULT_LIMITS.dedup_bytes_max + RUN_BYTES_PER_ENTRY * DEFAULT_LIMITS.dedup_entries_max
    monkeypatch.setenv("ULTRA_LIMIT_DEDUP_ENTRIES_MAX", "1")
    monkeypatch.setenv("ULTRA_LIMIT_DEDUP_BYTES_MAX", str(more - RUN_BYTES_PER_ENTRY))
    for options in ((), ("--from-start",)):
        assert replayed(ultra, stopped, *options)["state_hash"] == whole["state_hash"]


def test_ranges_that_compare_nothing_are_refused(ultra: Ultra, stopped: Path) -> None:
    end = replayed(ultra, stopped)["offset"]
    for options, said in (
        (("--from", 3, "--to", 1), "below 1"),
        (("--from", 3, "--to", 3), "below 3"),
        (("--to", 0), "below 0"),
        (("--to", end + 1), f"below offset {end}"),
        (("--from", end), "can be compared"),
    ):
        code, out, err = ultra("log", "replay", stopped, "--validate", *options)
        assert (code, said in err, out) == (Exit.USAGE, True, ""), err


def test_wrong_arguments_are_said_before_anything_is_read(
    ultra: Ultra, stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, said in (
        (("--from", 1, stopped), "--validate"),
        ((*NOBODY,), "a running engine"),
        ((stopped, "--validate", "--from", 10**6), "and not 1000000"),
        ((stopped, "--archive", tmp_path / "none"), "is no directory"),
        ((stopped, "--domain", "no.such:DOMAIN"), "no.such"),
    ):
        code, _, err = ultra("log", "replay", *arguments)
        assert (code, said in err) == (Exit.USAGE, True), err
    counter = ("--domain", "ultraengine.domains.counter:DOMAIN")
    code, _, err = ultra("log", "replay", stopped, *counter)
    assert (code, "section 'ledger'" in err) == (Exit.USAGE, True)
    code, _, err = ultra("log", "replay", stopped, "--from-start", *counter)
    assert (code, "--domain" in err) == (Exit.FINDINGS, True)
    monkeypatch.setenv("ULTRA_LIMIT_SEGMENT_BYTES", "no number")
    code, _, err = ultra("log", "replay", stopped)
    assert (code, "ULTRA_LIMIT_SEGMENT_BYTES" in err) == (Exit.USAGE, True)


def test_an_archive_that_is_there_is_left_as_it_is(
    ultra: Ultra, stopped: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    assert replayed(ultra, stopped, "--archive", archive)["offset"] > 0
    assert list(archive.iterdir()) == []
