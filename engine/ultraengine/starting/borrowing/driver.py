"""Borrows the files of a shard and writes them to a directory of this process.

Each piece is asked for until it comes or time is up; when the shard has forgotten what it lends, or
another one leads, everything is begun anew. What arrives is checked by the checksum of each message
and the digest of each file.
"""

import asyncio
import random
import time
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Final, TypeVar

import aiohttp
import structlog

from ultraengine.gateway.lent import FORMATS_HEADER, PATH
from ultraengine.replication.installing.offer import (
    DIGEST_BYTES,
    OFFER,
    Offered,
    Part,
    Piece,
    Transfer,
    Withdrawn,
)
from ultraengine.replication.wire import HEAD_BYTES, WireDamaged, decode_head, decode_transfer
from ultraengine.starting.borrowing.parts import NotLent, check_part

ANSWER_S: Final = 30.0
"""Longest wait for one answer: a piece may be held back for its bandwidth."""
AGAIN_S: Final = 1.0

T = TypeVar("T", Offered, Piece)

log = structlog.get_logger("candidate")


class TimeIsUp(Exception):
    """It took too long; the message says what was waited for last."""


class _Anew(Exception):
    """What was lent so far counts for nothing."""


class Borrowing:
    """One attempt to get all files."""

    def __init__(
        self, url: str, headers: Mapping[str, str], place: Path, *, deadline_s: float
    ) -> None:
        """`deadline_s`: of the monotonic clock."""
        self._url = url.rstrip("/") + PATH
        self._headers = headers
        self._place = place
        self._deadline_s = deadline_s
        self._attempt = random.SystemRandom().getrandbits(48)
        self._why = "they are still coming"
        self.formats = ""
        """What the build that leads writes."""

    async def run(self) -> int:
        """Get everything; the number of bytes.  Raises `TimeIsUp`, `NotLent`, OSError."""
        try:
            async with (
                asyncio.timeout(self._deadline_s - time.monotonic()),
                aiohttp.ClientSession(headers=dict(self._headers)) as session,
            ):
                while True:
                    try:
                        return await self._all(session)
                    except _Anew as anew:
                        self._why = str(anew)
                        log.warning("candidate.begins_anew", why=str(anew))
                        await asyncio.sleep(AGAIN_S)
        except TimeoutError:
            raise TimeIsUp(f"the files of the shard were not had in time: {self._why}") from None

    async def _all(self, session: aiohttp.ClientSession) -> int:
        offered = await self._ask(session, OFFER, 0, Offered)
        paths = {check_part(part) for part in offered.parts}
        if len(paths) != len(offered.parts):
            raise NotLent("a file is offered twice")
        for number, part in enumerate(offered.parts):
            await self._receive(session, number, part)
        return sum(part.size for part in offered.parts)

    async def _receive(self, session: aiohttp.ClientSession, number: int, part: Part) -> None:
        path = self._place / part.path
        digest, position = blake2b(digest_size=DIGEST_BYTES), 0
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        with path.open("wb") as file:
            while True:
                piece = await self._ask(session, number, position, Piece)
                if (piece.part, piece.position) != (number, position):
                    raise _Anew(f"{part.path} came out of turn")
                digest.update(piece.data)
                await asyncio.to_thread(file.write, piece.data)
                position += len(piece.data)
                if piece.digest or not piece.data or position > part.size:
                    break
        if position != part.size or piece.digest != digest.digest():
            raise _Anew(f"{part.path} is not what was offered")

    async def _ask(
        self, session: aiohttp.ClientSession, part: int, position: int, kind: type[T]
    ) -> T:
        """The answer to a question, asked until it comes."""
        query = {"attempt": self._attempt, "part": part, "position": position}
        asked = {name: str(value) for name, value in query.items()}
        while True:
            try:
                answer = await self._once(session, asked)
            except (aiohttp.ClientError, OSError, TimeoutError, WireDamaged) as error:
                self._why = f"{type(error).__name__}: {error}"
            else:
                if isinstance(answer, kind):
                    return answer
                if isinstance(answer, Withdrawn):
                    raise _Anew(answer.why)
            await asyncio.sleep(AGAIN_S)

    async def _once(
        self, session: aiohttp.ClientSession, asked: Mapping[str, str]
    ) -> Transfer | None:
        """One request; None when it is to be asked again.  Raises `NotLent` when never."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        async with session.get(self._url, params=asked, timeout=timeout) as response:
            content = await response.read()
            if response.status in {429, 500, 502, 503, 504}:
                self._why = f"{response.status}: {content[:300].decode(errors='replace')}"
                return None
            if response.status != 200:
                said = content[:300].decode(errors="replace")
                raise NotLent(f"the shard answers {response.status}: {said}")
            self.formats = response.headers.get(FORMATS_HEADER, "")
        return decode_transfer(decode_head(content[:HEAD_BYTES]), content[HEAD_BYTES:])
