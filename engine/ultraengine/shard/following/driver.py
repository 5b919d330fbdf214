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
from ultraengine.log.reader import LogReader
from ultraengine.shard.following.compare import Difference, follow_group

COMMANDS_PER_STEP: Final = 4096
"""Executed without a look at whether to stop."""

log = structlog.get_logger("shard")


class Upkeep(Protocol):
    """The part of a shard's memory that is needed."""

    def upkeep(self) -> object:
        """A short turn of background work."""


class Following:
    """One executor behind one log.  Used on the event loop's thread."""

    def __init__(
        self,
        executor: Executor,
        memory: Upkeep,
        reader: Callable[[], LogReader],
        *,
        on_difference: Callable[[], None],
    ) -> None:
        """`reader`: of the log as it is open now, which a cut opens anew."""
        self.executor = executor
        self.difference: Difference | None = None
        self._memory = memory
        self._reader = reader
        self._on_difference = on_difference
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
            log.exception("follower.stopped", offset=self.executor.applied_end, error=str(error))
            self._end()
        found = self.difference
        if found is not None:
            log.error(
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
        for group in self._reader().groups(begun, below=self._committed_end):
            if self._stopping or not group.recorded:
                break
            self.difference = follow_group(executor, group)
            if self.difference is not None:
                return False
            if executor.applied_end - begun >= COMMANDS_PER_STEP:
                return True
        self._memory.upkeep()
        return False
