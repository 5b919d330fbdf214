"""The replica of a process: from its settings to the log of the shard that leads.

follow  ->  the epoch-start frame is committed  ->  the shard is recovered and serves
"""

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from ultraengine.config import Config, ConfigErrors
from ultraengine.execution.executor import Executor
from ultraengine.execution.registry import Registry
from ultraengine.log.damage import LogRefused
from ultraengine.log.frame import FrameDraft, FrameHeader
from ultraengine.log.identity import IDENTITY_PATH, IdentityDamaged, LogIdentity, decode_identity
from ultraengine.log.survey import read_all
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.ports import Disk, Random, RecordStore
from ultraengine.replication.belonging import (
    UID_BYTES,
    Cluster,
    belonging,
    decode_cluster,
    encode_cluster,
)
from ultraengine.replication.driver import ReplicaDriver
from ultraengine.replication.effects import ReplicaLimits
from ultraengine.replication.installing.stock import NO_STOCK, Stock
from ultraengine.replication.leading_log import LeadingLog
from ultraengine.replication.link import Certificates
from ultraengine.replication.planner import PlannerLimits
from ultraengine.replication.record import ReplicaId
from ultraengine.replication.sizing import Wish
from ultraengine.replication.stored import STORED_PATH
from ultraengine.replication.watching.report import Difference
from ultraengine.replication.writing.driver import ReplicaOptions, ReplicaWorld
from ultraengine.shard.driver import Shard
from ultraengine.shard.following.driver import Following
from ultraengine.shard.following.keeping import Keeping, Kept
from ultraengine.shard.machine import Machine
from ultraengine.shard.memory import ShardMemory
from ultraengine.shard.opening import (
    ShardOptions,
    World,
    epoch_start_draft,
    load_state,
    log_options,
    serializer_of,
)
from ultraengine.starting.driver import RECORD_RETRY_S, answered
from ultraengine.starting.replicated.roles.driver import LeadingEngine

log = structlog.get_logger("replication")


async def cluster_uid(
    disk: Disk,
    random: Random,
    records: RecordStore,
    name: str,
    *,
    replica: int = 0,
    adopts: bool = False,
) -> bytes:
    """Whose copy this is, as the record's place says it.

    The disk of replica 0 is the first to say it, if it is new, or if it holds a log that was not
    replicated and is to be adopted: that one has a uid already.  Waits until the place answers, and
    others until it is said.  Raises `LogRefused`, and `InvariantBroken` for a place that holds
    something else.
    """

    def ask() -> bytes | None:
        identity = _identity(disk)
        adopted = adopts and identity is not None and not disk.exists(STORED_PATH)
        mint = None
        if replica == 0 and (identity is None or adopted):
            uid = random.bytes(UID_BYTES) if identity is None else identity.cluster_uid
            mint = encode_cluster(Cluster(name, uid))
        raw = records.mark(mint)
        if raw is None and identity is None:
            return None
        return belonging(identity, None if raw is None else decode_cluster(raw), name)

    while (found := await answered(ask)) is None:  # noqa: ASYNC110  (nobody tells)
        await asyncio.sleep(RECORD_RETRY_S)
    return found


def _identity(disk: Disk) -> LogIdentity | None:
    try:
        return decode_identity(read_all(disk, IDENTITY_PATH))
    except FileNotFoundError:
        return None
    except IdentityDamaged as error:
        raise LogRefused(f"{IDENTITY_PATH}: {error}") from None


def replica_options(
    config: Config, options: ShardOptions, registry: Registry, uid: bytes
) -> ReplicaOptions:
    """What the settings, and the record's place, say of this replica."""
    copies = len(config.replicas)
    return ReplicaOptions(
        shard=ShardId(config.shard),
        replica=ReplicaId(config.replica),
        addresses=config.replicas,
        host=config.replica_host,
        cluster_uid=uid,
        wish=Wish(config.copies or copies, config.min_isr),
        adopts=config.adopt and config.replica == 0,
        log=log_options(options, Epoch(0), registry.handlers_digest),
        codecs=options.serializers,
        compaction=options.compaction,
        certificates=config.replica_tls,
        catch_up_bytes_per_s=float(config.catch_up_bytes_per_s),
        url=config.url or url_of(config.replicas[config.replica][0], config.port),
        limits=ReplicaLimits(silence_s=config.failover_s),
        planner=PlannerLimits(silence_s=config.failover_s),
    )


