"""The loop of a shard that follows: on a thread, behind what is known to be committed.

A failover then recovers only what this loop had not reached.  When something fails or comes out
differently here, it stops for the life of the process, and the replica is not chosen to lead; its
log goes on.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from ultraengine.execution.executor import Executor
from ultraengine.log.frame import FrameHeader
from ultraengine.shard.following.compare import Difference, follow_group
from ultraengine.shard.following.keeping import Kept

COMMANDS_PER_STEP: Final = 4096
"""Executed without a look at whether to stop."""

logger = structlog.get_logger("shard")


class Upkeep(Protocol):
    """The part of a shard's memory that is needed."""

    def upkeep(self) -> object:
        """A short turn of background work."""


Followed = Kept
"""A log that is open."""
Keep = Callable[[Executor, FrameHeader, Kept], object]
"""Called before each group, at whose beginning a snapshot may be taken and the log be cut."""


def _keep_nothing(_executor: Executor, _group: FrameHeader, _log: Kept) -> None:
    """No snapshots."""


class Following:
    """One executor behind one log.  Used on the event loop's thread."""

    def __init__(
        self,
        executor: Executor,
        memory: Upkeep,
        log: Callable[[], Followed | None],
        *,
        on_difference: Callable[[], None],
        keep: Keep = _keep_nothing,
    ) -> None:
        """`log`: as it is open now; None while a cut closes it and opens it anew."""
        self.executor = executor
        self.difference: Difference | None = None
        self._memory = memory
        self._log = log
        self._on_difference = on_difference
        self._keep = keep
        self._committed_end = 0
        self._moved = asyncio.Event()
        self._stopping, self._void = False, False
        self._task = asyncio.create_task(self._run())

    def reached(self, committed_end: int) -> None:
        """Frames below are committed and durable here."""
        self._committed_end = committed_end
        self._moved.set()

    async def stop(self) -> Executor | None:
        """End after the step under way; the executor, unless it is void."""
        self._stopping = True
        self._moved.set()
        await self._task
        return None if self._void else self.executor

    async def _run(self) -> None:
        try:
            while not self._stopping and self.difference is None:
                await self._moved.wait()
                self._moved.clear()
                while await asyncio.to_thread(self._step):
                    pass
        except Exception as error:
            # Whatever it was, memory is void now, and the leader has done without it.
            logger.exception("follower.stopped", offset=self.executor.applied_end, error=str(error))
            self._end()
        found = self.difference
        if found is not None:
            logger.error(
                "follower.differs",
                offset=found.offset,
                command_type=found.command_type,
                recorded=str(found.recorded),
                decided=str(found.decided),
            )
            self._end()

    def _end(self) -> None:
        self._void = True
        self._on_difference()

    def _step(self) -> bool:
        """Execute some of what is committed; whether there may be more."""
        executor, begun = self.executor, self.executor.applied_end
        log = self._log()
        if log is None:
            return False
        groups = log.reader().groups(begun, below=self._committed_end)
        while True:
            try:
                group = next(groups, None)
            except Exception as error:
                # What is committed is never cut, so that execution goes on in the log as it is
                # open now. A failure of a log that is still the one is what it is.
                now = self._log()
                if now is log:
                    raise
                logger.info("follower.reads_anew", offset=executor.applied_end, why=str(error))
                return now is not None
            if group is None or self._stopping or not group.recorded:
                break
            self._keep(executor, group.header, log)
            self.difference = follow_group(executor, group)
            if self.difference is not None:
                return False
            if executor.applied_end - begun >= COMMANDS_PER_STEP:
                return True
        self._memory.upkeep()
        return False
