"""Shards and gateways as their pods run them: real processes, each at an address of its own.

Every address is one of the loopback's sixteen million, so that nobody else has it, a restarted
process finds its port free, and the number of a shard is a part of its host name.
"""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ultraengine.edge.auth import KnownCaller
from ultraengine.gateway.hop import hop_headers
from ultraengine.router.shard_map import ShardMap

PORT = 20_017
"""Below the ports that Linux gives to who asks for any."""
ENGINE_UID = "6d0f1bd2-8d2c-4b5e-9a55-0123456789ab"
SECRET = "hop-" * 10
WAIT_S = 60.0
LIMITS = {
    "SEGMENT_BYTES": 1024 * 1024,
    "FRAME_BYTES_MAX": 256 * 1024,
    "GROUP_BYTES_MAX": 128 * 1024,
    "COMMAND_BYTES_MAX": 64 * 1024,
    "RESERVE_BYTES": 256 * 1024,
}
ULTRA = Path(sys.executable).with_name("ultra")


def until(happened: Callable[[], Any]) -> Any:
    """Wait for something; what it is."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        found = happened()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def ask(
    host: str, method: str, path: str, headers: Mapping[str, str], body: Any = None
) -> tuple[int, Any]:
    """One request on a connection of its own.  Raises OSError, HTTPException."""
    connection = http.client.HTTPConnection(host, PORT, timeout=WAIT_S)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


class Pod:
    """One process, started again and again with the same settings."""

    def __init__(self, verb: str, host: str, place: Path, told: Mapping[str, object]) -> None:
        self.host = host
        self.log = place / f"{verb}-{host}.log"
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("ULTRA_")}
        self.environment |= {f"ULTRA_LIMIT_{name}": str(value) for name, value in LIMITS.items()}
        self.environment |= {"ULTRA_PORT": str(PORT), "ULTRA_ADMIN_PORT": str(PORT + 1)}
        self.environment["ULTRA_HOST"] = host
        self.environment |= {name: str(value) for name, value in told.items()}
        self._verb = verb
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [ULTRA, self._verb], env=self.environment, stdout=log, stderr=log
            )

    def end(self, number: signal.Signals) -> int:
        """Send a signal and wait; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)

    def ended(self) -> int:
        """Wait for its end; the exit code."""
        assert self.process is not None
        return self.process.wait(WAIT_S)

    def probe(self, path: str) -> tuple[int, Any]:
        """What a probe gets; (0, None) when nobody listens."""
        try:
            return ask(self.host, "GET", path, {})
        except (OSError, http.client.HTTPException):
            return 0, None

    def wait_for(self, path: str) -> None:
        """Wait until a probe says 200."""
        assert self.process is not None
        process = self.process
        until(lambda: process.poll() is not None or self.probe(path)[0] == 200)
        assert process.poll() is None, self.log.read_text()

    def stop(self) -> None:
        """At the end of a test, however it ended."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Place:
    """A directory with what pods mount, and their addresses."""

    def __init__(self, path: Path, shards: int) -> None:
        self.path = path
        number = os.getpid()
        self.net = f"127.{100 + (number >> 8) % 150}.{number % 256}"
        self.shard_map = ShardMap.even(shards)
        self.map = path / "map.json"
        self.map.write_bytes(self.shard_map.encode())
        self.hop_key = path / "hop.key"
        self.hop_key.write_text(SECRET + "\n")
        self.pods: list[Pod] = []

    def shard(self, number: int, host: int | None = None, **more: object) -> Pod:
        """A shard with a volume of its own; `host`: at another address than its own."""
        told: dict[str, object] = {
            "ULTRA_SHARD": number,
            "ULTRA_DATA": self.path / f"volume-{number}",
            "ULTRA_HOP_KEY": self.hop_key,
            "ULTRA_MAP": self.map,
            "ULTRA_ENGINE_UID": ENGINE_UID,
            **more,
        }
        return self._made("serve", f"{self.net}.{100 + number if host is None else host}", told)

    def gateway(self, number: int, **more: object) -> Pod:
        """A gateway before all shards."""
        told: dict[str, object] = {
            "ULTRA_MAP": self.map,
            "ULTRA_HOP_KEY": self.hop_key,
            "ULTRA_SHARD_ADDRESS": f"http://{self.net}.10{{shard}}:{PORT}",
            "ULTRA_LINGER_S": "0.3",
            **more,
        }
        return self._made("gateway", f"{self.net}.20{number}", told)

    def _made(self, verb: str, host: str, told: Mapping[str, object]) -> Pod:
        pod = Pod(verb, host, self.path, {k: v for k, v in told.items() if v is not None})
        self.pods.append(pod)
        return pod

    def stop(self) -> None:
        for pod in self.pods:
            pod.stop()


def as_operator(pod: Pod, method: str, path: str, body: Any = None) -> Any:
    """Ask a shard as the operator does: with the hop key, for the scope ``admin``."""
    caller = KnownCaller("system", "operator", frozenset({"admin", "*:read", "*:write"}))
    status, answer = ask(pod.host, method, path, dict(hop_headers(SECRET, caller)), body)
    assert status == 200, answer
    return answer
