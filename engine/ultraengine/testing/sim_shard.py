"""A whole shard on a simulated disk, driven step by step on one thread.

The same machine, executor, log, snapshots and recovery as in production; only the driver is
another one: it does at once what the production driver waits for.  For stateful tests and
simulations of the engine and of users' own domains.
"""

from collections.abc import Sequence

import msgspec
from prometheus_client import CollectorRegistry

from ultraengine.execution.history_files.driver import HistoryFile
from ultraengine.execution.pipeline import Hooks
from ultraengine.execution.registry import Admitted, Registry
from ultraengine.execution.system import DropConsumer, SystemData
from ultraengine.log.driver import Log, Recovered, Written
from ultraengine.log.retention import RetentionReport
from ultraengine.model.domain import Domain
from ultraengine.model.errors import EngineError, InvariantBroken
from ultraengine.model.ids import FrameSequence, Instant, ShardId
from ultraengine.model.limits import Limits
from ultraengine.model.policy import FlushRule
from ultraengine.model.reply import Reply
from ultraengine.reply.recorded import Recorded, name_of
from ultraengine.reply.waiters import Ticket
from ultraengine.shard.effects import Answer, Group, Pending
from ultraengine.shard.image import readable
from ultraengine.shard.memory import ShardMemory
from ultraengine.shard.metrics import ShardMetrics
from ultraengine.shard.opening import ShardOptions, World, open_shard
from ultraengine.shard.slot_copy import find_carried
from ultraengine.shard.snapshotting.driver import BEYOND_THE_CAP, DEDUPE
from ultraengine.shard.status import ReplayReport
from ultraengine.shard.validation import validate
from ultraengine.snapshot.driver import SnapshotDriver, SnapshotTaken
from ultraengine.snapshot.image import ImagePosition
from ultraengine.snapshot.migrate import Migrations
from ultraengine.snapshot.schedule import SnapshotKind
from ultraengine.snapshot.store import SnapshotOptions
from ultraengine.testing.sim_clock import SimClock, SimRandom, SimSecrets
from ultraengine.testing.sim_disk import SimDisk

KIB = 1024
SIM_LIMITS = Limits(
    frame_bytes_max=16 * KIB,
    group_bytes_max=4 * KIB,
    group_commands_max=16,
    segment_bytes=64 * KIB,
    reserve_bytes=64 * KIB,
    dedup_window_s=3600,
    retention_bytes_max=KIB * KIB,
)
"""Small, so that short runs roll segments and split groups."""

SHARD = ShardId(0)


