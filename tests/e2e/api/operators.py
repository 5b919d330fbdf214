"""Operators as processes on a real API server, and how a story waits for what they bring about."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio import client, config
from tests.e2e.api.controllers import Controllers, let_through
from tests.servers.kubernetes import APPLY, ApiServer

from ultraengine.model.candidate import Verdict
from ultraengine_operator.drivers.kubernetes import KubernetesCluster

ENGINES = "/apis/ultraengine.io/v1alpha1/namespaces/default/ultraengines"
WAIT_S = 90
Operators = Callable[[str], subprocess.Popen[bytes]]


@asynccontextmanager
async def connected(server: ApiServer) -> AsyncIterator[KubernetesCluster]:
    """The API server as an operator in this process talks to it."""
    settings = client.Configuration()
    await config.load_kube_config(  # type: ignore[no-untyped-call]
        config_file=str(server.kubeconfig), client_configuration=settings
    )
    async with client.ApiClient(settings) as api:
        yield KubernetesCluster(api)


@pytest.fixture
def operators(api_server: ApiServer, tmp_path: Path) -> Iterator[Operators]:
    """Starts an operator under a name; all are stopped afterwards."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str) -> subprocess.Popen[bytes]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environ = {
            **os.environ, "KUBECONFIG": str(api_server.kubeconfig), "POD_NAME": name,
            "POD_NAMESPACE": "default", "LEASE_NAME": "operator", "LIVENESS_PORT": str(port),
        }  # fmt: skip
        program = str(Path(sys.executable).with_name("ultra-operator"))
        with (tmp_path / f"{name}.log").open("wb") as log:
            started.append(subprocess.Popen([program], env=environ, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    for path in sorted(tmp_path.glob("*.log")):
        sys.stderr.write(f"--- {path.name}\n{path.read_text()[-4000:]}")


def apply(server: ApiServer, name: str, **spec: Any) -> dict[str, Any]:
    content = {
        "apiVersion": "ultraengine.io/v1alpha1", "kind": "UltraEngine",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"image": "ultraengine:1", "shards": 2, "replicasPerShard": 1, **spec},
    }  # fmt: skip
    answer = server.request(
        "PATCH", f"{ENGINES}/{name}", content, content_type=APPLY, fieldManager="person"
    )
    assert answer.status in (200, 201), answer.message
    return answer.body


def seen(server: ApiServer, name: str) -> dict[str, Any]:
    """The engine's conditions by type, with the generation that they are about."""
    status = server.request("GET", f"{ENGINES}/{name}").body.get("status", {})
    found = {one["type"]: (one["status"], one["reason"]) for one in status.get("conditions", ())}
    return {"generation": status.get("observedGeneration"), **found}


def until(
    server: ApiServer,
    holds: Callable[[], bool],
    judge: Callable[[int], Verdict | None] = let_through,
) -> None:
    controllers = Controllers(server, judge)
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end, "it did not come to pass"
        controllers.step()
        time.sleep(0.2)


def ready(server: ApiServer, name: str, generation: int) -> Callable[[], bool]:
    wanted = {"generation": generation, "Ready": ("True", "AsWished"),
              "Available": ("True", "Serving")}  # fmt: skip
    return lambda: seen(server, name) == wanted
