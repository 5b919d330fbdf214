"""Posts Events beside the loop: telling never delays or fails what is told about."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import structlog

from ultraengine_operator.cluster import KINDS, Cluster, Content, Refused
from ultraengine_operator.events import Book, Told

WAITING_MAX: Final = 256
_log = structlog.get_logger("ultraengine.operator")


class Teller:
    """A bounded queue and the task that empties it; what does not fit is only logged."""

    def __init__(
        self, cluster: Cluster, instance: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._cluster = cluster
        self._book = Book(instance)
        self._clock = clock
        self._waiting: asyncio.Queue[tuple[Content, Told]] = asyncio.Queue(WAITING_MAX)

    def tell(self, about: Content, told: Told) -> None:
        """Post it soon."""
        try:
            self._waiting.put_nowait((about, told))
        except asyncio.QueueFull:
            _log.warning("event.dropped", reason=told.reason, about=about["name"])

    async def run(self) -> None:
        """Post for ever."""
        while True:
            await self.post(*await self._waiting.get())

    async def post(self, about: Content, told: Told) -> None:
        """Post one."""
        now_s = self._clock()
        now = datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        posting = self._book.post(about, told, now=now, now_s=now_s)
        kind, metadata = KINDS["Event"], posting.manifest["metadata"]
        try:
            if posting.first:
                await self._cluster.create(kind, posting.manifest)
            else:
                wish = {"series": posting.manifest["series"]}
                await self._cluster.merge(kind, metadata["namespace"], metadata["name"], wish)
        except Refused as refused:
            # In a namespace that is being deleted, or of an Event that has expired: it was logged.
            _log.warning("event.refused", reason=told.reason, error=str(refused))
