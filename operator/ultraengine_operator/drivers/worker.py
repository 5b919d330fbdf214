"""The queue of engines that are to be looked at, and the one task that empties it."""

import asyncio
import time
from collections.abc import Callable

import structlog

from ultraengine_operator.cache import Key
from ultraengine_operator.cluster import Refused
from ultraengine_operator.drivers.loop import BACKOFF_S, Loop, NotLeading

_log = structlog.get_logger("ultraengine.operator")


class Worker:
    """The queue of keys, and the one task that empties it."""

    def __init__(self, loop: Loop, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._monotonic = monotonic
        self._due: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Event()
        self.busy_since: float | None = None
        """When the reconcile under way began; None between two."""

    def enqueue(self, key: Key, delay_s: float = 0.0) -> None:
        """Look at an engine, at the latest after `delay_s`."""
        at = self._monotonic() + delay_s
        self._due[key] = min(at, self._due.get(key, at))
        self._wake.set()

    async def run(self) -> None:
        """Reconcile what is due, for ever."""
        while True:
            now = self._monotonic()
            key = min(self._due, key=lambda one: (self._due[one], one), default=None)
            if key is None or self._due[key] > now:
                self._wake.clear()
                left_s = None if key is None else self._due[key] - now
                try:
                    await asyncio.wait_for(self._wake.wait(), left_s)
                except TimeoutError:
                    continue
                continue
            del self._due[key]
            await self._one(key)

    async def _one(self, key: Key) -> None:
        self.busy_since = self._monotonic()
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
            self.busy_since = None
