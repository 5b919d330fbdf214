"""Connections to the shards, and requests that are sent until they have an answer.

    links = Links({ShardId(0): Address(path="/run/0.sock"), ...}, shard_map)
    links.send(shard, request, done, deadline_s=30.0)

A connection carries one request at a time and is kept for the next one; the one used last is
used first, so that few stay warm.  Everything runs on the thread of the event loop, and nothing
of a request or an answer is looked into, but for one word: the name of a shard may have the
addresses of all its copies, and NOT_LEADER sends a request on to the next of them.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog

from ultraengine.model.errors import EngineError, InvariantBroken
from ultraengine.model.ids import ShardId
from ultraengine.router.connection.driver import Connection, Ended
from ultraengine.router.retry import (
    STRANGER,
    UNAVAILABLE_RETRY_AFTER_S,
    Again,
    Failure,
    Place,
    TurnedAway,
    after,
    goes_round,
    in_turn,
    is_final,
)
from ultraengine.router.shard_map import ShardMap
from ultraengine.router.wire import Answered

CONNECTIONS_MAX: Final = 64
"""Connections to one shard; more requests wait for one."""
WAITING_MAX: Final = 8_192
"""Requests that wait for a connection to one shard; more: 429 OVERLOADED."""
CONNECT_S: Final = 2.0
"""Longest wait for a connection, once it is known where to; shared by all addresses of a name."""
RESOLVE_S: Final = 1.0
"""Longest wait for the addresses of a name; after it the last known ones are tried."""
IDLE_S: Final = 60.0
"""A connection that was not used for so long is closed: before the shard does it."""
SILENT_S: Final = 2.0
"""A copy that leaves a request without an answer for so long may be stopped or cut off: another one
is asked whether it leads by now."""
LATE_S: Final = 5.0
"""An answer that comes so much later than its deadline is given up with its connection."""

_log = structlog.get_logger("ultraengine.router")

Result = Answered | EngineError
"""The shard's answer, or why there is none: SHARD_UNAVAILABLE (nothing was sent), OVERLOADED
(likewise), OUTCOME_UNKNOWN (it may have been carried out)."""


class Address(msgspec.Struct, frozen=True):
    """Where a shard listens: a Unix socket, or host and port; the host may be a name with an
    address for each copy."""

    path: str | None = None
    host: str = ""
    port: int = 0


Resolve = Callable[[str, int], Awaitable[Sequence[tuple[str, int]]]]
"""The addresses that a name has now.  Raises OSError."""


async def resolve(host: str, port: int) -> Sequence[tuple[str, int]]:
    """Ask the system, which asks DNS.  Raises OSError, and UnicodeError for what is no name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(str(one[4][0]), port) for one in found]


