"""The loop of a shard: everything that waits, around the pure machine.

    submit -> accept -> [group forms while the disk is busy] -> write + flush (flush thread)
           -> durable -> start the next flush -> execute, in slices -> answer

No timer forms groups under ``sync``: while one flush runs the next group forms, and a lone
command is flushed at once.  Only where `InlineRule` finds the disk fast, and nothing else waits,
one turn of the loop writes, flushes, executes and answers.  Execution yields to the loop
every `UNITS_PER_TURN` transfers' worth of work.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from ultraengine.execution.registry import Admitted
from ultraengine.execution.system import Skip, SystemData
from ultraengine.log.driver import OnDurable, Recovered, Written
from ultraengine.log.frame import FrameDraft
from ultraengine.model.errors import EngineError, InvariantBroken
from ultraengine.reply.waiters import Ticket
from ultraengine.shard.effects import Answer, Group, Pending
from ultraengine.shard.flush_times import INLINE_BYTES_MAX, FlushTimes, InlineRule, open_for_s
from ultraengine.shard.parts import ShardParts
from ultraengine.shard.reading.driver import Reads
from ultraengine.shard.report import ShardStatus, report
from ultraengine.shard.resting.driver import Resting
from ultraengine.shard.spans import GroupSpans
from ultraengine.shard.status import ENDED, ShardState, refusal, unavailable
from ultraengine.shard.undurable import Undurable

UNITS_PER_TURN: Final = 256
IDLE_FLUSH_S: Final = 0.02
"""Outcomes that no group carried are written alone after this long."""
EXECUTING_MAX: Final = 2
"""Groups that are durable and wait for execution; more are not formed."""
SPACE_POLL_S: Final = 0.5

log = structlog.get_logger("shard")


class Shard:
    """One running shard.  All methods are called on the event loop's thread."""

    def __init__(self, parts: ShardParts, *, on_fatal: Callable[[BaseException], None]) -> None:
        self.registry = parts.registry
        self.limits = parts.limits
        self.machine = parts.machine
        self.executor = parts.executor
        self.metrics = parts.metrics
        self.log = parts.log
        self.epoch = parts.epoch
        self._parts = parts
        self.replay_per_s = parts.replay_per_s
        self._rule = parts.rule
        self._clock = parts.clock
        self._clock.on_leap = lambda said: self.alarm("clock.leaped", detail=said)
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        reads = self.reads = Reads(parts.machine, parts.log.reader(), parts.epoch, self._halted)
        self.query, self.outcome = reads.query, reads.outcome
        self.state = ShardState.SERVING
        self._reason = ""
        self._closed: EngineError | None = None
        self._writing: tuple[list[FrameDraft], Group | None, float] | None = None
        self._executing: deque[tuple[Group, float]] = deque()
        # Whether these turns are scheduled, and whether space is looked for.
        self._pump_scheduled, self._slice_scheduled, self._seeking = False, False, False
        self._held = 0
        """Reasons for which no group is formed: a snapshot's cut, a drain's end."""
        self._oldest: float | None = None
        """When the oldest waiting command was submitted."""
        self._timer: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._unsynced: asyncio.TimerHandle | None = None
        self._at_rest = Resting()
        self._tasks: set[asyncio.Task[None]] = set()
        self._undurable = Undurable()
        self._flush_times, self._fast = FlushTimes(), InlineRule()
        self.stand: Written | Recovered = parts.log.recovered
        """The last write's end of the log, or where the log stood at the start."""
        # Whether something written is not synced; a turn of its own; when a write last began.
        self._lags, self._may_inline, self._wrote = False, False, 0.0
        self._alarms = 0
        tell = self._loop.call_soon_threadsafe  # From the flush thread.
        self._log_written: OnDurable = lambda written: tell(self._written, written)
        self._log_synced: OnDurable = lambda written: tell(self._synced, written)
        self.spans = GroupSpans(None, parts.clock, parts.executor.shard)
        self.before_close: Callable[[], object] = lambda: None
        """Ends background work on the directory, which is unlocked next; blocks, on a thread."""
        self.on_recorded: Callable[[int, int], None] = lambda _end, _time: None
        """Told below which offset outcomes are durable, and the log's time: wakes the feed."""
        self.upkeep: Callable[[], Sequence[object]] = tuple
        """A short turn of background work on memory; returns facts that a person should know."""
        self.snapshot: Callable[[], tuple[int | None, float | None]] = lambda: (None, None)
        """(first offset not in the newest snapshot, its age in seconds)."""

    def start(self) -> None:
        """Begin to serve: log the epoch start and whatever recovery left to record."""
        tell = self._loop.call_soon_threadsafe  # From any thread.
        self.log.start(lambda error: tell(self.end, error, f"the log failed: {error}"))
        self.metrics.serving.set(1)
        self.metrics.applied.set(self.executor.applied_end)
        self._schedule_pump()

    # --- submit --------------------------------------------------------------------------

    def submit(self, admitted: Sequence[Admitted], ticket: Ticket, first_index: int = 0) -> None:
        """Take commands in order; every answer, refusals too, arrives through the ticket."""
        effects = self.machine.accept(admitted, ticket, first_index, self._closed)
        if effects.answers:
            self.metrics.rejected.inc(len(effects.answers))
            self._deliver(effects.answers)
        if effects.failed is not None:
            self._halt(effects.failed)
        for pending, candidates in effects.verify:
            task = asyncio.ensure_future(self._verify(pending, candidates))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self.machine.waiting:
            if self._oldest is None:
                self._oldest = time.monotonic()
            if not self._pump_scheduled:
                self._schedule_pump()

    async def _verify(self, pending: Pending, candidates: tuple[int, ...]) -> None:
        found, unreadable = await self.reads.first_attempt(pending, candidates)
        if not self.machine.awaits(pending):
            return  # The shard has halted meanwhile, and everybody was answered.
        if unreadable is not None:
            self._deliver(self.machine.refuse(pending, unreadable))
            return
        self._deliver(self.machine.verified(pending, found, self._closed))
        self._schedule_pump()

    def _deliver(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            answer.ticket.put(answer.index, answer.reply)

    # --- group and flush -----------------------------------------------------------------

    def _schedule_pump(self) -> None:
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self._loop.call_soon(self._scheduled_pump)

    def _scheduled_pump(self) -> None:
        """Only a turn of its own may flush inline: no caller waits behind it on the stack."""
        self._pump_scheduled, self._may_inline = False, True
        self._pump()
        self._may_inline = False

    def _pump(self) -> None:
        """Form and write the next group if the disk is free."""
        closed = self._writing is not None or self._held or self.state in ENDED
        if closed or len(self._executing) >= EXECUTING_MAX:
            return
        if self._rule.name == "group" and self._lingers():
            return
        try:
            group = self.machine.form(self._clock.now())
        except Exception as error:  # noqa: BLE001  (a policy or serializer of the user's own)
            self._halt(error)
            return
        if group is None:
            self._settle()
            return
        self._deliver(group.refused)
        self._write(self.machine.take_unwritten(), group)

    def _lingers(self) -> bool:
        """Under ``group``: whether the open group should wait for more commands."""
        machine = self.machine
        left = open_for_s(self._rule, self._oldest, machine.waiting_bytes, time.monotonic())
        if left <= 0 or not machine.waiting:
            return False
        timer = self._linger
        if timer is None or timer.cancelled() or timer.when() < self._loop.time():
            self._linger = self._loop.call_later(left, self._schedule_pump)
        return True

    def _write(self, outcomes: list[FrameDraft], group: Group | None) -> None:
        now = time.monotonic()
        frames = outcomes if group is None else [*outcomes, group.draft]
        if group is not None and self._oldest is not None:
            self.metrics.queue.observe(now - self._oldest)
            self._oldest = now if self.machine.waiting else None
        self._writing, self._wrote = (outcomes, group, now), now
        sync = not self._rule.reply_before_flush
        lone = self._may_inline and not self._executing and not self.machine.waiting
        self._may_inline = False
        if not (lone and self._fast.allows(now) and self.log.takes_now(frames, INLINE_BYTES_MAX)):
            self.log.write(frames, self._log_written, sync=sync)
        elif (written := self.log.write_now(frames, sync=sync)) is not None:
            self._written(written, inline=True)

    def _written(self, written: Written, *, inline: bool = False) -> None:
        """A write is durable (or there was no room)."""
        if self._writing is None:
            raise InvariantBroken("a write is answered once", durable_end=written.durable_end)
        (outcomes, group, started), self._writing = self._writing, None
        if written.error is None:
            self._undurable.add(written.end_sequence, outcomes)
        self._stands(written)
        if written.error is not None:
            self._no_room(outcomes, group, written.error)
            return
        if self.state is ShardState.HALTED:
            self._at_rest.tell()  # Whoever logs an override; everybody else was answered.
            return
        took = (now := time.monotonic()) - started
        self._flush_times.add(took)
        self._fast.add(written.write_s + written.sync_s, now, inline=inline)
        self.metrics.flushed(written, took)
        if self._rule.reply_before_flush and self._unsynced is None:
            self._unsynced = self._loop.call_later(self._rule.wait_s, self._sync)
        if group is not None:
            self.spans.flushed(group, written, took)
            self.machine.committed(group)
            self._executing.append((group, 0.0))
        self._pump()  # The next flush starts before this group is executed.
        if self._executing:
            self._execute()
        else:
            self._settle()

    def _stands(self, written: Written) -> None:
        """The log ends here; for outcomes that are durable there, it remembers from now on."""
        self.stand, self._lags = written, written.durable_end < written.end_sequence
        durable = self._undurable.take(written.durable_end)
        if durable:
            self._deliver(self.machine.recorded(durable))
            self.reads.recorded()
            self.on_recorded(durable[-1].base_offset + durable[-1].count, durable[-1].time)

    def _sync(self) -> None:
        """Under ``async``: make durable what was written since the last time."""
        self._unsynced = None
        self.log.sync(self._log_synced)

    def _synced(self, written: Written) -> None:
        self._stands(written)
        self._settle()

    def _no_room(self, outcomes: list[FrameDraft], group: Group | None, error: OSError) -> None:
        self.machine.give_back(outcomes)
        if self.state is ShardState.SERVING:  # Any other state outlives the lack of space.
            self._set_state(ShardState.READ_ONLY, str(error))
        full = unavailable(ShardState.READ_ONLY, str(error))
        answers = [] if group is None else self.machine.undo(group, full)
        if self.state is ShardState.HALTED:
            self._at_rest.tell(full)
            return
        if group is not None:
            self._deliver(answers)
            self._deliver(self.machine.refuse_waiting(full))
        self._oldest = None
        if not self._seeking:
            self._seeking = True
            self._loop.call_later(SPACE_POLL_S, self._poll_space)
        if self._executing or not self.machine.unwritten:
            self._execute()
            self._settle()

    def _poll_space(self) -> None:
        if self.state in ENDED:
            return
        if self.log.read_only:
            self._loop.call_later(SPACE_POLL_S, self._poll_space)
            return
        self._seeking = False
        if self.state is ShardState.READ_ONLY:
            self._set_state(ShardState.SERVING, "")
        self._schedule_pump()
        self._settle()  # Who holds the shard waits for the outcomes that found no room.

    # --- execute -------------------------------------------------------------------------

    def _execute(self) -> None:
        """Execute one slice of the oldest durable group and answer its commands."""
        if not self._executing or self._slice_scheduled or self.state in ENDED:
            return
        group, spent = self._executing[0]
        started = time.monotonic()
        group.began = started if group.began is None else group.began
        effects = self.machine.execute(group, UNITS_PER_TURN)
        spent += (ended := time.monotonic()) - started
        for alarm in effects.alarms:
            self.alarm(alarm.name, offset=alarm.offset, detail=alarm.detail, error=alarm.error)
        if effects.done:
            self._executing.popleft()
            self.metrics.executed(len(group.pendings), spent)
            self.spans.executed(group, ended - group.began, spent)
        else:
            self._executing[0] = (group, spent)
        self._deliver(effects.answers)
        if effects.failed is not None:
            self._halt(effects.failed)
            return
        self.reads.reached(self.executor.applied_end)
        if effects.done:
            self._pump()
        if self._executing:
            self._slice_scheduled = True
            self._loop.call_soon(self._next_slice)
        else:
            self._settle()
        if effects.done:  # Last: what fails here stops no group.
            for fact in self.upkeep():
                self.alarm("upkeep", offset=group.offset_end, detail=str(fact), error=None)

    def _next_slice(self) -> None:
        self._slice_scheduled = False
        self._execute()

    def _settle(self) -> None:
        """Nothing to form: arm the timers, write lone outcomes, wake who waits for rest."""
        if self._writing is not None or self._executing:
            return
        machine = self.machine
        self.metrics.waiting.set(len(machine.waiting))
        self.metrics.applied.set(self.executor.applied_end)
        if machine.unwritten:
            if self._held or (machine.eager and not self._seeking):
                self._write(machine.take_unwritten(), None)
            elif self._idle is None:
                self._idle = self._loop.call_later(IDLE_FLUSH_S, self._idle_flush)
            return
        self._arm_timer()
        if self._at_rest and self._lags:
            self._sync()  # At rest, nothing can be lost.
            return
        if not machine.waiting or self._held:
            self._at_rest.tell()

    def _idle_flush(self) -> None:
        self._idle = None
        if self._writing is None and self.machine.unwritten and not self._seeking:
            left = self._wrote + IDLE_FLUSH_S - time.monotonic()
            if left > 0:
                self._idle = self._loop.call_later(left, self._idle_flush)
            else:
                self._write(self.machine.take_unwritten(), None)

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._held or self.state is not ShardState.SERVING:
            return
        next_due = self.executor.next_due()
        if next_due is not None:
            delay = max(0.0, (next_due[0] - self._clock.now()) / 1e6)
            self._timer = self._loop.call_later(min(delay, 3600.0), self._schedule_pump)

    # --- read ----------------------------------------------------------------------------

    def _halted(self) -> EngineError | None:
        """Why nothing is read; None unless the shard has halted."""
        return self._closed if self.state is ShardState.HALTED else None

    # --- operate -------------------------------------------------------------------------

    def _set_state(self, state: ShardState, reason: str) -> None:
        if self.state in ENDED:
            return
        if state is not self.state:
            log.info("shard.state", shard=self.executor.shard, state=state.value, reason=reason)
        self.state, self._reason = state, reason
        self._closed = refusal(state, reason)
        self.metrics.serving.set(int(state is ShardState.SERVING))

    async def rest(self) -> None:
        """Wait until nothing waits, flushes or executes and all outcomes are recorded.

        Raises `EngineError` SHARD_UNAVAILABLE when the shard halts instead.
        """
        halted = self._halted()
        if halted is not None:
            raise halted
        future = self._at_rest.add()
        self._loop.call_soon(self._settle)
        await future

    async def hold(self) -> None:
        """Form no more groups and wait for rest: the log's end is then one exact position."""
        self._held += 1
        try:
            await self.rest()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Undo one `hold`."""
        self._held -= 1
        self._schedule_pump()

    async def pause(self, reason: str = "", state: ShardState = ShardState.PAUSED) -> None:
        """Refuse new commands until `resume`; returns when the accepted ones are answered."""
        self._set_state(state, reason)
        await self.rest()

    async def resume(self, state: ShardState = ShardState.PAUSED) -> None:
        """Serve again after `pause`; no effect in any other state."""
        if self.state is state:
            self._set_state(ShardState.SERVING, "")
            self._schedule_pump()

    async def drain(self) -> None:
        """Refuse new commands and return when all accepted ones are answered and recorded."""
        self._set_state(ShardState.DRAINING, "")
        await self.rest()

    async def stop(self) -> None:
        """Drain and close the log.

        Who cannot drain within ``drain_s``, or has halted, is closed as it is: what was
        acknowledged is durable, and the next start recovers the rest.
        """
        try:
            await asyncio.wait_for(self.drain(), self.limits.drain_s)
            clean = True
        except (TimeoutError, EngineError) as error:
            log.warning("shard.not_drained", shard=self.executor.shard, why=str(error))
            clean = False
        self._set_state(ShardState.STOPPED, "")
        if not clean:
            self._answer_unknown("the shard stopped before it was executed")
        if self.log.read_only:
            await asyncio.to_thread(self.log.release_reserve)  # Room for the last outcomes.
        await asyncio.to_thread(self.before_close)
        await asyncio.to_thread(lambda: self.log.close(clean=clean))
        self.reads.close()

    async def skip(self, offset: int, reason: str) -> None:
        """Log a person's override: recovery will not evolve the command at `offset`.

        A halted shard executes nothing, and still writes overrides: durable at the return.
        Raises `EngineError` SHARD_UNAVAILABLE while it writes, READ_ONLY without room.
        """
        halted = self._halted()
        if halted is not None and self._writing is not None:
            raise halted
        self.machine.log_system(Skip(offset, reason))
        if halted is None:
            self._schedule_pump()
            return
        logged = self._at_rest.add()
        self._write(self.machine.take_unwritten(), self.machine.form(self._clock.now()))
        await logged

    def log_own(self, data: SystemData) -> None:
        """Log a decision of the engine itself, with the next group."""
        self.machine.log_system(data)
        self._schedule_pump()

    def alarm(self, name: str, detail: str, error: BaseException | None = None, **at: int) -> None:
        """Log and count something that a person should look at."""
        self._alarms += 1
        self.metrics.alarms.inc()
        log.error(name, shard=self.executor.shard, detail=detail, exc_info=error, **at)

    def _halt(self, error: Exception) -> None:
        """Memory cannot be trusted: stop executing, say where, keep the process for people."""
        self.alarm("shard.halted", detail=str(error), offset=self.executor.applied_end, error=error)
        self._set_state(ShardState.HALTED, str(error))
        self._answer_unknown(str(error))

    def end(self, error: BaseException, why: str, alarm: str = "log.failed") -> None:
        """Read and write nothing from now on, say so to everybody, and let the process end."""
        self.alarm(alarm, offset=self.machine.log_end, detail=str(error), error=error)
        self._set_state(ShardState.HALTED, why)
        self._answer_unknown(str(error))
        self._on_fatal(error)

    def _answer_unknown(self, why: str) -> None:
        """Tell everybody in flight that their command may or may not be durable."""
        closed = unavailable(self.state, self._reason)
        self._at_rest.tell(closed)
        self._deliver(self.machine.refuse_waiting(closed))
        self._deliver(self.machine.give_up(why))

    def status(self) -> ShardStatus:
        """A report of this moment."""
        return report(
            self.machine,
            self._flush_times,
            state=self.state,
            reason=self._reason,
            parts=self._parts,
            snapshot=self.snapshot(),
            alarms=self._alarms,
        )
