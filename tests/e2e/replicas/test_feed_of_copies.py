"""As an operator of projections, I let copies serve the feed, and lose none of what was booked."""

import asyncio
import contextlib
import random
import signal
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from tests.e2e.replicas.processes import ULTRA, WAIT_S, Copy, Trio

from ultraengine.client import Client

LEDGER = {"ULTRA_DOMAINS": "ultraengine.domains.ledger:DOMAIN"}
SMALL = {**LEDGER, "ULTRA_SNAPSHOT_COMMANDS": "150"}
ACCOUNTS = 20
PER_COMMAND = 20
TABLES = ("ledger_account", "ledger_transfer", "ledger_entry", "ledger_daily_balance")


class Worker:
    """One `ultra project` into a SQLite file."""

    def __init__(self, place: Path, name: str, engines: Sequence[Copy]) -> None:
        self.database = place / f"{name}.db"
        self.target = f"sqlite:///{self.database}"
        self.engines = ",".join(copy.url for copy in engines)
        self._log = place / f"{name}.log"
        self._process: asyncio.subprocess.Process

    async def start(self) -> None:
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                ULTRA, "project", "--target", self.target, "--engine", self.engines, "--no-http",
                "--limit", "batch_rows_max=500", stdout=output, stderr=output,
            )  # fmt: skip

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def read(self, statement: str) -> list[Any]:
        if not self.database.exists():
            return []
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)
        with contextlib.closing(connection):
            try:
                return connection.execute(statement).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise

    async def has(self, transfers: int) -> None:
        """Wait until so many are in the tables."""
        async with asyncio.timeout(WAIT_S):
            while True:
                found = self.read("SELECT count(*) FROM ledger_transfer")
                if found and found[0][0] >= transfers:
                    return
                assert self._process.returncode is None, self._log.read_text()
                await asyncio.sleep(0.05)

    def tables(self) -> dict[str, list[Any]]:
        """All rows, in one order."""
        return {name: sorted(self.read(f"SELECT * FROM {name}"), key=repr) for name in TABLES}

    def chains(self) -> dict[int, str]:
        """Of the log, at each offset where a batch ended."""
        rows = self.read("SELECT log_end, chain FROM ultra_projection_ledger")
        return {int(offset): str(chain) for offset, chain in rows}

    async def verify(self, engines: Sequence[Copy]) -> None:
        """Build the tables a second time, and compare their checksums."""
        verb = await asyncio.create_subprocess_exec(
            ULTRA, "projection", "verify", "--target", self.target, "--engine",
            ",".join(copy.url for copy in engines), "-o", "json",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await asyncio.wait_for(verb.communicate(), WAIT_S)
        assert verb.returncode == 0, said.decode()


async def feeds_at(copy: Copy) -> int:
    """How many feeds a copy serves; -1 while it does not answer."""
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{copy.url}/metrics") as answer,
        ):
            text = await answer.text()
    except aiohttp.ClientError:
        return -1
    (line,) = [one for one in text.splitlines() if one.startswith("ultra_edge_feeds_open ")]
    return int(float(line.split()[1]))


async def feeding(copies: Sequence[Copy]) -> Copy:
    """Wait until one of these serves a feed."""
    async with asyncio.timeout(WAIT_S):
        while True:
            for copy in copies:
                if copy.runs and await feeds_at(copy) > 0:
                    return copy
            await asyncio.sleep(0.05)


class Booking:
    """Transfers in one book, as many as asked for."""

    def __init__(self, trio: Trio) -> None:
        self.client = Client([one.url for one in trio.copies], deadline_s=WAIT_S)
        self._chance = random.Random(5)
        self.booked = 0

    async def open(self) -> None:
        accounts = [{"id": f"a{n}", "asset": "USD/2", "min_balance": None} for n in range(ACCOUNTS)]
        await self.client.send("ledger.open_accounts", key="book", data={"accounts": accounts})

    async def book(self, commands: int) -> None:
        for _ in range(commands):
            transfers = []
            for _ in range(PER_COMMAND):
                source, target = self._chance.sample(range(ACCOUNTS), 2)
                transfers.append(
                    {
                        "id": f"t{self.booked}", "from": f"a{source}", "to": f"a{target}",
                        "amount": str(self._chance.randrange(1, 1000)),
                    }
                )  # fmt: skip
                self.booked += 1
            await self.client.send(
                "ledger.create_transfers", key="book", data={"transfers": transfers}
            )


async def slots(copy: Copy) -> dict[str, int]:
    """Consumer slots by their name, as a leader says them."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{copy.url}/v1/feed/consumers") as answer,
    ):
        body = msgspec.json.decode(await answer.read())
        assert answer.status == 200, body
        return {one["name"]: one["offset"] for one in body["consumers"]}


@pytest.mark.timeout(300)
async def test_tables_fed_by_a_follower_and_then_by_the_leader_are_those_of_the_leader_alone(
    tmp_path: Path,
) -> None:
    trio, workers = Trio(tmp_path, LEDGER), []
    try:
        await trio.start()
        leader = await trio.leader()
        follower = next(one for one in trio.copies if one is not leader)
        await trio.in_sync(leader, 3)
        booking = Booking(trio)
        await booking.open()
        both, alone = (
            Worker(tmp_path, "both", [leader, follower]),
            Worker(tmp_path, "alone", [leader]),
        )
        for worker in (both, alone):
            await worker.start()
            workers.append(worker)
        await feeding([follower])
        await booking.book(60)
        await both.has(booking.booked // 2)
        assert await feeds_at(follower) == 1
        going_on = asyncio.create_task(booking.book(60))
        await both.has(booking.booked)
        await follower.end(signal.SIGKILL)
        await going_on
        await booking.book(30)
        for worker in workers:
            await worker.has(booking.booked)
        assert await feeds_at(leader) == 2
        found = both.tables()
        assert len(found["ledger_transfer"]) == booking.booked
        assert found == alone.tables()
        shared = both.chains().keys() & alone.chains().keys()
        assert shared
        assert {at: both.chains()[at] for at in shared} == {at: alone.chains()[at] for at in shared}
        await both.verify([leader])
        await follower.start()
        await trio.in_sync(leader, 3)
        await alone.verify([follower])
        await booking.client.close()
    finally:
        for worker in workers:
            await worker.stop()
        await trio.stop()


@pytest.mark.timeout(300)
async def test_a_slot_outlives_its_leader_and_what_it_holds_is_in_every_log(tmp_path: Path) -> None:
    trio = Trio(tmp_path, SMALL)
    worker = Worker(tmp_path, "books", trio.copies)
    try:
        await trio.start()
        leader = await trio.leader()
        await trio.in_sync(leader, 3)
        booking = Booking(trio)
        await booking.open()
        await worker.start()
        await booking.book(20)
        await worker.has(booking.booked)
        async with asyncio.timeout(WAIT_S):
            while (held := (await slots(leader)).get("projection.sqlite", 0)) < 15:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await worker.stop()
        await booking.book(600)  # Every copy takes snapshots, and would cut its log behind them.
        await leader.end(signal.SIGKILL)
        now = await trio.leader()
        assert (await slots(now))["projection.sqlite"] >= held
        await booking.book(20)
        await worker.start()
        fed_by = await feeding([one for one in trio.copies if one.runs])
        assert fed_by is not now
        await worker.has(booking.booked)
        assert worker.read("SELECT count(*) FROM ledger_transfer") == [(booking.booked,)]
        await booking.client.close()
    finally:
        await worker.stop()
        await trio.stop()
