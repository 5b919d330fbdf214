"""Writes a golden directory: run once for each release that writes something new, never again.

    python -m tests.unit.shard.golden.make NAME

A directory holds what a shard of the ledger leaves behind when it stops: IDENTITY, two segments,
history, a full snapshot and an increment, and commands after them.  Every later release starts it.
"""

import sys
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from ultraengine.domains.ledger import Ledger
from ultraengine.execution.registry import Admitted
from ultraengine.model.reply import Reply
from ultraengine.testing.sim_clock import SimClock
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_shard import SIM_LIMITS, SimShard
from ultraengine_adapters.local.disk import LocalDisk

HERE: Final = Path(__file__).parent
LIMITS: Final = msgspec.structs.replace(SIM_LIMITS, reserve_bytes=0, segments_prepared=0)
HOLD_S: Final = 100 * 365 * 86_400
OPENED: Final = [
    {"id": "alice", "asset": "USD/2", "min_balance": None},
    {"id": "shop", "asset": "USD/2", "max_balance": "100000", "metadata": {"city": "Graz"}},
    {"id": "old", "asset": "USD/2"},
]
PAID: Final = [
    {"id": "t1", "from": "alice", "to": "shop", "amount": "1250", "code": 7, "reference": "x",
     "effective_time": "1997-01-01T00:00:00Z"},
    {"id": "t2", "from": "alice", "to": "shop", "amount": "40"},
    {"id": "h1", "from": "alice", "to": "shop", "amount": "500", "pending_timeout_s": HOLD_S},
    {"id": "h2", "from": "alice", "to": "shop", "amount": "300", "pending_timeout_s": HOLD_S},
]  # fmt: skip
Step = tuple[str, str, str, dict[str, Any]]
FIRST: Final[tuple[Step, ...]] = (
    ("open-1", "open_accounts", "book", {"accounts": OPENED}),
    ("pay-1", "create_transfers", "book", {"transfers": PAID}),
)
THEN: Final[tuple[Step, ...]] = (
    ("post-1", "post_transfers", "book",
     {"transfers": [{"id": "h1", "amount": "200"}]}),
    ("back-1", "reverse_transfers", "book",
     {"transfers": [{"id": "r1", "reverses": "t1"}]}),
    ("close-1", "close_accounts", "book", {"accounts": [{"id": "old"}]}),
    ("no-1", "create_transfers", "other", {"transfers": PAID[:1]}),
)  # fmt: skip
LAST: Final[tuple[Step, ...]] = (
    ("pay-2", "create_transfers", "book",
     {"transfers": [{"id": "t5", "from": "alice", "to": "shop", "amount": "9"}]}),
)  # fmt: skip


def started(directory: Path, clock: SimClock) -> SimShard:
    """A shard of the ledger on a directory."""
    return SimShard(cast("SimDisk", LocalDisk(directory)), clock, [Ledger()], limits=LIMITS)


def send(shard: SimShard, step: Step) -> Reply:
    """One command and its reply."""
    command_id, verb, key, data = step
    admitted: Admitted = shard.registry.admit(
        id=command_id, type=f"ledger.{verb}", key=key, data=msgspec.json.encode(data), codec="json",
        tenant="t", principal="p", scopes=frozenset({"*:write"}),
    )  # fmt: skip
    (reply,) = shard.send(admitted)
    return reply


def main(name: str) -> None:
    """Live a short life in a new directory, in two processes."""
    directory, clock = HERE / name, SimClock()
    directory.mkdir()
    shard = started(directory, clock)
    for step in FIRST:
        send(shard, step)
    shard.snapshot("full")
    shard.stop()
    shard = started(directory, clock)
    for step in THEN:
        send(shard, step)
    shard.snapshot("increment")
    for step in LAST:
        send(shard, step)
    shard.stop()


if __name__ == "__main__":
    main(sys.argv[1])