class Link:
    """All connections to one shard."""

    def __init__(
        self,
        address: Address,
        *,
        connections_max: int = CONNECTIONS_MAX,
        resolve: Resolve = resolve,
    ) -> None:
        self.address = address
        self._resolve = resolve
        self._known: Sequence[tuple[str, int]] = ()
        """The addresses of the name when it was last resolved."""
        self._first: Place | None = None
        """The address to try first: the one that has answered, or the one after one that did not
        lead or could not be reached."""
        self._leads: Place | None = None
        """The address that has answered last as who leads does."""
        self._is_away = False
        """Whether the last connection could not be had."""
        self._connections_max = connections_max
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []
        self._all: dict[Connection, None] = {}
        self._opening = 0
        self._waiting: deque[tuple[bytes, Callable[[Ended], None], float]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked = 0
        """How often another copy was asked because one was silent."""
        self._asking: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Requests that wait for a connection."""
        return len(self._waiting)

    @property
    def places(self) -> Sequence[Place]:
        """The addresses of the name, as last known."""
        return self._known

    @property
    def where(self) -> Address:
        """Where it listens: the copy that leads, as far as is known."""
        if self._leads is None or len(self._known) < 2:
            return self.address
        return Address(host=self._leads[0], port=self._leads[1])

    async def copies(self) -> list[Address]:
        """All addresses, that of who leads first, as far as is known.  Raises as `_addresses`."""
        known = [] if self.address.path is not None else await self._addresses()
        if len(known) < 2:
            return [self.address]
        return [Address(host=host, port=port) for host, port in in_turn(known, self._leads)]

    def leave(self, place: Place) -> None:
        """This address does not lead, or is away: the next one is tried first."""
        if self._first in {None, place} and place in self._known:
            self._first = [*in_turn(self._known, place), place][1]

    def go_by(self, place: Place) -> None:
        """Who leads has answered from this address.

        What is under way to another one is cut: it may be a machine that has vanished, and every
        request may be sent again.
        """
        if place == self._leads:
            return
        self._first = self._leads = place
        for connection in [one for one in self._all if one.place != place]:
            connection.abort()

    def send(self, request: bytes, done: Callable[[Ended], None], until: float) -> None:
        """Send a request once, and wait `until` then (loop time); `done` is called once with
        its answer or how it failed."""
        if self._idle:
            self._idle.pop().send(request, done, until)
            return
        self._waiting.append((request, done, until))
        # A shard that is away is tried by one connection at a time, however many ask for it.
        is_away = self._is_away and self._opening
        if not is_away and len(self._all) + self._opening < self._connections_max:
            self._open()

    def _open(self) -> None:
        self._opening += 1
        self._begin(self._connect())

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _connect(self) -> None:
        try:
            made = await self._made()
        except (OSError, UnicodeError) as error:
            _log.debug("hop.not_connected", address=str(self.address), error=str(error))
            self._opening -= 1
            if not self._all and not self._opening:
                self._is_away = True
                self._fail_waiting()
            return
        self._opening -= 1
        self._is_away = False
        self._all[made] = None
        if self._closed:
            made.abort()
        else:
            self.release(made)
            if self._waiting and len(self._all) + self._opening < self._connections_max:
                self._open()

    async def _made(self) -> Connection:
        """A new connection.  Raises OSError, and UnicodeError for what is no name."""
        address, loop = self.address, self._loop
        if address.path is not None:
            async with asyncio.timeout(CONNECT_S):
                _, made = await loop.create_unix_connection(
                    lambda: Connection(self, ("", 0)), address.path
                )
            return made
        error: OSError = OSError(f"{address.host} has no address")
        known = in_turn(await self._addresses(), self._first)
        for place in known:
            made = Connection(self, place)
            try:
                async with asyncio.timeout(CONNECT_S / len(known)):
                    await loop.create_connection(lambda made=made: made, *place)  # type: ignore[misc]
            except OSError as refused:  # Silence, too: TimeoutError is one.
                error = refused
                self.leave(place)
            else:
                return made
        raise error

    async def _addresses(self) -> Sequence[tuple[str, int]]:
        """Where to connect.  Raises OSError, and UnicodeError for what is no name.

        The name is resolved each time, because a pod that starts again may have another address;
        while that fails, the last known one is tried: a shard need not suffer with DNS.
        """
        try:
            async with asyncio.timeout(RESOLVE_S):
                self._known = await self._resolve(self.address.host, self.address.port)
        except OSError:
            if not self._known:
                raise
        return self._known

    def _fail_waiting(self) -> None:
        """The shard cannot be reached: those who wait are told so, and none was sent."""
        waiting, self._waiting = self._waiting, deque()
        for _, done, _ in waiting:
            done(Failure.NOT_SENT)

    def release(self, connection: Connection) -> None:
        """A connection is free: for who waits, or for later."""
        if self._waiting:
            connection.send(*self._waiting.popleft())
        else:
            connection.until = self._loop.time() + IDLE_S
            self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """A connection is gone; who still waits gets another one, or is told."""
        self._all.pop(connection, None)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting and not self._closed and not self._opening:
            self._open()

    def sweep(self) -> None:
        """Close what is idle for `IDLE_S`, and give up answers that are late."""
        now = self._loop.time()
        for connection in [one for one in self._all if one.until < now]:
            connection.abort()
        if len(self._known) < 2 or (self._asking is not None and not self._asking.done()):
            return
        asked = [one for one in self._all if one.is_asked and one.since + SILENT_S < now]
        if asked:
            silent = min(asked, key=lambda one: one.since)
            self._asking = self._begin(self._ask_another(silent.place, silent.request))

    async def _ask_another(self, silent: Place, request: bytes) -> None:
        """Ask one of the other copies what a silent one was asked: a copy that follows takes
        nothing, and an answer of one that leads cuts what waits for the silent one (`go_by`)."""
        answered = self._loop.create_future()

        def done(ended: Ended) -> None:
            if not answered.done():
                answered.set_result(ended)

        try:
            others = [one for one in in_turn(await self._addresses(), silent) if one != silent]
            if not others:
                return
            self._asked += 1
            made = Connection(self, others[self._asked % len(others)])
            async with asyncio.timeout(CONNECT_S):
                await self._loop.create_connection(lambda: made, *made.place)
        except (OSError, UnicodeError) as error:
            _log.debug("hop.no_other", address=str(self.address), error=str(error))
            return
        self._all[made] = None
        made.send(request, done, self._loop.time() + SILENT_S)
        await answered

    async def close(self) -> None:
        """Cut all connections; what is under way is lost."""
        self._closed = True
        for connection in list(self._all):
            connection.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail_waiting()


class Errand:
    """One request and its attempts."""

    __slots__ = ("_attempts", "_deadline_s", "_done", "_link", "_loop", "_request", "_start",
                 "_turned", "_was_sent")  # fmt: skip

    def __init__(
        self, link: Link, request: bytes, done: Callable[[Result, bool], None], deadline_s: float
    ) -> None:
        self._link = link
        self._request = request
        self._done = done
        self._deadline_s = deadline_s
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self._attempts = 0
        self._turned: list[Place] = []
        """Copies that have turned it away since it waited last."""
        self._was_sent = False
        """Whether an attempt before this one may have reached the shard."""

    def go(self) -> None:
        """One attempt."""
        self._attempts += 1
        until = self._start + self._deadline_s + LATE_S
        self._link.send(self._request, self._ended, until)

    def _ended(self, ended: Ended) -> None:
        if isinstance(ended, TurnedAway):
            self._turned.append(ended.place)
            if goes_round(self._turned, self._link.places):
                self.go()
                return
            self._turned.clear()
            ended = Failure.LATER
        if isinstance(ended, Answered):
            if not is_final(ended.status, was_lost=self._was_sent):
                ended = Failure.LATER
            elif ended.status == STRANGER:
                # Whom the sender is has been settled; this is between the shard and its front.
                detail = "the shard does not take the hop key of its front"
                retry_after_s = UNAVAILABLE_RETRY_AFTER_S
                error = EngineError(detail, code="SHARD_UNAVAILABLE", retry_after_s=retry_after_s)
                self._done(error, self._was_sent)
                return
            else:
                self._done(ended, self._was_sent)
                return
        self._was_sent = self._was_sent or ended is Failure.LOST
        follows = after(
            ended,
            was_sent=self._was_sent,
            attempts=self._attempts,
            elapsed_s=self._loop.time() - self._start,
            deadline_s=self._deadline_s,
        )
        if isinstance(follows, Again):
            self._loop.call_later(follows.delay_s, self.go)
        elif follows.code == "OUTCOME_UNKNOWN":
            detail = "the shard's answer was lost; the request may have been carried out"
            self._done(EngineError(detail, code=follows.code), self._was_sent)
        else:
            detail = "the shard cannot be reached"
            retry_after_s = UNAVAILABLE_RETRY_AFTER_S
            error = EngineError(detail, code=follows.code, retry_after_s=retry_after_s)
            self._done(error, self._was_sent)


class Links:
    """The shards by the newest map, and a link to each."""

    def __init__(
        self,
        addresses: Mapping[ShardId, Address],
        shard_map: ShardMap,
        *,
        resolve: Resolve = resolve,
    ) -> None:
        self._resolve = resolve
        self._links = {
            shard: Link(address, resolve=resolve) for shard, address in addresses.items()
        }
        self._map = shard_map
        self._require_addresses(shard_map)
        self.on_wrong_shard: Callable[[], None] = lambda: None
        """Called when a shard has answered that a key is not its own: the map may be old."""

    def _require_addresses(self, shard_map: ShardMap) -> None:
        missing = [shard for shard in shard_map.shards if shard not in self._links]
        if missing:
            raise InvariantBroken("every shard of a map has an address", missing=missing)

    @property
    def shard_map(self) -> ShardMap:
        """The map to go by."""
        return self._map

    @property
    def shards(self) -> tuple[ShardId, ...]:
        """Every shard with an address, ascending."""
        return tuple(sorted(self._links))

    def address_of(self, shard: ShardId) -> Address:
        """Where a shard listens; of several copies the one that leads, as far as is known.

        Raises KeyError for one that has no address.
        """
        return self._links[shard].where

    async def copies_of(self, shard: ShardId) -> list[Address]:
        """Where all copies of a shard listen, who leads first.  Raises OSError, UnicodeError."""
        return await self._links[shard].copies()

    def adopt(self, shard_map: ShardMap, addresses: Mapping[ShardId, Address]) -> bool:
        """Go by another map from now on, if it is newer; whether it is.

        New shards get links; those that the map does not name keep theirs, because requests
        may be under way on them.
        """
        if shard_map.version <= self._map.version:
            return False
        for shard, address in addresses.items():
            known = self._links.get(shard)
            if known is None or known.address != address:
                self._links[shard] = Link(address, resolve=self._resolve)
        self._require_addresses(shard_map)
        self._map = shard_map
        return True

    def send(
        self,
        shard: ShardId,
        request: bytes,
        done: Callable[[Result, bool], None],
        *,
        deadline_s: float,
    ) -> None:
        """Send a request, which names what it does so that it may be sent again, until it has
        an answer.  `done` is called once: with the result, and whether an attempt before the
        last one may have been carried out."""
        link = self._links[shard]
        if link.waiting >= WAITING_MAX:
            detail = f"{WAITING_MAX} requests wait for shard {shard}"
            done(EngineError(detail, code="OVERLOADED", retry_after_s=0.1), False)  # noqa: FBT003
            return
        Errand(link, request, done, deadline_s).go()

    async def ask(self, shard: ShardId, request: bytes, *, deadline_s: float) -> Answered:
        """Send a request and wait.  Raises `EngineError` as in `Result`."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def done(result: Result, _: bool) -> None:  # noqa: FBT001  (the shape of a callback)
            if not future.done():
                future.set_result(result)

        self.send(shard, request, done, deadline_s=deadline_s)
        result = await future
        if isinstance(result, EngineError):
            raise result
        return result

    def sweep(self) -> None:
        """Close idle and late connections; to be called every few seconds."""
        for link in self._links.values():
            link.sweep()

    async def close(self) -> None:
        """Cut all connections."""
        await asyncio.gather(*(link.close() for link in self._links.values()))
