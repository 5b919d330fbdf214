"""`ultra project`: the worker that fills SQL databases from the feed of an engine."""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import threading
from collections.abc import Callable
from typing import Final

import structlog
import uvloop
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry

from ultraengine.cli.exits import CommandFailed
from ultraengine.cli.projecting import (
    TARGET_HELP,
    World,
    add_declarations,
    add_engine,
    open_feed,
    read_limits,
    read_targets,
    read_world,
)
from ultraengine.feed.remote.driver import HttpFeed
from ultraengine.model.limits import ProjectionLimits
from ultraengine.projection.driver import TargetWorker
from ultraengine.projection.process.driver import ProjectionProcess, collect_seldom
from ultraengine.projection.target import Fenced, Target
from ultraengine.starting.ends import ExitCode
from ultraengine.starting.log_lines import configure_logging
from ultraengine_adapters.local.clock import SystemClock

PORT_END: Final = 1 << 16
_log = structlog.get_logger("projection")


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "--target", action="append", required=True, metavar="[NAME=]URL",
        help=f"{TARGET_HELP}; repeatable",
    )  # fmt: skip
    add_engine(parser, required=True)
    add_declarations(parser)
    group = parser.add_argument_group("health and metrics")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    group.add_argument(
        "--port", type=int, default=8083, help="port of /healthz, /readyz, /metrics (%(default)s)"
    )
    group.add_argument("--no-http", action="store_true", help="listen nowhere")
    parser.add_argument(
        "--dev", action="store_true", help="write the log for people, warnings and errors only"
    )
    parser.add_argument(
        "--nice", type=int, default=0, metavar="N",
        help="run at a lower priority, as nice(1) says it, beside an engine (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--end-with-input", action="store_true", help=argparse.SUPPRESS)
    parser.epilog = (
        "SIGTERM or Ctrl-C stops it after the batch under way.  A worker that is killed at any\n"
        "moment goes on where its database says it was.  It ends with 77 when another worker\n"
        "writes the same tables."
    )


def run(options: argparse.Namespace) -> int:
    """Write until SIGTERM."""
    world, limits, targets = read_world(options), read_limits(options), read_targets(options.target)
    if not 0 <= options.port < PORT_END:
        raise CommandFailed(f"{options.port} is no port")
    feed = open_feed(options)
    configure_logging(dev=options.dev)
    if options.nice:
        os.nice(options.nice)
    collect_seldom()
    return int(uvloop.run(_run(options, world, limits, targets, feed)))


async def _run(
    options: argparse.Namespace,
    world: World,
    limits: ProjectionLimits,
    targets: list[Target],
    feed: HttpFeed,
) -> ExitCode:
    registry = CollectorRegistry()
    for collector in (GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR):
        registry.register(collector)
    workers = [
        TargetWorker(
            target, feed, world.declared, world.decoder(),
            clock=SystemClock(),
            chance=random.random,  # Jitter alone.
            hooks=world.extensions.projection_hooks,
            limits=limits,
        )
        for target in targets
    ]  # fmt: skip
    port = None if options.no_http else options.port
    process = ProjectionProcess(workers, feed, registry, host=options.host, port=port)
    ended = asyncio.Event()
    _end_on_signals(ended.set, with_input=options.end_with_input)
    try:
        await process.start()
        _log.info(
            "process.serves", address=process.address, engine=options.engine,
            targets=[target.name for target in targets],
            projections=[one.projection.name for one in world.declared],
        )  # fmt: skip
        return await _until_ended(process, ended)
    except OSError as error:
        raise CommandFailed(
            f"cannot listen on {options.host}:{options.port}: {error}",
            advice="Choose a port with --port, or none with --no-http.",
        ) from error
    finally:
        await process.stop()


async def _until_ended(process: ProjectionProcess, ended: asyncio.Event) -> ExitCode:
    running = asyncio.create_task(process.run())
    stopping = asyncio.create_task(ended.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not running.done():
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        _log.info("process.stopped")
        return ExitCode.OK
    try:
        running.result()
    except Fenced as error:
        _log.error("process.fenced", error=str(error), exit_code=int(ExitCode.FENCED))
        return ExitCode.FENCED
    except Exception:  # noqa: BLE001  (every end has an exit code, and is said)
        _log.exception("process.failed", exit_code=int(ExitCode.FAILED))
        return ExitCode.FAILED
    return ExitCode.OK


def _end_on_signals(end: Callable[[], None], *, with_input: bool) -> None:
    """Stop on SIGTERM and Ctrl-C; and, for a worker that another process has started, with it."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if not with_input:
        return

    def watch_input() -> None:
        while os.read(0, 4_096):
            pass
        with contextlib.suppress(RuntimeError):  # The loop has ended by itself.
            loop.call_soon_threadsafe(end)

    threading.Thread(target=watch_input, name="input", daemon=True).start()
