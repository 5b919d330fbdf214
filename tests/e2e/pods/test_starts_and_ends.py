"""How one shard starts and ends: probes while it recovers, signals, and what it refuses."""

import http.client
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.pods.running import (
    PORT,
    ULTRA,
    Place,
    Pod,
    as_operator,
    ask,
    until,
)

from ultraengine.edge.auth import KnownCaller
from ultraengine.gateway.hop import hop_headers
from ultraengine.model.ids import ShardId
from ultraengine.router.first_ownership import engine_uid_of, settle
from ultraengine.router.shard_map import ShardMap
from ultraengine_adapters.local.disk import LocalDisk

ADD = {"id": "a-1", "type": "counter.add", "key": "k", "data": {"delta": 5}}
HERE = Path(__file__).parent


def send(pod: Pod, command: dict[str, Any], secret: str = "hop-" * 10) -> tuple[int, Any]:
    caller = KnownCaller("default", "till", frozenset({"*:read", "*:write"}))
    return ask(pod.host, "POST", "/v1/commands", dict(hop_headers(secret, caller)), command)


def owner(key: str) -> int:
    return ShardMap.even(2).shard_of("default", key)


@pytest.fixture
def held(place: Place) -> Pod:
    """A shard with one command in its log, stopped; its next start waits for the pipe."""
    pod = place.shard(
        owner("k"),
        ULTRA_DOMAINS="tests.e2e.pods.held:DOMAIN",
        HELD_BY=place.path / "pipe",
        PYTHONPATH=HERE.parents[2],
    )
    pod.start()
    pod.wait_for("/readyz")
    status, reply = send(pod, ADD)
    assert (status, reply["outcome"], reply["result"]) == (200, "accepted", {"value": 5})
    assert pod.end(signal.SIGTERM) == 0
    os.mkfifo(place.path / "pipe")
    return pod


def recovers(pod: Pod) -> bool:
    status, problem = pod.probe("/readyz")
    return status == 503 and "0 of 2 commands replayed" in problem["detail"]


def let_go(place: Place) -> None:
    """Let a recovery go on, and no other wait."""
    pipe = place.path / "pipe"
    with pipe.open("wb"):
        pipe.unlink()


def test_probes_are_answered_while_a_shard_recovers_and_nobody_is_refused_at_the_door(
    place: Place, held: Pod
) -> None:
    held.start()
    until(lambda: recovers(held))
    assert held.probe("/healthz")[0] == 200
    status, problem = send(held, ADD)
    assert (status, problem["code"], problem["retryable"]) == (503, "SHARD_UNAVAILABLE", True)
    # One that has said nothing yet is on its way to the early doors when they are handed over.
    silent = [socket.create_connection((held.host, PORT)) for _ in range(20)]
    statuses: list[int] = []
    stopping = threading.Event()

    def knock() -> None:
        while not stopping.is_set():
            statuses.append(ask(held.host, "GET", "/readyz", {})[0])

    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            knock()
        except (OSError, http.client.HTTPException) as error:
            failures.append(error)

    knocking = [threading.Thread(target=guarded) for _ in range(3)]
    for thread in knocking:
        thread.start()
    let_go(place)
    held.wait_for("/readyz")
    for connection in silent:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert connection.recv(100).startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 503 "))
        connection.close()
    stopping.set()
    for thread in knocking:
        thread.join()
    assert failures == []
    assert set(statuses) <= {200, 503}
    status, reply = send(held, ADD)
    assert (status, reply["duplicate"], reply["result"]) == (200, True, {"value": 5})
    assert held.end(signal.SIGTERM) == 0


def test_sigterm_ends_a_recovery_at_once_and_the_next_start_finds_all_of_the_log(
    place: Place, held: Pod
) -> None:
    held.start()
    until(lambda: recovers(held))
    assert held.end(signal.SIGTERM) == 0
    assert b'"during": "recovery"' in held.log.read_bytes()
    verified = subprocess.run(
        [ULTRA, "log", "verify", held.environment["ULTRA_DATA"]],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert verified.returncode == 0, verified.stdout + verified.stderr
    (place.path / "pipe").unlink()
    held.start()
    held.wait_for("/readyz")
    status, reply = send(held, ADD)
    assert (status, reply["duplicate"], reply["result"]) == (200, True, {"value": 5})
    assert as_operator(held, "GET", "/admin/v1/status")["epoch"] == 3
    assert held.end(signal.SIGTERM) == 0


def refused(pod: Pod) -> str:
    """The log of a start that ends; its exit code comes first."""
    pod.start()
    return f"{pod.ended()}: {pod.log.read_text()}"


def test_a_missing_hop_key_is_said_before_anything_is_written(place: Place) -> None:
    found = refused(place.shard(0, ULTRA_HOP_KEY=place.path / "missing"))
    assert found.startswith("2: ")
    assert "ULTRA_HOP_KEY: [Errno 2] No such file" in found
    assert list((place.path / "volume-0").rglob("*.*")) == []


def test_the_directory_of_another_engine_is_refused_and_stays_as_it_was(place: Place) -> None:
    directory = place.path / "volume-0" / "shard-0000"
    settle(LocalDisk(directory), ShardId(0), "theirs", lambda: place.shard_map)
    before = (directory / "SLOTS").read_bytes()
    found = refused(place.shard(0))
    assert found.startswith("75: ")
    assert f"belongs to engine {engine_uid_of('theirs').hex()}, not to" in found
    assert (directory / "SLOTS").read_bytes() == before
    assert sorted(one.name for one in directory.iterdir()) == ["LOCK", "SLOTS"]


def test_a_second_process_of_a_shard_ends_and_the_first_tells_callers_by_the_hop_key(
    place: Place,
) -> None:
    shard = place.shard(owner("k"))
    shard.start()
    shard.wait_for("/readyz")
    found = refused(place.shard(owner("k"), host=150))
    assert found.startswith("72: ")
    status, problem = send(shard, ADD, secret="x" * 40)
    assert (status, problem["code"]) == (401, "UNAUTHENTICATED")
    assert ask(shard.host, "GET", "/admin/v1/status", {})[0] == 401
    assert ask(shard.host, "POST", "/admin/v1/pause", {}, {"reason": "x"})[0] == 401
    assert as_operator(shard, "GET", "/admin/v1/status")["state"] == "serving"
    assert shard.end(signal.SIGTERM) == 0
