"""`ultra candidate` against a running engine: what it says, and with which exit code."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.conftest import Dev
from tests.unit.cli.test_replaying import BROKEN, OTHER

from ultraengine.cli.candidate import _decided, _until
from ultraengine.cli.exits import Exit
from ultraengine.cli.replaying import decided_state, opened_shard
from ultraengine.client import SyncClient
from ultraengine.config import Config
from ultraengine.model.candidate import decode_verdict
from ultraengine.starting.borrowing.driver import TimeIsUp

Ultra = Callable[..., tuple[int, str, str]]
ACCOUNTS = [{"id": "a", "asset": "USD/2", "min_balance": None}, {"id": "b", "asset": "USD/2"}]
TRANSFER = {"id": "t1", "from": "a", "to": "b", "amount": "7"}


@pytest.fixture(scope="module")
def booked(dev: Dev) -> Dev:
    with SyncClient(dev.url) as client:
        client.send("ledger.open_accounts", key="k", id="o", data={"accounts": ACCOUNTS})
        client.send("ledger.create_transfers", key="k", id="t", data={"transfers": [TRANSFER]})
    return dev


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to borrow into; modules of the current one are found."""
    monkeypatch.setenv("ULTRA_DATA", str(tmp_path / "borrowed"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked(ultra: Ultra, url: str, *more: object) -> tuple[int, Any]:
    code, out, err = ultra("candidate", "--url", url, "--within", "30", *more)
    assert out, err
    return code, json.loads(out)


def test_this_build_decides_what_it_has_decided(ultra: Ultra, booked: Dev, told: Path) -> None:
    code, said = asked(ultra, booked.url, "--verdict", told / "verdict")
    assert (code, said["verdict"], said["mayReturn"]) == (Exit.OK, "ok", True)
    assert said["compared"] >= 2
    assert len(said["stateHash"]) == 64
    found = decode_verdict((told / "verdict").read_bytes())
    assert found is not None
    assert (found.offset, found.state_hash) == (said["offset"], said["stateHash"])


@pytest.mark.parametrize(
    ("module", "attribute", "part"),
    [
        (OTHER, "DOMAIN", "ledger.create_transfers"),
        (BROKEN, "DOMAIN", ""),
        (BROKEN, "NARROW", "ledger.open_accounts"),
    ],
)
def test_a_build_that_differs_is_refused_at_its_offset(
    ultra: Ultra,
    booked: Dev,
    told: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    attribute: str,
    part: str,
) -> None:
    name = f"books_{attribute.lower()}_{len(module)}"
    (told / f"{name}.py").write_text(module)
    monkeypatch.setenv("ULTRA_DOMAINS", f"{name}:{attribute}")
    code, said = asked(ultra, booked.url)
    assert (code, said["verdict"]) == (Exit.DIFFERS, "refused")
    assert said["offset"] >= 1
    assert part in said.get("commandType", "")
    assert said["detail"]


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("ULTRA_DOMAINS", "nowhere:DOMAIN", "nowhere"),
        ("ULTRA_DOMAINS", "ultraengine.domains.counter:DOMAIN", "ledger"),
        ("ULTRA_DURABILITY", "never", "ULTRA_DURABILITY"),
    ],
)
def test_a_build_that_cannot_take_the_settings_or_the_log_is_refused(
    ultra: Ultra,
    booked: Dev,
    told: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    part: str,
) -> None:
    monkeypatch.setenv(name, value)
    code, said = asked(ultra, booked.url)
    assert (code, said["verdict"]) == (Exit.DIFFERS, "refused")
    assert part in said["detail"]


def test_nothing_is_known_where_nobody_lends(ultra: Ultra, told: Path) -> None:
    code, said = asked(ultra, "http://127.0.0.1:9", "--within", "0.05")
    assert (code, said["verdict"]) == (Exit.UNPROVED, "unproved")
    assert said.get("offset", 0) == 0


def test_nothing_is_known_when_time_is_up_while_it_decides(stopped: Path) -> None:
    """The same directory, decided again with no time left, and with some."""
    shard, config = opened_shard(stopped, domains=None, secrets=None), Config()
    assert decided_state(shard, _until(time.monotonic() + 60))[0].equal
    with pytest.raises(TimeIsUp, match="in time"):
        decided_state(shard, _until(0.0))
    made = _decided(config, stopped / "shard-0000", _until(0.0))
    assert (made.verdict, "in time" in made.detail) == ("unproved", True)


def test_what_is_there_is_not_written_over(ultra: Ultra, booked: Dev, told: Path) -> None:
    (told / "borrowed" / "shard-0000").mkdir(parents=True)
    code, out, err = ultra("candidate", "--url", booked.url)
    assert (code, out) == (Exit.USAGE, "")
    assert "there already" in err


def test_a_hop_key_that_cannot_be_read_is_told(
    ultra: Ultra, booked: Dev, told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ULTRA_HOP_KEY", str(told / "none"))
    code, _, err = ultra("candidate", "--url", booked.url)
    assert code == Exit.USAGE
    assert "hop key" in err


def test_a_key_of_an_engine_with_keys_is_shown(
    ultra: Ultra, booked: Dev, told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ULTRAENGINE_API_KEY", "ultra_a_b")
    assert asked(ultra, booked.url)[0] == Exit.OK
