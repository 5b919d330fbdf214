"""A real engine for the verbs that talk to one, and the directory of a stopped one."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ultraengine.cli.main import main

Ultra = Callable[..., tuple[int, str, str]]
ULTRA = Path(sys.executable).with_name("ultra")


@pytest.fixture
def ultra(capsys: pytest.CaptureFixture[str]) -> Ultra:
    """Runs a command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


class Dev:
    """A running `ultra dev` on a port that it chose."""

    def __init__(self, data: Path, *more: str) -> None:
        self.data = data
        self._process = subprocess.Popen(
            [ULTRA, "dev", "--data", data, "--port", "0", "--no-sql", *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "Ctrl-C" in line:
                break
        self.banner = "".join(said)
        found = re.search(r"address +(http://\S+)", self.banner)
        assert found is not None, self.banner
        self.url = found[1]

    def stop(self) -> int:
        """SIGINT, as Ctrl-C sends it; returns the exit code."""
        self._process.terminate()
        self._process.communicate(timeout=60)
        return self._process.returncode


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """An engine for the tests of a module; each uses a book of its own.  Longer-lived it would be a
    child process that other tests do not expect."""
    process = Dev(tmp_path_factory.mktemp("dev") / "data")
    yield process
    process.stop()


@pytest.fixture(scope="session")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of an engine that booked one transfer, took snapshots and stopped."""
    process = Dev(tmp_path_factory.mktemp("stopped") / "data")
    limitless = {"id": "a", "asset": "USD/2", "min_balance": None}
    sends = [
        ("ledger.open_accounts", {"accounts": [limitless, {"id": "b", "asset": "USD/2"}]}),
        (
            "ledger.create_transfers",
            {"transfers": [{"id": "t", "from": "a", "to": "b", "amount": "7"}]},
        ),
    ]
    for kind, data in sends:
        subprocess.run(
            [ULTRA, "send", kind, "--key", "k", "--data", json.dumps(data), "--url", process.url],
            check=True,
            capture_output=True,
        )
        subprocess.run(
            [sys.executable, "-c", SNAPSHOT, process.url], check=True, capture_output=True
        )
    assert process.stop() == 0
    return process.data


SNAPSHOT = """
import sys
from ultraengine.client import SyncClient
with SyncClient(sys.argv[1]) as client:
    client.operate("snapshot")
"""
