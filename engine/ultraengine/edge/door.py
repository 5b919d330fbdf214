"""The thread that accepts connections and answers ``/healthz`` by itself.

A liveness probe must be answered while the event loop is busy with a large group, and it
comes to the same port as everything else.  So a thread of its own accepts, looks at the
first bytes without taking them, answers health probes, and hands every other connection to
the event loop.  Health requests later on a kept-alive connection are answered by the loop.

A connection that says nothing for `FIRST_BYTES_S` is closed, and costs the loop nothing.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from ultraengine.edge.health import Heartbeat, health_bytes

BACKLOG: Final = 1_024
FIRST_BYTES_S: Final = 10.0
"""Longest silence of a new connection."""
SILENT_MAX: Final = 1_024
"""New connections that have not said anything yet; beyond it no more are accepted."""
_PROBES: Final = (b"GET /healthz ", b"HEAD /healthz ")
_PEEK_BYTES: Final = 16
_log = structlog.get_logger("ultraengine.gateway")


class Door(NamedTuple):
    """One listening socket and what takes its connections (called on this thread)."""

    listener: socket.socket
    take: Callable[[socket.socket], None]
    has_room: Callable[[], bool]


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 chooses a free one.  Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)  # noqa: FBT003  (the name of the argument is the method's)
    except OSError:
        listener.close()
        raise
    return listener


def listen_at(path: Path) -> socket.socket:
    """A listening Unix socket for this user alone; an old socket file is replaced.

    Raises OSError.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
        listener.setblocking(False)  # noqa: FBT003  (the name of the argument is the method's)
    except OSError:
        listener.close()
        raise
    return listener


class Doorkeeper:
    """Accepts for all doors until `close`."""

    def __init__(
        self, doors: Sequence[Door], heartbeat: Heartbeat, monotonic: Callable[[], float]
    ) -> None:
        self._doors = doors
        self._monotonic = monotonic
        """Clock of the heartbeat, in seconds; called on this thread."""
        self._heartbeat = heartbeat
        self._selector = selectors.DefaultSelector()
        self._silent: dict[socket.socket, tuple[Door, float]] = {}
        self._wake_in, self._wake_out = socket.socketpair()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="gateway-door", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        for door in self._doors:
            self._selector.register(door.listener, selectors.EVENT_READ, door)
        self._thread.start()

    def close(self, *, keep_listeners: bool = False) -> None:
        """Stop accepting.  The listening sockets are closed, and connections that have said
        nothing yet, too; unless somebody goes on with the listeners: then the doors take these.
        Idempotent."""
        if self._stopping:
            return
        self._stopping = True
        self._wake_out.send(b"x")
        self._thread.join()
        for connection, (door, _) in list(self._silent.items()):
            self._forget(connection)
            if keep_listeners:
                door.take(connection)
            else:
                connection.close()
        for door in () if keep_listeners else self._doors:
            door.listener.close()
        self._wake_in.close()
        self._wake_out.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select(1.0):
                if isinstance(key.data, Door):
                    self._accept(key.data)
                elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._silent:
                    self._first_bytes(key.fileobj)
            self._drop_silent(self._monotonic())

    def _accept(self, door: Door) -> None:
        if len(self._silent) >= SILENT_MAX or not door.has_room():
            # The kernel's queue holds the others meanwhile; waiting a moment keeps this
            # thread from spinning on a listener that stays readable.
            time.sleep(0.01)
            return
        try:
            connection, _ = door.listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            _log.warning("accept.failed", error=str(error))
            time.sleep(0.01)
            return
        connection.setblocking(False)  # noqa: FBT003  (the name of the argument is the method's)
        self._silent[connection] = (door, self._monotonic() + FIRST_BYTES_S)
        self._selector.register(connection, selectors.EVENT_READ)

    def _forget(self, connection: socket.socket) -> socket.socket:
        self._selector.unregister(connection)
        del self._silent[connection]
        return connection

    def _first_bytes(self, connection: socket.socket) -> None:
        door, _ = self._silent[connection]
        self._forget(connection)
        try:
            first = connection.recv(_PEEK_BYTES, socket.MSG_PEEK)
        except OSError:
            first = b""
        if not first:
            connection.close()
        elif first.startswith(_PROBES):
            self._answer(connection, head=first.startswith(b"HEAD"))
        else:
            door.take(connection)

    def _answer(self, connection: socket.socket, *, head: bool) -> None:
        """Answer a probe and close.  The request is taken first: closing a socket with unread
        bytes resets it, and the answer might be lost."""
        answer = self._heartbeat.answer(self._monotonic())
        with contextlib.suppress(OSError):
            connection.recv(65_536)
            connection.send(health_bytes(answer, head=head))
            connection.shutdown(socket.SHUT_WR)
        connection.close()

    def _drop_silent(self, now: float) -> None:
        late = [connection for connection, (_, until) in self._silent.items() if until < now]
        for connection in late:
            self._forget(connection).close()
