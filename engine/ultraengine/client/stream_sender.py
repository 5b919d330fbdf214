"""Commands over a WebSocket: many unanswered at once, as far as the engine's credit goes.

The stream answers in order per shard and by id, so commands leave without waiting for those
before them.  When it ends, everything unanswered is sent again on the next one, in order and
with the same ids; the engine answers what it has already with the original replies.

Two commands with one id (for different keys) are never unanswered at the same time, because
a reply names its command by the id alone.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

import aiohttp

from ultraengine.client.pending import Pending
from ultraengine.client.sender import Sender, interrupted, unreachable
from ultraengine.client.wire import (
    BadAnswer,
    Setback,
    encode_batch,
    read_frame,
    read_problem,
    to_reply,
)
from ultraengine.model.reply import Reply

SUBPROTOCOL: Final = "ultra.v1.msgpack"
HEARTBEAT_S: Final = 15.0
"""A stream that does not answer a ping for half of this is taken for broken."""


class StreamSender(Sender):
    """Sends the commands of one lane over ``GET /v1/stream``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sent: dict[str, Pending] = {}
        self._credit = 0
        self._leaving: float | None = None
        """Seconds to stay away after the engine said that it goes away."""

    def _unanswered(self) -> Sequence[Pending]:
        return list(self._sent.values())

    async def _run(self) -> None:
        while True:
            await self._until_ready()
            setback = await self._stream()
            unanswered = self._unanswered()
            self._sent.clear()
            # What waits has not been sent on this stream, but shares its bad news.
            await self._failed([*unanswered, *self._not_sent(setback)], setback)

    def _not_sent(self, setback: Setback) -> list[Pending]:
        """Commands that waited for a stream that could not be opened."""
        return self._lane.drain() if setback.certain else []

    async def _stream(self) -> Setback:
        """Open a stream and use it until it ends; returns why it did."""
        try:
            async with self._session.ws_connect(
                f"{self._settings.url}/v1/stream",
                protocols=(SUBPROTOCOL,),
                headers=self._settings.headers,
                heartbeat=HEARTBEAT_S,
                max_msg_size=0,
            ) as socket:
                return await self._use(socket)
        except aiohttp.WSServerHandshakeError as error:
            retry_after = error.headers.get("Retry-After") if error.headers else None
            return read_problem(error.status, b"", retry_after)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return unreachable(error)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return interrupted(error)

    async def _use(self, socket: aiohttp.ClientWebSocketResponse) -> Setback:
        self._credit = 0
        self._leaving = None
        reader = self._loop.create_task(self._read(socket))
        reader.add_done_callback(lambda _: self._wake.set())
        try:
            while not reader.done():
                await self._write(socket)
            return await reader
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await reader

    async def _write(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Send what may be sent, or wait until that changes."""
        self._wake.clear()
        at: float | None = None
        if self._leaving is not None:
            if not self._sent:
                await socket.close()
        elif self._credit > 0:
            batch = self._lane.take(self._loop.time(), count_max=self._credit, busy=self._sent)
            if batch:
                for pending in batch:
                    pending.sent()
                    self._sent[pending.id] = pending
                self._credit -= len(batch)
                await socket.send_bytes(encode_batch(batch))
                return
            at = self._lane.wake_at()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(at):
                await self._wake.wait()

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> Setback:
        """Take everything that the engine sends until the stream ends."""
        async for message in socket:
            try:
                members = read_frame(message.data)
                replies = [to_reply(member) for member in members if "op" not in member]
            except BadAnswer as error:
                return interrupted(error)
            for member in members:
                if "op" in member:
                    self._on_protocol(member)
            self._on_replies(replies)
            self._wake.set()
        return interrupted(ConnectionError(f"the stream was closed with {socket.close_code}"))

    def _on_replies(self, replies: Sequence[Reply]) -> None:
        answers = []
        for reply in replies:
            pending = self._sent.pop(reply.id, None)
            if pending is not None:
                answers.append((pending, reply))
        if answers:
            self._failures = 0
        self._answered(answers)

    def _on_protocol(self, member: dict[str, Any]) -> None:
        match member["op"]:
            case "hello":
                self._credit = int(member["credit"])
            case "credit":
                self._credit += int(member["n"])
            case "goaway":
                self._leaving = float(member.get("retry_after") or 0.0)
            case _:
                # Events and later additions are for others; the stream goes on.
                pass
