"""Verbs that read a directory in which a user's own serializers and codecs have written."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.unit.cli.conftest import Dev

from ultraengine.cli.exits import Exit
from ultraengine.client import SyncClient

Ultra = Callable[..., tuple[int, str, str]]
NOBODY = ("--url", "http://127.0.0.1:9", "--timeout", "0.05")
PARTS = """
from ultraengine.extensions import Extensions
from ultraengine.log.serializer import MsgpackSerializer
from ultraengine.snapshot.codec import JsonCodec

class Own(MsgpackSerializer):
    codec = 64

class Lines(JsonCodec):
    number = 64

MINE = Extensions(serializers=(Own(),), snapshot_codecs=(Lines(),))
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ultra: Ultra) -> Path:
    """The directory of an engine with parts of its own, which has stopped."""
    (tmp_path / "own_parts.py").write_text(PARTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    data = tmp_path / "data"
    process = Dev(data, "--extensions", "own_parts:MINE")
    for name in "ab":
        content = json.dumps({"accounts": [{"id": name, "asset": "USD/2"}]})
        ultra("send", "ledger.open_accounts", "--key", "k", "--data", content, "--url", process.url)
        with SyncClient(process.url) as client:
            client.operate("snapshot")
    assert process.stop() == 0
    return data


def test_what_own_parts_have_written_is_read_where_they_are_named(
    ultra: Ultra, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = ultra("doctor", data, *NOBODY)
    assert (code, "codec 64" in out) == (Exit.FINDINGS, True)
    monkeypatch.setenv("ULTRA_EXTENSIONS", "own_parts:MINE")
    code, out, _ = ultra("doctor", data, "-o", "json", *NOBODY)
    grades = {check["name"]: check["grade"] for check in msgspec.json.decode(out)}
    assert (code, grades["snapshots"], grades["domains"]) == (Exit.OK, "ok", "ok")
    code, out, _ = ultra("snapshot", "verify", data)
    assert (code, out.count("its state too")) == (Exit.OK, 2)
    assert ultra("snapshot", "compact", data)[0] == Exit.OK
    code, out, _ = ultra("log", "dump", data)
    assert (code, out.count("ledger.open_accounts@1")) == (Exit.OK, 2)


def test_parts_that_cannot_be_imported_are_a_mistake_in_the_settings(
    ultra: Ultra, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ULTRA_EXTENSIONS", "own_parts:NOBODY")
    code, _, err = ultra("doctor", data, *NOBODY)
    assert (code, "own_parts:NOBODY" in err) == (Exit.USAGE, True)