def url_of(host: str, port: int) -> str:
    """An address for clients."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def follow(
    config: Config,
    world: World,
    records: RecordStore,
    registry: Registry,
    options: ShardOptions,
    *,
    on_end: Callable[[BaseException], None],
    stock: Stock = NO_STOCK,
) -> ReplicaDriver:
    """Start the replica.  Raises what `ReplicaDriver.start` raises, `LogRefused`, and
    `ConfigErrors`."""
    if config.replica_tls is not None:
        try:
            Certificates(config.replica_tls).context(server=True)
        except OSError as error:  # Also of what is in the files.
            raise ConfigErrors([f"ULTRA_REPLICA_TLS: {error}"]) from error
    serializer = serializer_of(options)

    def draft(epoch: Epoch, offset: Offset, time: Instant) -> FrameDraft:
        return epoch_start_draft(registry, serializer, epoch, offset, time)

    uid = await cluster_uid(
        world.disk,
        world.random,
        records,
        config.cluster or "",
        replica=config.replica,
        adopts=config.adopt,
    )
    replica = ReplicaDriver(
        ReplicaWorld(
            world.disk, world.clock, world.random, world.secrets, records, stock, world.archive
        ),
        replica_options(config, options, registry, uid),
        draft,
        on_end=on_end,
    )
    await replica.start()
    return replica


async def execute_behind(
    replica: ReplicaDriver, memory: ShardMemory, keeping: Keeping | None = None
) -> Following:
    """Execute what is committed while the replica follows, with snapshots by `keeping`.

    A copy that was filled waits until its log has come to its snapshot, and is not chosen to lead
    before.  Raises what loading a snapshot raises.
    """
    files = replica.files
    await _log_is_at(replica, memory.replay_from())
    executor, _ = await asyncio.to_thread(load_state, leading_log(replica), memory)

    def bar() -> None:
        replica.machine.barred = True
        found = following.difference
        if found is not None:
            replica.watching.difference = Difference(
                offset=found.offset,
                command_type=found.command_type,
                recorded=str(found.recorded),
                decided=str(found.decided),
            )

    def keep(executor: Executor, group: FrameHeader, opened: Kept) -> None:
        report = None if keeping is None else keeping.before(executor, group, opened)
        if report is not None:
            log.info("follower.kept", offset_end=executor.applied_end, first=report.first_sequence)

    following = Following(executor, memory, lambda: files.readable, on_difference=bar, keep=keep)
    replica.executed_end = lambda: executor.applied_end
    replica.on_committed = following.reached
    following.reached(replica.committed_end)
    return following


async def _log_is_at(replica: ReplicaDriver, sequence: int) -> None:
    """Wait until what is committed here reaches a snapshot."""
    machine, view = replica.machine, replica.files.view
    if view.durable_end >= sequence:
        return
    machine.barred = True
    reached = asyncio.Event()
    replica.on_committed = lambda end: reached.set() if end >= sequence else None
    if replica.committed_end < sequence:
        await reached.wait()
    machine.barred = False


def leading_log(replica: ReplicaDriver) -> LeadingLog:
    """The log of the shard, as it is open now; for a shard, once the replica has ``led``."""
    loop = asyncio.get_running_loop()

    def close(clean: bool) -> None:  # noqa: FBT001  (called by position)
        asyncio.run_coroutine_threadsafe(replica.stop(clean=clean), loop).result()

    files = replica.files
    return LeadingLog(files.view.log, files.stand(), replica.append, close, lambda: replica.needed)


def lead_with(replica: ReplicaDriver, shard: Shard) -> LeadingEngine:
    """The engine of a shard that leads copies."""
    tell_copies(replica, shard.machine)
    replica.executed_end = lambda: shard.executor.applied_end
    return LeadingEngine(shard, replica)


def tell_copies(replica: ReplicaDriver, machine: Machine) -> None:
    """Let replies say on how many copies a command is, as the record in force says it."""

    def tell(count: int) -> None:
        told = msgspec.structs.replace(machine.durable, replicas=count)
        machine.durable = machine.repeat_durable = told

    replica.on_in_sync = tell
    tell(replica.in_sync)
