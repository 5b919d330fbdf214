"""Transfers between a few accounts on copies of a shard, and a worker that makes tables of them."""

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.e2e.replicas.processes import ULTRA, WAIT_S, Copy, Trio

from ultraengine.client import Client

LEDGER = {"ULTRA_DOMAINS": "ultraengine.domains.ledger:DOMAIN"}
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
