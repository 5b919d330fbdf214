"""Takes, merges and loads the snapshots of one shard while its writer goes on.

    driver = SnapshotDriver(disk, clock, options, random=…, secrets=…, …)
    image, position, report = driver.load_newest(new_image, migrations)
    taken = await driver.take(image, position)         # the cut is made before `take` returns

``take`` is a plain function: when it returns, the image may change again.  What it returns
is awaited for the verified, listed snapshot.  Three ways to get there:

* ``fork``: a child writes and proves what memory was at the fork (the default);
* ``cooperative``: slot by slot on the event loop, where memory is short.  The shard calls
  ``before_slot_mutation`` before it changes a slot;
* ``inline``: on the spot; for stops, tools and simulations.

One at a time; none counts before it is verified; a failed one leaves no trace but the need
for the next one to be full, because its changes are no longer marked as such.
"""

import asyncio
import contextlib
import gc
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Literal

import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.ports import Clock, Disk, Random, Secrets
from ultraengine.snapshot.codec import Codecs
from ultraengine.snapshot.cooperative.driver import TurnTimes, to_its_end, write_cut
from ultraengine.snapshot.cut import Cut
from ultraengine.snapshot.errors import SnapshotBusy, SnapshotError, SnapshotFailed
from ultraengine.snapshot.files import ChainFile, Draft, Written, no_pause
from ultraengine.snapshot.forked.driver import Child, fork, fork_is_available, tidy_before
from ultraengine.snapshot.image import AnyImage, Image, ImagePosition, Section
from ultraengine.snapshot.maker import Maker
from ultraengine.snapshot.manifest import SnapshotEntry, chain_at, check_log_end
from ultraengine.snapshot.migrate import NO_MIGRATIONS, Migrations
from ultraengine.snapshot.schedule import SnapshotKind, choose_kind
from ultraengine.snapshot.store import Alarm, LoadReport, SnapshotOptions, SnapshotStore, no_alarm

Mode = Literal["fork", "cooperative", "inline"]
KindAsked = SnapshotKind | Literal["auto"]
MERGE: Final = "merge"
EXPECTED: Final = (SnapshotError, OSError, ValueError, KeyError)
"""What can go wrong without anybody's bug: it fails the snapshot, never the shard."""
Watch = Callable[[Callable[[int], None] | None], None]
"""Sets what is called before a slot is changed; None takes it away."""


class SnapshotTaken(msgspec.Struct, frozen=True, kw_only=True):
    """A verified and listed snapshot, and what it cost."""

    entry: SnapshotEntry
    mode: str
    new: bool = True
    """False: nothing had changed since ``entry``, so nothing was written."""
    pause_s: float = 0.0
    """Longest time that the writer's thread was kept at once."""
    duration_s: float = 0.0
    """From the cut to the record."""


class _Run:
    """One attempt, from the cut on."""

    def __init__(self, draft: Draft, mode: str, started: float) -> None:
        self.draft = draft
        self.mode = mode
        self.started = started
        self.times = TurnTimes()


