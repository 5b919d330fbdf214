"""The loop of one target: groups in, transactions out, and nothing is lost or written twice.

    look   requests and sets -> `sets.plan` -> deeds; readings for what is to be followed
    turn   each reading: groups that wait -> `Forming` -> one transaction per set
    idle   aggregates, partitions; then wait for groups or for the next look

While one batch is being written the next one is formed.  A batch is as large as what waits, up to
its limits: small and at once when caught up, large when behind.  Exactly once rests on the target
alone (`Target.write` moves rows and positions together, from where they were believed to be);
whatever happens here, a new start reads the positions and goes on.

A database that is away costs the engine nothing: the breaker opens, reading stops when the inboxes
are full, and the log keeps what the slot has not confirmed.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
import structlog

from ultraengine.feed.source import FeedSource
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Instant, Offset, ShardId
from ultraengine.model.limits import DEFAULT_PROJECTION_LIMITS, ProjectionLimits
from ultraengine.ports import Clock
from ultraengine.projection.breaker import Breaker, BreakerState
from ultraengine.projection.confirming.driver import Slots, lowest
from ultraengine.projection.decode import WHOLE, Decoder
from ultraengine.projection.forming.driver import Forming
from ultraengine.projection.keeping.driver import Keeper
from ultraengine.projection.projector import (
    REASON_CHARS_MAX,
    Declared,
    Formed,
    Poison,
    ProjectionHooks,
    Written,
    told,
)
from ultraengine.projection.reading.driver import Reader
from ultraengine.projection.readings import Member, Reading, SetKey, group_by_position, key_of
from ultraengine.projection.target import (
    START,
    Checkpoint,
    Parked,
    ProjectionSet,
    RowRefused,
    SetState,
    Target,
    TargetUnavailable,
)
from ultraengine.projection.view import TargetView
from ultraengine.projection.watching import Watch

SHARDS_EVERY_S: Final = 10.0
"""Between two questions which shards the engine has."""
NOW: Final = float("-inf")
_log = structlog.get_logger("projection")


class _Writing(msgspec.Struct, frozen=True):
    """A batch under way."""

    reading: Reading
    formed: Formed
    task: "asyncio.Task[tuple[Member, str] | None]"


class TargetWorker:
    """Fills the sets of one target.  `run` ends by cancellation, or raises `Fenced`."""

    def __init__(
        self,
        target: Target,
        source: FeedSource,
        declared: Sequence[Declared],
        decoder: Decoder,
        *,
        clock: Clock,
        chance: Callable[[], float],
        hooks: ProjectionHooks | None = None,
        limits: ProjectionLimits = DEFAULT_PROJECTION_LIMITS,
    ) -> None:
        """`decoder` is this worker's own: it remembers what it has met."""
        self._target = target
        self._source = source
        self._decoder = decoder
        self._clock = clock
        self._chance = chance
        self._hooks = hooks or ProjectionHooks()
        self._limits = limits
        self.breaker = Breaker(limits.breaker_wait_s_max)
        self._keeper = Keeper(target, declared, clock, limits)
        self._watch = Watch(limits)
        self._slots = Slots(source, target.name, limits.confirm_s)
        self._shards: tuple[ShardId, ...] = ()
        self._readings: list[Reading] = []
        self._readers: dict[int, dict[ShardId, tuple[Reader, asyncio.Task[None]]]] = {}
        """By the identity of the reading."""
        self._standing: dict[SetKey, Mapping[ShardId, Checkpoint]] = {}
        """Positions of sets that hold the log and are not followed."""
        self._apart: dict[SetKey, dict[ShardId, Offset]] = {}
        """Sets of which a batch was refused: how far it went."""
        self._stale: set[SetKey] = set()
        """Sets whose aggregates may have touched slices."""
        self._unsure = True
        """Whether the target may hold other positions than it is believed to."""
        self._upset = False
        """Whether readings are not what they should be, so that only a look may follow."""
        self._kept_at: dict[SetKey, float] = {}
        self._writing: _Writing | None = None
        self._arrived = asyncio.Event()
        self._look_at = NOW
        self._refresh_at = NOW
        self._tasks: list[asyncio.Task[None]] = []

    def view(self) -> TargetView:
        """What is known of it."""
        return self._watch.view(self._target, self.breaker)

    async def run(self) -> None:
        """Write until cancelled.  Raises `Fenced` when another worker writes here."""
        self._tasks = [
            asyncio.create_task(self._slots.run()),
            asyncio.create_task(self._know_shards()),
            asyncio.create_task(self._observe()),
        ]
        try:
            while True:
                await self._until_allowed()
                try:
                    await self._target.open()
                    while True:
                        await self._turn()
                except TargetUnavailable as error:
                    self._away(error)
                    await self._begin_anew()
        finally:
            if self._writing is not None:
                await asyncio.wait({self._writing.task}, timeout=self._limits.stop_s)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._begin_anew()
            for reading in tuple(self._readings):
                await self._close_reading(reading)

    # --- the database and the engine come and go ---------------------------------------------

    async def _until_allowed(self) -> None:
        while not self.breaker.allows(self._clock.monotonic()):
            wait = self.breaker.retry_at - self._clock.monotonic()
            forced = self.breaker.state is BreakerState.FORCED
            await asyncio.sleep(self._limits.poll_s if forced else max(0.0, wait))

    def _away(self, error: TargetUnavailable) -> None:
        if self.breaker.state is BreakerState.CLOSED:
            _log.error("target.away", target=self._target.name, error=str(error))
        self._watch.last_error = str(error)
        self.breaker.failed(self._clock.monotonic(), self._chance())

    def _reached(self) -> None:
        """The database has answered."""
        if self.breaker.state is not BreakerState.CLOSED:
            self.breaker.succeeded()
            self._watch.last_error = None
            _log.info("target.back", target=self._target.name)

    async def _begin_anew(self) -> None:
        """Disconnect, and forget what was under way: what the target holds is read again.

        Readings read on from what is known to be written, so the lag of a database that is away
        can be told.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.task.cancel()
            await asyncio.gather(writing.task, return_exceptions=True)
        for old in tuple(self._readings):
            await self._close_reading(old)
            reading = Reading(old.members, old.positions, old.shards, one_by_one=old.one_by_one)
            reading.follow_on(old)
            self._open_reading(reading)
        self._unsure = True
        self._look_at = NOW
        with contextlib.suppress(TargetUnavailable):
            await self._target.close()

    async def _know_shards(self) -> None:
        said = ""
        while True:
            try:
                shards = tuple(await self._source.shards())
            except EngineError as error:
                if error.code != said:
                    said = error.code
                    _log.warning("engine.refuses", code=error.code, detail=error.detail)
            else:
                said = ""
                if shards != self._shards:
                    self._shards = shards
                    self._look_soon()
            await asyncio.sleep(SHARDS_EVERY_S if self._shards else self._limits.poll_s)

    def _look_soon(self) -> None:
        self._look_at = NOW
        self._upset = True
        self._arrived.set()

    async def _observe(self) -> None:
        """Look at the figures, however long the target takes."""
        while True:
            facts = self._watch.observe(
                self._keeper.sets, self._readings, self._standing,
                self._clock.now(), self._clock.monotonic(),
            )  # fmt: skip
            for level, event, more in facts:
                getattr(_log, level)(event, target=self._target.name, **more)
            await asyncio.sleep(self._limits.poll_s)

    # --- look --------------------------------------------------------------------------------

    async def _turn(self) -> None:
        if self._clock.monotonic() >= self._look_at:
            await self._settle()
            await self._look()
        wrote = False
        for reading in tuple(self._readings):
            if self._upset:
                return
            if await self._advance(reading):
                wrote = True
        if not wrote:
            await self._settle()
        if not wrote or self._clock.monotonic() >= self._refresh_at:
            wrote = await self._upkeep() or wrote
        if not wrote:
            await self._wait()

    async def _wait(self) -> None:
        """Until something arrives, or it is time to look."""
        wait = self._look_at - self._clock.monotonic()
        if wait > 0 and not any(one.is_waiting() for one in self._readings):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._arrived.wait()
        self._arrived.clear()

    async def _look(self) -> None:
        # Set before the look: what happens meanwhile may ask for another one.
        self._look_at = self._clock.monotonic() + self._limits.poll_s
        self._upset = False
        ready = [
            member.of
            for reading in self._readings
            if reading.is_caught_up
            for member in reading.members
            if member.of.state is SetState.BUILDING
        ]
        plan = await self._keeper.look(ready)
        self._reached()
        await self._arrange(plan.follow)
        if plan.actions:
            self._look_at = NOW

    async def _arrange(self, follow: Sequence[ProjectionSet]) -> None:
        """Readings for the sets to follow; those that are as they should be stay as they are."""
        known = {
            key_of(member.of): reading for reading in self._readings for member in reading.members
        }
        positions: dict[SetKey, Mapping[ShardId, Checkpoint]] = {}
        for of in follow:
            reading = None if self._unsure else known.get(key_of(of))
            positions[key_of(of)] = (
                await self._target.positions(of) if reading is None else reading.positions
            )
        self._unsure = False
        members = [Member(of, self._keeper.declared(of)) for of in follow]
        groups = group_by_position(members, positions, self._apart) if self._shards else []
        readings: list[Reading] = []
        for group in groups:
            keys = {key_of(member.of) for member in group}
            old = known.get(key_of(group[0].of))
            narrow = bool(keys & self._apart.keys())
            if (
                old is not None
                and old.keys == keys
                and old.shards == self._shards
                and old.one_by_one is narrow
                and old.positions == positions[key_of(group[0].of)]
            ):
                old.members = group
                readings.append(old)
            else:
                at = positions[key_of(group[0].of)]
                reading = Reading(group, at, self._shards, one_by_one=narrow)
                if old is not None:
                    reading.follow_on(old)
                readings.append(reading)
        for reading in tuple(self._readings):
            if reading not in readings:
                await self._close_reading(reading)
        for reading in readings:
            if reading not in self._readings:
                self._open_reading(reading)
        self._readings = readings
        await self._stand(set(positions))

    async def _stand(self, followed: set[SetKey]) -> None:
        """Know the positions of sets that need the log and are not followed now."""
        self._standing = {
            key_of(of): await self._target.positions(of)
            for of in self._keeper.sets
            if key_of(of) not in followed and of.state is not SetState.RETIRED
        }
        self._confirm()

    def _confirm(self) -> None:
        held: list[Mapping[ShardId, Checkpoint]] = [reading.positions for reading in self._readings]
        declared = self._keeper.wanted
        held += [
            self._standing[key_of(of)]
            for of in self._keeper.sets
            if key_of(of) in self._standing and declared.get(of.projection) == of.version
        ]
        self._slots.wanted = lowest(self._shards, held)

    def _open_reading(self, reading: Reading) -> None:
        self._readings.append(reading)
        self._stale |= reading.keys
        readers = self._readers[id(reading)] = {}
        for shard, inbox in reading.inboxes.items():
            reader = Reader(
                self._source, shard, inbox, self._arrived,
                ahead_bytes_max=self._limits.ahead_bytes_max,
                wait_s_max=self._limits.feed_wait_s_max,
                chance=self._chance,
            )  # fmt: skip
            known = reading.positions.get(shard, START)
            readers[shard] = reader, asyncio.create_task(reader.run(known))

    async def _close_reading(self, reading: Reading) -> None:
        self._readings.remove(reading)
        tasks = [task for _, task in self._readers.pop(id(reading)).values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- write -------------------------------------------------------------------------------

    async def _advance(self, reading: Reading) -> bool:
        """Form a batch of what waits and begin to write it; False when nothing waits."""
        readers = {shard: reader for shard, (reader, _) in self._readers[id(reading)].items()}
        forming = Forming(reading, readers, self._decoder, self._hooks, self._limits, self._clock)
        former, poison = await forming.run()
        for shard, behind in forming.held_up.items():
            _log.info("projection.waits", target=self._target.name, shard=shard, why=str(behind))
        if former.groups:
            await self._settle()
            if reading in self._readings:
                await self._begin(reading, former.finish(), forming.first_times)
        elif poison is None and (lost := reading.lost(self._clock.now())) is not None:
            poison = Poison(None, lost)
        if poison is not None:
            await self._settle()
            if reading in self._readings:
                await self._park(reading, poison)
        return bool(former.groups) or poison is not None

    async def _park(self, reading: Reading, poison: Poison) -> None:
        """What came before is written; nothing goes past it."""
        for member in reading.members:
            if poison.projection in (None, member.declared.projection.name):
                await self._keeper.park(member.of, poison.parked)
        await self._close_reading(reading)
        self._look_soon()

    async def _begin(
        self, reading: Reading, formed: Formed, first_times: Mapping[ShardId, Instant]
    ) -> None:
        if formed.overridden:
            _log.warning("projection.overridden", target=self._target.name, at=formed.overridden)
            await self._keeper.restart_builds()
            self._look_soon()
            if reading.is_building:
                await self._close_reading(reading)
                return
        reading.formed(formed, first_times)
        self._writing = _Writing(reading, formed, asyncio.create_task(self._write(reading, formed)))

    async def _write(self, reading: Reading, formed: Formed) -> tuple[Member, str] | None:
        """Write a batch into each set; the member that refused it and why."""
        for member, batch in zip(reading.members, formed.batches, strict=True):
            try:
                await self._target.write(member.of, member.declared.projection, batch, formed.moved)
            except RowRefused as error:
                return member, str(error)[:REASON_CHARS_MAX]
            self._stale.add(key_of(member.of))
            self._watch.wrote(member.of.projection, batch.row_count)
            written = Written(
                self._target.name, member.of.projection, member.of.build,
                member.of.state is SetState.SERVING, batch.row_count, formed.moved,
            )  # fmt: skip
            for failure in told(self._hooks, written):
                self._watch.hook_failures += 1
                _log.warning("projection.hook_failed", error=failure)
        return None

    async def _settle(self) -> None:
        """Wait for the batch under way and take note of its end."""
        writing = self._writing
        if writing is None:
            return
        await asyncio.wait({writing.task})
        self._writing = None
        refusal = writing.task.result()
        if refusal is not None:
            await self._refused(writing.reading, writing.formed, *refusal)
            return
        self._reached()
        reading = writing.reading
        reading.written(writing.formed)
        if reading.is_building and reading.is_caught_up:
            self._look_at = NOW
        for key in reading.keys & self._apart.keys():
            if reading.has_reached(self._apart[key]):
                del self._apart[key]
        self._confirm()

    async def _refused(self, reading: Reading, formed: Formed, member: Member, reason: str) -> None:
        """A batch was refused: find the group that is the cause, and park there."""
        first = formed.moved[0]
        if sum(moved.groups for moved in formed.moved) == 1:
            parked = Parked(first.shard, first.before.offset, WHOLE, reason, self._clock.now())
            await self._keeper.park(member.of, parked)
            self._apart.pop(key_of(member.of), None)
        else:
            ends = {moved.shard: moved.after.offset for moved in formed.moved}
            self._apart[key_of(member.of)] = ends
            _log.warning("projection.refused", projection=member.of.projection, reason=reason)
        await self._close_reading(reading)
        self._look_soon()

    # --- upkeep ------------------------------------------------------------------------------

    async def _upkeep(self) -> bool:
        """Aggregates and partitions; whether there is more to do."""
        await self._settle()
        now = self._clock.monotonic()
        self._refresh_at = now + self._limits.refresh_s
        unfinished = False
        for member in [member for reading in self._readings for member in reading.members]:
            key = key_of(member.of)
            # A build's aggregates are computed once, before it serves.
            if key in self._stale and member.of.state is SetState.SERVING:
                left = await self._keeper.refresh(member.of)
                if left is None:
                    self._look_soon()
                elif left:
                    unfinished = True
                else:
                    self._stale.discard(key)
        for reading in self._readings:
            for member in reading.members:
                key = key_of(member.of)
                if now >= self._kept_at.get(key, NOW):
                    self._kept_at[key] = now + self._limits.keep_s
                    projection = member.declared.projection
                    await self._target.keep(member.of, projection, self._clock.now())
        return unfinished
