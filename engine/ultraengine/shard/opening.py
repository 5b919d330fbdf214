"""The start of a shard: promise, log, newest snapshot, tail, machine.

    promise(epoch) durable -> log recovered -> snapshot loaded -> history cut to it
        -> tail evolved, last groups decided again -> epoch start queued

Everything blocks and runs on a thread of its own; it goes through ports and keeps no state.
"""

import contextlib
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from ultraengine import __version__
from ultraengine.execution.executor import Executor
from ultraengine.execution.pipeline import EvolveFailed
from ultraengine.execution.registry import Registry
from ultraengine.execution.system import EpochStart, system_command
from ultraengine.log.archived import check_owner
from ultraengine.log.damage import LogDamaged, LogRefused
from ultraengine.log.driver import Log, LogOptions
from ultraengine.log.frame import FrameDraft, FrameHeader, FrameKind
from ultraengine.log.serializer import MsgpackSerializer
from ultraengine.log.writer import LogWriter
from ultraengine.model.ids import Epoch, FrameSequence, Instant, Offset, ShardId
from ultraengine.model.limits import Limits
from ultraengine.model.policy import (
    CompactionPolicy,
    FlushRule,
    LogSerializer,
    SchedulingPolicy,
)
from ultraengine.ports import Clock, Disk, ObjectStore, Random, Secrets
from ultraengine.replication.stored import STORED_PATH
from ultraengine.reply.recorded import Recorded
from ultraengine.shard.machine import Machine
from ultraengine.shard.metrics import ShardMetrics
from ultraengine.shard.ownership import Ownership, read_ownership
from ultraengine.shard.parts import ShardParts
from ultraengine.shard.promise import read_promise, write_promise
from ultraengine.shard.recovery import Recovery, recover, skips
from ultraengine.shard.steady_clock import SteadyClock
from ultraengine.snapshot.errors import SnapshotRefused
from ultraengine.snapshot.image import ImagePosition

PROGRESS_SHARE: Final = 3
"""A replay goes on for at least so many times what its last checkpoint took."""


class Memory(Protocol):
    """Where a shard's state comes from, again and again if recovery starts over."""

    def replay_from(self) -> int:
        """Frame sequence from which ``load`` lets replay begin, as far as is known without loading.

        Changes nothing.  Where replay has to begin earlier after all, it finds damage itself.
        """

    def load(self, *, sequence_max: int, log_end: int) -> tuple[Executor, ImagePosition | None]:
        """An executor at the newest good snapshot below `sequence_max`, or an empty one."""

    def keeps_schemas(self, *, same_handlers: bool) -> bool:
        """Whether what would be kept can be read by the release that wrote the log; after
        ``load``.  `same_handlers`: its handler versions were those of this process."""

    def checkpoint(self, position: ImagePosition) -> bool:
        """Keep what was replayed so far, so that the next start goes on from there; whether it
        could be kept.  Blocks."""


class ShardOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How one shard runs."""

    shard: ShardId
    rule: FlushRule
    limits: Limits
    compress: bool = False
    master_key: str | None = None
    chain_key: str | None = None
    verify_all: bool = False
    """Verify every frame of the log at the start, not only those from the newest snapshot on."""
    decide_again: str | None = None
    """Other handler versions, by their digest in hex, whose unrecorded commands are decided here
    all the same: a person's risk."""
    eager_outcomes: bool = False
    """Answer when outcomes are durable as well, so that nobody decides again what was told."""
    scheduling: SchedulingPolicy | None = None
    serializers: tuple[LogSerializer, ...] = ()
    """Users' own, all of them readable; the first one is written."""
    compaction: CompactionPolicy | None = None
    """With the world's ``archive``: what goes there before it leaves the log."""


class World(msgspec.Struct, frozen=True):
    """The ports of a shard."""

    disk: Disk
    clock: Clock
    random: Random
    secrets: Secrets
    archive: ObjectStore | None = None