class SnapshotDriver:
    """See the module.  All methods are called on the shard's own thread."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        options: SnapshotOptions,
        *,
        random: Random,
        secrets: Secrets,
        codecs: Codecs | None = None,
        new_image: Callable[[], Image] | None = None,
        migrations: Migrations = NO_MIGRATIONS,
        quiesce: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
        child_disk: Callable[[], Disk] | None = None,
        watch: Watch | None = None,
        alarm: Alarm = no_alarm,
    ) -> None:
        """`new_image` makes an empty image of the domains alone, for proofs and merges; without
        it a snapshot is proved by its bytes.  `child_disk` makes the disk that a child writes
        to; without it the child uses `disk`, which must hold no open descriptors then.  `watch`
        is told what to call before a slot is changed, for as long as a cooperative snapshot
        runs; without it the shard calls ``before_slot_mutation`` itself.
        """
        self._store = SnapshotStore(
            disk, clock, random, secrets, options, codecs=codecs, alarm=alarm
        )
        self._clock = clock
        self._options = options
        self._maker = Maker(self._store, new_image=tidy_before(new_image), migrations=migrations)
        self._migrations = migrations
        self._quiesce = quiesce
        self._child_disk = child_disk or (lambda: disk)
        self._watch = watch or (lambda _: None)
        self._alarm = alarm
        self._recovered = False
        self._running: asyncio.Task[SnapshotTaken] | None = None
        self._busy = False
        self._marked_at: SnapshotEntry | None = None
        """The snapshot since which the image marks its changes; None = the next one is full."""
        self._cut: Cut | None = None
        self._capture_times = TurnTimes()

    # --- what there is -------------------------------------------------------------------

    @property
    def entries(self) -> tuple[SnapshotEntry, ...]:
        """The verified snapshots, as listed."""
        return self._store.entries

    @property
    def newest(self) -> SnapshotEntry | None:
        """The snapshot that a start would load up to."""
        chain = self._store.newest_chain()
        return chain[-1] if chain else None

    @property
    def busy(self) -> bool:
        """Whether a snapshot or merge is running."""
        return self._busy

    @property
    def increments(self) -> int:
        """Increments on top of the full image of the newest chain; ``compact`` makes it 0."""
        return max(0, len(self._store.newest_chain()) - 1)

    def log_floor(self) -> SnapshotEntry | None:
        """The log is to be kept from this snapshot's position on; None = from its start."""
        return self._store.log_floor()

    def require_full(self) -> None:
        """The image changed in a way that its marks do not tell (a slot was dropped)."""
        self._marked_at = None

    # --- start ---------------------------------------------------------------------------

    def recover(self) -> None:
        """Read the manifest, remove what a crash left.  Blocks; once, before anything else."""
        self._store.recover()
        self._recovered = True

    def load_newest(
        self,
        new_image: Callable[[], Image],
        migrations: Migrations | None = None,
        *,
        sequence_max: int | None = None,
        check_state_hash: bool = False,
    ) -> tuple[Image, ImagePosition | None, LoadReport]:
        """The newest usable state; an empty image and None when there is no snapshot.  Blocks.

        Damaged ones are reported, set aside with an alarm, and the next older one is used.
        `sequence_max` is where the log ends.  Raises `SnapshotRefused` for a snapshot beyond it,
        because a part of the log is missing then, and for one that this process cannot read.
        """
        if not self._recovered:
            self.recover()
        if sequence_max is not None:
            check_log_end(self.entries, sequence_max)
        collecting = gc.isenabled()
        gc.disable()  # Millions of fresh objects and no garbage: collections only cost time.
        try:
            image, position, report = self._store.load(
                new_image,
                self._migrations if migrations is None else migrations,
                sequence_max=sequence_max,
                check_state_hash=check_state_hash,
            )
        finally:
            if collecting:
                gc.enable()
        self._marked_at = report.chain[-1] if report.chain else None
        return image, position, report

    def load_copy(
        self, new_image: Callable[[], AnyImage], *, sequence_max: int | None = None
    ) -> tuple[AnyImage, ImagePosition | None]:
        """Like `load_newest`, for a second image: the one that is snapshotted stays as it is.

        With `sequence_max`, the newest one that is not beyond it.  Blocks; may be called on any
        thread, but not while a snapshot is being taken.
        """
        image, position, _ = self._store.load(
            new_image, self._migrations, sequence_max=sequence_max, check_state_hash=False
        )
        return image, position

    # --- taking one ----------------------------------------------------------------------

    def take(
        self,
        image: Image,
        position: ImagePosition,
        mode: Mode = "fork",
        *,
        kind: KindAsked = "auto",
    ) -> "asyncio.Future[SnapshotTaken]":
        """Cut `image`, which stands at `position`, now; the rest happens behind the future.

        The future raises `SnapshotFailed` with the reason; await it.  Cancelling it ends the
        wait, not the snapshot (``close`` does).  Raises `SnapshotBusy` at once while another
        one is running.
        """
        if mode == "inline":
            try:
                return _settled(self.take_inline(image, position, kind=kind))
            except SnapshotFailed as failure:
                return _settled(failure)
        started = self._clock.monotonic()
        unchanged = self._begin(position, kind)
        if unchanged is not None:
            return _settled(SnapshotTaken(entry=unchanged, mode=mode, new=False))
        return self._start(lambda: self._cut_now(image, position, mode, kind, started))

    def take_inline(
        self,
        image: Image,
        position: ImagePosition,
        *,
        kind: KindAsked = "auto",
    ) -> SnapshotTaken:
        """The same without an event loop: blocks until it is listed.  Raises `SnapshotFailed`."""
        started = self._clock.monotonic()
        unchanged = self._begin(position, kind)
        if unchanged is not None:
            return SnapshotTaken(entry=unchanged, mode="inline", new=False)
        try:
            base = self._base(position, kind)
            run = self._new_run(position, base, "inline", started)
            try:
                self._marked_at = None
                below, disk = self._files_below(base), self._store.disk
                written = self._maker.from_image(disk, image, run.draft, below, no_pause)
                image.mark()
                entry = self._marked_at = self._store.publish(run.draft, written)
            except BaseException:
                self._store.discard(run.draft)
                raise
            run.times.add(self._clock.monotonic() - started)
            return self._taken(run, entry)
        except EXPECTED as problem:
            raise self._failure(problem) from problem
        finally:
            self._busy = False

    def _begin(self, position: ImagePosition, kind: KindAsked) -> SnapshotEntry | None:
        """Claim the driver; gives the listed snapshot instead when nothing came since."""
        if not self._recovered:
            raise InvariantBroken("a driver recovers before it takes snapshots")
        if self._busy:
            raise SnapshotBusy("another snapshot of this shard is running")
        chain = None if self._marked_at is None else chain_at(self._marked_at, self.entries)
        if chain is not None:
            tip = chain[-1]
            if position.sequence_end < tip.sequence_end:
                raise InvariantBroken(
                    "an image never goes back behind its snapshot",
                    position=position.sequence_end,
                    snapshot=tip.sequence_end,
                )
            if position.sequence_end == tip.sequence_end and kind != "full":
                return tip
        self._busy = True
        return None

    def _new_run(
        self, position: ImagePosition, base: SnapshotEntry | None, mode: str, started: float
    ) -> _Run:
        draft = self._store.prepare(position, None if base is None else base.as_base())
        return _Run(draft, mode, started)

    def _base(self, position: ImagePosition, kind: KindAsked) -> SnapshotEntry | None:
        """What the next snapshot stands on; None = it is full."""
        marked = self._marked_at
        chain = None if marked is None else chain_at(marked, self.entries)
        if kind == "full" or chain is None or chain[-1].sequence_end >= position.sequence_end:
            return None
        chosen = choose_kind(
            chain,
            increments_max=self._options.increments_max,
            bytes_share_max=self._options.increments_share_max,
        )
        # An increment that was asked for by name is still bounded by the chain's length.
        too_long = len(chain) - 1 >= self._options.increments_max
        return None if too_long or (kind == "auto" and chosen == "full") else chain[-1]

    def _files_below(self, base: SnapshotEntry | None) -> list[ChainFile]:
        """The files that an increment on `base` stands on; none for a full image."""
        chain = None if base is None else chain_at(base, self.entries)
        return self._store.chain_files(chain or ())

    def _cut_now(
        self,
        image: Image,
        position: ImagePosition,
        mode: Mode,
        kind: KindAsked,
        started: float,
    ) -> tuple[_Run, Coroutine[Any, Any, Written]]:
        base = self._base(position, kind)
        run = self._new_run(position, base, mode, started)
        # From here on the marks of the image are spent; only success makes them good again.
        self._marked_at = None
        below = self._files_below(base)
        work: Coroutine[Any, Any, Written]
        if mode == "cooperative":
            maximum = self._options.captured_bytes_max
            cut = Cut(image, full=base is None, captured_bytes_max=maximum)
            self._cut, self._capture_times = cut, run.times
            self._watch(self.before_slot_mutation)
            work = self._cooperate(cut, run, below)
        else:
            maker, draft = self._maker, run.draft
            # Forgetting what changed touches every changed page.  A full image does not need to
            # know it, so this comes first: after the fork each of these pages is copied.
            if base is None:
                image.mark()
            child = self._fork(
                lambda disk: maker.from_image(disk, image, draft, below, self._pause)
            )
            try:
                if base is not None:
                    image.mark()
            except BaseException:
                child.abandon()
                raise
            work = child.result(self._options.child_s_max)
        run.times.add(self._clock.monotonic() - started)
        return run, work

    def _pause(self, written: int) -> None:
        """Hold the rate that was asked for.  Called on the writing process or thread."""
        if self._options.write_bytes_per_s:
            time.sleep(written / self._options.write_bytes_per_s)

    # --- behind the cut ------------------------------------------------------------------

    def _start(
        self, begin: Callable[[], tuple[_Run, Coroutine[Any, Any, Written]]]
    ) -> "asyncio.Future[SnapshotTaken]":
        """Begin now; the rest is a task that only ``close`` can cancel."""
        try:
            run, work = begin()
        except EXPECTED as problem:
            self._busy = False
            return _settled(self._failure(problem))
        except BaseException:
            self._busy = False
            raise
        self._running = asyncio.get_running_loop().create_task(self._finish(run, work))
        return asyncio.shield(self._running)

    async def _finish(self, run: _Run, work: Coroutine[Any, Any, Written]) -> SnapshotTaken:
        """Wait for `work`, list what it wrote, and clear up whatever happened."""
        listed: list[SnapshotEntry] = []
        try:
            written = await work
            await to_its_end(lambda: listed.append(self._store.publish(run.draft, written)))
        except EXPECTED as problem:
            raise self._failure(problem) from problem
        finally:
            if not listed:
                await to_its_end(lambda: self._store.discard(run.draft))
            elif run.mode != MERGE:
                self._marked_at = listed[0]
            self._busy = False
            self._running = None
        return self._taken(run, listed[0])

    def _failure(self, problem: BaseException) -> SnapshotFailed:
        """The one error that callers see, and an alarm with its reason."""
        failure = problem if isinstance(problem, SnapshotFailed) else None
        if failure is None:
            failure = SnapshotFailed(f"{type(problem).__name__}: {problem}")
        self._alarm("snapshot.failed", {"reason": str(failure)})
        return failure

    def _taken(self, run: _Run, entry: SnapshotEntry) -> SnapshotTaken:
        return SnapshotTaken(
            entry=entry,
            mode=run.mode,
            pause_s=run.times.longest_s,
            duration_s=self._clock.monotonic() - run.started,
        )

    def _fork(self, work: Callable[[Disk], Written]) -> Child:
        if not fork_is_available():
            raise SnapshotFailed("forked snapshots need Linux 5.3; use mode 'cooperative'")
        return fork(lambda: work(self._child_disk()), quiesce=self._quiesce)

    # --- cooperative ---------------------------------------------------------------------

    def before_slot_mutation(self, slot: int) -> None:
        """To be called before a slot is changed.  Costs a test for None when nothing runs."""
        cut = self._cut
        if cut is not None and cut.pending:
            started = self._clock.monotonic()
            if cut.before(slot):
                self._capture_times.add(self._clock.monotonic() - started)

    async def _cooperate(self, cut: Cut, run: _Run, below: Sequence[ChainFile]) -> Written:
        """Read the cut on the loop, write it on a thread."""

        def write(sections: Iterator[Section]) -> Written:
            disk = self._store.disk
            return self._maker.from_sections(disk, sections, run.draft, below, self._pause)

        try:
            return await write_cut(
                cut,
                write,
                clock=self._clock,
                turn_s=self._options.turn_s,
                rest_s=self._options.rest_s,
                times=run.times,
            )
        finally:
            self._cut = None
            self._watch(None)

    # --- merging -------------------------------------------------------------------------

    def compact(self, mode: Literal["fork", "inline"] = "fork") -> "asyncio.Future[SnapshotTaken]":
        """Merge the newest chain into a full image at its position, away from the engine.

        Gives the full image itself, with ``new`` false, when there is no increment on it.
        """
        started = self._clock.monotonic()
        if self._busy:
            raise SnapshotBusy("another snapshot of this shard is running")
        chain = self._store.newest_chain()
        if len(chain) == 1:
            return _settled(SnapshotTaken(entry=chain[0], mode=MERGE, new=False))
        self._busy = True
        return self._start(lambda: self._start_merge(chain, mode, started))

    def _start_merge(
        self, chain: Sequence[SnapshotEntry], mode: Literal["fork", "inline"], started: float
    ) -> tuple[_Run, Coroutine[Any, Any, Written]]:
        if not chain:
            raise SnapshotFailed("there is no snapshot to merge")
        files = self._store.chain_files(chain)
        with self._store.open_file(files[-1]) as tip:
            position = tip.header.position
        draft = self._store.prepare(position, None, folded=self._maker.folds)
        run = _Run(draft, MERGE, started)
        if mode == "fork":
            child = self._fork(lambda disk: self._maker.from_chain(disk, files, draft, self._pause))
            work = child.result(self._options.child_s_max)
        else:
            work = _given(self._maker.from_chain(self._store.disk, files, draft, no_pause))
        run.times.add(self._clock.monotonic() - started)
        return run, work

    async def close(self) -> None:
        """End what is running; its future is cancelled, its child gone, its file removed."""
        # A task that was cancelled before its first step would never clear up.
        await asyncio.sleep(0)
        running = self._running
        if running is not None:
            running.cancel()
            await asyncio.wait([running])


def _settled(outcome: SnapshotTaken | SnapshotFailed) -> "asyncio.Future[SnapshotTaken]":
    """A future that is done already."""
    done: asyncio.Future[SnapshotTaken] = asyncio.get_running_loop().create_future()
    if isinstance(outcome, SnapshotFailed):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)
    return done


async def _given(written: Written) -> Written:
    return written
