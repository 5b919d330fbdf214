"""Workers that run in a test, and what an undisturbed one would have written."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec
from tests.unit.projection.shop import ShopTables, decoder, members

from ultraengine.model.limits import ProjectionLimits
from ultraengine.projection.driver import TargetWorker
from ultraengine.projection.projector import ProjectionHooks
from ultraengine.projection.target import (
    Checksum,
    SetState,
    Target,
    TargetUnavailable,
    all_tables,
)
from ultraengine.testing.memory_feed import GroupLog, MemoryFeed
from ultraengine.testing.memory_target import MemoryDatabase, MemoryTarget
from ultraengine_adapters.local.clock import SystemClock

PATIENCE_S: Final = 20.0
QUICK: Final = ProjectionLimits(
    batch_rows_max=7,
    poll_s=0.002,
    confirm_s=0.002,
    refresh_s=0.005,
    breaker_wait_s_max=0.1,
    feed_wait_s_max=0.02,
)


def make_worker(
    database: MemoryDatabase,
    feed: MemoryFeed,
    *projections: Any,
    limits: ProjectionLimits = QUICK,
    hooks: ProjectionHooks | None = None,
    seed: int = 0,
) -> tuple[TargetWorker, MemoryTarget]:
    target = MemoryTarget("memory", database)
    worker = TargetWorker(
        target, feed, members(*(projections or (ShopTables(),))), decoder(),
        clock=SystemClock(), chance=random.Random(seed).random, hooks=hooks, limits=limits,
    )  # fmt: skip
    return worker, target


@contextlib.asynccontextmanager
async def working(worker: TargetWorker) -> AsyncIterator["asyncio.Task[None]"]:
    """A worker that runs meanwhile and is stopped as by SIGTERM."""
    task = asyncio.create_task(worker.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool], *running: "asyncio.Task[None]") -> None:
    """Wait for something to be so; fails when it never is, or when a task ends before."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            for task in running:
                if task.done():
                    task.result()
                    raise AssertionError("the worker has ended")
            await asyncio.sleep(0.001)


def holds(database: MemoryDatabase, logs: Sequence[GroupLog], projection: str = "shop") -> bool:
    """Whether the set that serves holds all of some logs, its aggregates too."""
    serving = [
        key for key, of in database.sets.items() if key[0] == projection and of.state == "serving"
    ]
    return len(serving) == 1 and not any(database.tables[serving[0]].slices.values()) and all(
        log.end == 0
        or (
            log.shard in database.positions[serving[0]]
            and database.positions[serving[0]][log.shard].offset >= log.end
        )
        for log in logs
    )  # fmt: skip


def shown(database: MemoryDatabase) -> dict[str, Any]:
    """The content of all views."""
    return {name: database.rows(name) for name in sorted(database.shown)}


async def run_until(
    work: Callable[[], Awaitable[None]] | None, database: MemoryDatabase, feed: MemoryFeed,
    *projections: Any, limits: ProjectionLimits = QUICK,
) -> None:  # fmt: skip
    worker, _ = make_worker(database, feed, *projections, limits=limits)
    async with working(worker) as task:
        if work is not None:
            await work()
        names = [one.name for one in projections] or ["shop"]
        every = list(feed.logs.values())
        await until(lambda: all(holds(database, every, name) for name in names), task)


async def undisturbed(logs: Sequence[GroupLog], *projections: Any) -> dict[str, Any]:
    """What a worker writes that nothing happens to, in one batch after the other."""
    database = MemoryDatabase()
    limits = msgspec.structs.replace(QUICK, batch_rows_max=1_000_000)
    await run_until(None, database, MemoryFeed(logs), *projections, limits=limits)
    return shown(database)


async def followed(target: Target) -> int:
    """How many commands the newest set holds; 0 while nobody can say."""
    try:
        sets = await target.sets()
        held = await target.positions(sets[-1]) if sets else {}
    except TargetUnavailable:
        return 0
    return sum(checkpoint.offset for checkpoint in held.values())


async def until_followed(target: Target, commands: int, patience_s: float) -> None:
    """Wait until the newest set holds so many commands."""
    async with asyncio.timeout(patience_s):
        while await followed(target) < commands:  # noqa: ASYNC110  (nobody is told)
            await asyncio.sleep(0.005)


async def shop_sums(target: Target, patience_s: float) -> dict[str, Checksum]:
    """Of the shop's set that serves, once its aggregates are computed."""
    tables = all_tables(ShopTables())
    async with asyncio.timeout(patience_s):
        while True:
            of = (await target.sets())[-1]
            left = await target.refresh(of, ShopTables(), 1_000)
            if of.state is SetState.SERVING and not left:
                return dict(await target.checksums(of, tables))
            await asyncio.sleep(0.005)
