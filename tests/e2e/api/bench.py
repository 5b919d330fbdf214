"""`make bench-operator`: how much an operator needs for many engines, on a real API server.

    python -m tests.e2e.api.bench --engines 100 --shards 1000 --active 10

Engines and their Shard objects are custom resources without pods. `active` of the engines have all
of their children (one shard); the others are paused, so that the operator watches them, plans for
them and reports about them, and makes nothing. What is measured:

    first start    from the start of the process until every engine has its first report
    cold start     of another one, over a world that is as wished, until it answers a change
    memory         of that process, resident, at the end and at most
    event, action  from the API server's answer to a change of a spec until the child has it
    idle writes    that the API server counts in a minute in which nothing changes
"""

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from tests.e2e.api.controllers import APPS, Controllers
from tests.e2e.api.operators import ENGINES
from tests.servers.kubernetes import ApiServer
from tests.servers.ports import free_ports
from tests.servers.serving import serving

SHARDS: Final = "/apis/ultraengine.io/v1alpha1/namespaces/default/shards"
MERGE: Final = "application/merge-patch+json"
API: Final = "ultraengine.io/v1alpha1"
WRITES: Final = re.compile(
    r'^apiserver_request_total\{.*resource="(\w+)".*verb="(?:POST|PUT|PATCH|APPLY|DELETE)"\} (\d+)',
    re.MULTILINE,
)
EVENTS: Final = 100
IDLE_S: Final = 60
WAIT_S: Final = 1_800
_say = sys.stdout.write


def until(holds: Callable[[], bool], pause_s: float = 0.2) -> None:
    """Wait for what must come."""
    end = time.monotonic() + WAIT_S
    while not holds():
        if time.monotonic() > end:
            raise SystemExit("it did not come to pass")
        time.sleep(pause_s)


def engine(number: int, *, active: bool) -> dict[str, Any]:
    """One engine as it is applied."""
    spec = {"image": "ultraengine:1", "shards": 1, "replicasPerShard": 1,
            "reconciliation": "Active" if active else "Paused"}  # fmt: skip
    return {"apiVersion": API, "kind": "UltraEngine", "metadata": {"name": f"e{number}"},
            "spec": spec}  # fmt: skip


def shard(of: dict[str, Any], number: int) -> dict[str, Any]:
    """A Shard object as the operator would have made it."""
    name = of["metadata"]["name"]
    labels = {
        "app.kubernetes.io/name": "ultraengine", "app.kubernetes.io/instance": name,
        "ultraengine.io/engine": name, "ultraengine.io/shard": str(number),
    }  # fmt: skip
    owner = {"apiVersion": API, "kind": "UltraEngine", "name": name, "controller": True,
             "uid": of["metadata"]["uid"]}  # fmt: skip
    return {
        "apiVersion": API, "kind": "Shard",
        "metadata": {"name": f"{name}-shard-{number}", "labels": labels,
                     "ownerReferences": [owner]},
        "spec": {"engine": name, "shard": number, "slots": ["0-4095"], "replicas": 1},
    }  # fmt: skip


def populate(server: ApiServer, engines: int, shards: int, active: int) -> None:
    """Make everything, with a few connections."""
    mine = threading.local()

    def post(path: str, content: dict[str, Any]) -> dict[str, Any]:
        if not hasattr(mine, "client"):
            mine.client = server.another_client()
        answer = mine.client.request("POST", path, content)
        if answer.status != 201:
            raise SystemExit(answer.message)
        body: dict[str, Any] = answer.body
        return body

    with ThreadPoolExecutor(4) as pool:
        wanted = [engine(number, active=number < active) for number in range(engines)]
        made = list(pool.map(post, itertools.repeat(ENGINES), wanted))
        rest = made[active:]
        each = shards // len(rest) if rest else 0
        objects = [shard(one, number) for one in rest for number in range(each)]
        list(pool.map(post, itertools.repeat(SHARDS), objects))


