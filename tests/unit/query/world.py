"""One ledger twice: in the engine's memory, and in SQLite as a worker would have written it."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ultraengine.domains.ledger.domain import DOMAIN
from ultraengine.domains.ledger.events import Event
from ultraengine.domains.ledger.tables import TABLES
from ultraengine.model.ids import NO_CHAIN, Epoch, Instant, Offset, ShardId
from ultraengine.model.limits import Limits
from ultraengine.projection.fold import Batch
from ultraengine.projection.target import START, Checkpoint, Moved, ProjectionSet
from ultraengine.projection.targets import open_target
from ultraengine.query.answer import answer
from ultraengine.query.cursor import Cursors
from ultraengine.query.main import routes_of
from ultraengine.query.plan import Asked, plan
from ultraengine.query.reader import Found, Reader, ask
from ultraengine.query.routes import SqlRoutes
from ultraengine.testing.memory import Bench

SHARD = ShardId(0)
LEDGER_EVENTS = msgspec.msgpack.Decoder(list[Event])
TICK_EVENTS = msgspec.msgpack.Decoder(list[tuple[str, str, Event]])
CURSORS = Cursors(b"k" * 32)
ROUTES: SqlRoutes = routes_of([DOMAIN])


@dataclass
class Place:
    """A `model.projection.Source`."""

    shard: ShardId
    epoch: Epoch
    offset: Offset
    index: int
    time: Instant
    tenant: str
    key: str
    type: str
    id: str
    principal: str
    correlation_id: str | None


def events_of(bench: Bench, start: int) -> Sequence[tuple[Place, Any]]:
    """(place, event) of everything from an offset on."""
    found: list[tuple[Place, Any]] = []
    for offset, (command, outcome, time) in enumerate(bench.log[start:], start):
        named: list[tuple[str, str, Any]]
        if command.type.startswith("system."):
            named = list(TICK_EVENTS.decode(outcome.events))
        else:
            events = LEDGER_EVENTS.decode(outcome.events or b"\x90")
            named = [(command.tenant, command.key, event) for event in events]
        for index, (tenant, key, event) in enumerate(named):
            place = Place(
                SHARD, Epoch(1), Offset(offset), index, time, tenant, key, command.type,
                command.id, command.principal, command.correlation_id,
            )  # fmt: skip
            found.append((place, event))
    return found


def small(bench: Bench, *tenants: str) -> None:
    """Three accounts and five transfers of book k, per tenant, amounts of their own."""
    for number, tenant in enumerate(tenants, 1):
        accounts = [
            {"id": "bank", "asset": "USD/2", "min_balance": None},
            {"id": "alice", "asset": "USD/2", "metadata": {"owner": tenant}},
            {"id": "bob", "asset": "USD/2"},
        ]
        bench.run("ledger.open_accounts", {"accounts": accounts}, tenant=tenant)
        for place in range(5):
            pay(bench, f"t{place}", 100 * number + place, tenant, code=f"c{place % 2}")


def pay(bench: Bench, name: str, amount: int, tenant: str = "default", **more: Any) -> int:
    """One transfer from the bank to alice; its offset."""
    item = {"id": name, "from": "bank", "to": "alice", "amount": amount, **more}
    ran = bench.run("ledger.create_transfers", {"transfers": [item]}, tenant=tenant)
    assert ran.error is None
    return len(bench.log) - 1


class Tables:
    """The SQL side of a bench."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.target = open_target(url, "test")
        self.set: ProjectionSet
        self.at: Checkpoint = START

    async def open(self) -> None:
        """An empty set that serves."""
        await self.target.open()
        await self.build(1)

    async def build(self, number: int) -> None:
        """Serve a new, empty set."""
        self.set = await self.target.create(TABLES, number, Instant(1))
        self.at = START
        await self.target.serve(self.set, TABLES, Instant(1))

    async def follow(self, bench: Bench, *, refresh: bool = True) -> None:
        """Write everything that the bench has done since."""
        start, end = int(self.at.offset), len(bench.log)
        if start == end:
            return
        batch = Batch(TABLES.tables)
        for place, event in events_of(bench, start):
            TABLES.project(event, place, batch)
        after = Checkpoint(Offset(end), Epoch(1), bench.time, NO_CHAIN)
        await self.target.write(self.set, TABLES, batch, [Moved(SHARD, self.at, after)])
        self.at = after
        if refresh:
            assert await self.target.refresh(self.set, TABLES, 10_000) == 0

    async def close(self) -> None:
        """Disconnect."""
        await self.target.close()


def asked(
    path: str,
    tenant: str = "t",
    *,
    cursors: Cursors = CURSORS,
    limits: Limits | None = None,
    headers: Sequence[str] = (),
    **query: str,
) -> Asked:
    """A planned query; in names of filters, ``__`` stands for the dot."""
    match = ROUTES.find("ledger", path.split("/"))
    assert match is not None, path
    pairs = [(name.rstrip("_").replace("__", "."), text) for name, text in query.items()]
    return plan(match, tenant, pairs, headers, cursors=cursors, limits=limits or Limits())


class Asking:
    """Reads over one reader, without caches or HTTP."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    async def __call__(self, path: str, tenant: str = "t", **query: Any) -> Any:
        """The answer as a client would get it, decoded from JSON."""
        query = {name: str(value) for name, value in query.items()}
        return await self.get(asked(path, tenant, **query))

    async def get(self, query: Asked) -> Any:
        """The answer of a planned query."""
        found = await self.reader.run(query.tenant, ask(query, self.reader.dialect), 10.0)
        assert isinstance(found, Found)
        value = answer(query, found.ran, found.rows, CURSORS)
        return msgspec.json.decode(msgspec.json.encode(value))

    async def all(self, path: str, tenant: str = "t", **query: Any) -> list[Any]:
        """All items of a list, page by page."""
        items: list[Any] = []
        page = await self(path, tenant, **query)
        items += page["items"]
        while page["next_cursor"]:
            page = await self(path, tenant, cursor=page["next_cursor"], **query)
            assert page["items"]
            items += page["items"]
        return items


class FileTables(Tables):
    """In SQLite, where a test may look."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"sqlite:///{path}")
        self.path = path

    def execute(self, statement: str) -> None:
        """Behind everybody's back."""
        with sqlite3.connect(self.path) as held:
            held.execute(statement)
        held.close()
