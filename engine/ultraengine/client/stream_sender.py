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
import msgspec

from ultraengine.client.pending import Pending
from ultraengine.client.sender import Sender, interrupted, unreachable
from ultraengine.client.wire import (
    BadAnswer,
    Credit,
    Fault,
    GoAway,
    Hello,
    Notice,
    Setback,
    encode_batch,
    read_problem,
    sort_frame,
)
from ultraengine.model.reply import Reply, ReplyError

SUBPROTOCOL: Final = "ultra.v1.msgpack"
HEARTBEAT_S: Final = 15.0
"""A stream that does not answer a ping for half of this is taken for broken."""
_NOT_AGAIN: Final = frozenset({1009, 4000})
"""Close codes after a frame that the engine cannot take: the same one would end the next stream."""


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
            url = self._settings.addresses.url
            setback = await self._stream(url)
            unanswered = self._unanswered()
            self._sent.clear()
            # What waits has not been sent on this stream, but shares its bad news.
            await self._failed(url, [*unanswered, *self._not_sent(setback)], setback)

    def _not_sent(self, setback: Setback) -> list[Pending]:
        """Commands that waited for a stream that could not be opened."""
        return self._lane.drain() if setback.certain else []

    async def _stream(self, url: str) -> Setback:
        """Open a stream and use it until it ends; returns why it did."""
        try:
            async with self._session.ws_connect(
                f"{url}/v1/stream",
                protocols=(SUBPROTOCOL,),
                headers=self._settings.headers,
                heartbeat=HEARTBEAT_S,
                max_msg_size=0,
            ) as socket:
                return await self._use(socket)
        except aiohttp.WSServerHandshakeError as error:
            retry_after = error.headers.get("Retry-After") if error.headers else None
            refused = read_problem(error.status, b"", retry_after)
            # Nothing is sent before the handshake, whoever refused it.
            return msgspec.structs.replace(refused, certain=True)
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
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    async def _write(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Send what may be sent, or wait until that changes."""
        self._wake.clear()
        at: float | None = None
        if self._credit > 0 and self._leaving is None:
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
        """Take everything that the engine sends until the stream ends; returns why it did."""
        error: ReplyError | None = None
        try:
            async for message in socket:
                if message.type not in {aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT}:
                    break
                replies, notices = sort_frame(message.data)
                self._on_replies(replies)
                for notice in notices:
                    error = self._on_notice(notice) or error
                self._wake.set()
        except BadAnswer as bad:
            return interrupted(bad)
        if error is not None and socket.close_code in _NOT_AGAIN:
            return Setback(error, retryable=False, certain=False)
        ended = interrupted(ConnectionError(f"the stream was closed with {socket.close_code}"))
        if self._leaving is None:
            return ended
        later = msgspec.structs.replace(ended.error, retry_after_s=self._leaving)
        return msgspec.structs.replace(ended, error=later)

    def _on_replies(self, replies: Sequence[Reply]) -> None:
        answers = []
        for reply in replies:
            pending = self._sent.pop(reply.id, None)
            if pending is not None:
                answers.append((pending, reply))
        if answers:
            self._worked()
            self._answered(answers)

    def _on_notice(self, notice: Notice) -> ReplyError | None:
        match notice:
            case Hello():
                self._credit = notice.credit
                limit = notice.limits.get("commands_per_batch_max")
                if limit is not None:
                    self._lane.limit_batches(limit)
            case Credit():
                self._credit += notice.n
            case GoAway():
                self._leaving = notice.retry_after
            case Fault():
                return ReplyError(notice.code, notice.detail, notice.pointer)
        return None
