"""Commands over HTTP: one batch in flight per lane, the next one forms meanwhile.

There is no timer: a lone command leaves at once, and under load a batch is as large as what
came in during the one before.  One request at a time keeps the order of a lane through any
failure, since the next batch leaves only when the fate of this one is known.
"""

from collections.abc import Sequence
from types import SimpleNamespace

import aiohttp

from ultraengine.client.addresses import LED_ELSEWHERE
from ultraengine.client.pending import Pending
from ultraengine.client.sender import Sender, interrupted, unreachable
from ultraengine.client.wire import (
    MSGPACK,
    BadAnswer,
    Setback,
    decode_replies,
    encode_batch,
    read_problem,
)
from ultraengine.model.reply import Reply


async def _headers_sent(
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    _params: aiohttp.TraceRequestHeadersSentParams,
) -> None:
    """A request begins to leave: from here on its commands may be logged."""
    for pending in context.trace_request_ctx or ():
        pending.sent()


def departure_trace() -> aiohttp.TraceConfig:
    """Marks the commands of a batch as sent once there is a connection, and not before."""
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_headers_sent)
    return trace


class HttpSender(Sender):
    """Sends the batches of one lane to ``POST /v1/commands:batch``."""

    _batch: Sequence[Pending] = ()

    def _unanswered(self) -> Sequence[Pending]:
        return self._batch

    async def _run(self) -> None:
        while True:
            await self._until_ready()
            batch = self._lane.take(self._loop.time())
            if not batch:
                continue
            self._batch = batch
            url = self._settings.addresses.url
            answer = await self._post(url, batch)
            self._batch = ()
            if isinstance(answer, Setback):
                await self._failed(url, batch, answer)
            else:
                self._worked()
                self._look_elsewhere(url, answer)
                self._answered(list(zip(batch, answer, strict=True)))

    def _look_elsewhere(self, url: str, replies: Sequence[Reply]) -> None:
        """Ask another address from now on, if somebody here does not lead."""
        codes = {reply.error.code for reply in replies if reply.error is not None}
        for code in sorted(codes & LED_ELSEWHERE):
            self._settings.addresses.failed(url, code)
            return

    async def _post(self, url: str, batch: list[Pending]) -> list[Reply] | Setback:
        try:
            async with self._session.post(
                f"{url}/v1/commands:batch",
                data=encode_batch(batch),
                headers={**self._settings.headers, "Content-Type": MSGPACK, "Accept": MSGPACK},
                allow_redirects=False,
                trace_request_ctx=batch,
            ) as response:
                body = await response.read()
                if response.status == 200:
                    return decode_replies(body, len(batch))
                return read_problem(response.status, body, response.headers.get("Retry-After"))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return unreachable(error)
        except (aiohttp.ClientError, OSError, TimeoutError, BadAnswer) as error:
            return interrupted(error)
