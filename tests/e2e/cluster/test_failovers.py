"""As an operator, I lose pods, containers, nodes and networks, and no acknowledged command.

The campaign (`make failovers`) in a size for every run: FAILOVERS says how often the leader's pod
is deleted, FAULTS which others are done.
"""

import os
from collections.abc import Iterator

import pytest
from tests.e2e.cluster.cluster import Namespace
from tests.e2e.cluster.failovers.campaign import order, report_rows, run
from tests.e2e.cluster.failovers.engine import Trio

FAILOVERS = int(os.environ.get("FAILOVERS", "4"))
FAULTS = os.environ.get(
    "FAULTS",
    "leader-deleted,leader-stopped,follower-corrupted,node-cut-off",
).split(",")
SEED = 20_261_130


@pytest.fixture
def trio(namespace: Namespace) -> Iterator[Trio]:
    made = Trio(namespace)
    try:
        yield made
    finally:
        made.close()


def test_no_acknowledged_command_is_lost_or_done_twice_whatever_fails(
    trio: Trio, capsys: pytest.CaptureFixture[str]
) -> None:
    names = order(FAILOVERS, FAULTS, SEED)
    with capsys.disabled():
        rows, faults = run(trio, names, minutes=60.0)
        print(f"\n{report_rows(rows)}")  # noqa: T201 (the figures are what a reader wants)
    assert faults == []
    assert [one["fault"] for one in rows] == names
