"""The data path's own HTTP/1.1: ``POST /v1/commands`` and ``:batch`` in their plain form.

A general HTTP server spends several times as long on a small command as the engine does.  So
a connection begins here, and requests of exactly one shape are read and answered without a
task, a future or a response object:

    one of two request lines, HTTP/1.1; well-formed header lines, no name twice;
    a Content-Length within the limit, and no Transfer-Encoding, Upgrade or Expect

Anything else, at any time, hands the connection over to the general server together with
the bytes as they came: another path, a chunked body, a folded header, a line that is not
quite right.  This parser never interprets what it does not fully understand, so it cannot
disagree with the general one about where a request ends.

One request is answered at a time; pipelined ones wait in a bounded buffer.
"""

import asyncio
import re
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, NamedTuple, cast

import structlog

from ultraengine.edge.problems import Answer, problem_answer
from ultraengine.edge.routes import is_loopback_address
from ultraengine.gateway.commands import Begun, Commands, Heading
from ultraengine.gateway.edge import Edge
from ultraengine.model.errors import EngineError
from ultraengine.reply.waiters import Ticket

HEAD_BYTES_MAX: Final = 16 * 1024
"""A longer head is the general server's to refuse."""
HEADS_MAX: Final = 1_024
"""Heads that are remembered; clients send few that differ in more than the length of the body."""
KNOWN_HEAD_BYTES_MAX: Final = 512
"""Longer heads are read each time."""
PIPELINED_BYTES_MAX: Final = 256 * 1024
"""Bytes behind a request that is being answered; beyond it nothing is read."""
IDLE_S: Final = 75.0
"""A connection without a request for so long is closed."""
READ_S: Final = 30.0
"""Longest time for a client to send a request; then the connection is closed."""

_SINGLE: Final = "/v1/commands"
_BATCH: Final = "/v1/commands:batch"
_LINES: Final = {f"POST {path} HTTP/1.1".encode(): path for path in (_SINGLE, _BATCH)}
_LINE_BYTES_MAX: Final = max(map(len, _LINES)) + 2
# Names are tokens, values printable ASCII and tabs (RFC 9110 §5.5, without obs-text).  Each
# byte can match in one way only, so the time is linear whatever a stranger sends.
_HEAD: Final = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\x20-\x7e\t]*\r\n)*")
_HEADER: Final = re.compile(rb"([^:\r\n]+):([^\r\n]*)\r\n")
_LENGTH: Final = re.compile(r"[0-9]{1,12}")
_NOT_PLAIN: Final = frozenset({"transfer-encoding", "upgrade", "expect", "te", "trailer"})
_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
_log = structlog.get_logger("ultraengine.gateway")


class PlainHead(NamedTuple):
    """The head of a plain request, without its first line."""

    headers: Heading
    """By lower-case name."""
    length: int
    """Bytes of the body."""
    close: bool
    """Whether the client asks to close the connection after the answer."""


def read_head(lines: bytes) -> PlainHead | None:
    """The head of a plain request; None when it is not plain."""
    if _HEAD.fullmatch(lines) is None:
        return None
    found = _HEADER.findall(lines)
    headers = {
        name.decode("ascii").lower(): value.decode("ascii").strip(" \t") for name, value in found
    }
    if len(headers) != len(found) or not _NOT_PLAIN.isdisjoint(headers):
        return None
    if _LENGTH.fullmatch(headers.get("content-length", "")) is None or "host" not in headers:
        return None
    connection = headers.get("connection", "").lower()
    if connection not in {"", "keep-alive", "close"}:
        return None
    return PlainHead(Heading(headers), int(headers["content-length"]), connection == "close")


