"""As an operator of three copies, I replace a lost disk, or bring back a copy that was away for
longer than the log is kept, and nobody has to copy the whole history.

Clients with a history send all the while.  Logs are cut behind snapshots, on the leader and on its
followers, so what an empty copy needs is a snapshot and what comes behind it.
"""

import asyncio
import contextlib
import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from tests.e2e.replicas.processes import FILLED, WAIT_S, Copy, Trio
from tests.e2e.replicas.test_three_replicas import chains

from ultraengine.edge.auth import KnownCaller
from ultraengine.gateway.hop import hop_headers
from ultraengine.log.identity import decode_identity
from ultraengine.replication.store import decode_record
from ultraengine.router.shard_map import ShardMap

CLIENTS = 8
BATCHES, BATCH = 16, 200
SLOW_S = 2 * WAIT_S
"""Logs are cut when enough was written, and how long that takes is the machine's to say."""
SEED = 20_261_130
REFUSED = 75
SECRET = "hop-" * 10
SETTINGS = {
    # What is filled is looked at here, and no failover that a busy machine brings about.
    "ULTRA_FAILOVER_S": "4.0",
    "ULTRA_LIMIT_SEGMENT_BYTES": str(128 * 1024),
    "ULTRA_LIMIT_FRAME_BYTES_MAX": str(64 * 1024),
    "ULTRA_LIMIT_GROUP_BYTES_MAX": str(32 * 1024),
    # Remembered ids would hold the log for days.
    "ULTRA_LIMIT_RETENTION_BYTES_MAX": str(512 * 1024),
    "ULTRA_SNAPSHOT_COMMANDS": "600",
    "ULTRA_SNAPSHOTS_KEPT": "1",
}


def first_of(copy: Copy) -> int:
    """Sequence of the first frame that a copy's log still has."""
    names = sorted(one.name for one in (copy.data / "shard-0000" / "log").glob("seg-*.log"))
    return int(names[0][4:24]) if names else 0


def events(copy: Copy, name: str) -> list[dict[str, object]]:
    """What a copy has logged under a name."""
    lines = copy.log.read_text(errors="replace").splitlines()
    return [json.loads(one) for one in lines if f'"{name}"' in one]


async def happens(trio: Trio, what: Callable[[], object], why: str) -> None:
    deadline = time.monotonic() + SLOW_S
    while not what():
        tails = "\n".join(f"--- {one.number}\n{one.tail()}" for one in trio.copies)
        assert time.monotonic() < deadline, f"{why}\n{tails}"
        await asyncio.sleep(0.05)


def disk_of(copy: Copy) -> bytes | None:
    """The disk that a copy has now; None before it has begun one."""
    try:
        raw = (copy.data / "shard-0000" / "IDENTITY").read_bytes()
    except FileNotFoundError:
        return None
    return decode_identity(raw).disk_uuid


async def in_sync(trio: Trio, count: int) -> None:
    """Wait until the record counts so many copies, with the disks that they have now.

    A disk that was lost is counted until its leader has missed it for a while, and a machine may be
    fast enough to fill the one that replaces it meanwhile.
    """

    def seated() -> bool:
        isr = decode_record((trio.record / "RECORD").read_bytes()).isr
        return len(isr) == count and all(
            disk_of(trio.copies[seat.replica]) == seat.disk for seat in isr
        )

    await happens(trio, seated, f"not {count} copies in sync")


async def clients(trio: Trio) -> list[asyncio.Task[None]]:
    """Everybody is there, and there is a state that takes a while to send."""
    await trio.start()
    await trio.leader()
    rng = random.Random(SEED)
    for number in range(BATCHES):
        batch: list[dict[str, object]] = [
            {"id": f"{number}-{each}", "type": "counter.add", "data": {"delta": 1}, "key": key}
            for each, key in enumerate(f"{rng.getrandbits(880):0220x}" for _ in range(BATCH))
        ]
        await send_all(trio, batch)
    return [asyncio.create_task(trio.client(number)) for number in range(CLIENTS)]


async def send_all(trio: Trio, batch: list[dict[str, object]]) -> None:
    """Send one batch until all of it is answered."""
    deadline = time.monotonic() + WAIT_S
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while time.monotonic() < deadline:
            url = f"{(await trio.leader()).url}/v1/commands:batch"
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with session.post(url, json=batch) as answer:
                    replies = await answer.json()
                    if answer.status == 200 and all("offset" in one for one in replies):
                        return
    raise AssertionError("a batch is not answered")


async def cut(trio: Trio, copies: list[Copy]) -> None:
    """Wait until the logs of all of these begin behind their first frame."""
    await happens(trio, lambda: all(first_of(one) > 0 for one in copies), "a log is not cut")


async def end(trio: Trio, tasks: list[asyncio.Task[None]]) -> None:
    """Everybody is answered, and every counter is what was sent; all copies are one history."""
    await trio.told(len(trio.history.told) + 50)
    trio.stopping = True
    await asyncio.gather(*tasks)
    trio.history.check()
    assert await trio.counters() == trio.expected()
    await in_sync(trio, 3)
    for copy in trio.copies:
        assert not events(copy, "follower.differs")
        assert not events(copy, "follower.stopped"), copy.tail()
    await trio.stop()
    logs = [chains(copy) for copy in trio.copies]
    common = min(max(log) for log in logs)
    assert len({log[common] for log in logs}) == 1, "the copies are one history"


