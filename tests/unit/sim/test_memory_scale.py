"""Memory holds hot state, never history: ten times the transfers cost their ids and nothing else.

A whole shard (machine, executor, log, history, idempotency memory, snapshots, retention) on a
real directory, because the simulated disk keeps its files in memory.  What is counted are bytes
that the interpreter's allocator handed out and objects that its collector tracks: the same
on every run, unlike a process's resident size (requirement 001 §6.1).
"""

import gc
import tracemalloc
from array import array
from pathlib import Path
from struct import Struct
from typing import NamedTuple, cast

import msgspec

from ultraengine.domains.ledger import Ledger
from ultraengine.execution.registry import Admitted
from ultraengine.model.limits import DEFAULT_LIMITS
from ultraengine.testing.sim_clock import SimClock
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_shard import SimShard
from ultraengine_adapters.local.disk import LocalDisk

MIB = 1 << 20
LIMITS = msgspec.structs.replace(DEFAULT_LIMITS, segment_bytes=4 * MIB, reserve_bytes=MIB)
BOOKS = 4
ACCOUNTS = 50
ITEMS = 500
FIRST = 6_000
LAST = 60_000
ID_BYTES_MAX = 40
"""For each transfer's id with its share of buckets, filled or not.  An object of any kind for each
transfer, with a reference to it, costs more than what an id leaves of this."""
UNCOUNTED = (array, Struct)
"""An array for each bucket of ids, some 90 of them; and cached codecs of buckets, 256 at most."""


class Size(NamedTuple):
    """What is kept at one time."""

    bytes: int
    objects: int


class Till:
    """A shard whose books take one transfer after another."""

    def __init__(self, directory: Path) -> None:
        disk = cast("SimDisk", LocalDisk(directory))
        self.shard = SimShard(disk, SimClock(), [Ledger()], limits=LIMITS)
        self.made = 0
        for book in range(BOOKS):
            accounts = [{"id": "bank", "asset": "USD/2", "min_balance": None}]
            accounts += [{"id": f"a{number}", "asset": "USD/2"} for number in range(ACCOUNTS)]
            self._send("open_accounts", book, f"open-{book}", {"accounts": accounts})

    def _admitted(self, name: str, book: int, id: str, data: object) -> Admitted:
        return self.shard.registry.admit(
            id=id, type=f"ledger.{name}", key=f"book-{book}", data=msgspec.json.encode(data),
            codec="json", tenant="t", principal="p", scopes=frozenset({"*:write"}),
        )  # fmt: skip

    def _send(self, name: str, book: int, id: str, data: object) -> None:
        (reply,) = self.shard.send(self._admitted(name, book, id, data))
        assert reply.outcome == "accepted", reply.error

    def book(self, end: int) -> None:
        """Make transfers until `end` were made."""
        while self.made < end:
            transfers = [
                {"id": f"t{n}", "from": "bank", "to": f"a{n % ACCOUNTS}", "amount": 1}
                for n in range(self.made, self.made + ITEMS)
            ]
            number = self.made // ITEMS
            data = {"transfers": transfers}
            self._send("create_transfers", number % BOOKS, f"c{number}", data)
            self.made += ITEMS

    def size(self) -> Size:
        """What is kept when nothing is under way and the log is cut behind a snapshot."""
        self.shard.snapshot("full")
        self.shard.retain()
        gc.collect()
        traced, _ = tracemalloc.get_traced_memory()
        tracked = sum(not isinstance(one, UNCOUNTED) for one in gc.get_objects())
        return Size(traced, tracked)


def test_ten_times_the_transfers_keep_their_ids_and_nothing_else(tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        till = Till(tmp_path)
        till.book(FIRST)
        first = till.size()
        till.book(LAST)
        last = till.size()
    finally:
        tracemalloc.stop()
    more = LAST - FIRST
    assert last.bytes - first.bytes <= more * ID_BYTES_MAX
    # No object may stay even for one command in four; some do for each 4 MiB of the log.
    assert last.objects - first.objects <= more // ITEMS // 4
    assert till.shard.executor.applied_end == 1 + BOOKS + LAST // ITEMS
    till.shard.stop()
