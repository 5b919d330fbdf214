"""Story: an engine that books faster than its worker projects, with a small cap for its log."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.projection.running import Story, until
from tests.servers.ports import free_ports

MIB = 1 << 20
CAP = 12 * MIB
SEGMENT = 4 * MIB
ITEMS = 500
COMMANDS_MAX = 2_000
SETTINGS = {
    "ULTRA_LIMIT_RETENTION_BYTES_MAX": CAP,
    "ULTRA_LIMIT_SEGMENT_BYTES": SEGMENT,
    "ULTRA_LIMIT_FRAME_BYTES_MAX": 2 * MIB,
    "ULTRA_LIMIT_DEDUP_WINDOW_S": 1,
    "ULTRA_SNAPSHOT_COMMANDS": 20,
    "ULTRA_SNAPSHOTS_KEPT": 1,
    "ULTRA_COMPACTION": "time",
}
DROPPED = "was dropped: the log would be larger than retention_bytes_max"
SLOW = ("--limit", "batch_rows_max=1", "--limit", "ahead_bytes_max=65536", "--nice", "19")
"""A transaction for each command: no worker is slower."""


def pay(story: Story, number: int) -> None:
    """One command with many transfers; answered, or the story fails."""
    transfers = [
        {"id": f"m{number}-{place}", "from": "alice", "to": "shop", "amount": "1",
         "reference": "x" * 100}
        for place in range(ITEMS)
    ]  # fmt: skip
    story.send(
        {"id": f"many-{number}", "type": "ledger.create_transfers", "key": "plain",
         "data": {"transfers": transfers}}
    )  # fmt: skip


def is_cut(log: Path) -> bool:
    """Whether the log begins behind its beginning."""
    segments = sorted(log.rglob("seg-*.log"))
    return bool(segments) and int(segments[0].stem.removeprefix("seg-")) > 0


@pytest.mark.timeout(900)
def test_an_engine_outruns_its_worker_says_so_keeps_its_cap_and_the_worker_catches_up(
    story: Callable[..., Story], tmp_path: Path
) -> None:
    told, port = (
        story(settings={**SETTINGS, "ULTRA_ARCHIVE": tmp_path / "archive"}),
        free_ports(1)[0],
    )
    told.open_accounts()
    alarms = ("--limit", "lag_warn_s=0.5", "--limit", "lag_alarm_s=1.0")
    worker = told.run(
        "worker", "project", "--target", told.target, "--engine", told.url, "--port", port,
        *SLOW, *alarms,
    )  # fmt: skip
    told.transfer(0)
    until(lambda: told.count("ledger_transfer") == 1, "the first transfer is there", worker)

    def behind() -> int:
        """As the engine knows it: a worker whose inbox is full reads no further."""
        return sum(one["lag_commands"] for one in told.sets())

    sent = 0
    while not ("lag_alarm" in worker.said() and DROPPED in told.engine.said()):
        assert sent < COMMANDS_MAX, f"{behind()} commands behind\n{worker.said()}"
        pay(told, sent)
        sent += 1
    assert behind() > 0
    until(lambda: is_cut(tmp_path / "data"), "the log is cut", told.engine)

    # The slot is gone and the log is cut: the worker reads on from the archive.
    until(lambda: told.count("ledger_transfer") == 1 + sent * ITEMS, "all of it is there", worker)
    until(lambda: behind() == 0, "nothing is behind", worker)
    until(lambda: "lag_calm" in worker.said(), "the alarm is over", worker)
    ((paid,),) = told.read("SELECT balance FROM ledger_account WHERE account = 'shop'")
    assert paid == 1 + sent * ITEMS
    assert worker.stop() == 0