class QuickServer:
    """The plain requests of one listener."""

    def __init__(
        self, edge: Edge, general: Callable[[], asyncio.BaseProtocol], commands: Commands
    ) -> None:
        self.edge = edge
        self.commands = commands
        self.general = general
        """Makes the protocol that takes over what is not plain."""
        self.connections: dict[QuickConnection, None] = {}
        self._heads: dict[bytes, PlainHead] = {}
        self._starts: dict[tuple[int, str], bytes] = {}
        """First lines of answers by status and content type."""
        self._date = b""
        self._date_of = -1

    def __call__(self) -> "QuickConnection":
        return QuickConnection(self)

    def read(self, lines: bytes) -> PlainHead | None:
        """`read_head`, by heart where the same bytes came before."""
        known = self._heads.get(lines)
        if known is not None:
            return known
        head = read_head(lines)
        if head is not None and head.headers.bare and len(lines) <= KNOWN_HEAD_BYTES_MAX:
            if len(self._heads) >= HEADS_MAX:
                self._heads.clear()
            self._heads[lines] = head
        return head

    def head(self, answer: Answer, *, close: bool) -> bytes:
        """The head of an answer."""
        second = self.edge.clock.now() // 1_000_000
        if second != self._date_of:
            date = formatdate(second, usegmt=True)
            self._date = f"\r\nDate: {date}\r\nServer: ultraengine\r\n".encode("ascii")
            self._date_of = second
        start = self._starts.get((answer.status, answer.content_type))
        if start is None:
            line = f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\nContent-Type: "
            start = f"{line}{answer.content_type}\r\nContent-Length: ".encode("ascii")
            self._starts[answer.status, answer.content_type] = start
        more = "".join([f"{name}: {value}\r\n" for name, value in answer.headers])
        end = b"Connection: close\r\n\r\n" if close else b"\r\n"
        return b"%b%d%b%b%b" % (start, len(answer.body), self._date, more.encode("ascii"), end)

    def sweep(self, now: float) -> None:
        """Close connections that are idle or send too slowly; `now` is the loop's time."""
        for connection in [one for one in self.connections if one.is_late(now)]:
            connection.close()

    def close(self) -> None:
        """Close all connections."""
        for connection in list(self.connections):
            connection.close()


