"""The worst client stall while a snapshot is taken, by mode (requirement 001 §2.2).

One event loop applies batches of changes to an image of plain Python objects, one batch per
turn, as a shard does.  The stall is the longest time between two turns over the snapshot's
whole life: cut, fork, copying of touched pages, verification, listing.

    python benchmarks/snapshot_stall.py --entries 1000000 --directory /tmp/snapshots
"""

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import msgspec

from ultraengine.model.ids import Epoch, FrameSequence, Instant, Offset, ShardId
from ultraengine.snapshot.driver import SnapshotDriver
from ultraengine.snapshot.image import Image, ImagePosition, Section
from ultraengine.snapshot.store import SnapshotOptions
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.disk import LocalDisk
from ultraengine_adapters.local.random import SystemRandom
from ultraengine_adapters.local.secrets import FileSecrets

SLOTS = 4096
CHUNK_ENTRIES = 8192
BATCH = 64
"""Changes per turn: a group of commands."""


class Account(msgspec.Struct, array_like=True, gc=False):
    """About the size of a ledger account."""

    name: str
    debits: int
    credits: int
    held: int
    version: int
    time: int


_ACCOUNTS = msgspec.msgpack.Decoder(list[Account])


class Accounts:
    """An image of accounts in slots, with change tracking.

    A mark is a new generation, which costs nothing; what a slot remembers of an older one is
    dropped when the slot changes next.  Dropping it at the mark would touch, and after a fork
    copy, a page for nearly every changed entry.  ``--eager-marks`` does that, to compare.
    """

    eager = False

    def __init__(self) -> None:
        self.by_slot: dict[int, dict[str, Account]] = {}
        self.generation = 0
        self.changed: dict[int, tuple[int, dict[str, None]]] = {}

    def change(self, slot: int, name: str) -> None:
        account = self.by_slot[slot][name]
        account.debits += 1
        account.version += 1
        generation, names = self.changed.get(slot, (-1, {}))
        if generation != self.generation:
            names = {}
            self.changed[slot] = (self.generation, names)
        names[name] = None

    def changes(self, slot: int) -> dict[str, None]:
        generation, names = self.changed.get(slot, (-1, {}))
        return names if generation == self.generation else {}

    def slots(self) -> Sequence[int]:
        return sorted(self.by_slot)

    def sections(self, *, full: bool) -> Iterator[Section]:
        for slot in self.slots():
            yield from self.slot_sections(slot, full=full)

    def slot_sections(self, slot: int, *, full: bool) -> Iterator[Section]:
        accounts = self.by_slot[slot]
        names = sorted(accounts if full else self.changes(slot))
        for at in range(0, len(names), CHUNK_ENTRIES):
            chunk = [accounts[name] for name in names[at : at + CHUNK_ENTRIES]]
            yield Section(slot, "accounts", 1, msgspec.msgpack.encode(chunk))

    def load(self, section: Section) -> None:
        accounts = self.by_slot.setdefault(section.slot, {})
        for account in _ACCOUNTS.decode(section.chunk):
            accounts[account.name] = account

    def mark(self, slot: int | None = None) -> None:
        if slot is not None:
            self.changed.pop(slot, None)
        elif self.eager:
            self.changed.clear()
        else:
            self.generation += 1


class Bench:
    """The image, its writer, and the times between turns."""

    def __init__(self, entries: int) -> None:
        self.image = Accounts()
        self.names: list[tuple[int, str]] = []
        for number in range(entries):
            slot, name = number % SLOTS, f"account-{number:09d}"
            accounts = self.image.by_slot.setdefault(slot, {})
            accounts[name] = Account(name, number, number * 3, 0, 1, 1_767_225_600_000_000)
            self.names.append((slot, name))
        self.random = Random(1)
        self.gaps: list[float] = []
        self.own: list[float] = []
        """The same in processor time of the thread: what a busy machine does not distort."""
        self.changes = 0

    async def write(self, driver: SnapshotDriver, until: asyncio.Event) -> None:
        """One batch per turn of the loop, as fast as it goes."""
        last, spent = time.perf_counter(), time.thread_time()
        while not until.is_set():
            for slot, name in self.random.sample(self.names, BATCH):
                driver.before_slot_mutation(slot)
                self.image.change(slot, name)
            self.changes += BATCH
            await asyncio.sleep(0)
            now, spent_now = time.perf_counter(), time.thread_time()
            self.gaps.append(now - last)
            self.own.append(spent_now - spent)
            last, spent = now, spent_now

    def position(self) -> ImagePosition:
        return ImagePosition(
            shard=ShardId(0),
            epoch=Epoch(1),
            offset_end=Offset(self.changes),
            sequence_end=FrameSequence(self.changes),
            time=Instant(0),
        )


