"""A real PostgreSQL for tests: started by the test session itself, as root or not.

One server per test process, on a Unix socket in a directory of its own, so no port is taken and
nothing of the machine is touched; each test gets a database of its own.  A test that stops or
kills its server starts one for itself (`PostgresServer`).  Without PostgreSQL on the machine
the tests are skipped and say so; ``hack/packages.sh test`` installs it.
"""

import asyncio
import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.servers.serving import serving

START_S = 60
STOP_S = 60
USER = "ultra"
PORT = 5432
"""Part of the socket's file name; nobody listens on a network."""
RELAXED = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")
"""For tests that ask nothing about a disk that lost its power."""

_databases = itertools.count(1)


def program(name: str) -> str | None:
    """Where a program of PostgreSQL is: Debian keeps the server's outside of PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(debian[-1]) if debian else shutil.which(name)


def _account() -> pwd.struct_passwd | None:
    """As whom the server runs: PostgreSQL refuses to be root."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres")
    return pwd.getpwnam("nobody")


class PostgresServer:
    """One server with its own data; start, stop and kill it as often as a test needs."""

    def __init__(self, options: Sequence[str] = RELAXED) -> None:
        # Short, and enterable by the server's user: a socket's path has at most 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="ultra-pg-", dir="/tmp"))
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        account = _account()
        self._as_user: dict[str, Any] = {}
        if account is not None:
            os.chown(self.directory, account.pw_uid, account.pw_gid)
            self._as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self._run("initdb", "-D", str(self._data), "-U", USER, "-A", "trust", "-E", "UTF8",
                  "--locale=C", "--no-sync")  # fmt: skip

    def admit_passwords(self) -> None:
        """Let in whoever comes over a network and knows a password; before the start."""
        with (self._data / "pg_hba.conf").open("a") as file:
            file.write("host all all 0.0.0.0/0 scram-sha-256\n")

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = "postgres", directory: Path | None = None) -> str:
        """Where it listens, or where a proxy in `directory` does."""
        return f"postgresql://{USER}@/{database}?host={directory or self.directory}&port={PORT}"

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [program(name) or name, *arguments], capture_output=True, check=False,
            cwd=self.directory, **self._as_user,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [program("postgres") or "postgres", "-D", str(self._data), "-p", str(PORT)]
        for option in ("listen_addresses=", f"unix_socket_directories={self.directory}",
                       "max_connections=50", *self._options):  # fmt: skip
            command += ["-c", option]
        until = time.monotonic() + START_S
        while True:
            with (self.directory / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    command, stdout=log, stderr=log, cwd=self.directory, **self._as_user
                )
            while self._process.poll() is None:
                if self._answers():
                    return
                assert time.monotonic() < until, self.log()
                time.sleep(0.02)
            # After a kill, its children may hold the shared memory for a moment longer.
            assert time.monotonic() < until, self.log()
            time.sleep(0.1)

    def _answers(self) -> bool:
        done = subprocess.run(
            [program("pg_isready") or "pg_isready", "-h", str(self.directory), "-p", str(PORT)],
            capture_output=True, check=False,
        )  # fmt: skip
        return done.returncode == 0

    def log(self) -> str:
        """The end of what it said."""
        return (self.directory / "log").read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        """Stop it in order; sessions are ended.  Idempotent."""
        self._end(signal.SIGINT)

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
    """Skip the test where PostgreSQL is not installed."""
    if program("postgres") is None or program("initdb") is None:
        pytest.skip("PostgreSQL is not installed: hack/packages.sh test (as root) installs it")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server of this test process; do not stop it."""
    needed()
    with serving(PostgresServer()) as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A started server for this test alone, with its usual durability: stop it, kill it."""
    needed()
    with serving(PostgresServer(options=())) as server:
        yield server


@contextlib.asynccontextmanager
async def fresh_database(server: PostgresServer) -> AsyncIterator[str]:
    """A database that is dropped at the end."""
    name = f"test_{next(_databases)}"
    async with connection(server.url()) as admin:
        await admin.execute(f'CREATE DATABASE "{name}"')
    yield server.url(name)
    async with connection(server.url()) as admin:
        await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def postgres_url(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """A fresh database."""
    async with fresh_database(postgres_server) as url:
        yield url


@contextlib.asynccontextmanager
async def connection(url: str) -> AsyncIterator[Any]:
    """A plain connection, to look and to disturb."""
    held = await asyncio.wait_for(asyncpg.connect(url), START_S)
    try:
        yield held
    finally:
        await held.close()