def open_shard(
    world: World,
    registry: Registry,
    memory: Memory,
    metrics: ShardMetrics,
    options: ShardOptions,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> ShardParts:
    """Recover a shard from its directory; `progress` is told of (commands replayed, of so many).

    Raises what the log raises (`LogDamaged`, `LogInUse`, `DiskFull`, OSError), `LogRefused` for
    another shard's directory, that of a replica or another engine's archive, and `OtherHandlers` or
    `EvolveFailed` when the tail cannot be brought into memory.
    """
    if world.disk.exists(STORED_PATH):
        raise LogRefused("the directory is of a replica: alone, it may lack what others hold")
    _ownership(world.disk, options.shard)
    epoch = Epoch(read_promise(world.disk) + 1)
    write_promise(world.disk, epoch)
    log = Log.open(
        world.disk,
        world.clock,
        world.random,
        world.secrets,
        log_options(options, epoch, registry.handlers_digest, memory.replay_from),
        codecs=options.serializers,
        compaction=options.compaction,
        store=world.archive,
    )
    try:
        if world.archive is not None:
            check_owner(world.archive, options.shard, log.identity.cluster_uid)
        parts = recover_shard(world, registry, memory, metrics, options, log, epoch, progress)
    except BaseException:
        log.close(clean=False)
        raise
    parts.machine.log_system(epoch_start(registry, epoch))
    return parts


def epoch_start(registry: Registry, epoch: Epoch) -> EpochStart:
    """What the first frame of a leadership says."""
    return EpochStart(epoch, registry.handlers, __version__)


def epoch_start_draft(
    registry: Registry, serializer: LogSerializer, epoch: Epoch, offset: Offset, time: Instant
) -> FrameDraft:
    """The first frame of a leadership, for whoever writes it before the shard is in memory."""
    command = system_command(epoch_start(registry, epoch), offset=offset)
    payload = serializer.encode_commands([command])
    return FrameDraft(FrameKind.COMMANDS, offset, 1, time, payload)


def _ownership(disk: Disk, shard: ShardId) -> Ownership | None:
    """What the directory says it owns.  Raises `LogRefused` for another shard's."""
    ownership = read_ownership(disk)
    if ownership is not None and ownership.shard != shard:
        raise LogRefused(f"the directory is of shard {ownership.shard}, not {shard}")
    return ownership


def serializer_of(options: ShardOptions) -> LogSerializer:
    """The one that is written."""
    return options.serializers[0] if options.serializers else MsgpackSerializer()


def recover_shard(
    world: World,
    registry: Registry,
    memory: Memory,
    metrics: ShardMetrics,
    options: ShardOptions,
    log: LogWriter,
    epoch: Epoch,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
    *,
    followed: Executor | None = None,
) -> ShardParts:
    """Recover a shard from a log that is open, and of which everything may be executed.

    `followed`: `memory` is loaded, and this executor of it has executed a part of the log already.
    Raises as `open_shard` does, of memory alone.
    """
    serializer = serializer_of(options)
    ownership = _ownership(world.disk, options.shard)
    started = world.clock.monotonic()
    checkpoints = _Checkpoints(world.clock, log, memory, registry, options)
    executor, recovery = _into_memory(log, memory, options, checkpoints, progress, followed)
    replay_s = world.clock.monotonic() - started
    machine = Machine(
        executor,
        serializer,
        options.limits,
        epoch=epoch,
        policy=options.rule.name,
        group_bytes_max=options.rule.group_bytes_max,
        scheduling=options.scheduling,
        eager=options.eager_outcomes,
        ownership=ownership,
    )
    machine.adopt(
        [Recorded(one.command, one.outcome, one.epoch, one.time) for one in recovery.redecided]
    )
    if replay_s > 0:
        metrics.replay.set(recovery.replayed / replay_s)
    return ShardParts(
        machine=machine,
        executor=executor,
        log=log,
        registry=registry,
        limits=options.limits,
        rule=options.rule,
        clock=SteadyClock(world.clock, options.limits.clock_leap_max_s),
        metrics=metrics,
        epoch=epoch,
        replayed=recovery.replayed,
        replay_s=replay_s,
    )


def log_options(
    options: ShardOptions,
    epoch: Epoch,
    handlers: bytes,
    replay_from: Callable[[], int] = lambda: 0,
) -> LogOptions:
    """How the log of a shard is opened; `replay_from`: what its start has to verify."""
    return LogOptions(
        shard=options.shard,
        epoch=epoch,
        handlers=handlers,
        limits=options.limits,
        compress=options.compress,
        master_key=options.master_key,
        chain_key=options.chain_key,
        codec=serializer_of(options).codec,
        verify_from=(lambda: 0) if options.verify_all else replay_from,
    )


class _Checkpoints:
    """When a long replay keeps what it has reached, and where that is.

    A start that comes to nothing must leave the release before able to start: it may be the
    only one that may decide the last groups, or that can replay the log at all.
    """

    def __init__(
        self,
        clock: Clock,
        log: LogWriter,
        memory: Memory,
        registry: Registry,
        options: ShardOptions,
    ) -> None:
        self._clock = clock
        self._reader = log.reader()
        self._same_handlers = log.recovered.last_handlers == registry.handlers_digest
        self._memory = memory
        self._registry = registry
        self._shard = options.shard
        self._every_s = options.limits.replay_checkpoint_s
        self._due_s = clock.monotonic() + self._every_s

    def of(self, executor: Executor) -> Callable[[FrameHeader], None] | None:
        """What recovery of this executor calls before each group; None when it keeps nothing."""
        same = self._same_handlers
        if not self._every_s or not self._memory.keeps_schemas(same_handlers=same):
            return None

        def before(group: FrameHeader) -> None:
            started = self._clock.monotonic()
            if started < self._due_s:
                return
            # Its state chain is read from the beginning of a segment, the replay perhaps not.
            with contextlib.suppress(LogDamaged):
                self._memory.checkpoint(self._position(executor, group))
            ended = self._clock.monotonic()
            # A large state must not keep a start from ever getting on.
            self._due_s = ended + max(self._every_s, PROGRESS_SHARE * (ended - started))

        return before

    def _position(self, executor: Executor, group: FrameHeader) -> ImagePosition:
        return ImagePosition(
            shard=self._shard,
            epoch=Epoch(executor.epoch),
            offset_end=executor.applied_end,
            sequence_end=FrameSequence(group.sequence),
            chain=group.chain,
            state_chain=self._reader.state_chain_at(group.sequence),
            time=executor.time,
            handlers=self._registry.handlers,
        )


def _into_memory(
    log: LogWriter,
    memory: Memory,
    options: ShardOptions,
    checkpoints: _Checkpoints,
    progress: Callable[[int, int], None],
    followed: Executor | None,
) -> tuple[Executor, Recovery]:
    """Snapshot and tail.  A logged override that lies behind the failing command is honoured."""
    reader = log.reader()
    skipped: set[int] = set()
    while True:
        if followed is None:
            executor, start = load_state(log, memory)
        else:
            executor, start, followed = followed, followed.applied_end, None
        executor.skipped |= skipped
        try:
            total = log.recovered.end_offset - start
            progress(0, total)
            return executor, recover(
                executor,
                reader.groups(start),
                decide_again=options.decide_again,
                progress=lambda done: progress(done, total),  # noqa: B023  (called before it changes)
                checkpoint=checkpoints.of(executor),
            )
        except EvolveFailed as failure:
            offset = failure.facts.get("offset")
            if offset in skipped or offset not in set(skips(reader.groups(start))):
                raise
            skipped.add(int(str(offset)))


def load_state(log: LogWriter, memory: Memory) -> tuple[Executor, int]:
    """The newest good snapshot's state, or an empty one, and the offset to go on from.

    Raises `SnapshotRefused` for a snapshot of another log.
    """
    executor, position = memory.load(
        sequence_max=log.recovered.end_sequence, log_end=log.recovered.end_offset
    )
    if position is None:
        return executor, 0
    _check_chain(log, position)
    return executor, position.offset_end


def _check_chain(log: LogWriter, position: ImagePosition) -> None:
    """A snapshot is an image of this very log, not of one that was rolled back or swapped."""
    found = log.reader().chain_at(position.sequence_end)
    if found != position.chain:
        raise SnapshotRefused(
            f"the snapshot at offset {position.offset_end} was taken of another log: the chain "
            f"before frame {position.sequence_end} is {found.hex()} here and "
            f"{position.chain.hex()} there. Restore the log and its snapshots together"
        )
