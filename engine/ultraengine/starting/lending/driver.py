"""Lends the files of a shard to one candidate at a time, no faster than copies are filled.

Questions and answers are those of a copy that is filled (`replication.installing`), over HTTP
instead of the copies' own connections, which a shard of one copy does not have and which would let
a candidate speak as a copy.
"""

import asyncio
from typing import Final

import structlog

from ultraengine.log.damage import LogError
from ultraengine.log.segment import GENESIS
from ultraengine.model.errors import EngineError
from ultraengine.ports import Clock, Disk, Secrets
from ultraengine.replication.installing.offer import Fetch, Offered, Piece, Transfer, Withdrawn
from ultraengine.replication.installing.sending.driver import Sending
from ultraengine.replication.record import DiskId, Holder, ReplicaId, Seat
from ultraengine.starting.lending.stock import LentFiles

SOURCE: Final = ReplicaId(-1)
IDLE_S: Final = 30.0
"""Who has not asked for so long has gone, and its files are closed."""
BUSY_RETRY_S: Final = 5.0

log = structlog.get_logger("lending")


class Lending:
    """Of one shard.  Used on the event loop's thread."""

    def __init__(
        self,
        disk: Disk,
        secrets: Secrets,
        clock: Clock,
        bytes_per_s: float,
        *,
        idle_s: float = IDLE_S,
    ) -> None:
        stock = LentFiles(disk, secrets)
        self._sending = Sending(stock, lambda: GENESIS, clock, lambda *_: None, bytes_per_s)
        self._idle_s = idle_s
        self._one_at_a_time = asyncio.Lock()
        self._attempt: int | None = None
        """Of the candidate that is being lent to."""
        self._last = -1
        """Number of the last part that it was offered."""
        self._end: asyncio.TimerHandle | None = None

    async def ask(self, attempt: int, part: int, position: int) -> Transfer:
        """The answer to a candidate's question; `part` `OFFER` begins.

        Raises `EngineError`: OVERLOADED while another one is lent to, SHARD_UNAVAILABLE when the
        files cannot be read.
        """
        if self._attempt not in {None, attempt}:
            raise EngineError(
                "another candidate is being given the files of this shard",
                code="OVERLOADED",
                retry_after_s=BUSY_RETRY_S,
            )
        async with self._one_at_a_time:
            self._attempt = attempt
            self._still_there()
            try:
                fetch = Fetch(_HOLDER, attempt, part, position)
                answer = await self._sending.answer(SOURCE, fetch)
            except (OSError, LogError) as error:
                self.close()
                raise EngineError(
                    f"the files of this shard cannot be read: {error}",
                    code="SHARD_UNAVAILABLE",
                    retry_after_s=BUSY_RETRY_S,
                ) from error
            if isinstance(answer, Offered):
                self._last = len(answer.parts) - 1
            if isinstance(answer, Piece) and answer.digest and part == self._last:
                self.close()  # It has all. Whoever lost the last piece begins anew.
            else:
                self._still_there()
            return Withdrawn(attempt, "asked out of turn") if answer is None else answer

    def _still_there(self) -> None:
        if self._end is not None:
            self._end.cancel()
        self._end = asyncio.get_running_loop().call_later(self._idle_s, self.close)

    def close(self) -> None:
        """Close the files."""
        if self._end is not None:
            self._end.cancel()
        self._attempt = self._end = None
        self._sending.end(SOURCE)


_HOLDER: Final = Holder(Seat(SOURCE, DiskId(b"")), 0)
