"""`RunStore`: the sorted runs of one shard on its disk (format: `execution.dedup_runs`).

Files, in one directory (``dedup``):

    run-<low, 20 digits>-<high, 20 digits>.run   entries with low <= offset < high
    *.tmp                                        being written; removed at the next start

The runs form a chain without gaps: each begins where the one before ends.  A file is written
under a temporary name, synced, renamed, and the directory is synced, before anything relies
on it; a merged run replaces its sources in the same way.  A damaged file is moved to
``broken/`` and reported; what it held comes back from snapshot and log at the next start.

Who does what: look-ups and extraction run on the writer's thread, in short steps drawn by
``turn``; writing, syncing, merging and removing run through ``spawn`` on another thread, one
task at a time.  A failed write costs nothing but the attempt: the file is dropped, entries
stay in memory, and the next attempt waits until memory has grown by a sixty-fourth.
"""

import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Final

import msgspec
import structlog

from ultraengine.execution.dedup import DedupIndex
from ultraengine.execution.dedup_runs import (
    HEADER_BYTES,
    Run,
    RunDamaged,
    RunTable,
    RunWriter,
    merge_sorted,
    to_merge,
)
from ultraengine.execution.packed import Entry
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ShardId
from ultraengine.ports import Disk, File

DIRECTORY: Final = "dedup"
BROKEN_DIRECTORY: Final = "broken"
WRITE_BYTES: Final = 256 * 1024
"""Bytes gathered before one write."""
SYNC_BYTES: Final = 1024 * 1024
"""Written between two syncs: a flush of the log may stand behind one of them on the disk."""
MERGE_ENTRIES: Final = 65_536
"""Entries merged per background task."""
TURN_UNITS: Final = 2_000
"""Entries handled per turn, about one or two milliseconds."""
STEP_UNITS: Final = 8
"""What a step costs besides its entries."""

_RUN_NAME: Final = re.compile(r"run-(\d{20})-(\d{20})\.run")

Spawn = Callable[[Callable[[], None]], object]
"""Runs a task on another thread, later; tasks never raise."""
Task = Callable[[], None]
Job = Generator[Task | int, None, None]
"""Yields background tasks to wait for, or units of work that it has done itself."""

log = structlog.get_logger()


class RunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The spilled part of the idempotency memory, for status pages and metrics."""

    runs: int
    entries: int
    bytes: int
    memory_bytes: int
    """Filters and sparse indexes."""
    failures: int
    """Spills and merges that failed since the start; the last one's error is in `error`."""
    error: str
    discarded: Sequence[str]
    """What the start did not go on with, and why; damage among it is an alarm."""


class _Open:
    """A run and its file."""

    __slots__ = ("file", "path", "run")

    def __init__(self, disk: Disk, path: str) -> None:
        self.path = path
        self.file: File = disk.open(path)
        try:
            self.run = Run(path, self.file.pread, size=self.file.size())
        except BaseException:
            self.file.close()
            raise


class RunFile:
    """One run being written under a temporary name."""

    def __init__(self, disk: Disk, path: str, writer: RunWriter) -> None:
        self.path = path
        self.writer = writer
        self._disk = disk
        self._file: File | None = None
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._position = HEADER_BYTES
        self._unsynced = 0

    def put(self, slot: int, entries: Sequence[Entry]) -> bool:
        """Buffer the next entries; True when it is time to ``flush``."""
        blocks = self.writer.put(slot, entries)
        self._buffer.append(blocks)
        self._buffered += len(blocks)
        return self._buffered >= WRITE_BYTES

    def flush(self) -> None:
        """Write what is buffered."""
        if self._file is None:
            self._file = self._disk.open(self.path, create=True, write=True)
            self._file.truncate(0)
        data = b"".join(self._buffer)
        self._buffer.clear()
        self._buffered = 0
        self._file.pwrite(data, self._position)
        self._position += len(data)
        self._unsynced += len(data)
        if self._unsynced >= SYNC_BYTES:
            self._file.sync()
            self._unsynced = 0

    def finish(self) -> None:
        """Write the rest and the header, and make the content durable."""
        tail, header = self.writer.finish()
        self._buffer.append(tail)
        self.flush()
        assert self._file is not None  # noqa: S101  (opened by the flush)
        self._file.pwrite(header, 0)
        self._file.sync()
        self.close()

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            self._file.close()