def memory_mb(pid: int | str = "self") -> tuple[int, int]:
    """(resident, private) MB of a process."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        found[name] = int(value)
    return found["Rss:"] // 1024, (found["Private_Dirty:"] + found["Private_Clean:"]) // 1024


async def child_memory(until: asyncio.Event) -> int:
    """Highest private MB of a child of this process, seen every 50 ms."""
    highest = 0
    while not until.is_set():
        for child in children():
            with contextlib.suppress(OSError):
                highest = max(highest, memory_mb(child)[1])
        await asyncio.sleep(0.05)
    return highest


def line(name: str, bench: Bench, changes: int, seconds: float, extra: str = "") -> str:
    ordered = sorted(bench.gaps)
    p99 = ordered[int(len(ordered) * 0.99)]
    return (
        f"{name:24} worst {1000 * ordered[-1]:8.2f} ms ({1000 * max(bench.own):7.2f} ms own work)"
        f"   p99 {1000 * p99:6.2f} ms   {changes / seconds / 1000:6.0f} k changes/s   {extra}"
    )


async def measure(
    bench: Bench, driver: SnapshotDriver, name: str, mode: str | None, kind: str, *, seconds: float
) -> None:
    """Run the writer alone, or beside one snapshot, and print a line."""
    until = asyncio.Event()
    writing = asyncio.create_task(bench.write(driver, until))
    watching = asyncio.create_task(child_memory(until))
    await asyncio.sleep(0.5)
    bench.gaps.clear()
    bench.own.clear()
    before, started = bench.changes, time.perf_counter()
    extra = ""
    if mode is None:
        await asyncio.sleep(seconds)
    else:
        taken = await driver.take(bench.image, bench.position(), mode, kind=kind)  # type: ignore[arg-type]
        extra = (
            f"cut {1000 * taken.pause_s:6.1f} ms   took {taken.duration_s:5.2f} s"
            f"   {taken.entry.bytes / 1e6:6.1f} MB"
        )
    passed = time.perf_counter() - started
    changes = bench.changes - before
    until.set()
    await writing
    private = await watching
    if private:
        extra += f"   child {private} MB private"
    print(line(name, bench, changes, passed, extra))


def children() -> list[str]:
    """Process ids of the children of this process."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


async def main(entries: int, directory: Path, *, freeze: bool, prove: bool) -> None:
    sys.setswitchinterval(0.0002)  # As the engine does.
    bench = Bench(entries)
    gc.collect()
    if freeze:
        gc.freeze()
    resident, private = memory_mb()
    print(f"{entries} entries, {resident} MB resident, {private} MB private, freeze={freeze}")
    new_image = Accounts if prove else None
    driver = SnapshotDriver(
        LocalDisk(directory),
        SystemClock(),
        SnapshotOptions(shard=ShardId(0), increments_share_max=100.0),
        random=SystemRandom(),
        secrets=FileSecrets(None, {}),
        new_image=new_image,
    )
    driver.recover()
    await measure(bench, driver, "no snapshot", None, "full", seconds=3.0)
    for name, mode, kind in (
        ("fork, full", "fork", "full"),
        ("fork, increment", "fork", "increment"),
        ("cooperative, full", "cooperative", "full"),
        ("cooperative, increment", "cooperative", "increment"),
        ("inline, full", "inline", "full"),
    ):
        await measure(bench, driver, name, mode, kind, seconds=0.0)
    started = time.perf_counter()
    image: Image
    image, _, report = driver.load_newest(Accounts)
    seconds = time.perf_counter() - started
    count = sum(len(accounts) for accounts in image.by_slot.values())  # type: ignore[attr-defined]
    print(f"load: {count} entries, {report.chunk_bytes / 1e6:.1f} MB of chunks in {seconds:.2f} s")
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB resident")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--no-freeze", action="store_true")
    parser.add_argument("--no-prove", action="store_true", help="verify bytes alone")
    parser.add_argument("--eager-marks", action="store_true")
    asked = parser.parse_args()
    Accounts.eager = asked.eager_marks
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(
            main(
                asked.entries,
                asked.directory or Path(temporary),
                freeze=not asked.no_freeze,
                prove=not asked.no_prove,
            )
        )
