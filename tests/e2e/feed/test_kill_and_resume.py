"""As somebody who follows an engine, I miss nothing and see nothing twice, whatever dies.

A real engine is killed with SIGKILL while commands arrive.  One follower reads stored groups
over HTTP, another one events over a WebSocket, and each goes on where it was.  Meanwhile
snapshots cut the log, so that the whole history can only come from the archive.
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from tests.e2e.kills.test_kill_loop import ENVIRONMENT, Engine

from ultraengine.feed.remote.driver import HttpFeed
from ultraengine.model.command import Command
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Offset, ShardId
from ultraengine.model.outcome import CommittedGroup

KILLS = int(os.environ.get("FEED_KILLS", "6"))
BATCHES_PER_LIFE = 12
BATCH = 400
SHARD = ShardId(0)
COMMANDS = msgspec.msgpack.Decoder(list[Command])


class ArchivingEngine(Engine):
    """An engine that cuts its log early, and keeps what it cuts."""

    def __init__(self, path: Path) -> None:
        super().__init__(path / "data", path / "engine.log")
        self.environment: Mapping[str, str] = {
            **ENVIRONMENT,
            "ULTRA_SNAPSHOT_COMMANDS": "1500",
            "ULTRA_SNAPSHOTS_KEPT": "1",
            "ULTRA_LIMIT_DEDUP_WINDOW_S": "1",
            "ULTRA_LIMIT_RETENTION_BYTES_MAX": str(3 * 512 * 1024),
            "ULTRA_COMPACTION": "time",
            "ULTRA_ARCHIVE": str(path / "archive"),
        }

    async def status(self) -> Any:
        url = f"{self.url}/admin/v1/status"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return await answer.json()


async def send(engine: Engine, names: list[str], told: dict[str, int]) -> None:
    """Send commands until each has a reply with an offset.

    The engine's memory of ids is shorter here than a restart takes, so that the log can be cut.
    What has no reply may have been carried out: it is left at that, and another is sent.
    """
    waiting, attempt = names, 0
    async with aiohttp.ClientSession() as session:
        while waiting:
            attempt += 1
            ids = {f"{name}.{attempt}": name for name in waiting}
            body = [
                {"id": one, "type": "counter.add", "key": f"k{n % 7}" * 20, "data": {"delta": 1}}
                for n, one in enumerate(ids)
            ]
            try:
                async with session.post(f"{engine.url}/v1/commands:batch", json=body) as answer:
                    replies = await answer.json() if answer.status == 200 else []
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.05)
                continue
            done = {one["id"]: one["offset"] for one in replies if one["outcome"] == "accepted"}
            told.update(done)
            waiting = [name for one, name in ids.items() if one not in done]


class GroupFollower:
    """Reads groups, and confirms them."""

    def __init__(self, engine: Engine) -> None:
        self.source = HttpFeed(engine.url, attempts_max=1_000, first_delay_s=0.02)
        self.groups: list[CommittedGroup] = []

    async def run(self) -> None:
        async for page in self.source.pages(SHARD, Offset(0)):
            self.groups += page.groups
            if page.groups and page.groups[-1].offset_end == page.end:
                try:
                    await self.source.confirm(SHARD, "groups", page.groups[-1].offset_end)
                except EngineError as error:
                    if not error.problem.retryable:
                        raise

    @property
    def end(self) -> int:
        return self.groups[-1].offset_end if self.groups else 0


class EventFollower:
    """Reads events, and subscribes anew from where it was."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.seen: list[tuple[int, str]] = []
        self.next_offset = 0
        self.connections = 0

    async def run(self) -> None:
        while True:
            try:
                async with (
                    aiohttp.ClientSession() as session,
                    session.ws_connect(
                        f"{self._engine.url}/v1/stream", protocols=("ultra.v1.json",)
                    ) as socket,
                ):
                    self.connections += 1
                    await socket.send_json({"op": "subscribe", "from": self.next_offset})
                    await self._read(socket)
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.02)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                return
            frame = msgspec.json.decode(message.data)
            assert frame.get("op") != "error", frame
            if frame.get("op") == "event":
                self.seen.append((frame["offset"], frame["id"]))
                self.next_offset = frame["offset"] + 1
            elif frame.get("op") == "position":
                self.next_offset = frame["offset"]


@pytest.mark.timeout(900)
async def test_followers_go_on_without_a_gap_or_a_repetition_however_often_the_engine_dies(
    tmp_path: Path,
) -> None:
    engine = ArchivingEngine(tmp_path)
    await engine.start()
    groups, events = GroupFollower(engine), EventFollower(engine)
    tasks = [asyncio.create_task(one.run()) for one in (groups, events)]
    told: dict[str, int] = {}
    for life in range(KILLS + 1):
        for batch in range(BATCHES_PER_LIFE):
            names = [f"c{life}-{batch}-{n}" for n in range(BATCH)]
            sending = asyncio.create_task(send(engine, names, told))
            if life < KILLS and batch == BATCHES_PER_LIFE // 2:
                await asyncio.sleep(0.01 * life)
                await engine.kill()
                await engine.start()
            await sending
        await asyncio.sleep(1.1)  # The window of ids passes, and the log may be cut.
    expected = sorted((offset, name) for name, offset in told.items())
    async with asyncio.timeout(120):
        while min(events.next_offset, groups.end) <= expected[-1][0]:
            assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]
            await asyncio.sleep(0.1)

    assert set(expected) <= set(events.seen)
    assert len({name for _, name in events.seen}) == len(events.seen)
    assert events.connections > KILLS
    ends = [group.offset_end for group in groups.groups]
    assert [group.base_offset for group in groups.groups] == [0, *ends[:-1]]
    commands = [one for group in groups.groups for one in COMMANDS.decode(group.commands)]
    found = [(n, one.id) for n, one in enumerate(commands) if one.tenant == "default"]
    assert found == events.seen

    status = await engine.status()
    assert status["first_offset"] > 0, "the log was cut"
    (slot,) = status["consumers"]
    assert slot["name"] == "groups"
    assert slot["offset"] > 0

    rebuilt = GroupFollower(engine)
    task = asyncio.create_task(rebuilt.run())
    async with asyncio.timeout(120):
        while rebuilt.end < groups.end:  # noqa: ASYNC110  (nobody tells of it)
            await asyncio.sleep(0.05)
    assert [one.chain for one in rebuilt.groups[: len(groups.groups)]] == [
        one.chain for one in groups.groups
    ]
    for one in (*tasks, task):
        one.cancel()
    await asyncio.gather(*tasks, task, return_exceptions=True)
    await groups.source.close()
    await rebuilt.source.close()
    assert await engine.stop() == 0
