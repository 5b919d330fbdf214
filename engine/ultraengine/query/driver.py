"""Answers queries: from a cache, or from the database once it has come far enough.

    kept answer? ── yes ─▶ given, with its own position
         │ no
    breaker open? ── yes ─▶ 503 PROJECTION_UNAVAILABLE, Retry-After
         │ no
    one conversation on one snapshot (`reader.ask`)
         │ the tables are behind what the request wants
         └─▶ wait until they are not (504 WAIT_TIMEOUT), then once more

Everybody who waits shares one look at the position every `POLL_S`; nobody looks while nobody
waits.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

import msgspec
import structlog
import xxhash

from ultraengine.advice.recorder import Recorder, Usage
from ultraengine.model.errors import EngineError
from ultraengine.model.limits import Limits
from ultraengine.model.projection import Projection
from ultraengine.model.reads import Read, path_names
from ultraengine.ports import Clock, Random
from ultraengine.projection.breaker import Breaker
from ultraengine.query.answer import answer
from ultraengine.query.caching import AnswerCache, Kept
from ultraengine.query.cursor import Cursors
from ultraengine.query.metrics import QueryMetrics
from ultraengine.query.plan import Asked
from ultraengine.query.reader import (
    Behind,
    Found,
    ReadEnded,
    Reader,
    ReaderUnavailable,
    Talk,
    ask,
    look,
)
from ultraengine.query.sql import Moment

POLL_S: Final = 0.01
BREAKER_WAIT_MAX_S: Final = 10.0
QUEUE_S: Final = 1.0
"""Longest wait for a connection; then 429 OVERLOADED."""
T = TypeVar("T")
_log = structlog.get_logger("ultraengine.query")


class SqlReads:
    """All reads of one process over one database.  Used on the event loop's thread."""

    def __init__(
        self,
        reader: Reader,
        *,
        limits: Limits,
        cursors: Cursors,
        clock: Clock,
        random: Random,
        metrics: QueryMetrics,
        cache: AnswerCache | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.reader = reader
        self.limits = limits
        self.cursors = cursors
        self.metrics = metrics
        self.cache = AnswerCache() if cache is None else cache
        self.recorder = Recorder(clock.now()) if recorder is None else recorder
        self.breaker = Breaker(BREAKER_WAIT_MAX_S)
        self._clock = clock
        self._random = random
        self._seed = int.from_bytes(random.bytes(8), "little")
        """Of the hashes of values that the recorder counts: nobody can look them up."""
        self._connections = asyncio.Semaphore(limits.sql_connections)
        self._moved: dict[str, asyncio.Condition] = {}
        self._pollers: dict[str, asyncio.Task[None]] = {}
        metrics.breaker = lambda: self.breaker.state.value
        metrics.caches = self.cache.stats
        metrics.totals = self.recorder.totals

    async def close(self) -> None:
        """End what waits, and disconnect."""
        for task in self._pollers.values():
            task.cancel()
        await asyncio.gather(*self._pollers.values(), return_exceptions=True)
        await self.reader.close()

    async def answer(self, asked: Asked) -> Kept:
        """The answer and the moment it shows.

        Raises `EngineError`: OVERLOADED, PROJECTION_UNAVAILABLE, READ_TIMEOUT, WAIT_TIMEOUT,
        NOT_FOUND, TOO_LARGE, and what the domain says.
        """
        kept = self.cache.get(asked, self._clock.monotonic())
        if kept is not None:
            self.recorder.hit(usage_of(asked), self._clock.now())
            return kept
        metrics = self.metrics
        if metrics.reads_in_flight >= self.limits.sql_reads_max:
            raise EngineError(
                f"more than sql_reads_max ({self.limits.sql_reads_max}) reads are being answered",
                code="OVERLOADED",
            )
        metrics.reads_in_flight += 1
        try:
            return await self._ask(asked)
        except EngineError as error:
            if error.problem.status >= 500:
                self.recorder.failure(usage_of(asked), self._clock.now())
            raise
        finally:
            metrics.reads_in_flight -= 1

    async def _ask(self, asked: Asked) -> Kept:
        until = time.monotonic() + self.limits.min_offset_wait_s
        start = time.perf_counter()
        found = await self.run(asked.tenant, ask(asked, self.reader.dialect))
        while isinstance(found, Behind):
            self._saw(asked.route.projection, found.moment)
            await self._reached(asked, until)
            start = time.perf_counter()
            found = await self.run(asked.tenant, ask(asked, self.reader.dialect))
        self._saw(asked.route.projection, found.moment)
        self._record(asked, found, time.perf_counter() - start)
        value = answer(asked, found.ran, found.rows, self.cursors)
        kept = Kept(value, found.moment, sum(map(len, found.rows)))
        self.cache.put(asked, kept)
        return kept

    def _saw(self, projection: Projection, moment: Moment) -> None:
        self.cache.saw(projection.name, moment, self._clock.monotonic())

    def _record(self, asked: Asked, found: Found, seconds: float) -> None:
        in_path = set(path_names(asked.route.read.path))
        hashes = {
            (one.column.name, one.operator.value): self._hashes(one.values)
            for one in asked.conditions
            if one.column.name not in in_path
        }
        if asked.values:
            # Of a computed read: the parameters that the request gave.
            hashes = {
                place: self._hashes([asked.values[place[0]]]) for place in asked.shape.filters
            }
        rows = sum(map(len, found.rows))
        usage = usage_of(asked)
        self.recorder.answered(usage, self._clock.now(), seconds, rows, hashes)

    def _hashes(self, values: Iterable[Any]) -> list[int]:
        return [
            xxhash.xxh3_64_intdigest(msgspec.msgpack.encode(str(value)), seed=self._seed)
            for value in values
        ]

    async def run(self, tenant: str, talk: "Talk[T]") -> T:
        """One conversation with the database.  Raises `EngineError` when it cannot be had."""
        breaker, now = self.breaker, self._clock.monotonic
        if not breaker.allows(now()):
            raise self._unavailable()
        try:
            return await self._run(tenant, talk)
        finally:
            # Nothing was decided by who found no free connection, was cancelled, or has a fault.
            breaker.undecided()

    async def _run(self, tenant: str, talk: "Talk[T]") -> T:
        breaker, now = self.breaker, self._clock.monotonic
        try:
            async with asyncio.timeout(QUEUE_S):
                await self._connections.acquire()
        except TimeoutError as error:
            raise EngineError(
                "all connections to the database are busy", code="OVERLOADED"
            ) from error
        try:
            result = await self.reader.run(tenant, talk, self.limits.sql_statement_s)
        except ReaderUnavailable as error:
            self.metrics.unavailable += 1
            breaker.failed(now(), self._random.bytes(1)[0] / 256)
            _log.warning("database.unavailable", error=str(error))
            raise self._unavailable() from error
        except ReadEnded as error:
            self.metrics.ended += 1
            breaker.succeeded()
            raise EngineError(
                f"the read took longer than sql_statement_s ({self.limits.sql_statement_s:g} s)",
                code="READ_TIMEOUT",
            ) from error
        except EngineError:
            breaker.succeeded()
            raise
        finally:
            self._connections.release()
        breaker.succeeded()
        return result

    def _unavailable(self) -> EngineError:
        wait = max(0.0, self.breaker.retry_at - self._clock.monotonic())
        return EngineError(
            "the database cannot be reached",
            code="PROJECTION_UNAVAILABLE",
            retry_after_s=round(wait, 3),
        )

    # --- waiting for an offset ------------------------------------------------------------

    async def _reached(self, asked: Asked, until: float) -> None:
        """Wait until the tables have come far enough.  Raises `EngineError` WAIT_TIMEOUT."""
        projection = asked.route.projection
        moved = self._moved.setdefault(projection.name, asyncio.Condition())
        self.metrics.waiting += 1
        try:
            async with moved, asyncio.timeout(max(0.0, until - time.monotonic())):
                self._poll(projection, moved)
                while True:
                    await moved.wait()
                    newest = self.cache.newest(projection.name)
                    if newest is not None and asked.wanted.reached(newest.position):
                        break
        except TimeoutError as error:
            self.metrics.waits["timeout"] += 1
            newest = self.cache.newest(projection.name)
            at = "nowhere" if newest is None else newest.position.header or "the beginning"
            raise EngineError(
                f"the tables were at {at} after {self.limits.min_offset_wait_s:g} s",
                code="WAIT_TIMEOUT",
                pointer="/query/min_offset",
            ) from error
        finally:
            self.metrics.waiting -= 1
        self.metrics.waits["reached"] += 1

    def _poll(self, projection: Projection, moved: asyncio.Condition) -> None:
        task = self._pollers.get(projection.name)
        if task is None or task.done():
            self._pollers[projection.name] = asyncio.create_task(
                self._look_again(projection, moved)
            )

    async def _look_again(self, projection: Projection, moved: asyncio.Condition) -> None:
        """Look at the position while somebody waits for it."""
        while self.metrics.waiting:
            with suppress(EngineError):  # Who waits is told when the wait is over.
                self._saw(projection, await self.look(projection))
            async with moved:
                moved.notify_all()
            await asyncio.sleep(POLL_S)

    async def look(self, projection: Projection) -> Moment:
        """The moment that the database shows now.  Raises `EngineError`."""
        return await self.run("", look(projection, self.reader.dialect))


def usage_of(asked: Asked) -> Usage:
    """What the recorder knows of a query."""
    read, order = asked.route.read, asked.order
    return Usage(
        asked.route.projection.name,
        asked.route.name,
        read.table if isinstance(read, Read) else "",
        path_names(read.path),
        asked.shape.filters,
        ()
        if order is None
        else tuple(f"{name} desc" if order.descending else name for name in order.columns),
    )


def positions_seen(
    cache: AnswerCache, projections: Iterable[Projection]
) -> Iterable[tuple[str, int, int]]:
    """(projection, shard, end) of the newest moments that are known."""
    for projection in projections:
        newest: Moment | None = cache.newest(projection.name)
        for shard, end in () if newest is None else newest.position.ends:
            yield projection.name, shard, end


def facts(moments: Mapping[str, Moment]) -> dict[str, Any]:
    """Moments as answers show them."""
    return {
        name: {"version": one.version, "build": one.build, "position": one.position.header}
        for name, one in moments.items()
    }
