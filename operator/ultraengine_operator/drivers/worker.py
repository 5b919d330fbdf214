"""The queue of engines that are to be looked at, and the few tasks that empty it.

One engine is with one task at a time. Several are looked at side by side, because a look waits for
the API server and for shards that may not answer, and the others need not wait for that. What they
share, the budget of restarts, is read and taken in one step (`Loop._plan`).
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

import structlog

from ultraengine_operator.cache import Key
from ultraengine_operator.cluster import Refused
from ultraengine_operator.drivers.loop import BACKOFF_S, Loop, NotLeading

LOOKS_MAX: Final = 8
"""Engines that are looked at side by side; the others wait in the queue."""
_log = structlog.get_logger("ultraengine.operator")


class Worker:
    """The queue of keys, and the tasks that empty it."""

    def __init__(self, loop: Loop, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._monotonic = monotonic
        self._due: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Event()
        self._began: dict[Key, float] = {}
        """The engines that are being looked at, and since when."""

    @property
    def busy_since(self) -> float | None:
        """When the oldest look under way began; None between two."""
        return min(self._began.values(), default=None)

    def enqueue(self, key: Key, delay_s: float = 0.0) -> None:
        """Look at an engine, at the latest after `delay_s`."""
        at = self._monotonic() + delay_s
        self._due[key] = min(at, self._due.get(key, at))
        self._wake.set()

    async def run(self) -> None:
        """Reconcile what is due, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(LOOKS_MAX):
                tasks.create_task(self._take())

    async def _take(self) -> None:
        while True:
            now = self._monotonic()
            # What changes meanwhile about an engine is looked at when the look under way has ended.
            free = (key for key in self._due if key not in self._began)
            key = min(free, key=lambda one: (self._due[one], one), default=None)
            if key is None or self._due[key] > now:
                self._wake.clear()
                left_s = None if key is None else self._due[key] - now
                # Not wait_for: before Python 3.12 it may swallow that the task is cancelled.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left_s):
                        await self._wake.wait()
                continue
            del self._due[key]
            await self._one(key)

    async def _one(self, key: Key) -> None:
        self._began[key] = self._monotonic()
        try:
            again_s = await self._loop.reconcile(key)
        except NotLeading:
            return
        except Exception as error:  # noqa: BLE001 - one engine's trouble must not end the others'.
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            delay_s = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
            cause = None if isinstance(error, Refused) else error
            _log.warning(
                "reconcile.failed",
                engine="/".join(key), error=str(error), again=delay_s, exc_info=cause,
            )  # fmt: skip
            self.enqueue(key, delay_s)
        else:
            self._failures.pop(key, None)
            if again_s is not None:
                self.enqueue(key, again_s)
        finally:
            del self._began[key]
            if key in self._due:
                self._wake.set()
