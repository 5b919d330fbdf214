"""The loop of a shard that follows: on a thread, behind what is known to be committed.

A failover then recovers only what this loop had not reached.  When something fails or comes out
differently here, it stops for the life of the process, and the replica is not chosen to lead; its
log goes on.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import structlog

from ultraengine.execution.executor import Executor
from ultraengine.log.frame import FrameHeader
from ultraengine.model.errors import EngineError
from ultraengine.shard.following.compare import Difference, follow_group
from ultraengine.shard.following.keeping import Kept
from ultraengine.shard.following.lateness import Lateness

COMMANDS_PER_STEP: Final = 4096
"""Executed without a look at whether to stop."""

logger = structlog.get_logger("shard")


T = TypeVar("T")


def _settle(future: "asyncio.Future[Any]", found: object, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(found)
    else:
        future.set_exception(error)


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
        self._lateness = Lateness()
        self._looked_end = 0
        """Frames below were looked at; those that are executed are recorded whole."""
        self._moved = asyncio.Event()
        self._stopping, self._void = False, False
        self._reads: deque[tuple[Callable[[Executor], Any], asyncio.Future[Any]]] = deque()
        self._loop = asyncio.get_running_loop()
        self.on_executed: Callable[[int], None] = lambda _end: None
        """Told on the event loop below which offset everything is executed, after each step."""
        self._task = asyncio.create_task(self._run())

    def reached(self, committed_end: int) -> None:
        """Frames below are committed and durable here."""
        self._committed_end = committed_end
        self._lateness.committed(committed_end, self._loop.time())
        self._moved.set()

    @property
    def late_s(self) -> float:
        """How long something has been committed and is not executed here."""
        return self._lateness.seconds(self._loop.time())

    async def read(self, look: Callable[[Executor], T]) -> T:
        """Look at the state between two groups, on the thread that changes it.

        Raises what `look` raises, and `EngineError` SHARD_UNAVAILABLE of a state that is void.
        """
        if self._void or self._stopping:
            raise EngineError(
                "this copy executes nothing any more", code="SHARD_UNAVAILABLE", retry_after_s=1.0
            )
        future: asyncio.Future[T] = self._loop.create_future()
        self._reads.append((look, future))
        self._moved.set()
        return await future

    def _show(self) -> None:
        """On the thread that executes."""
        while self._reads:
            look, future = self._reads.popleft()
            try:
                found, error = look(self.executor), None
            except Exception as raised:  # noqa: BLE001  (told to whoever asked)
                found, error = None, raised
            self._loop.call_soon_threadsafe(_settle, future, found, error)

    async def stop(self) -> Executor | None:
        """End after the step under way; the executor, unless it is void."""
        self._stopping = True
        self._moved.set()
        await self._task
        self._turn_away()
        return None if self._void else self.executor

    async def _run(self) -> None:
        try:
            while not self._stopping and self.difference is None:
                await self._moved.wait()
                self._moved.clear()
                while await asyncio.to_thread(self._step):
                    self._executed()
                self._executed()
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

    def _executed(self) -> None:
        self._lateness.executed(self._looked_end)
        self.on_executed(self.executor.applied_end)

    def _end(self) -> None:
        self._void = True
        self._turn_away()
        self._on_difference()

    def _turn_away(self) -> None:
        """Whoever waits for a look gets none any more."""
        error = EngineError(
            "this copy is about to lead, or executes nothing any more",
            code="NOT_LEADER",
            retry_after_s=0.2,
        )
        while self._reads:
            _settle(self._reads.popleft()[1], None, error)

    def _step(self) -> bool:
        """Execute some of what is committed; whether there may be more."""
        executor, begun = self.executor, self.executor.applied_end
        self._show()
        log = self._log()
        if log is None:
            return False
        below = self._committed_end
        groups = log.reader().groups(begun, below=below)
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
                self._looked_end = below
                break
            self._keep(executor, group.header, log)
            self._show()
            self.difference = follow_group(executor, group)
            if self.difference is not None:
                return False
            if executor.applied_end - begun >= COMMANDS_PER_STEP:
                self._looked_end = group.header.sequence + 1
                return True
        self._memory.upkeep()
        return False
