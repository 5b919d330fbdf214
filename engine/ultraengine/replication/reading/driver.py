"""Reads that wait until their leader has proved that it leads."""

import asyncio
from collections import deque
from collections.abc import Callable

from ultraengine.model.errors import EngineError
from ultraengine.replication.effects import Effects
from ultraengine.replication.reading.asking import Asking


class Confirming:
    """All reads of one process that wait for a round.  Used on the event loop's thread."""

    def __init__(self, asking: Asking, step: Callable[[Callable[[float], Effects]], None]) -> None:
        """`step` lets something happen to the machine, later."""
        self.asking = asking
        self._step = step
        self._fresh: list[asyncio.Future[None]] = []
        self._waiting: deque[tuple[int, list[asyncio.Future[None]]]] = deque()

    async def confirmed(self, wait_s: float) -> None:
        """Return once the replica has led at some time after the call.

        Raises `EngineError` NOT_LEADER when that was not proved in time, or it leads no more.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._fresh.append(future)
        if len(self._fresh) == 1:
            self._step(lambda _now: self._ask())
        try:
            async with asyncio.timeout(wait_s):
                await future
        except TimeoutError:
            raise EngineError(
                f"this replica could not prove within {wait_s} s that it still leads",
                code="NOT_LEADER",
                retry_after_s=0.2,
            ) from None

    def _ask(self) -> Effects:
        fresh, self._fresh = self._fresh, []
        number, effects = self.asking.want()
        self._waiting.append((number, fresh))
        return effects

    def progress(self) -> None:
        """Something has happened to the machine: answer whom it concerns."""
        proved = self.asking.proved
        while self._waiting and (proved is None or self._waiting[0][0] <= proved):
            for future in self._waiting.popleft()[1]:
                if future.done():
                    continue
                if proved is None:
                    future.set_exception(
                        EngineError("this replica leads no more", code="NOT_LEADER")
                    )
                else:
                    future.set_result(None)
