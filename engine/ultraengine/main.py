"""The only place where parts are joined: ports, domains, shard, edge; and how a process ends.

    run_serve(config)   one shard replica, configured by its environment
    run_dev(config)     everything on one machine, for people who write domains

Both return an `ExitCode`; `docs/cli.md` documents them.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NoReturn

import msgspec
import structlog
import uvloop
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry

from ultraengine.backup.driver import Backups
from ultraengine.backup.taking import Source
from ultraengine.chosen import shard_options, snapshot_codec, snapshot_policy
from ultraengine.config import Config, behind_front
from ultraengine.delivery.driver import deliveries
from ultraengine.edge.early.driver import RETRY_AFTER_S, EarlyDoors
from ultraengine.edge.quota import Quotas
from ultraengine.execution.executor import Executor
from ultraengine.execution.history_files.driver import HistoryFile
from ultraengine.execution.registry import Registry
from ultraengine.feed.driver import Feed
from ultraengine.gateway.driver import Gateway, GatewayOptions
from ultraengine.gateway.edge import Parts
from ultraengine.gateway.engine import Engine, Operations
from ultraengine.gateway.local.driver import operations_of
from ultraengine.model.ids import Epoch, ShardId
from ultraengine.replication.driver import ReplicaDriver
from ultraengine.replication.installing.place import put_in_place
from ultraengine.replication.leading_log import LeadingLog
from ultraengine.replication.watching.metrics import ReplicaMetrics
from ultraengine.shard.consuming.driver import ConsumerSlots
from ultraengine.shard.driver import Shard
from ultraengine.shard.following.keeping import Keeping
from ultraengine.shard.handing.driver import Handing
from ultraengine.shard.image import readable
from ultraengine.shard.memory import ShardMemory
from ultraengine.shard.metrics import ShardMetrics
from ultraengine.shard.opening import World, open_shard, recover_shard
from ultraengine.shard.parts import ShardParts
from ultraengine.shard.snapshotting.driver import Snapshots
from ultraengine.shard.spans import GroupSpans
from ultraengine.snapshot.codec import Codecs
from ultraengine.snapshot.driver import SnapshotDriver
from ultraengine.snapshot.migrate import Migrations
from ultraengine.snapshot.store import SnapshotOptions
from ultraengine.starting.driver import has_record, identity_of, listen_for, own_slots
from ultraengine.starting.ends import ExitCode, code_of_reason, exit_code_of, reason_of
from ultraengine.starting.lending.driver import Lending
from ultraengine.starting.loading import load_domains, load_extensions, telemetry
from ultraengine.starting.log_lines import configure_logging
from ultraengine.starting.replicated.driver import execute_behind, follow, lead_with, leading_log
from ultraengine.starting.replicated.records import record_store
from ultraengine.starting.replicated.roles.driver import NOT_LEADER_RETRY_S, FollowingEngine
from ultraengine.starting.replicated.stock import ShardStock
from ultraengine.starting.replicated.switchover.driver import Switchover
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.disk import LocalDisk
from ultraengine_adapters.local.random import SystemRandom
from ultraengine_adapters.local.secrets import FileSecrets
from ultraengine_adapters.object_stores import open_store

SWITCH_INTERVAL_S: Final = 0.0002
"""The interpreter's default of 5 ms lets the flush thread wait for milliseconds under load."""

KEEP_UP_S: Final = 0.1
"""Between two turns of upkeep while nothing arrives."""

log = structlog.get_logger("main")


Leading = tuple[LeadingLog, Epoch, Executor | None]
"""The log of a replica that leads, in which epoch, and what has executed a part of it."""


