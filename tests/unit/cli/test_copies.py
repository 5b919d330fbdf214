"""What `ultra status` and `ultra doctor` say of the copies of a shard."""

from typing import Any

import pytest

from ultraengine.cli.doctor import missing_copies
from ultraengine.cli.status import _show

COPY = {
    "replica": 1, "in_sync": True, "lag_frames": 3, "lag_bytes": 120, "lag_s": 0.25,
    "silent_s": 0.5, "barred": False,
}  # fmt: skip


def status(*followers: dict[str, Any], in_sync: int = 3) -> dict[str, Any]:
    return {"in_sync": list(range(in_sync)), "min_isr": 2, "followers": list(followers)}


def test_a_leader_with_all_its_copies_lacks_nothing() -> None:
    assert missing_copies(status(COPY, {**COPY, "replica": 2})) == ""
    assert missing_copies({"state": "serving"}) == ""


def test_copies_that_are_not_in_sync_or_differ_are_named() -> None:
    away = {**COPY, "in_sync": False}
    assert missing_copies(status(away)) == "copy 1 is not in sync"
    assert missing_copies(status({**COPY, "barred": True})) == "copy 1 executes differently"
    assert missing_copies(status(away, in_sync=2)) == (
        "copy 1 is not in sync, one more loss stops commands"
    )


def test_status_has_a_line_for_each_copy(capsys: pytest.CaptureFixture[str]) -> None:
    away = {**COPY, "replica": 2, "in_sync": False, "lag_frames": None, "lag_bytes": None,
            "lag_s": None}  # fmt: skip
    _show({"role": "leader", "positions": {"end": 7}, **status(COPY, away), "divergence": None})
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["1", "yes", "3", "120", "0.250", "0.500", "no"] in said
    assert ["2", "no", "-", "-", "-", "0.500", "no"] in said
    assert ["positions"] in said
    assert not any("divergence" in line for line in said)
