"""Gives copies what they ask for: one question after the other, no faster than is allowed.

What is offered stays open until the copy has all of it or begins anew, so retention may remove the
files meanwhile; from where on the copy will need the log is told by `filling`.
"""

import asyncio
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final

import msgspec
import structlog

from ultraengine.log.segment import Point
from ultraengine.ports import Clock
from ultraengine.replication.installing.offer import (
    DIGEST_BYTES,
    OFFER,
    PIECE_BYTES,
    Fetch,
    Offered,
    Piece,
    Transfer,
    Withdrawn,
)
from ultraengine.replication.installing.stock import Stock, Taken
from ultraengine.replication.record import Holder, ReplicaId

QUESTIONS_MAX: Final = 16
"""That wait; more are dropped, and asked again."""

log = structlog.get_logger("replication")


class _Session(msgspec.Struct):
    """One attempt of one life of a copy."""

    me: Holder
    number: int
    taken: Taken
    part: int = 0
    read_end: int = 0
    """Of this part, how much the digest covers."""
    digest: Any = msgspec.field(default_factory=lambda: blake2b(digest_size=DIGEST_BYTES))
    last: Piece | None = None
    """Given again when it is asked for again."""


class Sending:
    """Of one replica, whoever it is filled from.  Used on the event loop's thread."""

    def __init__(
        self,
        stock: Stock,
        first: Callable[[], Point],
        clock: Clock,
        send: Callable[[ReplicaId, Transfer], None],
        bytes_per_s: float,
    ) -> None:
        """`first`: where the log begins; `bytes_per_s`: for all copies together."""
        self._stock = stock
        self._first = first
        self._clock = clock
        self._send = send
        self._bytes_per_s = bytes_per_s
        self._questions: asyncio.Queue[tuple[ReplicaId, Fetch]] = asyncio.Queue(QUESTIONS_MAX)
        self._sessions: dict[ReplicaId, _Session] = {}
        self._free_at = 0.0
        self.filling: dict[ReplicaId, tuple[int, float]] = {}
        """By place: from where on its copy will need the log, and when it last asked."""

    def hear(self, source: ReplicaId, fetch: Fetch) -> None:
        """A copy asks."""
        base = int(self._first().sequence)
        if fetch.part != OFFER and source in self.filling:
            base = self.filling[source][0]
        self.filling[source] = base, self._clock.monotonic()
        if not self._questions.full():
            self._questions.put_nowait((source, fetch))

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                source, fetch = await self._questions.get()
                try:
                    answer = await self.answer(source, fetch)
                except OSError as error:
                    self.end(source)
                    answer = Withdrawn(fetch.number, str(error))
                if answer is not None:
                    self._send(source, answer)
        finally:
            for source in list(self._sessions):
                self.end(source)

    def end(self, source: ReplicaId) -> None:
        """Keep open nothing for it any more."""
        session = self._sessions.pop(source, None)
        if session is not None:
            session.taken.close()

    async def answer(self, source: ReplicaId, fetch: Fetch) -> Transfer | None:
        """The answer to one question, None to one that comes late; one at a time.

        Raises OSError.
        """
        if fetch.part == OFFER:
            return await self._offer(source, fetch)
        session = self._sessions.get(source)
        if session is None or (session.me, session.number) != (fetch.me, fetch.number):
            return Withdrawn(fetch.number, "nothing is offered")
        last = session.last
        if last is not None and (last.part, last.position) == (fetch.part, fetch.position):
            return last
        if fetch.part == session.part + 1:
            session.part, session.read_end = fetch.part, 0
            session.digest = blake2b(digest_size=DIGEST_BYTES)
        parts = session.taken.parts
        if (fetch.part, fetch.position) != (session.part, session.read_end) or fetch.part >= len(
            parts
        ):
            return None  # Late: it was answered, and another question followed.
        piece = await self._read(session, fetch)
        await self._pace(len(piece.data))
        session.last = piece
        return piece

    async def _offer(self, source: ReplicaId, fetch: Fetch) -> Transfer:
        self.end(source)
        base = self._first()
        self.filling[source] = int(base.sequence), self._clock.monotonic()
        taken = await asyncio.to_thread(self._stock.take)
        if taken is None or taken.sequence_end < base.sequence:
            if taken is not None:
                taken.close()
            return Withdrawn(fetch.number, "there is no snapshot that the log goes on from")
        self._sessions[source] = _Session(fetch.me, fetch.number, taken)
        parts = tuple(one.part for one in taken.parts)
        log.info(
            "copy.offered",
            replica=source,
            base=base.sequence,
            snapshot=taken.sequence_end,
            bytes=sum(one.size for one in parts),
        )
        return Offered(fetch.number, base, taken.sequence_end, parts)

    async def _read(self, session: _Session, fetch: Fetch) -> Piece:
        one = session.taken.parts[fetch.part]
        wanted = min(PIECE_BYTES, one.part.size - fetch.position)
        data = await asyncio.to_thread(one.read, fetch.position, PIECE_BYTES)
        if len(data) != wanted:
            raise OSError(f"{one.part.path} has become shorter")
        session.digest.update(data)
        session.read_end += len(data)
        whole = session.read_end == one.part.size
        digest = session.digest.digest() if whole else b""
        return Piece(fetch.number, fetch.part, fetch.position, data, digest)

    async def _pace(self, size: int) -> None:
        """Wait until so many more bytes are allowed."""
        now = self._clock.monotonic()
        if self._bytes_per_s <= 0:
            return
        self._free_at = max(now, self._free_at) + size / self._bytes_per_s
        await asyncio.sleep(max(0.0, self._free_at - now - PIECE_BYTES / self._bytes_per_s))