class Process:
    """Everything that runs in one process, in the order in which it starts and stops."""

    def __init__(self, config: Config, *, on_fatal: Callable[[BaseException], None]) -> None:
        """Import the domains and read the keys: what is wrong with them is said at once, and
        not after a long recovery.  Raises `ConfigErrors`, `InvariantBroken` for a wrong domain.
        """
        self.config = config
        self.extensions = load_extensions(config.extensions)
        self.telemetry = telemetry(config)
        self.registry = Registry(
            load_domains(config.domains), hooks=self.extensions.hooks, limits=config.limits
        )
        self.prometheus = CollectorRegistry()
        for collector in (GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR):
            self.prometheus.register(collector)
        self.world = World(
            LocalDisk(config.data / f"shard-{config.shard:04d}"),
            SystemClock(),
            SystemRandom(),
            FileSecrets(config.secrets, os.environ),
            None if config.archive is None else open_store(config.archive),
        )
        self._backup_store = None if config.backup is None else open_store(config.backup)
        limits = config.limits
        self.quotas = Quotas(limits.tenant_commands_per_s, limits.tenant_burst, {})
        self._who = identity_of(config, self.world.clock, self.quotas)
        self._on_fatal = on_fatal
        """Told when the log failed: the process must end."""
        self.background = ThreadPoolExecutor(1, thread_name_prefix="background")
        """Upkeep of files that nobody waits for."""
        self._tasks: list[asyncio.Task[None]] = []
        self._together = config.dev or config.admin_port == config.port
        """Whether the admin API is served with the data alone."""
        self.replica: ReplicaDriver | None = None
        """None: the shard has one copy, here."""
        self.switchover: Switchover | None = None
        self._on_replica_end = on_fatal
        self._stage = "the shard is verifying its log"
        """What it does before it serves."""

    async def start(self) -> None:
        """Recover the shard, then open the doors.  Raises what `exit_code_of` knows."""
        config = self.config
        shard_id = ShardId(config.shard)
        self._early = self._doors(
            listen_for(config, together=self._together),
            "NOT_LEADER" if config.replicas else "SHARD_UNAVAILABLE",
        )
        try:
            driver, memory = await asyncio.to_thread(
                self._memory,
                shard_id,
                joins=bool(config.replicas) and await has_record(record_store(config, os.environ)),
            )
            leading = await self._lead(driver, memory) if config.replicas else None
            metrics = ShardMetrics(self.prometheus, shard_id)  # A copy that follows has none.
            parts = await asyncio.to_thread(self._recover, memory, metrics, leading)
        except BaseException:
            for listener in await self._early.hand_over():
                listener.close()
            await self._early.close()
            raise
        if leading is None:
            gc.collect()  # Clients wait for who takes over.
        gc.freeze()  # What was loaded stays; the collector need not walk it again and again.
        shard = self.shard = Shard(parts, on_fatal=self._on_fatal)
        engine: Engine = shard
        if self.replica is not None:
            engine = lead_with(self.replica, shard)
            # What is in memory may be old from that moment on: no read may see it.
            self._on_replica_end = lambda error: shard.end(error, reason_of(error), "replica.ended")
            self.switchover = Switchover(
                self.replica, shard, config.handover_s, self._on_replica_end
            )
        image = memory.image
        shard.upkeep = memory.upkeep
        shard.before_close = self.background.shutdown
        shard.spans = GroupSpans(self.telemetry, self.world.clock, shard_id)
        slots = self.slots = ConsumerSlots(shard)
        metrics.consumers = slots.offsets
        reader = parts.log.reader(archived=True)
        self.feed = Feed(reader, shard_id, limits=config.limits, slots=slots)
        shard.on_recorded = self.feed.publish
        feed = self.feed
        self.handing = Handing(shard, parts.log.reader(archived=True), lambda: feed.end)
        recovered = parts.log.recovered
        self.feed.publish(recovered.recorded_end, recovered.last_time)
        policy = snapshot_policy(config, self.extensions)
        self.snapshots = Snapshots(
            shard,
            driver,
            image,
            memory.history,
            policy,
            config.snapshot_mode,
            slots=slots,
            spilled=memory,
        )
        backups = self.backups = self._backups()
        shard.start()
        runs = [self.snapshots.run(), self._keep_up(memory)]
        if backups is not None:
            runs.append(backups.run())
        if config.hop_key is None:  # Else fronts send what domains ask for.
            runs += deliveries(feed, self.registry, engine.submit, self.extensions.serializers)
        self._tasks += [asyncio.create_task(run) for run in runs]
        await self._serve(engine, memory)

    async def _serve(self, engine: Engine, memory: ShardMemory) -> None:
        """Open the doors of a shard that runs."""
        backup = None if self.backups is None else self.backups.take
        world, pace = self.world, self.config.catch_up_bytes_per_s
        self.lending = Lending(world.disk, world.secrets, world.clock, pace)
        operations = operations_of(self.shard, self.snapshots, memory, backup, self.lending.ask)
        if self.switchover is not None:
            operations = msgspec.structs.replace(operations, promote=self.switchover.promote)
        self.gateway = self._gateway(
            engine=engine,
            operations=operations,
            role="" if self.replica is None else "leader",
            feed=self.feed,
            source=self.feed,
            slots=self.handing if self.config.hop_key is not None else None,
        )
        await self.gateway.start(await self._early.hand_over())
        if self.replica is not None and self.switchover is not None:
            self.replica.watching.serves()
            self._tasks.append(asyncio.create_task(self.switchover.keep_aside()))

    def _doors(
        self, listeners: list[socket.socket], code: str, retry_after_s: float = RETRY_AFTER_S
    ) -> EarlyDoors:
        doors = EarlyDoors(
            listeners, self.world.clock, lambda: self._stage, code=code, retry_after_s=retry_after_s
        )
        doors.open()
        return doors

    def _backups(self) -> Backups | None:
        config, world, store = self.config, self.world, self._backup_store
        source = Source(world.disk, world.secrets, Codecs(self.extensions.snapshot_codecs))
        if store is None:
            return None
        return Backups(
            self.shard, self.snapshots, source, store, config.backup or "", world.clock,
            config.backup_interval_s, holds_log=config.snapshot_durable_at == "object",
        )  # fmt: skip

    async def _keep_up(self, memory: ShardMemory) -> None:
        """Go on with the upkeep of memory while nothing arrives, and tell its troubles once."""
        told: set[str] = set()
        while True:
            await asyncio.sleep(KEEP_UP_S)
            for fact in memory.upkeep():
                self._trouble(f"ids are forgotten before their time: {fact}")
            for sentence in memory.troubles():
                if sentence not in told:
                    told.add(sentence)
                    self._trouble(sentence)

    def _trouble(self, sentence: str) -> None:
        self.shard.alarm(
            "upkeep", offset=self.shard.executor.applied_end, detail=sentence, error=None
        )

    async def _lead(self, snapshots: SnapshotDriver, memory: ShardMemory) -> Leading:
        """Follow, perhaps for ever, until this replica leads."""
        config, world = self.config, self.world
        codecs = Codecs(self.extensions.snapshot_codecs)
        self._stage = "this replica reads what it has, and does not answer yet"
        self.replica = await follow(
            config,
            world,
            record_store(config, os.environ),
            self.registry,
            shard_options(config, self.extensions),
            on_end=lambda error: self._on_replica_end(error),  # noqa: PLW0108  (changes later)
            stock=ShardStock(world.disk, codecs, world.secrets.get),
        )
        policy = snapshot_policy(config, self.extensions)
        keeping = Keeping(
            self.registry, ShardId(config.shard), memory, snapshots, policy, world.clock
        )
        following = await execute_behind(self.replica, memory, keeping)
        copy = FollowingEngine(config.shard, self.registry, config.limits, self.replica, following)
        ReplicaMetrics(self.prometheus, config.shard, self.replica.report)
        standing = self._gateway(
            engine=copy,
            operations=Operations(promote=copy.promote),
            source=copy.feed,
            refusal=copy.refusal,
            role="follower",
        )
        await standing.start(await self._early.hand_over())
        epoch = await self.replica.led()
        await copy.feed.close()  # Its consumers go on elsewhere, perhaps here in a moment.
        self._stage = "the shard is recovering: this replica leads"
        self._early = self._doors(
            await standing.hand_over(), "SHARD_UNAVAILABLE", NOT_LEADER_RETRY_S
        )
        self._tasks.append(asyncio.create_task(standing.stop()))
        followed = await following.stop()
        log.info(
            "replica.takes_over",
            epoch=epoch,
            executed_end=0 if followed is None else followed.applied_end,
            log_end=self.replica.files.stand().end_offset,
        )
        return leading_log(self.replica), epoch, followed

    def _memory(self, shard_id: ShardId, *, joins: bool) -> tuple[SnapshotDriver, ShardMemory]:
        """The files beside the log.  Blocks."""
        config, world, own = self.config, self.world, self.extensions
        if config.replicas:
            put_in_place(world.disk)
        own_slots(config, world.disk, joins=joins)
        driver = SnapshotDriver(
            world.disk,
            world.clock,
            SnapshotOptions(
                shard=shard_id,
                master_key=config.master_key,
                fulls_kept=config.snapshots_kept,
                codec=snapshot_codec(config, own),
            ),
            codecs=Codecs(own.snapshot_codecs),
            migrations=Migrations(readable(self.registry), own.migrations),
            random=world.random,
            secrets=world.secrets,
            new_image=lambda: memory.proof_image(),  # noqa: PLW0108  (made below)
            quiesce=lambda: self.shard.log.quiet(),  # noqa: PLW0108  (made later)
            alarm=self._snapshot_alarm,
        )
        memory = ShardMemory(
            world.disk,
            self.registry,
            shard_id,
            config.limits,
            history=HistoryFile(
                world.disk, shard_id, self.registry.decoders, spawn=self.background.submit
            ),
            snapshots=driver,
            spawn=self.background.submit,
        )
        return driver, memory

    def _recover(
        self, memory: ShardMemory, metrics: ShardMetrics, leading: Leading | None
    ) -> ShardParts:
        """Log, snapshot, tail.  Blocks."""
        shard_id = ShardId(self.config.shard)

        def progress(done: int, total: int) -> None:
            log.info("replay.progress", shard=shard_id, commands=done, of=total)
            self._stage = f"the shard is recovering: {done} of {total} commands replayed"

        options = shard_options(self.config, self.extensions)
        where = (self.world, self.registry, memory, metrics, options)
        if leading is None:
            return open_shard(*where, progress)
        leading_log, epoch, followed = leading
        return recover_shard(*where, leading_log, epoch, progress, followed=followed)

    def _snapshot_alarm(self, event: str, facts: Mapping[str, object]) -> None:
        log.error(event, **facts)

    def _gateway(self, **parts: Any) -> Gateway:
        """The edge of a shard, or of a copy that follows, as the settings say."""
        config = self.config
        identity, key_file = self._who
        together = self._together or config.socket is not None
        return Gateway(
            Parts(
                identity=identity,
                clock=self.world.clock,
                random=self.world.random,
                telemetry=self.telemetry,
                quotas=self.quotas,
                **parts,
            ),
            GatewayOptions(
                host=config.host,
                port=config.port,
                admin_port=None if together else config.admin_port,
                admin_with_data=config.hop_key is not None,
                socket=config.socket,
            ),
            registry=self.prometheus,
            key_file=key_file,
        )

    async def stop(self) -> None:
        """Drain: answer what was accepted, record the last outcomes, close the log cleanly; who
        leads other copies hands over first."""
        if self.switchover is not None:
            await self.switchover.before_stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.gateway.drain()
        self.slots.close()
        self.handing.close()
        self.lending.close()
        if self.backups is not None:
            await self.backups.stop()
        await self.snapshots.stop()
        await self.shard.stop()
        await self.feed.close()
        await self.gateway.stop()
        await self._early.close()


