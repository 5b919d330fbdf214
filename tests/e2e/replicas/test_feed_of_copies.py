"""As an operator of projections, I let copies serve the feed, and lose none of what was booked."""

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import msgspec
import pytest
from tests.e2e.replicas.booking import LEDGER, Booking, Worker
from tests.e2e.replicas.processes import WAIT_S, Copy, Trio

SMALL = {**LEDGER, "ULTRA_SNAPSHOT_COMMANDS": "150"}


async def feeds_at(copy: Copy) -> int:
    """How many feeds a copy serves; -1 while it does not answer."""
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{copy.url}/metrics") as answer,
        ):
            text = await answer.text()
    except aiohttp.ClientError:
        return -1
    (line,) = [one for one in text.splitlines() if one.startswith("ultra_edge_feeds_open ")]
    return int(float(line.split()[1]))


async def feeding(copies: Sequence[Copy]) -> Copy:
    """Wait until one of these serves a feed."""
    async with asyncio.timeout(WAIT_S):
        while True:
            for copy in copies:
                if copy.runs and await feeds_at(copy) > 0:
                    return copy
            await asyncio.sleep(0.05)


async def slots(copy: Copy) -> dict[str, int]:
    """Consumer slots by their name, as a leader says them."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{copy.url}/v1/feed/consumers") as answer,
    ):
        body = msgspec.json.decode(await answer.read())
        assert answer.status == 200, body
        return {one["name"]: one["offset"] for one in body["consumers"]}


@pytest.mark.timeout(300)
async def test_tables_fed_by_a_follower_and_then_by_the_leader_are_those_of_the_leader_alone(
    tmp_path: Path,
) -> None:
    trio, workers = Trio(tmp_path, LEDGER), []
    try:
        await trio.start()
        leader = await trio.leader()
        follower = next(one for one in trio.copies if one is not leader)
        await trio.in_sync(leader, 3)
        booking = Booking(trio)
        await booking.open()
        both, alone = (
            Worker(tmp_path, "both", [leader, follower]),
            Worker(tmp_path, "alone", [leader]),
        )
        for worker in (both, alone):
            await worker.start()
            workers.append(worker)
        await feeding([follower])
        await booking.book(60)
        await both.has(booking.booked // 2)
        assert await feeds_at(follower) == 1
        going_on = asyncio.create_task(booking.book(60))
        await both.has(booking.booked)
        await follower.end(signal.SIGKILL)
        await going_on
        await booking.book(30)
        for worker in workers:
            await worker.has(booking.booked)
        assert await feeds_at(leader) == 2
        found = both.tables()
        assert len(found["ledger_transfer"]) == booking.booked
        assert found == alone.tables()
        shared = both.chains().keys() & alone.chains().keys()
        assert shared
        assert {at: both.chains()[at] for at in shared} == {at: alone.chains()[at] for at in shared}
        await both.verify([leader])
        await follower.start()
        await trio.in_sync(leader, 3)
        await alone.verify([follower])
        await booking.client.close()
    finally:
        for worker in workers:
            await worker.stop()
        await trio.stop()


@pytest.mark.timeout(300)
async def test_a_slot_outlives_its_leader_and_what_it_holds_is_in_every_log(tmp_path: Path) -> None:
    trio = Trio(tmp_path, SMALL)
    worker = Worker(tmp_path, "books", trio.copies)
    try:
        await trio.start()
        leader = await trio.leader()
        await trio.in_sync(leader, 3)
        booking = Booking(trio)
        await booking.open()
        await worker.start()
        await booking.book(20)
        await worker.has(booking.booked)
        async with asyncio.timeout(WAIT_S):
            while (held := (await slots(leader)).get("projection.sqlite", 0)) < 15:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await worker.stop()
        await booking.book(600)  # Every copy takes snapshots, and would cut its log behind them.
        await leader.end(signal.SIGKILL)
        now = await trio.leader()
        assert (await slots(now))["projection.sqlite"] >= held
        await booking.book(20)
        await worker.start()
        fed_by = await feeding([one for one in trio.copies if one.runs])
        assert fed_by is not now
        await worker.has(booking.booked)
        assert worker.read("SELECT count(*) FROM ledger_transfer") == [(booking.booked,)]
        await booking.client.close()
    finally:
        await worker.stop()
        await trio.stop()
