"""`HttpFeed`: the feed of an engine elsewhere, resumed whenever it is cut.

    source = HttpFeed("http://127.0.0.1:8080", api_key)
    async for page in source.pages(shard, from_offset): ...

What arrives is checked: each message by its checksums, and that groups follow each other
without a gap, in the order of one log.  Waiting for the engine is bounded by attempts; who
wants to wait longer asks again.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import msgspec

from ultraengine.feed.source import Consumer, FeedPage
from ultraengine.feed.wire import MEDIA_TYPE, FeedReader, WireDamaged
from ultraengine.model.errors import PROBLEMS, EngineError
from ultraengine.model.ids import Offset, ShardId
from ultraengine.model.outcome import CommittedGroup

ATTEMPTS_MAX: Final = 10
"""Attempts without a page between them; then SHARD_UNAVAILABLE."""
FIRST_DELAY_S: Final = 0.05
DELAY_MAX_S: Final = 5.0
SILENCE_S: Final = 15.0
"""A feed says something every second: one that is silent for so long is cut."""
ANSWER_S: Final = 30.0
"""Longest wait for the answer of a single request."""
_LOST: Final = (aiohttp.ClientError, OSError, TimeoutError, WireDamaged)


class _Problem(msgspec.Struct, frozen=True):
    code: str = ""
    detail: str = ""
    pointer: str | None = None
    retry_after_s: float | None = None


class _Shards(msgspec.Struct, frozen=True):
    shards: list[int]


class _Consumers(msgspec.Struct, frozen=True):
    consumers: list[Consumer]


class HttpFeed:
    """Implements `feed.source.FeedSource`."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        socket: str | None = None,
        attempts_max: int = ATTEMPTS_MAX,
        first_delay_s: float = FIRST_DELAY_S,
    ) -> None:
        """Connects when it is first used, to `socket` where one is given; `headers` go along."""
        self._url = base_url.rstrip("/")
        self._headers = dict(headers or {})
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._socket = socket
        self._attempts_max = attempts_max
        self._first_delay_s = first_delay_s
        self._session: aiohttp.ClientSession | None = None
        self._closed = asyncio.Event()
        self._followed: dict[aiohttp.ClientResponse, None] = {}

    async def shards(self) -> Sequence[ShardId]:
        """See `FeedSource.shards`."""
        found = await self._ask("GET", "/v1/feed/shards", {}, _Shards)
        return tuple(ShardId(shard) for shard in sorted(found.shards))

    async def consumers(self, shard: ShardId) -> Sequence[Consumer]:
        """See `FeedSource.consumers`."""
        found: _Consumers = await self._ask(
            "GET", "/v1/feed/consumers", {"shard": shard}, _Consumers
        )
        return found.consumers

    async def confirm(self, shard: ShardId, consumer: str, offset: Offset) -> None:
        """See `FeedSource.confirm`."""
        path = f"/v1/feed/consumers/{quote(consumer, safe='')}"
        await self._ask("PUT", path, {"shard": shard}, Any, {"offset": offset})

    async def forget(self, shard: ShardId, consumer: str) -> None:
        """See `FeedSource.forget`."""
        path = f"/v1/feed/consumers/{quote(consumer, safe='')}"
        await self._ask("DELETE", path, {"shard": shard}, Any)

    async def pages(self, shard: ShardId, from_offset: Offset) -> AsyncGenerator[FeedPage, None]:
        """See `FeedSource.pages`.

        Asked again after every cut, from where it was.  Raises `EngineError` SHARD_UNAVAILABLE
        after so many attempts without a page, INTERNAL when what follows is another history.
        """
        track = _Track(from_offset)
        attempts = 0
        while not self._closed.is_set():
            why = "it ended"
            try:
                async with contextlib.aclosing(self._pages_once(shard, track.position)) as pages:
                    async for page in pages:
                        track.follow(page.groups)
                        attempts = 0
                        yield page
            except EngineError as error:
                if not error.problem.retryable:
                    raise
                why = error.detail
            except _LOST as error:
                why = f"{type(error).__name__}: {error}"
            attempts += 1
            if attempts >= self._attempts_max and not self._closed.is_set():
                raise EngineError(
                    f"no feed of shard {shard} after {attempts} attempts: {why}",
                    code="SHARD_UNAVAILABLE",
                    retry_after_s=DELAY_MAX_S,
                )
            await self._pause(attempts)

    async def _pages_once(self, shard: ShardId, position: Offset) -> AsyncGenerator[FeedPage, None]:
        """The pages of one connection.  Raises `EngineError`, and what is in `_LOST`."""
        reader = FeedReader(shard)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_S, sock_read=SILENCE_S)
        async with self._opened().get(
            f"{self._url}/v1/feed",
            params={"shard": str(shard), "from": str(position)},
            headers={"Accept": f"{MEDIA_TYPE}, application/problem+json"},
            timeout=timeout,
        ) as response:
            if response.status != 200:
                raise _problem(response.status, await response.read())
            self._followed[response] = None
            try:
                async for chunk in response.content.iter_any():
                    for page in reader.feed(chunk):
                        yield page
            finally:
                del self._followed[response]
        if not reader.is_between:
            raise WireDamaged("the feed was cut within a message")

    async def _pause(self, attempts: int) -> None:
        """Wait before the next attempt, or until the source closes."""
        bound = min(DELAY_MAX_S, self._first_delay_s * (1 << min(attempts, 16)))
        with contextlib.suppress(TimeoutError):
            # Half of it is chance, so that all consumers of an engine do not come at once.
            async with asyncio.timeout(bound * (0.5 + random.random() / 2)):  # noqa: S311
                await self._closed.wait()

    async def _ask(
        self, method: str, path: str, query: Mapping[str, int], kind: Any, body: Any = None
    ) -> Any:
        """One request and its decoded answer.  Raises `EngineError`."""
        try:
            async with self._opened().request(
                method,
                self._url + path,
                params={name: str(value) for name, value in query.items()},
                json=body,
                timeout=aiohttp.ClientTimeout(total=ANSWER_S),
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EngineError(
                f"the engine at {self._url} cannot be reached: {type(error).__name__}",
                code="SHARD_UNAVAILABLE",
                retry_after_s=1.0,
            ) from error
        if response.status != 200:
            raise _problem(response.status, content)
        return msgspec.json.decode(content, type=kind)

    def _opened(self) -> aiohttp.ClientSession:
        if self._closed.is_set():
            raise EngineError("this feed is closed", code="SHARD_UNAVAILABLE")
        if self._session is None:
            unix = None if self._socket is None else aiohttp.UnixConnector(self._socket)
            self._session = aiohttp.ClientSession(connector=unix, headers=self._headers)
        return self._session

    async def close(self) -> None:
        """End all pages and connections.  Idempotent."""
        self._closed.set()
        for response in self._followed:
            # A session that closes tells nobody who waits for more of an answer.
            response.content.set_exception(aiohttp.ClientConnectionError("this feed is closed"))
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class _Track:
    """Where a consumer stands, and what may come next."""

    def __init__(self, position: Offset) -> None:
        self.position = position
        self._sequence = -1
        self._time = 0

    def follow(self, groups: Sequence[CommittedGroup]) -> None:
        """Go on behind these groups.  Raises `EngineError` INTERNAL unless they follow."""
        for group in groups:
            # The first group may begin before the offset that was asked for; none after it.
            begins = group.base_offset == self.position or (
                self._sequence < 0 and group.base_offset < self.position < group.offset_end
            )
            if not begins or group.sequence <= self._sequence or group.time < self._time:
                raise EngineError(
                    f"the feed of shard {group.shard} is another history: behind offset "
                    f"{self.position} (frame {self._sequence}) came offset {group.base_offset} "
                    f"(frame {group.sequence})"
                )
            self.position = group.offset_end
            self._sequence, self._time = group.sequence, group.time


def _problem(status: int, content: bytes) -> EngineError:
    """What an answer outside 2xx says."""
    try:
        said = msgspec.json.decode(content, type=_Problem)
    except msgspec.MsgspecError:
        said = _Problem()
    if said.code in PROBLEMS:
        return EngineError(
            said.detail,
            code=said.code,
            pointer=said.pointer or "",
            retry_after_s=said.retry_after_s,
        )
    code = "SHARD_UNAVAILABLE" if status >= 500 else "MALFORMED"
    return EngineError(f"status {status}: {content[:200]!r}", code=code)