@pytest.mark.timeout(1200)
async def test_a_lost_disk_is_filled_from_a_snapshot_and_its_copy_leads_later(
    tmp_path: Path,
) -> None:
    trio = Trio(tmp_path, SETTINGS)
    try:
        tasks = await clients(trio)
        await cut(trio, trio.copies)
        leader = await trio.leader()
        lost = next(one for one in trio.copies if one is not leader)
        await lost.end(signal.SIGKILL)
        shutil.rmtree(lost.data)
        await lost.start()
        await happens(trio, lambda: lost.ends.count(FILLED), "it is not filled")
        await in_sync(trio, 3)
        assert events(lost, "copy.filled")
        assert first_of(lost) > 0
        # Of two copies that are needed it is one, and then the only one that has everything.
        third = next(one for one in trio.copies if one not in {leader, lost})
        await third.end(signal.SIGKILL)
        await trio.told(len(trio.history.told) + 50)
        await leader.end(signal.SIGKILL)
        await third.start()
        assert await trio.leader() is lost
        await leader.start()
        await end(trio, tasks)
    finally:
        await trio.stop()


@pytest.mark.timeout(1200)
async def test_a_copy_that_was_away_for_longer_than_the_log_is_kept_comes_back(
    tmp_path: Path,
) -> None:
    trio = Trio(tmp_path, SETTINGS)
    try:
        tasks = await clients(trio)
        await trio.told(200)
        leader = await trio.leader()
        away = next(one for one in trio.copies if one is not leader)
        await away.end(signal.SIGKILL)
        end_there = max(chains(away))
        await happens(
            trio,
            lambda: all(first_of(one) > end_there for one in trio.copies if one is not away),
            "a copy that is away holds the log",
        )
        identity = (away.data / "shard-0000" / "IDENTITY").read_bytes()
        await away.start()
        await happens(trio, lambda: away.ends.count(FILLED), "it is not filled")
        await in_sync(trio, 3)
        assert (away.data / "shard-0000" / "IDENTITY").read_bytes() == identity
        await end(trio, tasks)
    finally:
        await trio.stop()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("victim", ["leader", "receiver"])
async def test_a_kill_in_the_middle_of_a_transfer_leaves_a_copy_that_is_filled_later(
    tmp_path: Path, victim: str
) -> None:
    slow = {"ULTRA_CATCH_UP_BYTES_PER_S": str(256 * 1024)}
    trio = Trio(tmp_path, SETTINGS | slow)
    try:
        tasks = await clients(trio)
        await cut(trio, trio.copies)
        leader = await trio.leader()
        lost = next(one for one in trio.copies if one is not leader)
        await lost.end(signal.SIGKILL)
        shutil.rmtree(lost.data)
        await in_sync(trio, 2)
        await lost.start()
        beside = lost.data / "shard-0000"
        await happens(trio, lambda: list(beside.glob("*/*.install")), "nothing arrives")
        killed = leader if victim == "leader" else lost
        await killed.end(signal.SIGKILL)
        if victim == "leader":
            # Nobody else has all that was acknowledged: the copy in the middle does not lead.
            await asyncio.sleep(3.0)
        await killed.start()
        # A short copy is sent in one burst: the kill may come when all of it is there.
        await happens(trio, lambda: events(lost, "copy.filled"), "it is not filled")
        await in_sync(trio, 3)
        assert not list(beside.glob("*/*.install"))
        await end(trio, tasks)
    finally:
        await trio.stop()


async def add(leader: Copy, headers: dict[str, str], first: int, count: int) -> None:
    """Some commands, one after the other, as a gateway sends them to who leads."""
    async with aiohttp.ClientSession(headers=headers) as session:
        for number in range(first, first + count):
            command = {"id": f"a{number}", "type": "counter.add", "key": "k", "data": {"delta": 1}}
            async with session.post(f"{leader.url}/v1/commands", json=command) as answer:
                assert answer.status == 200, await answer.text()


@pytest.mark.timeout(600)
async def test_a_lost_disk_of_a_pod_is_filled_and_all_of_them_without_their_record_are_refused(
    tmp_path: Path,
) -> None:
    shard_map, hop_key = tmp_path / "map.json", tmp_path / "hop.key"
    shard_map.write_bytes(ShardMap.even(1).encode())
    hop_key.write_text(SECRET)
    pods = {"MAP": str(shard_map), "ENGINE_UID": "stories", "HOP_KEY": str(hop_key)}
    trio = Trio(tmp_path, SETTINGS | {f"ULTRA_{name}": told for name, told in pods.items()})
    caller = KnownCaller("default", "till", frozenset({"*:read", "*:write"}))
    headers = dict(hop_headers(SECRET, caller))
    try:
        await trio.start()
        leader = await trio.leader()
        await in_sync(trio, 3)
        await add(leader, headers, 0, 50)
        shard_map.write_bytes(ShardMap.even(1, version=2).encode())
        lost = next(one for one in trio.copies if one is not leader)
        await lost.end(signal.SIGKILL)
        shutil.rmtree(lost.data)
        await lost.start()
        await happens(trio, (lost.data / "shard-0000" / "SLOTS").exists, "the disk is refused")
        await in_sync(trio, 3)
        await add(leader, headers, 50, 50)
        assert REFUSED not in lost.ends
        await trio.stop()
        logs = [chains(copy) for copy in trio.copies]
        common = min(max(log) for log in logs)
        assert common >= 50
        assert len({log[common] for log in logs}) == 1, "the copies are one history"
        for copy in trio.copies:
            shutil.rmtree(copy.data)
        shutil.rmtree(trio.record)
        await lost.start()
        await happens(trio, lambda: REFUSED in lost.ends, "an empty disk is taken for a new one")
    finally:
        await trio.stop()
