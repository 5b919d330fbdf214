"""What a shard keeps in memory and beside its log: made empty, or from a snapshot.

The executor, its idempotency memory and its history belong together: whenever recovery
starts over, all three start over.
"""

import contextlib
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol

import msgspec

from ultraengine.execution.dedup import DedupIndex, DedupOptions, FloorRaised
from ultraengine.execution.dedup_files.driver import RunStore, Spawn
from ultraengine.execution.executor import Executor
from ultraengine.execution.registry import Registry
from ultraengine.execution.stores import Dedupe, HistoryStore
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ShardId
from ultraengine.model.limits import Limits
from ultraengine.ports import Disk
from ultraengine.shard.image import ExecutorImage
from ultraengine.shard.slot_moves import SlotMoves
from ultraengine.shard.validation import NothingRemembered, ReadOnlyHistory
from ultraengine.snapshot.driver import SnapshotDriver
from ultraengine.snapshot.errors import SnapshotFailed
from ultraengine.snapshot.image import Image, ImagePosition
from ultraengine.snapshot.store import newest_sequence


class HistoryFiles(HistoryStore, Protocol):
    """The history store of a shard, with its place in files."""

    @property
    def end(self) -> int:
        """Bytes that belong to what was executed so far."""

    @property
    def error(self) -> BaseException | None:
        """Why the last write or sync failed; None while all is well."""

    def sync(self) -> None:
        """Make everything appended so far durable.  Blocks."""

    def truncate_to(self, position: int, offset: int) -> None:
        """Forget what was appended for offsets from `offset` on; `position` is its byte end.

        Raises `InvariantBroken` when the files do not reach there.
        """


class ShardMemory:
    """Implements `shard.opening.Memory`."""

    def __init__(
        self,
        disk: Disk,
        registry: Registry,
        shard: ShardId,
        limits: Limits,
        *,
        history: HistoryFiles,
        snapshots: SnapshotDriver,
        spawn: Spawn,
    ) -> None:
        self.history = history
        self._disk = disk
        self._registry = registry
        self._shard = shard
        self._limits = limits
        self._snapshots = snapshots
        self._spawn = spawn
        self._current: tuple[ExecutorImage, DedupIndex, RunStore] | None = None
        self._schemas: Mapping[str, AbstractSet[int]] = {}
        """Of the sections that were loaded last, as they were stored."""

    @property
    def image(self) -> ExecutorImage:
        """The image of what was loaded last."""
        return self._loaded()[0]

    def _loaded(self) -> tuple[ExecutorImage, DedupIndex, RunStore]:
        if self._current is None:
            raise InvariantBroken("memory is loaded before it is used")
        return self._current

    @property
    def is_spilled(self) -> bool:
        """Whether ids lie in files that only this process has open."""
        return self._loaded()[2].status().runs > 0

    @contextlib.contextmanager
    def steady(self) -> Iterator[None]:
        """The files of spilled ids stay as they are inside: the moment to dump them."""
        runs = self._loaded()[2]
        runs.hold()
        try:
            yield
        finally:
            runs.release()

    def troubles(self) -> list[str]:
        """What a person should know of the files beside the log, as sentences."""
        status = self._loaded()[2].status()
        told = [f"spilled ids were discarded: {reason}" for reason in status.discarded]
        if status.error:
            told.append(f"ids cannot be spilled: {status.error}")
        error = self.history.error
        return [*told, f"history cannot be written: {error}"] if error else told

    def upkeep(self) -> list[FloorRaised]:
        """A short turn of spilling and merging old ids; facts that a person should know."""
        _, dedupe, runs = self._loaded()
        runs.turn(dedupe)
        # Ids leave by age all the time; leaving for want of room breaks a promise.
        return [fact for fact in dedupe.take_facts() if fact.reason != "window"]

    def replay_from(self) -> int:
        """Frame sequence at which the newest listed snapshot was cut; 0 without one."""
        return newest_sequence(self._disk)

    def load(self, *, sequence_max: int, log_end: int) -> tuple[Executor, ImagePosition | None]:
        """The newest good snapshot's state, or an empty one; the history is cut to it."""

        def new_image() -> Image:
            if self._current is not None:
                self._current[2].close()
            runs = RunStore(self._disk, self._shard, log_end=log_end, spawn=self._spawn)
            dedupe = DedupIndex(DedupOptions.of(self._limits), runs)
            executor = self._executor(dedupe, self.history)
            self._current = (ExecutorImage(executor, dedupe), dedupe, runs)
            return self._current[0]

        _, position, report = self._snapshots.load_newest(new_image, sequence_max=sequence_max)
        self._schemas = report.schemas
        if position is None:
            self.history.truncate_to(0, 0)
        else:
            self.history.truncate_to(position.history_end, position.offset_end)
        return self.image.resume(position), position

    def _executor(self, dedupe: Dedupe, history: HistoryStore) -> Executor:
        return Executor(
            self._registry, self._shard, dedupe=dedupe, history=history, moves=SlotMoves()
        )

    def keeps_schemas(self, *, same_handlers: bool) -> bool:
        """Whether the last writer can read what this process would write.

        A domain that was loaded shows what its last writer wrote; of one that was not, only
        the handlers on the log can tell.
        """
        for domain in self._registry.domains:
            loaded = self._schemas.get(domain.name)
            if not (same_handlers if loaded is None else domain.schema in loaded):
                return False
        return True

    def checkpoint(self, position: ImagePosition) -> bool:
        """Keep what was replayed so far, which stands at `position`, as a snapshot.  Blocks.

        False when there was no room for it, or something else was in the way: a start needs
        none, so it goes on.
        """
        try:
            self.history.sync()
            at = msgspec.structs.replace(position, history_end=self.history.end)
            if self.image.take_dropped():
                self._snapshots.require_full()
            with self.steady():
                self._snapshots.take_inline(self.image, at)
        except (OSError, SnapshotFailed):
            return False
        return True

    def scratch(self, *, sequence_max: int) -> Executor:
        """A copy of the newest good snapshot's state below a frame sequence, for validation."""
        image, position = self._snapshots.load_copy(self.bare_image, sequence_max=sequence_max)
        return image.resume(position)

    def bare_image(self) -> ExecutorImage:
        """An empty image that remembers no ids and reads the shard's history."""
        nothing = NothingRemembered()
        history = ReadOnlyHistory(self.history)
        executor = self._executor(nothing, history)
        return ExecutorImage(executor, nothing)

    def proof_image(self) -> Image:
        """An empty image that keeps everything in memory, to prove and merge snapshots with."""
        options = msgspec.structs.replace(DedupOptions.of(self._limits), bytes_max=0)
        dedupe = DedupIndex(options)
        history = ReadOnlyHistory(self.history)
        executor = self._executor(dedupe, history)
        return ExecutorImage(executor, dedupe)