def start(server: ApiServer, name: str) -> subprocess.Popen[bytes]:
    """An operator as a process."""
    (port,) = free_ports(1)
    environ = {
        **os.environ, "KUBECONFIG": str(server.kubeconfig), "POD_NAME": name,
        "POD_NAMESPACE": "default", "LEASE_NAME": "operator", "LIVENESS_PORT": str(port),
    }  # fmt: skip
    program = str(Path(sys.executable).with_name("ultra-operator"))
    with (server.directory / f"{name}.log").open("wb") as log:
        return subprocess.Popen([program], env=environ, stdout=log, stderr=log)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End an operator as a cluster does; it gives its Lease back."""
    process.terminate()
    process.wait(60)


def memory(process: subprocess.Popen[bytes]) -> dict[str, int]:
    """Resident MiB, now and at most."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", text, re.MULTILINE))
    return {"resident_mib": int(found["VmRSS"]) // 1024, "at_most_mib": int(found["VmHWM"]) // 1024}


def writes(server: ApiServer) -> dict[str, int]:
    """Writes that the API server has counted, by resource."""
    found: dict[str, int] = {}
    for resource, count in WRITES.findall(server.kubectl("get", "--raw", "/metrics")):
        found[resource] = found.get(resource, 0) + int(count)
    return found


def change(server: ApiServer, number: int, gateways: int) -> float:
    """Change an active engine; seconds until its Deployment has the number."""
    wish = {"spec": {"gateway": {"replicas": gateways}}}
    answer = server.request("PATCH", f"{ENGINES}/e{number}", wish, content_type=MERGE)
    if answer.status != 200:
        raise SystemExit(answer.message)
    began = time.perf_counter()
    place = f"{APPS}/deployments/e{number}-gateway"
    until(lambda: server.request("GET", place).body["spec"].get("replicas") == gateways, 0.001)
    return time.perf_counter() - began


def reported(server: ApiServer) -> bool:
    """Whether every engine has a report, and those that are not paused are ready."""
    items = server.request("GET", ENGINES).body["items"]
    told = [{one["type"]: one["status"] for one in item["status"].get("conditions", ())}
            for item in items]  # fmt: skip
    return all(one.get("Paused") == "True" or one.get("Ready") == "True" for one in told)


def measure(server: ApiServer, engines: int, shards: int, active: int) -> dict[str, Any]:
    """All figures."""
    populate(server, engines, shards, active)
    controllers = Controllers(server)

    def all_reported() -> bool:
        controllers.step()
        return reported(server)

    began = time.perf_counter()
    first = start(server, "first")
    until(all_reported, 1.0)
    figures: dict[str, Any] = {"first_start_s": round(time.perf_counter() - began, 1)}
    stop(first)

    began = time.perf_counter()
    second = start(server, "second")
    change(server, 0, 3)
    figures["cold_start_s"] = round(time.perf_counter() - began, 1)
    until(all_reported, 1.0)
    taken = sorted(
        change(server, number % active, 4 + number // active % 2) for number in range(EVENTS)
    )
    figures["event_to_action_ms"] = {
        "median": round(statistics.median(taken) * 1_000, 1),
        "p99": round(taken[round(len(taken) * 0.99) - 1] * 1_000, 1),
    }
    until(all_reported, 1.0)
    time.sleep(10)  # Events are told behind the loop.
    before = writes(server)
    time.sleep(IDLE_S)
    after = writes(server)
    # A Lease says who leads; the API server renews its own beside it.
    figures["idle_writes_per_minute"] = {
        name: count - before.get(name, 0)
        for name, count in after.items()
        if count != before.get(name, 0) and name != "leases"
    }
    figures["memory"] = memory(second)
    stop(second)
    return figures


def main() -> None:
    """Measure once and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", type=int, default=100)
    parser.add_argument("--shards", type=int, default=1_000)
    parser.add_argument("--active", type=int, default=10)
    asked = parser.parse_args()
    with serving(ApiServer()) as server:
        server.install_crds()
        _say(json.dumps({**vars(asked), **measure(server, **vars(asked))}, indent=1) + "\n")


if __name__ == "__main__":
    main()
