"""A namespace of the lab's cluster, through kubectl of the cluster's own version.

kubectl and not a Python client: what a test does to the cluster can then be repeated by hand, and
the client cannot be of another version than the API server.
"""

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CONTEXTS = "kind-ultraengine"
"""Tests delete namespaces and kill nodes: they touch only contexts whose name begins so."""
WAIT_S = 180.0
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "ultraengine-lab"
KUBECONFIG = Path(os.environ.get("KUBECONFIG", str(CACHE / "kubeconfig")))
CONTEXT = os.environ.get("ULTRA_E2E_CONTEXT", "kind-ultraengine")


class RefusedContext(Exception):
    """The context is not one of the lab's."""


def checked_context(name: str) -> str:
    if name != CONTEXTS and not name.startswith(CONTEXTS + "-"):
        raise RefusedContext(
            f"these tests delete and kill: {name!r} is not {CONTEXTS} or {CONTEXTS}-…; "
            "run hack/lab/lab up and unset ULTRA_E2E_CONTEXT"
        )
    return name


def run(*command: str, stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def until(
    what: str,
    holds: Callable[[], bool],
    seen: Callable[[], Any] = lambda: "",
    *,
    every_s: float = 0.2,
    wait_s: float = WAIT_S,
) -> None:
    """Poll; what is awaited is a state, and only its absence for very long is a failure."""
    end = time.monotonic() + wait_s
    while not holds():
        assert time.monotonic() < end, f"not within {wait_s:.0f} s: {what} {seen()}"
        time.sleep(every_s)


class Namespace:
    """One namespace; every verb is a kubectl line."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._kubectl = (
            str(CACHE / "bin" / "kubectl"),
            f"--kubeconfig={KUBECONFIG}",
            f"--context={checked_context(CONTEXT)}",
            # Emptied by the lab when it installs CRDs: kubectl would know old ones for ten minutes.
            f"--cache-dir={CACHE / 'discovery'}",
            f"--namespace={name}",
        )

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return run(*self._kubectl, *arguments, stdin=stdin)

    def apply(self, *manifests: dict[str, Any]) -> None:
        items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(items))

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        text = self.kubectl("get", kind, name, "--ignore-not-found", "--output=json")
        return json.loads(text) if text else None

    def wait_ready(self, pod: str, *, besides: str = "", restarts_min: int = 0) -> dict[str, Any]:
        """The pod once it is ready: another than `besides` (a uid), restarted so often."""
        found: dict[str, Any] = {}

        def ready() -> bool:
            found.clear()
            found.update(self.get("pod", pod) or {})
            if not found or found["metadata"]["uid"] == besides:
                return False
            states = found["status"].get("containerStatuses", [])
            return bool(states) and all(
                state["ready"] and state["restartCount"] >= restarts_min for state in states
            )

        until(f"pod {pod} ready", ready)
        return found

    @contextmanager
    def forward(self, pod: str, port: int) -> Iterator[str]:
        """The address on this machine that leads to the pod's port for a while."""
        process = subprocess.Popen(
            [*self._kubectl, "port-forward", "--address=127.0.0.1", f"pod/{pod}", f":{port}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                assert line.startswith("Forwarding from"), f"no way to {pod}:{port}: {line!r}"
                yield "http://" + line.split()[2]
            finally:
                process.terminate()

    def keep(self, directory: Path) -> None:
        """Write down what a reader of the failure needs: logs, events, objects."""
        directory.mkdir(parents=True, exist_ok=True)
        kinds = (
            "ultraengines,shards,pods,statefulsets,deployments,services,persistentvolumeclaims,"
            "leases,configmaps"
        )
        self._keep(directory / "objects.yaml", "get", kinds, "--output=yaml")
        self._keep(directory / "events.txt", "get", "events", "--sort-by=.lastTimestamp")
        for pod in self.kubectl("get", "pods", "--output=name").split():
            name = pod.removeprefix("pod/")
            self._keep(directory / f"{name}.log", "logs", name, "--all-containers")
            self._keep(directory / f"{name}.before.log", "logs", name, "--previous")

    def _keep(self, file: Path, *arguments: str) -> None:
        done = subprocess.run(
            [*self._kubectl, *arguments], capture_output=True, text=True, check=False
        )
        file.write_text(done.stdout + done.stderr)


@contextmanager
def new_namespace() -> Iterator[Namespace]:
    """A namespace under restricted pod security, for as long as it is needed."""
    made = Namespace(f"e2e-{uuid.uuid4().hex[:8]}")
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": made.name,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    }
    made.apply(body)
    try:
        yield made
    finally:
        made.kubectl("delete", "namespace", made.name, "--wait=false")
