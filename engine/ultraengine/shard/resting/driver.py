"""Those who wait until a shard is at rest: nothing waits, flushes or executes."""

import asyncio

from ultraengine.model.errors import EngineError


class Resting:
    """Futures that end together."""

    def __init__(self) -> None:
        self._futures: list[asyncio.Future[None]] = []

    def __bool__(self) -> bool:
        return bool(self._futures)

    def add(self) -> "asyncio.Future[None]":
        """Ends with the next `tell`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures.append(future)
        return future

    def tell(self, error: EngineError | None = None) -> None:
        """The shard is at rest, or never will be."""
        futures, self._futures = self._futures, []
        for future in futures:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
