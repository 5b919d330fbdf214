"""Has shards back themselves up beside the loop, one task for each that is asked.

    want(key, asks)   from each reconcile: begin what is new, end what nobody wants any more
    told(key)         what has come of each ask so far

A backup may take an hour; the loop never waits for one. Nothing is kept that matters: another
operator, or this one after a kill, asks again for what no Snapshot has an answer to.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import structlog

from ultraengine_operator.backups import Ask, Image, NotTaken, Said
from ultraengine_operator.cache import Key
from ultraengine_operator.cluster import BackedUp
from ultraengine_operator.reasons import Reason

PARALLEL: Final = 4
"""Shards of one engine that are asked at a time; others wait."""
PAUSES_S: Final = (5.0, 15.0, 60.0, 120.0, 120.0)
"""Before each further attempt. After the last one it is given up."""

_log = structlog.get_logger("ultraengine.operator")


class _Job:
    def __init__(self) -> None:
        self.said: Said | None = None
        self.task: asyncio.Task[None] | None = None


class Backups:
    """All engines of one operator.  Used on the event loop's thread."""

    def __init__(
        self,
        shards: BackedUp,
        changed: Callable[[Key], None],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`changed`: there is news of an engine's backups."""
        self._shards = shards
        self._changed = changed
        self._sleep = sleep
        self._jobs: dict[Key, dict[Ask, _Job]] = {}
        self._rooms: dict[Key, asyncio.Semaphore] = {}

    def told(self, key: Key) -> tuple[Said, ...]:
        """The newest word on each ask of which there is one, in the order of the asks."""
        found = self._jobs.get(key, {})
        return tuple(said for ask in sorted(found) if (said := found[ask].said) is not None)

    def want(self, key: Key, asks: Collection[Ask]) -> None:
        """These are the asks of an engine from now on. What the shard has begun it ends by itself;
        its answer to an ask that is gone is nobody's."""
        jobs = self._jobs.setdefault(key, {})
        for ask in [ask for ask in jobs if ask not in asks]:
            task = jobs.pop(ask).task
            if task is not None:
                task.cancel()
        for ask in asks:
            if ask not in jobs:
                job = jobs[ask] = _Job()
                room = self._rooms.setdefault(key, asyncio.Semaphore(PARALLEL))
                job.task = asyncio.create_task(self._run(key, ask, job, room))
        if not jobs:
            del self._jobs[key]
            self._rooms.pop(key, None)

    def stop(self) -> None:
        """Another operator leads."""
        for key in list(self._jobs):
            self.want(key, ())

    async def close(self) -> None:
        """End all tasks."""
        found = [job.task for jobs in self._jobs.values() for job in jobs.values()]
        self.stop()
        await asyncio.gather(*(task for task in found if task is not None), return_exceptions=True)

    async def _run(self, key: Key, ask: Ask, job: _Job, room: asyncio.Semaphore) -> None:
        attempts, is_over = 0, False
        while not is_over:
            attempts += 1
            async with room:
                found = await self._attempt(key, ask)
            if isinstance(found, Image):
                job.said, is_over = Said(ask, found, attempts=attempts), True
                _log.info("backup.taken", engine="/".join(key), shard=ask.shard)
            else:
                # A shard that knows no place for backups yet is to be restarted first, and asking
                # it costs nothing.
                is_waiting = found.reason is Reason.BACKUP_NOT_CONFIGURED
                is_over = attempts > len(PAUSES_S) and not is_waiting
                job.said = Said(ask, None, found.reason, found.message, attempts, is_over)
                _log.warning(
                    "backup.failed", engine="/".join(key), shard=ask.shard, error=found.message
                )
            self._changed(key)
            if not is_over:
                await self._sleep(PAUSES_S[min(attempts, len(PAUSES_S)) - 1])

    async def _attempt(self, key: Key, ask: Ask) -> Image | NotTaken:
        try:
            return await self._shards.back_up(*key, ask.shard, last=ask.last)
        except NotTaken as no:
            return no
        except Exception as error:  # noqa: BLE001 - an ask whose task is gone would wait for ever.
            return NotTaken(Reason.BACKUP_FAILED, f"{type(error).__name__}: {error}")
