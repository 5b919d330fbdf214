"""Starts the servers that are compared, on free ports, with their data on the same disk, and
the load generator.

Each is stopped by the process id that was started here, and nothing else is touched.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

STOP_S = 20
START_S = 60


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find(program: str) -> str:
    """Where a server program is.  Raises SystemExit with what to install."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    found = shutil.which(program) or (str(debian[-1]) if debian else None)
    if found is None:
        raise SystemExit(f"{program} is not installed; run hack/bench-packages.sh first")
    return found


@contextlib.contextmanager
def running(command: Sequence[str], log: Path, stop: signal.Signals) -> Iterator[int]:
    """Run a server and stop it at the end; yields its process id."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield process.pid
        finally:
            process.send_signal(stop)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_port(port: int) -> None:
    """Until somebody accepts connections there."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port} after {START_S} s")


def pinned(command: Sequence[str], core: int | None) -> list[str]:
    """The command on one core, where there are several."""
    if core is None or (os.cpu_count() or 1) <= core:
        return list(command)
    return ["taskset", "-c", str(core), *command]


def load(
    port: int,
    shape: str,
    items: int,
    clients: int,
    requests: int,
    run: str,
    *,
    rate: float = 0.0,
    accounts: int = 10_000,
    book: str = "bench",
    core: int | None = 1,
) -> dict[str, object]:
    """Run the load generator as a process of its own, on the other core where there is one."""
    options = {"port": port, "shape": shape, "items": items, "clients": clients, "run": run,
               "requests": requests, "rate": rate, "accounts": accounts, "book": book}  # fmt: skip
    command = [sys.executable, str(Path(__file__).parent / "load.py")]
    command += [f"--{name}={value}" for name, value in options.items()]
    done = subprocess.run(pinned(command, core), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the load failed: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout))


def memory_mib(pid: int, name: str) -> float:
    """``VmRSS`` or ``VmHWM`` of a process, from the kernel."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"process {pid} has no {name}")


@contextlib.contextmanager
def ultra(
    directory: Path,
    *options: str,
    core: int | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[tuple[int, int]]:
    """An engine alone, with its data in `directory`; yields (port, process id)."""
    port = free_port()
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ultraengine.cli.main", "dev", "--port", str(port),
               "--data", str(directory / "data"), "--no-sql", *options]  # fmt: skip
    with running(pinned(command, core), directory / "engine.log", stop) as pid:
        until = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).close()
                break  # Anything but a 200 raises.
            if time.monotonic() > until:
                raise SystemExit(f"the engine is not ready; see {directory / 'engine.log'}")
            time.sleep(0.05)
        yield port, pid


@contextlib.contextmanager
def postgres(directory: Path) -> Iterator[tuple[int, list[str]]]:
    """A PostgreSQL with its defaults for durability; yields (port, prefix of client commands)."""
    port = free_port()
    directory.mkdir(parents=True, exist_ok=True)
    # initdb and postgres refuse to run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    data = directory / "pgdata"
    if as_user:
        shutil.chown(directory, "postgres", "postgres")
        for parent in directory.resolve().parents:
            if parent != Path("/") and not os.access(parent, os.X_OK):
                raise SystemExit(f"{parent} cannot be entered by the user postgres")
    with (directory / "initdb.log").open("wb") as log:
        subprocess.run([*as_user, find("initdb"), "-D", str(data), "-U", "bench", "-A", "trust"],
                       check=True, stdout=log, stderr=log)  # fmt: skip
    command = [*as_user, find("postgres"), "-D", str(data), "-p", str(port),
               "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={directory}",
               "-c", "shared_buffers=512MB", "-c", "max_connections=200"]  # fmt: skip
    with running(command, directory / "postgres.log", signal.SIGINT):
        wait_for_port(port)
        yield port, ["-h", "127.0.0.1", "-p", str(port), "-U", "bench"]


@contextlib.contextmanager
def redis(directory: Path) -> Iterator[int]:
    """A Redis that syncs its append-only file before every reply; yields its port."""
    port = free_port()
    directory.mkdir(parents=True, exist_ok=True)
    command = [find("redis-server"), "--port", str(port), "--bind", "127.0.0.1",
               "--dir", str(directory), "--appendonly", "yes", "--appendfsync", "always",
               "--save", ""]  # fmt: skip
    with running(command, directory / "redis.log", signal.SIGTERM):
        wait_for_port(port)
        yield port