Beside = Callable[[Process], contextlib.AbstractAsyncContextManager[object]]
"""What runs beside a process while it serves."""


async def _run(
    config: Config, announce: Callable[[Process], None], beside: Beside | None
) -> ExitCode:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[str] = loop.create_future()

    def end(why: str) -> None:
        if not ended.done():
            ended.set_result(why)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number.name)
    if config.end_with_input:

        def watch_input() -> None:
            while os.read(0, 4_096):
                pass
            with contextlib.suppress(RuntimeError):  # The loop has ended by itself.
                loop.call_soon_threadsafe(end, "its front has ended")

        threading.Thread(target=watch_input, name="input", daemon=True).start()
    process = Process(config, on_fatal=lambda error: end(reason_of(error)))
    starting = asyncio.create_task(process.start())
    both: set[asyncio.Future[Any]] = {starting, ended}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        # Nothing was taken, and a recovery that is cut off is begun anew: nobody waits for it.
        why = ended.result()
        log.info("process.stops", why=why, during="recovery")
        _leave(code_of_reason(why) or ExitCode.OK)
    await starting
    async with contextlib.nullcontext() if beside is None else beside(process):
        announce(process)
        why = await ended
        if (code := code_of_reason(why)) is not None:
            # Nothing may be written or read any more, and nothing that was acknowledged is at risk.
            log.error("process.ends", why=why)
            _leave(code)
    log.info("process.stops", why=why)
    await process.stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Another one between here and the end must not turn a clean stop into a killed one.
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    return ExitCode.OK


