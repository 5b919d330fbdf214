"""A shard's idempotency memory with its disk, for the tests of `DedupIndex` and `RunStore`."""

from collections import deque
from collections.abc import Callable
from itertools import groupby

import msgspec

from ultraengine.execution.dedup import DedupIndex, DedupOptions
from ultraengine.execution.dedup_files.driver import RunStore
from ultraengine.model.ids import Instant, Offset, ShardId
from ultraengine.testing.sim_disk import SimDisk

SHARD = ShardId(3)
OPTIONS = DedupOptions(entries_max=64, bytes_max=16 * 400, window_us=1_000)

Id = tuple[int, bytes]
"""(slot, hash)"""


class Group(msgspec.Struct, frozen=True):
    """A logged group: one command per id, None for one without an id."""

    time: int
    ids: tuple[Id | None, ...]
    raise_floor: int = 0
    """What an operator decided, as a logged fact."""


class Snapshot(msgspec.Struct, frozen=True):
    """Full image and increments, and how many groups of the log are in it."""

    groups: int
    shard_chunks: tuple[bytes, ...]
    slot_chunks: tuple[tuple[tuple[int, bytes], ...], ...]


EMPTY = Snapshot(0, (), ())


class World:
    """One replica: disk, runs and index.  Background tasks wait in `tasks`."""

    def __init__(self, options: DedupOptions = OPTIONS, *, disk: SimDisk | None = None) -> None:
        self.options = options
        self.disk = disk or SimDisk(1)
        self.tasks: deque[Callable[[], None]] = deque()
        self.log: list[Group] = []
        self.snapshot = EMPTY
        self._open()
        self.index.load_done()

    def _open(self) -> None:
        self.store = RunStore(self.disk, SHARD, log_end=self.end, spawn=self.tasks.append)
        self.index = DedupIndex(self.options, self.store)

    @property
    def end(self) -> int:
        return sum(len(group.ids) for group in self.log)

    def execute(self, group: Group) -> None:
        for offset, identity in enumerate(group.ids, self.end):
            if identity is not None:
                self.index.add(*identity, offset)
        self._end(group, self.end)
        self.log.append(group)

    def _replay(self, group: Group, base: int) -> None:
        """As recovery does: neighbours of one slot at once."""
        placed = [(found, base + n) for n, found in enumerate(group.ids) if found is not None]
        # Neighbours have one difference between their place here and their offset.
        keyed = groupby(enumerate(placed), key=lambda one: (one[1][0][0], one[1][1] - one[0]))
        for (slot, _), run in keyed:
            entries = [entry for _, entry in run]
            self.index.add_run(slot, [found[1] for found, _ in entries], entries[0][1])
        self._end(group, base)

    def _end(self, group: Group, base: int) -> None:
        self.index.raise_floor(group.raise_floor)
        self.index.advance(Instant(group.time), Offset(base + len(group.ids)))

    def run_task(self) -> None:
        if self.tasks:
            self.tasks.popleft()()

    def settle(self) -> None:
        """All upkeep that there is to do."""
        while self.store.turn(self.index):
            self.run_task()

    def full_snapshot(self) -> None:
        self.snapshot = Snapshot(
            len(self.log), (self.index.dump_shard(),), (self._sections(full=True),)
        )
        self.index.mark()

    def increment(self) -> None:
        last = self.snapshot
        if not last.shard_chunks:
            self.full_snapshot()
            return
        self.snapshot = Snapshot(
            len(self.log),
            (*last.shard_chunks, self.index.dump_shard()),
            (*last.slot_chunks, self._sections(full=False)),
        )
        self.index.mark()

    def _sections(self, *, full: bool) -> tuple[tuple[int, bytes], ...]:
        return tuple(
            (slot, chunk)
            for slot in self.index.slots()
            for chunk in self.index.dump_slot(slot, full=full)
        )

    def dump(self) -> tuple[bytes, tuple[tuple[int, bytes], ...]]:
        """What a full snapshot would hold."""
        return self.index.dump_shard(), self._sections(full=True)

    def crash(self, *, power: bool, lose_groups: int = 0) -> None:
        """End the process and start it again from snapshot and log."""
        self.tasks.clear()
        self.disk = self.disk.power_cut() if power else self.disk.kill()
        lost = min(lose_groups, len(self.log) - self.snapshot.groups)
        del self.log[len(self.log) - lost :]
        self._open()
        for shard_chunk, sections in zip(
            self.snapshot.shard_chunks, self.snapshot.slot_chunks, strict=True
        ):
            self.index.load_shard(shard_chunk)
            for slot, chunk in sections:
                self.index.load_slot(slot, chunk)
        self.index.load_done()
        self.index.mark()
        base = sum(len(group.ids) for group in self.log[: self.snapshot.groups])
        for group in self.log[self.snapshot.groups :]:
            self._replay(group, base)
            base += len(group.ids)

    def run_files(self) -> list[str]:
        return [f"dedup/{name}" for name in self.disk.list("dedup") if name.endswith(".run")]
