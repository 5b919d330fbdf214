"""Three replicas in one process, with real sockets, files and time, for the tests of drivers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from tests.servers.ports import free_ports

from ultraengine.log.driver import Log, LogOptions, Written
from ultraengine.log.frame import Frame, FrameDraft, FrameKind
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.model.limits import Limits
from ultraengine.replication.driver import ReplicaDriver
from ultraengine.replication.effects import ReplicaLimits
from ultraengine.replication.installing.stock import NO_STOCK
from ultraengine.replication.planner import PlannerLimits
from ultraengine.replication.record import Record, ReplicaId
from ultraengine.replication.sizing import Wish
from ultraengine.replication.store import decode_record
from ultraengine.replication.writing.driver import ReplicaOptions, ReplicaWorld
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.disk import LocalDisk
from ultraengine_adapters.local.random import SystemRandom
from ultraengine_adapters.local.record_store import DirectoryRecordStore
from ultraengine_adapters.local.secrets import FileSecrets

WAIT_S = 60.0
LIMITS = Limits(
    segment_bytes=128 * 1024, frame_bytes_max=32 * 1024, reserve_bytes=0, segments_prepared=0
)
LIMITS_OF_COPIES = ReplicaLimits(silence_s=1.0, read_s=0.1)
CLUSTER = b"u" * 16


async def until(happened: Callable[[], Any]) -> Any:
    """Wait for something; what it is."""
    async with asyncio.timeout(WAIT_S):
        while not (found := happened()):  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.01)
    return found


def free_addresses(count: int) -> tuple[tuple[str, int], ...]:
    return tuple(("127.0.0.1", port) for port in free_ports(count))


def epoch_start(epoch: Epoch, offset: Offset, time: Instant) -> FrameDraft:
    return FrameDraft(FrameKind.COMMANDS, offset, 1, time, f"epoch {epoch}".encode())


class Three:
    """Replicas by their number; None: not running."""

    def __init__(
        self,
        place: Path,
        certificates: Path | None = None,
        limits: ReplicaLimits = LIMITS_OF_COPIES,
        **log: Any,
    ) -> None:
        self.place = place
        self.shelves: dict[int, Any] = {}
        """By replica: its stock of snapshots, if it has one."""
        self.addresses = free_addresses(3)
        self.certificates = certificates
        self.limits = limits
        self.renew_record()
        self.log = log
        self.drivers: dict[int, ReplicaDriver] = {}
        self.ends: list[tuple[int, BaseException]] = []

    def renew_record(self) -> None:
        """Look for the record where it belongs, whoever was there before."""
        self.records = DirectoryRecordStore(self.place / "record")

    @staticmethod
    def disk(place: Path, number: int) -> LocalDisk:
        return LocalDisk(place / str(number))

    async def start(self, number: int, **changes: Any) -> ReplicaDriver:
        disk = changes.pop("disk", None)
        world = ReplicaWorld(
            self.disk(self.place, number) if disk is None else disk,
            SystemClock(),
            SystemRandom(),
            FileSecrets(None, {"ULTRA_SECRET_CHAIN": "hex:" + "63" * 32}),
            self.records,
            self.shelves.get(number, NO_STOCK),
        )
        told: dict[str, Any] = {
            "shard": ShardId(3),
            "replica": ReplicaId(number),
            "addresses": self.addresses,
            "cluster_uid": CLUSTER,
            "wish": Wish(3, 2),
            "log": LogOptions(
                shard=ShardId(3), epoch=Epoch(0), handlers=b"handlers", limits=LIMITS, **self.log
            ),
            "certificates": self.certificates,
            "limits": self.limits,
            "planner": PlannerLimits(silence_s=1.5),
        }
        driver = ReplicaDriver(
            world,
            ReplicaOptions(**(told | changes)),
            epoch_start,
            on_end=lambda error: self.ends.append((number, error)),
        )
        await driver.start()
        self.drivers[number] = driver
        return driver

    async def kill(self, number: int) -> None:
        """Without a word to anybody."""
        await self.drivers.pop(number).stop(clean=False)

    async def leader(self) -> int:
        """The one that serves."""

        def serving() -> list[int]:
            return [one for one, driver in self.drivers.items() if driver.machine.serves]

        return int((await until(serving))[0])

    async def commit(self, number: int, payload: bytes) -> Written:
        """One frame through its leader; what was told when it was committed."""
        driver = self.drivers[number]
        point = driver.files.view.log.point
        draft = FrameDraft(FrameKind.COMMANDS, point.offset, 1, point.time + 1, payload)
        told: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        driver.append([draft], told.set_result)
        async with asyncio.timeout(WAIT_S):
            return await told

    async def in_sync(self, count: int) -> Record:
        """Wait until the record has so many copies."""

        def record() -> Record | None:
            raw = self.records.read()
            found = None if raw is None else decode_record(raw)
            return found if found is not None and len(found.isr) == count else None

        found = await until(record)
        assert isinstance(found, Record)
        return found

    def frames(self, number: int) -> list[Frame]:
        """What is durable on its disk."""
        return list(self.drivers[number].files.view.log.reader().frames(0))

    async def equal(self) -> None:
        """Wait until all that run hold the same history."""
        views = [driver.files.view for driver in self.drivers.values()]
        await until(lambda: len({(view.durable_end, view.tip) for view in views}) == 1)


@contextlib.asynccontextmanager
async def three(
    place: Path,
    certificates: Path | None = None,
    *,
    shelf: Callable[[Path, int], Any] | None = None,
    limits: ReplicaLimits = LIMITS_OF_COPIES,
    **log: Any,
) -> AsyncIterator[Three]:
    """All of them started; ended at the end."""
    made = Three(place, certificates, limits, **log)
    if shelf is not None:
        made.shelves = {number: shelf(place, number) for number in range(3)}
    try:
        for number in range(3):
            await made.start(number)
        yield made
    finally:
        for number in list(made.drivers):
            await made.kill(number)


def write_alone(disk: LocalDisk, epochs: int) -> None:
    """The log of a shard of one copy: a frame in each epoch."""
    for epoch in range(1, epochs + 1):
        options = LogOptions(
            shard=ShardId(3), epoch=Epoch(epoch), handlers=b"handlers", limits=LIMITS,
            cluster_uid=CLUSTER,
        )  # fmt: skip
        log = Log.open(disk, SystemClock(), SystemRandom(), FileSecrets(None, {}), options)
        log.start(_raised, threads=False)
        draft = FrameDraft(
            FrameKind.COMMANDS, Offset(epoch - 1), 1, Instant(epoch), str(epoch).encode()
        )
        log.write([draft], lambda _written: None, sync=True)
        log.close(clean=True)


def _raised(error: BaseException) -> None:
    raise error
