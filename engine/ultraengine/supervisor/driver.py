"""Processes of shards, and the front before them: `ultra dev --shards N`.

Every shard is an `ultra serve` of its own, on a Unix socket in a directory that only this user
can open.  It ends with the front, whose end of a pipe it watches; one that ends by itself is
started again, and the others go on meanwhile.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import structlog
import uvloop

from ultraengine.config import Config
from ultraengine.edge.quota import Quotas
from ultraengine.execution.registry import Registry
from ultraengine.front.driver import make_front
from ultraengine.gateway.driver import GatewayOptions
from ultraengine.gateway.front.driver import Front
from ultraengine.gateway.watch import NewestMap, Watch
from ultraengine.log.identity import IDENTITY_PATH
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import ShardId
from ultraengine.rebalancing.balance import Progress
from ultraengine.rebalancing.driver import MoveFailed, Mover, Shards
from ultraengine.router.driver import Address, Links
from ultraengine.router.shard_map import ShardMap
from ultraengine.router.wire import request
from ultraengine.shard.ownership import read_ownership, write_ownership
from ultraengine.starting.driver import identity_of
from ultraengine.starting.ends import ExitCode, exit_code_of
from ultraengine.starting.loading import load_domains, load_extensions, telemetry
from ultraengine.starting.log_lines import configure_logging
from ultraengine.supervisor.child.driver import ChildProcess, exit_name
from ultraengine.supervisor.environment import environment, shard_config
from ultraengine.supervisor.layout import (
    PATH,
    Found,
    Layout,
    LayoutRefused,
    decode_layout,
    read_content,
    settle,
    shard_directory,
    to_run,
    write_layout,
)
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.disk import LocalDisk

READY_POLL_S: Final = 0.03
PARALLEL: Final = 4
"""Slots that move at a time."""
SAY_EVERY_S: Final = 5.0
"""Between two lines about how far moving slots is."""
IN_USE_S: Final = 15.0
"""At a start, a directory in use is waited for so long: the shard of a front that was killed
drains still."""
SOCKET_PATH_MAX: Final = 90
"""A Unix socket's path has room for 108 bytes."""
STOP_MARGIN_S: Final = 20.0
"""Beyond the drain: time for the last outcomes and a clean close; then the process is killed."""
_log = structlog.get_logger("supervisor")


class ShardFailed(Exception):
    """A shard's process ended before it served for the first time."""

    def __init__(self, shard: ShardId, code: int) -> None:
        super().__init__(f"shard {shard} did not start: {exit_name(code)}")
        self.code = code


class Plan(NamedTuple):
    """What a data directory is to run."""

    layout: Layout
    shards: tuple[ShardId, ...]
    wanted: int | None = None
    """How many shards are to share the slots; None: as many as do."""


def open_directory(data: Path, wanted: int | None) -> Plan | None:
    """What a data directory is to run, made when it is new; None: one shard without a map.

    Raises `LayoutRefused`, `InvariantBroken` for damaged files, OSError.
    """
    root = LocalDisk(data)
    found: dict[ShardId, Found] = {}
    for name in root.list(""):
        number = name.removeprefix("shard-")
        if name.startswith("shard-") and number.isdecimal() and (data / name).is_dir():
            disk = LocalDisk(data / name)
            found[ShardId(int(number))] = Found(read_ownership(disk), disk.exists(IDENTITY_PATH))
    layout, is_new = settle(read_content(root), found, wanted, secrets.token_hex(16))
    if layout is not None and is_new:
        for shard in layout.shard_map.shards:
            disk = LocalDisk(data / shard_directory(shard))
            write_ownership(disk, layout.ownership(shard))
        write_layout(root, layout)
        _log.info("layout.made", path=str(data / PATH), shards=len(layout.shard_map.shards))
    if layout is None:
        return None
    shards = to_run(layout, found, wanted)
    for shard in shards:
        disk = LocalDisk(data / shard_directory(shard))
        if read_ownership(disk) is None:
            # It owns nothing before a slot has moved to it.
            write_ownership(disk, layout.ownership(shard))
    return Plan(layout, shards, wanted)


