"""As an operator of projections, I build tables anew although every copy has cut its log."""

import asyncio
import shutil
import signal
from pathlib import Path

import pytest
from tests.e2e.replicas.booking import LEDGER, Booking, Worker
from tests.e2e.replicas.processes import WAIT_S, Copy, Trio


def settings(place: Path) -> dict[str, str]:
    return {
        **LEDGER,
        "ULTRA_COMPACTION": "time",
        "ULTRA_ARCHIVE": str(place / "archive"),
        "ULTRA_SNAPSHOT_COMMANDS": "60",
        "ULTRA_LIMIT_DEDUP_WINDOW_S": "1",
        "ULTRA_LIMIT_SEGMENT_BYTES": str(256 * 1024),
        "ULTRA_LIMIT_FRAME_BYTES_MAX": str(64 * 1024),
        "ULTRA_LIMIT_GROUP_BYTES_MAX": str(32 * 1024),
    }


def begins(copy: Copy) -> int:
    """The first frame of the log on a copy's disk."""
    names = (copy.data / "shard-0000" / "log").glob("seg-*.log")
    return min((int(one.stem.removeprefix("seg-")) for one in names), default=0)


async def book_until_cut(booking: Booking, copies: list[Copy]) -> None:
    """Book until each of these has cut the begin of its log."""
    async with asyncio.timeout(WAIT_S):
        while not all(begins(copy) > 0 for copy in copies):
            await booking.book(30)


@pytest.mark.timeout(300)
async def test_tables_are_built_from_offset_0_by_a_copy_that_never_had_it(tmp_path: Path) -> None:
    trio, workers = Trio(tmp_path, settings(tmp_path)), []
    booking = Booking(trio)
    try:
        await trio.start()
        leader = await trio.leader()
        await trio.in_sync(leader, 3)
        await booking.open()
        await book_until_cut(booking, trio.copies)
        late = next(one for one in trio.copies if one is not leader)
        await late.end(signal.SIGKILL)
        await trio.in_sync(leader, 2)
        shutil.rmtree(late.data)
        await late.start()
        await trio.in_sync(leader, 3)
        assert begins(late) > 0, "it was filled from a snapshot"
        await booking.book(100)
        by_late = Worker(tmp_path, "late", [late])
        by_leader = Worker(tmp_path, "leader", [leader])
        for worker in (by_late, by_leader):
            await worker.start()
            workers.append(worker)
        for worker in workers:
            await worker.has(booking.booked)
        assert len(by_late.tables()["ledger_transfer"]) == booking.booked
        assert by_late.tables() == by_leader.tables()
        await leader.end(signal.SIGKILL)
        now = await trio.leader()
        await by_late.verify([now])
    finally:
        await booking.client.close()
        for worker in workers:
            await worker.stop()
        await trio.stop()
