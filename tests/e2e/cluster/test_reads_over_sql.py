"""As a user, I name a database in the engine's spec, and read my books there by SQL and by HTTP."""

import asyncio
import contextlib
import http.client
import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.cluster.cluster import Namespace, run, until
from tests.e2e.cluster.engines import Engine
from tests.e2e.cluster.traffic import BOOKS, Traffic
from tests.servers.postgres import PORT, USER, PostgresServer, connection, needed

QUERY_PORT = 30083
WORKERS = "--selector=ultraengine.io/engine=shop,app.kubernetes.io/component=projection"


def bridge() -> str:
    """This machine's address in the network of the nodes."""
    networks = json.loads(run("docker", "network", "inspect", "kind"))
    found: list[str] = [one["Gateway"] for one in networks[0]["IPAM"]["Config"] if "Gateway" in one]
    return next(address for address in found if "." in address)


class Database:
    """A PostgreSQL on this machine that pods reach."""

    def __init__(self) -> None:
        needed()
        address, password = bridge(), secrets.token_urlsafe(12)
        self.server = PostgresServer(options=(f"listen_addresses={address}",))
        self.server.admit_passwords()
        self.server.start()
        self.ask(f"ALTER ROLE {USER} PASSWORD '{password}'")
        self.url = f"postgresql://{USER}:{password}@{address}:{PORT}/postgres"

    def ask(self, statement: str) -> list[Any]:
        """Rows of a statement, as somebody on the database's machine."""

        async def ask() -> list[Any]:
            async with connection(self.server.url()) as held:
                found: list[Any] = await held.fetch(statement)
                return found

        return asyncio.run(ask())


@pytest.fixture
def database() -> Iterator[Database]:
    made = Database()
    try:
        yield made
    finally:
        made.server.remove()


@pytest.fixture
def shop(namespace: Namespace, database: Database) -> Iterator[Engine]:
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "books"},
            "stringData": {"url": database.url},
        }
    )
    small = {"requests": {"cpu": "20m", "memory": "96Mi"}}
    engine = Engine(
        namespace, "shop", shards=2, port=30082,
        projections=[{"name": "books", "targetSecretName": "books", "resources": small}],
        query={"replicas": 2, "targetSecretName": "books", "resources": small},
    )  # fmt: skip
    try:
        engine.apply()
        engine.open_port("query", QUERY_PORT)
        yield engine
    finally:
        engine.close()


def read(path: str, traffic: Traffic) -> dict[str, Any]:
    """A read of the query pods that reflects all that was acknowledged."""
    position = ", ".join(f"{shard}={offset}" for shard, offset in traffic.positions.items())
    found: dict[str, Any] = {}

    def answered() -> bool:
        # A pod that has just become ready may be away for the node's proxy a moment longer.
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", QUERY_PORT, timeout=30)
            with contextlib.closing(connection):
                headers = {"Ultra-Offset": position}
                connection.request("GET", f"/v1/sql/ledger/{path}", headers=headers)
                answer = connection.getresponse()
                found.clear()
                found.update(json.load(answer), status=answer.status)
        return found.get("status") == 200

    until(f"{path} is answered as of {position}", answered, lambda: found)
    return found


def check_tables(database: Database, traffic: Traffic) -> None:
    """Every acknowledged payment is in the tables, once, and the sums are those of the engine."""
    for book in BOOKS:
        found = read(f"{book}/accounts/shop", traffic)
        assert found["balance"] == str(traffic.paid(book)), (book, found)
    counts = database.ask("SELECT book, count(*) AS n FROM ledger_transfer GROUP BY book")
    assert {one["book"]: one["n"] for one in counts} == {book: traffic.paid(book) for book in BOOKS}


def test_books_are_read_from_the_database_that_the_spec_names(
    shop: Engine, database: Database
) -> None:
    traffic = Traffic(shop.address)
    try:
        shop.wait_ready()
        traffic.open_accounts()
        with traffic:
            traffic.go_on(5)
            worker = shop.namespace.kubectl("get", "pods", WORKERS, "--output=name").split()[0]
            shop.namespace.kubectl("delete", worker, "--grace-period=0", "--force")
            traffic.go_on(5)
        shop.wait_ready()
        check_tables(database, traffic)

        # Commands are taken while the database is away, and it catches up when it is back.
        database.server.kill()
        with traffic:
            shop.wait_for("Ready", "False", "ProjectionNotReady")
            assert shop.conditions()["Available"]["status"] == "True"
            traffic.go_on(5)
        database.server.start()
        shop.wait_ready()
        check_tables(database, traffic)
        traffic.check()

        shop.spec.update(projections=[], query={"replicas": 0})
        shop.apply()
        shop.wait_ready()
        until(
            "the worker is gone",
            lambda: not shop.namespace.kubectl("get", "pods", WORKERS, "--output=name"),
        )
        assert len(database.ask("SELECT 1 FROM ledger_account")) == 2 * len(BOOKS)
    finally:
        traffic.close()
