"""A real API server for tests: etcd and kube-apiserver, started by the test session itself.

As plain processes on ports of the loopback interface, with certificates made for this run and a
directory of its own; nothing of the machine is touched and no container is needed.  There are no
nodes and no controllers: what is stored stays as it was stored, which is what tests of CRDs, RBAC
and manifests ask about.  The programs are one executable that the lab builds from Go modules
(`hack/lab`); without it the tests are skipped and say so.
"""

import contextlib
import copy
import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
import yaml
from tests.servers.certificates import Authority
from tests.servers.crds import FILES, ROOT, crd
from tests.servers.ports import free_ports
from tests.servers.serving import serving

START_S = 120
STOP_S = 30
TRIES = 5
"""A port that was free a moment ago may be taken by another process: then others are tried."""
IDLE_S = 30
"""A connection that was silent for longer is made anew: the server closes one after 90 seconds."""
JSON = "application/json"
APPLY = "application/apply-patch+yaml"


def kubelab() -> Path:
    """Where the lab keeps the executable with all parts of Kubernetes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("ULTRA_KUBELAB") or cache / "ultraengine-lab/bin/kubelab")


class Answer(msgspec.Struct, frozen=True):
    """Of the API server: HTTP's status and the body."""

    status: int
    body: dict[str, Any]

    @property
    def message(self) -> str:
        """What a refusal says."""
        return str(self.body.get("message", ""))


class ApiServer:
    """One API server with its own etcd; started empty."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="ultra-kube-", dir="/tmp"))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connection: http.client.HTTPSConnection | None = None
        self._used_s = 0.0
        self.port = 0
        authority = Authority("ultraengine-test")
        for name, organization in (("server", ""), ("admin", "system:masters")):
            certificate, key = authority.issue(name, organization)
            (self.directory / f"{name}.crt").write_bytes(certificate)
            (self.directory / f"{name}.key").write_bytes(key)
        (self.directory / "ca.crt").write_bytes(authority.certificate)
        self._tls = ssl.create_default_context(cafile=str(self.directory / "ca.crt"))
        self._tls.load_cert_chain(self.directory / "admin.crt", self.directory / "admin.key")

    def start(self) -> None:
        """Start both and wait until the API server is ready."""
        until = time.monotonic() + START_S
        for _ in range(TRIES):
            client, peer, self.port = free_ports(3)
            self._run("etcd", *self._etcd(client, peer))
            self._run("kube-apiserver", *self._apiserver(client))
            while all(one.poll() is None for one in self._processes):
                if self._ready():
                    self._write_kubeconfig()
                    return
                assert time.monotonic() < until, self.log()
                time.sleep(0.1)
            self.stop()
        raise AssertionError(self.log())

    def _etcd(self, client: int, peer: int) -> list[str]:
        return [
            f"--data-dir={self.directory}/etcd",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
        ]

    def _apiserver(self, etcd: int) -> list[str]:
        at = self.directory
        return [
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={at}/certificates",
            f"--tls-cert-file={at}/server.crt", f"--tls-private-key-file={at}/server.key",
            f"--client-ca-file={at}/ca.crt",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={at}/server.key",
            f"--service-account-signing-key-file={at}/server.key",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--endpoint-reconciler-type=none",
            "--authorization-mode=RBAC",
            # No controller makes the account that this one waits for.
            "--disable-admission-plugins=ServiceAccount",
        ]  # fmt: skip

    def _run(self, part: str, *arguments: str) -> None:
        with (self.directory / f"{part}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    [kubelab(), part, *arguments], stdout=log, stderr=log, cwd=self.directory
                )
            )

    def _ready(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.request("GET", "/readyz").status == 200
        return False

    def request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        content_type: str = JSON,
        **query: str,
    ) -> Answer:
        """One request as the administrator, checked strictly."""
        idle_s = time.monotonic() - self._used_s
        if self._connection is not None and idle_s > IDLE_S:
            self._connection.close()
            self._connection = None
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, context=self._tls, timeout=60
            )
        options = {"fieldValidation": "Strict", **query} if method != "GET" else query
        try:
            self._connection.request(
                method, f"{path}?{urlencode(options)}",
                None if body is None else json.dumps(body), {"Content-Type": content_type},
            )  # fmt: skip
            response = self._connection.getresponse()
            text = response.read()
            self._used_s = time.monotonic()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self._connection = None
            raise
        is_json = response.headers.get_content_type() == JSON
        return Answer(response.status, json.loads(text) if is_json else {})

    def another_client(self) -> "ApiServer":
        """The same server with a connection of its own, for another thread."""
        other = copy.copy(self)
        other._connection = None
        return other

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints, as the administrator."""
        done = self.try_kubectl(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def try_kubectl(
        self, *arguments: str, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The same where a refusal is expected."""
        return subprocess.run(
            [kubelab(), "kubectl", f"--kubeconfig={self.kubeconfig}",
             f"--cache-dir={self.directory}/kubectl", *arguments],
            input=stdin, capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip

    @property
    def kubeconfig(self) -> Path:
        """For kubectl and other clients."""
        return self.directory / "kubeconfig"

    def _write_kubeconfig(self) -> None:
        at = self.directory
        name = "test"
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {
                "server": f"https://127.0.0.1:{self.port}", "certificate-authority": f"{at}/ca.crt",
            }}],
            "users": [{"name": name, "user": {
                "client-certificate": f"{at}/admin.crt", "client-key": f"{at}/admin.key",
            }}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }  # fmt: skip
        self.kubeconfig.write_text(yaml.safe_dump(content))

    def install_crds(self) -> None:
        """Create the CRDs and wait until they are served."""
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        for kind in FILES:
            answer = self.request("POST", path, crd(kind))
            assert answer.status == 201, answer.message
        until = time.monotonic() + START_S
        for kind in FILES:
            name = crd(kind)["metadata"]["name"]
            while not self._served(f"{path}/{name}"):
                assert time.monotonic() < until, self.log()
                time.sleep(0.05)

    def _served(self, path: str) -> bool:
        found = self.request("GET", path).body
        told = found.get("status", {}).get("conditions", [])
        if not any(one["type"] == "Established" and one["status"] == "True" for one in told):
            return False
        plural = found["spec"]["names"]["plural"]
        return self.request("GET", f"/apis/ultraengine.io/v1alpha1/{plural}").status == 200

    def log(self) -> str:
        """The end of what both said."""
        return "\n".join(
            path.read_text(errors="replace")[-3000:] for path in self.directory.glob("*.log")
        )

    def stop(self) -> None:
        """Stop both, the API server first.  Idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def remove(self) -> None:
        """Stop both and remove their data."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture(scope="session")
def empty_api_server() -> Iterator[ApiServer]:
    """A server without anything of ours."""
    if not kubelab().exists():
        pytest.skip(f"{kubelab()} is missing: hack/lab builds it, or ULTRA_KUBELAB names it")
    with serving(ApiServer()) as server:
        yield server


@pytest.fixture(scope="session")
def api_server(empty_api_server: ApiServer) -> ApiServer:
    """The server of this test process, with the CRDs."""
    empty_api_server.install_crds()
    return empty_api_server
