"""What the load generator speaks: HTTP/1.1 and WebSocket, as little of them as is needed.

Requests are complete before the clock starts: heads, frames and masks included.  Of an answer
only its length is parsed, and how many replies it holds and how many of them are accepted is
counted by their bytes; `verify` decodes samples afterwards, outside of what is timed.
"""

import base64
import os
import select
import socket
from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

RECEIVE_BYTES: Final = 1 << 18
_OUTCOME: Final = b"\xa7outcome"
_ACCEPTED: Final = b"\xa7outcome\xa8accepted"
"""The member as msgpack writes it: a short text, then a short text."""
_DECODE: Final = msgspec.msgpack.Decoder().decode


class Wire(Protocol):
    """How requests are framed, and where an answer ends."""

    def request(self, body: bytes) -> bytes:
        """Everything to send for one request."""

    def greet(self, connection: socket.socket) -> None:
        """What comes before the first request.  Raises SystemExit when it is refused."""

    def answer(self, data: bytes, commands: int) -> tuple[int, int] | None:
        """(end, accepted) of the answer to `commands` commands; None: more bytes are needed."""

    def replies(self, answer: bytes) -> list[dict[str, Any]]:
        """The decoded replies of a complete answer."""


class Http:
    """Keep-alive HTTP/1.1, msgpack both ways."""

    def __init__(self, port: int, path: str) -> None:
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost:{port}\r\n"
            "Content-Type: application/msgpack\r\nAccept: application/msgpack\r\n"
            "Content-Length: "
        )

    def request(self, body: bytes) -> bytes:
        """Head and body."""
        return f"{self._head}{len(body)}\r\n\r\n".encode() + body

    def greet(self, connection: socket.socket) -> None:
        """Nothing comes first."""

    def answer(self, data: bytes, commands: int) -> tuple[int, int] | None:
        """By Content-Length.  An answer that is no 200 accepts nothing."""
        del commands
        head_end = data.find(b"\r\n\r\n")
        if head_end < 0:
            return None
        at = data.index(b"Content-Length: ", 0, head_end) + 16
        end = head_end + 4 + int(data[at : data.index(b"\r", at)])
        if len(data) < end:
            return None
        return end, data.count(_ACCEPTED, head_end) if data[9:12] == b"200" else 0

    def replies(self, answer: bytes) -> list[dict[str, Any]]:
        """One reply, or those of a batch."""
        body = _DECODE(answer.partition(b"\r\n\r\n")[2])
        return body if isinstance(body, list) else [body]


class WebSocket:
    """RFC 6455, the client's side, for binary frames that are whole messages."""

    def __init__(self, port: int) -> None:
        self._port = port

    def request(self, body: bytes) -> bytes:
        """One masked frame."""
        mask = os.urandom(4)
        repeated = int.from_bytes((mask * (len(body) // 4 + 1))[: len(body)], "big")
        masked = (int.from_bytes(body, "big") ^ repeated).to_bytes(len(body), "big")
        size = len(body)
        if size < 126:
            head = bytes((0x82, 0x80 | size))
        elif size < 1 << 16:
            head = b"\x82\xfe" + size.to_bytes(2, "big")
        else:
            head = b"\x82\xff" + size.to_bytes(8, "big")
        return head + mask + masked

    def greet(self, connection: socket.socket) -> None:
        """The upgrade, and the engine's hello."""
        key = base64.b64encode(os.urandom(16)).decode()
        connection.sendall(
            f"GET /v1/stream HTTP/1.1\r\nHost: localhost:{self._port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: ultra.v1.msgpack\r\n\r\n".encode()
        )
        data = b""
        while True:
            head_end = data.find(b"\r\n\r\n")
            if head_end >= 0 and _frame_end(data, head_end + 4) is not None:
                break
            more = connection.recv(RECEIVE_BYTES)
            data += more
            if not more:
                raise SystemExit(f"the stream was refused: {data[:200]!r}")
        if not data.startswith(b"HTTP/1.1 101 "):
            raise SystemExit(f"the stream was refused: {data[:200]!r}")

    def answer(self, data: bytes, commands: int) -> tuple[int, int] | None:
        """As many frames as it takes until every command has its reply."""
        at = missing = 0
        missing, accepted = commands, 0
        while missing > 0:
            found = _frame_end(data, at)
            if found is None:
                return None
            start, end = found
            if data[at] == 0x88:
                raise SystemExit(f"the engine closed the stream: {data[start:end]!r}")
            missing -= data.count(_OUTCOME, start, end)
            accepted += data.count(_ACCEPTED, start, end)
            at = end
        return at, accepted

    def replies(self, answer: bytes) -> list[dict[str, Any]]:
        """The replies of all frames; protocol objects are left out."""
        found: list[dict[str, Any]] = []
        at = 0
        while (frame := _frame_end(answer, at)) is not None:
            body = _DECODE(answer[frame[0] : frame[1]])
            found += [
                one for one in (body if isinstance(body, list) else [body]) if "op" not in one
            ]
            at = frame[1]
        return found


def _frame_end(data: bytes, at: int) -> tuple[int, int] | None:
    """(start of the payload, end) of the unmasked frame at `at`; None: it is not all there."""
    if len(data) < at + 2:
        return None
    size, start = data[at + 1] & 0x7F, at + 2
    if size >= 126:
        start += 2 if size == 126 else 8
        if len(data) < start:
            return None
        size = int.from_bytes(data[at + 2 : start], "big")
    return (start, start + size) if len(data) >= start + size else None


class Connection:
    """One connection with at most one request under way."""

    def __init__(self, port: int, wire: Wire) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.since = 0.0
        """From when the answer under way is waited for."""
        self._wire = wire
        self._received = b""
        self._unsent = memoryview(b"")
        wire.greet(self.socket)

    def ask(self, request: bytes, commands: int) -> tuple[bytes, int]:
        """Send one request and wait for (answer, accepted); the socket blocks."""
        self.socket.sendall(request)
        while (found := self.receive(commands)) is None:
            pass
        return found

    def send(self, request: bytes, poll: select.epoll) -> None:
        """Send what goes; the rest when `poll` says that there is room."""
        sent = self.socket.send(request)
        if sent < len(request):
            self._unsent = memoryview(request)[sent:]
            poll.modify(self.socket, select.EPOLLIN | select.EPOLLOUT)

    def send_more(self, poll: select.epoll) -> None:
        """There is room again."""
        self._unsent = self._unsent[self.socket.send(self._unsent) :]
        if not self._unsent:
            poll.modify(self.socket, select.EPOLLIN)

    def receive(self, commands: int) -> tuple[bytes, int] | None:
        """Take bytes; (answer, accepted) once the answer is complete."""
        data = self.socket.recv(RECEIVE_BYTES)
        if not data:
            raise SystemExit("the engine closed a connection")
        if self._received:
            data = self._received + data
        found = self._wire.answer(data, commands)
        if found is None:
            self._received = data
            return None
        end, accepted = found
        # What lies behind it is a protocol object such as credit; nothing is asked for it.
        self._received = data[end:]
        return data[:end], accepted


def verify(wire: Wire, answers: Sequence[bytes], commands: int, transfers: int) -> int:
    """How many of the answers do not say that all their transfers are posted."""
    wrong = 0
    for answer in answers:
        replies = wire.replies(answer)
        posted = sum(
            transfer["status"] == "posted"
            for reply in replies
            if reply["outcome"] == "accepted" and reply["durable"]["local"]
            for transfer in reply["result"]["transfers"]
        )
        wrong += len(replies) != commands or posted != transfers
    return wrong
