"""`ultra dev --shards 3` with real processes: load, `kill -9` of one shard, of the front, a stop.

Every transfer has an id of its own and moves one cent within one book.  A journal in memory
keeps what was acknowledged; at the end each of it is in the books, once, and nothing else is.
"""

import asyncio
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ultraengine.client import Client
from ultraengine.model.ids import ShardId
from ultraengine.router.shard_map import ShardMap

SHARDS = 3
BOOKS_PER_SHARD = 2
LOAD_S = 8.0
START_S = 60.0
MAP = ShardMap.even(SHARDS)


def books() -> dict[str, ShardId]:
    """Books with their shards, the same number in each."""
    found: dict[str, ShardId] = {}
    number = 0
    while len(found) < SHARDS * BOOKS_PER_SHARD:
        name = f"book-{number}"
        shard = MAP.shard_of("default", name)
        if sum(one == shard for one in found.values()) < BOOKS_PER_SHARD:
            found[name] = shard
        number += 1
    return found


class Machine:
    """One `ultra dev` and its children."""

    def __init__(self, data: Path, place: Path, *more: str) -> None:
        self.data = data
        self.place = place
        self.log = data.with_suffix(".log")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ULTRA_")}
        # A killed front leaves its directory of sockets; here it goes with the test.
        environment["TMPDIR"] = str(place)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ultraengine.cli.main", "dev", "--data", str(data),
                 "--port", "0", "--no-sql", *more],
                stdout=subprocess.PIPE, stderr=log, env=environment,
            )  # fmt: skip
        self.url = self._url()

    def _url(self) -> str:
        assert self.process.stdout is not None
        url = ""
        for line in self.process.stdout:
            url = line.decode().partition("address    ")[2].strip() or url
            if b"Ctrl-C" in line:  # The end of what it says: nobody reads on.
                return url
        raise AssertionError(f"it ended with {self.process.wait()}: {self.log.read_text()}")

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=40)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        status, body = self.ask("GET", path)
        assert status == 200, body
        return body

    def status(self) -> list[Any]:
        shards: list[Any] = self.get("/admin/v1/status")["shards"]
        return shards

    def pid_of(self, shard: int) -> int:
        """The process of a shard, once it runs."""
        return int(until(lambda: self.status()[shard]["process"]["pid"]))

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.end()

    def end(self) -> int:
        """Wait for its end; its exit code."""
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(60)


def until(happened: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        found = happened()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="u-") as place:  # Sockets need a short path.
        machine = Machine(tmp_path / "data", Path(place), "--shards", str(SHARDS))
        yield machine
        machine.process.kill()
        machine.end()


class Load:
    """Transfers through the client, each with an id of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sent: dict[str, list[str]] = {book: [] for book in books()}
        self.acknowledged: dict[str, list[str]] = {book: [] for book in books()}
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        """Book until told to stop; every transfer is answered at the end."""
        async with Client(self.url) as batches, Client(self.url, transport="stream") as stream:
            for book in books():
                await batches.send(
                    "ledger.open_accounts",
                    key=book,
                    id="open",
                    data={
                        "accounts": [
                            {"id": "alice", "asset": "USD/2", "min_balance": None},
                            {"id": "shop", "asset": "USD/2"},
                        ]
                    },
                )
            await asyncio.gather(
                *(
                    self._book(client, book, f"{way}-{lane}")
                    for book in books()
                    for way, client in (("batch", batches), ("stream", stream))
                    for lane in range(3)
                )
            )

    async def _book(self, client: Client, book: str, name: str) -> None:
        number = 0
        while not self.stopping.is_set():
            transfer = f"{name}-{number}"
            number += 1
            self.sent[book].append(transfer)
            data = {"id": transfer, "from": "alice", "to": "shop", "amount": "1"}
            reply = await client.send(
                "ledger.create_transfers", key=book, id=transfer, data={"transfers": [data]}
            )
            assert reply.outcome == "accepted"
            assert reply.shard == books()[book]
            self.acknowledged[book].append(transfer)


class Probe:
    """Asks one shard again and again, without a client's patience."""

    def __init__(self, machine: Machine, shard: ShardId) -> None:
        self.shard = shard
        self.statuses: dict[int, int] = {}
        self._machine = machine
        book = next(book for book, owner in books().items() if owner == shard)
        transfer = {"id": "probe", "from": "alice", "to": "shop", "amount": "1"}
        data = {"transfers": [transfer], "dry_run": True}
        self._command = {"type": "ledger.create_transfers", "key": book, "data": data}

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            ask = self._machine.ask
            status, _ = await asyncio.to_thread(ask, "POST", "/v1/commands", self._command)
            self.statuses[status] = self.statuses.get(status, 0) + 1
            await asyncio.sleep(0.01)


