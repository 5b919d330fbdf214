"""The process around workers: what it serves, how it ends; and how targets are named."""

import asyncio
import contextlib
import gc
import importlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from tests.unit.projection.shop import T0, Poisoned, busy_log, command
from tests.unit.projection.workers import holds, make_worker, until

from ultraengine.model.errors import Malformed
from ultraengine.projection.process.driver import FRESH_MAX, ProjectionProcess, collect_seldom
from ultraengine.projection.sqlite.driver import SqliteTarget
from ultraengine.projection.target import Fenced
from ultraengine.projection.targets import CLASSES, named, open_target
from ultraengine.testing.memory_feed import MemoryFeed
from ultraengine.testing.memory_target import MemoryDatabase


@contextlib.asynccontextmanager
async def serving(process: ProjectionProcess) -> AsyncIterator["asyncio.Task[None]"]:
    await process.start()
    task = asyncio.create_task(process.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await process.stop()
        await process.stop()


async def ask(process: ProjectionProcess, path: str) -> tuple[int, str, Any]:
    assert process.address is not None
    host, port = process.address
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{host}:{port}{path}") as answer,
    ):
        is_json = answer.content_type == "application/json"
        return (
            answer.status,
            answer.content_type,
            await (answer.json() if is_json else answer.text()),
        )


async def test_health_readiness_metrics_and_status_are_served() -> None:
    log, database = busy_log(0, 10), MemoryDatabase()
    feed = MemoryFeed([log])
    worker, _ = make_worker(database, feed)
    process = ProjectionProcess([worker], feed, CollectorRegistry(), host="127.0.0.1", port=0)
    async with serving(process) as task:
        await until(lambda: holds(database, [log]), task)
        await until(
            lambda: bool(worker.view().sets) and worker.view().sets[0].state == "serving", task
        )
        assert (await ask(process, "/healthz"))[0] == 200
        assert await ask(process, "/readyz") == (
            200, "application/json", {"ready": True, "troubled": []},
        )  # fmt: skip
        status, kind, text = await ask(process, "/metrics")
        assert (status, kind) == (200, "text/plain")
        assert 'ultra_projection_breaker{state="closed",target="memory"} 1.0' in text
        _, _, said = await ask(process, "/status")
        assert said["targets"][0]["sets"][0]["offsets"] == {"0": log.end}
        log.add(T0, [(command(1), [Poisoned("x")])])
        await until(lambda: not worker.view().is_well, task)
        assert await ask(process, "/readyz") == (
            503, "application/json", {"ready": False, "troubled": ["memory"]},
        )  # fmt: skip


async def test_workers_run_side_by_side_and_one_that_is_fenced_ends_all() -> None:
    log, one, other = busy_log(0, 10), MemoryDatabase(), MemoryDatabase()
    feed = MemoryFeed([log])
    workers = [make_worker(database, feed)[0] for database in (one, other)]
    process = ProjectionProcess(workers, feed, CollectorRegistry(), host="", port=None)
    await process.start()
    assert process.address is None
    task = asyncio.create_task(process.run())
    await until(lambda: holds(one, [log]) and holds(other, [log]), task)
    other.positions["shop", 1].clear()
    log.add(T0, [(command(1), [])])
    with pytest.raises(Fenced):
        await task
    await process.stop()


def test_a_target_is_made_from_its_url() -> None:
    target = open_target("sqlite:///x.db", "here")
    assert isinstance(target, SqliteTarget)
    assert target.name == "here"


@pytest.mark.parametrize(
    ("url", "name", "text"),
    [
        ("db2://x", "x", "begins with one of sqlite://"),
        ("oracle://x", "x", "Oracle is no target yet"),
        ("mssql://x", "x", "SQL Server is no target yet"),
        ("mysql://host", "x", "names its database"),
        ("x.db", "x", "begins with one of"),
        ("sqlite:///x.db", "not a name", "1-128 characters"),
        ("sqlite://", "x", "a URL of SQLite is"),
    ],
)
def test_a_url_that_is_none_is_refused_without_being_repeated(
    url: str, name: str, text: str
) -> None:
    with pytest.raises(Malformed) as raised:
        open_target(url, name)
    assert text in raised.value.detail


def test_a_database_without_its_driver_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(CLASSES, "lines", "ultraengine_missing_driver:Target")
    with pytest.raises(Malformed, match="ultraengine_missing_driver is not installed"):
        open_target("lines:///somewhere", "x")


def test_a_url_that_its_driver_cannot_read_hides_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(CLASSES, "lines", f"{__name__}:refusing")
    monkeypatch.setitem(sys.modules, __name__, importlib.import_module(__name__))
    with pytest.raises(Malformed) as raised:
        open_target("lines://user:secret@host", "x")
    assert "secret" not in raised.value.detail


def refusing(name: str, url: str) -> None:
    raise ValueError(f"no port in {url}")


def test_targets_are_named_by_their_scheme_or_as_they_are_told() -> None:
    assert named(["sqlite:///a", "audit=sqlite:///b?x=1", "mysql://u:p=1@h/d"]) == {
        "sqlite": "sqlite:///a",
        "audit": "sqlite:///b?x=1",
        "mysql": "mysql://u:p=1@h/d",
    }
    with pytest.raises(Malformed, match="two targets are called sqlite"):
        named(["sqlite:///a", "sqlite:///b"])


def test_a_process_of_workers_seldom_looks_for_cycles() -> None:
    before = gc.get_threshold()
    try:
        collect_seldom()
        assert gc.get_threshold()[0] == FRESH_MAX > 100 * before[0]
        assert gc.get_freeze_count() > 0
        assert gc.isenabled()
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
