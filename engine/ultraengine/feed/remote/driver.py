"""`HttpFeed`: the feed of an engine elsewhere, resumed whenever it is cut.

    source = HttpFeed(["http://127.0.0.1:8080"], api_key, read="follower")
    async for page in source.pages(shard, from_offset): ...

What arrives is checked: each message by its checksums, and that groups follow each other
without a gap, in the order of one log.  Whoever goes on with a feed, the same engine or another
copy, has to give the last group once more: its chain says whether what follows is the same
history.  Waiting for the engine is bounded by attempts; who wants to wait longer asks again.
"""

import asyncio
import contextlib
import math
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import msgspec

from ultraengine.feed.remote.copies import LEADER, in_turn, is_final
from ultraengine.feed.source import Consumer, FeedPage, FeedRead
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
ROLE_S: Final = 1.0
"""Longest wait until a copy has said whether it leads."""
BACK_S: Final = 60.0
"""After so long with the leader a copy that follows is looked for again."""
_LOST: Final = (aiohttp.ClientError, OSError, TimeoutError, WireDamaged)

_ELSEWHERE: Final = frozenset({"NOT_LEADER", "DRAINING", "SHARD_UNAVAILABLE"})
"""What another copy may not say, of what only a leader does."""


class _Health(msgspec.Struct, frozen=True):
    role: str = ""


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
        addresses: str | Sequence[str],
        api_key: str | None = None,
        *,
        read: FeedRead = "leader",
        headers: Mapping[str, str] | None = None,
        socket: str | None = None,
        attempts_max: int = ATTEMPTS_MAX,
        first_delay_s: float = FIRST_DELAY_S,
        back_s: float = BACK_S,
    ) -> None:
        """Connects when it is first used, to `socket` where one is given; `headers` go along.

        `addresses`: of one engine, or of several copies of it.  With `read` ``follower`` pages come
        from a copy that follows while one keeps up, and from the leader otherwise.
        """
        urls = [addresses] if isinstance(addresses, str) else addresses
        self._urls = [url.rstrip("/") for url in urls]
        self._leads = self._urls[0]
        """The one that is asked first for what only a leader does."""
        self._read: FeedRead = read
        self._back_s = back_s
        self._wanted = {"read": read} if read != "leader" else {}
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

        Asked again after every cut, from where it was: of all copies, followers first when these
        are to be read.  Raises `EngineError` SHARD_UNAVAILABLE after so many attempts without a
        page, INTERNAL when what follows is another history.
        """
        track = _Track(from_offset)
        attempts = 0
        while not self._closed.is_set():
            roles = await self._roles()
            for url in in_turn(self._urls, roles, random.random()):  # noqa: S311
                role, got, why = roles.get(url, ""), False, "it ended"
                try:
                    async with contextlib.aclosing(
                        self._pages_of(url, role, shard, track)
                    ) as pages:
                        async for page in pages:
                            got, attempts = True, 0
                            yield page
                except DifferentHistory:
                    raise
                except EngineError as error:
                    if not error.problem.retryable and is_final(self._urls, role):
                        raise
                    why = error.detail
                except _LOST as error:
                    why = f"{type(error).__name__}: {error}"
                if got or self._closed.is_set():
                    break
            attempts += 1
            if attempts >= self._attempts_max and not self._closed.is_set():
                raise EngineError(
                    f"no feed of shard {shard} after {attempts} attempts: {why}",
                    code="SHARD_UNAVAILABLE",
                    retry_after_s=DELAY_MAX_S,
                )
            await self._pause(attempts)

    async def _roles(self) -> dict[str, str]:
        """What the copies say that they are; nothing of who does not answer."""
        if len(self._urls) == 1:
            return {}
        found = await asyncio.gather(*(self._role(url) for url in self._urls))
        return dict(zip(self._urls, found, strict=True))

    async def _role(self, url: str) -> str:
        try:
            async with self._opened().get(
                f"{url}/healthz", timeout=aiohttp.ClientTimeout(total=ROLE_S)
            ) as response:
                return msgspec.json.decode(await response.read(), type=_Health).role
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError):
            return ""

    async def _pages_of(
        self, url: str, role: str, shard: ShardId, track: "_Track"
    ) -> AsyncGenerator[FeedPage, None]:
        """The pages of one connection behind what is known.

        Ends by itself after a while with a leader, where there are copies.  Raises as `pages`,
        and what is in `_LOST`.
        """
        loop = asyncio.get_running_loop()
        until = math.inf
        if role == LEADER and self._read == "follower" and len(self._urls) > 1:
            until = loop.time() + self._back_s
        for start in track.starts():
            proves = start < track.position
            try:
                pages = self._pages_once(url, shard, start)
                async with contextlib.aclosing(pages):
                    async for page in pages:
                        yield track.follow(page, proves=proves)
                        proves = proves and not page.groups
                        if loop.time() > until:
                            return
            except EngineError as error:
                # Cut off exactly there, a log has what is needed and not what would prove it.
                if error.code != "TOO_OLD" or start == track.position:
                    raise
            else:
                return

    async def _pages_once(
        self, url: str, shard: ShardId, position: Offset
    ) -> AsyncGenerator[FeedPage, None]:
        """The pages of one connection.  Raises `EngineError`, and what is in `_LOST`."""
        reader = FeedReader(shard)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_S, sock_read=SILENCE_S)
        async with self._opened().get(
            f"{url}/v1/feed",
            params={"shard": str(shard), "from": str(position), **self._wanted},
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
        """One request, to whoever leads, and its decoded answer.  Raises `EngineError`."""
        for _ in self._urls[1:]:
            try:
                return await self._ask_at(self._leads, method, path, query, kind, body)
            except EngineError as error:
                if error.code not in _ELSEWHERE:
                    raise
            self._leads = self._urls[(self._urls.index(self._leads) + 1) % len(self._urls)]
        return await self._ask_at(self._leads, method, path, query, kind, body)

    async def _ask_at(
        self, url: str, method: str, path: str, query: Mapping[str, int], kind: Any, body: Any
    ) -> Any:
        try:
            async with self._opened().request(
                method,
                url + path,
                params={name: str(value) for name, value in query.items()},
                json=body,
                timeout=aiohttp.ClientTimeout(total=ANSWER_S),
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EngineError(
                f"the engine at {url} cannot be reached: {type(error).__name__}",
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


class DifferentHistory(EngineError):
    """What came is not what was before, or does not follow it: code INTERNAL."""


class _Track:
    """Where a consumer stands, and what may come next."""

    def __init__(self, position: Offset) -> None:
        self.position = position
        self._sequence = -1
        self._time = 0
        self._chain = b""
        """Of the last group; empty before there is one."""

    def starts(self) -> tuple[Offset, ...]:
        """From where on to ask anew: from the last group on, which must be the same there; from
        behind it where it is not kept any more."""
        return (Offset(self.position - 1), self.position) if self._chain else (self.position,)

    def follow(self, page: FeedPage, *, proves: bool) -> FeedPage:
        """Go on behind a page; what is new of it.  `proves`: it begins with the last group.

        Raises `DifferentHistory`.
        """
        groups = page.groups
        if proves and groups:
            self._prove(groups[0])
            groups = groups[1:]
        self._go_on(groups)
        return FeedPage(groups, page.end, page.end_time)

    def _prove(self, group: CommittedGroup) -> None:
        known = (self.position, self._sequence, self._chain)
        if (group.offset_end, group.sequence, group.chain) != known:
            raise DifferentHistory(
                f"the feed of shard {group.shard} is another history: the group below offset "
                f"{self.position} was frame {self._sequence} with chain {self._chain.hex()}, and "
                f"is frame {group.sequence} with chain {group.chain.hex()} now"
            )

    def _go_on(self, groups: Sequence[CommittedGroup]) -> None:
        for group in groups:
            # The first group may begin before the offset that was asked for; none after it.
            begins = group.base_offset == self.position or (
                self._sequence < 0 and group.base_offset < self.position < group.offset_end
            )
            if not begins or group.sequence <= self._sequence or group.time < self._time:
                raise DifferentHistory(
                    f"the feed of shard {group.shard} is another history: behind offset "
                    f"{self.position} (frame {self._sequence}) came offset {group.base_offset} "
                    f"(frame {group.sequence})"
                )
            self.position = group.offset_end
            self._sequence, self._time = group.sequence, group.time
            self._chain = group.chain


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
