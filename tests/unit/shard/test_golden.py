"""Directories that earlier releases have left behind: every one of them has to start for ever.

`golden/make.py` says what is in them.  A change of a layout, of a section or of a payload without
its migration is seen here: a snapshot then loads to other bytes than it was taken from, or a retry
is not recognised.
"""

import shutil
from pathlib import Path

import pytest
from tests.unit.shard.golden.make import FIRST, HERE, LAST, PAID, THEN, send, started

from ultraengine.cli.offline import empty_image
from ultraengine.domains.ledger import Ledger
from ultraengine.snapshot import tools
from ultraengine.snapshot.codec import Codecs
from ultraengine.testing.sim_clock import SimClock, SimSecrets
from ultraengine_adapters.local.disk import LocalDisk

NAMES = sorted(path.name for path in HERE.iterdir() if (path / "IDENTITY").exists())
BALANCES = {"alice": -249, "shop": 249, "old": 0}
"""1250 + 40 + 200 + 9 went to the shop, and the first of them came back."""


@pytest.fixture(params=NAMES)
def left(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of one of them, to be started."""
    return Path(shutil.copytree(HERE / request.param, tmp_path / "data"))


def test_there_is_a_golden_directory() -> None:
    assert "first" in NAMES


@pytest.mark.parametrize("from_log_alone", [False, True])
def test_an_old_directory_starts_with_its_balances_and_answers_retries(
    left: Path, *, from_log_alone: bool
) -> None:
    if from_log_alone:
        shutil.rmtree(left / "snapshots")
    shard = started(left, SimClock())
    assert shard.replayed == (9 if from_log_alone else 1)
    book = shard.executor.slot_state("ledger", "t", "book").books["t", "book"]
    assert {name: account.balance for name, account in book.accounts.items()} == BALANCES
    for step in (*FIRST, *THEN, *LAST):
        reply = send(shard, step)
        assert (reply.duplicate, reply.outcome) == (
            True,
            "rejected" if step[0] == "no-1" else "accepted",
        )
    # What is unique for ever still is, and what was reversed is not reversed twice.
    again = send(shard, ("again", "create_transfers", "book", {"transfers": PAID[:1]}))
    twice = send(
        shard,
        ("twice", "reverse_transfers", "book", {"transfers": [{"id": "r2", "reverses": "t1"}]}),
    )
    assert again.result.transfers[0].status == "exists"
    assert (twice.outcome, twice.error.code if twice.error else "") == (
        "rejected",
        "already_reversed",
    )
    assert list(shard.executor.check()) == []
    shard.stop()


def test_old_snapshots_load_to_the_state_that_they_were_taken_from(left: Path) -> None:
    found = tools.verify(
        tools.Tools(
            disk=LocalDisk(left),
            secrets=SimSecrets({}),
            codecs=Codecs(),
            new_image=lambda: empty_image([Ledger()], 0),
        )
    )
    assert [(verdict.problem, verdict.state_compared) for verdict in found.verdicts] == [
        (None, True),
        (None, True),
    ]
