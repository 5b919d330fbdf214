"""Stories: a database that is away, a second worker, a pause, and `ultra dev` with SQL."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from tests.e2e.projection.running import Story, until
from tests.servers.ports import free_ports

FENCED = 77
LOCKED_S = 7.0
"""Longer than the target waits for another process's write lock."""


def booked(story: Story) -> int:
    return story.count("ledger_transfer")


def test_a_database_that_is_away_never_slows_the_engine_and_is_caught_up_with(
    story: Callable[..., Story],
) -> None:
    told, port = story("--no-sql"), free_ports(1)[0]
    told.open_accounts()
    worker = told.run(
        "worker", "project", "--target", told.target, "--engine", told.url, "--port", port
    )
    told.transfer(0)
    until(lambda: booked(told) == 1, "the first transfer is there", worker)

    def target() -> Any:
        return told.get("/status", port)["targets"][0]

    until(lambda: [one["state"] for one in target()["sets"]] == ["serving"], "it serves", worker)
    assert target()["breaker"] == "closed"
    assert told.answers("/healthz")

    locker = sqlite3.connect(told.database, isolation_level=None)
    with contextlib.closing(locker):
        locker.execute("BEGIN IMMEDIATE")
        ends = time.monotonic() + LOCKED_S
        number = 0
        while time.monotonic() < ends:
            number += 1
            told.transfer(number)  # Answered, or the story fails.
        until(lambda: target()["breaker_opened"], "the breaker has opened", worker)
        until(lambda: target()["last_error"], "it says why", worker)
        assert booked(told) == 1
        locker.execute("ROLLBACK")
    until(lambda: booked(told) == number + 1, "all of it is there", worker)
    until(lambda: target()["breaker"] == "closed", "the breaker is closed", worker)
    assert worker.stop() == 0


def test_of_two_workers_one_ends_with_its_exit_code_and_nothing_is_written_twice(
    story: Callable[..., Story],
) -> None:
    told = story("--no-sql")
    told.open_accounts()
    workers = [told.worker(name="first"), told.worker(name="second")]
    until(lambda: bool(told.read("SELECT 1 FROM ledger_account")), "a set serves")
    number = 0
    while all(worker.is_running for worker in workers):
        number += 1
        told.transfer(number)
        assert number < 5_000
    ended = next(worker for worker in workers if not worker.is_running)
    assert ended.process.returncode == FENCED
    assert "process.fenced" in ended.said()
    left = next(worker for worker in workers if worker is not ended)
    if not left.is_running:  # Both may have been fenced by turns; a new one goes on.
        left = told.worker(name="third")
    until(lambda: booked(told) == number, "all transfers are there", left)
    assert told.read("SELECT balance FROM ledger_account WHERE account = 'shop'") == [(number,)]
    assert left.stop() == 0


def test_a_pause_holds_the_tables_and_the_log_until_it_is_over(story: Callable[..., Story]) -> None:
    told = story("--no-sql")
    told.open_accounts()
    worker = told.worker()
    told.transfer(1)
    until(lambda: booked(told) == 1, "the first transfer is there", worker)
    done = told.projection("pause", "ledger", "-o", "json")
    assert (done.returncode, msgspec.json.decode(done.stdout)) == (
        0, {"asked": "pause", "projections": ["ledger"]},
    )  # fmt: skip
    until(lambda: told.sets()[0]["paused"], "it is paused", worker)
    at = told.sets()[0]["offsets"]["0"]
    for number in range(2, 30):
        told.transfer(number)
    behind: Any = told.sets()[0]
    assert behind["lag_commands"] >= 28
    assert behind["offsets"]["0"] == at
    (consumer,) = told.get("/v1/feed/consumers?shard=0")["consumers"]
    assert (consumer["name"], consumer["offset"] <= at) == ("projection.sqlite", True)
    assert told.projection("resume").returncode == 0
    until(lambda: booked(told) == 29, "it has caught up", worker)
    assert worker.stop() == 0


def test_verbs_say_what_is_wrong(story: Callable[..., Story], tmp_path: Path) -> None:
    told = story("--no-sql")
    nothing = told.projection("status")
    assert nothing.returncode == 2
    assert "no set of any projection" in nothing.stderr
    for arguments, code, text in (
        (("projection", "status", "--target", "db2://x"), 2, "begins with one of"),
        (("projection", "status", "--target", "sqlite:////no/such/place/x.db"), 3, "cannot be"),
        (("project", "--target", told.target, "--limit", "speed=9"), 2, "speed: no such limit"),
        (("project", "--target", told.target, "--target", told.target), 2, "two targets"),
        (("project", "--target", told.target, "--engine", "nowhere"), 2, "no address"),
        (("project", "--target", f"@{tmp_path}/none"), 2, "cannot read the target's URL"),
        (("projection", "verify", "--target", told.target, "--engine", told.url), 1, "serves yet"),
    ):
        done = told.ultra(*arguments)
        assert (done.returncode, text in done.stderr) == (code, True), done.stderr


def worker_of(story: Story) -> int:
    """The process id of the worker that `ultra dev` has started; 0 while there is none."""
    parent = story.engine.process.pid
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            command = (path.parent / "cmdline").read_bytes().split(b"\0")
            if int(fields[1]) == parent and b"project" in command:
                return int(path.parent.name)
    return 0


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_dev_fills_a_database_by_itself_and_the_worker_ends_with_it(
    story: Callable[..., Story],
) -> None:
    told = story("--shards", 2)
    told.database = told.directory / "data" / "sql" / "projection.db"
    # It serves first, and says where a moment later.
    until(lambda: "SELECT account" in told.engine.said(), "it says how to ask", told.engine)
    assert str(told.database) in told.engine.said()
    told.open_accounts()
    for number in range(1, 6):
        told.transfer(number)
    until(lambda: booked(told) == 5, "the transfers are there", told.engine)

    # A worker that is killed is started again, and nothing is lost or doubled.
    first = until(lambda: worker_of(told), "there is a worker", told.engine)
    os.kill(first, 9)
    told.transfer(6)
    until(lambda: booked(told) == 6, "the next one goes on", told.engine)
    second = until(lambda: worker_of(told), "there is another worker", told.engine)
    assert second != first

    # It does not outlive its engine, even when that is killed.
    told.engine.kill()
    until(lambda: not is_alive(second), "the worker has ended")
