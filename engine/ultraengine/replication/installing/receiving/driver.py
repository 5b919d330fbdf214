"""Fills this replica from its leader, beside what it has: asked for, checked, proved, and ready.

Whatever goes wrong, what was received is removed and the next attempt begins from nothing; the
copy that is there stays as it is, and so does what it has sworn and says.
"""

import asyncio
from collections.abc import Callable
from hashlib import blake2b
from typing import Final, TypeVar

import structlog

from ultraengine.log.identity import LogIdentity
from ultraengine.log.opening import LogOptions
from ultraengine.log.segment import KeyRing
from ultraengine.model.errors import InvariantBroken
from ultraengine.ports import File
from ultraengine.replication.installing import place
from ultraengine.replication.installing.offer import (
    DIGEST_BYTES,
    OFFER,
    Fetch,
    Offered,
    Part,
    Piece,
    Transfer,
    Withdrawn,
)
from ultraengine.replication.installing.place import BESIDE, Installed
from ultraengine.replication.record import Holder, ReplicaId
from ultraengine.replication.replica import Replica
from ultraengine.replication.writing.driver import ReplicaWorld

ASK_AGAIN_S: Final = 5.0
"""Until a question is asked once more; longer than any piece is held back for its bandwidth."""
ASKED_MAX: Final = 3
"""So often, and then from the beginning."""
REST_S: Final = 1.0
"""After an attempt that came to nothing."""
SYNC_BYTES: Final = 1024 * 1024
"""Written between two syncs: a flush of the log may stand behind one of them on the disk."""

T = TypeVar("T", Offered, Piece)

log = structlog.get_logger("replication")


class Failed(Exception):
    """This attempt has come to nothing; the message says why."""


class Receiving:
    """Of one life of a replica.  Used on the event loop's thread."""

    def __init__(
        self,
        world: ReplicaWorld,
        options: LogOptions,
        send: Callable[[ReplicaId, Transfer], None],
        machine: Replica,
    ) -> None:
        self._disk = world.disk
        self._clock = world.clock
        self._random = world.random
        self._ring = KeyRing(world.secrets)
        self._stock = world.stock
        self._options = options
        self._send = send
        self._machine = machine
        self._wanted: asyncio.Queue[Holder] = asyncio.Queue(1)
        self._answers: asyncio.Queue[Transfer] = asyncio.Queue()
        self._leader: Holder | None = None
        self._number = 0

    def lacks(self, leader: Holder) -> None:
        """This leader's log begins behind this one."""
        if self._leader is None and self._wanted.empty():
            self._wanted.put_nowait(leader)
        elif self._leader not in {None, leader}:
            self._answers.put_nowait(Withdrawn(self._number, "another replica leads"))

    def hear(self, source: ReplicaId, answer: Transfer) -> None:
        """An answer; late ones and those of others are dropped."""
        leader = self._leader
        if leader is not None and source == leader.seat.replica:
            self._answers.put_nowait(answer)

    async def run(self, identity: LogIdentity) -> None:
        """Until it is cancelled.  Raises `Installed`: the process is to end, and OSError when what
        is beside the copy cannot be removed."""
        while True:
            leader = await self._wanted.get()
            self._leader, self._answers = leader, asyncio.Queue()
            log.warning("copy.lacks", leader=leader.seat.replica)
            try:
                await self._fill(leader, identity)
            except (Failed, OSError, InvariantBroken) as error:
                log.warning("copy.not_filled", leader=leader.seat.replica, why=str(error))
            else:
                raise Installed("this copy was filled from a snapshot: start again, with it")
            await asyncio.to_thread(place.clear, self._disk)
            await asyncio.sleep(REST_S)
            self._leader = None

    async def _fill(self, leader: Holder, identity: LogIdentity) -> None:
        me, joins = self._machine.me, self._machine.joins
        self._number += 1
        await asyncio.to_thread(place.clear, self._disk)
        offered = await self._ask(Fetch(me, self._number, OFFER, 0), Offered)
        started = self._clock.monotonic()
        for number, part in enumerate(offered.parts):
            place.check_part(part.path)
            await self._receive(me, number, part)
        disk, options = self._disk, self._options

        def prove() -> list[str]:
            why = self._stock.prove(BESIDE, offered.sequence_end)
            if why:
                raise Failed(why)
            path, content = place.base_part(
                self._random,
                self._ring,
                identity,
                offered.base,
                self._clock.now(),
                master_key=options.master_key or "",
                chain_key=options.chain_key or "",
            )
            place.write_part(disk, path, content)
            return [path, *(one.path for one in offered.parts)]

        paths = await asyncio.to_thread(prove)
        if not self._machine.freeze(joins):
            raise Failed("this copy goes on by its own log meanwhile")
        try:
            await asyncio.to_thread(place.ready, disk, paths)
        except OSError as error:
            raise Installed(f"a copy that is whole could not be named: {error}") from error
        log.info(
            "copy.filled",
            leader=leader.seat.replica,
            base=offered.base.sequence,
            snapshot=offered.sequence_end,
            bytes=sum(one.size for one in offered.parts),
            took_s=round(self._clock.monotonic() - started, 3),
        )

    async def _ask(self, fetch: Fetch, kind: type[T]) -> T:
        """The answer to a question, asked until it comes."""
        leader = self._leader
        if leader is None:
            raise InvariantBroken("somebody is asked")
        for _ in range(ASKED_MAX):
            self._send(leader.seat.replica, fetch)
            try:
                async with asyncio.timeout(ASK_AGAIN_S):
                    while True:
                        answer = await self._answers.get()
                        if isinstance(answer, Withdrawn) and answer.number == fetch.number:
                            raise Failed(answer.why)
                        if isinstance(answer, kind) and _answers(answer, fetch):
                            return answer
            except TimeoutError:
                continue
        raise Failed("the leader does not answer")

    async def _receive(self, me: Holder, number: int, part: Part) -> None:
        """One part, to its last byte."""
        digest, position, unsynced = blake2b(digest_size=DIGEST_BYTES), 0, 0
        directory, _, _ = part.path.rpartition("/")
        await asyncio.to_thread(self._disk.make_directory, directory)
        file = await asyncio.to_thread(
            lambda: self._disk.open(part.path + BESIDE, create=True, write=True)
        )
        try:
            while True:
                piece = await self._ask(Fetch(me, self._number, number, position), Piece)
                digest.update(piece.data)
                unsynced += len(piece.data)
                sync = unsynced >= SYNC_BYTES or bool(piece.digest)
                await asyncio.to_thread(_write, file, piece, sync)
                unsynced = 0 if sync else unsynced
                position += len(piece.data)
                if piece.digest or not piece.data or position > part.size:
                    break
        finally:
            await asyncio.to_thread(file.close)
        if position != part.size or piece.digest != digest.digest():
            raise Failed(f"{part.path} is not what was offered")


def _answers(answer: Offered | Piece, fetch: Fetch) -> bool:
    if isinstance(answer, Offered):
        return answer.number == fetch.number
    asked = (fetch.number, fetch.part, fetch.position)
    return (answer.number, answer.part, answer.position) == asked


def _write(file: File, piece: Piece, sync: bool) -> None:  # noqa: FBT001  (called by position)
    file.pwrite(piece.data, piece.position)
    if sync:
        file.sync()
