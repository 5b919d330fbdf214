"""An API server that keeps one Lease, over HTTPS, with faults on demand.

What it does of the real one is what a compare-and-swap depends on: a PUT lands when its uid and
resourceVersion are those of the stored object, and changes the second. The same contract suite
runs against a real API server in `tests/e2e/api`.
"""

import contextlib
import json
import ssl
import threading
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.servers.certificates import Authority

TOKEN = "token-of-the-pod"  # noqa: S105  (of this file's server alone)


class LeaseServer:
    """One Lease, or none; `faults` are used up by PUTs, one each.

    ``lost``: the connection ends before anything is done.  ``cut``: it ends after.
    A number: that status, and nothing is done.
    """

    def __init__(self, directory: Path) -> None:
        authority = Authority("lease-test")
        certificate, key = authority.issue("server", "")
        for name, content in (
            ("s.crt", certificate),
            ("s.key", key),
            ("ca.crt", authority.certificate),
        ):
            (directory / name).write_bytes(content)
        self.authority = directory / "ca.crt"
        self.lease: dict[str, Any] | None = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "shop-shard-0", "uid": "u1", "resourceVersion": "1"},
        }
        self.faults: deque[str | int] = deque()
        self.tokens: list[str | None] = []
        self._lock = threading.Lock()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(directory / "s.crt", directory / "s.key")
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self.port = int(self._http.server_address[1])

    def touch(self) -> None:
        """Somebody else writes the Lease and leaves the record as it is."""
        assert self.lease is not None
        meta = self.lease["metadata"]
        meta["resourceVersion"] = str(int(meta["resourceVersion"]) + 1)

    def put(self, wish: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            if self.lease is None:
                return 404, {"reason": "NotFound"}
            held, asked = self.lease["metadata"], wish["metadata"]
            if (asked.get("uid"), asked.get("resourceVersion")) != (
                held["uid"], held["resourceVersion"],
            ):  # fmt: skip
                return 409, {"reason": "Conflict"}
            self.lease = wish
            self.touch()
            return 200, self.lease

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def _say(self, status: int, body: Any) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:
                server.tokens.append(self.headers.get("Authorization"))
                assert self.path.endswith("/namespaces/bank/leases/shop-shard-0")
                found = server.lease
                self._say(200 if found else 404, found or {"reason": "NotFound"})

            def do_PUT(self) -> None:
                wish = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fault = server.faults.popleft() if server.faults else ""
                if isinstance(fault, int):
                    self._say(fault, {"reason": "as told"})
                    return
                if fault != "lost":
                    status, body = server.put(wish)
                    if fault != "cut":
                        self._say(status, body)
                        return
                self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                del format, args

        return Handler

    @contextlib.contextmanager
    def serving(self) -> Iterator["LeaseServer"]:
        """While it listens."""
        thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()
