"""A started `ultra query` for tests, and a client for it."""

import asyncio
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec

from ultraengine.domains.ledger.domain import DOMAIN
from ultraengine.edge.auth import entry_text, issue_key
from ultraengine.model.limits import Limits
from ultraengine.query.main import QueryOptions, QueryProcess
from ultraengine.query.readers.sqlite.driver import SqliteReader
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.random import SystemRandom


class Got(NamedTuple):
    """An answer."""

    status: int
    headers: Any
    body: Any

    @property
    def code(self) -> str:
        """The problem's code, after a look at its shape."""
        assert self.headers["Content-Type"] == "application/problem+json"
        assert self.body["status"] == self.status
        assert self.body["type"] == f"urn:ultraengine:problem:{self.body['code']}"
        code: str = self.body["code"]
        return code


class Served:
    """One process and a session."""

    def __init__(self, process: QueryProcess, session: aiohttp.ClientSession) -> None:
        self.process = process
        self.session = session
        self.statements: list[str] = []
        """What the database ran, values in their places."""

    @property
    def url(self) -> str:
        """Of the listener."""
        host, port = self.process.addresses[0]
        return f"http://{host}:{port}"

    async def get(self, path: str, query: Any = None, **headers: str) -> Got:
        """GET; header names with underscores for dashes."""
        sent = {name.replace("_", "-"): text for name, text in headers.items()}
        async with self.session.get(self.url + path, params=query, headers=sent) as answer:
            body: Any = await answer.read()
            if body and "json" in answer.headers["Content-Type"]:
                body = msgspec.json.decode(body)
            return Got(answer.status, answer.headers, body)

    async def sql(self, path: str, query: Any = None, **headers: str) -> Got:
        """A read of the ledger."""
        return await self.get(f"/v1/sql/ledger/{path}", query, **headers)

    async def somebody_waits(self) -> None:
        """Until a read waits for an offset."""
        while not self.process.metrics.waiting:  # noqa: ASYNC110  (counted, not signalled)
            await asyncio.sleep(0.001)

    async def end(self) -> None:
        """Stop it."""
        await self.session.close()
        await self.process.stop()


async def serve(path: Path, *, keys: Path | None = None, **limits: Any) -> Served:
    """Start one over a file."""
    options = QueryOptions(
        target=f"sqlite:///{path}",
        port=0,
        keys=keys,
        patterns=path.with_name("patterns.json"),
        limits=Limits(**limits),
    )
    process = QueryProcess(options, [DOMAIN], SystemClock(), SystemRandom())
    served = Served(process, aiohttp.ClientSession())
    assert isinstance(process.reads.reader, SqliteReader)
    process.reads.reader = SqliteReader(
        options.target, connections=2, on_statement=served.statements.append
    )
    await process.start()
    return served


def write_keys(path: Path, *callers: tuple[str, list[str]]) -> list[str]:
    """A key file with one key per (tenant, scopes); the keys."""
    keys, text = [], ""
    for number, (tenant, scopes) in enumerate(callers):
        key, entry = issue_key(SystemRandom(), tenant=tenant, principal=f"p{number}", scopes=scopes)
        keys.append(key)
        text += entry_text(entry)
    path.write_text(text)
    return keys
