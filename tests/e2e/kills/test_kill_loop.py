"""As an operator whose machine dies at any moment, I find every acknowledged command once.

A real engine is killed with SIGKILL again and again while clients send; each start must
give back what was acknowledged, with the first reply's offset, and every command that was
sent must end up applied exactly once.  KILL_CYCLES sets the number of kills.
"""

import asyncio
import os
import random
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.servers.ports import free_ports

CYCLES = int(os.environ.get("KILL_CYCLES", "200"))
LANES = 2
"""Engines that are killed at the same time: most of a cycle is the start of a process."""
CLIENTS = 8
KEYS = 5
START_S = 60.0
SEED = 20_260_109

ENVIRONMENT = {
    "ULTRA_DOMAINS": "ultraengine.domains.counter:DOMAIN",
    # Small segments, so that many kills fall into rolls and preparations.
    "ULTRA_LIMIT_SEGMENT_BYTES": str(512 * 1024),
    "ULTRA_LIMIT_FRAME_BYTES_MAX": str(128 * 1024),
    "ULTRA_LIMIT_GROUP_BYTES_MAX": str(64 * 1024),
    "ULTRA_LIMIT_RESERVE_BYTES": str(256 * 1024),
    # Snapshots every few cycles, so that kills fall into them and into retention too.
    "ULTRA_SNAPSHOT_COMMANDS": "2000",
    "ULTRA_LIMIT_RETENTION_BYTES_MAX": str(64 * 1024 * 1024),
}


class Engine:
    """One `ultra serve` process."""

    environment: Mapping[str, str] = ENVIRONMENT

    def __init__(self, data: Path, log: Path) -> None:
        self.data, self.log = data, log
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        environment = {
            **os.environ,
            **self.environment,
            "ULTRA_DATA": str(self.data),
            "ULTRA_PORT": str(self.port),
            "ULTRA_ADMIN_PORT": str(self.port),
        }
        with self.log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "ultraengine.cli.main",
                "serve",
                env=environment,
                stdout=output,
                stderr=output,
            )
        async with aiohttp.ClientSession() as session:
            for _ in range(int(START_S * 50)):
                if self.process.returncode is not None:
                    raise AssertionError(
                        f"the engine ended with {self.process.returncode}:\n"
                        + self.log.read_text()[-4000:]
                    )
                try:
                    async with session.get(f"{self.url}/readyz") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.02)
        raise AssertionError("the engine is not ready\n" + self.log.read_text()[-4000:])

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), START_S)


class Journal:
    """What clients sent, and what they were told."""

    def __init__(self) -> None:
        self.sent: dict[str, str] = {}
        """Key by id, in the order of sending."""
        self.told: dict[str, dict[str, Any]] = {}
        """The first reply by id."""

    def next_id(self, key: str) -> str:
        name = f"c{len(self.sent)}"
        self.sent[name] = key
        return name

    @property
    def open(self) -> list[str]:
        return [name for name in self.sent if name not in self.told]


async def send(session: aiohttp.ClientSession, engine: Engine, journal: Journal, name: str) -> None:
    """Send one command; record the reply if one comes."""
    command = {
        "id": name,
        "type": "counter.add",
        "key": journal.sent[name],
        "data": {"delta": 1},
    }
    async with session.post(f"{engine.url}/v1/commands", json=command) as answer:
        reply = await answer.json()
        if answer.status == 200:
            journal.told.setdefault(name, reply)
            first = journal.told[name]
            assert reply["offset"] == first["offset"], (first, reply)
            assert reply["version"] == first["version"], (first, reply)
            assert reply["result"] == first["result"], (first, reply)
        else:
            assert answer.status in (429, 503, 504), reply


async def client(engine: Engine, journal: Journal, rng: random.Random) -> None:
    """Finish what is open of an earlier life, then send new commands until the engine dies."""
    try:
        async with aiohttp.ClientSession() as session:
            while True:
                await send(session, engine, journal, journal.next_id(f"k{rng.randrange(KEYS)}"))
    except (aiohttp.ClientError, ConnectionError):
        return


async def resend(engine: Engine, journal: Journal) -> None:
    """Every command without an answer is sent again with its id."""
    async with aiohttp.ClientSession() as session:
        for name in journal.open:
            await send(session, engine, journal, name)


async def check(engine: Engine, journal: Journal, rng: random.Random) -> None:
    """A sample of acknowledged commands is known with its reply; all counters are exact."""
    async with aiohttp.ClientSession() as session:
        told = list(journal.told)
        for name in [*told[-20:], *rng.sample(told, min(20, len(told)))]:
            path = f"/v1/commands/{name}?key={journal.sent[name]}"
            async with session.get(engine.url + path) as answer:
                outcome = await answer.json()
            assert outcome["state"] == "done", (name, outcome)
            assert outcome["reply"]["offset"] == journal.told[name]["offset"]
        for number in range(KEYS):
            key = f"k{number}"
            async with session.get(f"{engine.url}/v1/counter/{key}") as answer:
                value = (await answer.json())["value"] if answer.status == 200 else 0
            assert value == sum(1 for one in journal.sent.values() if one == key), key


async def lane(directory: Path, seed: int, cycles: int) -> None:
    """Kill one engine `cycles` times."""
    directory.mkdir()  # noqa: ASYNC240  (before anything runs)
    rng = random.Random(seed)
    engine = Engine(directory / "data", directory / "engine.log")
    journal = Journal()
    await engine.start()
    for _cycle in range(cycles):
        clients = [
            asyncio.create_task(client(engine, journal, random.Random(rng.random())))
            for _ in range(CLIENTS)
        ]
        await asyncio.sleep(rng.uniform(0.02, 0.4))
        await engine.kill()
        await asyncio.gather(*clients)
        await engine.start()
        await resend(engine, journal)
        await check(engine, journal, rng)
    assert len(journal.told) == len(journal.sent) > cycles
    path = f"{engine.url}/admin/v1/status"
    async with aiohttp.ClientSession() as session, session.get(path) as answer:
        status = await answer.json()
    assert status["epoch"] == cycles + 1, "every start takes a new epoch"
    assert await engine.stop() == 0
    offsets = [reply["offset"] for reply in journal.told.values()]
    assert len(set(offsets)) == len(offsets), "every command has an offset of its own"


@pytest.mark.timeout(max(1800, 10 * CYCLES))
async def test_no_acknowledged_command_is_lost_or_done_twice(tmp_path: Path) -> None:
    lanes = [
        lane(tmp_path / f"lane-{number}", SEED + number, CYCLES // LANES) for number in range(LANES)
    ]
    await asyncio.gather(*lanes)
