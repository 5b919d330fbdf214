"""A real MariaDB for tests: started by the test session itself, as root or not.

One server per test process, on a Unix socket in a directory of its own, so no port is taken and
nothing of the machine is touched; each test gets a database of its own.  A test that stops or
kills its server starts one for itself (`MariadbServer`).  Without MariaDB on the machine the
tests are skipped and say so; ``hack/packages.sh test`` installs it.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncmy
import pytest
from tests.servers.serving import serving

START_S = 60
STOP_S = 60
USER = "root"
RELAXED = (
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=0",
    "--innodb-flush-method=nosync",
)
"""For tests that ask nothing about a disk that lost its power."""
SMALL = (
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=16M",
    "--performance-schema=OFF",
    "--skip-log-bin",
    "--character-set-server=latin1",  # Whatever the server is set to, ours must hold.
    "--sql-mode=",
)

_databases = itertools.count(1)


def program(name: str) -> str | None:
    """Where a program of MariaDB is: the server's is outside of many a PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _as_whom() -> list[str]:
    """The server refuses to be root unless it is told so; the directory is its own anyway."""
    return ["--user=root"] if os.geteuid() == 0 else []


class MariadbServer:
    """One server with its own data; start, stop and kill it as often as a test needs."""

    def __init__(self, options: Sequence[str] = RELAXED) -> None:
        # Short: a socket's path has at most 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="ultra-my-", dir="/tmp"))
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        done = subprocess.run(
            [program("mariadb-install-db") or "mariadb-install-db", "--no-defaults",
             f"--datadir={self._data}", "--auth-root-authentication-method=normal",
             "--skip-test-db", *_as_whom()],
            capture_output=True, check=False, cwd=self.directory,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.directory / "socket"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None
        return self._process.pid

    def url(self, database: str, **options: str) -> str:
        """Where it listens, as a target's URL."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"mysql://{USER}@/{database}?socket={self.socket}" + (f"&{query}" if query else "")

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program("mariadbd") or "mariadbd", "--no-defaults", *_as_whom(),
                 f"--datadir={self._data}", f"--socket={self.socket}", "--skip-networking",
                 f"--pid-file={self.directory / 'pid'}", *SMALL, *self._options],
                stdout=log, stderr=log, cwd=self.directory,
            )  # fmt: skip
        until = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < until, self.log()
            time.sleep(0.05)

    def _answers(self) -> bool:
        done = subprocess.run(
            [program("mariadb-admin") or "mariadb-admin", "--no-defaults", f"--user={USER}",
             f"--socket={self.socket}", "ping"],
            capture_output=True, check=False,
        )  # fmt: skip
        return done.returncode == 0

    def log(self) -> str:
        """The end of what it said."""
        return (self.directory / "log").read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        """Stop it in order.  Idempotent."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As a crash does it: nothing is written or said any more."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def remove(self) -> None:
        """Stop it and remove its data."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def needed() -> None:
    """Skip the test where MariaDB is not installed."""
    if any(program(name) is None for name in ("mariadbd", "mariadb-install-db", "mariadb-admin")):
        pytest.skip("MariaDB is not installed: hack/packages.sh test (as root) installs it")


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariadbServer]:
    """The server of this test process; do not stop it."""
    needed()
    with serving(MariadbServer()) as server:
        yield server


@pytest.fixture
def own_mariadb() -> Iterator[MariadbServer]:
    """A started server for this test alone, with its usual durability: stop it, kill it."""
    needed()
    with serving(MariadbServer(options=())) as server:
        yield server


class Plain:
    """A plain connection, to look and to disturb."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def run(self, statement: str) -> list[tuple[Any, ...]]:
        """A statement and what it finds."""
        async with self._connection.cursor() as cursor:
            await cursor.execute(statement)
            return [] if cursor.description is None else list(await cursor.fetchall())


@contextlib.asynccontextmanager
async def connection(server: MariadbServer, database: str | None = None) -> AsyncIterator[Plain]:
    """Connect to a database, or to none."""
    held = await asyncmy.connect(
        unix_socket=str(server.socket), user=USER, database=database, charset="utf8mb4",
        autocommit=True,
    )  # fmt: skip
    try:
        yield Plain(held)
    finally:
        await held.ensure_closed()


async def make_database(server: MariadbServer) -> str:
    """A fresh database; returns its name."""
    name = f"test_{next(_databases)}"
    async with connection(server) as admin:
        await admin.run(f"CREATE DATABASE {name}")
    return name


@pytest.fixture
async def mariadb_database(mariadb_server: MariadbServer) -> AsyncIterator[str]:
    """Name of a fresh database."""
    name = await make_database(mariadb_server)
    yield name
    async with connection(mariadb_server) as admin:
        await admin.run(f"DROP DATABASE {name}")
