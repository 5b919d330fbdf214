"""Processes of these stories: an engine, a projection worker, and what a plain reader sees."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import msgspec
from tests.servers.ports import free_ports

ROOT = Path(__file__).parents[3]
ULTRA = Path(sys.executable).with_name("ultra")
PATIENCE_S = 600.0
"""Only what never comes to pass fails; a test of more than the usual five minutes says so."""


def until(condition: Callable[[], Any], what: str, *running: "Program") -> Any:
    """Wait until something is so, and give it; fails when a process ends before."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        for program in running:
            assert program.is_running, f"{program.name} has ended:\n{program.said()}"
        time.sleep(0.02)
    raise AssertionError(
        f"waited in vain until {what}\n" + "\n".join(one.said() for one in running)
    )


class Program:
    """One `ultra …`, stopped or killed by the test."""

    def __init__(
        self, name: str, directory: Path, *arguments: object, more: Mapping[str, object] = {}
    ) -> None:
        """`more`: of the environment."""
        self.name = name
        self._log = directory / f"{name}.log"
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                [ULTRA, *map(str, arguments)], stdout=output, stderr=output, cwd=directory,
                env={**os.environ, **{variable: str(value) for variable, value in more.items()}},
            )  # fmt: skip

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        """kill -9: nothing of the process's own may help it."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.is_running:
            self.process.terminate()
        return self.process.wait(timeout=PATIENCE_S)


class Story:
    """A directory with an engine, and workers of one target: a SQLite file, if it is no other."""

    def __init__(
        self, directory: Path, *engine: object, settings: Mapping[str, object] = {}
    ) -> None:
        """With `settings`, of the environment, the engine is one as in production."""
        self.directory = directory
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.database = directory / "sql.db"
        self.target = f"sqlite:///{self.database}"
        self._programs: list[Program] = []
        if settings:
            place = {"ULTRA_DATA": directory / "data", "ULTRA_PORT": self.port,
                     "ULTRA_ADMIN_PORT": self.port}  # fmt: skip
            self.engine = self.run("engine", "serve", more={**place, **settings})
        else:
            self.engine = self.run(
                "engine", "dev", "--data", directory / "data", "--port", self.port, *engine
            )
        until(lambda: self.answers("/readyz"), "the engine serves", self.engine)

    def run(self, name: str, *arguments: object, more: Mapping[str, object] = {}) -> Program:
        program = Program(name, self.directory, *arguments, more=more)
        self._programs.append(program)
        return program

    def worker(self, *more: object, name: str = "worker") -> Program:
        return self.run(
            name, "project", "--target", self.target, "--engine", self.url, "--no-http", *more
        )

    def ultra(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end."""
        return subprocess.run(
            [ULTRA, *map(str, arguments)],
            cwd=self.directory, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def projection(self, verb: str, *more: object) -> subprocess.CompletedProcess[str]:
        return self.ultra("projection", verb, "--target", self.target, *more)

    def sets(self) -> list[Any]:
        """What `ultra projection status` says; empty while there is nothing."""
        done = self.projection("status", "--engine", self.url, "-o", "json")
        return list(msgspec.json.decode(done.stdout)["sets"]) if done.stdout else []

    def answers(self, path: str, port: int | None = None) -> bool:
        with contextlib.suppress(OSError, HTTPException):
            self.get(path, port)
            return True
        return False

    def get(self, path: str, port: int | None = None) -> Any:
        """A read over HTTP, without our client."""
        connection = HTTPConnection("127.0.0.1", port or self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise HTTPException(f"{path}: {answer.status} {body!r}")
            return msgspec.json.decode(body)

    def serves(self, *running: Program) -> None:
        """Wait until the first set of the target serves, with nothing behind."""
        until(
            lambda: any(
                one["state"] == "serving" and one["lag_commands"] == 0 for one in self.sets()
            ),
            "it serves", *running,
        )  # fmt: skip

    def transfer(self, number: int) -> float:
        """Book one transfer between two accounts of the book `plain`; how long it took."""
        body = {
            "id": f"pay-{number}", "type": "ledger.create_transfers", "key": "plain",
            "data": {"transfers": [
                {"id": f"t{number}", "from": "alice", "to": "shop", "amount": "1"}]},
        }  # fmt: skip
        return self.send(body)

    def open_accounts(self) -> None:
        self.send(
            {
                "id": "open", "type": "ledger.open_accounts", "key": "plain",
                "data": {"accounts": [
                    {"id": "alice", "asset": "USD/2", "min_balance": None},
                    {"id": "shop", "asset": "USD/2"}]},
            }
        )  # fmt: skip

    def send(self, body: Any) -> float:
        started = time.monotonic()
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/commands", msgspec.json.encode(body), headers)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text
        return time.monotonic() - started

    def read(self, statement: str, *parameters: Any) -> list[Any]:
        """Rows, by a plain reader; none while there is no such table."""
        if not self.database.exists():
            return []
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)
        with contextlib.closing(connection):
            try:
                return connection.execute(statement, parameters).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise

    def count(self, table: str) -> int:
        found = self.read(f"SELECT count(*) FROM {table}")
        return int(found[0][0]) if found else 0

    def end(self) -> None:
        for program in reversed(self._programs):
            if program.is_running:
                program.kill()
