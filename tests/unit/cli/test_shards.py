"""The verbs before several shards, and the data that can be sown."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.cli.conftest import ULTRA, Dev

from ultraengine.cli.seeds import SEEDS, sow
from ultraengine.cli.status import shard_statuses
from ultraengine.client import SyncClient


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    process = Dev(tmp_path_factory.mktemp("front") / "data", "--shards", "2")
    yield process
    assert process.stop() == 0


def ultra(*arguments: str | Path) -> tuple[int, str, str]:
    ended = subprocess.run([ULTRA, *arguments], capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout, ended.stderr


def test_the_banner_says_how_many_shards_there_are(front: Dev) -> None:
    assert "shards     2, a process each" in front.banner


def test_the_status_of_a_front_has_a_line_for_each_shard(front: Dev) -> None:
    code, out, _ = ultra("status", "--url", front.url)
    lines = out.splitlines()
    assert code == 0
    assert any(line.split()[:2] == ["role", "router"] for line in lines)
    assert [line.split()[:3] for line in lines[-2:]] == [
        ["0", "serving", "2048"],
        ["1", "serving", "2048"],
    ]
    code, out, _ = ultra("status", "-o", "json", "--url", front.url)
    status = json.loads(out)
    assert [one["shard"] for one in shard_statuses(status)] == [0, 1]
    assert shard_statuses(status["shards"][1]["status"]) == [status["shards"][1]["status"]]
    status["shards"][0]["state"] = "unreachable"
    assert [one["shard"] for one in shard_statuses(status)] == [1]


def test_a_replay_is_validated_in_every_shard(front: Dev) -> None:
    code, out, _ = ultra("log", "replay", "--validate", "--url", front.url)
    assert code == 0
    assert {name: report["equal"] for name, report in json.loads(out).items()} == {
        "0": True,
        "1": True,
    }


def test_only_a_halted_shard_takes_a_skip(front: Dev) -> None:
    code, _, err = ultra("log", "skip", "--offset", "1", "--reason", "x", "--url", front.url)
    assert code == 2
    assert "shard 0 is serving at offset" in err
    assert "shard 1 is serving at offset" in err


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_data_that_is_sown_twice_is_there_once(front: Dev, name: str) -> None:
    with SyncClient(front.url) as client:
        count = len(SEEDS[name].commands)
        assert sow(client, name) == f"{count} of {count} commands booked"
        first = client.get(SEEDS[name].look).value
        assert sow(client, name) == "it was there already; nothing changed"
        assert client.get(SEEDS[name].look).value == first
        balances = {one["id"]: one["balance"] for one in first["accounts"]}
        assert balances == {"alice": "48750", "bank": "-70000", "bob": "20000", "shop": "1250"}


def test_data_that_differs_from_the_set_is_not_overwritten(front: Dev) -> None:
    name = min(SEEDS)
    with SyncClient(front.url) as client:
        sow(client, name)
        # The ids of the set, at an engine that has forgotten them: the books still know.
        again = [
            command.__class__(
                type=command.type, key=command.key, data=command.data, id=f"other-{command.id}"
            )
            for command in SEEDS[name].commands
        ]
        replies = client.send_all(again)
    assert {reply.error.code for reply in replies if reply.error} == {"exists"}


def test_what_cannot_be_started_says_what_to_do(front: Dev, tmp_path: Path) -> None:
    code, _, err = ultra("dev", "--data", front.data, "--shards", "65", "--port", "0")
    assert code == 2
    assert "65 shards are not 1 to 64" in err
    code, _, err = ultra("dev", "--data", tmp_path, "--seed-data", "no-such", "--port", "0")
    assert code == 2
    assert all(name in err for name in SEEDS)
    counter = "ultraengine.domains.counter:DOMAIN"
    code, _, err = ultra(
        "dev", "--data", tmp_path, "--seed-data", "ledger-demo", "--domain", counter, "--port", "0"
    )
    assert code == 2
    assert "--domain" in err
