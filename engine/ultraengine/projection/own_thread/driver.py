"""One thread for what waits for files: steps run there one after the other, in their order."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ultraengine.projection.target import TargetUnavailable

T = TypeVar("T")


class OwnThread:
    """Started and stopped any number of times; idle, it costs nothing."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pool: ThreadPoolExecutor | None = None

    def start(self) -> None:
        """Idempotent."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix=self._name)

    async def run(self, step: Callable[[], T]) -> T:
        """The result of a step.  A cancelled one is finished before the next begins.

        Raises `TargetUnavailable` while it is stopped.
        """
        if self._pool is None:
            raise TargetUnavailable(f"{self._name} is not open")
        return await asyncio.get_running_loop().run_in_executor(self._pool, step)

    async def stop(self, last: Callable[[], None]) -> None:
        """Finish what was begun, then the last step.  Idempotent."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await asyncio.get_running_loop().run_in_executor(pool, last)
            pool.shutdown()
