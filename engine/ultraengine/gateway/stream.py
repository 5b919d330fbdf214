"""Commands and events over one WebSocket (`docs/stream.md` is its contract).

A stream is two tasks and a queue.  The reader takes a frame, admits its commands, submits
them with one ticket, and puts the ticket in the queue.  When tickets at the head of the
queue are complete, their replies are encoded in one frame per turn of the event loop, which
is one frame per group of the log.  The writer sends frames and waits for the socket.

Everything is bounded: unanswered commands by the credit; the bytes of unanswered commands by
``stream_buffer_bytes_max``; encoded replies that are not sent by a quarter of it.  Beyond
these no further frame is read and nothing more is encoded, so a client that reads, however
slowly, loses nothing and is never closed.  One that does not read for `SEND_STALL_S` is.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from aiohttp import WSMsgType
from aiohttp.web import BaseRequest, WebSocketResponse

from ultraengine.edge.codec import JSON, MSGPACK, Codec
from ultraengine.gateway.admission import Intake, merge, refuse_all
from ultraengine.gateway.edge import Edge
from ultraengine.gateway.engine import Feed
from ultraengine.gateway.envelope import Parsed
from ultraengine.gateway.events import event_objects
from ultraengine.gateway.frames import CommandFrame, Subscribe, read_frame
from ultraengine.model.errors import EngineError, Malformed
from ultraengine.model.reply import Reply
from ultraengine.ports import Caller
from ultraengine.reply.waiters import Ticket

SUBPROTOCOLS: Final[Mapping[str, Codec]] = {"ultra.v1.json": JSON, "ultra.v1.msgpack": MSGPACK}
HEARTBEAT_S: Final = 20.0
"""A ping is sent after this long without traffic; no answer within half of it: closed."""
SEND_STALL_S: Final = 20.0
"""A send that waits longer for the client to read closes the stream with 4008."""
POSITION_EVERY_S: Final = 1.0
"""A subscriber to whom nothing is sent is told where it stands, as often as this."""
CLOSE_WAIT_S: Final = 2.0
"""Longest wait for the client's side of a close; twice that for it to read what is left."""
REPLIES_PER_FRAME: Final = 256
"""A frame with at least so many replies is sent before the next one is made."""
DIRECT_BYTES_MAX: Final = 16 * 1024
"""A frame that is no larger, with nothing before it, goes to the socket without the writer: a
wake-up and a timer less.  A client that does not read shows at the next one."""

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
UNSUPPORTED_DATA: Final = 1003
TOO_BIG: Final = 1009
MALFORMED: Final = 4000
KEY_REVOKED: Final = 4001
OVERDRAFT: Final = 4008
INTERNAL: Final = 4011

_log = structlog.get_logger("ultraengine.gateway")
_JSON_TEXT: Final = WSMsgType.TEXT
_BINARY: Final = WSMsgType.BINARY


class Waiting:
    """The commands of one frame, waiting for their replies."""

    __slots__ = ("intake", "line", "over", "parsed", "size", "ticket")

    def __init__(self, parsed: Sequence[Parsed], intake: Intake, size: int) -> None:
        self.parsed = parsed
        self.size = size
        """Bytes of the frame."""
        self.intake = intake
        self.ticket: Ticket
        self.line: deque[Waiting]
        """Those that are answered in order with it."""
        self.over = False
        """Whether the replies are in, or the wait for them has ended."""