class LayoutMaps:
    """The map in SHARDS.  Implements `rebalancing.driver.Maps`; one process alone swaps it."""

    def __init__(self, data: Path) -> None:
        self._disk = LocalDisk(data)

    def _read(self) -> Layout:
        content = read_content(self._disk)
        if content is None:
            raise LayoutRefused(f"{PATH} is gone: restore it")
        return decode_layout(content)

    async def read(self) -> ShardMap:
        """The map of now.  Raises `LayoutRefused`, OSError."""
        return (await asyncio.to_thread(self._read)).shard_map

    async def swap(self, shard_map: ShardMap) -> bool:
        """Publish the next version."""
        return await asyncio.to_thread(self._swap, shard_map)

    def _swap(self, shard_map: ShardMap) -> bool:
        layout = self._read()
        if layout.shard_map.version != shard_map.version - 1:
            return False
        write_layout(self._disk, Layout(layout.engine_uid, shard_map))
        return True


class Machine:
    """A front and the shards of one machine, in the order in which they start and stop."""

    def __init__(self, config: Config, directory: Plan, place: Path) -> None:
        """`place` is a directory for sockets and the hop key, for this user alone.

        Raises `ConfigErrors`, `InvariantBroken` for a wrong domain, OSError.
        """
        self.config = config
        self.layout, self._wanted = directory.layout, directory.wanted
        extensions = load_extensions(config.extensions)
        self.registry = Registry(
            load_domains(config.domains), hooks=extensions.hooks, limits=config.limits
        )
        self._secret = secrets.token_urlsafe(32)
        hop_key = place / "hop.key"
        hop_key.touch(mode=0o600)
        hop_key.write_text(self._secret)
        self._sockets = {shard: place / f"{shard}.sock" for shard in directory.shards}
        self.processes = {
            shard: ChildProcess(
                "shard",
                ("serve",),
                environment(
                    shard_config(config, shard, socket=socket, hop_key=hop_key),
                    os.environ,
                    Path.cwd(),
                    secrets=True,
                ),
                {"shard": shard, "data": str(config.data / shard_directory(shard))},
            )
            for shard, socket in self._sockets.items()
        }
        self._addresses = {
            shard: Address(path=str(socket)) for shard, socket in self._sockets.items()
        }
        self.links = Links(self._addresses, self.layout.shard_map)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the shards, then open the door.  Raises `ShardFailed`, and as a gateway does."""
        self._tasks = [asyncio.create_task(one.run()) for one in self.processes.values()]
        await asyncio.gather(*(self._ready(shard) for shard in self.processes))
        await self._open_door()
        self._tasks.append(asyncio.create_task(self._rebalance()))

    async def _rebalance(self) -> None:
        """End the moves that were begun, then share the slots as was asked for."""
        mover = Mover(Shards(self.links, self._secret), LayoutMaps(self.config.data))
        said_s = asyncio.get_running_loop().time()

        def tell(progress: Progress) -> None:
            nonlocal said_s
            now = asyncio.get_running_loop().time()
            if now - said_s >= SAY_EVERY_S or not progress.left:
                said_s = now
                eta_s = None if progress.eta_s is None else round(progress.eta_s)
                # A development server shows no lower level, and somebody has asked for this.
                _log.warning("slots.move", moved=progress.moved, left=progress.left, eta_s=eta_s)

        try:
            if self._wanted is None:
                shards = max(self._sockets) + 1
                await mover.carry_out(await mover.begun(shards), tell, parallel=PARALLEL)
            else:
                await mover.rebalance(self._wanted, tell, parallel=PARALLEL)
        except* (MoveFailed, EngineError, OSError) as failed:
            error = "; ".join(str(one) for one in failed.exceptions)
            _log.error("slots.stay", error=error, meaning="slots stay where they are")

    async def _ready(self, shard: ShardId) -> None:
        """Wait until a shard is ready: after its recovery, however long that is."""
        process = self.processes[shard]
        loop = asyncio.get_running_loop()
        patience_until = loop.time() + IN_USE_S
        while True:
            with contextlib.suppress(EngineError):
                asked = request("GET", "/readyz", ())
                if (await self.links.ask(shard, asked, deadline_s=5.0)).status == 200:
                    return
            waits = process.last_exit == ExitCode.IN_USE and loop.time() < patience_until
            if process.last_exit is not None and not waits:
                raise ShardFailed(shard, process.last_exit)
            await asyncio.sleep(READY_POLL_S)

    async def _open_door(self) -> None:
        config, limits = self.config, self.config.limits
        clock = SystemClock()
        quotas = Quotas(limits.tenant_commands_per_s, limits.tenant_burst, {})
        identity, key_file = identity_of(config, clock, quotas)
        watch = Watch(self.links, self._secret, self._views, self._newest_map, follow=True)
        self.gateway = make_front(
            links=self.links,
            secret=self._secret,
            watch=watch,
            registry=self.registry,
            limits=limits,
            clock=clock,
            identity=identity,
            quotas=quotas,
            options=GatewayOptions(host=config.host, port=config.port),
            telemetry=telemetry(config),
            key_file=key_file,
        )
        await self.gateway.start()

    def _newest_map(self) -> NewestMap | None:
        """What SHARDS says now, with the addresses of the shards that run here.

        Raises `LayoutRefused`, OSError.
        """
        content = read_content(LocalDisk(self.config.data))
        if content is None:
            return None
        shard_map = decode_layout(content).shard_map
        if not set(shard_map.shards) <= set(self._sockets):
            raise LayoutRefused("SHARDS names shards that do not run here: start again")
        return shard_map, self._addresses

    def _views(self) -> dict[ShardId, Any]:
        return {shard: process.view for shard, process in self.processes.items()}

    async def stop(self) -> None:
        """Drain the front, then the shards; nothing that was taken stays unanswered."""
        gateway: Front | None = getattr(self, "gateway", None)
        if gateway is not None:
            await gateway.drain()
        wait_s = self.config.limits.drain_s + STOP_MARGIN_S
        await asyncio.gather(*(process.stop(wait_s) for process in self.processes.values()))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if gateway is not None:
            await gateway.stop()
        else:
            await self.links.close()


def make_place(temporary: Path) -> Path:
    """A new directory for sockets that this user alone can open, with a short enough name."""
    if len(str(temporary)) > SOCKET_PATH_MAX - len("/ultra-run-12345678/4095.sock"):
        temporary = Path("/tmp")  # noqa: S108  (made by mkdtemp, for this user alone)
    return Path(tempfile.mkdtemp(prefix="ultra-run-", dir=temporary))


Beside = Callable[[Machine], contextlib.AbstractAsyncContextManager[object]]
"""What runs beside a machine while it serves."""


async def _run(
    config: Config, directory: Plan, announce: Callable[[Machine], None], beside: Beside | None
) -> ExitCode:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    place = make_place(Path(tempfile.gettempdir()))
    try:
        machine = Machine(config, directory, place)
        starting = asyncio.create_task(machine.start())
        stopping = asyncio.create_task(ended.wait())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
                async with contextlib.nullcontext() if beside is None else beside(machine):
                    announce(machine)
                    await stopping
            else:
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
        finally:
            stopping.cancel()
            await machine.stop()
    finally:
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
    return ExitCode.OK


def run_dev_shards(
    config: Config,
    directory: Plan,
    announce: Callable[[Machine], None],
    beside: Beside | None = None,
) -> ExitCode:
    """Everything on one port of this machine, with several shards; `announce` says where."""
    configure_logging(dev=True)
    config = msgspec.structs.replace(config, dev=True)
    try:
        config.check()
        return uvloop.run(_run(config, directory, announce, beside))
    except ShardFailed as failure:
        _log.error("process.failed", error=str(failure))
        known = failure.code in ExitCode.__members__.values()
        return ExitCode(failure.code) if known else ExitCode.FAILED
    except Exception as error:  # noqa: BLE001  (every end has an exit code, and is said)
        code = ExitCode.FAILED if isinstance(error, OSError) else exit_code_of(error)
        _log.error("process.failed", error=f"{type(error).__name__}: {error}", exit_code=int(code))
        return code