class QuickConnection(asyncio.Protocol):
    """One connection, until it turns out to be none of ours."""

    __slots__ = (
        "_advancing",
        "_close",
        "_ended",
        "_finish",
        "_have",
        "_held_back",
        "_local",
        "_loop",
        "_need",
        "_parts",
        "_path",
        "_paused",
        "_server",
        "_since",
        "_start",
        "_ticket",
        "_transport",
    )

    def __init__(self, server: QuickServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._local = False
        self._parts: list[bytes] = []
        self._have = 0
        """Bytes in ``_parts``."""
        self._need = 1
        """Bytes from which it is worth to look again."""
        self._ticket: Ticket | None = None
        """What the request being answered waits for."""
        self._finish: Callable[[Ticket], Answer] | None = None
        self._path = _SINGLE
        self._start = 0.0
        self._close = False
        self._ended = False
        self._held_back = False
        """Whether reading is paused."""
        self._paused = False
        """Whether the client reads too slowly for more answers."""
        self._advancing = False
        self._since = self._loop.time()

    # --- transport ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._local = is_loopback_address(peer[0] if peer else "")
        self._server.connections[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone; what it sent is carried out all the same."""
        del exc
        self._transport = None
        self._server.connections.pop(self, None)
        self._parts.clear()
        self._have = 0

    def pause_writing(self) -> None:
        """The client does not read its answers."""
        self._paused = True

    def resume_writing(self) -> None:
        """It does again."""
        self._paused = False
        self._advance()

    def eof_received(self) -> bool:
        """The client sends no more; it may still wait for answers."""
        self._ended = True
        return self._ticket is not None

    def is_late(self, now: float) -> bool:
        """Whether to close for silence."""
        if self._ticket is not None:
            return False
        return now - self._since > (READ_S if self._have else IDLE_S)

    def close(self) -> None:
        """Close, after what was written."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        if not self._have:
            self._since = self._loop.time()
        self._parts.append(data)
        self._have += len(data)
        if self._ticket is not None or self._paused:
            if (
                self._have > PIPELINED_BYTES_MAX
                and self._transport is not None
                and not self._held_back
            ):
                self._held_back = True
                self._transport.pause_reading()
        elif self._have >= self._need:
            self._advance()

    # --- requests ----------------------------------------------------------------------------

    def _advance(self) -> None:
        """Take requests while they are complete and nothing is being answered."""
        if self._advancing:
            return
        self._advancing = True
        if self._held_back and self._transport is not None:
            # What was held back is in the buffer; more may come while it is worked off.
            self._held_back = False
            self._transport.resume_reading()
        while (
            self._transport is not None
            and not self._transport.is_closing()
            and self._ticket is None
            and not self._paused
            and self._have >= self._need
        ):
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._next(data, self._transport)
        self._advancing = False
        if self._ended and self._ticket is None:
            self.close()

    def _next(self, data: bytes, transport: asyncio.Transport) -> None:
        """The request at the start of `data`, or more bytes, or the general server."""
        line_end = data.find(b"\r\n")
        if line_end < 0:
            if len(data) < _LINE_BYTES_MAX and any(
                line.startswith(data.rstrip(b"\r")) for line in _LINES
            ):
                return self._keep(data, len(data) + 1)
            return self._hand_over(data, transport)
        path = _LINES.get(data[:line_end])
        if path is None:
            return self._hand_over(data, transport)
        head_end = data.find(b"\r\n\r\n", line_end)
        if head_end < 0:
            if len(data) > HEAD_BYTES_MAX:
                return self._hand_over(data, transport)
            return self._keep(data, len(data) + 1)
        head = self._server.read(data[line_end + 2 : head_end + 2])
        if head is None or head_end > HEAD_BYTES_MAX:
            return self._hand_over(data, transport)
        length = head.length
        limits = self._server.edge.limits
        bytes_max = limits.command_bytes_max if path is _SINGLE else limits.batch_bytes_max
        if length > bytes_max:
            return self._hand_over(data, transport)
        end = head_end + 4 + length
        if len(data) < end:
            return self._keep(data, end)
        self._parts = [data[end:]] if len(data) > end else []
        self._have = len(data) - end
        self._need = 1
        self._take(path, head, data[head_end + 4 : end])
        return None

    def _keep(self, data: bytes, need: int) -> None:
        self._parts = [data]
        self._need = need

    def _hand_over(self, data: bytes, transport: asyncio.Transport) -> None:
        """Leave this connection to the general server, from this request on."""
        self._server.connections.pop(self, None)
        self._transport = None
        self._parts, self._have = [], 0
        general = self._server.general()
        transport.set_protocol(general)
        general.connection_made(transport)
        cast("asyncio.Protocol", general).data_received(data)

    def _take(self, path: str, head: PlainHead, body: bytes) -> None:
        """Answer one request, or submit it."""
        edge = self._server.edge
        self._path, self._start = path, edge.clock.monotonic()
        self._close = head.close
        edge.metrics.requests_in_flight += 1
        try:
            begun = self._begin(path, head.headers, body)
        except EngineError as error:
            begun = problem_answer(error)
        except Exception as error:  # noqa: BLE001  (whatever it was, the client gets an answer)
            begun = self._failed(error)
        if isinstance(begun, Answer):
            self._answer(begun)
            return
        self._finish = begun.finish
        ticket = self._ticket = Ticket(len(begun.admitted), self._done)
        edge.engine.submit(begun.admitted, ticket)
        if ticket.missing:
            edge.waits.add(ticket, self._start, self._done)

    def _begin(self, path: str, headers: Heading, body: bytes) -> Answer | Begun:
        edge, commands = self._server.edge, self._server.commands
        edge.require_room()
        caller = edge.caller(headers, peer_is_loopback=self._local)
        answer = commands.single if path is _SINGLE else commands.batch
        return answer(caller, headers, body)

    def _done(self, ticket: Ticket) -> None:
        """The answers are in, or the wait for them has ended."""
        finish = self._finish
        if ticket is not self._ticket or finish is None:
            return  # Answers that came too late for a request that was answered already.
        self._ticket = self._finish = None
        self._server.edge.waits.done(ticket)
        try:
            answer = finish(ticket)
        except Exception as error:  # noqa: BLE001  (the engine's loop must not suffer for it)
            answer = self._failed(error)
        self._answer(answer)
        self._advance()

    def _failed(self, error: Exception) -> Answer:
        _log.error("request.failed", route=self._path, exc_info=error)
        return problem_answer(EngineError(f"the edge raised {type(error).__name__}"))

    def _answer(self, answer: Answer) -> None:
        edge = self._server.edge
        edge.metrics.requests_in_flight -= 1
        edge.metrics.request(self._path, answer.status, edge.clock.monotonic() - self._start)
        transport = self._transport
        if transport is None:
            return
        close = self._close or edge.draining or edge.leaving
        transport.write(self._server.head(answer, close=close) + answer.body)
        self._since = self._loop.time()
        if close:
            transport.close()