class SimShard:
    """One life of a shard's process; the disk outlives it."""

    def __init__(
        self,
        disk: SimDisk,
        clock: SimClock,
        domains: Sequence[Domain],
        *,
        shard: ShardId = SHARD,
        seed: int = 0,
        limits: Limits = SIM_LIMITS,
        verify_all: bool = False,
        hooks: Hooks | None = None,
        eager: bool = False,
    ) -> None:
        """Recover from `disk`.  Raises what `shard.opening.open_shard` raises."""
        self.disk = disk
        self.shard = shard
        self.clock = clock
        self.registry = Registry(domains, hooks=hooks, limits=limits)
        world = World(disk, clock, SimRandom(seed), SimSecrets({}))
        self.snapshots = SnapshotDriver(
            disk,
            clock,
            SnapshotOptions(shard=shard, free_bytes_min=0),
            random=world.random,
            secrets=world.secrets,
            new_image=lambda: self.memory.proof_image(),  # noqa: PLW0108  (made below)
            migrations=Migrations(readable(self.registry)),
        )
        self.memory = ShardMemory(
            disk,
            self.registry,
            shard,
            limits,
            history=HistoryFile(disk, shard, self.registry.decoders),
            snapshots=self.snapshots,
            spawn=lambda work: work(),
        )
        rule = FlushRule(
            name="sync", wait_s=0.0, group_bytes_max=limits.group_bytes_max,
            reply_before_flush=False,
        )  # fmt: skip
        parts = open_shard(
            world,
            self.registry,
            self.memory,
            ShardMetrics(CollectorRegistry(), shard),
            ShardOptions(
                shard=shard, rule=rule, limits=limits, verify_all=verify_all, eager_outcomes=eager
            ),
        )
        if not isinstance(parts.log, Log):
            raise InvariantBroken("a shard of one copy writes its own log")
        self.log, self.machine, self.executor = parts.log, parts.machine, parts.executor
        self.replayed = parts.replayed
        self.failure: BaseException | None = None
        self._stand: Written | Recovered = parts.log.recovered
        self._reader = parts.log.reader()
        self.log.start(self._failed, threads=False)
        self._run()

    def _failed(self, error: BaseException) -> None:
        self.failure = error

    # --- commands ------------------------------------------------------------------------

    def send(self, *admitted: Admitted) -> list[Reply]:
        """Submit together and drive until all are answered.

        Commands that the shard cannot answer any more get OUTCOME_UNKNOWN, as from a driver
        whose log failed; ``failure`` says why.
        """
        ticket = Ticket(len(admitted), lambda _ticket: None)
        effects = self.machine.accept(admitted, ticket, 0, None)
        _put(effects.answers)
        for pending, candidates in effects.verify:
            _put(self.machine.verified(pending, self._find(pending, candidates), None))
        self._run()
        if ticket.missing:
            unknown = EngineError(str(self.failure), code="OUTCOME_UNKNOWN")
            for pending in list(self.machine.in_flight.values()):
                _put(self.machine.refuse(pending, unknown))
        return [reply for reply in ticket.answers if reply is not None]

    def _find(self, pending: Pending, candidates: Sequence[int]) -> Recorded | None:
        for offset in candidates:
            recorded = self.machine.unrecorded.get(offset)
            if recorded is None:
                found = self._reader.find(offset)
                if found is None:
                    continue
                header, command, outcome = found
                if outcome is None:
                    continue
                recorded = Recorded(command, outcome, header.epoch, Instant(header.time))
            if name_of(recorded.command) == name_of(pending.admitted.command):
                return recorded
            carried = find_carried(recorded, name_of(pending.admitted.command))
            if carried is not None:
                return carried
        return None

    def _run(self) -> None:
        """Form, write and execute until nothing waits; the last outcomes stay unwritten."""
        while self.failure is None:
            group = self.machine.form(self.clock.now())
            if group is None:
                if self.machine.eager and self.machine.unwritten and self._write(None):
                    continue
                return
            if not self._write(group):
                return

    def _write(self, group: Group | None) -> bool:
        """Write and execute; False when there was no room, and everybody is refused."""
        outcomes = self.machine.take_unwritten()
        frames = outcomes if group is None else [*outcomes, group.draft]
        answered: list[Written] = []
        self.log.write(frames, answered.append)
        if not answered:
            return True  # The log failed: nothing is known of this write.
        (written,) = answered
        if written.error is not None:
            self.machine.give_back(outcomes)
            if group is not None:
                full = EngineError(str(written.error), code="READ_ONLY")
                _put(self.machine.undo(group, full))
                _put(self.machine.refuse_waiting(full))
            return False
        self._stand = written
        _put(self.machine.recorded(outcomes))
        if group is None:
            return True
        self.machine.committed(group)
        done = False
        while not done:
            effects = self.machine.execute(group, 64)
            _put(effects.answers)
            if effects.failed is not None:
                raise effects.failed
            done = effects.done
        self.memory.upkeep()
        return True

    def rest(self) -> None:
        """Write the outcomes that no group has carried."""
        if self.machine.unwritten:
            self._write(None)

    # --- operations ----------------------------------------------------------------------

    def position(self) -> ImagePosition:
        """Where the shard stands; call it at rest."""
        return ImagePosition(
            shard=self.shard,
            epoch=self.machine.epoch,
            offset_end=self.executor.applied_end,
            sequence_end=FrameSequence(self._stand.end_sequence),
            chain=self._stand.chain,
            state_chain=self._stand.state_chain,
            time=self.machine.time,
            handlers=self.registry.handlers,
            history_end=self.memory.history.end,
        )

    def snapshot(self, kind: SnapshotKind) -> SnapshotTaken:
        """Take one on the spot and cut the log behind it."""
        self.rest()
        self.memory.history.sync()
        if self.executor.moves.take_dropped():
            self.snapshots.require_full()
        return self.snapshots.take_inline(self.memory.image, self.position(), kind=kind)

    def log_own(self, data: SystemData) -> None:
        """Log a decision of the engine itself and execute it."""
        self.machine.log_system(data)
        self._run()

    def retain(self) -> RetentionReport:
        """Cut the log below the newest snapshots, the remembered ids and every consumer."""
        floor = self.snapshots.log_floor()
        if floor is None:
            return RetentionReport()
        report = self.log.retain(
            floor.offset_end,
            floor.sequence_end,
            {DEDUPE: int(self.executor.dedupe.floor_offset), **self.executor.consumers},
        )
        for name in report.dropped:
            if name != DEDUPE:
                self.log_own(DropConsumer(name, BEYOND_THE_CAP))
        return report

    def validate(self) -> ReplayReport:
        """Decide everything that the log holds again, from the oldest state that can be had."""
        self.rest()
        executor = self.memory.scratch(sequence_max=0)
        if executor.applied_end < self.log.first_offset:
            executor = self.memory.scratch(sequence_max=1 << 62)
        return validate(executor, self._reader, from_offset=executor.applied_end, to_offset=None)

    def stop(self) -> None:
        """A clean stop: everything is recorded."""
        self.rest()
        self.log.close(clean=True)

    def content(self) -> list[tuple[int, str, int, bytes]]:
        """All sections of the state, for comparisons."""
        sections = self.memory.image.sections(full=True)
        return [(one.slot, one.name, one.schema, one.chunk) for one in sections]


def _put(answers: Sequence[Answer]) -> None:
    for answer in answers:
        answer.ticket.put(answer.index, answer.reply)


def with_limits(**changes: int) -> Limits:
    """`SIM_LIMITS` with some of them changed."""
    return msgspec.structs.replace(SIM_LIMITS, **changes)
