"""How long deciding and evolving one full-rule transfer takes, without log or codec.

    python benchmarks/ledger_decide.py [--accounts 10000] [--transfers 200000]
                                       [--ids ascending|random] [--profile]

Commands of 1,000 transfers between random accounts with limits, every id fresh; ascending ids
(like UUIDv7 or padded numbers) need no search of the index, random ones do.  Prints
microseconds per transfer (CPU time of the thread; the best tenth and the median of all
commands) for decide alone and for decide with evolve, the bytes of one encoded event, and the
bytes of memory per account.
"""

import argparse
import cProfile
import gc
import pstats
import random
import statistics
import time
import tracemalloc
from types import SimpleNamespace
from typing import Any

import msgspec

from ultraengine.domains.ledger import Ledger
from ultraengine.domains.ledger.commands import Account, Transfer
from ultraengine.domains.ledger.domain import COMMANDS
from ultraengine.domains.ledger.events import Transferred

BATCH = 1_000


class NoHistory:
    """Every id is fresh, so nothing is ever read back."""

    def events(self, _offset: int) -> None:
        """No events."""


def transfers(
    rng: random.Random, accounts: int, first: int, *, ascending: bool = True
) -> list[Transfer]:
    """One command's items."""
    items = []
    for number in range(first, first + BATCH):
        source = rng.randrange(accounts)
        target = (source + 1 + rng.randrange(accounts - 1)) % accounts
        items.append(
            Transfer(
                id=f"t-{number:09d}" if ascending else f"t-{rng.getrandbits(64):016x}",
                source=f"account-{source:07d}",
                target=f"account-{target:07d}",
                amount=rng.randrange(1, 10_000),
            )
        )
    return items


def open_accounts(ledger: Ledger, book: Any, count: int, context: Any, place: Any) -> None:
    """Accounts that may fall to minus 10^15, so that no transfer is refused."""
    decide = next(spec.decide_item for spec in COMMANDS if spec.name == "open_accounts")
    assert decide is not None
    for number in range(count):
        item = Account(id=f"account-{number:07d}", asset="USD/2", min_balance=-(10**15))
        place.index = number % BATCH
        place.offset = context.offset = 1 + number // BATCH
        ledger.evolve(book, decide(book, item, context), place)


def measure(accounts: int, count: int, *, ascending: bool) -> None:
    """Open the accounts, run the transfers, print the table."""
    ledger = Ledger()
    tracemalloc.start()
    slot = ledger.new_state()
    context: Any = SimpleNamespace(offset=0, time=1_767_225_600_000_000, history=NoHistory())
    place: Any = SimpleNamespace(offset=0, index=0, time=0, tenant="t", key="book")
    open_accounts(ledger, ledger.focus(slot, "t", "book"), accounts, context, place)
    account_bytes = tracemalloc.get_traced_memory()[0] / accounts
    tracemalloc.stop()
    gc.freeze()
    book = ledger.focus(slot, "t", "book")
    decide = next(spec.decide_item for spec in COMMANDS if spec.name == "create_transfers")
    assert decide is not None
    evolve = ledger.evolve
    rng = random.Random(7)
    encoder = msgspec.msgpack.Encoder()
    both: list[float] = []
    decided: list[float] = []
    slow = event_bytes = 0
    for first in range(0, count, BATCH):
        items = transfers(rng, accounts, first, ascending=ascending)
        context.offset = place.offset = context.offset + 1
        context.time += 1_000
        start = time.thread_time()
        for item in items:
            decide(book, item, context)
        middle = time.thread_time()
        for index, item in enumerate(items):
            place.index = index
            event = decide(book, item, context)
            evolve(book, event, place)
            if type(event) is not Transferred:
                slow += 1
        end = time.thread_time()
        event_bytes = len(encoder.encode(event))
        decided.append((middle - start) / BATCH * 1e6)
        both.append((end - middle) / BATCH * 1e6)
    print(f"accounts {accounts}, transfers {count}, {slow / count:.1%} on the careful path")
    for name, times in (("decide", decided), ("decide and evolve", both)):
        times.sort()
        tenth, median = times[len(times) // 10], statistics.median(times)
        print(f"{name}: best tenth {tenth:.2f} us, median {median:.2f} us")
    print(f"event {event_bytes} bytes, account {account_bytes:.0f} bytes")


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--transfers", type=int, default=200_000)
    parser.add_argument("--ids", choices=("ascending", "random"), default="ascending")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    ascending = arguments.ids == "ascending"
    if arguments.profile:
        profile = cProfile.Profile()
        profile.runcall(measure, arguments.accounts, arguments.transfers, ascending=ascending)
        pstats.Stats(profile).sort_stats("tottime").print_stats(20)
    else:
        measure(arguments.accounts, arguments.transfers, ascending=ascending)


if __name__ == "__main__":
    main()
