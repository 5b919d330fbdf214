"""`ultra gateway`: a front before shards that others run, reached by TCP.

    SIGTERM -> not ready, still serving for linger_s -> drain -> closed

It keeps nothing, so any number of them stand before the same shards.
"""

import asyncio
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import structlog
import uvloop
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry

from ultraengine.config import Config, ConfigErrors
from ultraengine.edge.auth import Anybody, KeyFileError, KeyTable
from ultraengine.edge.quota import Quotas
from ultraengine.edge.server import KeyFile, let_in
from ultraengine.execution.registry import Registry
from ultraengine.front.settings import AddressRefused, GatewaySettings, address_of
from ultraengine.gateway.driver import GatewayOptions
from ultraengine.gateway.edge import Parts
from ultraengine.gateway.engine import Engine
from ultraengine.gateway.front.driver import Front
from ultraengine.gateway.routed import RoutedEngine
from ultraengine.gateway.watch import NewestMap, Watch, WatchCollector
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import ShardId
from ultraengine.model.limits import Limits
from ultraengine.ports import Clock, Identity, Telemetry
from ultraengine.router.driver import Address, Links
from ultraengine.router.shard_map import ShardMap
from ultraengine.starting.driver import read_map, read_secret
from ultraengine.starting.ends import ExitCode, exit_code_of
from ultraengine.starting.loading import load_domains, telemetry
from ultraengine.starting.log_lines import configure_logging
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.random import SystemRandom

_log = structlog.get_logger("gateway")


class Known(msgspec.Struct, frozen=True):
    """What the files of a gateway say at its start."""

    shard_map: ShardMap
    secret: str
    keys: KeyTable | None
    """None: whoever reaches the port is let in."""


def read_files(settings: GatewaySettings) -> Known:
    """Read the map, the hop key and the API keys.  Raises `ConfigErrors` with all that is wrong."""
    mistakes: list[str] = []

    def read(variable: str, path: Path | None, parse: Callable[[Path], Any]) -> Any:
        if path is None:
            return None
        try:
            return parse(path)
        except ConfigErrors as errors:
            mistakes.extend(errors.mistakes)
        except (KeyFileError, OSError, ValueError) as error:
            mistakes.append(f"{variable}: {error}")
        return None

    shard_map = read("ULTRA_MAP", settings.map, read_map)
    secret = read("ULTRA_HOP_KEY", settings.hop_key, read_secret)
    keys = read("ULTRA_API_KEYS", settings.api_keys, KeyFile.read)
    if mistakes:
        raise ConfigErrors(mistakes)
    return Known(shard_map, secret, keys)


def make_front(
    *,
    links: Links,
    secret: str,
    watch: Watch,
    registry: Registry,
    limits: Limits,
    clock: Clock,
    identity: Identity,
    quotas: Quotas,
    options: GatewayOptions,
    telemetry: Telemetry | None,
    key_file: KeyFile | None,
) -> Front:
    """A front over links to shards, wherever these run."""
    prometheus = CollectorRegistry()
    for collector in (GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR):
        prometheus.register(collector)
    prometheus.register(WatchCollector(watch))
    # Reads do not come to this engine: a front forwards them as they are.
    engine = cast("Engine", RoutedEngine(links, registry, limits, watch.status))
    return Front(
        Parts(
            engine=engine,
            identity=identity,
            clock=clock,
            random=SystemRandom(),
            operations=watch.operations(),
            telemetry=telemetry,
            quotas=quotas,
            shard_map_version=lambda: links.shard_map.version,
        ),
        options,
        links=links,
        secret=secret,
        watch=watch,
        registry=prometheus,
        key_file=key_file,
    )


class GatewayProcess:
    """Everything of one gateway.  Created and used on the event loop's thread."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Raises `ConfigErrors`, `InvariantBroken` for a wrong domain."""
        self.settings = settings
        limits = settings.limits
        registry = Registry(load_domains(settings.domains), limits=limits)
        known = read_files(settings)
        self.links = Links(self._addresses(known.shard_map), known.shard_map)
        clock = SystemClock()
        quotas = Quotas(limits.tenant_commands_per_s, limits.tenant_burst, {})
        identity: Identity = Anybody()
        key_file = None
        if known.keys is not None and settings.api_keys is not None:
            identity, key_file = let_in(known.keys, settings.api_keys, clock, quotas)
        watch = Watch(
            self.links,
            known.secret,
            newest=self._newest_map,
            addresses=self._addresses,
            follow=True,
        )
        together = settings.admin_port == settings.port
        self.front = make_front(
            links=self.links,
            secret=known.secret,
            watch=watch,
            registry=registry,
            limits=limits,
            clock=clock,
            identity=identity,
            quotas=quotas,
            options=GatewayOptions(
                host=settings.host,
                port=settings.port,
                admin_port=None if together else settings.admin_port,
            ),
            telemetry=telemetry(Config(tracing=settings.tracing)),
            key_file=key_file,
        )

    def _addresses(self, shard_map: ShardMap) -> Mapping[ShardId, Address]:
        """Where the shards of a map listen.  Raises `ConfigErrors`."""
        template = self.settings.shard_address or ""
        try:
            return {shard: address_of(template, shard) for shard in shard_map.shards}
        except AddressRefused as error:
            raise ConfigErrors([f"ULTRA_SHARD_ADDRESS: {error}"]) from error

    def _newest_map(self) -> NewestMap | None:
        """What the file says now.  Raises `ConfigErrors`."""
        path = self.settings.map
        if path is None:
            return None
        shard_map = read_map(path)
        return shard_map, self._addresses(shard_map)

    async def start(self) -> None:
        """Look at the shards, then serve.  Raises `ConfigErrors` when a port cannot be had."""
        if self.settings.keyless:
            _log.warning(
                "gateway.keyless",
                host=self.settings.host,
                meaning="whoever reaches the port may read, write and follow everything",
            )
        try:
            await self.front.start()
        except OSError as error:
            raise ConfigErrors([f"ULTRA_PORT: cannot listen: {error}"]) from error

    async def stop(self, *, linger_s: float) -> None:
        """Leave, serve those who have not heard of it, then answer what is under way."""
        self.front.leave()
        await asyncio.sleep(linger_s)
        await self.front.drain()
        await self.front.stop()


async def _run(settings: GatewaySettings, announce: Callable[[GatewayProcess], None]) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    process = GatewayProcess(settings)
    try:
        await process.start()
        announce(process)
        await ended.wait()
        _log.info("process.stops", linger_s=settings.linger_s)
    except BaseException:
        await process.stop(linger_s=0.0)
        raise
    await process.stop(linger_s=settings.linger_s)
    for number in (signal.SIGTERM, signal.SIGINT):
        # Another one between here and the end must not turn a clean stop into a killed one.
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


def run_gateway(settings: GatewaySettings) -> ExitCode:
    """Serve before the shards until SIGTERM or SIGINT."""
    configure_logging(dev=False)

    def announce(process: GatewayProcess) -> None:
        _log.info(
            "process.serves",
            addresses=process.front.addresses,
            shard_map_version=process.links.shard_map.version,
            shards=process.links.shards,
        )

    try:
        uvloop.run(_run(settings, announce))
    except (EngineError, OSError) as error:
        code = ExitCode.FAILED if isinstance(error, OSError) else exit_code_of(error)
        _log.error("process.failed", error=str(error), exit_code=int(code))
        return code
    return ExitCode.OK