def _leave(code: ExitCode) -> NoReturn:
    """At once: threads may hang on the disk, and what was acknowledged is durable."""
    sys.stderr.flush()
    os._exit(int(code))


def _main(
    config: Config, announce: Callable[[Process], None], beside: Beside | None = None
) -> ExitCode:
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    configure_logging(dev=config.dev)
    try:
        config.check()
        code = uvloop.run(_run(config, announce, beside))
    except Exception as error:
        code = exit_code_of(error)
        if code is ExitCode.FAILED:
            log.exception("process.failed", exit_code=int(code))
        else:  # A cause with a name: its message says everything.
            log.error("process.failed", error=str(error), exit_code=int(code))  # noqa: TRY400
    if code is ExitCode.LOG_FAILED:
        _leave(code)
    return code


def run_serve(config: Config) -> ExitCode:
    """Serve one shard replica until SIGTERM or SIGINT."""

    def announce(process: Process) -> None:
        log.info(
            "process.serves",
            addresses=process.gateway.addresses,
            **msgspec.to_builtins(process.shard.status()),
        )

    if config.hop_key is not None and config.socket is None:
        # One that its front has started has been told its limits by it.
        config = msgspec.structs.replace(config, limits=behind_front(config.limits))
    return _main(config, announce)


def run_dev(
    config: Config, announce: Callable[[Process], None], beside: Beside | None = None
) -> ExitCode:
    """Everything on one port of this machine, for development; `announce` says where."""
    return _main(msgspec.structs.replace(config, dev=True), announce, beside)
