"""The projection worker of `ultra dev`.

It is a process of its own at a low priority: what it computes is not taken from the engine, and
when it fails the engine goes on.  It ends with the engine, whatever ends that.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from ultraengine.config import Config
from ultraengine.model.limits import DEFAULT_PROJECTION_LIMITS
from ultraengine.supervisor.child.driver import ChildProcess
from ultraengine.supervisor.environment import environment

DATABASE: Final = Path("sql") / "projection.db"
"""Below the data directory."""
NICENESS: Final = 10
STOP_MARGIN_S: Final = 5.0
EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104  (compared, not listened on)


def worker_arguments(config: Config, host: str, port: int) -> list[str]:
    """The arguments of `ultra` for a worker beside an engine at an address."""
    near = ("[::1]" if ":" in host else "127.0.0.1") if host in EVERYWHERE else host
    if ":" in near and not near.startswith("["):
        near = f"[{near}]"
    database = (config.data / DATABASE).resolve()
    arguments = [
        "project", "--target", f"sqlite:///{database}", "--engine", f"http://{near}:{port}",
        "--no-http", "--dev", "--end-with-input", "--nice", str(NICENESS),
    ]  # fmt: skip
    for domain in config.domains:
        arguments += ["--domain", domain]
    if config.extensions is not None:
        arguments += ["--extensions", config.extensions]
    return arguments


@contextlib.asynccontextmanager
async def projecting(config: Config, host: str, port: int) -> AsyncIterator[ChildProcess]:
    """A worker that runs meanwhile, started again when it ends.  Raises OSError."""
    database = config.data / DATABASE
    await asyncio.to_thread(database.parent.mkdir, parents=True, exist_ok=True)
    worker = ChildProcess(
        "projection",
        worker_arguments(config, host, port),
        environment(Config(), os.environ, Path.cwd()),
        {"database": str(database)},
    )
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        await worker.stop(DEFAULT_PROJECTION_LIMITS.stop_s + STOP_MARGIN_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