class RunStore:
    """Implements `dedup.Runs` for one shard."""

    def __init__(
        self, disk: Disk, shard: ShardId, *, log_end: int, spawn: Spawn, directory: str = DIRECTORY
    ) -> None:
        """Open what is there.  Blocking.

        `log_end` is the end of the recovered log: a run that reaches beyond it describes
        commands that were lost before they were durable, and is discarded.
        """
        self._disk = disk
        self._shard = shard
        self._directory = directory
        self._spawn = spawn
        self._runs: tuple[_Open, ...] = ()
        self._table = RunTable(())
        self._loading: RunFile | None = None
        self._load_range = (0, 0, 0)
        self._ready = False
        self._job: Job | None = None
        self._job_name = ""
        self._waiting = False
        self._closed = False
        self._task_error: BaseException | None = None
        self._retry_entries = 0
        self._merge_wanted = True
        self._failures = 0
        self._error = ""
        self._holds = 0
        self._discarded: list[str] = []
        disk.make_directory(directory)
        disk.sync_directory(directory.rpartition("/")[0])
        self._open_all(log_end)

    # --- start -------------------------------------------------------------------------------

    def _open_all(self, log_end: int) -> None:
        found: list[_Open] = []
        for name in self._disk.list(self._directory):
            path = f"{self._directory}/{name}"
            if name.endswith(".tmp"):
                self._disk.remove(path)
            named = _RUN_NAME.fullmatch(name)
            if named is None:
                continue
            try:
                opened = _Open(self._disk, path)
            except RunDamaged as error:
                self._set_aside(error)
                continue
            info = opened.run.info
            if (info.low, info.high, info.shard) != (int(named[1]), int(named[2]), self._shard):
                opened.file.close()
                self._set_aside(RunDamaged(path, "the header belongs to another file"))
            elif info.high > log_end:
                self._discard(opened, f"{path}: ends beyond the log, which ends at {log_end}")
            else:
                found.append(opened)
        self._keep_chain(found)

    def _go_on_with(self, runs: Iterable[_Open]) -> None:
        """These are the runs from now on."""
        self._runs = tuple(runs)
        self._table = RunTable([opened.run for opened in self._runs])

    def _keep_chain(self, found: list[_Open]) -> None:
        """Keep the newest chain: runs that touch, where a merged run hides its sources."""
        chain: list[_Open] = []
        found.sort(key=lambda opened: (-opened.run.info.high, opened.run.info.low))
        for opened in found:
            info = opened.run.info
            low = chain[-1].run.info.low if chain else info.high
            if info.high == low:
                chain.append(opened)
            elif info.low >= low:
                self._discard(opened, f"{opened.path}: merged into another run")
            else:
                self._discard(opened, f"{opened.path}: does not touch the runs that follow")
        self._go_on_with(reversed(chain))

    def _discard(self, opened: _Open, reason: str) -> None:
        opened.file.close()
        self._disk.remove(opened.path)
        # It may not come back in a power cut: other commands may have its offsets by then.
        self._disk.sync_directory(self._directory)
        self._discarded.append(reason)
        log.info("dedup.run_discarded", shard=self._shard, reason=reason)

    def _set_aside(self, error: RunDamaged) -> None:
        """Move a damaged file out of the way of the next start, and say so, once."""
        if self._disk.exists(error.path):
            self._discarded.append(str(error))
            log.error("dedup.run_damaged", shard=self._shard, reason=str(error))
            self._disk.make_directory(BROKEN_DIRECTORY)
            self._disk.sync_directory("")
            self._disk.rename(error.path, f"{BROKEN_DIRECTORY}/{error.path.replace('/', '-')}")
            self._disk.sync_directory(BROKEN_DIRECTORY)
            self._disk.sync_directory(self._directory)

    def prepare(
        self, *, floor: int, boundary: int, end: int, count: int, fits: Callable[[int], bool]
    ) -> int:
        """Go on with the chain that is there if it fits the image, else with none."""
        low = self._runs[0].run.info.low if self._runs else 0
        high = self._runs[-1].run.info.high if self._runs else 0
        if low > end or high <= floor or not fits(high):
            for opened in self._runs:
                self._discard(opened, f"{opened.path}: does not fit the loaded image")
            self._go_on_with(())
            low = high = boundary
        self._load_range = (floor, max(low, floor), count)
        return high

    def load(self, slot: int, entries: Sequence[Entry]) -> None:
        """Write the entries that no run holds.

        They all come from the full image: increments begin at its end, above all of these.
        """
        floor, boundary, count = self._load_range
        missing = [entry for entry in entries if floor <= entry[1] < boundary]
        if missing:
            if self._loading is None:
                path = f"{self._directory}/load.tmp"
                self._loading = RunFile(self._disk, path, self._writer(floor, boundary, count))
            if self._loading.put(slot, missing):
                self._loading.flush()

    def load_done(self) -> None:
        """Make a run of what was loaded."""
        if self._loading is not None:
            self._go_on_with((self._seal(self._loading), *self._runs))
            self._loading = None
        self._ready = True

    # --- look-ups ----------------------------------------------------------------------------

    def find(self, slot: int, mirrored: int) -> Sequence[int]:
        """Offsets of the spilled entries with this hash, ascending.

        Raises `RunDamaged` (the file was moved to ``broken/``) or OSError.
        """
        try:
            return self._table.find(slot, mirrored)
        except RunDamaged as error:
            self._set_aside(error)
            raise

    def blocks(self, slot: int, low: int) -> Sequence[Iterator[Sequence[Entry]]]:
        """Streams of the spilled entries of one slot with offsets from `low` on."""
        return [opened.run.blocks(slot, low) for opened in self._runs if opened.run.info.high > low]

    def slots(self) -> Iterable[int]:
        """Slots that have spilled entries."""
        return {slot for opened in self._runs for slot in opened.run.slots}

    # --- upkeep ------------------------------------------------------------------------------

    def hold(self) -> None:
        """Move no entry until `release`: a snapshot reads slot by slot."""
        self._holds += 1

    def release(self) -> None:
        """Undo one `hold`."""
        self._holds -= 1

    def turn(self, index: DedupIndex) -> bool:
        """Do a short part of the upkeep; whether there is more to do.

        Call it on the writer's thread after each group, and now and then while idle.
        """
        if not self._ready:
            raise InvariantBroken("the index is loaded before its runs are kept up")
        if self._closed:
            return False
        if self._waiting or self._holds:
            return self._waiting
        if self._task_error is not None:
            self._give_up(index, self._task_error)
        units = 0
        while units < TURN_UNITS:
            if self._job is None and not self._next_job(index):
                return False
            assert self._job is not None  # noqa: S101  (set by the line before)
            try:
                step = next(self._job)
            except StopIteration:
                self._job = None
                continue
            if not isinstance(step, int):
                self._start(step)
                return True
            units += step + STEP_UNITS
        return True

    def status(self) -> RunStatus:
        """A report of this moment."""
        return RunStatus(
            runs=len(self._runs),
            entries=sum(opened.run.info.count for opened in self._runs),
            bytes=sum(opened.run.info.length for opened in self._runs),
            memory_bytes=sum(opened.run.memory_bytes for opened in self._runs),
            failures=self._failures,
            error=self._error,
            discarded=tuple(self._discarded),
        )

    def close(self) -> None:
        """Release the files, at the end of the task that runs, if one does.

        Unfinished runs are removed at the next start.
        """
        self._closed = True
        if not self._waiting:
            self._close_all()

    def _close_all(self) -> None:
        if self._job is not None:
            self._job.close()
            self._job = None
        if self._loading is not None:
            self._loading.close()
        for opened in self._runs:
            opened.file.close()
        self._go_on_with(())

    def _next_job(self, index: DedupIndex) -> bool:
        expired = 0
        while expired < len(self._runs) and self._runs[expired].run.info.high <= index.floor_offset:
            expired += 1
        spill = index.spill_range
        merge = (0, 0)
        if self._merge_wanted:
            options = index.options
            merge = to_merge(
                [opened.run.info.count for opened in self._runs],
                base=max(1, options.entries_max // 8),
                count_max=max(1, options.entries_total_max // 8),
            )
            self._merge_wanted = merge[1] > 0
        if index.trim_wanted:
            self._job_name, self._job = "trim", self._trim(index)
        elif expired:
            self._job_name, self._job = "expire", self._expire(expired)
        elif spill is not None and index.entries_in_memory >= self._retry_entries:
            self._job_name, self._job = "spill", self._spill(index, *spill)
        elif merge[1]:
            self._job_name, self._job = "merge", self._merge(*merge)
        return self._job is not None

    def _start(self, task: Task) -> None:
        self._waiting = True

        def run() -> None:
            try:
                task()
            except Exception as error:  # noqa: BLE001  (told to the writer's thread, which acts)
                self._task_error = error
            self._waiting = False
            if self._closed:
                self._close_all()

        self._spawn(run)

    def _give_up(self, index: DedupIndex, error: BaseException) -> None:
        self._task_error = None
        if isinstance(error, RunDamaged):
            self._set_aside(error)
        assert self._job is not None  # noqa: S101  (only a job starts tasks)
        self._job.close()
        self._job = None
        self._failures += 1
        self._error = f"{self._job_name}: {error}"
        self._retry_entries = index.entries_in_memory + max(1, index.options.entries_max // 64)
        self._merge_wanted = False
        log.error("dedup.upkeep_failed", shard=self._shard, job=self._job_name, exc_info=error)

    def _trim(self, index: DedupIndex) -> Job:
        yield from index.trim_steps()

    def _expire(self, count: int) -> Job:
        gone = self._runs[:count]
        self._go_on_with(self._runs[count:])
        yield lambda: self._remove(gone)

    def _spill(self, index: DedupIndex, low: int, high: int) -> Job:
        path = f"{self._directory}/spill.tmp"
        expected = min(high - low, index.entries_in_memory)
        target = RunFile(self._disk, path, self._writer(low, high, expected))
        try:
            for slot, entries in index.spill_steps(low, high):
                if entries and target.put(slot, entries):
                    yield target.flush
                yield len(entries)
            sealed: list[_Open] = []
            yield lambda: sealed.append(self._seal(target))
        finally:
            target.close()
        self._go_on_with((*self._runs, *sealed))
        index.spilled(high)
        self._merge_wanted = True

    def _merge(self, start: int, end: int) -> Job:
        sources = self._runs[start:end]
        infos = [source.run.info for source in sources]
        path = f"{self._directory}/merge.tmp"
        count = sum(info.count for info in infos)
        target = RunFile(self._disk, path, self._writer(infos[0].low, infos[-1].high, count))
        merged = self._merged(sources)
        sealed: list[_Open] = []
        try:
            while not sealed:
                yield lambda: self._merge_some(merged, target, sealed)
        finally:
            target.close()
        self._go_on_with((*self._runs[:start], *sealed, *self._runs[end:]))
        yield lambda: self._remove(sources)

    def _merge_some(
        self, merged: Iterator[tuple[int, Sequence[Entry]]], target: RunFile, sealed: list[_Open]
    ) -> None:
        done = 0
        for slot, entries in merged:
            if target.put(slot, entries):
                target.flush()
            done += len(entries)
            if done >= MERGE_ENTRIES:
                return
        sealed.append(self._seal(target))

    @staticmethod
    def _merged(sources: Sequence[_Open]) -> Iterator[tuple[int, Sequence[Entry]]]:
        for slot in sorted({slot for source in sources for slot in source.run.slots}):
            for entries in merge_sorted([source.run.blocks(slot) for source in sources]):
                yield slot, entries

    def _writer(self, low: int, high: int, count: int) -> RunWriter:
        return RunWriter(shard=self._shard, low=low, high=high, count_expected=count)

    def _seal(self, target: RunFile) -> _Open:
        """Finish a file, give it its name, and read back what look-ups rely on."""
        low, high = target.writer.low, target.writer.high
        path = f"{self._directory}/run-{low:020}-{high:020}.run"
        target.finish()
        self._disk.rename(target.path, path)
        self._disk.sync_directory(self._directory)
        return _Open(self._disk, path)

    def _remove(self, gone: Sequence[_Open]) -> None:
        for opened in gone:
            opened.file.close()
            self._disk.remove(opened.path)
        self._disk.sync_directory(self._directory)
