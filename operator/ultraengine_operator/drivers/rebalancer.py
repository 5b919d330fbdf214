"""Moves slots beside the loop, one task for each engine whose slots are not as wished.

    want(key, wish)   from each reconcile: begin, go on, turn round or pause
    told(key)         how far it is, as it was said last: at most every `SAY_S`
    emptied(key)      shards that are to go and hold nothing

The task asks the shards for what their logs say, plans from that (`balance.following`), has some
slots moved, and asks again.  It keeps nothing that matters: another operator, or this one after a
kill, begins with the same question, so after a start every engine with several shards is asked.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import structlog

from ultraengine.model.errors import EngineError
from ultraengine.model.ids import ShardId
from ultraengine.rebalancing.balance import Progress, all_served, following
from ultraengine.rebalancing.driver import MoveFailed, Mover
from ultraengine.router.shard_map import MapRefused
from ultraengine_operator.cache import Key
from ultraengine_operator.cluster import Refused
from ultraengine_operator.rebalance import Told, Wish

PARALLEL: Final = 16
"""Slots of one engine between two shards at a time."""
ROUND_SLOTS: Final = 512
"""Slots that are moved before the shards are asked again."""
ENGINES_MAX: Final = 8
"""Engines whose slots move at a time; others wait."""
SAY_S: Final = 10.0
"""Between two reports."""
RETRY_S: Final = 2.0
RETRY_S_MAX: Final = 60.0
CLOSE_S: Final = 5.0
"""For slots that are between two shards when the operator is told to end."""

_log = structlog.get_logger("ultraengine.operator")
Reach = Callable[[Key, Sequence[ShardId]], AbstractAsyncContextManager[Mover]]
"""A coordinator for these shards of an engine."""
PASSING: Final = (EngineError, OSError, MapRefused, Refused, KeyError, ValueError)
"""What may be over when it is tried again: a pod away, the API server, a Secret not there yet."""


class _Job:
    """The work on one wish."""

    def __init__(self, wish: Wish, now_s: float) -> None:
        self.wish = wish
        self.ended = asyncio.Event()
        """Set to end between two slots."""
        self.task: asyncio.Task[None] | None = None
        self.started_s = self.moved_s = now_s
        self.moved = 0
        self.left = wish.left
        self.slots: tuple[int, ...] = ()
        self.waits_for = ""
        self.failed = ""
        self.mover: Mover | None = None
        self.said: Told | None = None

    def say(self) -> None:
        """What `told` shows from now on."""
        if self.mover is not None:
            self.waits_for = next(iter(self.mover.waits.values()), "")
        self.said = Told(
            self.wish.count, self.moved, self.left, self.started_s, self.moved_s,
            self.slots, self.waits_for, self.failed,
        )  # fmt: skip


def _shards(job: _Job) -> list[ShardId]:
    return [ShardId(one) for one in job.wish.shards]


class Rebalancer:
    """All engines of one operator.  Used on the event loop's thread."""

    def __init__(
        self,
        reach: Reach,
        changed: Callable[[Key], None],
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`changed`: an engine is to be reported anew."""
        self._reach = reach
        self._changed = changed
        self._clock = clock
        self._sleep = sleep
        self._jobs: dict[Key, _Job] = {}
        self._met: dict[Key, tuple[Wish, tuple[int, ...]]] = {}
        """Wishes that the logs have said to be met, and the shards that hold nothing."""
        self._room = asyncio.Semaphore(ENGINES_MAX)

    def is_moving(self, key: Key) -> bool:
        """Whether reports of an engine come from here, so that each new map need not cause one."""
        return key in self._jobs

    def told(self, key: Key) -> Told | None:
        """How far it is; None while nothing is being done."""
        job = self._jobs.get(key)
        return None if job is None else job.said

    def emptied(self, key: Key, count: int) -> tuple[int, ...]:
        """Shards from `count` on of which the logs have said that they hold nothing."""
        met = self._met.get(key)
        return met[1] if met is not None and met[0].count == count else ()

    def want(self, key: Key, wish: Wish | None) -> None:
        """Work on a wish from now on; None: on none, once the slots that are under way are there.

        A slot that is between two shards is served by nobody for a moment, so a pause is not in the
        midst of it.  Another wish takes over at once: it goes on with what was begun, or turns it.
        """
        job = self._jobs.get(key)
        if wish is None:
            if job is not None:
                job.ended.set()
            return
        if job is None:
            if wish.waiting is None and self._is_due(key, wish):
                self._begin(key, wish, None)
            return
        is_other = (job.wish.count, job.wish.shards) != (wish.count, wish.shards)
        if is_other or job.ended.is_set():
            self._begin(key, wish, job)

    def _is_due(self, key: Key, wish: Wish) -> bool:
        met = self._met.get(key)
        is_known = met is not None and met[0].count == wish.count
        return len(wish.shards) > 1 and not (wish.is_met and is_known)

    def _begin(self, key: Key, wish: Wish, former: "_Job | None") -> None:
        self._met.pop(key, None)
        job = self._jobs[key] = _Job(wish, self._clock())
        if not wish.is_met:
            job.say()
        if former is not None and former.task is not None and not former.ended.is_set():
            former.task.cancel()
        job.task = asyncio.create_task(self._run(key, job, former))

    def forget(self, key: Key) -> None:
        """The engine is gone."""
        job = self._jobs.pop(key, None)
        if job is not None and job.task is not None:
            job.task.cancel()
        self._met.pop(key, None)

    def stop(self) -> None:
        """Another operator leads: nothing more is begun, and nothing gone on with."""
        for key in list(self._jobs):
            self.forget(key)
        self._met.clear()

    async def close(self) -> None:
        """Let the slots arrive that are under way, for a moment, and end."""
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        for job in self._jobs.values():
            job.ended.set()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_S)
        self.stop()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- one engine -------------------------------------------------------------------------

    async def _run(self, key: Key, job: _Job, former: _Job | None) -> None:
        if former is not None and former.task is not None:
            await asyncio.wait([former.task])
        ticks = asyncio.create_task(self._tick(key, job))
        try:
            await self._work(key, job)
        finally:
            ticks.cancel()
            if self._jobs.get(key) is job:
                del self._jobs[key]
                self._changed(key)

    async def _tick(self, key: Key, job: _Job) -> None:
        while True:
            await self._sleep(SAY_S)
            if job.left:
                job.say()
                self._changed(key)

    async def _work(self, key: Key, job: _Job) -> None:
        """Until the logs say that the wish is met, or it is another's."""
        wait_s, moved = RETRY_S, 0
        while not job.ended.is_set():
            try:
                async with self._room, self._reach(key, _shards(job)) as mover:
                    job.mover = mover
                    while not job.ended.is_set():
                        if await self._round(key, job, mover):
                            return
            except* MoveFailed as failed:
                job.failed, wait_s = str(failed.exceptions[0]), RETRY_S_MAX
                _log.warning("slots.stay", engine="/".join(key), error=job.failed)
            except* PASSING as passing:
                job.waits_for = str(passing.exceptions[0])
                _log.info("slots.wait", engine="/".join(key), error=job.waits_for)
            wait_s = RETRY_S if job.moved > moved else wait_s
            moved, job.slots, job.mover = job.moved, (), None
            if job.left:
                job.say()
                self._changed(key)
            await self._sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_S_MAX)

    async def _round(self, key: Key, job: _Job, mover: Mover) -> bool:
        """Move some slots; whether none is left."""
        logged, shard_map = await mover.look_round()
        work = following(logged, shard_map, job.wish.count)
        job.left, job.waits_for = len(work), ""
        if not work:
            if job.wish.emptying and not all_served(logged, shard_map):
                raise ValueError("the shards do not say yet that they serve all slots")
            job.failed = ""
            self._met[key] = job.wish, job.wish.emptying
            _log.info("slots.settled", engine="/".join(key), moved=job.moved)
            return True
        if job.said is None:
            job.say()
            self._changed(key)

        def tell(progress: Progress) -> None:
            job.moved += 1
            job.left -= 1
            job.moved_s = self._clock()
            job.slots, job.failed = progress.slots, ""

        await mover.carry_out(work[:ROUND_SLOTS], tell, parallel=PARALLEL, ended=job.ended)
        return False
