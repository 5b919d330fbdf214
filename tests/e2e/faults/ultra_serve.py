"""`ultra serve` with a small client of its own, to be hurt as a whole.

It is a program as `ultraengine.testing.process_faults` describes; names are command ids.
Each command moves one cent to the same account, so that its balance counts them.
"""

import argparse
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from ultraengine.testing.process_faults import BROKEN_PROMISE, CANNOT_START, FAILED

CLIENTS: Final = 3
RETRY_S: Final = 0.1
START_S: Final = 50.0
BOOK: Final = "book"
LIMITS: Final = {
    "SEGMENT_BYTES": 128 * 1024,
    "FRAME_BYTES_MAX": 64 * 1024,
    "GROUP_BYTES_MAX": 32 * 1024,
    "COMMAND_BYTES_MAX": 16 * 1024,
    "RESERVE_BYTES": 128 * 1024,
}


def say(text: str) -> None:
    os.write(2, f"{text}\n".encode())


class Server:
    """The process under test."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ULTRA_")}
        environment |= {f"ULTRA_LIMIT_{name}": str(value) for name, value in LIMITS.items()}
        environment |= {
            "ULTRA_DATA": str(arguments.data),
            "ULTRA_PORT": str(self.port),
            "ULTRA_ADMIN_PORT": str(self.port),
            "ULTRA_SNAPSHOT_COMMANDS": str(arguments.snapshot_commands),
        }
        if arguments.encrypt:
            keys = arguments.journal.parent / "keys"
            keys.mkdir(exist_ok=True)
            for name in ("disk", "chain"):
                (keys / name).write_text("hex:" + name.encode().hex().ljust(64, "0"))
            environment |= {"ULTRA_SECRETS": str(keys), "ULTRA_MASTER_KEY": "disk"}
            environment |= {"ULTRA_CHAIN_KEY": "chain", "ULTRA_COMPRESS": "true"}
        ultra = Path(sys.executable).with_name("ultra")
        self.process = subprocess.Popen([str(ultra), "serve"], env=environment, stdout=2)

    def is_ready(self) -> bool:
        """Wait until it serves; False when it ended instead."""
        deadline = time.monotonic() + START_S
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                if Caller(self.port).ask("GET", "/readyz")[0] == 200:
                    return True
            except (OSError, http.client.HTTPException, ValueError):
                pass
            time.sleep(0.02)
        return False

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait()


class Caller:
    """One connection.  Raises OSError and HTTPException when the server is not there."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        content = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"}
        self._connection.request(method, path, content, headers)
        reply = self._connection.getresponse()
        answer: dict[str, Any] = json.loads(reply.read())
        return reply.status, answer

    def send(self, name: str, kind: str, data: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return self.ask(
            "POST", "/v1/commands", {"id": name, "type": kind, "key": BOOK, "data": data}
        )

    def balance(self) -> int:
        status, account = self.ask("GET", f"/v1/ledger/{BOOK}/accounts/shop")
        return int(account["balance"]) if status == 200 else 0


def digest_of(reply: dict[str, Any]) -> str:
    """Of everything in a reply that must stay the same for ever."""
    lasting = {name: reply[name] for name in ("outcome", "result", "epoch", "offset", "time")}
    text = json.dumps(lasting, sort_keys=True).encode()
    return hashlib.blake2b(text, digest_size=8).hexdigest()


class Clients:
    """Send commands until they are told to stop or the server is gone."""

    def __init__(self, server: Server, journal: Path) -> None:
        self._server = server
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._run = os.urandom(4).hex()
        self._read_only = False
        self._mutex = threading.Lock()
        self.stopping = threading.Event()

    def run(self) -> None:
        accounts = [{"id": "payer", "asset": "USD/2", "min_balance": None}]
        accounts.append({"id": "shop", "asset": "USD/2"})
        self._until_answered(
            Caller(self._server.port), "open", "ledger.open_accounts", {"accounts": accounts}
        )
        threads = [threading.Thread(target=self._work, args=(n,)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self, number: int) -> None:
        caller = Caller(self._server.port)
        count = 0
        while not self.stopping.is_set():
            name = f"{self._run}-{number}-{count}"
            transfer = {"id": name, "from": "payer", "to": "shop", "amount": "1"}
            reply = self._until_answered(
                caller, name, "ledger.create_transfers", {"transfers": [transfer]}
            )
            if reply is None:
                return
            count += 1

    def _until_answered(
        self, caller: Caller, name: str, kind: str, data: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Send until there is an outcome; None when the server is gone or stops."""
        if name != "open":
            self._note(f"I {name} -\n")
        while True:
            try:
                status, reply = caller.send(name, kind, data)
            except (OSError, http.client.HTTPException, ValueError):
                return None
            if status == 200 and reply["outcome"] == "accepted":
                if name != "open":
                    self._note(f"A {name} {digest_of(reply)}\n")
                    self._turned(read_only=False)
                return reply
            if reply.get("code") == "READ_ONLY":
                self._turned(read_only=True)
            elif status not in {503, 504}:
                say(f"an answer nobody expects: {status} {reply}")
                os._exit(BROKEN_PROMISE)
            if self.stopping.wait(RETRY_S):
                return None

    def _turned(self, *, read_only: bool) -> None:
        with self._mutex:
            if read_only != self._read_only:
                self._read_only = read_only
                self._note("R\n" if read_only else "W\n")

    def _note(self, text: str) -> None:
        os.write(self._journal, text.encode())


def append(arguments: argparse.Namespace) -> int:
    server = Server(arguments)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if not server.is_ready():
        say(f"the server ended with {server.process.wait()}")
        return 0 if stop.is_set() else CANNOT_START
    clients = Clients(server, arguments.journal)
    work = threading.Thread(target=clients.run)
    work.start()
    while work.is_alive() and not stop.is_set():
        work.join(0.05)
    clients.stopping.set()
    # SIGTERM goes to the whole group, so the server has got it as well.
    code = server.process.wait()
    work.join()
    say(f"the server ended with {code}")
    return 0 if code == 0 and stop.is_set() else FAILED


def verify(arguments: argparse.Namespace) -> int:
    issued, acknowledged = set(), {}
    if arguments.journal.exists():
        for kind, *rest in map(str.split, arguments.journal.read_text().splitlines()):
            if kind == "I":
                issued.add(rest[0])
            elif kind == "A":
                acknowledged[rest[0]] = rest[1]
    server = Server(arguments)
    if not server.is_ready():
        say(f"the server ended with {server.process.wait()}")
        return CANNOT_START
    caller = Caller(server.port)
    done = {}
    for name in issued:
        status, answer = caller.ask("GET", f"/v1/commands/{name}?key={BOOK}")
        if status == 200 and answer["state"] == "done":
            done[name] = digest_of(answer["reply"])
    lost = [name for name, digest in acknowledged.items() if done.get(name) != digest]
    balance = caller.balance()
    code = server.stop()
    say(f"done {len(done)} acknowledged {len(acknowledged)} balance {balance}")
    if lost:
        say(f"lost: {lost[:10]}")
    if balance != len(done):
        say(f"a balance of {balance} after {len(done)} transfers")
    if code != 0:
        say(f"the server ended with {code}")
    return BROKEN_PROMISE if lost or balance != len(done) or code != 0 else 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["append", "verify"])
    parser.add_argument("data", type=Path)
    parser.add_argument("journal", type=Path)
    parser.add_argument("--snapshot-commands", type=int, default=0)
    parser.add_argument("--encrypt", action="store_true")
    arguments = parser.parse_args()
    return append(arguments) if arguments.mode == "append" else verify(arguments)


if __name__ == "__main__":
    sys.exit(main())
