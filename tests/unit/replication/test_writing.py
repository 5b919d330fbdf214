"""What one replica keeps on its disk: writes, flushes and cuts, one under the other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.replication.three import CLUSTER, LIMITS, until
from tests.unit.replication.troubled import TroubledDisk

from ultraengine.log.damage import LogRefused
from ultraengine.log.driver import LogOptions, Written
from ultraengine.log.frame import FrameDraft, FrameKind
from ultraengine.log.retention import TimeRetention
from ultraengine.model.ids import ConfigVersion, Epoch, Offset, ShardId
from ultraengine.ports import ObjectStore
from ultraengine.replication import wire
from ultraengine.replication.promise import Promise
from ultraengine.replication.record import ReplicaId
from ultraengine.replication.sizing import Wish
from ultraengine.replication.writing.driver import ReplicaFiles, ReplicaOptions, ReplicaWorld
from ultraengine.testing.feed_sources import SHARD, StoredFeed
from ultraengine.testing.sim_objects import SimObjectStore
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.random import SystemRandom
from ultraengine_adapters.local.record_store import DirectoryRecordStore
from ultraengine_adapters.local.secrets import FileSecrets

EPOCH, VERSION = Epoch(1), ConfigVersion(1)


class Kept:
    """The files of one replica, and what they told."""

    def __init__(
        self, place: Path, archive: ObjectStore | None = None, master_key: str | None = None
    ) -> None:
        self.disk = TroubledDisk(place / "disk")
        self.synced = 0
        self.failures: list[BaseException] = []
        world = ReplicaWorld(
            self.disk,
            SystemClock(),
            SystemRandom(),
            FileSecrets(None, {"ULTRA_SECRET_KEY": "hex:" + "6b" * 32}),
            DirectoryRecordStore(place / "record"),
            archive=archive,
        )
        options = ReplicaOptions(
            shard=ShardId(3),
            replica=ReplicaId(0),
            addresses=(("127.0.0.1", 1),),
            cluster_uid=CLUSTER,
            wish=Wish(replicas=1),
            log=LogOptions(
                shard=ShardId(3),
                epoch=Epoch(0),
                handlers=b"handlers",
                limits=LIMITS,
                master_key=master_key,
            ),
            compaction=None if archive is None else TimeRetention(),
        )
        self.files = ReplicaFiles(
            world, options, on_failure=self.failures.append, on_synced=self._on_synced
        )

    def _on_synced(self) -> None:
        self.synced += 1

    async def append(self, payload: bytes, version: ConfigVersion = VERSION) -> Written:
        """Write one frame; while none is being written."""
        point = self.files.view.log.point
        draft = FrameDraft(FrameKind.COMMANDS, point.offset, 1, point.time, payload)
        return await self.files.append([draft], EPOCH, version)

    async def durable(self) -> None:
        """Wait until everything that was written is."""
        view = self.files.view
        await until(lambda: view.durable_end == view.end and not self.files.flush_age_s)

    def payloads(self) -> list[bytes]:
        return [one.payload for one in self.files.view.log.reader().frames(0)]


@contextlib.asynccontextmanager
async def kept(place: Path, master_key: str | None = None) -> AsyncIterator[Kept]:
    """Opened, and closed at the end."""
    made = Kept(place, master_key=master_key)
    await asyncio.to_thread(made.files.open)
    await made.files.swear(Promise(EPOCH, None, VERSION, seated=True))
    try:
        yield made
    finally:
        made.disk.flows.set()
        made.disk.writes.set()
        await made.files.close(clean=False)


async def test_what_is_written_during_a_flush_is_synced_by_one_more(tmp_path: Path) -> None:
    async with kept(tmp_path) as made:
        await made.append(b"0")
        await made.durable()
        made.disk.flows.clear()
        before = made.synced
        point = made.files.view.log.point
        drafts = [
            FrameDraft(FrameKind.COMMANDS, Offset(point.offset + n), 1, point.time, b"%d" % (n + 1))
            for n in range(3)
        ]
        await asyncio.gather(*(made.files.append([one], EPOCH, VERSION) for one in drafts))
        view = made.files.view
        assert (view.end, view.durable_end, made.synced) == (4, 1, before)
        assert made.files.flush_age_s > 0
        made.disk.flows.set()
        await made.durable()
        assert made.synced == before + 2
        assert made.payloads() == [b"0", b"1", b"2", b"3"]


async def test_frames_of_another_version_wait_for_the_flush_of_those_before(tmp_path: Path) -> None:
    async with kept(tmp_path) as made:
        made.disk.flows.clear()
        await made.append(b"before")
        waiting = asyncio.ensure_future(made.append(b"after", ConfigVersion(2)))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert made.files.view.end == 1
        made.disk.flows.set()
        await waiting
        await made.durable()
        versions = [one.header.config_version for one in made.files.view.log.reader().frames(0)]
        assert versions == [1, 2]


async def test_a_cut_takes_the_end_away_keeps_it_aside_and_the_log_goes_on(tmp_path: Path) -> None:
    async with kept(tmp_path) as made:
        for number in range(4):
            await made.append(b"%d" % number)
        await made.durable()
        before = made.files.view.log
        assert b"2" in (await made.files.frames(2, 3))[0]
        made.disk.flows.clear()
        await made.append(b"under way")
        cutting = asyncio.ensure_future(made.files.cut(2))
        await asyncio.sleep(0.05)
        assert made.files.readable is before, "it waits for the flush"
        made.disk.writes.clear()
        made.disk.flows.set()
        await until(lambda: made.disk.held)
        assert made.files.readable is None, "nobody reads a log that is being cut"
        made.disk.writes.set()
        await cutting
        assert before is not made.files.view.log
        assert made.files.readable is made.files.view.log
        assert (made.files.view.end, made.payloads()) == (2, [b"0", b"1"])
        assert made.disk.list("broken")
        await made.append(b"instead")
        await made.durable()
        assert made.payloads() == [b"0", b"1", b"instead"]
        (raw,) = await made.files.frames(2, 3)
        assert b"instead" in raw, "what was read before the cut is not handed out again"


async def test_where_the_log_stands_is_told_of_what_was_written_in_this_life(
    tmp_path: Path,
) -> None:
    async with kept(tmp_path) as made:
        assert made.files.stand().end_sequence == 0
        written = await made.append(b"one")
        await made.durable()
        stand = made.files.stand()
        assert (stand.end_sequence, stand.end_offset, stand.last_epoch) == (1, 1, EPOCH)
        assert stand.chain == written.chain


async def test_a_write_that_nobody_waits_for_any_more_disturbs_nothing(tmp_path: Path) -> None:
    async with kept(tmp_path) as made:
        troubles: list[object] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: troubles.append(context)
        )
        await made.append(b"first")
        await made.durable()
        made.disk.writes.clear()
        writing = asyncio.ensure_future(made.append(b"second"))
        await until(lambda: made.disk.held)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        made.disk.writes.set()
        await until(lambda: made.files.view.log.point.sequence == 2)
        await made.files.close(clean=False)
        await asyncio.sleep(0)
        assert not troubles
        assert not made.failures


async def test_a_copy_archives_to_no_place_of_another_engine(tmp_path: Path) -> None:
    store = SimObjectStore()
    other = StoredFeed(compaction=TimeRetention(), store=store)
    other.write(100, count=3, size=60)
    other.cut()
    names = store.list(f"{SHARD}/")
    assert names
    with pytest.raises(LogRefused, match="of another engine"):
        await asyncio.to_thread(Kept(tmp_path, store).files.open)
    for name in names:
        store.delete(name)
    made = Kept(tmp_path, store)
    await asyncio.to_thread(made.files.open)  # The first one holds nothing any more.
    await made.files.close(clean=True)


@pytest.mark.parametrize("master_key", [None, "key"])
async def test_what_travels_is_what_stands_on_the_disk(
    tmp_path: Path, master_key: str | None
) -> None:
    async with kept(tmp_path, master_key) as made:
        for payload in (b"0", b"1" * 3_000):
            await made.append(payload)
            end = made.files.view.end
            read = made.files.view.log.reader().frames(end - 1, end, unsynced=True)
            expected = [wire.stored(frame) for frame in read]
            assert await made.files.frames(end - 1, end) == expected
        assert await made.files.frames(0, 1) != expected
