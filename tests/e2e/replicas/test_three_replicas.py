"""As an operator of three copies, I lose a process at any moment and no acknowledged command.

Processes are killed, or stopped and let go on as if nothing had been.

Clients with a history send all the while, each command with one id until it is answered.  FAILOVERS
sets the number of kills.
"""

import asyncio
import json
import os
import random
import signal
from pathlib import Path

import pytest
from tests.e2e.replicas.processes import COPIES, WAIT_S, Copy, Trio

from ultraengine.client import Client, Reply
from ultraengine.client.client import Transport
from ultraengine.log.driver import Log, LogOptions
from ultraengine.model.ids import Epoch, ShardId
from ultraengine.model.limits import Limits
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.disk import LocalDisk
from ultraengine_adapters.local.random import SystemRandom
from ultraengine_adapters.local.secrets import FileSecrets

FAILOVERS = int(os.environ.get("FAILOVERS", "12"))
CLIENTS = 6
SEED = 20_261_130


def chains(copy: Copy) -> dict[int, bytes]:
    """The chain before each frame of a copy that has ended, by sequence."""
    log = Log.open(
        LocalDisk(copy.data / "shard-0000"),
        SystemClock(),
        SystemRandom(),
        FileSecrets(None, {}),
        LogOptions(
            shard=ShardId(0),
            epoch=Epoch(2**40),
            handlers=b"examines",
            replica=str(copy.number),
            limits=Limits(segment_bytes=512 * 1024, reserve_bytes=0, segments_prepared=0),
        ),
    )
    try:
        frames = log.reader().frames(int(log.recovered.first_sequence))
        found = {int(one.header.sequence): one.header.chain for one in frames}
        return found | {int(log.recovered.end_sequence): log.recovered.chain}
    finally:
        log.close(clean=False)


async def disturb(trio: Trio, rng: random.Random) -> None:
    """Kill the leader, a follower or all of them and start what was killed again, or stop the
    leader for longer than it may be silent and let it go on."""
    leader = await trio.leader()
    followers = [copy for copy in trio.copies if copy is not leader]
    victims = rng.choice([[leader], [leader], [rng.choice(followers)], trio.copies, []])
    if not victims:
        leader.signal(signal.SIGSTOP)
        await asyncio.sleep(rng.uniform(1.0, 4.0))
        leader.signal(signal.SIGCONT)
    for copy in victims:
        await copy.end(signal.SIGKILL)
    await asyncio.sleep(rng.uniform(0.0, 2.0))
    for copy in victims:
        await copy.start()
    await asyncio.sleep(rng.uniform(0.1, 1.0))


@pytest.mark.timeout(max(900, 60 * FAILOVERS))
async def test_no_acknowledged_command_is_lost_or_done_twice(tmp_path: Path) -> None:
    trio, rng = Trio(tmp_path), random.Random(SEED)
    try:
        await trio.start()
        await trio.leader()
        clients = [asyncio.create_task(trio.client(number)) for number in range(CLIENTS)]
        for _ in range(FAILOVERS):
            await disturb(trio, rng)
        trio.stopping = True
        await asyncio.gather(*clients)
        trio.history.check()
        assert len(trio.history.told) > FAILOVERS * CLIENTS
        assert await trio.counters() == trio.expected()
        assert {code for copy in trio.copies for code in copy.ends} <= {78}
        for copy in trio.copies:
            told = copy.log.read_text()
            ends = told.count('"process.ends"')
            assert told.count('"replica.ended"') >= ends, "who led and ended halted its shard first"
    finally:
        await trio.stop()
    logs = [chains(copy) for copy in trio.copies]
    last = max(reply["offset"] for reply in trio.history.told.values())
    assert last > 0
    common = min(max(log) for log in logs)
    assert common > FAILOVERS
    assert len({log[common] for log in logs}) == 1, "the copies are one history"


@pytest.mark.timeout(300)
async def test_a_follower_says_that_it_does_not_lead_and_a_stop_hands_over(tmp_path: Path) -> None:
    trio = Trio(tmp_path)
    try:
        await trio.start()
        leader = await trio.leader()
        client = asyncio.create_task(trio.client(0))
        await trio.told(200)
        assert await leader.end(signal.SIGTERM) == 0
        again = await trio.leader()
        assert again is not leader
        taken = [
            json.loads(line)
            for line in again.log.read_text().splitlines()
            if '"replica.takes_over"' in line
        ]
        assert taken[-1]["executed_end"] > 100, "it has executed while it followed"
        await trio.told(len(trio.history.told) + 20)
        trio.stopping = True
        await client
        trio.history.check()
        assert await trio.counters() == trio.expected()
        assert sum(copy.runs for copy in trio.copies) == COPIES - 1
    finally:
        await trio.stop()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("transport", ["http", "stream"])
async def test_our_client_finds_the_new_leader_by_itself(
    tmp_path: Path, transport: Transport
) -> None:
    trio = Trio(tmp_path)
    replies: list[Reply] = []
    ending = asyncio.Event()

    async def go_on(client: Client, key: str) -> None:
        while not ending.is_set():
            replies.append(await client.send("counter.add", key=key, data={"delta": 1}))

    async def forty_more() -> None:
        wanted = len(replies) + 40
        async with asyncio.timeout(WAIT_S):
            while len(replies) < wanted:  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.02)

    try:
        await trio.start()
        addresses = [copy.url for copy in trio.copies]
        async with Client(addresses, transport=transport, deadline_s=120.0) as client:
            tasks = [asyncio.create_task(go_on(client, key)) for key in ("a", "b", "c", "d")]
            await forty_more()
            for _ in range(3):
                leader = await trio.leader()
                await leader.end(signal.SIGKILL)
                await forty_more()
                await leader.start()
            ending.set()
            await asyncio.gather(*tasks)
            values = [(await client.get(f"counter/{key}")).value["value"] for key in "abcd"]
        assert sum(values) == len(replies)
        assert len({reply.offset for reply in replies}) == len(replies)
        assert len({reply.epoch for reply in replies}) >= 4
    finally:
        await trio.stop()
