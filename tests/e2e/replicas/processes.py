"""Three `ultra serve` processes that keep one shard, killed and started; clients with a history."""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
from tests.servers.ports import free_ports

ULTRA = Path(sys.executable).with_name("ultra")
WAIT_S = 120.0
DEPOSED, FILLED = 78, 80
"""How a process ends that is to be started again."""
COPIES = 3
KEYS = 5

SETTINGS = {
    "ULTRA_DOMAINS": "ultraengine.domains.counter:DOMAIN",
    "ULTRA_CLUSTER": "stories",
    "ULTRA_LIMIT_SEGMENT_BYTES": str(512 * 1024),
    "ULTRA_LIMIT_FRAME_BYTES_MAX": str(128 * 1024),
    "ULTRA_LIMIT_GROUP_BYTES_MAX": str(64 * 1024),
    "ULTRA_LIMIT_RESERVE_BYTES": str(256 * 1024),
    "ULTRA_SNAPSHOT_COMMANDS": "2000",
}


class Copy:
    """One process, started again when it has led and leads no more."""

    def __init__(self, place: Path, number: int, port: int, told: Mapping[str, str]) -> None:
        self.number = number
        self.url = f"http://127.0.0.1:{port}"
        self.data = place / f"data-{number}"
        self.log = place / f"copy-{number}.log"
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("ULTRA_")}
        self.environment |= {
            **SETTINGS,
            **told,
            "ULTRA_DATA": str(self.data),
            "ULTRA_PORT": str(port),
            "ULTRA_ADMIN_PORT": str(port),
            "ULTRA_REPLICA": str(number),
        }
        self.process: asyncio.subprocess.Process | None = None
        self.ends: list[int] = []
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                ULTRA, "serve", env=self.environment, stdout=output, stderr=output
            )
        self._keeper = asyncio.create_task(self._keep(self.process))

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if self.process is process:
            self.ends.append(code)
            if code in {DEPOSED, FILLED}:
                await self.start()

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and wait; it is not started again."""
        process, self.process = self.process, None
        assert process is not None
        if process.returncode is None:
            process.send_signal(number)
        return await asyncio.wait_for(process.wait(), WAIT_S)

    def signal(self, number: signal.Signals) -> None:
        """Send one that does not end it."""
        assert self.process is not None
        self.process.send_signal(number)

    @property
    def runs(self) -> bool:
        return self.process is not None

    def tail(self) -> str:
        return self.log.read_text()[-3000:]


class History:
    """What clients sent and were told, and when."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}
        """By id."""
        self.sent_at: dict[str, float] = {}
        self.told: dict[str, dict[str, Any]] = {}
        self.told_at: dict[str, float] = {}
        self.copies_min = 2
        """On how many a command is that was answered."""

    def new(self, rng: random.Random) -> str:
        name = f"c{len(self.keys)}"
        self.keys[name] = f"k{rng.randrange(KEYS)}"
        self.sent_at[name] = time.monotonic()
        return name

    def hear(self, name: str, reply: dict[str, Any]) -> None:
        first = self.told.setdefault(name, reply)
        self.told_at.setdefault(name, time.monotonic())
        for field in ("offset", "version", "result", "outcome"):
            assert reply[field] == first[field], (first, reply)
        assert reply["durable"]["local"]
        assert reply["durable"].get("replicas", 1) >= self.copies_min, reply

    def check(self) -> None:
        """Everybody is answered, with an offset of one's own, in the order of real time."""
        assert self.told.keys() == self.keys.keys()
        offsets = [reply["offset"] for reply in self.told.values()]
        assert len(set(offsets)) == len(offsets)
        answered = sorted(self.told, key=lambda name: self.told_at[name])
        sent = sorted(self.told, key=lambda name: self.sent_at[name])
        highest, position = -1, 0
        for name in sent:
            while (
                position < len(answered) and self.told_at[answered[position]] < self.sent_at[name]
            ):
                highest = max(highest, self.told[answered[position]]["offset"])
                position += 1
            assert self.told[name]["offset"] > highest, name


class Trio:
    """Three copies of one shard."""

    def __init__(self, place: Path, told: Mapping[str, str] | None = None) -> None:
        ports = free_ports(2 * COPIES)
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports[COPIES:])
        self.record = place / "record"
        settings = {
            "ULTRA_REPLICAS": addresses,
            "ULTRA_RECORD": str(self.record),
            **(told or {}),
        }
        self.copies = [Copy(place, number, ports[number], settings) for number in range(COPIES)]
        self.history = History()
        self.rng = random.Random(7)
        self.stopping = False

    async def start(self) -> None:
        for copy in self.copies:
            await copy.start()

    async def leader(self) -> Copy:
        """The one that is ready."""
        deadline = time.monotonic() + WAIT_S
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < deadline:
                for copy in self.copies:
                    try:
                        async with session.get(f"{copy.url}/readyz") as answer:
                            if answer.status == 200 and copy.runs:
                                return copy
                    except aiohttp.ClientError:
                        pass
                await asyncio.sleep(0.05)
        raise AssertionError("nobody leads\n" + "\n".join(one.tail() for one in self.copies))

    async def status(self, copy: Copy) -> dict[str, Any]:
        """What a copy says of itself; empty while it does not answer."""
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{copy.url}/admin/v1/status") as answer,
            ):
                return dict(await answer.json()) if answer.status == 200 else {}
        except aiohttp.ClientError:
            return {}

    async def in_sync(self, leader: Copy, count: int) -> dict[str, Any]:
        """Wait until its leader counts so many copies; its status."""
        async with asyncio.timeout(WAIT_S):
            while True:
                status = await self.status(leader)
                if len(status.get("in_sync", ())) == count:
                    return status
                await asyncio.sleep(0.05)

    async def send(self, session: aiohttp.ClientSession, name: str, first: int) -> int:
        """Send one command until it is answered, to whoever answers; who did."""
        command = {
            "id": name,
            "type": "counter.add",
            "key": self.history.keys[name],
            "data": {"delta": 1},
        }
        deadline, number = time.monotonic() + WAIT_S, first
        while time.monotonic() < deadline:
            url = self.copies[number].url
            try:
                async with session.post(f"{url}/v1/commands", json=command) as answer:
                    reply = await answer.json()
                    if answer.status == 200:
                        self.history.hear(name, reply)
                        return number
                    assert answer.status in (429, 503, 504), reply
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                pass
            number = (number + 1) % COPIES
            await asyncio.sleep(0.02)
        raise AssertionError(f"{name} is not answered\n" + "\n".join(c.tail() for c in self.copies))

    async def client(self, seed: int) -> None:
        """Send new commands, one after the other, until the story ends."""
        rng, number = random.Random(seed), seed % COPIES
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while not self.stopping:
                number = await self.send(session, self.history.new(rng), number)

    async def told(self, count: int) -> None:
        """Wait until so many commands are answered."""
        async with asyncio.timeout(WAIT_S):
            while len(self.history.told) < count:  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.02)

    async def counters(self) -> dict[str, int]:
        """What the leader says."""
        leader, found = await self.leader(), {}
        async with aiohttp.ClientSession() as session:
            for number in range(KEYS):
                async with session.get(f"{leader.url}/v1/counter/k{number}") as answer:
                    found[f"k{number}"] = (await answer.json())["value"]
        return found

    def expected(self) -> dict[str, int]:
        """One for each command that was sent."""
        keys = list(self.history.keys.values())
        return {f"k{number}": keys.count(f"k{number}") for number in range(KEYS)}

    async def stop(self) -> None:
        for copy in self.copies:
            if copy.runs:
                await copy.end(signal.SIGKILL)