class Closing(Exception):
    """The stream ends with this close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Stream:
    """One open WebSocket."""

    def __init__(
        self,
        edge: Edge,
        caller: Caller,
        socket: "WebSocketResponse[Any]",
        codec: Codec,
        request: BaseRequest,
        *,
        peer_is_loopback: bool,
    ) -> None:
        self.request = request
        """The upgrade request, to authenticate anew when keys change."""
        self.peer_is_loopback = peer_is_loopback
        self.caller = caller
        self.unanswered = 0
        """Commands whose replies have not been handed to the socket."""
        self._edge = edge
        self._submit = edge.ordered()
        self._socket = socket
        self._codec = codec
        self._opcode = _JSON_TEXT if codec is JSON else _BINARY
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Waiting] = deque()
        self._frames: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._unanswered_bytes = 0
        self._collecting = False
        self._uncredited = 0
        self._wake = asyncio.Event()
        self._space = asyncio.Event()
        self._space.set()
        self._answered = asyncio.Event()
        self._answered.set()
        """Set while no command is unanswered and no frame unsent."""
        self._subscription: asyncio.Task[None] | None = None
        self._next_offset: int | None = None
        """Where a subscription would go on; None without one."""
        self._ended = False
        self._writer: asyncio.Task[None] | None = None

    # --- reading ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the stream to its end."""
        self._writer = self._loop.create_task(self._write())
        try:
            self._send(self._hello())
            await self._read()
        except Closing as closing:
            await self.close(closing.code, closing.reason)
        except ConnectionError:
            pass  # The client is gone; what it sent is carried out all the same.
        except Exception:
            _log.exception("stream.failed", tenant=self.caller.tenant)
            await self.close(INTERNAL, "the stream failed")
            raise
        finally:
            self._ended = True
            for task in (self._writer, self._subscription):
                task is None or task.cancel()

    async def _read(self) -> None:
        receive = self._socket.receive
        while True:
            await self._space.wait()
            if self._ended:
                return
            message = await receive()
            if message.type is self._opcode:
                self._take(message.data)
            elif message.type in {_JSON_TEXT, _BINARY}:
                raise Closing(UNSUPPORTED_DATA, "text frames for JSON, binary ones for msgpack")
            else:
                return  # Closed by the client, by us, or by a broken connection.

    def _take(self, data: bytes) -> None:
        """One frame of the client."""
        try:
            frame = read_frame(data, self._codec.name, self._edge.limits)
        except EngineError as error:
            self._send(problem_object(error))
            code = TOO_BIG if error.code == "TOO_LARGE" else MALFORMED
            raise Closing(code, error.detail) from error
        if isinstance(frame, CommandFrame):
            self._commands(frame.parsed, len(data))
        elif isinstance(frame, Subscribe):
            self._subscribe(frame)
        else:
            # A well-formed object of the protocol that only the engine may send, or unknown.
            self._send(problem_object(frame))

    def _commands(self, parsed: Sequence[Parsed], size: int) -> None:
        edge = self._edge
        count = len(parsed)
        if count == 0:
            return
        credit = edge.limits.stream_credit
        if self.unanswered + count > credit:
            detail = f"{self.unanswered + count} unanswered commands are above the credit {credit}"
            self._send(problem_object(EngineError(detail, code="OVERLOADED")))
            raise Closing(OVERDRAFT, "overdraft")
        self.unanswered += count
        self._answered.clear()
        try:
            edge.require_intake()
            edge.charge(self.caller, count)
        except EngineError as error:
            edge.name_commands(parsed)
            intake = refuse_all(parsed, error)
        else:
            intake = edge.take_in(self.caller, parsed, self._codec.name)
        self._hand_in(parsed, intake, size)

    def _hand_in(self, parsed: Sequence[Parsed], intake: Intake, size: int) -> None:
        """Submit the commands of a frame."""
        self._wait_for(Waiting(parsed, intake, size), self._queue)

    def _wait_for(self, waiting: Waiting, line: deque[Waiting]) -> None:
        """Submit commands, and answer them behind those that stand in `line`."""
        edge, admitted = self._edge, waiting.intake.admitted
        ticket = waiting.ticket = Ticket(len(admitted), lambda _: self._over(waiting))
        waiting.line = line
        line.append(waiting)
        self._unanswered_bytes += waiting.size
        self._update_space()
        if not admitted:
            self._over(waiting)
            return
        self._submit(admitted, ticket)
        if ticket.missing:
            edge.waits.add(ticket, edge.clock.monotonic(), ticket.notify)

    def _over(self, waiting: Waiting) -> None:
        """The replies of one frame are in, or waited for long enough."""
        waiting.over = True
        self._edge.waits.done(waiting.ticket)
        if not self._collecting:
            self._collecting = True
            self._loop.call_soon(self._collect)

    # --- replies -----------------------------------------------------------------------------

    def _collect(self) -> None:
        """Encode the replies that are in, in the order of their commands, as far as the client
        keeps up."""
        self._collecting = False
        room = self._edge.limits.stream_buffer_bytes_max // 4
        while not self._ended and self._unsent_bytes <= room:
            replies = self._next_replies()
            if not replies:
                break
            encode = self._codec.encode
            self._push(encode(replies[0] if len(replies) == 1 else replies))
            self._edge.count(replies)
            self.unanswered -= len(replies)
            self._uncredited += len(replies)
            if self._uncredited >= max(1, self._edge.limits.stream_credit // 4):
                self._send({"op": "credit", "n": self._uncredited})
                self._uncredited = 0
        self._update_space()
        if not self.unanswered and not self._unsent_bytes:
            self._answered.set()

    def _next_replies(self) -> list[Reply]:
        """The replies for one frame to the client; empty when the next one is not in yet."""
        queue = self._queue
        replies: list[Reply] = []
        while queue and queue[0].over and len(replies) < REPLIES_PER_FRAME:
            done = queue.popleft()
            self._unanswered_bytes -= done.size
            merged = merge(done.parsed, done.intake, done.ticket)
            replies = merged if not replies else replies + merged
        self._update_space()
        return replies

    def _send(self, message: Mapping[str, Any]) -> None:
        self._push(self._codec.encode(message))

    def _push(self, frame: bytes) -> None:
        """Send one frame, or queue it for the writer."""
        transport = self.request.transport
        if (
            not self._frames
            and len(frame) <= DIRECT_BYTES_MAX
            and transport is not None
            and not transport.is_closing()
            and transport.get_write_buffer_size() == 0
        ):
            transport.write(_head(self._opcode, len(frame)) + frame)
            return
        self._frames.append(frame)
        self._unsent_bytes += len(frame)
        self._answered.clear()
        self._wake.set()
        self._update_space()

    def _update_space(self) -> None:
        """Let frames be read and events be fetched only while the client keeps up."""
        limit = self._edge.limits.stream_buffer_bytes_max
        if self._unsent_bytes > limit // 4 or self._unanswered_bytes > limit:
            self._space.clear()
        else:
            self._space.set()

    def _end_soon(self, code: int, reason: str) -> None:
        if not self._ended:
            self._ended = True
            task = self._loop.create_task(self.close(code, reason))
            self._edge.background(task)

    async def _write(self) -> None:
        """Send what is queued, for ever."""
        frames = self._frames
        send = self._socket.send_frame
        while True:
            await self._wake.wait()
            self._wake.clear()
            while frames:
                frame = frames.popleft()
                try:
                    async with asyncio.timeout(SEND_STALL_S):
                        await send(frame, self._opcode)
                except TimeoutError:
                    self._end_soon(OVERDRAFT, "the client does not read")
                    return
                except ConnectionError:
                    return
                self._unsent_bytes -= len(frame)
                self._update_space()
                if self._queue and self._queue[0].over:
                    self._collect()
            if not self.unanswered:
                self._answered.set()

    # --- protocol ------------------------------------------------------------------------------

    def _hello(self) -> dict[str, Any]:
        edge = self._edge
        names = (
            "commands_per_batch_max",
            "items_per_command_max",
            "command_bytes_max",
            "batch_bytes_max",
            "stream_credit",
            "stream_buffer_bytes_max",
        )
        return {
            "op": "hello",
            "credit": edge.limits.stream_credit,
            "limits": {name: getattr(edge.limits, name) for name in names},
            "shard_map_version": edge.shard_map_version,
            "capabilities": ["commands", *(["subscribe"] if edge.feed is not None else [])],
        }

    def _subscribe(self, request: Subscribe) -> None:
        edge = self._edge
        if edge.feed is None:
            error = EngineError("this engine has no feed to subscribe to", code="NOT_FOUND")
            self._send(problem_object(error))
        elif request.shard is not None:
            error = Malformed("this engine is one shard: leave out 'shard'", pointer="/shard")
            self._send(problem_object(error))
        elif self._subscription is not None:
            self._send(problem_object(Malformed("a stream has one subscription", pointer="/op")))
        else:
            self._next_offset = request.from_
            self._subscription = self._loop.create_task(self._follow(edge.feed, request))

    async def _follow(self, feed: Feed, request: Subscribe) -> None:
        """Send events for ever, as fast as the client reads: what is not sent yet is left in the
        log, but for one small batch."""
        caller, codec, domains = self.caller, self._codec.name, request.domains
        said_at: float | None = None
        try:
            async for outcomes in feed.outcomes(request.from_):
                if said_at is None:
                    self._send({"op": "subscribed", "from": request.from_})
                    said_at = self._loop.time()
                for event in event_objects(outcomes, caller, codec, domains):
                    await self._space.wait()
                    self._send(event)
                    said_at = self._loop.time()
                if outcomes:
                    self._next_offset = outcomes[-1].offset + 1
                    if self._loop.time() - said_at >= POSITION_EVERY_S:
                        # Where others are busy, it would fall behind without having missed a thing.
                        await self._space.wait()
                        self._send({"op": "position", "offset": self._next_offset})
                        said_at = self._loop.time()
        except Exception as error:  # noqa: BLE001  (whatever it was, silence would look like rest)
            if isinstance(error, EngineError):
                problem = error
            else:
                _log.exception("subscription.failed", tenant=self.caller.tenant)
                problem = EngineError(f"reading the events raised {type(error).__name__}")
            self._send(problem_object(problem))
            self._subscription = None
            self._next_offset = None

    async def go_away(self, retry_after_s: float, wait_s: float) -> None:
        """Tell the client, answer what it sent, close."""
        self._send({"op": "goaway", "retry_after": retry_after_s, "resume": self._next_offset})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._answered.wait()
        await self.close(GOING_AWAY, "the engine goes away")

    async def close(self, code: int, reason: str) -> None:
        """Close with a code; a client that does not read is cut off."""
        self._ended = True
        self._edge.metrics.closed(code)
        if self._writer is not None:
            self._writer.cancel()
        self._space.set()
        try:
            async with asyncio.timeout(2 * CLOSE_WAIT_S):
                # What was said before the close, such as why, goes out first.
                while self._frames:
                    await self._socket.send_frame(self._frames.popleft(), self._opcode)
                await self._socket.close(code=code, message=reason.encode()[:120])
        except (TimeoutError, ConnectionError):
            self.abort()

    def abort(self) -> None:
        """Cut the connection."""
        if self.request.transport is not None:
            self.request.transport.abort()


def _head(opcode: int, size: int) -> bytes:
    """The head of an unmasked frame that is a whole message (RFC 6455 §5.2), below 64 KiB."""
    if size < 126:
        return bytes((0x80 | opcode, size))
    return bytes((0x80 | opcode, 126, size >> 8, size & 0xFF))


def problem_object(error: EngineError) -> dict[str, Any]:
    """The protocol object for a problem that belongs to no command."""
    message: dict[str, Any] = {"op": "error", "code": error.code, "detail": error.detail}
    if error.pointer:
        message["pointer"] = error.pointer
    if error.retry_after_s is not None:
        message["retry_after"] = error.retry_after_s
    return message