def check_books(machine: Machine, load: Load) -> None:
    """Every acknowledged transfer is in its book, once, and nothing that was not sent."""
    for book, acknowledged in load.acknowledged.items():
        assert len(acknowledged) == len(set(acknowledged))
        found: list[str] = []
        after = ""
        while True:
            page = machine.get(f"/v1/ledger/{book}/accounts/shop/entries?limit=1000{after}")
            found += [entry["transfer"] for entry in page["entries"]]
            if not page["next_cursor"]:
                break
            after = f"&cursor={page['next_cursor']}"
        assert len(found) == len(set(found)), "a transfer is booked once"
        assert set(acknowledged) <= set(found) <= set(load.sent[book])
        balance = machine.get(f"/v1/ledger/{book}/accounts/shop")["balance"]
        assert int(balance) == len(found)


async def test_a_killed_shard_loses_nothing_and_stops_nobody_else(machine: Machine) -> None:
    load = Load(machine.url)
    loading = asyncio.create_task(load.run())
    async with asyncio.timeout(START_S):
        while not all(load.acknowledged.values()):  # noqa: ASYNC110  (it has no event)
            await asyncio.sleep(0.02)
    victim, killed = 1, 0
    # One that was under way at the kill waits for the restart, so several ask the victim in turn.
    asked = [*range(SHARDS), *[victim] * 5]
    probes = [Probe(machine, ShardId(shard)) for shard in asked]
    probing = [asyncio.create_task(probe.run(load.stopping)) for probe in probes]
    chance = random.Random(20261121)
    end = time.monotonic() + LOAD_S
    while time.monotonic() < end:
        await asyncio.sleep(chance.uniform(0.05, 1.0))
        os.kill(await asyncio.to_thread(machine.pid_of, victim), signal.SIGKILL)
        killed += 1
    before = {book: len(done) for book, done in load.acknowledged.items()}
    async with asyncio.timeout(START_S):
        while any(  # noqa: ASYNC110  (it has no event)
            len(load.acknowledged[book]) <= count for book, count in before.items()
        ):
            await asyncio.sleep(0.02)
    load.stopping.set()
    await asyncio.gather(loading, *probing)
    assert killed >= 3
    for probe in probes:
        allowed = {200, 503, 504} if probe.shard == victim else {200}
        assert set(probe.statuses) <= allowed, f"shard {probe.shard}: {probe.statuses}"
    assert any(503 in probe.statuses for probe in probes)
    await asyncio.to_thread(check_books, machine, load)
    processes = [shard["process"] for shard in machine.status()]
    assert [process["restarts"] for process in processes] == [0, killed, 0]
    assert processes[victim]["last_exit"] == "killed by SIGKILL"
    assert await asyncio.to_thread(machine.stop) == 0
    assert "killed by SIGKILL" in machine.log.read_text()
    again = Machine(machine.data, machine.place)
    try:
        await asyncio.to_thread(check_books, again, load)
    finally:
        assert again.stop() == 0


def is_running(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return False


def test_shards_end_with_a_front_that_was_killed_and_start_with_the_next_one(
    machine: Machine,
) -> None:
    pids = [machine.pid_of(shard) for shard in range(SHARDS)]
    book = next(iter(books()))
    body = {"id": "open", "type": "ledger.open_accounts", "key": book,
            "data": {"accounts": [{"id": "a", "asset": "USD/2"}]}}  # fmt: skip
    assert machine.ask("POST", "/v1/commands", body)[0] == 200
    machine.process.kill()
    machine.end()
    again = Machine(machine.data, machine.place, "--shards", str(SHARDS))
    assert not any(is_running(pid) for pid in pids), "two processes of one shard"
    try:
        assert again.get(f"/v1/ledger/{book}/accounts/a")["id"] == "a"
    finally:
        assert again.stop() == 0


def test_a_shard_that_cannot_start_is_named_with_its_exit_code(machine: Machine) -> None:
    assert machine.stop() == 0
    promise = machine.data / "shard-0002" / "PROMISE"
    promise.write_bytes(b"damaged")
    command = [sys.executable, "-m", "ultraengine.cli.main", "dev", "--data", str(machine.data)]
    ended = subprocess.run([*command, "--port", "0"], capture_output=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert b"shard 2 did not start: exit code 1 (FAILED)" in ended.stderr
