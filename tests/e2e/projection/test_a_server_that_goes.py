"""Stories: PostgreSQL and MariaDB are stopped, stay away and are killed while commands arrive."""

import asyncio
import threading
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from tests.e2e.projection.databases import Server, mariadb, postgres
from tests.e2e.projection.running import Program, Story, until
from tests.servers.mariadb import MariadbServer, make_database
from tests.servers.ports import free_ports
from tests.servers.postgres import PostgresServer


class Held:
    """A database, and its server, which can be ended."""

    def __init__(self, server: Server, process: PostgresServer | MariadbServer) -> None:
        self.server = server
        self.process = process


def _postgres(request: pytest.FixtureRequest) -> Held:
    process: PostgresServer = request.getfixturevalue("own_postgres")
    return Held(postgres(process.url()), process)


def _mariadb(request: pytest.FixtureRequest) -> Held:
    process: MariadbServer = request.getfixturevalue("own_mariadb")
    return Held(mariadb(process, asyncio.run(make_database(process))), process)


@pytest.fixture(params=[_postgres, _mariadb], ids=["postgresql", "mariadb"])
def held(request: pytest.FixtureRequest) -> Held:
    make: Callable[[pytest.FixtureRequest], Held] = request.param
    return make(request)


class Booking:
    """Transfers, one after the other, on a thread, until it is told to end."""

    def __init__(self, told: Story) -> None:
        self._told = told
        self._ends = threading.Event()
        self.booked = 0
        self.failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._ends.wait(0.005):
                self._told.transfer(self.booked)
                self.booked += 1
        except BaseException as error:  # noqa: BLE001  (said by `end`)
            self.failed = error

    def more(self, count: int) -> None:
        """Wait until so many more are answered."""
        wanted = self.booked + count
        until(lambda: self.booked >= wanted or self.failed, "commands are answered")
        assert self.failed is None, self.failed

    def end(self) -> int:
        """How many were answered; each was, or this fails."""
        self._ends.set()
        self._thread.join()
        assert self.failed is None, self.failed
        return self.booked


def breaker_states(port: int) -> dict[str, float]:
    """The breaker's metric by its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    found = {}
    for line in text.splitlines():
        if line.startswith("ultra_projection_breaker{"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def leave(
    told: Story, port: int, booking: Booking, worker: Program, end: Callable[[], Any]
) -> None:
    """The server ends: the breaker opens and says so, it is not ready, and the engine goes on."""

    def target() -> Any:
        return told.get("/status", port)["targets"][0]

    closed = breaker_states(port)
    before = target()["breaker_opened"]
    end()
    until(lambda: target()["breaker_opened"] > before, "the breaker opens", worker)
    until(lambda: target()["last_error"], "it says why", worker)
    until(lambda: breaker_states(port) != closed, "the metric has another state", worker)
    until(lambda: not ready(told, port), "it is not ready", worker)
    booking.more(100)


def ready(told: Story, port: int) -> bool:
    return told.answers("/readyz", port)


@pytest.mark.slow
def test_a_server_that_is_stopped_and_one_that_is_killed_get_all_of_it_with_equal_checksums(
    story: Callable[..., Story], held: Held
) -> None:
    told, port = story("--no-sql"), free_ports(1)[0]
    told.target = held.server.target
    told.open_accounts()
    worker = told.run(
        "worker", "project", "--target", told.target, "--engine", told.url, "--port", port,
        "--limit", "breaker_wait_s_max=0.5",
    )  # fmt: skip
    booking = Booking(told)
    try:
        told.serves(worker)
        for end in (held.process.stop, held.process.kill):
            booking.more(50)
            leave(told, port, booking, worker, end)
            held.process.start()
            until(lambda: ready(told, port), "the database is back", worker)
            booking.more(50)
    finally:
        booked = booking.end()
    until(
        lambda: held.server.read("SELECT count(*) FROM ledger_transfer") == [(booked,)],
        "all of it is there", worker,
    )  # fmt: skip
    target = told.get("/status", port)["targets"][0]
    assert (target["breaker"], target["breaker_opened"] >= 2) == ("closed", True)
    assert held.server.read("SELECT account, balance FROM ledger_account ORDER BY account") == [
        ("alice", -booked), ("shop", booked),
    ]  # fmt: skip
    assert held.server.read("SELECT count(*), sum(amount) FROM ledger_entry") == [(2 * booked, 0)]
    verified = told.projection("verify", "--engine", told.url)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert worker.stop() == 0
